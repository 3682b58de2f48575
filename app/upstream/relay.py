"""Carries one upstream answer to one client: bytes as they came, streams on event boundaries.

The relay is no generator that a leaving client could cancel: it runs in the request's own task and goes
on without the client, by policy.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import Literal, Protocol

from app.core.errors import (
    GatewayError,
    Headers,
    InvalidAPIKey,
    UpstreamOutcomeUnknown,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from app.core.exchange import BodyStream, ClientGone, Connection, Dialect, Exchange
from app.core.sse import EventReader, EventSplitter
from app.settings import StreamSettings, Timeouts
from app.upstream.client import Answer, BadAnswer, ConnectionBroken, Sent
from app.upstream.endings import Cause, Trail, chat_ending, response_ending
from app.upstream.pool import UpstreamPool
from app.upstream.sending import Upload
from app.upstream.usage_chunk import UsageFilter
from app.upstream.watch import Sweep, Watched

HELD_BODY_BYTES_MAX = 4 * 1024 * 1024
"""Answers that are not streams are held up to here, so that their cost is known before the head is sent."""

COLLECTED_BYTES_MAX = 16 * 1024 * 1024
COLLECTED_BYTES_TOTAL_MAX = 128 * 1024 * 1024
"""What all requests together may hold of large answers and events for the sake of their usage."""

EVENT_END = b"\n\n"
SILENCE_S = 1.0
"""Held bytes that end in a complete line go out after so long without another byte."""

NO_TIMEOUTS = Timeouts()
"""Until the upstream is known."""

Cut = Literal["upstream_disconnected", "upstream_stalled", "drain_over", "key_revoked"]
"""Why a call was given up; after ``drain_over`` nobody is there to be told."""


class Witness(Protocol):
    """Is shown what passes, before the client sees it."""

    def saw_event(self, data: bytes) -> None:
        """One whole event's data has come."""

    def saw_beginning(self, first: bytes) -> None:
        """An answer that is too large to be held has begun; the client is about to see so much of it."""

    def saw_json(self, body: bytes) -> bool:
        """A whole JSON answer has come; False where it is none."""

    def came_to_its_end(self, *, delimited: bool) -> bool:
        """Whether a stream whose body ended is whole; ``delimited``: the upstream told where the body ends."""

    def missed_some(self) -> None:
        """Part of the answer was too large to be read: what it held is not known."""

    def saw_last(self) -> None:
        """What is sent next is the last that the client waits for."""

    def may_drain_on(self) -> bool:
        """Whether a stream without a client may go on costing money."""

    def client_left(self, phase: str, *, is_stream: bool) -> bool:
        """The client is gone; True where a stream is to be cancelled at once."""


class Collection:
    """Bytes held of large answers, over all requests of the process."""

    __slots__ = ("_bytes_max", "held")

    def __init__(self, bytes_max: int = COLLECTED_BYTES_TOTAL_MAX) -> None:
        self._bytes_max = bytes_max
        self.held = 0

    def __repr__(self) -> str:
        return f"Collection(held={self.held}, bytes_max={self._bytes_max})"

    def change(self, difference: int) -> bool:
        """Hold so much more or less; False where that is more than all may hold."""
        self.held += difference
        return self.held <= self._bytes_max


class Passage:
    """An event stream on its way to the client: what it is read with, and what its end would have to fit."""

    __slots__ = ("_dialect", "reader", "splitter", "trail")

    def __init__(self, dialect: Dialect | None) -> None:
        self.splitter = EventSplitter()
        self.reader = EventReader(event_bytes_max=COLLECTED_BYTES_MAX)
        self.trail = Trail() if dialect == "responses" else None
        self._dialect = dialect

    def ending(self, cause: Cause, at_ms: int) -> bytes | None:
        """The event that ends it now; None where none can: part of an event is out, or some were not read."""
        if not self.splitter.aligned or self.reader.overflowed:
            return None
        if self.trail is not None:
            return response_ending(cause, self.trail, self.splitter.line_end, at_ms=at_ms)
        return chat_ending(cause, self.splitter.line_end) if self._dialect == "chat" else None


