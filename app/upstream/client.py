"""A small HTTP/1.1 client for a proxy: what it is given goes out, and what comes is handed over as it came.

No automatic headers but ``host`` and ``content-length``, no cookies, redirects or decompression, no proxy but the
one that it is given, and nothing is sent twice. Deadlines for the answer are the caller's, who cancels.

One race is in the nature of keep-alive: an upstream may close an idle connection while a request is already
on its way there. Whether it was read nobody can tell, so that is ConnectionBroken, not another try. To make it
rare, ``keepalive_timeout_s`` is to be shorter than the upstream's own, and a connection whose end has been
seen is never used.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import ssl
from collections.abc import Sequence

from app.core.errors import Headers
from app.core.exchange import BodyStream
from app.upstream.connection import (
    BadAnswer,
    ClientError,
    Connection,
    ConnectionBroken,
    Incoming,
    NotConnected,
    TooManyConnections,
)
from app.upstream.proxies import Proxy, open_tunnel
from app.upstream.resolver import LOOKUP_S_MAX, Address, Lookup, Resolver, ask_system
from app.upstream.tunnel import Tunnel

__all__ = [
    "Answer",
    "BadAnswer",
    "Client",
    "ClientError",
    "ConnectionBroken",
    "NotConnected",
    "Sent",
    "TooManyConnections",
]

SOCKETS_PART = 2
"""WebSockets have at most half of an upstream's connections."""
SWITCH_S_MAX = 30.0
"""How long a WebSocket's handshake may take."""
HAPPY_EYEBALLS_DELAY_S = 0.25
SWEEP_INTERVAL_S_MIN = 0.1

_REQUEST_LINE = re.compile(rb"[A-Z]+ (?:http://[!-.0-~]+)?/[!-~]* HTTP/1\.1")

_OURS = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade", b"te", b"expect")
)
"""Headers by which a caller's request could end elsewhere than this client thinks."""


class Answer(Incoming):
    """An answer whose head has come. Read by one task."""

    def __repr__(self) -> str:
        state = "failed" if self.failure is not None else "complete" if self.connection is None else "open"
        return f"Answer(status={self.status}, {state}, unread={sum(map(len, self.parts))})"

    async def read_any(self) -> bytes:
        """What has come since, b"" at the proper end of the body.

        Raises ConnectionBroken where the body ended early or is not delimited as HTTP asks. May be
        cancelled and called again: nothing is lost by that.
        """
        parts = self.parts
        while not parts:
            if self.connection is None:
                self.raise_failure()
                return b""
            await self.wait(self.connection.loop)
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.unread = 0
        if self.connection is not None:
            self.connection.read_on()
        return body

    def close(self) -> None:
        """Gives up an answer whose body has not come to its end: its connection is closed."""
        if self.connection is not None:
            self.connection.abandon("The answer was given up.")


class Sent:
    """Whether a request has been written, for whoever gives up waiting for its answer."""

    __slots__ = ("was_written",)

    def __init__(self) -> None:
        self.was_written = False


