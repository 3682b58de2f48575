"""Event streams as bytes: where an event ends, and what it says.

``EventSplitter`` cuts what comes from an upstream so that each write to the client ends on an event
boundary; it changes no byte. ``EventReader`` reads the events out of what was released, for the meter.

Lines end in LF, CR LF or CR, in any mixture; an event ends with an empty line. Measured (µs on one x86-64
core, Python 3.11): a chunk of whole events passes the splitter in 0.13, another in 1; an event of 220
bytes is read in 0.9, with CR LF in 2.5; 5 MB in pieces of 37 bytes take either 0.15 s.
"""

from __future__ import annotations

import msgspec

HOLD_BYTES_MAX = 256 * 1024
EVENT_BYTES_MAX = 16 * 1024 * 1024

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_ENDS = (b"\n", b"\r")
# What a kept line takes beside its bytes, so that many empty ones are not free.
_LINE_COST_BYTES = 48
# What two bytes at the end of everything make a boundary there, if nothing else follows.
_BOUNDARY_TAILS = (b"\n\n", b"\r\r", b"\n\r")


class EventSplitter:
    """Releases the longest prefix of a stream that ends on an event boundary, and holds the rest.

    ``aligned`` tells whether everything released so far ends on a boundary.
    """

    __slots__ = ("_boundary", "_held", "_hold_bytes_max", "_passing", "_tail", "aligned")

    def __init__(self, hold_bytes_max: int = HOLD_BYTES_MAX) -> None:
        self.aligned = True
        self._hold_bytes_max = hold_bytes_max
        self._held = bytearray()
        # The last two bytes of all that came: a boundary may lie across chunks. A stream starts as if a
        # line had just ended.
        self._tail = b"\n"
        # The end of what was released, where more is held behind it.
        self._boundary = b""
        # Too much was held: chunks pass as they come until the next boundary.
        self._passing = False

    def __repr__(self) -> str:
        return f"EventSplitter(held={self.held}, aligned={self.aligned})"

    @property
    def held(self) -> int:
        """Bytes that wait for their boundary."""
        return len(self._held)

    @property
    def line_end(self) -> bytes:
        """How lines end in what was released; where nothing was, in what is held."""
        seen = (self._boundary or bytes(self._held)) if self._held else self._tail
        if b"\r\n" in seen or seen.endswith(b"\n\r"):
            # Of the latter only the last line feed is missing.
            return b"\r\n"
        return b"\r" if b"\r" in seen else b"\n"

    def feed(self, chunk: bytes) -> bytes:
        """What may go out now that ``chunk`` has come."""
        if not self._held and chunk.endswith(b"\n\n"):
            self.aligned = True
            self._passing = False
            self._boundary = self._tail = b"\n\n"
            return chunk
        tail = self._tail
        window = tail + chunk
        end = _last_boundary(window)
        at = end - len(tail)
        self._tail = window[-2:]
        if at < 0:
            return self._without_boundary(chunk)
        self._boundary = window[end - 2 : end]
        self.aligned = True
        self._passing = False
        if self._held:
            self._held += chunk[:at]
            released = bytes(self._held)
            self._held = bytearray(chunk[at:])
        else:
            released = chunk[:at]
            self._held += chunk[at:]
        return released if len(self._held) <= self._hold_bytes_max else released + self._pass()

    def release_complete_line(self) -> bytes:
        """After a silence: what is held, if it ends with a line; a client may be waiting for that."""
        return self.flush() if self._held.endswith(_LINE_ENDS) else b""

    def release_whole(self) -> bytes:
        """After the end: what is held, if it is whole events, of which only a line feed could have been missing."""
        return self.flush() if self._tail in _BOUNDARY_TAILS else b""

    def rest(self) -> bytes:
        """What is held, and stays so."""
        return bytes(self._held)

    def flush(self) -> bytes:
        """What is held, as it is, released whether it ends on a boundary or not."""
        if not self._held:
            return b""
        released = bytes(self._held)
        self._held = bytearray()
        self.aligned = self._tail in _BOUNDARY_TAILS
        return released

    def _without_boundary(self, chunk: bytes) -> bytes:
        if self._passing:
            self.aligned = False
            return chunk
        self._held += chunk
        return self._pass() if len(self._held) > self._hold_bytes_max else b""

    def _pass(self) -> bytes:
        self._passing = True
        released = self.flush()
        self.aligned = False
        return released


