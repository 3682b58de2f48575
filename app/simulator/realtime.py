"""``/realtime`` as a small session in text: items are added, a response is asked for, and its usage told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from app.simulator.conversation import Conversation, Turn, turn_of, turns_of_input
from app.simulator.errors import REFUSED, RequestRefused, error_members, refusal_of, refuse_type, refuse_value
from app.simulator.exchange import Exchange
from app.simulator.generation import Message, make_plan
from app.simulator.identifiers import new_request_id, random_hex
from app.simulator.log import BilledUsage
from app.simulator.prompt import Prompt
from app.simulator.socket import SocketGone
from app.simulator.steering import UNSTEERED, without_directives

if TYPE_CHECKING:
    from app.core.clock import Clock
    from app.simulator.channel import Channel
    from app.simulator.generate import Generator
    from app.simulator.generation import Plan
    from app.simulator.log import ServedLog, ServedOutcome
    from app.simulator.socket import Socket

TURNS_MAX = 1000
AUDIO_BYTES_PER_TOKEN = 4_800
"""A tenth of a second of sixteen-bit sound at 24 kHz."""
BASE64_CHARS_PER_BYTES = (4, 3)
DEFAULT_MODEL = "gpt-realtime"

Members = dict[str, Any]


class RealtimeSession:
    """One connection. It is served frame by frame: what is said during an answer waits."""

    def __init__(
        self, socket: Socket, channel: Channel, generator: Generator, log: ServedLog, clock: Clock, model: str | None
    ) -> None:
        self._socket = socket
        self._channel = channel
        self._generator = generator
        self._log = log
        self._clock = clock
        self._turns: list[Turn] = []
        self._audio_bytes = 0
        self._attempt_id = ""
        self._steering: bytes | None = None
        self._session: Members = {
            "type": "realtime",
            "id": f"sess_{random_hex(32)}",
            "object": "realtime.session",
            "model": model or DEFAULT_MODEL,
            "output_modalities": ["text"],
            "instructions": "",
        }
        self._handlers = {
            "session.update": self._update,
            "conversation.item.create": self._add_item,
            "input_audio_buffer.append": self._hear,
            "input_audio_buffer.commit": self._commit,
            "response.create": self._respond,
        }

    async def serve(self, headers: dict[bytes, bytes]) -> None:
        """Until the connection ends."""
        self._attempt_id = headers.get(b"x-client-request-id", b"").decode("latin-1")
        self._steering = headers.get(b"x-sim")
        try:
            await self._tell("session.created", {"session": self._session})
            while True:
                try:
                    await self._take(msgspec.json.decode(await self._socket.read(), type=Members))
                except REFUSED as error:
                    refusal = refusal_of(error)
                    members = error_members(refusal.message, refusal.kind, refusal.param, refusal.code)
                    await self._tell("error", {"error": members})
        except SocketGone:
            pass

    async def _take(self, event: Members) -> None:
        handler = self._handlers.get(str(event.get("type")))
        if handler is None:
            refuse_value("type", f"Invalid value: '{event.get('type')}'. Supported values are: {[*self._handlers]}.")
        await handler(event)

    async def _update(self, event: Members) -> None:
        told = event.get("session")
        if not isinstance(told, dict):
            refuse_type("session", "an object", told)
        self._session |= {name: value for name, value in told.items() if name not in ("id", "object", "model")}
        await self._tell("session.updated", {"session": self._session})

    async def _add_item(self, event: Members) -> None:
        turns = turns_of_input([event.get("item")])
        item = {"status": "completed", **(event.get("item") or {})}
        item["id"] = item.get("id") or f"item_{random_hex(20)}"
        await self._keep_turns(turns, item)

    async def _hear(self, event: Members) -> None:
        audio = event.get("audio")
        if not isinstance(audio, str):
            refuse_type("audio", "a string", audio)
        chars, size = BASE64_CHARS_PER_BYTES
        self._audio_bytes += len(audio) * size // chars

    async def _commit(self, event: Members) -> None:
        del event
        if not self._audio_bytes:
            raise RequestRefused(400, "The input audio buffer is empty.", code="input_audio_buffer_commit_empty")
        tokens = self._audio_bytes // AUDIO_BYTES_PER_TOKEN + 1
        self._audio_bytes = 0
        item = {"id": f"item_{random_hex(20)}", "type": "message", "role": "user", "status": "completed"}
        await self._tell("input_audio_buffer.committed", {"item_id": item["id"], "previous_item_id": None})
        turns = [turn_of("user", "Something that was spoken", tokens)]
        await self._keep_turns(turns, {**item, "content": [{"type": "input_audio", "transcript": None}]})

    async def _keep_turns(self, turns: list[Turn], item: Members) -> None:
        if len(self._turns) + len(turns) > TURNS_MAX:
            raise RequestRefused(400, f"A session has at most {TURNS_MAX} items.", code="session_too_long")
        self._turns += turns
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self._tell(kind, {"item": item, "previous_item_id": None})

    async def _respond(self, event: Members) -> None:
        asked = event.get("response") or {}
        if not isinstance(asked, dict):
            refuse_type("response", "an object", asked)
        served = self._log.open(self._attempt_id, "realtime", self._clock.now_ms())
        request_id = new_request_id()
        exchange = Exchange(self._channel, served, UNSTEERED, BilledUsage(), self._clock, request_id, self._log)
        outcome: ServedOutcome = "disconnected"
        try:
            plan = self._plan(exchange, asked)
            outcome = await self._play(exchange, plan)
        except REFUSED as error:
            served.status, served.error_code = refusal_of(error).status, refusal_of(error).code
            outcome = "refused"
            raise
        finally:
            exchange.end("cut" if self._socket.stopped else outcome)

    def _plan(self, exchange: Exchange, asked: Members) -> Plan:
        conversation = Conversation(self._turns)
        last, model = conversation.last_of("user"), str(self._session["model"])
        instructions = asked.get("instructions") or self._session.get("instructions")
        prompt = Prompt(
            model=model,
            conversation=conversation,
            asked=last,
            question=without_directives(last),
            instructions=instructions if isinstance(instructions, str) else "",
        )
        steering = self._generator.steer(exchange, model, last, self._steering, stream=True)
        if steering.error is not None:
            message = f"The simulator was steered into status {steering.error}."
            raise RequestRefused(steering.error, message, kind="server_error", code=steering.error_code)
        plan = make_plan(prompt, steering)
        exchange.used = BilledUsage(prompt.input_tokens, 0, plan.output_tokens, plan.reasoning_tokens)
        exchange.served.response_id = f"resp_{random_hex(20)}"
        exchange.served.status = 200
        return plan

    async def _play(self, exchange: Exchange, plan: Plan) -> ServedOutcome:
        served, steering = exchange.served, exchange.steering
        response: Members = {
            "id": served.response_id,
            "object": "realtime.response",
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "output_modalities": ["text"],
            "usage": None,
        }
        item: Members = {"id": f"item_{random_hex(20)}", "object": "realtime.item", "type": "message"}
        item |= {"role": "assistant", "status": "in_progress", "content": []}
        place = {"response_id": served.response_id, "item_id": item["id"], "output_index": 0, "content_index": 0}
        exchange.bill_input()
        await self._tell("response.created", {"response": response})
        await self._tell("response.output_item.added", {**place, "item": item})
        told, text = plan.reasoning_tokens, ""
        for piece in (piece for part in plan.parts if isinstance(part, Message) for piece in part.pieces):
            if steering.pace_ms:
                await asyncio.sleep(steering.pace_ms / 1000)
            told += 1
            text += piece
            exchange.bill_output(told, plan.reasoning_tokens)
            await self._tell("response.output_text.delta", {**place, "delta": piece})
        await self._tell("response.output_text.done", {**place, "text": text})
        item |= {"status": "completed", "content": [{"type": "output_text", "text": text}]}
        await self._tell("response.output_item.done", {**place, "item": item})
        exchange.bill_all()
        exchange.end("completed")
        self._turns.append(turn_of("assistant", text))
        response |= {"status": "completed", "output": [item], "usage": _usage(exchange.used)}
        await self._tell("response.done", {"response": response})
        return "completed"

    async def _tell(self, kind: str, members: Members) -> None:
        await self._socket.write_object({"type": kind, "event_id": f"event_{random_hex(20)}", **members})

    def __repr__(self) -> str:
        return f"RealtimeSession(turns={len(self._turns)}/{TURNS_MAX})"


def _usage(used: BilledUsage) -> Members:
    return {
        "total_tokens": used.input_tokens + used.output_tokens,
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "input_token_details": {"text_tokens": used.input_tokens, "audio_tokens": 0, "cached_tokens": 0},
        "output_token_details": {"text_tokens": used.output_tokens, "audio_tokens": 0},
    }