class Relay:
    """One call upstream on behalf of one client. Used by one task, from ``open`` to ``close``."""

    def __init__(
        self,
        connection: Connection,
        witness: Witness,
        *,
        sweep: Sweep,
        collection: Collection,
        policy: StreamSettings,
        slow_client_s: float,
    ) -> None:
        self.connection = connection
        self.client_gone = False
        self.usage_filter: UsageFilter | None = None
        """Where the stream was asked for a usage that is not for the client."""
        self._witness = witness
        self._sweep = sweep
        self._collection = collection
        self._collected = 0
        self._policy = policy
        self._slow_client_s = slow_client_s
        self._watched = Watched(self._expire)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(self._loop)
        self._timeouts = NO_TIMEOUTS
        self._streaming = False
        self._dialect: Dialect | None = None
        self._passage: Passage | None = None
        self._silent = False
        self._drain_deadline_s = inf
        self._cut: Cut | None = None
        self._answer: Answer | None = None
        self._sent = Sent()
        self._upload: Upload | None = None
        sweep.add(self._watched)
        connection.on_disconnect(self._on_disconnect)

    def __repr__(self) -> str:
        return f"Relay(streaming={self._streaming}, client_gone={self.client_gone}, cut={self._cut!r})"

    def close(self) -> None:
        """Stop watching; an answer that was not read to its end takes its connection with it."""
        self._sweep.remove(self._watched)
        self._watched.forget()
        self._task = None
        self._passage = None
        self._collect(0)
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    async def call(
        self,
        pool: UpstreamPool,
        exchange: Exchange,
        *,
        headers: Headers,
        body: bytes | BodyStream | None,
        wants_stream: bool,
        model: str = "",
    ) -> Answer:
        """Send, and wait for the answer's head. Raises UpstreamError, and InvalidAPIKey after ``revoke``.

        With a ``body`` that streams also what it raises; ClientGone means that the upstream did not get it whole.
        """
        self._timeouts = pool.settings.timeouts
        self._streaming = wants_stream
        self._dialect = exchange.endpoint.dialect
        self._sent = Sent()
        if self._cut is not None:
            raise self.error_of(self._cut)
        self._watch(self._timeouts.first_byte_s)
        if body is not None and not isinstance(body, bytes):
            body = self._upload = Upload(body, self._timeouts, self._watch)
        try:
            self._answer = await pool.send(
                exchange.method, exchange.path, exchange.query, headers, body, self._sent, model
            )
        except asyncio.CancelledError:
            cut = self._take_cancellation()
            if self.client_gone and self._is_uploading:
                raise ClientGone from None
            raise self.error_of(cut) from None
        finally:
            self._upload = None
        return self._answer

    @property
    def _is_uploading(self) -> bool:
        return self._upload is not None and not self._upload.ended

    def error_of(self, cut: Cut) -> GatewayError:
        """What a client is told of ``cut`` that has had no byte of an answer yet."""
        if cut == "key_revoked":
            return InvalidAPIKey(should_retry=False)
        if not self.was_sent:
            return UpstreamUnreachable()
        return UpstreamTimeout() if cut == "upstream_stalled" else UpstreamOutcomeUnknown()

    def revoke(self) -> None:
        """The key is not to be served any longer: what runs is given up at once."""
        self._give_up("key_revoked")

    def ending(self, cause: Cause, at_ms: int) -> bytes | None:
        """The event that would end the stream behind what has passed; None where none can."""
        return None if self._passage is None else self._passage.ending(cause, at_ms)

    def cut_short(self, cause: Cause, at_ms: int) -> None:
        """Ends an answer that has begun and cannot be completed, never so that it looks whole.

        A stream gets its last event where one can stand; anything else is cut off. ``at_ms`` is now, since 1970.
        """
        if self.client_gone:
            return
        event = self.ending(cause, at_ms)
        if event is None:
            self.connection.abort()
        else:
            self.connection.finish(event)

    @property
    def was_sent(self) -> bool:
        """Whether any of the current call was written: it may be billed."""
        return self._sent.was_written

    @property
    def upstream_failed(self) -> bool:
        """Whether a call that raised did so on the upstream's account, and not because nobody wanted it any more."""
        return self._cut is None or self._cut == "upstream_stalled"

    async def pause(self, seconds: float) -> None:
        """Wait before a call is repeated; the deadline of the last one does not count meanwhile."""
        self._watched.deadline_s = self._drain_deadline_s
        self._sent = Sent()
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self._take_cancellation()

    async def read(self, answer: Answer, bytes_max: int) -> tuple[bytes, Cut | None, bool]:
        """The body up to ``bytes_max``: (bytes, what cut it short, whether more is to come)."""
        chunks: list[bytes] = []
        size = 0
        while size <= bytes_max:
            chunk, cut = await self._next(answer)
            if cut is not None:
                return b"".join(chunks), cut, False
            if not chunk:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks), None, False
            chunks.append(chunk)
            size += len(chunk)
        return b"".join(chunks), None, True

    async def pass_on(self, answer: Answer, status: int, headers: Headers, first: bytes) -> Cut | None:
        """A large body, chunk by chunk; the whole is shown to the witness if it is small enough to keep.

        The last chunk waits until all of it was shown, so that the request is settled before it ends. Of what is
        not JSON nothing is kept, since there is no usage in it to be read.
        """
        reads_json = is_json(answer.content_type)
        kept: list[bytes] | None = [first] if reads_json and self._collect(len(first)) else None
        self._witness.saw_beginning(first)
        self.connection.start(status, headers)
        last = first
        while True:
            chunk, cut = await self._next(answer)
            if cut is not None:
                return cut
            if not chunk:
                break
            if kept is not None:
                kept.append(chunk)
                size = self._collected + len(chunk)
                if size > COLLECTED_BYTES_MAX or not self._collect(size):
                    self._collect(0)
                    kept = None
            self.connection.write(last)
            last = chunk
            if self.connection.write_paused:
                await self._drained()
        if kept is not None:
            self._witness.saw_json(b"".join(kept))
        elif reads_json:
            self._witness.missed_some()
        self._witness.saw_last()
        self.connection.write(last)
        return None

    async def stream(self, answer: Answer, status: int, headers: Headers) -> Cut | None:
        """An event stream, each write on an event boundary. None where the upstream ended it properly."""
        self._streaming = True
        if self.client_gone and self._drain_deadline_s == inf:
            # It left while this was not known to be a stream.
            self._drain_deadline_s = self._loop.time() + self._policy.drain_s_max
        passage = self._passage = Passage(self._dialect)
        splitter, reader, trail = passage.splitter, passage.reader, passage.trail
        self.connection.start(status, headers)
        while True:
            chunk, cut = await self._next(answer, SILENCE_S if splitter.held else None)
            if cut is not None or chunk == b"":
                break
            released = splitter.release_complete_line() if chunk is None else splitter.feed(chunk)
            if released:
                self._show(reader, trail, released)
                # Not held here as well while a slow client is waited for.
                chunk = released = b""
                if self.connection.write_paused:
                    await self._drained()
        if whole := splitter.release_whole():
            self._show(reader, trail, whole)
        if cut is not None:
            # What is held still is part of an event that will never be whole.
            return cut
        return self._end(answer, passage)

    def _end(self, answer: Answer, passage: Passage) -> Cut | None:
        """The upstream's body has come to its end: what is left goes out, if the stream is whole."""
        reader = passage.reader
        rest = passage.splitter.rest()
        for event in reader.feed(rest + EVENT_END):
            # The last event's blank line is missing: some servers leave it out.
            self._witness.saw_event(event.data)
        if reader.overflowed:
            # The last event may be the one that was too large to be read.
            self._witness.missed_some()
        elif not self._witness.came_to_its_end(delimited=answer.is_delimited):
            return "upstream_disconnected"
        self._witness.saw_last()
        if self.usage_filter is not None:
            rest = self.usage_filter.finish(rest)
        if rest:
            self.connection.write(rest)
        return None

    def _show(self, reader: EventReader, trail: Trail | None, released: bytes) -> None:
        """To the witness first, so that what ends with these bytes is settled before the client has them."""
        events = reader.feed(released)
        for event in events:
            self._witness.saw_event(event.data)
        if trail is not None and events:
            trail.follow(events)
        held = reader.buffered_bytes
        if held != self._collected and not self._collect(held):
            reader.overflow()
        if self.usage_filter is not None:
            released = self.usage_filter.feed(released)
        if released:
            self.connection.write(released)

    def _collect(self, size: int) -> bool:
        """Hold ``size`` bytes in all; False, and nothing is held, where there is no room for them."""
        fits = self._collection.change(size - self._collected)
        self._collected = size
        if not fits:
            self._collection.change(-size)
            self._collected = 0
        return fits

    async def _drained(self) -> None:
        """Wait for a slow client. The upstream is not read meanwhile: it is slowed down too, and not to blame."""
        if self.client_gone:
            return
        self._watched.deadline_s = self._drain_deadline_s
        try:
            if not await self.connection.drained(self._slow_client_s):
                self.connection.abort()
        except asyncio.CancelledError:
            self._take_cancellation()
        self._silent = False

    async def _next(self, answer: Answer, silence_s: float | None = None) -> tuple[bytes | None, Cut | None]:
        """The next bytes (b"" at the end, None after ``silence_s`` without any), or what cut them off."""
        if self._cut is not None:
            return None, self._cut
        if not self._silent:
            # Asking again after a silence does not end it.
            self._watch(self._timeouts.idle_s)
        self._silent = False
        if self.client_gone and self._streaming and not self._witness.may_drain_on():
            return None, "drain_over"
        try:
            if silence_s is None:
                return await answer.read_any(), None
            async with asyncio.timeout(silence_s):
                return await answer.read_any(), None
        except TimeoutError:
            self._silent = True
            return None, None
        except asyncio.CancelledError:
            return None, self._take_cancellation()
        except (ConnectionBroken, BadAnswer):
            return None, "upstream_disconnected"

    def _watch(self, seconds: float) -> None:
        self._watched.deadline_s = min(self._loop.time() + seconds, self._drain_deadline_s)

    def _expire(self) -> None:
        self._give_up("drain_over" if self._loop.time() >= self._drain_deadline_s else "upstream_stalled")

    def _give_up(self, cut: Cut) -> None:
        if self._cut is None and self._task is not None:
            self._cut = cut
            self._task.cancel()

    def _take_cancellation(self) -> Cut:
        """A cancellation of our own ends here; any other goes on up."""
        if self._cut is None or self._task is None:
            raise asyncio.CancelledError
        self._task.uncancel()
        return self._cut

    def _on_disconnect(self) -> None:
        self.client_gone = True
        phase = "stream" if self.connection.response_started else "waiting"
        cancel_at_once = self._witness.client_left(phase, is_stream=self._streaming)
        if self._is_uploading:
            # The rest of the body will not come, whatever the policy for answers is.
            self._give_up("drain_over")
            return
        if not self._streaming:
            return
        drain_s = 0.0 if cancel_at_once else self._policy.drain_s_max
        self._drain_deadline_s = self._loop.time() + drain_s
        self._watched.deadline_s = min(self._watched.deadline_s, self._drain_deadline_s)
        if not drain_s:
            self._expire()


def is_json(content_type: str) -> bool:
    """Whether an answer may be JSON; one that does not say what it is may."""
    return content_type in {"", "application/json"} or content_type.endswith("+json")
