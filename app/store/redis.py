"""One server of Redis or Valkey, spoken to over one connection.

Commands of the same turn of the event loop leave in one write, and answers are given out as they are
parsed. What can go wrong, and what then happens:

- one command is refused: its caller gets ``RedisReplyError``, nobody else notices;
- a script is not loaded (a restart, SCRIPT FLUSH): it is loaded and the call is sent again;
- the oldest call waits longer than ``timeout_s``: the connection is closed, since a late answer would
  be taken for another call's, and everyone in flight gets ``RedisUnavailable``;
- the connection is lost: the same, at once. Calls then fail without waiting until a new connection
  has answered a probe; posts are kept and sent again, oldest first, while they are young enough.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import hiredis
import msgspec

Argument = str | bytes | int
OnState = Callable[[bool, str], None]

TIMEOUT_S = 0.3
CONNECT_TIMEOUT_S = 2.0
PROBE_EVERY_S = 1.0
BACKOFF_S_MIN = 0.02
BACKOFF_S_MAX = 1.0
LOOP_LATE_S = 0.05
DRAIN_LOOK_EVERY_S = 0.01
IN_FLIGHT_MAX = 10_000
POSTS_MAX = 5_000
POST_AGE_S_MAX = 60.0

# Answers that condemn the connection: the server behind it cannot serve until something changes there.
_UNFIT = ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH")
_NOTHING = object()


def _pack(*words: Argument) -> bytes:
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub says: a tuple of one
    return packed


class RedisError(Exception):
    """Redis gave no usable answer."""


class RedisUnavailable(RedisError):
    """No answer. ``sent`` says whether the command may have been executed all the same."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        self.sent = sent
        super().__init__(reason)


class RedisReplyError(RedisError):
    """The server refused this command, or its script failed."""


class Script:
    """Lua source and the name (its SHA-1, which protects nothing) under which the server keeps it."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def pack(self, keys: Sequence[str], args: Sequence[Argument]) -> bytes:
        """The command that runs this script, as it goes over the wire."""
        return _pack("EVALSHA", self.sha, len(keys), *keys, *args)


class Address(msgspec.Struct, frozen=True):
    """Where a server is and how to be let in; printed without credentials."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = None
    tls: bool = False
    tls_ca_file: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """``redis://``, ``rediss://`` or ``unix://``; ValueError, without the URL, for anything else."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # it may quote a password that should have been percent-encoded
            raise ValueError("the Redis URL has no valid host and port") from None
        options = dict(parse_qsl(parts.query))
        is_unix = parts.scheme == "unix"
        database = options.pop("db", "0") if is_unix else parts.path.strip("/") or "0"
        tls_ca_file = options.pop("ssl_ca_certs", None)
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("a Redis URL starts with redis://, rediss:// or unix://")
        if options:
            raise ValueError(f"unknown options in the Redis URL: {', '.join(sorted(options))}")
        if not database.isdecimal() or (is_unix and not parts.path):
            raise ValueError("expected redis://host:port/database or unix:///path?db=database")
        return cls(
            host=parts.hostname or "localhost",
            port=port or 6379,
            path=unquote(parts.path) if is_unix else None,
            database=int(database),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            tls=parts.scheme == "rediss",
            tls_ca_file=tls_ca_file,
        )

    def __repr__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}?db={self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"


@dataclass(slots=True, eq=False)
class _Call:
    """A command on its way; ``answer`` is None for a post."""

    packed: bytes
    answer: asyncio.Future[Any] | None
    script: Script | None
    made_s: float = 0.0
    timeout_at_s: float = 0.0
    resent: bool = False


class _Connection(asyncio.Protocol):
    """One socket: answers go to the waiting calls in the order in which those were sent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float, on_post_refused: Callable[[], None]) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._on_post_refused = on_post_refused
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loads: dict[str, asyncio.Future[Any]] = {}
        self.waiting: deque[_Call] = deque()
        self.lost: asyncio.Future[str] = loop.create_future()

    def send(self, call: _Call) -> None:
        script = call.script
        if script is not None and script.sha not in self._loads:
            # Before its first call, not after a NOSCRIPT: what is sent meanwhile would overtake the call.
            self._loads[script.sha] = load = self.command("SCRIPT", "LOAD", script.source)
            load.add_done_callback(lambda answer: answer.exception())  # the calls behind it get their own
        call.timeout_at_s = self._loop.time() + self._timeout_s
        self.waiting.append(call)
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(call.packed)
        if self._timer is None:
            self._timer = self._loop.call_at(call.timeout_at_s, self._check_oldest, call.timeout_at_s)

    def command(self, *words: Argument) -> asyncio.Future[Any]:
        """One command that is not a script."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.lost.done():
            answer.set_exception(RedisUnavailable(self.lost.result(), sent=False))
        else:
            self.send(_Call(_pack(*words), answer, None))
        return answer

    def close(self, reason: str) -> None:
        """Give the connection up and tell every caller; posts stay in ``waiting`` for another one."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        for call in self.waiting:
            if call.answer is not None and not call.answer.done():
                call.answer.set_exception(RedisUnavailable(reason, sent=True))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while not self.lost.done() and (reply := self._reader.gets()) is not _NOTHING:
                if not self.waiting:
                    self.close("the server sent an answer that nobody asked for")
                elif isinstance(reply, hiredis.ReplyError):
                    self._answer_error(self.waiting.popleft(), str(reply))
                else:
                    answer = self.waiting.popleft().answer
                    if answer is not None and not answer.done():
                        answer.set_result(reply)
        except hiredis.ProtocolError:
            self.close("the server does not speak the Redis protocol")

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(f"connection lost: {exc}" if exc else "the server closed the connection")

    def _flush(self) -> None:
        # What the transport has to hold is bounded by the calls in flight and their timeout.
        if self._transport is not None and not self.lost.done():
            self._transport.write(b"".join(self._unsent))
        self._unsent = []

    def _answer_error(self, call: _Call, text: str) -> None:
        if text.startswith("NOSCRIPT") and call.script is not None and not call.resent:
            if self._loads[call.script.sha].done():  # else it is on its way, after this call
                del self._loads[call.script.sha]
            call.resent = True
            self.send(call)
            return
        if call.answer is None:
            self._on_post_refused()
        elif not call.answer.done():
            call.answer.set_exception(RedisReplyError(text))
        if text.startswith(_UNFIT):
            self.close(text)

    def _check_oldest(self, due_s: float) -> None:
        """One timer serves all calls: their timeouts are alike, so the oldest is due first."""
        self._timer = None
        if not self.waiting:
            return
        now_s = self._loop.time()
        next_s = self.waiting[0].timeout_at_s
        if now_s >= next_s:
            if now_s - due_s < LOOP_LATE_S:
                self.close(f"no answer within {self._timeout_s * 1000:.0f} ms")
                return
            # It was this loop that stood still: the answers may lie unread in the socket.
            next_s = now_s + LOOP_LATE_S
        self._timer = self._loop.call_at(next_s, self._check_oldest, next_s)


