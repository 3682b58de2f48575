"""Plays an answer's events to the client, with everything that may go wrong on the way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.simulator.events import DELTA, KEEP_ALIVE, OUTSIDE, TERMINAL
from app.simulator.steering import UNSTEERED
from app.simulator.wire import Wire, frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.simulator.events import Event, EventSource
    from app.simulator.exchange import Exchange
    from app.simulator.log import ServedOutcome
    from app.simulator.steering import Steering

EVENTS_PER_TURN = 32
"""After so many events the other connections get their turn, and a leaving client is noticed."""
UNKNOWN_FIRST = 2
UNKNOWN_EVERY = 5
BROKEN_EVENT = 3


class SteeredEvents:
    """An answer's events with the steered ones among them."""

    def __init__(self, source: EventSource, steering: Steering) -> None:
        self._source = source
        self._steering = steering
        self.failed = False

    def __iter__(self) -> Iterator[Event]:
        steering = self._steering
        events = self._source.events()
        count = 0
        ended = False
        while True:
            # Asked before the next event is made, which would take the sequence number.
            if not ended and count in (steering.fail_after, steering.error_event_after):
                self.failed = True
                yield self._source.failure() if count == steering.fail_after else self._source.error()
                return
            if not ended and steering.unknown_events and count % UNKNOWN_EVERY == UNKNOWN_FIRST:
                yield KEEP_ALIVE
                yield self._source.unknown()
                count += 1
                continue
            event = next(events, None)
            if event is None:
                return
            yield self._broken(event, count)
            count += 1
            if event.kind == TERMINAL:
                ended = True
                again = self._source.terminal_again() if steering.two_terminals else None
                if again is not None:
                    yield again

    def _broken(self, event: Event, count: int) -> Event:
        if self._steering.badjson and count == BROKEN_EVENT:
            return event._replace(data=event.data[:-2])
        return event


class StreamPlayer:
    """Plays one stream and closes its entry in the log."""

    def __init__(self, exchange: Exchange, source: EventSource, *, complete: bool) -> None:
        self._exchange = exchange
        self._channel = exchange.channel
        self._served = exchange.served
        self._steering = exchange.steering
        self._source = source
        self._complete = complete
        self._wire = Wire(exchange.steering)

    async def play(self) -> None:
        """Everything after the response's head."""
        self._channel.watch()
        if self._steering is UNSTEERED:
            outcome = await self._play_plain()
        else:
            outcome = await self._play_steered()
        self._exchange.end(outcome)
        if outcome == "cut":
            await self._channel.cut(reset=self._steering.cut_how == "reset")
        elif outcome != "disconnected":
            await self._channel.finish()

    async def _play_plain(self) -> ServedOutcome:
        channel, served, exchange = self._channel, self._served, self._exchange
        for event in self._source.events():
            if served.written_events % EVENTS_PER_TURN == EVENTS_PER_TURN - 1:
                await asyncio.sleep(0)
                if channel.gone:
                    return "disconnected"
            if event.kind != OUTSIDE:
                exchange.bill_output(event.output_tokens, event.reasoning_tokens)
                served.written_events += 1
            await channel.write(frame(event))
        return "completed" if self._complete else "incomplete"

    async def _play_steered(self) -> ServedOutcome:
        events = SteeredEvents(self._source, self._steering)
        steering, channel, served = self._steering, self._channel, self._served
        if steering.head_ms:
            await channel.pause(steering.head_ms / 1000)
        for event in events if steering.changes_events else self._source.events():
            if event.kind == DELTA and steering.pace_ms:
                await channel.pause(steering.pace_ms / 1000)
            elif served.written_events % EVENTS_PER_TURN == EVENTS_PER_TURN - 1:
                await asyncio.sleep(0)
            if channel.gone:
                return "disconnected"
            if served.written_events == steering.cut_after:
                return await self._end_at(event)
            if not await self._show(event):
                return "disconnected"
        await self._write_all(self._wire.flush())
        if served.written_events == steering.cut_after:
            return "cut"
        if events.failed:
            return "failed"
        return "completed" if self._complete else "incomplete"

    async def _show(self, event: Event) -> bool:
        """Write ``event``, after a pause if the stream stalls here; whether the client is still there."""
        steering, served = self._steering, self._served
        stalls = served.written_events == steering.stall_after and event.kind != OUTSIDE
        if stalls and not steering.mid:
            await self._channel.pause(steering.stall_s)
            if self._channel.gone:
                return False
        if event.kind != OUTSIDE:
            self._exchange.bill_output(event.output_tokens, event.reasoning_tokens)
            served.written_events += 1
        writes = self._wire.feed(event)
        if stalls and steering.mid:
            first, second = _halves(writes)
            await self._channel.write(first)
            await self._channel.pause(steering.stall_s)
            writes = [second]
        await self._write_all(writes)
        return not self._channel.gone

    async def _end_at(self, event: Event) -> ServedOutcome:
        """Cut before ``event``, or in the middle of it."""
        if self._steering.mid:
            if event.kind != OUTSIDE:
                self._exchange.bill_output(event.output_tokens, event.reasoning_tokens)
            writes = self._wire.feed(event)
            await self._write_all([*self._wire.flush(), _halves(writes)[0]])
        else:
            await self._write_all(self._wire.flush())
        return "cut"

    async def _write_all(self, writes: list[bytes]) -> None:
        channel, between_s = self._channel, self._wire.between_s
        for data in writes:
            if between_s:
                # Before each write, not after it: when the last bytes are out, the log is complete.
                await channel.pause(between_s)
                if channel.gone:
                    return
            if data:
                await channel.write(data)


def _halves(writes: list[bytes]) -> tuple[bytes, bytes]:
    data = b"".join(writes)
    middle = len(data) // 2
    return data[:middle], data[middle:]
