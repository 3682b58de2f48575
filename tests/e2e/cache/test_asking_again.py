"""Who waited in vain asks again, and is refused only what binds them themselves."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from tests.e2e.cache.sites import Site, body_of, word
from tests.e2e.cache.test_leaving import FORMS, REVOKED_S_MAX, Call, check_whole, revoke, scene, until
from tests.e2e.cache.wire import Told, Visit
from tests.fakes.people import rule

STALL_S = 2.0
SEEN_S_MAX = 3.0


@FORMS
def test_what_was_reserved_while_another_replica_called_is_no_hindrance(pair, is_stream):
    here, there = pair
    key = here.key(rule("requests", 100, "minute"), rule("concurrency", 10))
    there.people.team()
    call = Call(here, is_stream=is_stream)

    async def work() -> list[Told]:
        caller = (await call.come(key))[0]
        others = [await Visit.begin(there.port, key.text, call.body) for _ in range(4)]
        await until(lambda: there.in_flight() == 4)
        call.gate.open()
        return await asyncio.gather(caller.rest(), *(other.rest() for other in others))

    told = scene(call, work)
    check_whole(call, told)
    assert [one.cache for one in told] == ["miss", "hit", "hit", "hit", "hit"]
    records = here.records(key, 5)
    assert sorted(row["cache"] for row in records) == ["hit"] * 4 + ["miss"]
    assert {row["request_id"] for row in records} == {one.request_id for one in told}
    last = here.ask(key, body=call.body)
    assert (last.cache, last.headers["x-ratelimit-remaining-requests"]) == ("hit", "94"), "each was counted once"


def test_a_budget_that_is_spent_refuses_each_with_its_own_words(site):
    key = site.key(rule("money", 1, "day"))
    body = body_of(word(), max_output_tokens=50)
    told = site.ask_at_once(*[(key, body)] * 40)
    assert {(one.status, one.code) for one in told} == {(429, "insufficient_quota")}
    assert len({one.request_id for one in told}) == 40
    assert all(len([name for name in one.headers if name == "x-headgate-cache"]) == 1 for one in told)
    assert site.in_flight() == 0


def test_where_the_one_who_calls_is_refused_a_colleague_makes_the_call(site):
    team = site.people.team()
    poor = site.key(rule("money", 1, "day"), team_id=team)
    rich = site.key(rule("requests", 50, "minute"), team_id=team)
    body = body_of(word(), max_output_tokens=50)
    with site.calls() as calls:
        told = site.ask_at_once((poor, body), (rich, body), (poor, body), (rich, body), (poor, body))
    assert [one.status for one in told] == [429, 200, 429, 200, 429]
    assert len(calls) == 1
    assert told[1].body == told[3].body


@FORMS
def test_the_one_who_calls_leaves_and_is_revoked_then(site, key, is_stream):
    call = Call(site, is_stream=is_stream)
    colleague = site.key(team_id=key.team_id)

    async def work() -> list[Told]:
        caller, *others = await call.come(key, colleague, colleague)
        caller.leave()
        await until(lambda: site.metrics().get('headgate_disconnects_total{phase="shared"}', 0) > before)
        await asyncio.to_thread(revoke, site, key)
        await asyncio.sleep(REVOKED_S_MAX / 2)
        call.gate.open()
        return await asyncio.gather(*(other.rest() for other in others))

    before = site.metrics().get('headgate_disconnects_total{phase="shared"}', 0)
    check_whole(call, scene(call, work))


def test_a_key_that_is_revoked_does_not_wait_for_another_replica(pair):
    here, there = pair
    key, other = here.key(), None
    call = Call(here, is_stream=False)
    other = here.key(team_id=key.team_id)
    there.ask(other, word())

    async def work() -> list[Told]:
        caller = (await call.come(key))[0]
        waiting = await Visit.begin(there.port, other.text, call.body)
        await until(lambda: there.in_flight() == 1)
        await asyncio.to_thread(revoke, here, other)
        async with asyncio.timeout(30):
            cut = await waiting.rest()
        call.gate.open()
        return [cut, await caller.rest()]

    cut, told = scene(call, work)
    assert (cut.status, cut.code, cut.headers["x-should-retry"]) == (401, "invalid_api_key", "false")
    check_whole(call, [told])


def test_after_the_cache_was_cleared_nobody_joins_what_began_before(embedded):
    key = embedded.key()
    call = Call(embedded, is_stream=False)

    async def work() -> list[Told]:
        caller = (await call.come(key))[0]
        await asyncio.to_thread(embedded.command, "cache", "clear", "--team", key.team_id)
        await asyncio.sleep(SEEN_S_MAX)
        later = await Visit.begin(embedded.port, key.text, call.body)
        await until(lambda: len(call.ids) == 2)
        call.gate.open()
        return await asyncio.gather(caller.rest(), later.rest())

    told = scene(call, work)
    assert [one.cache for one in told] == ["miss", "miss"]
    assert [one.id for one in told] == call.ids


def test_a_refresh_makes_both_forms_new(site, key):
    text = word()
    first = [site.ask(key, text, stream=stream).id for stream in (True, False)]
    assert len(set(first)) == 1
    again = site.ask(key, text, stream=True, headers={"x-headgate-cache": "refresh"})
    assert again.id != first[0]
    assert {site.ask(key, text, stream=stream).id for stream in (True, False)} == {again.id}
    last = site.ask(key, text, headers={"cache-control": "no-cache"})
    assert {site.ask(key, text, stream=stream).id for stream in (True, False)} == {last.id}


def test_a_gateway_that_stood_still_does_not_carry_out_twice_what_it_carries_out(embedded):
    key = embedded.key()
    call = Call(embedded, is_stream=False)
    headers = ["idempotency-key: once"]

    async def work() -> list[Told]:
        first = await Visit.begin(embedded.port, key.text, call.body, headers=headers)
        await until(lambda: len(call.ids) == 1)
        assert embedded.gateway.process is not None
        pid = embedded.gateway.process.pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(STALL_S)
        second = await Visit.begin(embedded.port, key.text, call.body, headers=headers)
        os.kill(pid, signal.SIGCONT)
        refused = await second.rest()
        call.gate.open()
        return [refused, await first.rest()]

    refused, told = scene(call, work)
    assert (refused.status, refused.code) == (409, "idempotency_key_in_use")
    assert (told.status, len(call.ids)) == (200, 1)


@pytest.mark.quiet
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_body_that_takes_long_to_look_through_holds_nobody_up(embedded, temperature):
    key = embedded.key()
    # Not as msgspec would write it, and with a word that has it looked through.
    item = {"role": "user", "content": [{"type": "input_text", "text": "hi", "x": [{}] * 60_000, "id": "a"}]}
    body = body_of("", temperature=temperature, input=[item] * 4)
    waited = []

    async def work() -> None:
        asked = asyncio.create_task(_ask(embedded, key.text, body))
        while not asked.done():
            began = time.monotonic()
            await asyncio.to_thread(embedded.in_flight)
            waited.append(time.monotonic() - began)
        await asked

    asyncio.run(work())
    assert max(waited) < 0.5


async def _ask(site: Site, key: str, body: dict) -> Told:
    return await (await Visit.begin(site.port, key, body)).rest()
