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
from typing import Literal, Protocol

from app.core.errors import GatewayError, Headers
from app.core.exchange import Connection

End = Literal["whole", "cut"]


class Rider(Protocol):
    """Who listens: what is its own in an answer, and its account."""

    def headers_for(self, shared: Headers, *, stream: bool) -> Headers:
        """The head of its answer, of the headers that all have alike."""

    def settle(self) -> None:
        """What comes next is the last; its account is closed before that."""

    def left(self) -> None:
        """Its client has gone."""


class Held:
    """Bytes kept of answers in flight, over all requests of the process."""

    __slots__ = ("bytes_max", "held")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = 0

    def __repr__(self) -> str:
        return f"Held(held={self.held}, bytes_max={self.bytes_max})"


class Listener:
    """One client of a shared answer. ``ended`` is a future of how it ended: ``whole``, ``cut``, ``left``,
    ``refused`` (``refusal`` says why) or ``abandoned``: nothing was sent, and it may ask again. Nothing is sent
    before ``begin``.
    """

    __slots__ = (
        "_answer",
        "_begun",
        "_connection",
        "_lagging",
        "_pump",
        "_rider",
        "_settled",
        "_started",
        "ended",
        "position",
        "refusal",
    )

    def __init__(self, answer: SharedAnswer, connection: Connection, rider: Rider) -> None:
        self.position = 0
        self.refusal: GatewayError | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self._connection = connection
        self._rider = rider
        self._begun = False
        self._started = False
        self._settled = False
        self._lagging = False
        self._pump: asyncio.Task[None] | None = None
        connection.on_disconnect(self._left)

    def __repr__(self) -> str:
        return f"Listener(position={self.position}, lagging={self._lagging}, ended={self.ended.done()})"

    @property
    def is_slow(self) -> bool:
        """Whether its client has not read what there is, or is told nothing yet."""
        return self._lagging or not self._begun

    def begin(self) -> None:
        """It is admitted: from now on it is told what comes, and what has come."""
        self._begun = True
        self.catch_up()
        self._answer.freed()

    def catch_up(self) -> None:
        """Give it what there is, as far as its client takes it now."""
        if self._begun and not self._lagging and not self.ended.done() and self._answer.response_started:
            self._advance()

    def settle(self) -> None:
        """What it is told next is the last. Nothing is settled for whom nothing was told: it may have to ask again."""
        if self._started and not self._settled and not self.ended.done():
            self._settled = True
            self._rider.settle()

    @property
    def has_started(self) -> bool:
        """Whether its client has been told anything."""
        return self._started

    def abandon(self) -> None:
        """The call that it waited for is not made."""
        self._end("abandoned")

    def drop(self, how: str) -> None:
        """It listens no longer; what its client is told is for others to say."""
        self._end(how)
        self._answer.forget(self)

    def cut(self) -> None:
        """End it here, so that it does not look whole."""
        if self.ended.done():
            return
        if self._started:
            self._end("cut")
            self._connection.abort()
        else:
            self._end("abandoned")

    def _advance(self) -> None:
        """Write until all is written, or its client is slow."""
        answer, connection = self._answer, self._connection
        if not self._started:
            try:
                headers = self._rider.headers_for(answer.headers, stream=answer.is_stream)
            except GatewayError as error:
                self.refusal = error
                self.drop("refused")
                return
            self._started = True
            if answer.is_settled or not answer.is_stream:
                # What follows may be all that its client waits for.
                self.settle()
            if not answer.is_stream:
                self._end("whole")
                connection.respond(answer.status, headers, answer.parts[0])
                return
            connection.start(answer.status, headers)
        while self.position < answer.end:
            connection.write(answer.part(self.position))
            self.position += 1
            if connection.write_paused:
                self._lagging = True
                self._pump = asyncio.get_running_loop().create_task(self._wait(), name="slow client")
                return
        if answer.over == "whole":
            self.settle()
            self._end("whole")
            connection.finish()

    async def _wait(self) -> None:
        drained = await self._connection.drained(self._answer.slow_client_s)
        self._lagging = False
        if not drained and not self.ended.done():
            self._left()
            self._connection.abort()
        self.catch_up()
        self._answer.freed()

    def _left(self) -> None:
        if not self.ended.done():
            self._rider.left()
            self.ended.set_result("left")
            self._answer.forget(self)

    def _end(self, how: str) -> None:
        if not self.ended.done():
            self.ended.set_result(how)
            self._connection.on_disconnect(_nothing)


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
        if self._listeners or self.disconnected:
            return
        self.disconnected = True
        self.on_shut()
        if self._callback is not None and self.over is None:
            callback, self._callback = self._callback, None
            callback()

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
        self._held.held -= self._size
        self._size = 0
        self.on_whole = _ignore
        self.on_shut = _nothing

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
