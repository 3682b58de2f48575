"""Server-sent events as values, before anything decides how their bytes are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = 0
DELTA = 1
"""Carries a token: the model takes its time over it."""
OUTSIDE = 2
"""A comment or ``[DONE]``: no event that is counted."""
TERMINAL = 3
"""The answer has ended; what comes after it is not part of it."""


class Event(NamedTuple):
    """One event. The tokens are what has been generated once it is there.

    ``type`` is empty where no ``event:`` line is sent; a comment has no data either.
    """

    type: bytes
    data: bytes
    output_tokens: int
    reasoning_tokens: int
    kind: int = PLAIN


class EventSource(Protocol):
    """An answer as a stream, and what may happen to it."""

    def events(self) -> Iterator[Event]:
        """The answer's own events, made one by one."""
        ...

    def failure(self) -> Event:
        """The event with which the answer fails here."""
        ...

    def error(self) -> Event:
        """The ``error`` event with which the stream ends here."""
        ...

    def unknown(self) -> Event:
        """An event of a type that nobody knows."""
        ...

    def terminal_again(self) -> Event | None:
        """The terminal event once more, if there is one."""
        ...


DONE = Event(b"", b"[DONE]", 0, 0, OUTSIDE)
KEEP_ALIVE = Event(b"", b"", 0, 0, OUTSIDE)
KEEP_ALIVE_COMMENT = b": keep-alive"