class Client:
    """The connections to one upstream. The last one that was given back is the next to be used."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        uds: str | None = None,
        base_path: str,
        connect_timeout_s: float,
        keepalive_timeout_s: float,
        connections_max: int,
        lookup: Lookup = ask_system,
        proxy: Proxy | None = None,
    ) -> None:
        """``lookup`` asks the name service, of the upstream or of the ``proxy`` on the way to it. Half of the time to
        connect is left for connecting.
        """
        self._host = host
        self._port = port
        self._tls = tls
        self._proxy = proxy
        self._uds = uds
        self._base_path = base_path.encode("ascii")
        self._connect_timeout_s = connect_timeout_s
        self._keepalive_timeout_s = keepalive_timeout_s
        self._connections_max = connections_max
        dialled = (host, port) if proxy is None else (proxy.host, proxy.port)
        self._resolver = Resolver(*dialled, lookup=lookup, lookup_s_max=min(LOOKUP_S_MAX, connect_timeout_s / 2))
        name = _host_header(host, port, tls=tls is not None)
        self._line_rest = b" HTTP/1.1\r\nhost: %s\r\n" % name
        self._own_lines = 3
        if proxy is not None and tls is None:
            self._base_path = b"http://" + name + self._base_path
            if proxy.authorization:
                self._line_rest += b"proxy-authorization: %s\r\n" % proxy.authorization
                self._own_lines += 1
        # Kept in the order in which they were given back.
        self._idle: dict[Connection, None] = {}
        self._connections: set[Connection] = set()
        self._tunnels: set[Tunnel] = set()
        self._connecting = 0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"Client(in_use={self.in_use}, idle={self.idle}, max={self._connections_max}, closed={self._closed})"

    @property
    def in_use(self) -> int:
        """Connections with a request on them, those being made, and WebSockets."""
        return len(self._connections) - len(self._idle) + self._connecting + len(self._tunnels)

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    async def request(
        self, method: bytes, target: bytes, headers: Headers, body: bytes | BodyStream | None, sent: Sent | None = None
    ) -> Answer:
        """Sends a request and waits for the head of its answer, whose body is then to be read or closed.

        ``sent`` tells, also after a cancellation, whether anything was written.

        ``target`` follows the base path; both go out as they are. Names of ``headers`` in lower case.
        A ``body`` that streams is read as the upstream takes it, and not past a refusal; where it raises, that
        passes through and the connection is closed, so that the upstream does not take the part for the whole.
        Raises NotConnected (nothing was written), ConnectionBroken, BadAnswer; ValueError for what could not
        be said in a request. Cancelled, it closes the connection.
        """
        head = self._head(method, target, headers, body)
        connection = self._take_idle() or await self._connect()
        answer = Answer(connection)
        if sent is not None:
            sent.was_written = True
        await connection.exchange(answer, head, body, is_head=method == b"HEAD")
        return answer

    async def switch(self, target: bytes, headers: Headers) -> tuple[Tunnel, int, Headers]:
        """Asks for a WebSocket on a connection of its own: the connection, and status and headers of the answer. Where
        the status is not 101, and once it is not needed any more, the caller closes it.

        Raises NotConnected (nothing was written), ConnectionBroken, BadAnswer.
        """
        head = self._head(b"GET", target, headers, None)[:-2] + b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n"
        if self._closed:
            raise NotConnected("The client is closed.")
        if self.in_use >= self._connections_max:
            raise TooManyConnections(f"All {self._connections_max} connections are in use.")
        if len(self._tunnels) >= max(self._connections_max // SOCKETS_PART, 1):
            # They may be idle for as long as they like: what is left is for calls.
            raise TooManyConnections("As many WebSockets are open as may be.")
        loop = self._loop = asyncio.get_running_loop()
        tunnel = Tunnel(self._tunnels.discard)
        self._connecting += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._open(loop, tunnel)
        except (OSError, UnicodeError) as error:
            tunnel.abort()
            raise NotConnected(f"The upstream could not be connected to: {type(error).__name__}.") from error
        finally:
            self._connecting -= 1
        if not tunnel.gone:
            self._tunnels.add(tunnel)
        try:
            async with asyncio.timeout(SWITCH_S_MAX):
                return tunnel, *(await tunnel.head(head))
        except TimeoutError:
            tunnel.abort()
            raise ConnectionBroken("The upstream did not answer in time.") from None
        except BaseException:
            tunnel.abort()
            raise

    async def can_connect(self) -> bool:
        """Whether a connection can be made as for a request; it is closed at once, and nothing is sent."""
        try:
            connection = await self._connect()
        except NotConnected as error:
            return isinstance(error, TooManyConnections)
        connection.abandon("It was a try.")
        return True

    async def close(self) -> None:
        """Closes every connection; answers that are still being read break off."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._connections):
            connection.abandon("The client was closed.")
        for tunnel in list(self._tunnels):
            tunnel.abort()
        self._resolver.close()
        # The event loop closes the sockets in its next turn.
        await asyncio.sleep(0)

    # For the connections.

    def release(self, connection: Connection) -> None:
        if self._closed or self._loop is None:
            connection.abandon("It is not needed any more.")
            return
        connection.idle_since_s = self._loop.time()
        self._idle[connection] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._keepalive_timeout_s, self._sweep)

    def forget(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._connections.discard(connection)

    # Inside.

    def _head(self, method: bytes, target: bytes, headers: Headers, body: bytes | BodyStream | None) -> bytes:
        parts = [method, b" ", self._base_path, target, self._line_rest]
        for name, value in headers:
            if name in _OURS:
                raise ValueError("A header that delimits the request is the client's own to write.")
            parts += (name, b": ", value, b"\r\n")
        if body is not None:
            length = len(body) if isinstance(body, bytes) else body.length
            parts.append(b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %d\r\n" % length)
        parts.append(b"\r\n")
        head = b"".join(parts)
        lines = len(headers) + self._own_lines + (body is not None)
        if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
            raise ValueError("A header has a line break or a NUL.")
        if _REQUEST_LINE.match(head) is None:
            raise ValueError("The method or the target cannot stand in a request line.")
        return head

    def _take_idle(self) -> Connection | None:
        while self._idle and self._loop is not None:
            connection, _ = self._idle.popitem()
            if connection.idle_since_s + self._keepalive_timeout_s <= self._loop.time():
                # The others have been idle for longer still; the sweep is about to come for them.
                connection.abandon("It is not needed any more.")
                return None
            if connection.is_quiet():
                return connection
            # Closed by its peer just now: found before anything was written, so it is no attempt.
            connection.abandon("The upstream closed the connection.")
        return None

    def _sweep(self) -> None:
        """One timer for all: drops what was idle for too long, and comes again for what remains."""
        self._timer = None
        if self._loop is None:
            return
        now_s = self._loop.time()
        for connection in list(self._idle):
            due_in_s = connection.idle_since_s + self._keepalive_timeout_s - now_s
            if due_in_s > 0:
                self._timer = self._loop.call_later(max(due_in_s, SWEEP_INTERVAL_S_MIN), self._sweep)
                return
            connection.abandon("It is not needed any more.")

    async def _connect(self) -> Connection:
        if self._closed:
            raise NotConnected("The client is closed.")
        if self.in_use >= self._connections_max:
            raise TooManyConnections(f"All {self._connections_max} connections are in use.")
        loop = self._loop = asyncio.get_running_loop()
        connection = Connection(self, loop)
        self._connecting += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._open(loop, connection)
        except (OSError, UnicodeError) as error:
            # TimeoutError and the errors of TLS and of name resolution are OSErrors.
            connection.abandon("It is not needed any more.")
            raise NotConnected(f"The upstream could not be connected to: {type(error).__name__}.") from error
        except BaseException:
            connection.abandon("It is not needed any more.")
            raise
        finally:
            self._connecting -= 1
        self._admit(connection)
        return connection

    def _admit(self, connection: Connection) -> None:
        if self._closed:
            connection.abandon("The client was closed.")
        if not connection.closed:
            self._connections.add(connection)

    async def _open(self, loop: asyncio.AbstractEventLoop, connection: Connection | Tunnel) -> None:
        server_hostname = self._host if self._tls is not None else None
        if self._uds is not None:
            await loop.create_unix_connection(
                lambda: connection, self._uds, ssl=self._tls, server_hostname=server_hostname
            )
            return
        found = await self._resolver.addresses()
        one = await _first_to_connect(loop, _in_turn(found))
        if self._proxy is not None and self._tls is not None:
            await open_tunnel(loop, one, self._proxy, self._host, self._port)
        await loop.create_connection(
            lambda: connection,
            sock=one,
            ssl=self._tls,
            server_hostname=server_hostname,
        )


async def _first_to_connect(loop: asyncio.AbstractEventLoop, addresses: Sequence[Address]) -> socket.socket:
    """RFC 8305: the next address gets its chance when the one before it fails or takes long.

    asyncio does this by itself, but uvloop waits for each address in turn, and one that never answers
    would use up the time for all of them.
    """
    attempts: set[asyncio.Task[socket.socket]] = set()
    waiting = iter(addresses)
    left = len(addresses)
    failure: BaseException = OSError("The name has no address.")
    try:
        while left or attempts:
            if left:
                left -= 1
                attempts.add(loop.create_task(_dial(loop, next(waiting))))
            done, _ = await asyncio.wait(
                attempts, timeout=HAPPY_EYEBALLS_DELAY_S if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                attempts.discard(attempt)
                error = attempt.exception()
                if error is None:
                    # One that succeeded at the same moment is still among the attempts, or comes to be discarded.
                    attempts |= done - {attempt}
                    return attempt.result()
                failure = error
        raise failure
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_discard)


async def _dial(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    family, kind, protocol, _, where = address
    one = socket.socket(family, kind, protocol)
    try:
        one.setblocking(False)
        await loop.sock_connect(one, where)
    except BaseException:
        one.close()
        raise
    return one


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def _in_turn(addresses: Sequence[Address]) -> list[Address]:
    """As the resolver orders them, but with the address families taking turns."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None]


def _host_header(host: str, port: int, *, tls: bool) -> bytes:
    name = f"[{host}]" if ":" in host else host
    return (name if port == (443 if tls else 80) else f"{name}:{port}").encode("ascii")
