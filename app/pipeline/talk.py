"""One WebSocket of the Responses API: one upstream socket per client socket, frames as they came, each
``response.create`` a request of its own: reserved before it is sent, metered by what comes back, settled before the
client has its end.

The upstream is chosen by the first create, and holds for the connection: what was said on it is there. A client whose
create is refused is told so by an ``error`` frame, and may go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from app.catalog import Route
from app.core.codec import JSONObject
from app.core.errors import (
    Draining,
    GatewayError,
    InvalidAPIKey,
    InvalidRequest,
    UpgradeRequired,
    UpstreamError,
    UpstreamOutcomeUnknown,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from app.core.exchange import Exchange
from app.core.identity import Principal
from app.core.records import Outcome
from app.pipeline.aloft import Aloft, OwnIds
from app.pipeline.plain_socket import PING_EVERY_TICKS, SILENT_TICKS_MAX, TICK_S
from app.pipeline.planning import parse, with_model
from app.pipeline.socket_events import error_frame, exchange_of_frame, read_event
from app.pipeline.stages import Stages, ask_of_create
from app.settings import Timeouts
from app.upstream.frames import (
    GOING_AWAY,
    INTERNAL_ERROR,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    FrameStream,
    Message,
    text_message,
)
from app.upstream.headers import toward_upstream
from app.upstream.pool import UpstreamPool

CREATE = "response.create"
PASSED = frozenset(("response.steer", "response.cancel"))
"""What else a client may send: events about the response that is under way. Of any other nobody could say which
response an error is about that it brings.
"""
NO_TIMEOUTS = Timeouts()
FLIGHTS_MAX = 32
"""Responses that one connection may have under way."""
REFUSED_MAX = 100
"""Frames in a row that are refused: then the client is sent away."""


class Talk:
    """One connection."""

    def __init__(
        self,
        current: Callable[[], Stages],
        handshake: Exchange,
        principal: Principal,
        client: FrameStream,
        is_draining: Callable[[], bool],
    ) -> None:
        """``current`` tells the stages that are in force."""
        self.client = client
        self._current = current
        self._handshake = handshake
        self._principal = principal
        self._is_draining = is_draining
        self._upstream: FrameStream | None = None
        self._pool: UpstreamPool | None = None
        self._has_passed = False
        """Whether a frame was sent that is no create: an error may be about it, also once its response has ended."""
        self._aloft: dict[str, Aloft] = {}
        self._landed = asyncio.Event()
        self._own = OwnIds()
        self._refused = 0
        self._revoked = False
        self._has_stalled = False
        """Whether a response was given up: the upstream may speak of it yet, and nobody could tell."""
        self._look_at_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"Talk({self.client!r}, aloft={len(self._aloft)})"

    async def run(self) -> None:
        """Until the client has gone, or was sent away; the upstream's end sends it away."""
        listening = asyncio.create_task(self._listen(), name="websocket client")
        self._tasks = [listening]
        try:
            await asyncio.wait([listening])
            if not listening.cancelled():
                listening.result()
                self.client.close(GOING_AWAY)
                await self._drain()
        finally:
            for task in self._tasks:
                task.cancel()
            ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for how in ended:
            if isinstance(how, Exception):
                raise how

    def revoke(self) -> None:
        """The key is revoked: the connection ends now, with whatever runs on it."""
        self._revoked = True
        self._tell(InvalidAPIKey(), None, self._handshake.request_id)
        try:
            self._land_all("interrupted", "key_revoked")
        finally:
            self.client.close(POLICY_VIOLATION, "key_revoked")
            for task in self._tasks:
                task.cancel()

    def end(self) -> None:
        """Whatever has not ended by now has been interrupted."""
        try:
            self._land_all("interrupted", "gateway_shutdown")
        finally:
            self.client.close(GOING_AWAY)
            if self._upstream is not None:
                self._upstream.close(self.client.close_code or GOING_AWAY, self.client.close_reason)

    # -- the client's side ----------------------------------------------------------------------

    async def _listen(self) -> None:
        client = self.client
        ticks = silent = 0
        while not (client.ended or client.gone):
            try:
                message = await client.receive(TICK_S)
            except TimeoutError:
                ticks += 1
                # Who does not read is not read, and has the server's own time to begin.
                silent = 0 if client.heard or client.write_paused else silent + 1
                client.heard = False
                if ticks % PING_EVERY_TICKS == 0:
                    client.ping()
                if silent > SILENT_TICKS_MAX:
                    return
            else:
                if message is not None:
                    silent = 0
                    await self._take(message)
                    # It is not to be held until the next one comes.
                    message = None
            if not self._aloft and self._is_at_end():
                return

    def _is_at_end(self) -> bool:
        """Ends a connection on which nothing runs, where it takes nothing new."""
        if self.client.has_closed:
            return True
        if self._is_draining():
            self.client.close(GOING_AWAY, "draining")
        elif self._is_over:
            self.client.close(SERVICE_RESTART, "reloaded")
        elif self._current().principal_of(self._principal.secret_id) is None:
            self._tell(InvalidAPIKey(should_retry=False), None, self._handshake.request_id)
            self.client.close(POLICY_VIOLATION, InvalidAPIKey.code)
        else:
            return False
        return True

    async def _take(self, message: Message) -> None:
        """A message of the client's."""
        exchange = exchange_of_frame(self._handshake, self._current().desk.clock)
        stream_id: str | None = None
        try:
            if not message.is_text:
                raise InvalidRequest("Only text frames are understood here.")
            document = await parse(message.data)
            stream_id = document.get_str("stream_id")
            if document.get_str("type") == CREATE:
                await self._create(exchange, document, message, stream_id or "")
            else:
                await self._pass(exchange, document, message, stream_id or "")
            self._refused = 0
        except GatewayError as error:
            self._current().on_refused(exchange, self._principal, error)
            self._tell(error, stream_id, exchange.request_id)
            self._refused += 1
            if isinstance(error, InvalidAPIKey):
                self.client.close(POLICY_VIOLATION, "invalid_api_key")
            elif self._refused >= REFUSED_MAX:
                self.client.close(POLICY_VIOLATION, "too many refused frames")

    async def _pass(self, exchange: Exchange, document: JSONObject, message: Message, stream_id: str) -> None:
        """An event about what is under way: what it names must be the team's, or of this connection."""
        stages = self._current()
        principal = stages.principal_now(self._principal.secret_id, exchange)
        if document.get_str("type") not in PASSED or stream_id not in self._aloft:
            raise InvalidRequest(f"Only {CREATE} is understood here, and what is about its response.", param="type")
        holder = await stages.planner.holder_of(principal, self._foreign(document))
        if holder is not None and self._pool is not None and holder != self._pool.name:
            raise InvalidRequest("What is named is stored at another upstream than the one of this connection.")
        aloft = self._aloft.get(stream_id)
        if aloft is not None:
            aloft.is_disturbed = self._has_passed = True
            await self._send(message)

    async def _wait_for_turn(self, stream_id: str) -> None:
        """A stream has one response at a time: no further message is taken until that has ended. Bounded by the
        deadlines of the response that is under way.
        """
        if stream_id not in self._aloft:
            return
        attending = asyncio.create_task(self.client.attend(), name="websocket client, waiting")
        try:
            while stream_id in self._aloft and not self._has_left:
                self._landed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S / 4):
                        await self._landed.wait()
        finally:
            attending.cancel()
            await asyncio.gather(attending, return_exceptions=True)

    async def _create(self, exchange: Exchange, document: JSONObject, message: Message, stream_id: str) -> None:
        await self._wait_for_turn(stream_id)
        if self.client.gone or stream_id in self._aloft:
            # Its client has left while it waited.
            return
        if self._is_over:
            raise Draining
        if self._upstream is not None and (self._upstream.ended or self._has_stalled):
            raise UpstreamUnreachable
        if len(self._aloft) >= FLIGHTS_MAX:
            raise InvalidRequest(f"At most {FLIGHTS_MAX} responses may be under way on one connection.")
        stages = self._current()
        principal = stages.principal_now(self._principal.secret_id, exchange)
        ask, references = ask_of_create(document), self._foreign(document)
        boarded, aloft = await stages.board(exchange, principal, ask, references, self._pool, len(message.data))
        aloft.flight.on_named = self._own.learn
        try:
            if not await self._connect(boarded.route, stages.pools[boarded.route.upstream]):
                aloft.left()
                return
        except (UpstreamError, UpgradeRequired) as error:
            # It has a record, and is no refusal.
            aloft.not_connected(error)
            self._tell(error, stream_id, exchange.request_id)
            return
        except BaseException:
            # Cut off while the socket was opened: nothing was sent.
            aloft.land(was_sent=False)
            raise
        self._aloft[stream_id] = aloft
        aloft.begins()
        aloft.deadline_s = self._loop.time() + self._timeouts.first_byte_s
        name = stages.pools[boarded.route.upstream].model_in_body("/responses", boarded.route.model)
        if name != ask.model:
            message = text_message(with_model(message.data, ask.model_span, name, ask.model))
        await self._send(message)

    async def _connect(self, route: Route, pool: UpstreamPool) -> bool:
        """The upstream's socket, which the first create opens; False where the client has left meanwhile. Raises
        UpstreamError, UpgradeRequired.
        """
        if self._upstream is not None:
            if self._upstream.has_closed or self._upstream.gone:
                raise UpstreamUnreachable
            return not self.client.gone
        headers = toward_upstream(self._handshake.headers, pool.forwarded, self._principal.team_id)
        headers = [header for header in headers if header[0] not in {b"content-type", b"accept"}]
        headers.append((b"x-client-request-id", self._handshake.request_id.encode()))
        self._upstream = await pool.switch("/responses", self._handshake.query, headers, model=route.model)
        self._pool = pool
        self._tasks.append(asyncio.create_task(self._listen_above(self._upstream), name="websocket upstream"))
        return not self.client.gone

    async def _send(self, message: Message) -> None:
        """To the upstream; one that takes nothing for ``idle_s`` is given up."""
        upstream = self._upstream
        if upstream is None:
            return
        upstream.send(message)
        until_s = self._loop.time() + self._timeouts.idle_s
        while upstream.write_paused and not (self.client.gone or upstream.gone):
            if not await upstream.drained(TICK_S) and self._loop.time() > until_s:
                self._cut_off(list(self._aloft), "upstream_stalled", UpstreamTimeout())
                upstream.abort()

    # -- the upstream's side --------------------------------------------------------------------

    async def _listen_above(self, upstream: FrameStream) -> None:
        try:
            await self._hear(upstream)
        finally:
            # Also where that was a bug: a client must not wait for what will not come.
            self.client.close(upstream.close_code or INTERNAL_ERROR, upstream.close_reason)

    async def _hear(self, upstream: FrameStream) -> None:
        ticks = 0
        while not upstream.ended:
            try:
                message = await upstream.receive(TICK_S)
            except TimeoutError:
                ticks += 1
                if ticks % PING_EVERY_TICKS == 0:
                    upstream.ping()
            else:
                if message is None:
                    break
                await self._hand_down(message)
                message = None
            if not self._is_alive():
                return
        self._cut_off(list(self._aloft), "upstream_disconnected", UpstreamOutcomeUnknown())

    async def _hand_down(self, message: Message) -> None:
        """A message of the upstream's: to the meter first, so that what ends with it is settled before the client has
        it. Once the client has gone it is for the meter alone.
        """
        if message.is_text:
            self._saw(message.data)
        if self.client.gone:
            return
        self.client.send(message)
        if self.client.write_paused:
            paused_s = self._loop.time()
            if not await self.client.drained(self._current().configuration.server.slow_client_s):
                # One that reads nothing has left, as far as what runs is concerned.
                self.client.abort()
            waited_s = self._loop.time() - paused_s
            for aloft in self._aloft.values():
                aloft.deadline_s += waited_s

    def _is_alive(self) -> bool:
        """Gives up what the upstream has said nothing of for too long; False where the connection is to end."""
        now_s = self._loop.time()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + TICK_S
            late = [stream_id for stream_id, aloft in self._aloft.items() if aloft.deadline_s < now_s]
            if late:
                self._has_stalled = True
                self._cut_off(late, "upstream_stalled", UpstreamTimeout())
        return bool(self._aloft) or not self._has_stalled

    def _saw(self, data: bytes) -> None:
        """What an event says."""
        event = read_event(data)
        if event is None:
            return
        stream_id = event.stream_id if isinstance(event.stream_id, str) else self._unnamed
        aloft = self._aloft.get(stream_id)
        if aloft is None:
            return
        flight = aloft.flight
        aloft.deadline_s = self._loop.time() + self._timeouts.idle_s
        if event.type == "error":
            if aloft.is_disturbed or (len(self._aloft) > 1 and not isinstance(event.stream_id, str)):
                # It may be about another frame: the response says itself how it ends.
                return
            if self._has_passed:
                aloft.doubted(event)
            elif flight.meter.reading.response_id is None:
                aloft.refused(event)
        aloft.answers()
        flight.meter.body_seen = True
        flight.saw_event(data)
        if flight.record is not None:
            del self._aloft[stream_id]
            self._landed.set()
            aloft.land(was_sent=True)

    # -- ends -----------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """The client has gone: what runs goes on for a while without it, by policy."""
        flights = [aloft.flight for aloft in self._aloft.values()]
        if not flights or self._revoked:
            return
        cancel = [flight.client_left("stream", is_stream=True) for flight in flights]
        others = [task for task in self._tasks if not task.done()]
        if not all(cancel) and others:
            until_s = self._loop.time() + self._current().configuration.stream.drain_s_max
            while self._aloft and self._loop.time() < until_s and all(f.may_drain_on() for f in flights):
                done, _ = await asyncio.wait(others, timeout=TICK_S / 4)
                if done:
                    break
        self._land_all("failed", "drain_over")

    def _cut_off(self, stream_ids: list[str], cause: str, error: GatewayError) -> None:
        """The upstream has failed: whoever waits for a response is told, and each is an estimate."""
        with contextlib.ExitStack() as ends:
            for stream_id in stream_ids:
                aloft = self._aloft.pop(stream_id)
                # The last that is pushed is the first that is called: settled before the client knows.
                ends.callback(self._tell, error, stream_id or None, aloft.exchange.request_id)
                ends.callback(aloft.end, "failed", cause, upstream_failed=True)
        self._landed.set()

    def _land_all(self, outcome: Outcome, cause: str) -> None:
        """Each of them, also where one of them fails to."""
        aloft, self._aloft = self._aloft, {}
        self._landed.set()
        with contextlib.ExitStack() as ends:
            for each in aloft.values():
                ends.callback(each.end, outcome, cause)

    # -- small things ---------------------------------------------------------------------------

    @property
    def _is_over(self) -> bool:
        """Whether the connection takes nothing new: the gateway drains, or uses the upstream in another way now."""
        pool = self._pool
        return self._is_draining() or (pool is not None and self._current().pools.get(pool.name) is not pool)

    @property
    def _unnamed(self) -> str:
        """Which response an event is about that does not say. An upstream that knows no ``stream_id`` never does."""
        return next(iter(self._aloft)) if len(self._aloft) == 1 else ""

    @property
    def _has_left(self) -> bool:
        return self.client.gone or self.client.has_closed

    @property
    def _timeouts(self) -> Timeouts:
        return NO_TIMEOUTS if self._pool is None else self._pool.settings.timeouts

    def _foreign(self, document: JSONObject) -> list[Any]:
        """What a frame names that is not of this connection."""
        return [each for each in self._current().planner.references_in(document) if each.object_id not in self._own]

    def _tell(self, error: GatewayError, stream_id: str | None, request_id: str) -> None:
        with contextlib.suppress(UnicodeEncodeError):
            self.client.send_text(error_frame(error, stream_id, request_id))
