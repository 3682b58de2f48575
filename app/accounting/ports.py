"""Carries the core's commands out: on the hot state and on SQL, each within a time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from app.accounting.steps import (
    AdvanceEpoch,
    CloseProcess,
    Command,
    EpochView,
    InsertTag,
    LedgerAway,
    ListTags,
    Mark,
    OpenEpoch,
    Post,
    ProcessView,
    RaiseMarks,
    ReadBudgets,
    ReadEpoch,
    ReadLaggards,
    ReadMarks,
    ReadProcess,
    Sleep,
    Steps,
    Submit,
    TagInserted,
    TakeLead,
)
from app.core.records import BudgetWindow, Record
from app.limits import hot
from app.limits.hot import Answer, BudgetValue, StoreAway
from app.store import epochs, processes
from app.store.budgets import read_budgets
from app.store.database import Database
from app.store.epochs import EpochRow
from app.store.errors import StoreError

T = TypeVar("T")

LEDGER_TIMEOUT_S = 1.0
REQUEST_LEDGER_S = 0.7
"""What a request may wait for SQL, where it has to: a budget's first use, a team's first use in an epoch, a mark."""
SEEN_EVERY_S = 2.0
PRUNE_EVERY_S = 3600.0
LIVE_S = 10
"""A process that SQL has not seen for longer does not count among those that share a limit."""


class HotState(Protocol):
    """Redis, or this process' memory."""

    async def do(self, command: hot.Command) -> Answer:
        """Carry it out. Raises StoreAway."""
        ...

    def post(
        self,
        command: hot.Command,
        on_answer: Callable[[Answer], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """Have it carried out in the order of posts; nobody waits."""
        ...


class Ports:
    """``submit`` takes records for the ledger's writer; until it is set there is none, and nothing is reaped."""

    def __init__(self, store: HotState, database: Database) -> None:
        self.submit: Callable[[Record], None] = lambda _record: None
        self.register: Callable[[AsyncConnection], Awaitable[None]] | None = None
        """Called where SQL does not know this process: it was away at the start, or somebody has written it off."""
        self.processes = 1
        """How many share the hot state, this one among them, as of the last look."""
        self._store = store
        self._database = database
        self._marks: dict[BudgetWindow, int] = {}
        self._raising = asyncio.Lock()
        self._seen_s = -SEEN_EVERY_S
        self._acknowledged = -1
        self._pruned_s = -PRUNE_EVERY_S
        self._in_sql: dict[type, Callable[..., Awaitable[Any]]] = {
            ReadBudgets: self._read_budgets,
            RaiseMarks: self._raise_marks,
            ReadEpoch: self._read_epoch,
            AdvanceEpoch: self._advance_epoch,
            TakeLead: self._take_lead,
            OpenEpoch: self._open_epoch,
            ReadLaggards: self._read_laggards,
            ReadMarks: self._read_marks,
            ReadProcess: self._read_process,
            CloseProcess: self._close_process,
            InsertTag: self._insert_tag,
            ListTags: self._list_tags,
        }
        self._elsewhere = frozenset((*self._in_sql, Sleep, Post, Submit))
        """What is not for the hot state itself; every request waits for one that is."""

    def __repr__(self) -> str:
        return f"Ports({self._store!r})"

    async def run(self, steps: Steps[T], ledger_s: float = math.inf) -> T:
        """Drive ``steps`` to their end. Raises what they raise. ``ledger_s``: how long they may wait for SQL, or for
        others who do, altogether; after that they are told that it is away.
        """
        advance: Callable[[], Command] = partial(next, steps)
        try:
            while True:
                try:
                    command = advance()
                except StopIteration as end:
                    result: T = end.value
                    return result
                try:
                    if type(command) in self._elsewhere:
                        began_s = time.monotonic()
                        try:
                            answer = await self._carry_out(command, ledger_s)
                        finally:
                            ledger_s -= time.monotonic() - began_s
                    else:
                        answer = await self._store.do(command)  # type: ignore[arg-type] # only those are left
                except (StoreAway, LedgerAway) as away:
                    advance = partial(steps.throw, away)
                else:
                    advance = partial(steps.send, answer)
        finally:
            # Given up in the middle, they come to their end now, and not whenever they are collected.
            steps.close()

    async def _carry_out(self, command: Command, left_s: float) -> Any:
        in_sql = self._in_sql.get(type(command))
        if in_sql is not None:
            return await self._ask(in_sql, command, left_s)
        if isinstance(command, Sleep):
            if left_s <= 0:
                raise LedgerAway("it has taken too long")
            return await asyncio.sleep(command.seconds)
        if isinstance(command, Post):
            return self._store.post(command.command)
        assert isinstance(command, Submit)  # noqa: S101 - nothing else is left
        return self.submit(command.record)

    async def _ask(self, in_sql: Callable[..., Awaitable[Any]], command: Command, left_s: float) -> Any:
        if left_s <= 0:
            raise LedgerAway("it has taken too long")
        try:
            return await self._database.within(min(LEDGER_TIMEOUT_S, left_s), in_sql(command))
        except (StoreError, TimeoutError) as error:
            raise LedgerAway(type(error).__name__) from error

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[AsyncConnection]:
        async with self._database.transaction() as connection:
            yield connection

    # -- budgets and marks ----------------------------------------------------------------------

    async def _read_budgets(self, command: ReadBudgets) -> tuple[BudgetValue, ...]:
        async with self._changing() as connection:
            found = await read_budgets(connection, [(each.team_id, each.budget) for each in command.budgets])
        return tuple(BudgetValue(budget, spent, version) for budget, (spent, version) in found.items())

    async def _raise_marks(self, command: RaiseMarks) -> None:
        # One after the other: an earlier raise that comes later would lower them.
        async with self._raising:
            higher = [mark for mark in command.marks if mark.nanousd > self._marks.get(mark.budget, 0)]
            if not higher:
                return
            values = {(mark.team_id, mark.budget): mark.nanousd for mark in higher}
            async with self._changing() as connection:
                await processes.raise_marks(connection, higher[0].process_id, values)
            for mark in higher:
                self._marks[mark.budget] = mark.nanousd

    async def _read_laggards(self, command: ReadLaggards) -> tuple[Mark, ...]:
        async with self._database.read() as connection:
            found = await processes.marks_of_others(connection, command.number)
        return tuple(Mark(*each) for each in found)

    async def _read_marks(self, command: ReadMarks) -> tuple[Mark, ...]:
        async with self._database.read() as connection:
            found = await processes.marks_of(connection, command.process_id)
        return tuple(Mark(*each) for each in found)

    # -- processes and epochs -------------------------------------------------------------------

    async def _read_epoch(self, command: ReadEpoch) -> EpochView:
        now_s = asyncio.get_running_loop().time()
        if command.acknowledged == self._acknowledged and now_s - self._seen_s < SEEN_EVERY_S:
            async with self._database.read() as connection:
                return _view(await epochs.read_epoch(connection))
        async with self._changing() as connection:
            is_known = await processes.process_seen(connection, command.process_id, command.acknowledged)
            if not is_known and self.register is not None:
                # Written off, perhaps: then its marks are gone as well.
                self._marks.clear()
                await self.register(connection)
                await processes.process_seen(connection, command.process_id, command.acknowledged)
            self.processes = max(1, await processes.count_live(connection, LIVE_S))
            if now_s - self._pruned_s >= PRUNE_EVERY_S:
                # Else each day of each budget would be held for this process whenever the hot state is lost.
                await processes.drop_old_marks(connection, command.process_id)
                self._pruned_s = now_s
            row = await epochs.read_epoch(connection)
        self._seen_s, self._acknowledged = now_s, command.acknowledged
        return _view(row)

    async def _advance_epoch(self, command: AdvanceEpoch) -> EpochView:
        async with self._changing() as connection:
            row = await epochs.advance_epoch(
                connection, command.number, command.leader, command.lease_ms, beyond=command.beyond
            )
            return _view(row)

    async def _take_lead(self, command: TakeLead) -> EpochView:
        async with self._changing() as connection:
            view = _view(await epochs.take_lead(connection, command.number, command.leader, command.lease_ms))
            behind = await processes.count_behind(connection, command.number, LIVE_S)
        return msgspec.structs.replace(view, behind=behind)

    async def _open_epoch(self, command: OpenEpoch) -> EpochView:
        async with self._changing() as connection:
            return _view(await epochs.open_epoch(connection, command.number, command.leader))

    async def _read_process(self, command: ReadProcess) -> ProcessView:
        async with self._database.read() as connection:
            found = await processes.find_process(connection, command.process_id)
        return ProcessView(0, is_closed=False) if found is None else ProcessView(found.acked_epoch, found.closed)

    async def _close_process(self, command: CloseProcess) -> None:
        async with self._changing() as connection:
            await processes.close_process(connection, command.process_id)

    # -- tags -----------------------------------------------------------------------------------

    async def _insert_tag(self, command: InsertTag) -> TagInserted:
        async with self._changing() as connection:
            return TagInserted(*await epochs.insert_tag(connection, command.tag, command.number))

    async def _list_tags(self, _command: ListTags) -> tuple[str, ...]:
        async with self._database.read() as connection:
            return await epochs.list_tags(connection)


def _view(row: EpochRow) -> EpochView:
    return EpochView(row.number, row.state == "open", row.leader or "", row.leader_left_ms)
