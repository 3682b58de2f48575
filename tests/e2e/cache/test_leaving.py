"""Who leaves a call that others share, or is cut off from it, ends nothing for the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.cache.plays import Gate, new_id, response, stream
from tests.e2e.cache.sites import INPUT_NANOUSD, OUTPUT_NANOUSD, Site, body_of, word
from tests.e2e.cache.wire import Told, Visit
from tests.fakes.people import Key

CALL_NANOUSD = 11 * INPUT_NANOUSD + 7 * OUTPUT_NANOUSD
COME_S_MAX = 30.0
REVOKED_S_MAX = 2.0
REQUESTS = 5
FORMS = pytest.mark.parametrize("is_stream", [False, True], ids=["json", "stream"])
KINDS = pytest.mark.parametrize(
    ("site", "is_stream"),
    [
        pytest.param("embedded", True, id="embedded-stream"),
        pytest.param("shared", False, id="shared-json"),
        pytest.param("embedded", False, id="embedded-json", marks=pytest.mark.long),
        pytest.param("shared", True, id="shared-stream", marks=pytest.mark.long),
    ],
    indirect=["site"],
)


class Call:
    """One answer that waits for the test; who comes is known to have come."""

    def __init__(self, site: Site, *, is_stream: bool) -> None:
        self.site = site
        self.is_stream = is_stream
        self.gate = Gate()
        self.ids: list[str] = []
        self.model = f"played-{word()}"
        self.body = body_of("the same", model=self.model, stream=is_stream)
        site.serves(self.model, self._play)

    def _play(self, _seen):
        self.ids.append(new_id())
        if self.is_stream:
            return self.gate.stream(stream(self.ids[-1]))
        return self.gate.json(json.dumps(response(self.ids[-1])).encode())

    @property
    def whole(self) -> bytes:
        """What the first call says."""
        if self.is_stream:
            return b"".join(stream(self.ids[0]))
        return json.dumps(response(self.ids[0])).encode()

    async def come(self, *keys: Key) -> list[Visit]:
        """One after the other, so that the first is the one who calls."""
        visits: list[Visit] = []
        for key in keys:
            visits.append(await Visit.begin(self.site.port, key.text, self.body))
            await until(lambda: self.site.in_flight() == len(visits))
            await until(lambda: len(self.ids) == 1)
            if self.is_stream:
                assert await visits[-1].chunk()
        return visits


async def until(holds: Callable[[], bool], timeout_s: float = COME_S_MAX) -> None:
    async with asyncio.timeout(timeout_s):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.02)


def scene(call: Call, work: Callable[[], Awaitable[list[Told]]]) -> list[Told]:
    """What ``work`` returns; the gate is open when it has ended, whatever became of it."""

    async def run() -> list[Told]:
        try:
            return await work()
        finally:
            call.gate.open()

    return asyncio.run(run())


def check_whole(call: Call, told: list[Told]) -> None:
    assert [(one.status, one.is_whole) for one in told] == [(200, True)] * len(told)
    assert {one.body for one in told} == {call.whole}
    assert len(call.ids) == 1


@KINDS
def test_the_one_who_calls_leaves_first(site, key, is_stream):
    call = Call(site, is_stream=is_stream)
    colleague = site.key(team_id=key.team_id)

    async def work() -> list[Told]:
        caller, *others = await call.come(key, colleague, colleague)
        caller.leave()
        await until(lambda: site.metrics().get('headgate_disconnects_total{phase="shared"}', 0) > before)
        call.gate.open()
        return await asyncio.gather(*(other.rest() for other in others))

    before = site.metrics().get('headgate_disconnects_total{phase="shared"}', 0)
    told = scene(call, work)
    check_whole(call, told)
    assert {one.cache for one in told} == {"joined"}
    (paid,) = site.records(key, 1)
    assert (paid["cache"], paid["outcome"], paid["saved_nanousd"]) == ("miss", "disconnected", 0)
    assert paid["response_id"] == call.ids[0]
    for spared in site.records(colleague, 2):
        assert (spared["cache"], spared["outcome"], spared["saved_nanousd"]) == ("joined", "completed", CALL_NANOUSD)
    again = site.ask(key, body=call.body)
    assert (again.cache, again.body) == ("hit", call.whole), "it came to its end, and was kept"
    assert site.in_flight() == 0


@KINDS
def test_all_leave_but_the_last_one_that_came(site, key, is_stream):
    call = Call(site, is_stream=is_stream)

    async def work() -> list[Told]:
        *others, last = await call.come(key, key, key, key)
        for other in others:
            other.leave()
        # Of those who leave only the one who calls is still there.
        await until(lambda: site.in_flight() == 2)
        call.gate.open()
        return [await last.rest()]

    check_whole(call, scene(call, work))
    records = site.records(key, 4)
    assert sorted(row["outcome"] for row in records) == ["completed"] + ["disconnected"] * 3
    assert sum(row["saved_nanousd"] for row in records) == CALL_NANOUSD


@KINDS
def test_all_leave_and_the_call_is_made_all_the_same(site, key, is_stream):
    """By default it is drained: it is paid for, and the next who asks gets it."""
    call = Call(site, is_stream=is_stream)

    async def work() -> list[Told]:
        for visit in await call.come(key, key):
            visit.leave()
        await until(lambda: site.in_flight() == 1)
        call.gate.open()
        await until(lambda: site.in_flight() == 0)
        return []

    scene(call, work)
    again = site.ask(key, body=call.body)
    check_whole(call, [again])
    assert again.cache == "hit"
    outcomes = [(row["cache"], row["outcome"]) for row in site.records(key, 3)]
    assert outcomes == [("miss", "disconnected"), ("joined", "disconnected"), ("hit", "completed")]


def revoke(site: Site, key: Key) -> None:
    site.command("keys", "revoke", key.id, "--now")


def check_cut(told: Told, *, is_stream: bool) -> None:
    """A stream does not look whole, and nothing else was told at all."""
    if is_stream:
        assert not told.is_whole or told.events[-1]["type"] == "response.failed"
        assert b"response.completed" not in told.body
        return
    assert (told.status, told.code) == (401, "invalid_api_key")
    assert told.headers["x-should-retry"] == "false"


@KINDS
def test_the_key_of_the_one_who_calls_is_revoked_and_those_of_another_key_get_it_all(site, key, is_stream):
    call = Call(site, is_stream=is_stream)
    colleague = site.key(team_id=key.team_id)

    async def work() -> list[Told]:
        caller, *others = await call.come(key, colleague, colleague)
        await asyncio.to_thread(revoke, site, key)
        async with asyncio.timeout(REVOKED_S_MAX):
            cut = await caller.rest()
        assert site.in_flight() == 3, "the call goes on"
        call.gate.open()
        return [cut, *await asyncio.gather(*(other.rest() for other in others))]

    cut, *told = scene(call, work)
    check_cut(cut, is_stream=is_stream)
    check_whole(call, told)
    assert {one.cache for one in told} == {"joined"}
    (paid,) = site.records(key, 1)
    assert (paid["cache"], paid["response_id"]) == ("miss", call.ids[0])
    assert paid["outcome"] in {"interrupted", "disconnected"}
    assert [row["saved_nanousd"] for row in site.records(colleague, 2)] == [CALL_NANOUSD] * 2
    again = site.ask(colleague, body=call.body)
    assert (again.cache, again.body) == ("hit", call.whole)


@KINDS
def test_the_key_of_one_who_joined_is_revoked_and_only_that_one_is_cut_off(site, key, is_stream):
    call = Call(site, is_stream=is_stream)
    colleague, other = (site.key(team_id=key.team_id) for _ in range(2))

    async def work() -> list[Told]:
        caller, joined, third = await call.come(key, colleague, other)
        await asyncio.to_thread(revoke, site, colleague)
        async with asyncio.timeout(REVOKED_S_MAX):
            cut = await joined.rest()
        assert site.in_flight() == 2
        call.gate.open()
        return [cut, *await asyncio.gather(caller.rest(), third.rest())]

    cut, *told = scene(call, work)
    check_cut(cut, is_stream=is_stream)
    check_whole(call, told)
    assert [one.cache for one in told] == ["miss", "joined"]
    (paid,) = site.records(key, 1)
    assert (paid["outcome"], paid["cache"]) == ("completed", "miss")
    # One that was told nothing leaves no record: nothing was done for it.
    for row in site.records(colleague, int(is_stream)):
        assert (row["outcome"], row["error_code"], row["saved_nanousd"]) == ("interrupted", "key_revoked", 0)
    site.check_ledger()


@KINDS
def test_the_only_key_of_a_call_is_revoked_and_the_call_is_cut(site, key, is_stream):
    call = Call(site, is_stream=is_stream)

    async def work() -> list[Told]:
        visits = await call.come(*[key] * REQUESTS)
        await asyncio.to_thread(revoke, site, key)
        async with asyncio.timeout(REVOKED_S_MAX):
            return await asyncio.gather(*(visit.rest() for visit in visits))

    for told in scene(call, work):
        check_cut(told, is_stream=is_stream)
    # One that joined and was told nothing leaves no record: nothing was done for it.
    for row in site.records(key, REQUESTS if is_stream else 1):
        assert (row["outcome"], row["error_code"]) == ("interrupted", "key_revoked")
    other = site.key(team_id=key.team_id)
    assert site.ask(other, body=call.body).cache == "miss", "what was cut is not kept"
    assert len(call.ids) == 2
