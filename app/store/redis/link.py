"""A connection to one server that is made again whenever it is lost, and the posts that wait for it."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from app.store.redis.address import Address, tls_context
from app.store.redis.calls import Call, Outcomes, Post, RedisError, RedisReplyError, RedisUnavailable
from app.store.redis.connection import Connection, Redirect
from app.store.redis.protocol import OnState

CONNECT_TIMEOUT_S = 2.0
PROBE_EVERY_S = 1.0
BACKOFF_S_MIN = 0.02
BACKOFF_S_MAX = 1.0
DRAIN_LOOK_EVERY_S = 0.01
IN_FLIGHT_MAX = 10_000
POSTS_MAX = 5_000
POST_AGE_S_MAX = 60.0
POSTS_AT_ONCE = 500
"""Of those kept: more of them might not be answered within one timeout."""


class Locator(Protocol):
    """Says where the server is at the moment. ``strict``: that it is a master has to be proved."""

    @property
    def strict(self) -> bool: ...

    @property
    def tls(self) -> ssl.SSLContext | None: ...

    async def locate(self) -> Address:
        """OSError, ValueError or RedisError if nobody knows."""
        ...

    async def objection(self, address: Address) -> str | None:
        """Why the server is no longer there, if it is not."""
        ...

    def close(self) -> None: ...


class FixedLocator:
    """A server that is always in the same place."""

    strict = False

    def __init__(self, address: Address, tls: ssl.SSLContext | None = None) -> None:
        self._address = address
        self.tls = tls or tls_context(tls=address.tls, ca_file=address.tls_ca_file)

    async def locate(self) -> Address:
        return self._address

    async def objection(self, address: Address) -> str | None:  # noqa: ARG002 - there is no other
        return None

    def close(self) -> None:
        """Nothing is open."""

    def __repr__(self) -> str:
        return repr(self._address)


class Link:
    """Calls and posts to one server; reconnects by itself. ``redirect`` is for nodes of a cluster.

    ``on_state(up, reason)`` is called once for each change, and after the first attempt. It must not raise.
    """

    def __init__(
        self,
        locator: Locator,
        outcomes: Outcomes,
        *,
        timeout_s: float,
        on_state: OnState | None,
        redirect: Redirect | None = None,
    ) -> None:
        self._locator = locator
        self._outcomes = outcomes
        self._timeout_s = timeout_s
        self._on_state = on_state
        self._redirect = redirect
        self._posts: deque[Post] = deque()
        self._loop: asyncio.AbstractEventLoop
        self._address: Address
        self._connection: Connection | None = None
        self._incoming: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self._tried = asyncio.Event()
        self._reported: bool | None = None
        self._reason = "not started"

    @property
    def up(self) -> bool:
        return self._connection is not None and not self._connection.lost.done()

    @property
    def run_id(self) -> str | None:
        """Which run of which server is connected now."""
        connection = self._connection
        return None if connection is None or connection.lost.done() else connection.run_id

    @property
    def begun(self) -> bool:
        return self._keeper is not None

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def reason(self) -> str:
        return self._reason

    @property
    def in_flight(self) -> int:
        return sum(len(connection.waiting) for connection in self._connections)

    @property
    def kept(self) -> int:
        return len(self._posts)

    @property
    def has_posts(self) -> bool:
        return bool(self._posts) or any(
            isinstance(call, Post) for connection in self._connections for call in connection.waiting
        )

    def connection(self) -> Connection:
        """The connection, if it can take one more call now; else RedisUnavailable."""
        connection = self._connection
        if connection is None or connection.lost.done():
            raise RedisUnavailable(self._reason, sent=False)
        if len(connection.waiting) >= IN_FLIGHT_MAX:
            raise RedisUnavailable(f"{IN_FLIGHT_MAX} calls are in flight", sent=False)
        return connection

    def send_post(self, post: Post) -> None:
        """Send it, or keep it until there is a connection."""
        connection = self._connection
        if self._closed:
            self._outcomes.given_up(post)
        elif connection is None or connection.lost.done():
            self._keep([post])
        elif len(connection.waiting) >= IN_FLIGHT_MAX:
            self._outcomes.given_up(post)
        else:
            connection.send(post)

    def take_posts(self) -> list[Post]:
        """What was kept, for somebody else to send."""
        posts = list(self._posts)
        self._posts.clear()
        return posts

    def begin(self) -> None:
        """Connect, and stay connected; ``tried`` waits for the first attempt."""
        self._loop = asyncio.get_running_loop()
        self._keeper = asyncio.create_task(self._stay_connected(), name="redis connection")

    async def tried(self) -> None:
        await self._tried.wait()

    async def end(self) -> list[Post]:
        """Close without waiting for anything; the posts that were not answered."""
        self._closed = True
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait((keeper,))  # awaited itself, its cancellation would look like ours
        for connection in self._connections:
            self._lose(connection, "closed")
        self._locator.close()
        await asyncio.sleep(0)  # lets the transports close their sockets
        self._reason = "closed"
        return self.take_posts()

    async def _stay_connected(self) -> None:
        backoff_s = BACKOFF_S_MIN
        while True:
            try:
                connection = await self._connect()
            except (OSError, ValueError, RedisError) as error:  # ValueError: a name that is no host's
                self._reason = str(error) or type(error).__name__
            else:
                since_s = self._loop.time()
                await self._adopt(connection)
                self._lose(connection, await self._watch(connection))
                if self._loop.time() - since_s > BACKOFF_S_MAX:
                    backoff_s = BACKOFF_S_MIN
            self._tried.set()
            self._report(up=False)
            self._give_up_old()
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
            backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)

    async def _connect(self) -> Connection:
        """A connection that has proved able to serve."""
        address = await self._locator.locate()
        self._address = address
        connection = Connection(self._loop, self._timeout_s, self._outcomes, self._redirect)
        await connection.open(address, self._locator.tls, CONNECT_TIMEOUT_S)
        try:
            await self._greet(connection, address.database)
        except BaseException as error:
            connection.close(str(error))
            raise
        self._reason = f"connected to {address!r}"
        return connection

    async def _greet(self, connection: Connection, database: int) -> None:
        with suppress(RedisReplyError):  # proxies and narrow users may not know or be allowed it
            await connection.command("CLIENT", "SETNAME", "headgate")
        await self._prove_role(connection)
        if database:
            await connection.command("SELECT", database)
        connection.run_id = _run_id(await connection.command("INFO", "server"))
        await connection.command("PING")

    async def _prove_role(self, connection: Connection) -> None:
        """RedisUnavailable if the server is not the one to write to."""
        role = None
        with suppress(RedisReplyError):  # as above
            answer = await connection.command("ROLE")
            role = answer[0] if isinstance(answer, list) and answer else None
        if role == b"slave":
            raise RedisUnavailable("the server is a replica", sent=False)
        if role == b"sentinel":
            raise RedisUnavailable("the server is a sentinel: its URL starts with redis+sentinel://", sent=False)
        if self._locator.strict and role != b"master":
            raise RedisUnavailable("the server does not say that it is a master", sent=False)

    async def _watch(self, connection: Connection) -> str:
        """Why the connection was lost, once it is. The probes find that out before a request has to."""
        while not connection.lost.done():
            await asyncio.wait((connection.lost,), timeout=PROBE_EVERY_S)
            if not connection.lost.done():
                await self._probe(connection)
        return connection.lost.result()

    async def _probe(self, connection: Connection) -> None:
        try:
            if self._locator.strict:
                await self._prove_role(connection)
                if (objection := await self._locator.objection(self._address)) is not None:
                    connection.close(objection)
            else:
                await connection.command("PING")
        except RedisUnavailable as error:
            connection.close(str(error))
        except RedisReplyError:  # it answers, and what it cannot do its callers hear themselves
            return

    async def _adopt(self, connection: Connection) -> None:
        """Serve through ``connection``; what was kept goes first, so that what is made meanwhile is kept too."""
        self._incoming = connection
        self._give_up_old()
        while len(self._posts) > POSTS_AT_ONCE and not connection.lost.done():
            self._send_kept(connection)
            with suppress(RedisError):  # if it is lost, they are kept again
                await connection.command("PING")
        if not connection.lost.done():
            self._send_kept(connection)
            self._connection, self._incoming = connection, None
            self._tried.set()
            self._report(up=True)

    def _send_kept(self, connection: Connection) -> None:
        for _ in range(min(len(self._posts), POSTS_AT_ONCE)):
            post = self._posts.popleft()
            post.resent = False
            connection.send(post)

    @property
    def _connections(self) -> list[Connection]:
        """The one that serves, or the one that is still being told what was kept."""
        return [connection for connection in (self._connection, self._incoming) if connection is not None]

    def _lose(self, connection: Connection, reason: str) -> None:
        connection.close(reason)
        self._connection = self._incoming = None
        self._reason = reason
        # Posts made since the connection broke are younger than those it still owed an answer.
        younger = list(self._posts)
        self._posts.clear()
        self._keep([*(call for call in connection.waiting if isinstance(call, Post)), *younger])

    def _keep(self, posts: Sequence[Post]) -> None:
        self._posts.extend(posts)
        while len(self._posts) > POSTS_MAX:
            self._outcomes.given_up(self._posts.popleft())

    def _give_up_old(self) -> None:
        oldest_s = time.monotonic() - POST_AGE_S_MAX
        while self._posts and self._posts[0].made_s < oldest_s:
            self._outcomes.given_up(self._posts.popleft())

    def _report(self, *, up: bool) -> None:
        if up is not self._reported:
            self._reported = up
            if self._on_state is not None:
                self._on_state(up, self._reason)


async def drained(has_posts: Callable[[], bool], timeout_s: float) -> bool:
    """Whether ``has_posts`` turned false within ``timeout_s``."""
    try:
        async with asyncio.timeout(timeout_s):
            while has_posts():  # noqa: ASYNC110 - asked at shutdown only: not worth an event
                await asyncio.sleep(DRAIN_LOOK_EVERY_S)
    except TimeoutError:
        return False
    return True


def fail(call: Call, error: RedisError) -> None:
    """Tell the caller, if there still is one."""
    if call.answer is not None and not call.answer.done():
        call.answer.set_exception(error)


def _run_id(info: Any) -> str:
    """From INFO server. Without it a restart would pass unnoticed, and a limit would be forgotten silently."""
    if isinstance(info, bytes):
        for line in info.splitlines():
            if line.startswith(b"run_id:"):
                return line.removeprefix(b"run_id:").decode()
    raise RedisUnavailable("INFO server tells no run_id", sent=False)
