"""Responses that are generated while nobody waits for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from app.simulator.delivery import EVENT_STREAM, fails_before_head, head_of
from app.simulator.errors import RequestRefused
from app.simulator.event_record import EventRecord
from app.simulator.events import DELTA, OUTSIDE
from app.simulator.routes import JSON
from app.simulator.steering import UNSTEERED
from app.simulator.stream import EVENTS_PER_TURN, SteeredEvents

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.simulator.events import Event
    from app.simulator.exchange import Exchange
    from app.simulator.log import ServedOutcome
    from app.simulator.responses_answer import ResponsesAnswer

RUNS_MAX = 10_000
RUNS_BYTES_MAX = 256 * 1024 * 1024
BYTES_PER_TOKEN = 500
"""What the event of one token takes at most."""


class BackgroundRun:
    """One response while it is generated: what it is now, and its events."""

    def __init__(
        self,
        exchange: Exchange,
        answer: ResponsesAnswer,
        given: str | bytes,
        keep: Callable[[bytes, tuple[Event, ...]], None],
    ) -> None:
        self.given = given
        self._exchange = exchange
        self._answer = answer
        self._keep = keep
        self._task: asyncio.Task[None] | None = None
        self.record = EventRecord()
        self.id = exchange.served.response_id or ""
        self.data = answer.snapshot
        self.size_bytes = exchange.used.output_tokens * BYTES_PER_TOKEN + exchange.steering.event_bytes
        self.removed = False

    def start(self, ended: Callable[[BackgroundRun], None]) -> None:
        """Let it run; ``ended`` is told when it does no more."""
        self._exchange.runs_on = True
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: ended(self))

    def cancel(self) -> None:
        """Generate no more. What was generated is billed."""
        self._end("cancelled", self._answer.cancelled_body())

    def stop(self) -> None:
        """The simulator stops: nobody will hear of this response again."""
        self._end("cut", self._answer.cancelled_body())

    async def _run(self) -> None:
        try:
            await self._generate()
        finally:
            # Only where it was stopped from outside: the first end counts.
            self._exchange.end("cut")

    async def _generate(self) -> None:
        steering, answer, exchange = self._exchange.steering, self._answer, self._exchange
        steered = SteeredEvents(answer, steering)
        count = 0
        for event in steered if steering.changes_events else answer.events():
            if event.kind == DELTA and steering.pace_ms:
                await asyncio.sleep(steering.pace_ms / 1000)
            elif count % EVENTS_PER_TURN == EVENTS_PER_TURN - 1:
                await asyncio.sleep(0)
            if count == steering.stall_after and event.kind != OUTSIDE:
                await asyncio.sleep(steering.stall_s)
            if event.type == b"response.in_progress":
                self.data = answer.started_body()
                exchange.bill_input()
            if event.kind != OUTSIDE:
                count += 1
                exchange.bill_output(event.output_tokens, event.reasoning_tokens)
            if answer.terminal is not None or steered.failed:
                self._finish(event, failed=steered.failed)
                return
            self.record.append(event)
            if event.type == b"response.queued":
                await asyncio.sleep(steering.queue_ms / 1000)

    def _finish(self, event: Event, *, failed: bool) -> None:
        """The last event comes when the log and the store know of the end."""
        self.record.events.append(event)
        answer = self._answer
        outcome: ServedOutcome = "failed" if failed else "completed" if answer.complete else "incomplete"
        self._end(outcome, answer.terminal or answer.failed_body())

    def _end(self, outcome: ServedOutcome, data: bytes) -> None:
        if self.record.ended:
            return
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self.data = data
        self._exchange.end(outcome)
        if not self.removed:
            self._keep(data, tuple(self.record.events))
        self.record.end()

    def __repr__(self) -> str:
        return f"BackgroundRun({self.id}, {self.record!r})"


class BackgroundRuns:
    """The responses that run now, bounded by number and by what their events may take."""

    def __init__(self, *, runs_max: int = RUNS_MAX, bytes_max: int = RUNS_BYTES_MAX) -> None:
        self._runs: dict[str, BackgroundRun] = {}
        self._bytes = 0
        self.runs_max = runs_max
        self.bytes_max = bytes_max

    async def answer(self, exchange: Exchange, run: BackgroundRun) -> None:
        """Begin ``run``, and tell the client so, or everything of it where it asked for a stream."""
        steering, channel = exchange.steering, exchange.channel
        if steering is not UNSTEERED and steering.cut is None and await fails_before_head(exchange):
            return
        self._start(run)
        if steering.cut == "head":
            await channel.cut(reset=steering.cut_how == "reset")
            return
        exchange.served.status = status = steering.status or 200
        if not exchange.served.stream:
            body = run.data
            await channel.start(status, [*head_of(exchange, JSON), (b"content-length", b"%d" % len(body))])
            await channel.finish(body)
            return
        await channel.start(status, head_of(exchange, EVENT_STREAM))
        if await run.record.follow(channel, 0, events_max=steering.cut_after):
            await channel.finish()
        elif not channel.gone:
            await channel.cut(reset=steering.cut_how == "reset")

    def find(self, response_id: str) -> BackgroundRun | None:
        """A response that is not finished."""
        run = self._runs.get(response_id)
        return None if run is None or run.record.ended else run

    def stop(self) -> None:
        """End them all."""
        for run in list(self._runs.values()):
            run.stop()

    def _start(self, run: BackgroundRun) -> None:
        if len(self._runs) >= self.runs_max or self._bytes + run.size_bytes > self.bytes_max:
            message = f"Too many responses run in the background: at most {self.runs_max}, {self.bytes_max} bytes."
            raise RequestRefused(429, message, kind="requests", code="rate_limit_exceeded")
        self._runs[run.id] = run
        self._bytes += run.size_bytes
        run.start(self._ended)

    def _ended(self, run: BackgroundRun) -> None:
        self._bytes -= run.size_bytes
        if self._runs.get(run.id) is run:
            del self._runs[run.id]

    def __repr__(self) -> str:
        return f"BackgroundRuns(runs={len(self._runs)}/{self.runs_max}, bytes={self._bytes}/{self.bytes_max})"


def is_background(response: dict[str, Any]) -> bool:
    """Whether a response was made to run in the background."""
    return response.get("background") is True
