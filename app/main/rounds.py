"""Work that is due every few seconds, beside the requests."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from app.store.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.telemetry.logs import LogWriter


class Rounds:
    """A task that does ``work`` again and again, ``interval_s`` after it was done.

    A ledger that does not answer is told of by its writer. Anything else that goes wrong is told once, as
    ``NAME_failed``, until a round succeeds: it must not end the rounds for good.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], log: LogWriter, *, interval_s: float) -> None:
        self._name = name
        self._work = work
        self._log = log
        self._interval_s = interval_s
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Rounds({self._name}, failing={self._failing})"

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._name)

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
                await self._work()
            except (DatabaseUnavailable, TimeoutError):
                continue
            except Exception as error:  # noqa: BLE001 - told above
                if not self._failing:
                    self._log.error(f"{self._name}_failed", reason=type(error).__name__)
                self._failing = True
            else:
                self._failing = False
