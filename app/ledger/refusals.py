"""The last refusals on their way into SQL: kept for explanations, never at the cost of a request.

What is added waits in memory, bounded by team and in all; the oldest go first. A database that does not
answer costs the oldest of them, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from itertools import islice
from typing import TYPE_CHECKING

from app.store.errors import DatabaseUnavailable, RowsRefused
from app.store.refusals import KEPT_MS, KEPT_PER_TEAM, RefusalRow, forget_refusals, keep_refusals

if TYPE_CHECKING:
    from app.core.clock import Clock
    from app.store.database import Database

WAITING_MAX = 10_000
BATCH_ROWS_MAX = 1000
FLUSH_INTERVAL_S = 1.0
FORGET_INTERVAL_S = 3600.0
WRITE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0


class RefusalLog:
    """``add`` is for the hot path; a task writes what was added, every second."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        waiting_max: int = WAITING_MAX,
        waiting_per_team_max: int = KEPT_PER_TEAM,
        flush_interval_s: float = FLUSH_INTERVAL_S,
    ) -> None:
        self._database = database
        self._clock = clock
        self._waiting_max = waiting_max
        self._per_team_max = waiting_per_team_max
        self._flush_interval_s = flush_interval_s
        self._waiting: OrderedDict[str, RefusalRow] = OrderedDict()
        self._teams: dict[str, deque[str]] = {}
        self._some = asyncio.Event()
        self._forgot_s: float | None = None
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    def __repr__(self) -> str:
        return f"RefusalLog(waiting={len(self._waiting)}, dropped={self.dropped})"

    @property
    def waiting(self) -> int:
        """Refusals that are not in SQL yet."""
        return len(self._waiting)

    def add(self, row: RefusalRow) -> None:
        """Never waits and never fails; ``dropped`` counts what had to go for it."""
        if row.request_id in self._waiting:
            return
        of_team = self._teams.setdefault(row.team_id, deque())
        if len(of_team) >= self._per_team_max:
            self._drop(of_team[0])
        elif len(self._waiting) >= self._waiting_max:
            self._drop(next(iter(self._waiting)))
        # Dropping the last of a team forgets the team.
        self._teams.setdefault(row.team_id, of_team).append(row.request_id)
        self._waiting[row.request_id] = row
        self._some.set()

    def _drop(self, request_id: str) -> None:
        self.dropped += 1
        self._remove(request_id)

    def _remove(self, request_id: str) -> None:
        """Takes away one that is its team's oldest."""
        row = self._waiting.pop(request_id, None)
        if row is None:
            return
        of_team = self._teams[row.team_id]
        of_team.popleft()
        if not of_team:
            del self._teams[row.team_id]

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="refusal log")

    async def close(self) -> None:
        """Writes what waits, if the database takes it at once, and ends."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        # What cannot be written now is lost; it was for explanations only.
        with contextlib.suppress(DatabaseUnavailable, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while self._waiting:
                    await self._flush()

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            # A timeout of the database's is an answer too: the rows stay, and the oldest go for newer ones.
            with contextlib.suppress(DatabaseUnavailable, TimeoutError):
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._forget_old()
                    while self._waiting:
                        await self._flush()
            if self._waiting:
                self._some.set()
            await asyncio.sleep(self._flush_interval_s)

    async def _forget_old(self) -> None:
        """Now and then, for teams that nobody refuses any more."""
        now_s = self._clock.monotonic_s()
        if self._forgot_s is None or now_s - self._forgot_s >= FORGET_INTERVAL_S:
            await forget_refusals(self._database, self._clock.now_ms() - KEPT_MS)
            self._forgot_s = now_s

    async def _flush(self) -> None:
        """Writes the oldest; they go when they are in SQL, or when SQL will never take them."""
        rows = list(islice(self._waiting.values(), BATCH_ROWS_MAX))
        await self._keep(rows)
        for row in rows:
            self._remove(row.request_id)

    async def _keep(self, rows: list[RefusalRow]) -> None:
        """A row that the database refuses does not take the others with it."""
        try:
            await keep_refusals(self._database, rows, self._clock.now_ms())
        except RowsRefused:
            if len(rows) == 1:
                self.dropped += 1
                return
            middle = len(rows) // 2
            await self._keep(rows[:middle])
            await self._keep(rows[middle:])
