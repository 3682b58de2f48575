"""One ASGI callable for everything: requests under ``/v1/`` go to the pipeline, the rest to the control plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from app.core.clock import Clock
from app.core.errors import (
    Draining,
    GatewayError,
    Headers,
    InternalError,
    InvalidRequest,
    UnsupportedMediaType,
    UpgradeRequired,
    render,
)
from app.core.exchange import ClientGone, Connection, Exchange
from app.core.ids import new_request_id
from app.edge.body import BodyBudget, BodyReader, Media, check_media, check_upload_media
from app.edge.cycle import Cycle
from app.edge.endpoints import allow, is_data_plane, match
from app.edge.health import HEALTH_PATHS, Readiness, answer_health
from app.edge.peers import Peers
from app.pipeline import Pipeline
from app.settings import ServerSettings
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics
from app.upstream.frames import FrameStream, accept_of
from app.upstream.headers import key_of_subprotocols, subprotocols_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

PASSED_BY: Headers = [
    (b"x-headgate-cache", b"bypass"),
    (b"cache-status", b'headgate; fwd=bypass; detail="refused"'),
]
"""On every answer it is said what the cache did."""

CREDENTIAL_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})


class Gateway:
    """Tells the planes apart, and turns every refusal into an answer of the API's shape."""

    def __init__(
        self,
        pipeline: Pipeline,
        control_plane: ASGIApp,
        *,
        settings: ServerSettings,
        peers: Peers,
        readiness: Readiness,
        clock: Clock,
        metrics: Metrics,
        log: LogWriter,
    ) -> None:
        self._pipeline = pipeline
        self._control_plane = control_plane
        self._settings = settings
        self._readiness = readiness
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._bodies = BodyBudget(settings.body_bytes_in_flight_max)
        self._peers = peers
        self.draining = False
        """Set when the drain begins: still accepting, and no connection is kept."""
        self.closed = False
        """Set when the listener has closed: requests on connections that are kept are sent elsewhere."""

    def __repr__(self) -> str:
        return f"Gateway(pipeline={self._pipeline!r}, closed={self.closed})"

    def swap(self, pipeline: Pipeline, settings: ServerSettings) -> None:
        """From the next request on; what runs goes on with what it began with."""
        self._pipeline = pipeline
        self._settings = settings
        self._bodies.bytes_max = settings.body_bytes_in_flight_max
        self._peers.trust(settings.trusted_proxies)

    async def __call__(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            await self._control_plane(scope, receive, send)
            return
        if self.draining:
            scope["headgate.connection"].keep_alive = False
        path: str = scope["path"]
        if path in HEALTH_PATHS:
            answer_health(scope["headgate.connection"], path, scope["method"], self._readiness)
        elif is_data_plane(path):
            await self._serve(scope, receive)
        else:
            await self._control_plane(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Callable[[], Awaitable[Message]]) -> None:
        connection: Cycle = scope["headgate.connection"]
        received_ms = self._clock.now_ms()
        request_id = new_request_id(received_ms)
        connection.request_id = request_id
        body = BodyReader(
            receive,
            self._bodies,
            connection,
            bytes_max=self._settings.body_bytes_max,
            upload_bytes_max=self._settings.upload_bytes_max,
        )
        exchange: Exchange | None = None
        try:
            if scope["method"] == "OPTIONS":
                tell_methods(connection, scope["raw_path"], request_id)
                return
            exchange = self._exchange(scope, connection, request_id, received_ms, body)
            if exchange.wants_socket:
                await self._serve_socket(exchange, connection)
            else:
                await self._pipeline.serve(exchange)
        except GatewayError as error:
            # One that has waited for another's call may go by another id by now.
            self._refuse(connection, error, request_id if exchange is None else exchange.request_id)
        except ClientGone:
            self._metrics.disconnects.labels("request").inc()
        except Exception:
            # A bug. The connection answers it and tells where; that there was one is for people to be woken by.
            self._metrics.refused.labels(InternalError.code).inc()
            raise
        finally:
            body.close()

    def _exchange(
        self, scope: Scope, connection: Cycle, request_id: str, received_ms: int, body: BodyReader
    ) -> Exchange:
        if self.closed:
            raise Draining
        headers: Headers = scope["headers"]
        method: str = scope["method"]
        # An upgrade that is asked for over HTTP/1.0 is to be ignored (RFC 9110, 7.8).
        wants_websocket = method == "GET" and scope["http_version"] == "1.1" and _wants_websocket(headers)
        found = match(method, scope["raw_path"], wants_websocket=wants_websocket)
        endpoint = found.endpoint
        media: Media = ""
        if endpoint.body == "upload":
            media = "upload"
            check_upload_media(headers, is_form=endpoint.known)
        elif endpoint.body:
            media, body.encodings = check_media(headers, endpoint.body)
            if not media and endpoint.metered:
                raise UnsupportedMediaType
        body.check_length(streams=media == "upload")
        if wants_websocket:
            check_handshake(headers)
        return Exchange(
            wants_socket=wants_websocket,
            request_id=request_id,
            received_ms=received_ms,
            started_s=self._clock.monotonic_s(),
            endpoint=endpoint,
            method=method,
            path=found.path,
            media=media,
            ids=found.ids,
            query=scope["query_string"],
            headers=headers,
            credential=_credential(headers),
            peer=self._peers.address(scope["client"], headers),
            connection=connection,
            read_body=body.read,
            open_body=body.stream,
            forget_body=body.close,
        )

    async def _serve_socket(self, exchange: Exchange, connection: Cycle) -> None:
        def accept(subprotocol: str | None) -> FrameStream:
            return accept_socket(connection, exchange, subprotocol, self._settings.body_bytes_max, self._bodies)

        await self._pipeline.serve_socket(
            exchange, accept, lambda: self.draining or self.closed, lambda: self._pipeline
        )

    def refused(self, error: GatewayError, request_id: str) -> None:
        """Count and log a refusal, also one of the HTTP server's own."""
        self._metrics.refused.labels(error.code).inc()
        level = self._log.error if error.status >= 500 else self._log.info
        # Not the parameter: where a member of the body has no business, its name is the client's own text.
        level("refused", request_id=request_id, status=error.status, code=error.code)

    def _refuse(self, connection: Connection, error: GatewayError, request_id: str) -> None:
        self.refused(error, request_id)
        if not any(name == b"x-headgate-cache" for name, _ in error.headers):
            error.headers += PASSED_BY
        if connection.response_started:
            # After the first byte an error is never rendered into the answer as if it were one.
            connection.abort()
        else:
            connection.respond(*render(error, request_id))


def tell_methods(connection: Connection, raw_path: bytes, request_id: str) -> None:
    """The answer to OPTIONS: the endpoint table is the gateway's own, so no upstream is asked. Raises NotFound."""
    headers = [(b"allow", allow(raw_path)), (b"x-headgate-request-id", request_id.encode())]
    connection.respond(204, headers, b"")


def _credential(headers: Headers) -> str | None:
    """The key of a request: a bearer token, or one of the two headers that other SDKs use."""
    found: bytes | None = None
    for name, value in headers:
        if name not in CREDENTIAL_HEADERS:
            continue
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else None
        found = value
    if found is not None:
        return found.strip().decode("latin-1")
    return key_of_subprotocols(headers)


def check_handshake(headers: Headers) -> None:
    """Raises InvalidRequest where a WebSocket is asked for in no valid way (RFC 6455, 4.2.1)."""
    if any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers):
        raise InvalidRequest("A WebSocket handshake has no body.")
    read = {name: value for name, value in headers if name.startswith(b"sec-websocket-")}
    if read.get(b"sec-websocket-version") != b"13":
        raise UpgradeRequired("The WebSocket version must be 13.", headers=[(b"sec-websocket-version", b"13")])
    if accept_of(read.get(b"sec-websocket-key", b"")) is None:
        raise InvalidRequest("The WebSocket handshake has no valid key.")


def accept_socket(
    connection: Cycle, exchange: Exchange, subprotocol: str | None, message_bytes_max: int, budget: BodyBudget
) -> FrameStream:
    """Switch the protocol; nothing is compressed, so no extension is accepted. What comes counts in ``budget``."""
    read = dict(exchange.headers)
    request_id = exchange.request_id.encode()
    headers: Headers = [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", accept_of(read[b"sec-websocket-key"]) or b""),
        (b"x-headgate-request-id", request_id),
        (b"x-request-id", request_id),
    ]
    offered = subprotocols_of(exchange.headers)
    chosen = subprotocol or (offered[0] if offered else None)
    if chosen is not None:
        headers.append((b"sec-websocket-protocol", chosen.encode()))
    stream = connection.switch(headers)
    return FrameStream(stream, "server", chosen, message_bytes_max=message_bytes_max, budget=budget)


def _wants_websocket(headers: Headers) -> bool:
    return b"websocket" in _tokens(headers, b"upgrade") and b"upgrade" in _tokens(headers, b"connection")


def _tokens(headers: Headers, name: bytes) -> set[bytes]:
    """The members of a list that a header holds, in small letters."""
    return {token.strip().lower() for each, value in headers if each == name for token in value.split(b",")}
