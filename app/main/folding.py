"""Keeps the sums of the bill folded: by days, months and hours, in the time zones that reports ask for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from app.core.clock import quarter_of
from app.store.errors import DatabaseUnavailable
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
        self._log = log
        self._folds = folds
        self._behind_s = behind_s
        self._interval_s = interval_s
        self._behind_ms = behind_ms
        self._failing = False
        self._always_there = False
        self._left_over = True
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Folding(folds={self._folds}, failing={self._failing})"

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="folding")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.work()
            except (DatabaseUnavailable, TimeoutError):
                # The ledger writer tells that; reports read the quarters meanwhile.
                continue
            except Exception as error:  # noqa: BLE001 - one fold that cannot be made must not end the others' for good
                if not self._failing:
                    self._log.error("folding_failed", reason=type(error).__name__)
                self._failing = True
            else:
                self._failing = False

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
