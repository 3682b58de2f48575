"""Responses over a WebSocket: one upstream socket per client socket, frames as they came, each ``response.create`` a
request of its own: reserved before it is sent, metered by what comes back, settled before the client has its end.

The upstream is chosen by the first create, and holds for the connection: what was said on it is there. A client whose
create is refused is told so by an ``error`` frame, and may go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from app.auth.running import Running
from app.cache.inquiry import Inquiry
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
from app.core.peek import peek
from app.pipeline.boarding import Boarded, Boarding
from app.pipeline.desk import Desk
from app.pipeline.flight import Flight
from app.pipeline.plain_socket import PING_EVERY_TICKS, SILENT_TICKS_MAX, TICK_S
from app.pipeline.plan import Plan
from app.pipeline.planning import Planner, parse, with_model
from app.pipeline.socket_events import SocketEvent, error_frame, exchange_of_frame, read_event
from app.settings import Configuration, Timeouts
from app.upstream.frames import GOING_AWAY, INTERNAL_ERROR, POLICY_VIOLATION, FrameStream, Message, text_message
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
OWN_MAX = 10_000
"""Ids of this connection's own responses and items, which may be stored nowhere else."""

Accept = Callable[[str | None], FrameStream]
"""Switches the protocol, with the subprotocol that is chosen."""
OnRefused = Callable[[Exchange, Principal, GatewayError], None]


class Aloft(NamedTuple):
    """A response under way on the connection; each of its streams has one at a time."""

    flight: Flight
    exchange: Exchange


class Sockets:
    """Serves such connections for one configuration."""

    def __init__(
        self,
        planner: Planner,
        boarding: Boarding,
        desk: Desk,
        running: Running,
        configuration: Configuration,
        *,
        pools: Callable[[str], UpstreamPool],
        principal_of: Callable[[str], Principal | None],
        on_refused: OnRefused,
    ) -> None:
        self.planner = planner
        self.boarding = boarding
        self.desk = desk
        self.running = running
        self.configuration = configuration
        self.pool_of = pools
        self.principal_of = principal_of
        self.on_refused = on_refused

    def __repr__(self) -> str:
        return f"Sockets({self.planner!r})"

    async def serve(
        self, exchange: Exchange, principal: Principal, accept: Accept, is_draining: Callable[[], bool]
    ) -> None:
        """One connection, from its handshake to its end. Raises UpgradeRequired where no upstream has WebSockets, and
        InvalidAPIKey.
        """
        if not self.planner.has_sockets:
            raise UpgradeRequired
        talk = _Talk(self, exchange, principal, accept(None), is_draining)
        if not self.running.enter(principal.secret_id, talk):
            talk.client.close(POLICY_VIOLATION, "key_revoked")
            return
        try:
            await talk.run()
        finally:
            self.running.leave(principal.secret_id, talk)
            talk.end()


