"""The answer to ``POST /chat/completions``, as one JSON body or as a stream of chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from app.simulator.events import DELTA, DONE, PLAIN, TERMINAL, Event
from app.simulator.generation import Call, Message, Reasoning
from app.simulator.prompt import served_tier
from app.simulator.responses_answer import FAILURE_MESSAGE
from app.simulator.routes import JSON
from app.simulator.usage_report import chat_usage, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.simulator.chat_request import ChatBody
    from app.simulator.generation import Plan
    from app.simulator.log import BilledUsage
    from app.simulator.steering import Steering

SYSTEM_FINGERPRINT = "fp_simulator"

_encode = msgspec.json.encode


class ChatAnswer:
    """One completion of ``n`` choices; ``used`` is what the whole of it uses, ``keep`` is given all of it."""

    def __init__(
        self,
        body: ChatBody,
        plans: list[Plan],
        used: BilledUsage,
        steering: Steering,
        completion_id: str,
        created_s: int,
        keep: Callable[[bytes], None] | None = None,
    ) -> None:
        self._keep = keep
        self._body = body
        self._plans = plans
        self._used = used
        self._steering = steering
        self._id = completion_id
        self._created_s = created_s
        self._output_tokens = 0
        self._reasoning_tokens = 0

    failed_status = 500
    content_type = JSON

    @property
    def complete(self) -> bool:
        return all(plan.complete for plan in self._plans)

    # One body

    def body(self) -> bytes:
        """The finished completion."""
        data = self._whole()
        if self._keep is not None:
            self._keep(data)
        return data

    def _whole(self) -> bytes:
        completion: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created_s,
            "model": self._body.model,
            "choices": [self._choice(index, plan) for index, plan in enumerate(self._plans)],
            "usage": None,
            "service_tier": served_tier(self._body.service_tier),
            "system_fingerprint": SYSTEM_FINGERPRINT,
        }
        report(completion, chat_usage(self._used), self._steering.usage)
        return _encode(completion)

    def failed_body(self) -> bytes:
        return _error_data()

    def _choice(self, index: int, plan: Plan) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        calls: list[dict[str, Any]] = []
        for part in plan.parts:
            if isinstance(part, Message):
                message["refusal" if part.refusal else "content"] = part.text
            elif isinstance(part, Call):
                function = {"name": part.name, "arguments": part.arguments}
                calls.append({"id": self._call_id(index, len(calls)), "type": "function", "function": function})
        if calls:
            message["tool_calls"] = calls
        return {"index": index, "message": message, "logprobs": None, "finish_reason": _finish_reason(plan)}

    # A stream

    def events(self) -> Iterator[Event]:
        """Chunks, then ``[DONE]``."""
        for index, plan in enumerate(self._plans):
            yield from self._choice_events(index, plan)
        if self._body.includes_usage and self._steering.usage != "missing":
            chunk = self._chunk([])
            report(chunk, chat_usage(self._used), self._steering.usage)
            yield self._event(chunk)
        if self._steering.done is not False:
            yield DONE

    def failure(self) -> Event:
        return Event(b"", _error_data(), self._output_tokens, self._reasoning_tokens, PLAIN)

    def error(self) -> Event:
        return self.failure()

    def unknown(self) -> Event:
        return self._event({**self._chunk([]), "object": "chat.simulator_note", "note": {"weight": None}})

    def terminal_again(self) -> Event:
        last = len(self._plans) - 1
        return self._event(self._chunk([_delta(last, {}, _finish_reason(self._plans[last]))]))

    def _choice_events(self, index: int, plan: Plan) -> Iterator[Event]:
        calls = [part for part in plan.parts if isinstance(part, Call)]
        first: dict[str, Any] = {"role": "assistant", "content": None if calls else "", "refusal": None}
        yield self._event(self._chunk([_delta(index, first)]))
        at = 0
        for part in plan.parts:
            if isinstance(part, Message):
                yield from self._deltas(index, part.pieces, b'"refusal":' if part.refusal else b'"content":')
                if part.block:
                    yield from self._deltas(index, [part.block], b'"content":', tokens=part.block_tokens)
            elif isinstance(part, Reasoning):
                # Thought before the first word; chat completions show nothing of it.
                self._output_tokens += part.tokens
                self._reasoning_tokens += part.tokens
            else:
                yield from self._call_events(index, at, part)
                at += 1
        finish = self._event(self._chunk([_delta(index, {}, _finish_reason(plan))]))
        if self._keep is not None and plan is self._plans[-1]:
            # Before the event goes out: its reader may ask for it at once.
            self._keep(self._whole())
        yield finish._replace(kind=TERMINAL) if plan is self._plans[-1] else finish

    def _call_events(self, index: int, at: int, call: Call) -> Iterator[Event]:
        opened = {
            "index": at,
            "id": self._call_id(index, at),
            "type": "function",
            "function": {"name": call.name, "arguments": ""},
        }
        yield self._event(self._chunk([_delta(index, {"tool_calls": [opened]})]))
        before = b'"tool_calls":[{"index":%d,"function":{"arguments":' % at
        yield from self._deltas(index, call.pieces, before, after=b"}}]")

    def _deltas(
        self, index: int, pieces: list[str], before: bytes, after: bytes = b"", *, tokens: int = 1
    ) -> Iterator[Event]:
        """One chunk per piece, spliced together: this is most of a stream."""
        head, tail = _encode(self._chunk([_delta(index, {})])).split(b'"delta":{}', 1)
        head += b'"delta":{' + before
        tail = after + b"}" + tail
        for piece in pieces:
            self._output_tokens += tokens
            data = head + _encode(piece) + tail
            yield Event(b"", data, self._output_tokens, self._reasoning_tokens, DELTA)

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created_s,
            "model": self._body.model,
            "service_tier": served_tier(self._body.service_tier),
            "system_fingerprint": SYSTEM_FINGERPRINT,
            "choices": choices,
        }
        if self._body.includes_usage:
            chunk["usage"] = None
        return chunk

    def _event(self, chunk: dict[str, Any]) -> Event:
        return Event(b"", _encode(chunk), self._output_tokens, self._reasoning_tokens, PLAIN)

    def _call_id(self, index: int, at: int) -> str:
        return f"call_{self._id[-20:]}{index:02x}{at:02x}"


def _delta(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _finish_reason(plan: Plan) -> str:
    if not plan.complete:
        return "length"
    return "tool_calls" if any(isinstance(part, Call) for part in plan.parts) else "stop"


def _error_data() -> bytes:
    error = {"message": FAILURE_MESSAGE, "type": "server_error", "param": None, "code": "server_error"}
    return _encode({"error": error})
