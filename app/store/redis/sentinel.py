"""Where a master is, as its sentinels say."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, NamedTuple

from app.store.redis.address import Address, Host, SentinelAddress, printed, tls_context
from app.store.redis.calls import RedisError, RedisUnavailable
from app.store.redis.connection import Connection

SENTINEL_CONNECT_TIMEOUT_S = 0.5
SENTINEL_ANSWER_TIMEOUT_S = 0.3
SENTINELS_MAX = 32


class Word(NamedTuple):
    """What one sentinel says. ``epoch`` goes up with every failover: a lower one is old news."""

    master: Host
    epoch: int


class SentinelLocator:
    """Asks the sentinels in turn, each time beginning with the next, so that one that is wrong is passed over.

    What they tell of each other is learnt. Each has to answer within a short time of its own. The connection
    to the last one that answered stays open, since it is asked again and again whether the master has changed:
    in an ordered failover the old one goes on taking writes for seconds, and none of them will be kept.
    """

    strict = True

    def __init__(self, address: SentinelAddress) -> None:
        self._address = address
        self._sentinels: deque[Host] = deque(address.sentinels)
        self._epoch = 0
        self._connection: Connection | None = None
        self._connected_to: Host | None = None
        self.tls = tls_context(tls=address.tls, ca_file=address.tls_ca_file)

    def __repr__(self) -> str:
        return repr(self._address)

    async def locate(self) -> Address:
        reasons = []
        outdated: list[Word] = []
        for _ in range(len(self._sentinels)):
            sentinel = self._sentinels[0]
            self._sentinels.rotate(-1)
            try:
                word = await self._ask(sentinel)
            except (OSError, ValueError, RedisError) as error:
                reasons.append(f"{printed(sentinel)}: {str(error) or type(error).__name__}")
                continue
            if word.epoch >= self._epoch:
                self._epoch = word.epoch
                return self._address.master_at(word.master)
            outdated.append(word)
        if not outdated:
            raise RedisUnavailable(f"no sentinel names the master ({'; '.join(reasons)})", sent=False)
        # All of them count from the beginning again: they were set up anew.
        word = max(outdated, key=lambda word: word.epoch)
        self._epoch = word.epoch
        return self._address.master_at(word.master)

    async def objection(self, address: Address) -> str | None:
        """Why ``address`` is no longer the master's; None if the sentinel asked last says that it is, or nothing."""
        try:
            word = await self._ask(self._sentinels[-1])
        except (OSError, ValueError, RedisError):
            self._sentinels.rotate(-1)
            return None
        if word.epoch < self._epoch or word.master == (address.host, address.port):
            return None
        self._epoch = word.epoch
        return f"the sentinels name {printed(word.master)} as the master now"

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close("closed")
            self._connection = None

    async def _ask(self, sentinel: Host) -> Word:
        connection = await self._connected(sentinel)
        master = self._address.master
        place = connection.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master)
        more = asyncio.gather(
            connection.command("SENTINEL", "MASTER", master),
            connection.command("SENTINEL", "SENTINELS", master),
            return_exceptions=True,
        )
        named = await place
        state, others = await more
        if not isinstance(named, list) or len(named) != 2:
            raise RedisUnavailable(f"it knows no master {master}", sent=False)
        for other in others if isinstance(others, list) else ():  # a narrow user may not be told
            self._learn(_named(other))
        return Word(_host(*named), int(_named(state).get(b"config-epoch", 0)))

    async def _connected(self, sentinel: Host) -> Connection:
        connection = self._connection
        if connection is not None and not connection.lost.done() and self._connected_to == sentinel:
            return connection
        self.close()
        connection = Connection(asyncio.get_running_loop(), SENTINEL_ANSWER_TIMEOUT_S)
        await connection.open(self._address.sentinel_at(sentinel), self.tls, SENTINEL_CONNECT_TIMEOUT_S)
        self._connection = connection
        self._connected_to = sentinel
        return connection

    def _learn(self, sentinel: dict[bytes, bytes]) -> None:
        if b"ip" in sentinel and b"port" in sentinel and len(self._sentinels) < SENTINELS_MAX:
            host = _host(sentinel[b"ip"], sentinel[b"port"])
            if host not in self._sentinels:
                self._sentinels.appendleft(host)


def _named(flat: Any) -> dict[bytes, bytes]:
    """Names and values by turns, as sentinels print what they know."""
    return dict(zip(flat[::2], flat[1::2], strict=False)) if isinstance(flat, list) else {}


def _host(name: bytes, port: bytes) -> Host:
    return name.decode(), int(port)
