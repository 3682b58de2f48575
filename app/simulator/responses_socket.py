"""The Responses API over one WebSocket: a frame asks for a response, its events come back as frames."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from app.simulator.errors import (
    REFUSED,
    RequestRefused,
    error_members,
    refusal_of,
    refuse_type,
    refuse_value,
)
from app.simulator.events import DELTA, OUTSIDE
from app.simulator.exchange import Exchange
from app.simulator.identifiers import new_request_id
from app.simulator.log import BilledUsage
from app.simulator.memory import Memory
from app.simulator.response_store import ResponseStore
from app.simulator.responses_request import ResponsesBody, check_responses_body
from app.simulator.socket import SocketGone
from app.simulator.steering import UNSTEERED
from app.simulator.stream import EVENTS_PER_TURN, SteeredEvents

if TYPE_CHECKING:
    from app.core.clock import Clock
    from app.simulator.channel import Channel
    from app.simulator.generate import Generator
    from app.simulator.log import ServedLog, ServedOutcome
    from app.simulator.responses_answer import ResponsesAnswer
    from app.simulator.socket import Socket

LANES_MAX = 32
LANE_FRAMES_MAX = 64
"""How many requests may wait for the one before them."""
OWN_RESPONSES_MAX = 256
OWN_BYTES_MAX = 16 * 1024 * 1024


class CreateFrame(ResponsesBody, kw_only=True):
    """``response.create``: the members of a body, and what only a frame has."""

    type: str | None = None
    stream_id: str | None = None
    generate: bool | None = None


_DECODER = msgspec.json.Decoder(CreateFrame)


class ResponsesSocket:
    """One connection. What it asks not to store is remembered for as long as it lasts."""

    def __init__(
        self, socket: Socket, channel: Channel, generator: Generator, memory: Memory, log: ServedLog, clock: Clock
    ) -> None:
        self._socket = socket
        self._channel = channel
        self._generator = generator
        own = ResponseStore(responses_max=OWN_RESPONSES_MAX, bytes_max=OWN_BYTES_MAX)
        self._memory = Memory(memory.responses, memory.conversations, own)
        self._log = log
        self._clock = clock
        self._lanes: dict[str | None, asyncio.Queue[CreateFrame]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, headers: dict[bytes, bytes]) -> None:
        """Until the connection ends. Responses with one ``stream_id``, or none, come one after the other."""
        attempt_id = headers.get(b"x-client-request-id", b"").decode("latin-1")
        steering = headers.get(b"x-sim")
        try:
            while True:
                try:
                    frame = _read_frame(await self._socket.read())
                    if frame.type == "response.steer":
                        await self._socket.write_object(_steer_failed(frame))
                        continue
                    self._lane(frame, attempt_id, steering).put_nowait(frame)
                except RequestRefused as refusal:
                    await self._socket.write_object(_error_frame(refusal, None))
        except SocketGone:
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                # They only have their log entries to close.
                await asyncio.wait(self._tasks, timeout=1)

    def _lane(self, frame: CreateFrame, attempt_id: str, steering: bytes | None) -> asyncio.Queue[CreateFrame]:
        lane = self._lanes.get(frame.stream_id)
        if lane is None:
            if len(self._lanes) >= LANES_MAX:
                refuse_value("stream_id", f"Invalid 'stream_id': at most {LANES_MAX} on one connection.")
            lane = self._lanes[frame.stream_id] = asyncio.Queue(LANE_FRAMES_MAX)
            self._tasks.add(asyncio.create_task(self._work(lane, attempt_id, steering)))
        if lane.full():
            message = f"At most {LANE_FRAMES_MAX} requests can wait on one connection."
            raise RequestRefused(429, message, kind="requests", code="rate_limit_exceeded")
        return lane

    async def _work(self, lane: asyncio.Queue[CreateFrame], attempt_id: str, steering: bytes | None) -> None:
        try:
            while True:
                await self._respond(await lane.get(), attempt_id, steering)
        except SocketGone:
            pass  # Whoever reads is told so as well, and ends the rest.

    async def _respond(self, frame: CreateFrame, attempt_id: str, steering: bytes | None) -> None:
        served = self._log.open(attempt_id, "responses", self._clock.now_ms())
        request_id = new_request_id()
        exchange = Exchange(self._channel, served, UNSTEERED, BilledUsage(), self._clock, request_id, self._log)
        outcome: ServedOutcome = "disconnected"
        try:
            answer = self._answer_of(frame, exchange, steering)
            outcome = await self._play(frame, exchange, answer)
        except REFUSED as error:
            await self._refuse(frame, exchange, refusal_of(error))
            outcome = "refused"
        finally:
            exchange.end("cut" if self._socket.stopped else outcome)

    async def _refuse(self, frame: CreateFrame, exchange: Exchange, refusal: RequestRefused) -> None:
        exchange.served.error_code = refusal.code
        exchange.served.status = refusal.status
        exchange.end("refused")
        await self._socket.write_object(_error_frame(refusal, frame.stream_id))

    def _answer_of(self, frame: CreateFrame, exchange: Exchange, steering: bytes | None) -> ResponsesAnswer:
        if frame.type != "response.create":
            refuse_value("type", f"Invalid value: '{frame.type}'. Supported values are: 'response.create'.")
        if frame.background:
            refuse_value("background", "Background mode is not supported over WebSocket.", "unsupported_parameter")
        frame.stream = True
        check_responses_body(frame)
        return self._generator.response_of(
            exchange, frame, steering, self._memory, generates=frame.generate is not False
        )

    async def _play(self, frame: CreateFrame, exchange: Exchange, answer: ResponsesAnswer) -> ServedOutcome:
        """The events of one response, with what is steered to go wrong."""
        steering, served, socket = exchange.steering, exchange.served, self._socket
        await asyncio.sleep(steering.first_ms / 1000)
        if steering.error is not None:
            exchange.bill_nothing()
            message = f"The simulator was steered into status {steering.error}."
            raise RequestRefused(steering.error, message, kind="server_error", code=steering.error_code)
        after = b"" if frame.stream_id is None else b',"stream_id":%b}' % msgspec.json.encode(frame.stream_id)
        if frame.generate is not False:
            exchange.bill_input()
        served.status = 200
        if steering.cut == "head":
            return self._cut(exchange)
        steered = SteeredEvents(answer, steering)
        for event in steered if steering.changes_events else answer.events():
            if event.kind == OUTSIDE:
                continue
            if event.kind == DELTA and steering.pace_ms:
                await asyncio.sleep(steering.pace_ms / 1000)
            elif served.written_events % EVENTS_PER_TURN == EVENTS_PER_TURN - 1:
                await asyncio.sleep(0)
            if served.written_events == steering.stall_after:
                await asyncio.sleep(steering.stall_s)
            if served.written_events == steering.cut_after:
                return self._cut(exchange)
            exchange.bill_output(event.output_tokens, event.reasoning_tokens)
            served.written_events += 1
            if answer.terminal is not None:
                # The log is complete before the client knows the end.
                exchange.end("failed" if steered.failed else "completed" if answer.complete else "incomplete")
            await socket.write(event.data[:-1] + after if after else event.data)
        return "failed" if steered.failed else "completed" if answer.complete else "incomplete"

    def _cut(self, exchange: Exchange) -> ServedOutcome:
        exchange.end("cut")
        self._socket.cut()
        return "cut"

    def __repr__(self) -> str:
        return f"ResponsesSocket(lanes={len(self._lanes)}/{LANES_MAX}, memory={self._memory!r})"


def _read_frame(data: bytes) -> CreateFrame:
    try:
        frame = _DECODER.decode(data)
    except REFUSED as error:
        raise refusal_of(error) from error
    if frame.type is None:
        refuse_type("type", "a string", frame.type)
    return frame


def _error_frame(refusal: RequestRefused, stream_id: str | None) -> dict[str, Any]:
    error = error_members(refusal.message, refusal.kind, refusal.param, refusal.code)
    frame: dict[str, Any] = {"type": "error", "status": refusal.status, "error": error}
    return frame if stream_id is None else {**frame, "stream_id": stream_id}


def _steer_failed(frame: CreateFrame) -> dict[str, Any]:
    error = {
        "code": "steering_not_supported",
        "message": "The simulator's models do not support steering.",
        "type": "invalid_request_error",
    }
    steer = {"input": frame.input, "previous_response_id": frame.previous_response_id}
    return {"type": "response.steer.failed", "error": error, "steer": steer, "sequence_number": 0}
