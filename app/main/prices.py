"""Prices that people set come into force on a running gateway as the change feed brings them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence

from app.metering.repricing import overrides_of
from app.settings import PriceOverride
from app.store.prices import SetPrice
from app.telemetry.logs import LogWriter

InForce = Callable[[tuple[PriceOverride, ...]], Coroutine[None, None, None]]


class SetPrices:
    """Keeps what was read last; once ``follow`` is told how, every change is put in force."""

    def __init__(self, log: LogWriter) -> None:
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.overrides: tuple[PriceOverride, ...] = ()

    def __repr__(self) -> str:
        return f"SetPrices({len(self.overrides)})"

    def take(self, rows: Sequence[SetPrice]) -> None:
        """All that hold, from the change feed."""
        self.overrides = overrides_of(rows, ())
        self._changed.set()

    def follow(self, put_in_force: InForce) -> None:
        """From now on changes are put in force, one after the other."""
        self._changed.clear()
        self._task = asyncio.create_task(self._follow(put_in_force), name="set prices")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self, put_in_force: InForce) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await put_in_force(self.overrides)
            except (OSError, ValueError) as error:
                self._log.error("set_prices_failed", error=type(error).__name__)
