"""What needs a look every few seconds: journals that dead workers have left, and a disk that is nearly full."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import msgspec

from app.ledger.recovery import Recovered
from app.ledger.space import Space
from app.store.database import Database
from app.store.errors import DatabaseUnavailable
from app.telemetry.logs import LogWriter

UPKEEP_INTERVAL_S = 5.0


class Upkeep:
    """A task beside the requests; every worker has one, and whoever comes first does the work."""

    def __init__(
        self,
        recover_dead: Callable[[], Awaitable[Recovered]],
        database: Database,
        space: Space,
        log: LogWriter,
        *,
        interval_s: float = UPKEEP_INTERVAL_S,
    ) -> None:
        self._recover_dead = recover_dead
        self._database = database
        self._space = space
        self._log = log
        self._interval_s = interval_s
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Upkeep(failing={self._failing})"

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="upkeep")

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
                await self._look()
            except DatabaseUnavailable:
                # The ledger writer tells that; the journals stay where they are.
                continue
            except Exception as error:  # noqa: BLE001 - a journal that cannot be read must not end the looking
                if not self._failing:
                    self._log.error("upkeep_failed", reason=type(error).__name__)
                self._failing = True
            else:
                self._failing = False

    async def _look(self) -> None:
        if self._space.short:
            await self._database.truncate_log()
        recovered = await self._recover_dead()
        if recovered.segments:
            self._log.info("journal_recovered", **msgspec.structs.asdict(recovered))
