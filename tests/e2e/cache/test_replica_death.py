"""A replica that makes the call for others is killed: one of the others makes it, before long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.e2e.cache.sites import SOON_S_MAX, Site, body_of, opened_site, word
from tests.e2e.cache.wire import Told, Visit
from tests.e2e.doors import SHARED
from tests.fakes.fleet import wait_for

CALLED_S_MAX = 10.0
WAITING = 4
LOOKS_S = 0.5


@pytest.fixture(scope="module")
def mortal(tmp_path_factory) -> Iterator[tuple[Site, Site]]:
    """Two replicas that no other file has."""
    folders = [tmp_path_factory.mktemp(name) for name in ("leading", "waiting")]
    with opened_site(folders[0], SHARED) as first, first.twin(folders[1]) as second:
        yield first, second


@pytest.mark.parametrize("stream", [False, True])
def test_the_other_replica_makes_the_call_soon_after_the_first_was_killed(mortal, stream):
    first, second = mortal
    key = first.key()
    said = word()
    slow = f"first_ms={0 if stream else 20_000} pace_ms={500 if stream else 0} tokens=60 times=1 tag={said}"
    body = body_of(f'[[sim: {slow}]] Say "{said}".', stream=stream)
    log = first.simulator.log
    before = log.last_number

    async def work() -> tuple[bool, float, list[Told]]:
        leading = await Visit.begin(first.port, key.text, body)
        await first.called(before)
        if stream:
            assert await leading.chunk()
        waiting = [await Visit.begin(second.port, key.text, body) for _ in range(WAITING)]
        async with asyncio.timeout(SOON_S_MAX):
            while second.in_flight() < WAITING:
                await asyncio.sleep(0.01)
        await asyncio.sleep(LOOKS_S)
        assert log.last_number == before + 1, "the other one waits"
        first.gateway.kill()
        killed_s = time.monotonic()
        await first.called(before, 2)
        called_s = time.monotonic()
        told = await asyncio.gather(*(visit.rest() for visit in waiting))
        try:
            was_told = (await leading.rest()).is_whole
        except ConnectionError:
            was_told = False
        return was_told, called_s - killed_s, told

    try:
        was_told, took_s, told = asyncio.run(work())
    finally:
        if first.gateway.process.poll() is not None:
            first.gateway.start()
    assert not was_told
    assert took_s < CALLED_S_MAX
    assert log.last_number == before + 2, "one of those who waited, for all of them"
    assert [(one.status, one.is_whole) for one in told] == [(200, True)] * WAITING
    assert sorted(one.cache for one in told) == ["joined"] * (WAITING - 1) + ["miss"]
    assert len({one.body for one in told}) == 1
    assert said in told[0].response["output"][0]["content"][0]["text"]
    assert second.is_own(next(one for one in told if one.cache == "miss"))
    assert first.ask(key, body=body).body == told[0].body, "the first one is back, and finds it"
    # What it had begun is on the bill: nobody knows how far it got.
    second.settled()
    wait_for(lambda: len(first.people.records_of(key.id)) == WAITING + 2)
    rows = first.people.records_of(key.id)
    assert [row["outcome"] for row in rows].count("interrupted") == 1
    assert rows[0]["error_code"] == "gateway_crashed"
    first.check_ledger()
