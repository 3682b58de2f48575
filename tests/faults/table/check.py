"""Holds a row against its world."""

from __future__ import annotations

import re
import time

from tests.fakes.fleet import wait_for
from tests.faults.table.rows import Gets, Row, Told
from tests.faults.table.worlds import World

WRITTEN_S_MAX = 20.0


def check(row: Row, world: World) -> None:
    """Everything that the row says: during the fault, and after it was taken back."""
    before, position = world.metrics(), world.position()
    owed: list[tuple[str, Gets]] = []
    running = []
    for ask, gets in row.running:
        user = world.new_user()
        running.append((user, world.begin(ask, user), gets))
    with row.make(world):
        for ask, gets in row.asks:
            user = world.new_user()
            owed.append((user, gets))
            compare(world.ask(ask, user), gets, f"{row}, {ask}")
        world.check_health(row.failing)
        for name, value in row.gauges.items():
            wait_for(lambda name=name, value=value: world.metrics()[name] == value)
        for user, told, gets in running:
            world.servers.let_go(user)
            owed.append((user, gets))
            compare(told.result(WRITTEN_S_MAX), gets, f"{row}, what ran")
    world.recover()
    for ask, gets in row.then:
        user = world.new_user()
        owed.append((user, gets))
        compare(world.ask(ask, user), gets, f"{row}, then {ask}")
    for user, gets in owed:
        _compare_entries(world, user, gets)
    counts = world.metrics()
    assert {name: counts.get(name, 0) - before.get(name, 0) for name in row.counts} == dict(row.counts)
    print(row, world.told_since(position))
    if row.told is not None:
        assert sorted(world.told_since(position)) == sorted(row.told)


def compare(told: Told, gets: Gets, what: str) -> None:
    assert (told.status, told.code) == (gets.status, gets.code), what
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
