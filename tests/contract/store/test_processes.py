"""Processes and what each may hold: the marks that stand in for those that cannot put their holds back."""

from __future__ import annotations

import time

from app.core.records import BudgetWindow
from app.store.processes import (
    Mark,
    close_process,
    drop_marks,
    drop_old_marks,
    find_process,
    list_processes,
    list_unsettled,
    marks_of,
    marks_of_others,
    process_seen,
    processes_to_ack,
    raise_marks,
    register_process,
)

DAY, MONTH = BudgetWindow("day", 1_000), BudgetWindow("month", 0)


async def act(database, act_of, *values, **named):
    async with database.transaction() as connection:
        return await act_of(connection, *values, **named)


async def ids(database, act_of, *values):
    return [row.id for row in await act(database, act_of, *values)]


async def test_a_process_is_seen_and_acknowledges_epochs(database):
    before = time.time_ns() // 1_000_000
    await act(database, register_process, "p1", "host", 3, 77)
    await act(database, register_process, "p2", "host", 4, 78, acked_epoch=2)
    # A second time, as after a lost answer, changes nothing.
    await act(database, register_process, "p1", "other", 9, 99, acked_epoch=9)
    first, second = await act(database, list_processes)
    assert (first.id, first.node, first.slot, first.started_at_ms, first.acked_epoch) == ("p1", "host", 3, 77, 0)
    assert (second.acked_epoch, second.closed) == (2, False)
    assert abs(first.seen_at_ms - before) < 5_000
    assert await act(database, find_process, "p1") == first
    assert await act(database, find_process, "nobody") is None
    assert await ids(database, processes_to_ack, 2) == ["p1"]
    assert await ids(database, processes_to_ack, 3) == ["p1", "p2"]
    assert await act(database, process_seen, "p1", 3)
    assert await act(database, process_seen, "p1", 1)
    assert await ids(database, processes_to_ack, 3) == ["p2"]
    assert not await act(database, process_seen, "nobody", 1)


async def test_a_closed_process_holds_nothing_and_is_told(database):
    await act(database, register_process, "p1", "host", 0, 1)
    await act(database, raise_marks, "p1", {("t1", DAY): 5})
    await act(database, close_process, "p1")
    assert (await act(database, list_processes))[0].closed
    assert await ids(database, processes_to_ack, 9) == []
    assert await act(database, marks_of_others, 9) == []
    assert not await act(database, process_seen, "p1", 9)


async def test_marks_are_set_to_what_is_given(database):
    await act(database, register_process, "p1", "host", 0, 1)
    await act(database, raise_marks, "p1", {})
    await act(database, raise_marks, "p1", {("t1", MONTH): 5, ("t1", DAY): 2**53})
    await act(database, raise_marks, "p1", {("t1", MONTH): 8})
    found = await act(database, marks_of_others, 1)
    assert found == [Mark("p1", "t1", DAY, 2**53), Mark("p1", "t1", MONTH, 8)]
    assert await act(database, marks_of, "p1") == found
    assert await act(database, marks_of, "p2") == []
    # Plain tuples, in this order.
    assert found[1] == ("p1", "t1", MONTH, 8)
    await act(database, drop_marks, "p1")
    assert await act(database, marks_of_others, 1) == []


async def test_marks_of_those_that_have_acknowledged_do_not_count(database):
    for number, acked in enumerate((0, 1, 2, 3)):
        await act(database, register_process, f"p{number}", "host", number, number, acked_epoch=acked)
        await act(database, raise_marks, f"p{number}", {("t1", DAY): number})
    assert [mark.process_id for mark in await act(database, marks_of_others, 2)] == ["p0", "p1"]
    # A process that was never registered has no say.
    await act(database, raise_marks, "ghost", {("t1", DAY): 1})
    assert len(await act(database, marks_of_others, 9)) == 4


async def test_who_holds_what_is_told(database):
    for number, name in enumerate(("lost", "closed", "idle", "runs")):
        await act(database, register_process, name, "host", number, number)
        if name != "idle":
            await act(database, raise_marks, name, {("t1", DAY): number + 1, ("t1", MONTH): 10})
    await act(database, close_process, "closed")
    found = await act(database, list_unsettled)
    assert [(each.process.id, each.nanousd) for each in found] == [("lost", 11), ("runs", 14)]


async def test_marks_of_windows_that_are_over_go_and_those_of_others_stay(database):
    now_ms = time.time_ns() // 1_000_000
    day_ms = 24 * 60 * 60 * 1000
    old, lately, forever = (BudgetWindow("b", start) for start in (now_ms - 41 * day_ms, now_ms - 39 * day_ms, 0))
    for process_id in ("p1", "p2"):
        await act(database, register_process, process_id, "node", 0, now_ms)
        await act(database, raise_marks, process_id, {("t1", window): 5 for window in (old, lately, forever)})
    await act(database, drop_old_marks, "p1")
    assert {mark.window for mark in await act(database, marks_of, "p1")} == {lately, forever}
    assert {mark.window for mark in await act(database, marks_of, "p2")} == {old, lately, forever}
