"""Takes out of a chat stream the chunk with its usage, which the gateway asked for and the client did not.

It is the one whose ``choices`` are an empty list and whose ``usage`` is an object, alone in its event. Whatever has
choices stays, with its usage, and so does a ``"usage": null`` that some servers then put into every chunk.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

HELD_BYTES_MAX = 64 * 1024
"""A part of an event is held up to here until it shows whether it is that chunk."""

_WORD = b'"usage"'
_EVENT_ENDS = (b"\n\n", b"\r\r", b"\n\r", b"\n\r\n")
_LINE_ENDS = (b"\n", b"\r")
# Atomic: CR LF is one line's end, not two.
_BOUNDARY = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class _Chunk(msgspec.Struct):
    choices: Any = None
    usage: Any = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Chunk)


class UsageFilter:
    """Of one stream. Is given what may go to the client, and gives what does."""

    __slots__ = ("_held", "_inside", "_tail")

    def __init__(self) -> None:
        self._held = b""
        # What has gone out ended within an event, with these bytes: the rest of it must follow.
        self._inside = False
        self._tail = b""

    def __repr__(self) -> str:
        return f"UsageFilter(held={len(self._held)}, inside={self._inside})"

    def feed(self, released: bytes) -> bytes:
        if self._held:
            released, self._held = self._held + released, b""
        elif _WORD not in released:
            if released:
                self._pass(released)
            return released
        kept: list[bytes] = []
        at = 0
        if self._inside and self._tail.endswith(_LINE_ENDS) and (end := _LINE_END.match(released)) is not None:
            # The empty line that was missing.
            at = end.end()
            kept.append(released[:at])
            self._inside = False
        for boundary in _BOUNDARY.finditer(released, at):
            event = released[at : boundary.end()]
            at = boundary.end()
            if self._inside or not _is_usage_alone(event):
                kept.append(event)
            self._inside = False
        tail = released[at:]
        if tail:
            if self._inside or _WORD not in tail or len(tail) > HELD_BYTES_MAX:
                kept.append(tail)
                self._pass(tail)
            else:
                self._held = tail
        return b"".join(kept)

    def _pass(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-3:]
        self._inside = not self._tail.endswith(_EVENT_ENDS)

    def finish(self, rest: bytes) -> bytes:
        """What goes out of ``rest``, behind which nothing comes: some servers leave out the last empty line."""
        last, self._held = self._held + rest, b""
        return b"" if not self._inside and _is_usage_alone(last) else last


def _is_usage_alone(event: bytes) -> bool:
    if _WORD not in event:
        return False
    data = [
        line[5:].removeprefix(b" ") for line in _LINE_END.split(event.lstrip(b"\xef\xbb\xbf")) if line[:5] == b"data:"
    ]
    try:
        chunk = _decoder.decode(b"\n".join(data))
    except (ValueError, RecursionError):
        return False
    return chunk.choices == [] and type(chunk.usage) is dict and chunk.error is None
