"""Holds a row against its world."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping

from tests.fakes.fleet import wait_for
from tests.faults.table.rows import Ask, Gets, Row, Told
from tests.faults.table.worlds import World

WRITTEN_S_MAX = 20.0


def check(row: Row, world: World, *, is_first: bool = True) -> None:
    """Everything that the row says: during the fault, and after it was taken back."""
    before, position = world.metrics(), world.position()
    owed: list[tuple[str, Gets]] = []
    running = [Running(world, ask, gets) for ask, gets in row.running]
    failure: AssertionError | None = None
    with row.make(world):
        try:
            _check_during(row, world, running, owed)
        except AssertionError as error:
            # The fault is taken back all the same.
            failure = error
        for each in running:
            each.let_go()
    world.recover()
    if failure is not None:
        raise failure
    for ask, gets in row.then:
        owed.append(_asked(world, ask, gets, f"{row}, then {ask}"))
    for user, gets in owed:
        _compare_entries(world, user, gets)
    metrics = world.metrics()
    counts = {name: metrics.get(name, 0) - before.get(name, 0) for name in row.counts}
    assert counts == dict(row.counts), counts
    if row.ends is not None:
        assert ends_of(metrics) - ends_of(before) == Counter(row.ends)
    told = world.told_since(position)
    if row.told is not None and sorted(told) != sorted(row.told):
        if is_first and sorted(_without_others(told, row)) == sorted(row.told):
            # A busy machine let a server that was well answer late. What the fault does itself, it does again.
            check(row, world, is_first=False)
            return
        raise AssertionError(told)


def ends_of(metrics: Mapping[str, float]) -> Counter[str]:
    """Requests by their outcome, but for those that were completed."""
    found: Counter[str] = Counter()
    for name, value in metrics.items():
        if name.startswith("headgate_requests_total{"):
            outcome = name.partition('outcome="')[2].partition('"')[0]
            if outcome != "completed":
                found[outcome] += int(value)
    return found


class Running:
    """A request that has begun, and waits until it is let go."""

    def __init__(self, world: World, ask: Ask, gets: Gets) -> None:
        self.user = world.new_user()
        self.gets = gets
        self._world = world
        self.told = world.begin(ask, self.user)

    def let_go(self) -> Told:
        self._world.servers.let_go(self.user)
        return self.told.result(WRITTEN_S_MAX)


def _without_others(told: list[str], row: Row) -> list[str]:
    """What was told of the dependencies that the row tells of."""
    mine = {event.rpartition(" ")[2] for event in row.told or ()}
    return [event for event in told if not event.startswith("dependency_") or event.rpartition(" ")[2] in mine]


def _check_during(row: Row, world: World, running: list[Running], owed: list[tuple[str, Gets]]) -> None:
    for ask, gets in row.asks:
        owed.append(_asked(world, ask, gets, f"{row}, {ask}"))
    world.check_health(row.failing)
    for name, value in row.gauges.items():
        wait_for(lambda name=name, value=value: world.metrics()[name] == value)
    for each in running:
        owed.append((each.user, each.gets))
        compare(each.let_go(), each.gets, f"{row}, what ran")


def _asked(world: World, ask: Ask, gets: Gets, what: str) -> tuple[str, Gets]:
    user = world.new_user()
    compare(world.ask(ask, user), gets, what)
    return user, gets


def compare(told: Told, gets: Gets, what: str) -> None:
    assert (told.status, told.code) == (gets.status, gets.code), f"{what}: {told.status} {told.code}"
    assert told.took_s <= gets.within_s, f"{what}: {told.took_s:.2f} s"
    if told.status is not None:
        assert "x-headgate-request-id" in told.headers, what
    for name, pattern in gets.headers.items():
        value = told.headers.get(name)
        if pattern is None:
            assert value is None, f"{what}: {name}: {value}"
        else:
            assert value is not None and re.fullmatch(pattern, value), f"{what}: {name}: {value}"


def _compare_entries(world: World, user: str, gets: Gets) -> None:
    """One record with these entries; or none, now that everything is in the ledger."""
    wanted = [list(gets.kinds)] if gets.kinds else []
    deadline_s = time.monotonic() + WRITTEN_S_MAX
    while (found := world.people.kinds(user)) != wanted and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert found == wanted, (user, found, gets)
