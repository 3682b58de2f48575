"""Asks for what responses used that outlived the gateway that began them.

Their records have what they can have cost at most; what is learnt goes in as the exact correction of that. Any
gateway asks, whichever is alive: a row is one's own for the length of a lease.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from app.core.clock import Clock
from app.core.errors import UpstreamError
from app.ledger.journal import Journal
from app.ledger.writer import LedgerWriter
from app.main.rounds import Rounds
from app.metering.estimates import Ask, Estimates
from app.metering.meter import Meter
from app.metering.tokens import Reading
from app.pipeline import Parts
from app.pipeline.background import GONE_TIMES_MIN, ResponseGone, ask
from app.store import awaited
from app.store.awaited import Awaited
from app.store.database import Database
from app.store.errors import DatabaseUnavailable
from app.telemetry.logs import LogWriter

EVERY_S = 2.0
LEASE_MS = 60_000
ASK_TIMEOUT_S = 20.0
"""Shorter than the lease."""
AT_ONCE = 20
"""Of one upstream: with so many asks that it has not answered, others alone are asked for."""
MISSED_MAX = 10_000
AGAIN_MS_MIN = 2_000
AGAIN_MS_MAX = 60_000


class Awaiting:
    """Rounds of one process. ``parts`` tells what is in force: upstreams and prices."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        journal: Journal,
        writer: LedgerWriter,
        log: LogWriter,
        parts: Callable[[], Parts],
    ) -> None:
        self._database = database
        self._clock = clock
        self._journal = journal
        self._writer = writer
        self._log = log
        self._parts = parts
        self._asking: dict[asyncio.Task[None], str] = {}
        """What is being asked for, and of which upstream."""
        self._missed: dict[str, int] = {}
        """How often in a row a response was not found, by its request."""
        self._rounds = Rounds("awaiting", self._look, log, interval_s=EVERY_S)

    def __repr__(self) -> str:
        return f"Awaiting({self._rounds!r})"

    def start(self) -> None:
        self._rounds.start()

    async def close(self) -> None:
        await self._rounds.close()
        for task in list(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def _look(self) -> None:
        asking = Counter(self._asking.values())
        busy = [upstream for upstream, count in asking.items() if count >= AT_ONCE]
        async with self._database.read() as connection:
            if not await awaited.are_due(connection, self._clock.now_ms(), but=busy):
                return
        async with self._database.transaction() as connection:
            now_ms = self._clock.now_ms()
            due = await awaited.take_due(connection, now_ms, lease_ms=LEASE_MS, limit=AT_ONCE, but=busy)
        for one in due:
            task = asyncio.create_task(self._ask(one), name="awaited response")
            self._asking[task] = one.upstream
            task.add_done_callback(self._asked)

    def _asked(self, task: asyncio.Task[None]) -> None:
        del self._asking[task]
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, (DatabaseUnavailable, TimeoutError)):
            # Its lease ends, and it is asked for again.
            self._log.error("awaiting_failed", reason=type(error).__name__)

    async def _ask(self, one: Awaited) -> None:
        pool = self._parts().pools.get(one.upstream)
        reading = None
        is_over = one.until_ms <= self._clock.now_ms()
        try:
            reading = None if pool is None else await ask(pool, one.object_id, ASK_TIMEOUT_S)
            self._missed.pop(one.request_id, None)
        except ResponseGone:
            is_over = is_over or self._is_gone(one)
        except (UpstreamError, TimeoutError):
            # It is asked for again.
            pass
        if reading is not None and reading.terminal is not None and not reading.stream_error:
            await self._write(one, reading)
            is_over = True
        async with self._database.transaction() as connection:
            if is_over:
                await awaited.end(connection, one.request_id)
            else:
                again_ms = min(AGAIN_MS_MIN << min(one.asked, 8), AGAIN_MS_MAX)
                await awaited.put_off(connection, one.request_id, self._clock.now_ms() + again_ms)

    def _is_gone(self, one: Awaited) -> bool:
        """Whether a response that was not found is gone for good: it was missed before."""
        missed = self._missed.pop(one.request_id, 0) + 1
        if missed < GONE_TIMES_MIN:
            self._missed[one.request_id] = missed
            if len(self._missed) > MISSED_MAX:
                del self._missed[next(iter(self._missed))]
        return missed >= GONE_TIMES_MIN

    async def _write(self, one: Awaited, reading: Reading) -> None:
        """The exact outcome, as the record that would have been written: the ledger makes a correction of it."""
        async with self._database.read() as connection:
            opening = await awaited.opening_of(connection, one.request_id)
        if opening is None or reading.usage is None:
            return
        parts = self._parts()
        meter = Meter(
            opening,
            Ask(body_bytes=0, output_tokens_max=None, follows_stored=False),
            prices=parts.prices,
            estimates=Estimates(),
        )
        meter.reading = reading
        reading.finished = True
        record = meter.close(self._clock.now_ms(), reading.terminal or "failed")
        self._journal.close(record)
        self._writer.submit(record)
        self._log.info("background_billed", request_id=one.request_id, upstream=one.upstream)
