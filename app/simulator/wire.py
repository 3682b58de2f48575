"""How events become bytes, and bytes become writes. Pure: the caller does the writing."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from app.simulator.events import DONE, KEEP_ALIVE, KEEP_ALIVE_COMMENT

if TYPE_CHECKING:
    from app.simulator.events import Event
    from app.simulator.steering import Steering

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP_WINDOW_BITS = 31


def frame(event: Event) -> bytes:
    """``event`` as OpenAI writes it."""
    if event.type:
        return b"event: %b\ndata: %b\n\n" % (event.type, event.data)
    if event is KEEP_ALIVE:
        return KEEP_ALIVE_COMMENT + b"\n\n"
    return b"data: %b\n\n" % event.data


class Wire:
    """Cuts a body into writes, as steered."""

    def __init__(self, steering: Steering) -> None:
        self._framing = steering.framing
        self._chunk_bytes = steering.chunk
        self._event_lines = not steering.no_event_lines
        self._mark = BYTE_ORDER_MARK if steering.bom else b""
        self._gzip = zlib.compressobj(wbits=GZIP_WINDOW_BITS) if steering.content_encoding == "gzip" else None
        self._held = b""
        apart = steering.chunk > 0 or steering.framing in ("line", "split")
        self.between_s = steering.chunk_ms / 1000 if apart else 0.0

    def feed(self, event: Event) -> list[bytes]:
        """The writes that ``event`` leads to; it may be held back whole."""
        return self._cut(self._framed(event))

    def feed_bytes(self, data: bytes) -> list[bytes]:
        """The writes of a body that is not a stream."""
        return self._cut([data])

    def flush(self) -> list[bytes]:
        """What was held back."""
        rest = self._held
        self._held = b""
        if self._gzip is not None:
            rest += self._gzip.flush()
        size = self._chunk_bytes or len(rest) or 1
        return [rest[start : start + size] for start in range(0, len(rest), size)]

    def _framed(self, event: Event) -> list[bytes]:
        named = event if self._event_lines or event in (KEEP_ALIVE, DONE) else event._replace(type=b"")
        text = frame(named)
        if self._framing == "crlf":
            return [text.replace(b"\n", b"\r\n")]
        if self._framing == "cr":
            return [text.replace(b"\n", b"\r")]
        if self._framing == "line":
            return text.splitlines(keepends=True)
        if self._framing == "split":
            return [text[:-1], b"\n"]
        return [text]

    def _cut(self, parts: list[bytes]) -> list[bytes]:
        if self._mark:
            parts[0] = self._mark + parts[0]
            self._mark = b""
        if self._gzip is not None:
            compressor = self._gzip
            parts = [compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) for part in parts]
        if self._framing == "one":
            self._held += b"".join(parts)
            return []
        if not self._chunk_bytes:
            return parts
        data = self._held + b"".join(parts)
        whole = len(data) - len(data) % self._chunk_bytes
        self._held = data[whole:]
        return [data[start : start + self._chunk_bytes] for start in range(0, whole, self._chunk_bytes)]
