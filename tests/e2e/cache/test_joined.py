"""A thousand equal requests at once are one call for each form, and each of them has its own place on the bill."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.e2e.cache.plays import Gate, new_id, response, stream
from tests.e2e.cache.sites import INPUT_NANOUSD, OUTPUT_NANOUSD, Site, body_of, word
from tests.e2e.cache.wire import Told, Visit
from tests.fakes.people import Key

REQUESTS = 1000
LEAVERS = 100
CALL_NANOUSD = 11 * INPUT_NANOUSD + 7 * OUTPUT_NANOUSD
ARRIVE_S_MAX = 20.0
LOOK_S = 0.3
FORMS = (False, True)


class Plays:
    """An answer of its own for each call; none ends before the gate opens."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.calls: list[bool] = []

    def __call__(self, seen):
        is_stream = json.loads(seen.body).get("stream", False)
        self.calls.append(is_stream)
        if is_stream:
            return self.gate.stream(stream(new_id()))
        return self.gate.json(json.dumps(response(new_id())).encode())


@dataclass
class Crowd:
    """Those who stay get answers; those who leave do so when all have come."""

    sites: Sequence[Site]
    key: Key
    model: str
    text: str
    told: dict[tuple[int, bool], list[Told]] = field(default_factory=dict)
    _all_came: asyncio.Event = field(default_factory=asyncio.Event)

    async def visit(self, number: int, *, leaves: bool) -> None:
        place = number // 2 % len(self.sites)
        is_stream = bool(number % 2)
        body = body_of(self.text, model=self.model, stream=is_stream)
        visit = await Visit.begin(self.sites[place].port, self.key.text, body)
        if leaves:
            await self._all_came.wait()
            with suppress(TimeoutError):
                # Of a stream its first half; at the replica that does not call there is nothing yet.
                async with asyncio.timeout(LOOK_S):
                    await visit.chunk()
            visit.leave()
            return
        self.told.setdefault((place, is_stream), []).append(await visit.rest())

    async def in_flight(self, wanted: range) -> None:
        async with asyncio.timeout(ARRIVE_S_MAX):
            while sum([await asyncio.to_thread(site.in_flight) for site in self.sites]) not in wanted:
                assert not [told for told in self.told.values() if told], "nobody is answered before the gate opens"
                await asyncio.sleep(0.05)

    async def come_and_go(self, plays: Plays, first: int) -> None:
        """The first ones come before the others, and stay."""
        async with asyncio.TaskGroup() as group:
            try:
                for number in range(first):
                    group.create_task(self.visit(number, leaves=False))
                await self.in_flight(range(first, first + 1))
                for number in range(first, REQUESTS):
                    group.create_task(self.visit(number, leaves=number >= REQUESTS - LEAVERS))
                await self.in_flight(range(REQUESTS, REQUESTS + 1))
                while len(plays.calls) < len(FORMS):
                    await asyncio.sleep(0.05)
                self._all_came.set()
                # Whose call it is stays until the call has ended, though its client has left.
                await self.in_flight(range(REQUESTS - LEAVERS, REQUESTS - LEAVERS + 1 + len(FORMS)))
            finally:
                plays.gate.open()


def check_bill(site: Site, key: Key) -> Counter[str]:
    """One call of each form is paid for, all others cost nothing; how many there are of each kind."""
    records = site.records(key, REQUESTS)
    by_cache = Counter(row["cache"] for row in records)
    assert by_cache["miss"] == len(FORMS)
    assert by_cache["miss"] + by_cache["joined"] + by_cache["hit"] == REQUESTS
    assert Counter(row["outcome"] for row in records) == {"completed": REQUESTS - LEAVERS, "disconnected": LEAVERS}
    assert [sum(row["stream"] == form for row in records) for form in FORMS] == [REQUESTS // 2] * 2
    spared = [row for row in records if row["cache"] != "miss"]
    for row in spared:
        assert row["saved_nanousd"] == (CALL_NANOUSD if row["outcome"] == "completed" else 0)
    stayed = sum(row["outcome"] == "completed" for row in spared)
    assert sum(row["saved_nanousd"] for row in records) == stayed * CALL_NANOUSD
    team = site.people.name_of_team(key.team_id)
    (row,) = [row for row in site.json("usage", "--by", "team") if row["team"] == team]
    assert (row["requests"], float(row["cost_usd"])) == (REQUESTS, len(FORMS) * CALL_NANOUSD / 1e9)
    assert float(row["saved_usd"]) == stayed * CALL_NANOUSD / 1e9
    site.check_ledger()
    return by_cache


def check_answers(told: list[Told], *, is_stream: bool) -> None:
    """All of them got the same one, whole."""
    assert all(one.status == 200 and one.is_whole for one in told)
    assert {one.is_stream for one in told} == {is_stream}
    assert len({one.body for one in told}) == 1
    assert len({one.request_id for one in told}) == len(told)
    if is_stream:
        told[0].check_boundaries()


def test_a_thousand_at_once_are_one_call_for_each_form(site, key):
    plays = Plays()
    model = f"played-{word()}"
    site.serves(model, plays)

    async def work() -> dict[tuple[int, bool], list[Told]]:
        crowd = Crowd([site], key, model, word())
        await crowd.come_and_go(plays, 0)
        return crowd.told

    told = asyncio.run(work())
    assert sorted(plays.calls) == [False, True]
    for (_, is_stream), answers in told.items():
        check_answers(answers, is_stream=is_stream)
    assert [len(told[0, form]) for form in FORMS] == [(REQUESTS - LEAVERS) // 2] * 2
    assert check_bill(site, key)["hit"] == 0, "all of them came while the call ran"


def test_a_thousand_at_once_over_two_replicas_are_one_call_for_each_form(pair):
    """The first at each replica stays: one that leaves while its replica waits for the other was never admitted."""
    first, _ = pair
    key = first.key()
    plays = Plays()
    model = f"played-{word()}"
    first.serves(model, plays)

    async def work() -> dict[tuple[int, bool], list[Told]]:
        crowd = Crowd(pair, key, model, word())
        await crowd.come_and_go(plays, 2 * len(FORMS))
        return crowd.told

    told = asyncio.run(work())
    assert sorted(plays.calls) == [False, True]
    assert len(told) == 2 * len(FORMS)
    for (_, is_stream), answers in told.items():
        check_answers(answers, is_stream=is_stream)
    ids = {answers[0].id for answers in told.values()}
    assert len(ids) <= len(FORMS), "each is the answer of one of the two calls"
    pair[1].settled()
    check_bill(first, key)