def _last_boundary(window: bytes) -> int:
    """Where the last event boundary in ``window`` is; -1 where there is none.

    A CR that is the last byte decides nothing: LF may follow.
    """
    at = window.rfind(b"\n\n")
    end = at + 2 if at >= 0 else -1
    if b"\r" not in window:
        return end
    for empty_line in (b"\n\r\n", b"\r\r\n"):
        at = window.rfind(empty_line, max(end - 2, 0))
        if at >= 0:
            end = at + 3
    for empty_line in (b"\r\r", b"\n\r"):
        start = max(end - 1, 0)
        at = window.rfind(empty_line, start, len(window) - 1)
        while at >= 0 and window[at + 2] == ord("\n"):
            at = window.rfind(empty_line, start, at + 1)
        if at >= 0:
            end = at + 2
    return end


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event: its ``data`` lines, joined with LF, and its name (empty where it has none)."""

    data: bytes
    event: bytes = b""


class EventReader:
    """Reads the whole events out of a stream that comes in pieces of any size, in linear time.

    ``overflowed`` is set once an event was larger than ``event_bytes_max`` and therefore skipped.
    """

    __slots__ = (
        "_at_start",
        "_between_events",
        "_data",
        "_event",
        "_event_bytes_max",
        "_kept_bytes",
        "_line_begun",
        "_partial",
        "_skipping",
        "_was_cr",
        "overflowed",
    )

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self.overflowed = False
        self._event_bytes_max = event_bytes_max
        self._at_start = True
        # Nothing of an event is here yet, so that a block can be taken as whole events.
        self._between_events = False
        self._data: list[bytes] = []
        self._event = b""
        self._kept_bytes = 0
        # A line without its end; while skipping only whether there is one.
        self._partial = bytearray()
        self._line_begun = False
        self._skipping = False
        # The last block ended with CR: LF at the start of the next one belongs to it.
        self._was_cr = False

    def __repr__(self) -> str:
        return f"EventReader(buffered_bytes={self.buffered_bytes}, overflowed={self.overflowed})"

    @property
    def buffered_bytes(self) -> int:
        """What is kept of an event that has not ended."""
        return self._kept_bytes + len(self._partial)

    def overflow(self) -> None:
        """Frees what is kept of an event that has not ended, and skips the rest of it."""
        if not self.buffered_bytes:
            return
        self.overflowed = True
        self._skipping = True
        self._line_begun = bool(self._partial)
        self._forget()
        self._partial = bytearray()

    def feed(self, block: bytes) -> list[Event]:
        """The events that end in ``block``, the next piece of the stream."""
        if not self._between_events or not block.endswith(b"\n\n") or b"\r" in block:
            return self._feed_lines(block)
        # The two usual forms, alone in their block: spelt out here, as this is each event's way.
        end = len(block) - 2
        if block.startswith(b"event: "):
            line_end = block.find(b"\n")
            if block.find(b"\n", line_end + 1) == end and block.startswith(b"data: ", line_end + 1):
                return [Event(block[line_end + 7 : end], block[7:line_end])]
        elif block.startswith(b"data: ") and block.find(b"\n") == end:
            return [Event(block[6:end])]
        if block.find(b"\n\n") == end:
            return self._feed_lines(block)
        events = []
        for text in block[:end].split(b"\n\n"):
            line_end = text.find(b"\n")
            if line_end < 0 and text.startswith(b"data: "):
                events.append(Event(text[6:]))
            elif (
                text.startswith(b"event: ")
                and text.find(b"\n", line_end + 1) < 0
                and text.startswith(b"data: ", line_end + 1)
            ):
                events.append(Event(text[line_end + 7 :], text[7:line_end]))
            else:
                events += self._feed_lines(text + b"\n\n")
        return events

    def _feed_lines(self, block: bytes) -> list[Event]:
        if self._was_cr and block.startswith(b"\n"):
            block = block[1:]
            self._was_cr = False
        if block:
            self._was_cr = block.endswith(b"\r")
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = block.split(b"\n")
        rest = lines.pop()
        events: list[Event] = []
        for line in lines:
            if self._skipping:
                self._skipping = bool(line) or self._line_begun
                self._line_begun = False
            else:
                self._take_line(line, events)
        if self._skipping:
            self._line_begun = self._line_begun or bool(rest)
        else:
            self._partial += rest
            self._check_size()
        self._between_events = not (
            self._skipping or self._partial or self._data or self._event or self._was_cr or self._at_start
        )
        return events

    def _take_line(self, line: bytes, events: list[Event]) -> None:
        if self._partial:
            line = bytes(self._partial + line)
            self._partial = bytearray()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            if self._data:
                events.append(Event(b"\n".join(self._data), self._event))
            self._forget()
            return
        field, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if field == b"data":
            self._data.append(value)
            self._kept_bytes += len(value) + _LINE_COST_BYTES
        elif field == b"event":
            self._kept_bytes += len(value) - len(self._event)
            self._event = value
        self._check_size()

    def _check_size(self) -> None:
        if self.buffered_bytes > self._event_bytes_max:
            self.overflow()

    def _forget(self) -> None:
        self._data = []
        self._event = b""
        self._kept_bytes = 0