class _Talk:
    """One connection."""

    def __init__(
        self,
        sockets: Sockets,
        handshake: Exchange,
        principal: Principal,
        client: FrameStream,
        is_draining: Callable[[], bool],
    ) -> None:
        self.client = client
        self._sockets = sockets
        self._handshake = handshake
        self._principal = principal
        self._is_draining = is_draining
        self._upstream: FrameStream | None = None
        self._pool: UpstreamPool | None = None
        self._aloft: dict[str, Aloft] = {}
        self._disturbed: set[str] = set()
        """Streams whose response has been sent something else since it began."""
        self._landed = asyncio.Event()
        self._own: set[str] = set()
        self._revoked = False
        self._deadline_s: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"_Talk({self.client!r}, aloft={len(self._aloft)})"

    async def run(self) -> None:
        """Until the client has gone, or was sent away; the upstream's end sends it away."""
        listening = asyncio.create_task(self._listen(), name="websocket client")
        self._tasks = [listening]
        try:
            await asyncio.wait([listening])
            if not listening.cancelled():
                listening.result()
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
        self._land_all("interrupted", "key_revoked")
        self.client.close(POLICY_VIOLATION, "key_revoked")
        for task in self._tasks:
            task.cancel()

    def end(self) -> None:
        """Whatever has not ended by now has been interrupted."""
        self._land_all("interrupted", "gateway_shutdown")
        self.client.close(GOING_AWAY)
        if self._upstream is not None:
            self._upstream.close(GOING_AWAY)

    # -- the client's side ----------------------------------------------------------------------

    async def _listen(self) -> None:
        ticks = silent = 0
        while not self.client.ended:
            try:
                message = await self.client.receive(TICK_S)
            except TimeoutError:
                ticks += 1
                silent = 0 if self.client.heard else silent + 1
                self.client.heard = False
                if ticks % PING_EVERY_TICKS == 0:
                    self.client.ping()
                if silent > SILENT_TICKS_MAX:
                    return
                if self._is_draining() and not self._is_busy:
                    self.client.close(GOING_AWAY, "draining")
                    return
                continue
            if message is not None:
                silent = 0
                await self._take(message)

    async def _take(self, message: Message) -> None:
        """A message of the client's."""
        exchange = exchange_of_frame(self._handshake, self._sockets.desk.clock)
        stream_id: str | None = None
        try:
            if not message.is_text:
                raise InvalidRequest("Only text frames are understood here.")
            principal = self._sockets.principal_of(self._principal.secret_id)
            if principal is None:
                raise InvalidAPIKey(should_retry=False)
            document = await parse(message.data)
            stream_id = document.get_str("stream_id")
            if document.get_str("type") == CREATE:
                await self._create(exchange, principal, document, message, stream_id or "")
            else:
                await self._pass(principal, document, message, stream_id or "")
        except GatewayError as error:
            self._sockets.on_refused(exchange, self._principal, error)
            self._tell(error, stream_id, exchange.request_id)
            if isinstance(error, InvalidAPIKey):
                self.client.close(POLICY_VIOLATION, "invalid_api_key")

    async def _pass(self, principal: Principal, document: JSONObject, message: Message, stream_id: str) -> None:
        """An event about what is under way: what it names must be the team's, or of this connection."""
        if document.get_str("type") not in PASSED or stream_id not in self._aloft:
            raise InvalidRequest(f"Only {CREATE} is understood here, and what is about its response.", param="type")
        await self._sockets.planner.holder_of(principal, self._foreign(document))
        self._disturbed.add(stream_id)
        await self._send(message)

    async def _wait_for_turn(self, stream_id: str) -> None:
        """A stream has one response at a time: the client is not read until that has ended. Bounded by the deadlines of
        the response that is under way.
        """
        while stream_id in self._aloft and not self.client.ended:
            self._landed.clear()
            await self._landed.wait()

    async def _create(
        self, exchange: Exchange, principal: Principal, document: JSONObject, message: Message, stream_id: str
    ) -> None:
        if self._is_draining():
            raise Draining
        await self._wait_for_turn(stream_id)
        if self._upstream is not None and self._upstream.ended:
            raise UpstreamUnreachable
        if len(self._aloft) >= FLIGHTS_MAX:
            raise InvalidRequest(f"At most {FLIGHTS_MAX} responses may be under way on one connection.")
        ask = msgspec.structs.replace(peek("responses", document), stream=True)
        if ask.background:
            raise InvalidRequest("A background response is asked for over HTTP.", param="background")
        routes = await self._sockets.planner.socket_routes(principal, ask, self._foreign(document), self._pool)
        plan = Plan(ask, b"", routes, Inquiry("websocket"), len(message.data))
        boarded = await self._sockets.boarding.board(exchange, principal, plan, "bypass")
        flight = boarded.flight
        flight.on_named = self._learn
        try:
            await self._connect(boarded)
        except (UpstreamError, UpgradeRequired) as error:
            flight.meter.status = error.status
            flight.settle("failed", void=True, error_code=error.code)
            flight.land(was_sent=False)
            raise
        except BaseException:
            # Cut off while the socket was opened: nothing was sent.
            flight.land(was_sent=False)
            raise
        flight.sends()
        flight.meter.status = 200
        self._aloft[stream_id] = Aloft(flight, exchange)
        self._sockets.desk.live.begin(exchange.request_id, flight)
        self._expect(self._timeouts.first_byte_s)
        route = boarded.route
        if route.model != ask.model:
            message = text_message(with_model(message.data, ask.model_span, route, ask.model))
        await self._send(message)

    async def _connect(self, boarded: Boarded) -> None:
        """The upstream's socket, which the first create opens."""
        if self._upstream is not None:
            return
        route: Route = boarded.route
        pool = self._sockets.pool_of(route.upstream)
        headers = toward_upstream(self._handshake.headers, pool.forwarded, self._principal.team_id)
        headers = [header for header in headers if header[0] not in {b"content-type", b"accept"}]
        headers.append((b"x-client-request-id", self._handshake.request_id.encode()))
        self._upstream = await pool.switch("/responses", self._handshake.query, headers, model=route.model)
        self._pool = pool
        self._tasks.append(asyncio.create_task(self._listen_above(self._upstream), name="websocket upstream"))

    async def _send(self, message: Message) -> None:
        upstream = self._upstream
        if upstream is None:
            raise UpstreamOutcomeUnknown
        upstream.send(message)
        if upstream.write_paused and not await upstream.drained(self._timeouts.idle_s):
            raise UpstreamTimeout

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
                if self._deadline_s is not None and self._loop.time() > self._deadline_s:
                    self._cut_off("upstream_stalled", UpstreamTimeout())
                    return
                continue
            if message is None:
                break
            if message.is_text:
                self._saw(message.data)
            self.client.send(message)
            if self.client.write_paused and not await self.client.drained(self._slow_client_s):
                self.client.close(GOING_AWAY)
                return
        self._cut_off("upstream_disconnected", UpstreamOutcomeUnknown())

    def _saw(self, data: bytes) -> None:
        """An event: to the meter first, so that what ends with it is settled before the client has it."""
        event = read_event(data)
        if event is None:
            return
        stream_id = event.stream_id if isinstance(event.stream_id, str) else ""
        aloft = self._aloft.get(stream_id)
        if aloft is None:
            return
        flight, exchange = aloft
        self._expect(self._timeouts.idle_s)
        if event.type == "error":
            if stream_id in self._disturbed:
                # It may be about what was sent meanwhile: the response says itself how it ends.
                return
            if flight.meter.reading.response_id is None:
                self._refused_upstream(flight, event)
        flight.meter.body_seen = True
        flight.saw_event(data)
        if flight.record is not None:
            del self._aloft[stream_id]
            self._disturbed.discard(stream_id)
            self._landed.set()
            if not self._is_busy:
                self._deadline_s = None
            self._land(flight, exchange)

    def _refused_upstream(self, flight: Flight, event: SocketEvent) -> None:
        """A create that the upstream refused before it began."""
        status = event.refusal_status
        flight.meter.status = status
        code = event.error.code if event.error is not None else event.code
        is_void = status is not None and (status < 500 or status == 503)
        flight.settle("failed", void=is_void, error_code=code if isinstance(code, str) else "upstream_error")

    # -- ends -----------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """The client has gone: what runs goes on for a while without it, by policy."""
        flights = [aloft.flight for aloft in self._aloft.values()]
        if not flights or self._revoked:
            return
        cancel = [flight.client_left("stream", is_stream=True) for flight in flights]
        others = [task for task in self._tasks if not task.done()]
        if not all(cancel) and others:
            until_s = self._loop.time() + self._sockets.configuration.stream.drain_s_max
            while self._is_busy and self._loop.time() < until_s and all(f.may_drain_on() for f in flights):
                done, _ = await asyncio.wait(others, timeout=TICK_S / 4)
                if done:
                    break
        self._land_all("failed", "drain_over")

    def _cut_off(self, cause: str, error: GatewayError) -> None:
        """The upstream has failed: whoever waits for a response is told, and each is an estimate."""
        for stream_id, aloft in list(self._aloft.items()):
            self._tell(error, stream_id or None, aloft.exchange.request_id)
        self._land_all("failed", cause)

    def _land_all(self, outcome: Any, cause: str) -> None:
        aloft, self._aloft = self._aloft, {}
        self._landed.set()
        for flight, exchange in aloft.values():
            flight.settle(outcome, error_code=cause)
            self._land(flight, exchange)

    def _land(self, flight: Flight, exchange: Exchange) -> None:
        self._sockets.desk.live.leave(exchange.request_id)
        flight.land(was_sent=True)

    # -- small things ---------------------------------------------------------------------------

    @property
    def _is_busy(self) -> bool:
        return bool(self._aloft)

    @property
    def _timeouts(self) -> Timeouts:
        return NO_TIMEOUTS if self._pool is None else self._pool.settings.timeouts

    @property
    def _slow_client_s(self) -> float:
        return self._sockets.configuration.server.slow_client_s

    def _expect(self, seconds: float) -> None:
        self._deadline_s = self._loop.time() + seconds

    def _foreign(self, document: JSONObject) -> list[Any]:
        """What a frame names that is not of this connection."""
        return [each for each in self._sockets.planner.references_in(document) if each.object_id not in self._own]

    def _learn(self, object_ids: list[str]) -> None:
        if len(self._own) < OWN_MAX:
            self._own.update(object_ids)

    def _tell(self, error: GatewayError, stream_id: str | None, request_id: str) -> None:
        with contextlib.suppress(UnicodeEncodeError):
            self.client.send_text(error_frame(error, stream_id, request_id))
