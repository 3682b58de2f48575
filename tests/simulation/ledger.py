"""SQL as the core needs it: one transaction at a time, by rule 7 of the accounting design."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.accounting.steps import (
    AdvanceEpoch,
    CloseProcess,
    EpochView,
    InsertTag,
    ListTags,
    Mark,
    OpenEpoch,
    ProcessView,
    RaiseMarks,
    ReadBudgets,
    ReadEpoch,
    ReadLaggards,
    ReadMarks,
    ReadProcess,
    TagInserted,
    TakeLead,
)
from app.core.records import BudgetWindow, Entry, Record
from app.limits.hot import BudgetValue

EXACT = {"charge", "void"}


class Written:
    """What a transaction tells: ranks of its requests, values of their budgets."""

    def __init__(self, ranks: dict[str, int], costs: dict[str, int], values: dict[BudgetWindow, BudgetValue]) -> None:
        self.ranks = ranks
        self.costs = costs
        self.values = values


class SimLedger:
    """``now`` is the database's clock, in milliseconds."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self.records: dict[str, Record] = {}
        self.primaries: dict[str, tuple[str, int]] = {}
        self.rows_of: dict[str, list[str]] = {}
        self.adjusts: dict[str, int] = {}
        self.budgets: dict[BudgetWindow, tuple[int, int]] = {}
        self.marks: dict[tuple[str, BudgetWindow], tuple[str, int]] = {}
        self.acknowledged: dict[str, int] = {}
        self.closed: set[str] = set()
        self.tags: dict[str, tuple[int, int]] = {}
        self.epoch = 1
        self.is_open = True
        self.leader = ""
        self.leader_until_ms = 0

    # -- the bill -------------------------------------------------------------------------------

    def write(self, records: Sequence[Record]) -> Written:
        added: dict[BudgetWindow, int] = {}
        for record in records:
            self.records.setdefault(record.request_id, record)
            for entry in record.entries:
                cost = entry.cost_nanousd or 0
                key = self.key_of(entry)
                known = self.primaries.get(key)
                if known is None:
                    self.primaries[key] = (entry.kind, cost)
                    self.rows_of.setdefault(entry.attempt_id, []).append(key)
                elif entry.kind in EXACT and known[0] == "estimate" and entry.attempt_id not in self.adjusts:
                    cost -= known[1]
                    self.adjusts[entry.attempt_id] = cost
                else:
                    continue
                for window in record.budgets:
                    added[window] = added.get(window, 0) + cost
        for window, cost in added.items():
            spent, version = self.budgets.get(window, (0, 0))
            self.budgets[window] = (spent + cost, version + 1)
        named = {window for record in records for window in record.budgets}
        return Written(
            {record.request_id: self.rank_of(record.request_id) for record in records},
            {record.request_id: self.cost_of(record.request_id) for record in records},
            {window: self.value_of(window) for window in named},
        )

    def key_of(self, entry: Entry) -> str:
        """What is unique about a primary entry: its attempt, whatever its kind."""
        return entry.attempt_id

    def attempts_of(self, request_id: str) -> list[str]:
        return [entry.attempt_id for entry in self.records[request_id].entries]

    def rank_of(self, request_id: str) -> int:
        return min(
            2 if self.primaries[self.rows_of[each][0]][0] in EXACT or each in self.adjusts else 1
            for each in self.attempts_of(request_id)
        )

    def cost_of(self, request_id: str) -> int:
        return sum(
            sum(self.primaries[key][1] for key in self.rows_of[each]) + self.adjusts.get(each, 0)
            for each in self.attempts_of(request_id)
        )

    def value_of(self, window: BudgetWindow) -> BudgetValue:
        spent, version = self.budgets.setdefault(window, (0, 1))
        return BudgetValue(window, spent, version)

    # -- processes, marks and epochs ------------------------------------------------------------

    def view(self) -> EpochView:
        behind = sum(
            number < self.epoch for process_id, number in self.acknowledged.items() if process_id not in self.closed
        )
        return EpochView(self.epoch, self.is_open, self.leader, max(0, self.leader_until_ms - self._now()), behind)

    def answer(self, command: object) -> object:
        if isinstance(command, ReadBudgets):
            return tuple(self.value_of(each.budget) for each in command.budgets)
        if isinstance(command, RaiseMarks):
            for mark in command.marks:
                key = mark.process_id, mark.budget
                self.marks[key] = (mark.team_id, max(self.marks.get(key, ("", 0))[1], mark.nanousd))
            return None
        if isinstance(command, ReadEpoch):
            self.acknowledged[command.process_id] = command.acknowledged
            return self.view()
        if isinstance(command, AdvanceEpoch | TakeLead | OpenEpoch):
            return self._change_epoch(command)
        if isinstance(command, ReadLaggards | ReadMarks | CloseProcess):
            return self._ask_marks(command)
        if isinstance(command, ReadProcess):
            return ProcessView(self.acknowledged.get(command.process_id, 0), command.process_id in self.closed)
        if isinstance(command, InsertTag):
            number, at_ms = self.tags.get(command.tag, (0, 0))
            if number >= command.number:
                return TagInserted(inserted=False, age_ms=self._now() - at_ms)
            self.tags[command.tag] = (command.number, self._now())
            return TagInserted(inserted=True)
        assert isinstance(command, ListTags), command
        return tuple(self.tags)

    def _change_epoch(self, command: AdvanceEpoch | TakeLead | OpenEpoch) -> EpochView:
        if isinstance(command, AdvanceEpoch):
            if self.epoch == command.number:
                self.epoch, self.is_open = max(command.number, command.beyond) + 1, False
                self.leader, self.leader_until_ms = command.leader, self._now() + command.lease_ms
        elif isinstance(command, TakeLead):
            is_free = self.leader == command.leader or self.leader_until_ms <= self._now()
            if self.epoch == command.number and not self.is_open and is_free:
                self.leader, self.leader_until_ms = command.leader, self._now() + command.lease_ms
        elif self.epoch == command.number and self.leader == command.leader:
            self.is_open = True
        return self.view()

    def _ask_marks(self, command: ReadLaggards | ReadMarks | CloseProcess) -> tuple[Mark, ...] | None:
        if isinstance(command, CloseProcess):
            self.closed.add(command.process_id)
            self.marks = {key: mark for key, mark in self.marks.items() if key[0] != command.process_id}
            return None
        return tuple(
            Mark(process_id, team_id, window, nanousd)
            for (process_id, window), (team_id, nanousd) in self.marks.items()
            if (
                process_id == command.process_id
                if isinstance(command, ReadMarks)
                else self.acknowledged.get(process_id, 0) < command.number
            )
        )
