"""One answer for all who asked for it while the call was in flight.

To the call, a ``SharedAnswer`` is the client's connection. It keeps what it is given and hands it to each
``Listener``: one that has come late gets it from the start, one that is slow falls behind without holding up
the others, one that leaves does not end it for them. The first listener is whoever makes the call.

What is kept is bounded. An answer that grows beyond that is let go of from its beginning: nobody joins it any
more, it is paced by the quickest of those it has, and who falls behind by all that is kept is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from app.cache.listening import Listener, Rider
from app.core.errors import Headers
from app.core.exchange import Connection

End = Literal["whole", "cut"]


class Held:
    """Bytes kept of answers in flight, over all requests of the process."""

    __slots__ = ("bytes_max", "held")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = 0

    def __repr__(self) -> str:
        return f"Held(held={self.held}, bytes_max={self.bytes_max})"


class SharedAnswer:
    """An answer on its way to all who listen; the connection of the call that brings it.

    ``status``, ``headers`` (of ``first_headers``, the caller's, those that all have alike: ``common_of`` tells)
    and ``body`` are what came; ``over`` says how it ended.
    ``is_open``: whether somebody may still join; ``on_shut`` is called when nobody may any more, though the call goes
    on. ``on_whole`` is called with it when all of it has come, before
    anybody has the last of it.
    """

    def __init__(self, *, bytes_max: int, held: Held, slow_client_s: float) -> None:
        self.slow_client_s = slow_client_s
        self.status = 0
        self.headers: Headers = []
        self.is_stream = False
        self.parts: list[bytes] = []
        self.over: End | None = None
        self.response_started = False
        self.is_settled = False
        self.disconnected = False
        self.first_headers: Headers = []
        self.common_of: Callable[[Headers], Headers] = list
        self.on_whole: Callable[[SharedAnswer], None] = _ignore
        self.on_shut: Callable[[], None] = _nothing
        self._bytes_max = bytes_max
        self._held = held
        self._size = 0
        self._dropped = 0
        self._overflowed = False
        self._finished = False
        self._closed = False
        self._listeners: list[Listener] = []
        self._callback: Callable[[], None] | None = None
        self._room = asyncio.Event()

    def __repr__(self) -> str:
        return f"SharedAnswer(listeners={len(self._listeners)}, size={self._size}, over={self.over!r})"

    # -- who listens ----------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return not (self._closed or self._overflowed or self.disconnected)

    @property
    def is_kept(self) -> bool:
        """Whether all of what came so far is here."""
        return not self._overflowed

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def join(self, connection: Connection, rider: Rider) -> Listener:
        """One more who listens, from the beginning on. A client that has already gone has left at once."""
        listener = Listener(self, connection, rider)
        if not listener.ended.done():
            self._listeners.append(listener)
        return listener

    def forget(self, listener: Listener) -> None:
        """It listens no longer. When nobody is left, the call is told."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        self._room.set()
        self._give_back()
        if self._listeners or self.disconnected:
            return
        self.disconnected = True
        self.on_shut()
        if self._callback is not None and self.over is None:
            callback, self._callback = self._callback, None
            callback()

    def shut(self) -> None:
        """Nobody may join it any more."""
        self._closed = True

    def abandon_others(self, but: Listener | None) -> None:
        """The call fails for a reason that is only its maker's: whoever else waits, asks again."""
        self._closed = True
        for listener in [one for one in self._listeners if one is not but]:
            self._listeners.remove(listener)
            listener.abandon()

    def settled(self) -> None:
        """The call's account is closed: so are those of all who listen, before they have the last of it."""
        self.is_settled = True
        self._with_each(Listener.settle)

    def close(self) -> None:
        """The call is over, whatever became of it: nobody waits for more."""
        self._closed = True
        if self.over is None:
            self.over = "cut"
            if self.response_started:
                for listener in list(self._listeners):
                    listener.cut()
            self.abandon_others(None)
        self.on_whole = _ignore
        self.on_shut = _nothing
        self._finished = True
        self._give_back()

    def _give_back(self) -> None:
        """What is held counts until the last slow client has all of it."""
        if self._finished and all(listener.ended.done() for listener in self._listeners):
            self._held.held -= self._size
            self._size = 0

    # -- the connection of the call -------------------------------------------------------------

    @property
    def write_paused(self) -> bool:
        """While all is kept nobody holds the call up; then it waits for the quickest."""
        return self._overflowed and all(one.is_slow for one in self._listeners) and bool(self._listeners)

    async def drained(self, timeout_s: float) -> bool:  # noqa: ARG002 - each client has its own
        """Wait until one of the clients takes more; False if all have gone."""
        while self.write_paused:
            self._room.clear()
            await self._room.wait()
        return not self.disconnected

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        if self.disconnected:
            callback()
        else:
            self._callback = callback

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer that is no stream."""
        if self.over is not None:
            return
        self._begin(status, headers, is_stream=False)
        self._add(body)
        self._end("whole")

    def start(self, status: int, headers: Headers) -> None:
        self._begin(status, headers, is_stream=True)
        self._hand_on()

    def write(self, data: bytes) -> None:
        if data and self.over is None:
            self._add(data)
            self._hand_on()

    def write_all(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self.write(piece)

    def finish(self, last: bytes = b"") -> None:
        if self.over is None:
            if last:
                self._add(last)
            self._end("whole")

    def abort(self) -> None:
        """Cut everybody off, so that no client takes what it has for a whole answer. Not where nobody is left: what
        comes is still kept.
        """
        if self.over is not None or self.disconnected:
            return
        self.over = "cut"
        self._closed = True
        for listener in list(self._listeners):
            listener.cut()

    # -- what came ------------------------------------------------------------------------------

    @property
    def body(self) -> bytes:
        """All that came; only while all of it is kept."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    @property
    def end(self) -> int:
        """The number of parts that have come."""
        return self._dropped + len(self.parts)

    def part(self, number: int) -> bytes:
        return self.parts[number - self._dropped]

    def freed(self) -> None:
        """A client that was slow has caught up."""
        self._room.set()
        self._drop()
        self._give_back()

    def _begin(self, status: int, headers: Headers, *, is_stream: bool) -> None:
        self.status = status
        self.first_headers = headers
        self.headers = self.common_of(headers)
        self.is_stream = is_stream
        self.response_started = True

    def _add(self, data: bytes) -> None:
        self.parts.append(data)
        self._size += len(data)
        self._held.held += len(data)
        if not self._overflowed and (self._size > self._bytes_max or self._held.held > self._held.bytes_max):
            self._overflowed = True
            self.on_shut()

    def _end(self, over: End) -> None:
        self.over = over
        self._closed = True
        try:
            if not self._overflowed:
                self.on_whole(self)
        finally:
            self._hand_on()

    def _hand_on(self) -> None:
        self._with_each(Listener.catch_up)
        if self._overflowed:
            self._drop()

    def _with_each(self, action: Callable[[Listener], None]) -> None:
        for listener in list(self._listeners):
            try:
                action(listener)
            except Exception as error:  # noqa: BLE001 - what goes wrong for one must not break it for the others
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a listener of a shared answer failed", "exception": error}
                )
                listener.cut()
                self.forget(listener)

    def _drop(self) -> None:
        """Let go of what everybody has, and of those who have fallen too far behind."""
        if not self._overflowed or self.over is not None:
            return
        self._release()
        while self._size > self._bytes_max and len(self._listeners) > 1:
            slowest = min(self._listeners, key=_position)
            if slowest.position >= self.end:
                return
            slowest.cut()
            self.forget(slowest)
            self._release()

    def _release(self) -> None:
        count = min(map(_position, self._listeners), default=self.end) - self._dropped
        if count > 0:
            freed = sum(map(len, self.parts[:count]))
            del self.parts[:count]
            self._dropped += count
            self._size -= freed
            self._held.held -= freed


def _position(listener: Listener) -> int:
    return listener.position


def _nothing() -> None:
    """For connections that nobody watches any more."""


def _ignore(_answer: SharedAnswer) -> None:
    """For answers that nobody keeps."""
