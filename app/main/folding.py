"""Keeps the sums of the bill folded: by days, months and hours, in the time zones that reports ask for."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from app.core.clock import quarter_of
from app.main.rounds import Rounds
from app.store.folding import ALWAYS, drop_left_over, fold_on, keep_fold, list_folds

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.core.clock import Clock
    from app.store.database import Database
    from app.telemetry.logs import LogWriter

INTERVAL_S = 5.0
BEHIND_MS = 300_000
"""A quarter of an hour is folded five minutes after its end: what still comes for it then costs a little more."""
PAUSE_MIN_S = 0.02


class Folding:
    """A task beside the requests. Every worker notes the zones that it was asked for; one of a data dir folds."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        log: LogWriter,
        *,
        folds: bool = True,
        behind_s: Callable[[], float] = lambda: 0.0,
        interval_s: float = INTERVAL_S,
        behind_ms: int = BEHIND_MS,
    ) -> None:
        """``behind_s``: the age of the oldest record that is not in the ledger yet. What is late costs more to write,
        so nothing is folded that the journal still has records of.
        """
        self._database = database
        self._clock = clock
        self._folds = folds
        self._behind_s = behind_s
        self._behind_ms = behind_ms
        self._always_there = False
        self._left_over = True
        self._rounds = Rounds("folding", self.work, log, interval_s=interval_s)

    def __repr__(self) -> str:
        return f"Folding(folds={self._folds}, {self._rounds!r})"

    def start(self) -> None:
        self._rounds.start()

    async def close(self) -> None:
        await self._rounds.close()

    async def work(self) -> None:
        """Makes folds for the zones that were asked for, and takes into each what there is for it. Raises
        DatabaseUnavailable, TimeoutError.
        """
        wanted = self._database.zones.take()
        if not self._always_there:
            wanted = [*ALWAYS, *wanted]
        for period, zone in wanted:
            if await keep_fold(self._database, period, zone, self._clock.now_ms()):
                self._left_over = True
        self._always_there = True
        if not self._folds:
            return
        async with self._database.read() as connection:
            folds = await list_folds(connection)
        for fold in folds:
            await self._take(fold.id, fold.until_ms)
        while self._left_over:
            begun_s = time.monotonic()
            self._left_over = bool(await drop_left_over(self._database))
            await asyncio.sleep(max(time.monotonic() - begun_s, PAUSE_MIN_S))

    async def _take(self, fold_id: int, until_ms: int) -> None:
        behind_ms = max(self._behind_ms, 2 * int(self._behind_s() * 1000))
        end_ms = quarter_of(self._clock.now_ms() - behind_ms)
        while until_ms < end_ms:
            begun_s = time.monotonic()
            step = await fold_on(self._database, fold_id, end_ms)
            until_ms = step.until_ms if step.more else end_ms
            # SQLite has no queue for its writers: one that never pauses would keep the others out.
            await asyncio.sleep(max(time.monotonic() - begun_s, PAUSE_MIN_S))
