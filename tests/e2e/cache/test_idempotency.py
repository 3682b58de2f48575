"""A request with an Idempotency-Key is carried out once, and its answer repeated to whoever asks again."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.cache.sites import Site, body_of, cost_nanousd, word
from tests.e2e.cache.wire import CHAT, RESPONSES, Told, Visit
from tests.fakes.people import Key, rule

FREED_S_MAX = 10.0
FAILURES = ("error=500", "error=429", "error=400", "cut=head", "badjson=1", "cut_after=1", "html=1")
SHORT = {("embedded", RESPONSES, False), ("embedded", CHAT, True), ("shared", RESPONSES, True), ("shared", CHAT, False)}
KINDS = [
    pytest.param(
        place,
        path,
        stream,
        id=f"{place}-{path.rpartition('/')[2]}-{'stream' if stream else 'json'}",
        marks=[] if place == "replicas" or (place, path, stream) in SHORT else pytest.mark.long,
    )
    for place in ("embedded", "shared", "replicas")
    for path in (RESPONSES, CHAT)
    for stream in (False, True)
]


def lively(text: str, *, path: str = RESPONSES, stream: bool = False) -> dict:
    """No two answers to it are alike, and its answer is stored: a request that the cache leaves alone."""
    return body_of(text, path=path, stream=stream, temperature=1, store=True)


def line(name: str) -> list[str]:
    return [f"idempotency-key: {name}"]


async def begun(site: Site, key: Key, body: dict, name: str, *, path: str = RESPONSES) -> Visit:
    """A request whose call is being made."""
    before = site.simulator.log.last_number
    visit = await Visit.begin(site.port, key.text, body, path=path, headers=line(name))
    await site.called(before)
    return visit


async def asked(site: Site, key: Key, body: dict, name: str, *, path: str = RESPONSES) -> Told:
    return await (await Visit.begin(site.port, key.text, body, path=path, headers=line(name))).rest()


async def freed(site: Site, key: Key, body: dict, name: str) -> Told:
    """The first answer that is not that the key is in use."""
    async with asyncio.timeout(FREED_S_MAX):
        while (told := await asked(site, key, body, name)).status == 409:
            assert told.code == "idempotency_key_in_use"
            await asyncio.sleep(0.05)
    return told


@pytest.mark.parametrize(("places", "path", "stream"), KINDS, indirect=["places"])
def test_it_runs_once_and_is_repeated_byte_for_byte(places, path, stream):
    first, second = places
    key = first.key()
    name = word()
    body = lively(f"[[sim: first_ms=300]] Say {name}.", path=path, stream=stream)
    other = lively(f"Say something else than {name}.", path=path, stream=stream)

    async def work() -> tuple[Told, Told, Told]:
        visit = await begun(first, key, body, name, path=path)
        running = await asked(second, key, body, name, path=path)
        different = await asked(second, key, other, name, path=path)
        return running, different, await visit.rest()

    with first.calls() as calls:
        running, different, told = asyncio.run(work())
        repeats = [asyncio.run(asked(site, key, body, name, path=path)) for site in (first, second)]
        late = asyncio.run(asked(second, key, other, name, path=path))
    assert (running.status, running.code) == (409, "idempotency_key_in_use")
    assert int(running.headers["retry-after"]) >= 1
    assert (different.status, different.code) == (422, "idempotency_key_reused")
    assert (late.status, late.code) == (422, "idempotency_key_reused")
    assert (told.status, told.cache, told.is_whole) == (200, "miss", True)
    for repeat in repeats:
        assert (repeat.status, repeat.cache, repeat.body) == (200, "hit", told.body)
        assert repeat.headers["cache-status"].endswith('; detail="idempotency key"')
        assert repeat.request_id != told.request_id
    (call,) = calls
    assert told.id == call.response_id
    records = first.records(key, 3)
    assert [row["cache"] for row in records] == ["miss", "hit", "hit"]
    if path == RESPONSES or not stream:
        assert [row["saved_nanousd"] for row in records] == [0] + [cost_nanousd(call)] * 2


def test_another_key_with_the_same_idempotency_key_is_independent(places):
    first, second = places
    keys = [first.key()]
    keys.append(first.key(team_id=keys[0].team_id))
    name = word()
    body = lively(f"[[sim: first_ms=300]] Say {name}.")

    async def work() -> list[Told]:
        visits = [await begun(site, key, body, name) for site, key in zip(places, keys, strict=True)]
        return [await visit.rest() for visit in visits]

    with first.calls() as calls:
        told = asyncio.run(work())
    assert [one.cache for one in told] == ["miss", "miss"]
    assert len(calls) == 2
    again = [asyncio.run(asked(second, key, body, name)) for key in keys]
    assert [one.body for one in again] == [one.body for one in told]
    assert told[0].id != told[1].id


def test_another_path_with_the_same_idempotency_key_is_independent(places):
    first, _ = places
    key = first.key()
    name = word()
    told = [asyncio.run(asked(first, key, lively(name, path=path), name, path=path)) for path in (RESPONSES, CHAT)]
    assert [(one.status, one.cache) for one in told] == [(200, "miss")] * 2


def test_a_client_that_left_in_the_middle_of_a_stream_gets_all_of_it_when_it_asks_again(places):
    first, second = places
    key = first.key()
    name = word()
    body = lively(f"[[sim: tokens=30 pace_ms=20]] Say {name}.", stream=True)

    async def work() -> tuple[list[bytes], Told, Told]:
        visit = await begun(first, key, body, name)
        seen = [await visit.chunk() for _ in range(3)]
        visit.leave()
        soon = await asked(second, key, body, name)
        return seen, soon, await freed(second, key, body, name)

    with first.calls() as calls:
        seen, soon, told = asyncio.run(work())
    assert soon.status == 409, "it is drained meanwhile"
    assert (told.status, told.cache, told.is_whole) == (200, "hit", True)
    assert told.body.startswith(b"".join(seen))
    assert told.events[-1]["type"] == "response.completed"
    (call,) = calls
    assert (call.outcome, call.response_id) == ("completed", told.id)
    outcomes = [(row["cache"], row["outcome"]) for row in first.records(key, 2)]
    assert outcomes == [("miss", "disconnected"), ("hit", "completed")]


def test_a_client_that_left_before_the_answer_gets_it_when_it_asks_again(places):
    first, second = places
    key = first.key()
    name = word()
    body = lively(f"[[sim: first_ms=250]] Say {name}.")

    async def work() -> Told:
        (await begun(first, key, body, name)).leave()
        return await freed(second, key, body, name)

    with first.calls() as calls:
        told = asyncio.run(work())
    assert (told.status, told.cache) == (200, "hit")
    assert [call.response_id for call in calls] == [told.id]


def test_after_a_call_that_failed_the_key_is_free(places):
    first, second = places
    key = first.key()

    async def work(steering: str) -> list[Told]:
        name = word()
        body = lively(f"[[sim: times=1 tag={name} {steering}]] hi")
        return [await asked(site, key, body, name) for site in (first, second, first)]

    async def all_of_them() -> list[list[Told]]:
        return await asyncio.gather(*map(work, FAILURES))

    with first.calls() as calls:
        found = asyncio.run(all_of_them())
    assert len(calls) == 2 * len(FAILURES)
    for told in found:
        assert told[0].status >= 400
        assert [(one.status, one.cache) for one in told[1:]] == [(200, "miss"), (200, "hit")]
        assert told[2].body == told[1].body


def test_after_a_stream_that_was_cut_the_key_is_free(places):
    first, second = places
    key = first.key()
    name = word()
    body = lively(f"[[sim: times=1 tag={name} cut_after=5]] hi", stream=True)
    told = [asyncio.run(asked(site, key, body, name)) for site in (first, second, first)]
    assert told[0].events[-1]["type"] == "response.failed"
    assert [one.cache for one in told] == ["miss", "miss", "hit"]
    assert told[1].events[-1]["type"] == "response.completed"
    assert told[2].body == told[1].body


def test_after_a_refusal_by_a_limit_the_key_is_free(places):
    first, _ = places
    key = first.key(rule("concurrency", 1))
    name = word()
    body = lively(f"Say {name}.")

    async def work() -> tuple[Told, Told]:
        visit = await begun(first, key, lively(f"[[sim: first_ms=250]] {name}"), f"{name}-first")
        refused = await asked(first, key, body, name)
        await visit.rest()
        return refused, await asked(first, key, body, name)

    refused, told = asyncio.run(work())
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    assert (told.status, told.cache) == (200, "miss")


def test_what_was_cut_to_its_length_or_refused_is_repeated_all_the_same(places):
    """It is the answer that the key stands for."""
    first, second = places
    key = first.key()
    cut = {**lively("[[sim: tokens=40]] Say it."), "max_output_tokens": 16}
    for body in (cut, lively("[[sim: refuse=1]] Say it.")):
        name = word()
        told = [asyncio.run(asked(site, key, body, name)) for site in (first, second)]
        assert [one.cache for one in told] == ["miss", "hit"]
        assert told[1].body == told[0].body


def test_of_many_at_once_one_runs(places):
    key = places[0].key()
    name = word()
    body = lively(f"[[sim: first_ms=250]] Say {name}.")

    async def work() -> list[Told]:
        return await asyncio.gather(*(asked(places[number % 2], key, body, name) for number in range(12)))

    with places[0].calls() as calls:
        told = asyncio.run(work())
    assert sorted(one.status for one in told) == [200] + [409] * 11
    assert len(calls) == 1


@pytest.mark.parametrize(("name", "status"), [("k" * 255, 200), ("k" * 256, 400), ("", 400), ("ü", 400), ("a b", 200)])
def test_a_key_has_1_to_255_printable_characters(site, key, name, status):
    told = site.ask(key, body=lively(f"Say {word()}."), headers={"idempotency-key": name})
    assert told.status == status
    if status == 400 and name.isascii():
        assert told.json["error"]["param"] == "idempotency-key"


def test_such_a_request_is_neither_answered_from_the_cache_nor_kept_there(site, key):
    text = f"Say {word()}."
    with site.calls() as calls:
        told = [
            site.ask(key, text, headers=headers)
            for headers in ({"idempotency-key": word()}, {}, {"idempotency-key": word()}, {})
        ]
    assert [one.cache for one in told] == ["miss", "miss", "miss", "hit"]
    assert len(calls) == 3
    assert told[3].id == told[1].id
