"""One upstream: its connections, the credentials that it is called with, and what its failures mean."""

from __future__ import annotations

import base64
import itertools
import os
import re
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from app.core.errors import (
    Headers,
    UpgradeRequired,
    UpstreamAuthFailed,
    UpstreamBusy,
    UpstreamInvalidResponse,
    UpstreamOutcomeUnknown,
    UpstreamUnreachable,
)
from app.core.exchange import BodyStream
from app.settings import UpstreamSettings
from app.upstream.azure import AzureAddresses
from app.upstream.breaker import Breaker
from app.upstream.client import (
    Answer,
    BadAnswer,
    Client,
    ConnectionBroken,
    NotConnected,
    Sent,
    TooManyConnections,
)
from app.upstream.frames import FrameStream, accept_of
from app.upstream.proxies import proxy_of
from app.upstream.resolver import Lookup, ask_system
from app.upstream.tunnel import SWITCHED

DEFAULT_PORTS = {"http": 80, "https": 443}
SECRET_SHAPE = re.compile(rb"\bsk-[A-Za-z0-9_*.-]{6,}")
SIMULATOR_URL = "http://simulator/v1"


class UpstreamPool:
    """The connections to one upstream."""

    def __init__(
        self,
        name: str,
        settings: UpstreamSettings,
        *,
        simulator_socket: Path | None = None,
        lookup: Lookup = ask_system,
    ) -> None:
        """``lookup`` asks the name service."""
        self.name = name
        self.settings = settings
        self.forwarded = frozenset(header.encode() for header in settings.forward_headers)
        self.base_url = (settings.base_url or SIMULATOR_URL).rstrip("/")
        """Where the upstream is; the price book tells the provider by it. Never shown to clients."""
        self.reachable = True
        """Whether the last try to connect succeeded."""
        self.unreachable_since_ms: int | None = None
        """When it was found not to be reachable, in milliseconds since 1970 UTC."""
        self.breaker = Breaker(settings.breaker)
        self.has_sockets = settings.has_sockets
        """Whether it has ``/v1/responses`` over WebSockets."""
        self.asks_usage = settings.chat_stream_usage == "inject"
        """Whether chat streams are asked for their usage where the client has not."""
        self._keys = settings.keys
        self._azure = AzureAddresses(settings) if settings.kind == "azure" else None
        shown = [_shown(key.encode(), settings) for key in self._keys]
        self._turns = itertools.cycle(shown) if shown else None
        self._own: Headers = [(b"accept-encoding", b"identity")]
        if settings.organization:
            self._own.append((b"openai-organization", settings.organization.encode()))
        if settings.project:
            self._own.append((b"openai-project", settings.project.encode()))
        self._client = _client_for(self.base_url, settings, simulator_socket, lookup)

    def __repr__(self) -> str:
        return f"UpstreamPool(name={self.name!r}, keys={len(self._keys)}, reachable={self.reachable})"

    @property
    def in_flight(self) -> int:
        """Calls that it is serving, as far as this process knows."""
        return self._client.in_use

    async def can_connect(self) -> bool:
        """Whether it could be reached now, the way that calls take; nothing is sent."""
        return await self._client.can_connect()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def send(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: Headers,
        body: bytes | BodyStream | None,
        sent: Sent | None = None,
        model: str = "",
    ) -> Answer:
        """Send a request and wait for the answer's head; the caller reads or closes the answer.

        ``sent`` tells, also after a cancellation, whether anything was written. ``model`` is what it is for, where
        the upstream has it in its addresses.

        Raises UpstreamBusy and UpstreamUnreachable (nothing was sent), UpstreamOutcomeUnknown (it may have
        been), UpstreamInvalidResponse (what came is not HTTP); and what a ``body`` that streams raises, after which
        the upstream has not got it whole.
        """
        headers += self._own
        target = self._address(path, query, model, headers)
        with self._failing():
            answer = await self._client.request(method.encode(), target, headers, body, sent)
        if answer.status == 407 and self.settings.proxy is not None:
            # Only a proxy says that, and the upstream has not heard of the request.
            answer.close()
            self._lose()
            raise UpstreamUnreachable
        self._find()
        return answer

    async def switch(
        self, path: str, query: bytes, headers: Headers, subprotocols: Sequence[str] = (), model: str = ""
    ) -> FrameStream:
        """A WebSocket of its own. Raises UpstreamBusy, UpstreamUnreachable, UpstreamAuthFailed, UpgradeRequired where
        the upstream has none, UpstreamInvalidResponse: whatever it is, nothing was sent that could be billed.
        """
        key = base64.b64encode(os.urandom(16))
        headers = [header for header in [*headers, *self._own] if header[0] != b"accept-encoding"]
        headers += [(b"sec-websocket-version", b"13"), (b"sec-websocket-key", key)]
        if subprotocols:
            headers.append((b"sec-websocket-protocol", ", ".join(subprotocols).encode()))
        target = self._address(path, query, model, headers)
        try:
            with self._failing():
                tunnel, status, told = await self._client.switch(target, headers)
        except UpstreamOutcomeUnknown as error:
            # A handshake asks for nothing yet.
            raise UpstreamUnreachable from error
        found = dict(told)
        chosen = found.get(b"sec-websocket-protocol", b"").decode("latin-1") or None
        is_good = found.get(b"sec-websocket-accept") == accept_of(key) and b"sec-websocket-extensions" not in found
        if status == SWITCHED and is_good and (chosen is None or chosen in subprotocols):
            self._find()
            return FrameStream(tunnel, "client", chosen)
        tunnel.abort()
        if status == 407 and self.settings.proxy is not None:
            self._lose()
            raise UpstreamUnreachable
        self._find()
        if status in {401, 403}:
            raise UpstreamAuthFailed
        if status in {400, 404, 405, 426, 501}:
            raise UpgradeRequired("The upstream has no WebSocket here; use HTTP.")
        if status == 429:
            raise UpstreamBusy("The upstream takes no further WebSocket now. Nothing was sent.")
        if status >= 500:
            raise UpstreamUnreachable
        raise UpstreamInvalidResponse

    async def fetch(self, path: str, bytes_max: int) -> tuple[int, bytes]:
        """Status and body of a small JSON answer to a GET. Raises UpstreamError, also where it is larger."""
        answer = await self.send("GET", path, b"", [(b"accept", b"application/json")], None)
        parts: list[bytes] = []
        size = 0
        try:
            while chunk := await answer.read_any():
                parts.append(chunk)
                size += len(chunk)
                if size > bytes_max or answer.content_encoding not in {"", "identity"}:
                    raise UpstreamInvalidResponse
        except (ConnectionBroken, BadAnswer) as error:
            raise UpstreamOutcomeUnknown from error
        finally:
            answer.close()
        return answer.status, b"".join(parts)

    def model_in_body(self, path: str, model: str) -> str:
        """What a body for ``path`` is to call the model that a route names ``model``."""
        return model if self._azure is None else self._azure.model_in_body(path, model)

    def _address(self, path: str, query: bytes, model: str, headers: Headers) -> bytes:
        """The target of a request, to whose headers the credentials are added."""
        if self._turns is not None:
            headers.append(next(self._turns))
        if self._azure is not None:
            return self._azure.target(path, query, model)
        return b"%s?%s" % (path.encode(), query) if query else path.encode()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """What the client's errors mean."""
        try:
            yield
        except TooManyConnections as error:
            raise UpstreamBusy from error
        except NotConnected as error:
            self._lose()
            raise UpstreamUnreachable from error
        except ConnectionBroken as error:
            raise UpstreamOutcomeUnknown from error
        except BadAnswer as error:
            raise UpstreamInvalidResponse from error

    def _find(self) -> None:
        if not self.reachable:
            self.reachable, self.unreachable_since_ms = True, None

    def _lose(self) -> None:
        if self.reachable:
            self.reachable, self.unreachable_since_ms = False, time.time_ns() // 1_000_000

    def redact(self, body: bytes) -> bytes:
        """An error's body without this upstream's keys, or anything of a key's shape."""
        for key in self._keys:
            body = body.replace(key.encode(), b"[redacted]")
        return SECRET_SHAPE.sub(b"[redacted]", body)


def _client_for(base_url: str, settings: UpstreamSettings, simulator_socket: Path | None, lookup: Lookup) -> Client:
    parts = urlsplit(base_url)
    return Client(
        host=parts.hostname or "",
        port=parts.port or DEFAULT_PORTS[parts.scheme],
        tls=_tls_of(settings) if parts.scheme == "https" else None,
        uds=str(simulator_socket) if settings.kind == "simulator" else None,
        base_path=parts.path,
        connect_timeout_s=settings.timeouts.connect_s,
        keepalive_timeout_s=settings.keepalive_timeout_s,
        connections_max=settings.connections_max,
        lookup=lookup,
        proxy=proxy_of(settings.proxy, base_url, os.environ),
    )


def _tls_of(settings: UpstreamSettings) -> ssl.SSLContext:
    return ssl.create_default_context() if settings.tls is None else settings.tls.context()


def _shown(key: bytes, settings: UpstreamSettings) -> tuple[bytes, bytes]:
    """The header by which the upstream is shown a key."""
    return (b"api-key", key) if settings.kind == "azure" else (b"authorization", b"Bearer %s" % key)
