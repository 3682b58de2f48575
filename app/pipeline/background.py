"""Responses that go on after their POST was answered: each stays an open request until what it used is known.

Its reservation and its line in the journal stay open. Whoever asks for the response on the way ends it; else the
gateway asks by itself, ever more slowly. Where the gateway ends first, the bill gets what it can have cost at most,
and a note by which any other gateway, or the next start of this one, asks for the exact figure (``Awaited``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol
from urllib.parse import quote

from app.core.clock import Clock
from app.core.errors import UpstreamError
from app.metering.tokens import Reading
from app.telemetry.logs import LogWriter
from app.upstream.pool import UpstreamPool

RUNNING_MAX = 10_000
"""Responses that one process waits for; a further one is refused."""
LOOK_EVERY_S = 0.25
DELAY_S_MIN = 1.0
DELAY_S_MAX = 15.0
DELAY_GROWS_BY = 1.5
AT_ONCE_MAX = 8
"""Asks at a time, of each upstream: one that is slow holds up its own alone."""
ASK_TIMEOUT_S = 30.0
LAST_ASK_S_MAX = 3.0
"""How long a client that deletes a response waits for the look before."""
GONE_TIMES_MIN = 3
"""A response that is not found once may be one that is not there yet: it has to be missed so often in a row."""
WAIT_S_MAX = 24 * 60 * 60
"""A response that has not ended by then is billed at its bound."""
BODY_BYTES_MAX = 32 * 1024 * 1024
GONE = 404


class Runs(Protocol):
    """An open request whose response goes on: a ``Flight``."""

    @property
    def place(self) -> tuple[str, str]:
        """The upstream, and the response's id there."""

    def come_to_its_end(self, reading: Reading) -> None:
        """What it has come to is known."""

    def give_up(self, error_code: str, *, awaited: bool) -> None:
        """Nobody here will know: it is billed at its bound. ``awaited``: somebody is to ask later."""


class _Run:
    """One of them, and when it is asked for next, of the monotonic clock."""

    __slots__ = ("delay_s", "deleted", "due_s", "flight", "missed", "until_s")

    def __init__(self, flight: Runs, now_s: float) -> None:
        self.flight = flight
        self.delay_s = DELAY_S_MIN
        self.due_s = now_s + DELAY_S_MIN
        self.until_s = now_s + WAIT_S_MAX
        self.missed = 0
        self.deleted = False


class Background:
    """All of one process. ``pools`` tells the upstreams that are in force."""

    def __init__(self, clock: Clock, log: LogWriter, pools: Callable[[], Mapping[str, UpstreamPool]]) -> None:
        self._clock = clock
        self._log = log
        self._pools = pools
        self._runs: dict[tuple[str, str], _Run] = {}
        self._gates: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE_MAX))
        self._last_gates: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE_MAX))
        self._asking: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"Background(running={len(self._runs)}, asking={len(self._asking)})"

    @property
    def running(self) -> int:
        """Responses that go on, and are waited for here."""
        return len(self._runs)

    @property
    def is_full(self) -> bool:
        """Whether no further one can be waited for."""
        return self._closed or len(self._runs) >= RUNNING_MAX

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="background responses")

    async def close(self) -> None:
        """Hand over what still runs: another process, or the next start, will ask."""
        self._closed = True
        for task in [self._task, *list(self._asking.values())]:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._task = None
        for run in list(self._runs.values()):
            run.flight.give_up("gateway_shutdown", awaited=True)
        self._runs.clear()

    def take(self, flight: Runs) -> bool:
        """Wait for what becomes of ``flight``; False where nothing more can be waited for."""
        if self.is_full or flight.place in self._runs:
            return False
        self._runs[flight.place] = _Run(flight, self._clock.monotonic_s())
        return True

    def watcher(self, upstream: str, response_id: str) -> Callable[[Reading], None] | None:
        """Who is to be told how the response stands, where a client asks for it; None where nobody waits for it."""
        place = (upstream, response_id)
        if place not in self._runs:
            return None
        return lambda reading: self._told(place, reading)

    async def ask_before_it_goes(self, upstream: str, response_id: str) -> None:
        """A client is about to delete it: look once more what it has come to, past the others that are asked for."""
        place = (upstream, response_id)
        if place not in self._runs:
            return
        with contextlib.suppress(UpstreamError, TimeoutError, ResponseGone):
            async with asyncio.timeout(LAST_ASK_S_MAX), self._last_gates[upstream]:
                reading = await self._fetch(place)
                if reading is not None:
                    self._told(place, reading)

    def deleted(self, upstream: str, response_id: str) -> None:
        """A client has deleted it: that it is not found is no surprise any more."""
        run = self._runs.get((upstream, response_id))
        if run is not None:
            run.deleted = True
            run.due_s = self._clock.monotonic_s()

    # -- asking ---------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = self._clock.monotonic_s()
            for place, run in list(self._runs.items()):
                if run.due_s <= now_s and place not in self._asking:
                    run.delay_s = min(run.delay_s * DELAY_GROWS_BY, DELAY_S_MAX)
                    run.due_s = now_s + run.delay_s
                    task = asyncio.create_task(self._ask(place, run), name="background ask")
                    self._asking[place] = task
                    task.add_done_callback(partial(self._asked, place))

    async def _ask(self, place: tuple[str, str], run: _Run) -> None:
        async with self._gates[place[0]]:
            try:
                reading = await self._fetch(place)
            except ResponseGone:
                run.missed += 1
                if run.deleted or run.missed >= GONE_TIMES_MIN:
                    self._end(place, "response_gone")
                reading = None
            except (UpstreamError, TimeoutError):
                reading = None
        if reading is not None:
            run.missed = 0
            self._told(place, reading)
        if place in self._runs and run.until_s <= self._clock.monotonic_s():
            self._end(place, "response_never_ended")

    async def _fetch(self, place: tuple[str, str]) -> Reading | None:
        pool = self._pools().get(place[0])
        return None if pool is None else await ask(pool, place[1])

    def _asked(self, place: tuple[str, str], _task: asyncio.Task[None]) -> None:
        self._asking.pop(place, None)

    def _told(self, place: tuple[str, str], reading: Reading) -> None:
        if reading.terminal is None or reading.stream_error or reading.response_id != place[1]:
            # A stream's ``error`` is of the stream: how the response fares the gateway asks by itself.
            return
        run = self._runs.pop(place, None)
        if run is not None:
            run.flight.come_to_its_end(reading)

    def _end(self, place: tuple[str, str], error_code: str) -> None:
        run = self._runs.pop(place, None)
        if run is not None:
            self._log.error("background_unknown", upstream=place[0], reason=error_code)
            run.flight.give_up(error_code, awaited=False)


class ResponseGone(Exception):
    """The upstream has no such response any more."""


async def ask(pool: UpstreamPool, response_id: str, timeout_s: float = ASK_TIMEOUT_S) -> Reading | None:
    """How a response stands; None where that is not told. Raises ResponseGone, UpstreamError, TimeoutError."""
    async with asyncio.timeout(timeout_s):
        status, body = await pool.fetch(f"/responses/{quote(response_id, safe='')}", BODY_BYTES_MAX)
    if status == GONE:
        raise ResponseGone
    reading = Reading()
    return reading if status == 200 and reading.see_json(body) else None
