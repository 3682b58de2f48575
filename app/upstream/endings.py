"""How a stream is ended whose upstream cannot do it any more: by an event that says so, in the stream's own form.

A body that simply ends looks to SDKs like an answer that is whole. A Responses stream ends with a
``response.failed`` that names the response of its ``response.created``, or with an ``error`` where that has
not passed; a chat stream with a chunk that has an ``error`` and no ``[DONE]``. Other families have no such
form: there the connection is cut.

In ``Trail`` the hot path keeps two references and two counts; everything else happens at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from app.core.sse import Event

Cause = Literal["upstream_disconnected", "upstream_stalled", "gateway_shutdown", "key_revoked"]

KEPT_BYTES_MAX = 16 * 1024
"""What of an event is kept for a stream's end; of a larger one only what cannot be done without."""

MESSAGES: dict[Cause, str] = {
    "upstream_disconnected": "The upstream broke the stream off before its end.",
    "upstream_stalled": "The upstream sent nothing more in time.",
    "gateway_shutdown": "The gateway shut down before the stream's end.",
    "key_revoked": "The key was revoked, and what ran with it was cut off.",
}
CREATED_TYPE = "response.created"
CREATED = CREATED_TYPE.encode()
QUOTED_CREATED = b'"%s"' % CREATED
CODE = "server_error"
REQUIRED: dict[str, Any] = {
    "object": "response",
    "model": "",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
"""What every response has. Many servers that are not OpenAI leave some of it out."""


class _Created(msgspec.Struct):
    type: Any = None
    response: dict[str, Any] | None = None


class _SlimResponse(msgspec.Struct):
    """A response without its instructions and tools, which are all that can be large."""

    id: Any = None
    created_at: Any = None
    model: Any = None


class _SlimCreated(msgspec.Struct):
    type: Any = None
    response: _SlimResponse | None = None


class _Numbered(msgspec.Struct):
    sequence_number: Any = None


_created_decoder = msgspec.json.Decoder(_Created)
_slim_decoder = msgspec.json.Decoder(_SlimCreated)
_numbered_decoder = msgspec.json.Decoder(_Numbered)
_UNREADABLE = (ValueError, RecursionError)


class Trail:
    """What a Responses stream's end must fit: the event that created the response, and how far the numbers got.

    Keeps two events as they came, each up to ``KEPT_BYTES_MAX``, and reads them only at the end.
    """

    __slots__ = ("_begun", "_last", "_last_at", "_passed")

    def __init__(self) -> None:
        self._begun = b""
        self._last = b""
        self._last_at = 0
        self._passed = 0

    def __repr__(self) -> str:
        return f"Trail(passed={self._passed}, begun={bool(self._begun)})"

    def follow(self, events: Sequence[Event]) -> None:
        """``events`` (at least one) are about to be the client's."""
        if not self._begun:
            self._look_for_created(events)
        passed = self._passed = self._passed + len(events)
        last = events[-1].data
        if len(last) <= KEPT_BYTES_MAX:
            self._last = last
            self._last_at = passed

    def response(self) -> dict[str, Any] | None:
        """The response as it was created; None where no client has seen one."""
        if not self._begun:
            return None
        try:
            return _created_decoder.decode(self._begun).response
        except _UNREADABLE:
            return None

    def next_number(self) -> int:
        """The ``sequence_number`` that follows; where the upstream has none, the place in the stream."""
        try:
            number = _numbered_decoder.decode(self._last).sequence_number
        except _UNREADABLE:
            number = None
        if type(number) is not int or number < 0:
            return self._passed
        return number + 1 + self._passed - self._last_at

    def _look_for_created(self, events: Sequence[Event]) -> None:
        for event in events:
            # Some servers do not name their events.
            if event.event == CREATED or (not event.event and QUOTED_CREATED in event.data):
                self._take_created(event.data)

    def _take_created(self, data: bytes) -> None:
        try:
            created = _slim_decoder.decode(data)
        except _UNREADABLE:
            return
        if created.type == CREATED_TYPE:
            slim = data if len(data) <= KEPT_BYTES_MAX else msgspec.json.encode(created)
            self._begun = slim if len(slim) <= KEPT_BYTES_MAX else b""


def chat_ending(cause: Cause, line_end: bytes) -> bytes:
    """The chunk that ends a chat stream, to stand behind an event's end."""
    error = {"message": _text(cause), "type": CODE, "param": None, "code": cause}
    return _event(b"", {"error": error}, line_end)


def response_ending(cause: Cause, trail: Trail, line_end: bytes, *, at_ms: int) -> bytes:
    """The event that ends a Responses stream, to stand behind an event's end. ``at_ms`` is now, since 1970."""
    text = _text(cause)
    number = trail.next_number()
    response = trail.response()
    if response is None or not isinstance(response.get("id"), str):
        error = {"message": text, "type": CODE, "param": None, "code": CODE}
        # Twice: as the SDK's types have it, and as OpenAI sends it and the SDK raises it.
        said = {"type": "error", "code": CODE, "message": text, "param": None, "sequence_number": number}
        return _event(b"error", {**said, "error": error}, line_end)
    for name, value in (*REQUIRED.items(), ("created_at", at_ms // 1000)):
        if response.get(name) is None:
            response[name] = value
    response.update(status="failed", error={"code": CODE, "message": text}, incomplete_details=None, usage=None)
    failed = {"type": "response.failed", "sequence_number": number, "response": response}
    return _event(b"response.failed", failed, line_end)


def _text(cause: Cause) -> str:
    return f"{cause}: {MESSAGES[cause]}"


def _event(name: bytes, data: dict[str, Any], line_end: bytes) -> bytes:
    lines = [b"event: " + name] if name else []
    return line_end.join((*lines, b"data: " + msgspec.json.encode(data), b"", b""))
