"""A channel of Redis, listened to on a connection of its own that is made again whenever it is lost.

What is published while there is none is not heard: ``on_up`` says from when on it is. In a cluster every node passes
on what is published at any of them.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import hiredis

from app.store.redis.address import Address, ClusterAddress, Host, SentinelAddress, parse_url, tls_context
from app.store.redis.calls import RedisError, RedisReplyError
from app.store.redis.connection import NOTHING, Connection
from app.store.redis.link import BACKOFF_S_MAX, BACKOFF_S_MIN, CONNECT_TIMEOUT_S, PROBE_EVERY_S, FixedLocator, Locator
from app.store.redis.sentinel import SentinelLocator

TIMEOUT_S = 1.0
"""For the answer to a probe: nobody waits for what is heard here."""

OnMessage = Callable[[bytes], None]


class SeedLocator:
    """The nodes of a cluster that its URL names, by turns."""

    strict = False

    def __init__(self, address: ClusterAddress) -> None:
        self._address = address
        self._seeds: deque[Host] = deque(address.seeds)
        self.tls = tls_context(tls=address.tls, ca_file=address.tls_ca_file)

    def __repr__(self) -> str:
        return repr(self._address)

    async def locate(self) -> Address:
        self._seeds.rotate(-1)
        return self._address.node_at(self._seeds[0])

    async def objection(self, address: Address) -> str | None:  # noqa: ARG002 - any node will do
        return None

    def close(self) -> None:
        """Nothing is open."""


class Subscription:
    """Listens from ``start`` to ``close``. ``on_message`` is given what is published and must not raise; ``on_up`` is
    called each time that it is heard from now on. May be started again.
    """

    def __init__(self, url: str, channel: str, *, on_message: OnMessage, on_up: Callable[[], None]) -> None:
        """Raises ValueError, without the URL, if that is none."""
        self._locator = _locator(url)
        self._channel = channel
        self._on_message = on_message
        self._on_up = on_up
        self._up = False
        self._reason = "not started"
        self._keeper: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Subscription({self._locator!r}, {'up' if self._up else f'down: {self._reason}'})"

    @property
    def up(self) -> bool:
        """Whether what is published is heard."""
        return self._up

    def start(self) -> None:
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._stay_subscribed(), name="redis subscription")

    def stop(self) -> asyncio.Task[None] | None:
        """Stop listening; what ends is returned, for whoever wants to wait for it."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
        self._locator.close()
        self._up = False
        self._reason = "stopped"
        return keeper

    async def close(self) -> None:
        keeper = self.stop()
        if keeper is not None:
            await asyncio.wait((keeper,))
        await asyncio.sleep(0)  # lets the transport close its socket

    async def _stay_subscribed(self) -> None:
        backoff_s = BACKOFF_S_MIN
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            try:
                await self._listen(loop)
            except (OSError, ValueError, RedisError) as error:  # ValueError: a name that is no host's
                self._reason = str(error) or type(error).__name__
            if loop.time() - began_s > BACKOFF_S_MAX:
                backoff_s = BACKOFF_S_MIN
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
            backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until the connection is lost."""
        address = await self._locator.locate()
        connection = _Subscribed(loop, self._on_message)
        try:
            await connection.open(address, self._locator.tls, CONNECT_TIMEOUT_S)
            with suppress(RedisReplyError):  # proxies and narrow users may not know or be allowed it
                await connection.command("CLIENT", "SETNAME", "headgate")
            await connection.command("SUBSCRIBE", self._channel)
            self._up = True
            self._on_up()
            while not connection.lost.done():
                await asyncio.wait((connection.lost,), timeout=PROBE_EVERY_S)
                if not connection.lost.done():
                    await connection.command("PING")
                    objection = await self._locator.objection(address)
                    if objection is not None:
                        connection.close(objection)
            self._reason = connection.lost.result()
        finally:
            self._up = False
            connection.close("stopped")


class _Subscribed(Connection):
    """A connection on which messages come between the answers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_message: OnMessage) -> None:
        super().__init__(loop, TIMEOUT_S)
        self._on_message = on_message

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while not self.lost.done() and (reply := self._reader.gets()) is not NOTHING:
                if isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
                    self._on_message(reply[2])
                elif not self.waiting:
                    self.close("the server sent an answer that nobody asked for")
                elif isinstance(reply, hiredis.ReplyError):
                    self._answer_error(self.waiting.popleft(), str(reply))
                else:
                    answer = self.waiting.popleft().answer
                    if answer is not None and not answer.done():
                        answer.set_result(reply)
        except hiredis.ProtocolError:
            self.close("the server does not speak the Redis protocol")


def _locator(url: str) -> Locator:
    address = parse_url(url)
    if isinstance(address, SentinelAddress):
        return SentinelLocator(address)
    return SeedLocator(address) if isinstance(address, ClusterAddress) else FixedLocator(address)