class RedisClient:
    """Calls and posts of scripts to one server; reconnects by itself.

    ``on_state(up, reason)`` is called once for each change, and after the first attempt. It must not raise.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S, on_state: OnState | None = None) -> None:
        self._address = Address.parse(url)
        self._tls = ssl.create_default_context(cafile=self._address.tls_ca_file) if self._address.tls else None
        self._timeout_s = timeout_s
        self._on_state = on_state
        self._posts: deque[_Call] = deque()
        self.posts_dropped = 0
        """Posts given up: too many, too old, or refused by the server."""
        self._loop: asyncio.AbstractEventLoop
        self._connection: _Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._reported: bool | None = None
        self._reason = "not started"

    @property
    def up(self) -> bool:
        return self._connection is not None and not self._connection.lost.done()

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> asyncio.Future[Any]:
        """The script's answer. RedisUnavailable is raised here if there is no connection, else by the await."""
        connection = self._connection
        if connection is None or connection.lost.done():
            raise RedisUnavailable(self._reason, sent=False)
        if len(connection.waiting) >= IN_FLIGHT_MAX:
            raise RedisUnavailable(f"{IN_FLIGHT_MAX} calls are in flight", sent=False)
        answer: asyncio.Future[Any] = self._loop.create_future()
        connection.send(_Call(script.pack(keys, args), answer, script))
        return answer

    def post(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> None:
        """Run the script some time, in the order of calls and posts; nobody waits for the answer.

        It may be executed twice (after a lost connection) or, past the bounds, never.
        """
        post = _Call(script.pack(keys, args), None, script)
        post.made_s = time.monotonic()
        connection = self._connection
        if connection is None or connection.lost.done():
            self._keep([post])
        elif len(connection.waiting) >= IN_FLIGHT_MAX:
            self._drop_post()
        else:
            connection.send(post)

    async def start(self) -> None:
        """Begin to connect; returns after the first attempt, whatever came of it."""
        self._loop = asyncio.get_running_loop()
        self._keeper = asyncio.create_task(self._stay_connected(), name="redis connection")
        await self._tried.wait()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until every post has been answered; False if that took longer than ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._has_posts():  # noqa: ASYNC110 - asked at shutdown only: not worth an event
                    await asyncio.sleep(DRAIN_LOOK_EVERY_S)
        except TimeoutError:
            return False
        return True

    async def close(self, drain_s: float = 1.0) -> None:
        if self._keeper is None:
            return
        await self.drain(drain_s)
        self._keeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeper
        self._keeper = None
        if self._connection is not None:
            self._lose(self._connection, "closed")
            await asyncio.sleep(0)  # lets the transport close its socket

    def __repr__(self) -> str:
        in_flight = len(self._connection.waiting) if self._connection else 0
        state = "up" if self.up else f"down: {self._reason}"
        return (
            f"RedisClient({self._address!r}, {state}, in flight {in_flight}, "
            f"posts kept {len(self._posts)}, posts dropped {self.posts_dropped})"
        )

    async def _stay_connected(self) -> None:
        backoff_s = BACKOFF_S_MIN
        while True:
            try:
                connection = await self._connect()
            except (OSError, ValueError, RedisError) as error:  # ValueError: a name that is no host's
                self._reason = str(error) or type(error).__name__
            else:
                since_s = self._loop.time()
                self._adopt(connection)
                self._lose(connection, await self._watch(connection))
                if self._loop.time() - since_s > BACKOFF_S_MAX:
                    backoff_s = BACKOFF_S_MIN
            self._tried.set()
            self._report(up=False)
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
            backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)

    async def _connect(self) -> _Connection:
        """A connection that has proved able to serve."""
        address = self._address
        connection = _Connection(self._loop, self._timeout_s, self._drop_post)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if address.path is not None:
                await self._loop.create_unix_connection(lambda: connection, address.path)
            else:
                host, port = address.host, address.port
                await self._loop.create_connection(lambda: connection, host, port, ssl=self._tls)
        try:
            await self._greet(connection)
        except BaseException as error:
            connection.close(str(error))
            raise
        return connection

    async def _greet(self, connection: _Connection) -> None:
        address = self._address
        if address.password is not None:
            user = () if address.username is None else (address.username,)
            await connection.command("AUTH", *user, address.password)
        with suppress(RedisReplyError):  # proxies and narrow users may not know or be allowed these two
            await connection.command("CLIENT", "SETNAME", "headgate")
            role = await connection.command("ROLE")
            if isinstance(role, list) and role[0] == b"slave":
                raise RedisUnavailable("the server is a replica", sent=False)
        if address.database:
            await connection.command("SELECT", address.database)
        await connection.command("PING")

    async def _watch(self, connection: _Connection) -> str:
        """Why the connection was lost, once it is. The probes find that out before a request has to."""
        while not connection.lost.done():
            await asyncio.wait((connection.lost,), timeout=PROBE_EVERY_S)
            if not connection.lost.done():
                with suppress(RedisError):
                    await connection.command("PING")
        return connection.lost.result()

    def _adopt(self, connection: _Connection) -> None:
        """Serve through ``connection``; what was kept goes first."""
        oldest_s = time.monotonic() - POST_AGE_S_MAX
        while self._posts:
            post = self._posts.popleft()
            if post.made_s >= oldest_s:
                post.resent = False
                connection.send(post)
            else:
                self._drop_post()
        self._connection = connection
        self._tried.set()
        self._reason = f"connected to {self._address!r}"
        self._report(up=True)

    def _lose(self, connection: _Connection, reason: str) -> None:
        connection.close(reason)
        self._connection = None
        self._reason = reason
        # Posts made since the connection broke are younger than those it still owed an answer.
        younger = list(self._posts)
        self._posts.clear()
        self._keep([*(call for call in connection.waiting if call.answer is None), *younger])

    def _keep(self, posts: Sequence[_Call]) -> None:
        self._posts.extend(posts)
        while len(self._posts) > POSTS_MAX:
            self._posts.popleft()
            self._drop_post()

    def _drop_post(self) -> None:
        self.posts_dropped += 1

    def _has_posts(self) -> bool:
        in_flight = self._connection.waiting if self._connection else ()
        return bool(self._posts) or any(call.answer is None for call in in_flight)

    def _report(self, *, up: bool) -> None:
        if up is not self._reported:
            self._reported = up
            if self._on_state is not None:
                self._on_state(up, self._reason)
