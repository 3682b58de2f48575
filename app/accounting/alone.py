"""Limits and budgets of a gateway that is one process: in its memory, over the same commands as the shared ones.

Nothing has to be held for others, so nothing expires, and a request that nothing limits costs nothing. What
a killed process owed is in its journal; budgets are read from SQL when they are first used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from app.accounting.accountant import ROUNDS_MAX, Remake
from app.accounting.decisions import decision_of, seeded_windows
from app.accounting.holdings import Progress
from app.accounting.insql import what_is_in_sql
from app.accounting.ports import REQUEST_LEDGER_S
from app.core.clock import Clock
from app.core.errors import LimitsUnavailable
from app.core.records import BudgetWindow, Record
from app.limits.hot import (
    BudgetValue,
    Cold,
    Confirm,
    Counted,
    InSQL,
    Lost,
    OpenTag,
    OutOfWindow,
    Peek,
    Reserve,
    Seed,
    Settle,
    Void,
)
from app.limits.limiter import UPSTREAM_TAG, Claim, Grant, Limit, Outcome, Refusal
from app.limits.memory import MemoryHot
from app.store.budgets import read_budgets
from app.store.database import Database
from app.store.errors import StoreError
from app.store.posting import Written

TOKEN = "1"  # noqa: S105 - an epoch's number, no secret
FOREVER_MS = 2**52
"""A lease's length: calls end with their process."""


class Alone:
    """``database`` is asked for the value of a budget on its first use, and after that is told nothing.

    ``is_sole``: whether nobody else counts on it; while somebody does, strict limits are not decided.
    """

    def __init__(self, clock: Clock, database: Database, is_sole: Callable[[], bool] = lambda: True) -> None:
        self._is_sole = is_sole
        self._hot = MemoryHot(clock)
        self._clock = clock
        self._database = database

    def __repr__(self) -> str:
        return f"Alone({self._hot!r})"

    @property
    def process_id(self) -> str:
        return ""

    async def start(self) -> None:
        """Nothing to begin."""

    async def close(self) -> None:
        """Nothing is held by anybody else."""

    async def admit(self, claim: Claim, remake: Remake) -> Grant | Refusal:
        if not claim.limits:
            return Grant(claim, self._clock.now_ms())
        if not self._is_sole() and _is_strict(claim):
            raise LimitsUnavailable
        asked = _lean(claim)
        token = token_of(claim)
        for _ in range(ROUNDS_MAX):
            answer = self._hot.apply(Reserve(asked, token, FOREVER_MS))
            if isinstance(answer, Lost):
                self._hot.apply(OpenTag(claim.tag, TOKEN))
            elif isinstance(answer, OutOfWindow):
                claim = remake(answer.now_ms)
                asked = _lean(claim)
            elif isinstance(answer, Cold):
                await self._seed(claim)
            else:
                decided = decision_of(claim, answer)
                if decided is None:
                    break
                return decided
        raise LimitsUnavailable

    def watch(self, request_id: str, progress: Callable[[], Progress]) -> None:
        """Nobody else needs to know."""

    def go_on(self, claim: Claim, line: bytes) -> None:
        """The journal has it, and nobody else could ask."""

    def settle(self, claim: Claim, outcome: Outcome) -> None:
        if claim.limits:
            bare = msgspec.structs.replace(outcome, record=b"")
            self._hot.apply(Settle(_lean(claim), token_of(claim), bare, FOREVER_MS))

    def void(self, claim: Claim) -> None:
        if claim.limits:
            self._hot.apply(Void(_lean(claim)))

    async def peek(self, tag: str, limits: tuple[Limit, ...]) -> tuple[tuple[int, int], ...] | None:
        answer = self._hot.apply(Peek(tag, limits))
        return answer.counts if isinstance(answer, Counted) else None

    def before_write(self) -> object:
        return None

    def after_write(self, records: Sequence[Record], written: Written, token: object) -> None:  # noqa: ARG002 - one epoch
        requests, values = what_is_in_sql(records, written)
        by_tag: defaultdict[str, list[InSQL]] = defaultdict(list)
        for tag, request in requests:
            by_tag[tag].append(request)
        of_tag: defaultdict[str, list[BudgetValue]] = defaultdict(list)
        for tag, value in values:
            of_tag[tag].append(value)
        for tag, some in by_tag.items():
            self._hot.apply(Confirm(tag, TOKEN, tuple(some), tuple(of_tag[tag])))

    async def read_again(self) -> None:
        """The budgets that are known here: somebody else may have spent of them. Raises StoreError, TimeoutError."""
        for tag, windows in self._hot.windows():
            found = await self._database.within(REQUEST_LEDGER_S, self._read(tag, windows))
            values = tuple(BudgetValue(window, *counter) for window, counter in found.items())
            self._hot.apply(Seed(tag, TOKEN, values))

    async def _seed(self, claim: Claim) -> None:
        """All budgets of the claim, and their next windows, so that a new day does not depend on SQL."""
        windows = seeded_windows(claim)
        try:
            found = await self._database.within(REQUEST_LEDGER_S, self._read(claim.tag, windows))
        except (StoreError, TimeoutError) as error:
            if _is_strict(claim):
                raise LimitsUnavailable from error
            # What was spent is not known; any value that SQL has told is newer than this one.
            found = dict.fromkeys(windows, (0, 0))
        values = tuple(BudgetValue(window, *counter) for window, counter in found.items())
        self._hot.apply(Seed(claim.tag, TOKEN, values))

    async def _read(self, team_id: str, windows: Sequence[BudgetWindow]) -> dict[BudgetWindow, tuple[int, int]]:
        async with self._database.transaction() as connection:
            return await read_budgets(connection, [(team_id, window) for window in windows])


def _is_strict(claim: Claim) -> bool:
    return any(limit.policy == "strict" and limit.mode == "enforce" for limit in claim.limits)


def token_of(claim: Claim) -> str:
    """Limits that protect an upstream belong to no epoch."""
    return "" if claim.tag.startswith(UPSTREAM_TAG) else TOKEN


def _lean(claim: Claim) -> Claim:
    """Without what only another process would need."""
    return msgspec.structs.replace(claim, opening=b"") if claim.opening else claim
