"""What needs a look every few seconds: journals that dead workers have left, and a disk that is nearly full."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from app.ledger.recovery import Recovered
from app.ledger.space import Space
from app.main.rounds import Rounds
from app.store.database import Database
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
        self._rounds = Rounds("upkeep", self._look, log, interval_s=interval_s)

    def __repr__(self) -> str:
        return f"Upkeep({self._rounds!r})"

    def start(self) -> None:
        self._rounds.start()

    async def close(self) -> None:
        await self._rounds.close()

    async def _look(self) -> None:
        if self._space.short:
            await self._database.truncate_log()
        recovered = await self._recover_dead()
        if recovered.segments:
            self._log.info("journal_recovered", **msgspec.structs.asdict(recovered))
