"""The answer to ``POST /responses``, as one JSON body or as a stream of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from app.simulator.events import DELTA, DONE, PLAIN, TERMINAL, Event
from app.simulator.generation import Call, Message, Reasoning
from app.simulator.log import BilledUsage
from app.simulator.prompt import served_tier
from app.simulator.response_object import (
    ENCRYPTED_REASONING,
    call_item,
    content_part,
    item_id_of,
    item_of,
    message_item,
    reasoning_item,
    response_object,
)
from app.simulator.routes import JSON
from app.simulator.usage_report import report, responses_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.core.clock import Clock
    from app.simulator.generation import Plan
    from app.simulator.responses_request import ResponsesBody
    from app.simulator.steering import Steering

FAILURE_MESSAGE = "The simulator was steered into failing."
# Real deltas carry filler, so that the size on the wire does not give the word away.
_FILLER = "h3Kq9ZtB7wLmXc2VaR8sYdP5uGfE4nJo"
_FILLED_CHARS = 16

_encode = msgspec.json.encode


class ResponsesAnswer:
    """One response. ``used`` is what the whole of it uses; ``keep`` is given its final JSON."""

    def __init__(
        self,
        body: ResponsesBody,
        plan: Plan,
        used: BilledUsage,
        steering: Steering,
        response_id: str,
        clock: Clock,
        keep: Callable[[bytes], None] | None,
    ) -> None:
        self._body = body
        self._plan = plan
        self._used = used
        self._steering = steering
        self._keep = keep
        self._clock = clock
        self._encrypted = ENCRYPTED_REASONING in (body.include or ())
        self._sequence = 0
        self._output_tokens = 0
        self._reasoning_tokens = 0
        self._terminal: bytes | None = None
        reasons = any(isinstance(part, Reasoning) for part in plan.parts)
        self._object = response_object(body, response_id, clock.now_ms() // 1000, reasons=reasons)
        self._ids = [item_id_of(part, response_id, index) for index, part in enumerate(plan.parts)]
        options = body.stream_options
        self._filled = options is None or options.get("include_obfuscation") is not False
        # Made before the head goes out: what cannot be encoded is still refused properly.
        self._snapshot = _encode(self._object) if body.stream or body.background else b""

    failed_status = 200
    """A failed response is an ordinary answer that says so."""
    content_type = JSON

    @property
    def complete(self) -> bool:
        return self._plan.complete

    @property
    def snapshot(self) -> bytes:
        """The response as its stream begins with it."""
        return self._snapshot

    @property
    def terminal(self) -> bytes | None:
        """The response as its stream has ended with it."""
        return self._terminal

    # One body

    def body(self) -> bytes:
        """The finished response."""
        data = _encode(self._finished())
        if self._keep is not None:
            self._keep(data)
        return data

    def failed_body(self) -> bytes:
        """The response that failed, all of it generated."""
        return _encode(self._failed(self._used))

    def started_body(self) -> bytes:
        """The response that is being generated."""
        self._object["status"] = "in_progress"
        return _encode(self._object)

    def cancelled_body(self) -> bytes:
        """The response that was cancelled: nobody is told what it has cost."""
        self._object["status"] = "cancelled"
        return _encode(self._object)

    def _finished(self) -> dict[str, Any]:
        response = self._object
        response["output"] = [
            item_of(part, item_id, encrypted=self._encrypted)
            for part, item_id in zip(self._plan.parts, self._ids, strict=True)
        ]
        response["service_tier"] = served_tier(self._body.service_tier)
        if self._plan.complete:
            response["status"] = "completed"
            response["completed_at"] = self._clock.now_ms() // 1000
        else:
            response["status"] = "incomplete"
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        report(response, responses_usage(self._used), self._steering.usage)
        return response

    def _failed(self, used: BilledUsage) -> dict[str, Any]:
        response = self._object
        response["status"] = "failed"
        response["error"] = {"code": "server_error", "message": FAILURE_MESSAGE}
        response["service_tier"] = served_tier(self._body.service_tier)
        if self._steering.fail_usage:
            report(response, responses_usage(used), self._steering.usage)
        return response

    # A stream

    def events(self) -> Iterator[Event]:
        """``response.created`` to the terminal event."""
        yield self._lifecycle(b"response.created", self._snapshot)
        if self._body.background:
            yield self._lifecycle(b"response.queued", self._snapshot)
            self._snapshot = self.started_body()
        yield self._lifecycle(b"response.in_progress", self._snapshot)
        yield from self._part_events()
        self._output_tokens = self._plan.output_tokens
        self._reasoning_tokens = self._plan.reasoning_tokens
        self._terminal = _encode(self._finished())
        if self._keep is not None:
            # Before the event goes out: its reader may chain on it at once.
            self._keep(self._terminal)
        yield self._lifecycle(self._terminal_type(), self._terminal, TERMINAL)
        if self._steering.done:
            yield DONE

    def events_again(self, snapshot: bytes, terminal: bytes) -> Iterator[Event]:
        """The events of an answer that was given before, as it began and as it ended."""
        yield self._lifecycle(b"response.created", snapshot)
        yield self._lifecycle(b"response.in_progress", snapshot)
        yield from self._part_events()
        yield self._lifecycle(self._terminal_type(), terminal, TERMINAL)

    def _part_events(self) -> Iterator[Event]:
        for index, part in enumerate(self._plan.parts):
            if isinstance(part, Message):
                yield from self._message_events(index, part)
            elif isinstance(part, Call):
                yield from self._call_events(index, part)
            else:
                yield from self._reasoning_events(index, part)

    def terminal_again(self) -> Event | None:
        return None if self._terminal is None else self._lifecycle(self._terminal_type(), self._terminal)

    def failure(self) -> Event:
        used = BilledUsage(
            self._used.input_tokens, self._used.cached_tokens, self._output_tokens, self._reasoning_tokens
        )
        self._terminal = _encode(self._failed(used))
        return self._lifecycle(b"response.failed", self._terminal)

    def error(self) -> Event:
        return self._event("error", {"code": "server_error", "message": FAILURE_MESSAGE, "param": None})

    def unknown(self) -> Event:
        return self._event("response.simulator_note.added", {"note": {"text": "nobody knows me", "weight": None}})

    def _terminal_type(self) -> bytes:
        return b"response.completed" if self._plan.complete else b"response.incomplete"

    def _message_events(self, index: int, message: Message) -> Iterator[Event]:
        item_id, refusal, text = self._ids[index], message.refusal, message.text
        place = {"content_index": 0, "item_id": item_id, "output_index": index}
        opened = {"id": item_id, "type": "message", "status": "in_progress", "content": [], "role": "assistant"}
        yield self._event("response.output_item.added", {"item": opened, "output_index": index})
        yield self._event("response.content_part.added", {**place, "part": content_part("", refusal=refusal)})
        kind = b"response.refusal.delta" if refusal else b"response.output_text.delta"
        logprobs = b"" if refusal else b'"logprobs":[],'
        before, after = b'"content_index":0,', b'"item_id":"%b",%b' % (item_id.encode(), logprobs)
        yield from self._deltas(kind, message.pieces, before, after, index)
        if message.block:
            yield from self._deltas(kind, [message.block], before, after, index, tokens=message.block_tokens)
        if refusal:
            yield self._event("response.refusal.done", {**place, "refusal": text})
        else:
            yield self._event("response.output_text.done", {**place, "logprobs": [], "text": text})
        yield self._event("response.content_part.done", {**place, "part": content_part(text, refusal=refusal)})
        item = message_item(item_id, message)
        yield self._event("response.output_item.done", {"item": item, "output_index": index})

    def _call_events(self, index: int, call: Call) -> Iterator[Event]:
        item_id = self._ids[index]
        item = call_item(item_id, call)
        opened = {**item, "status": "in_progress", "arguments": ""}
        yield self._event("response.output_item.added", {"item": opened, "output_index": index})
        kind = b"response.function_call_arguments.delta"
        yield from self._deltas(kind, call.pieces, b"", b'"item_id":"%b",' % item_id.encode(), index)
        done = {"arguments": call.arguments, "item_id": item_id, "output_index": index}
        yield self._event("response.function_call_arguments.done", done)
        yield self._event("response.output_item.done", {"item": item, "output_index": index})

    def _reasoning_events(self, index: int, part: Reasoning) -> Iterator[Event]:
        item_id = self._ids[index]
        opened = reasoning_item(item_id, [], encrypted=self._encrypted)
        yield self._event("response.output_item.added", {"item": opened, "output_index": index})
        shown = sum(len(pieces) for pieces in part.summaries)
        texts = ["".join(pieces) for pieces in part.summaries]
        told = 0
        for at, pieces in enumerate(part.summaries):
            place = {"item_id": item_id, "output_index": index, "summary_index": at}
            yield self._event(
                "response.reasoning_summary_part.added", {**place, "part": {"type": "summary_text", "text": ""}}
            )
            after = b'"item_id":"%b","summary_index":%d,' % (item_id.encode(), at)
            for piece in pieces:
                # Thinking goes on behind the summary: its tokens are spread over what is shown.
                told += 1
                self._output_tokens = self._reasoning_tokens = part.tokens * told // shown
                yield from self._deltas(b"response.reasoning_summary_text.delta", [piece], b"", after, index, tokens=0)
            yield self._event("response.reasoning_summary_text.done", {**place, "text": texts[at]})
            summary = {"type": "summary_text", "text": texts[at]}
            yield self._event("response.reasoning_summary_part.done", {**place, "part": summary})
        self._output_tokens = self._reasoning_tokens = part.tokens
        item = reasoning_item(item_id, texts, encrypted=self._encrypted)
        yield self._event("response.output_item.done", {"item": item, "output_index": index})

    def _deltas(
        self, kind: bytes, pieces: list[str], before: bytes, after: bytes, index: int, *, tokens: int = 1
    ) -> Iterator[Event]:
        """One event per piece, spliced together: this is most of a stream."""
        head = b'{"type":"%b",%b"delta":' % (kind, before)
        tail = b'"output_index":%d,"sequence_number":' % index
        for piece in pieces:
            number = self._sequence
            self._sequence = number + 1
            self._output_tokens += tokens
            filler = b""
            if self._filled:
                place = number & 15
                filler = b'"obfuscation":"%b",' % (
                    _FILLER[place : place + _FILLED_CHARS - len(piece) % _FILLED_CHARS].encode()
                )
            data = b"%b%b,%b%b%b%d}" % (head, _encode(piece), after, filler, tail, number)
            yield Event(kind, data, self._output_tokens, self._reasoning_tokens, DELTA)

    def _event(self, kind: str, members: dict[str, Any]) -> Event:
        data = _encode({"type": kind, **members, "sequence_number": self._sequence})
        self._sequence += 1
        return Event(kind.encode(), data, self._output_tokens, self._reasoning_tokens, PLAIN)

    def _lifecycle(self, name: bytes, response: bytes, kind: int = PLAIN) -> Event:
        data = b'{"type":"%b","response":%b,"sequence_number":%d}' % (name, response, self._sequence)
        self._sequence += 1
        return Event(name, data, self._output_tokens, self._reasoning_tokens, kind)
