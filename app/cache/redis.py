"""The cache shared through Redis. What it cannot do, it does not: an entry is lost, and its call made again.

The keys of a request share a slot of a cluster, those of a team do not.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from app.cache.entry import Address, Entry, Look
from app.cache.memory import LEASE_S
from app.cache.packing import pack, unpack
from app.core.clock import Clock
from app.store.redis import Argument, Redis, RedisError, Script

LEASE_MS = int(LEASE_S * 1000)
BODY_BYTES_MAX = 4 * 1024 * 1024
"""What is larger is not kept: packing takes 6.5 ms per MB on the event loop, and the server, which the limits may
share, nothing else while it is told or tells a value."""
UNANSWERED_BYTES_MAX = 4 * 1024 * 1024
"""Of values on their way; what is to be kept beyond that is lost. A busy loop writes 200 KB a turn, and what is sent
behind them has to be answered within the client's timeout."""
ROOM_SHARE = 0.8
"""The share of a server's ``maxmemory`` that may be in use, by whatever it is, for entries to be kept."""
ROOM_EVERY_S = 2.0
NODES_MAX = 1_000
CLOSE_S = 0.5

_KEY_OVERHEAD_BYTES = 512
"""What a server needs for a key besides its value: 240 were measured with Valkey 9, 520 with Redis 7.0."""
_SCRIPTS = Path(__file__).with_name("scripts")


def _load(name: str) -> Script:
    return Script(f"cache_{name}", (_SCRIPTS / f"{name}.lua").read_text(encoding="utf-8"))


LOOK, KEEP, RENEW, RELEASE = map(_load, ("look", "keep", "renew", "release"))


class _Values(NamedTuple):
    """What is on its way to be kept: how many bytes, and where."""

    size: int
    keys: tuple[str, ...]


_NO_VALUES = _Values(0, ())


class RedisStore:
    """``CacheStore`` of any number of processes. The client is its owner's to start and to close.

    ``corrupt`` counts values that were found and not by us at that address; ``lost`` entries that were to be kept
    and are not, for whatever reason.

    What is told to it is sent at once, in order with the looks, and not sent again if the connection is lost: it is
    not worth keeping, and nothing of it may stand before a settlement.
    """

    def __init__(self, client: Redis, clock: Clock, secret: bytes) -> None:
        self._client = client
        self._clock = clock
        self._secret = secret
        self._guard = MemoryGuard(client)
        self._unanswered: dict[asyncio.Future[Any], _Values] = {}
        self._keeping: dict[str, asyncio.Future[Any]] = {}
        self._unanswered_bytes = 0
        self.corrupt = 0
        self.lost = 0

    def __repr__(self) -> str:
        return (
            f"RedisStore({self._client!r}, {self._guard!r}, unanswered {len(self._unanswered)}, "
            f"corrupt {self.corrupt}, lost {self.lost})"
        )

    def start(self) -> None:
        """Begin to watch how full the server is."""
        self._guard.start()

    async def look(self, address: Address, *, also: str = "", token: str = "", lease_only: bool = False) -> Look:
        """One round trip, and another one for each value that turns out to be no entry: at most two of them."""
        places: list[Address] = []
        if not lease_only:
            places = [address, Address(address.digest, also)] if also else [address]
        keys = [_key(place) for place in places]
        lease = _lease(_key(address))
        try:
            if self._keeping:
                await self._kept(keys)
            while keys or token:
                which, found = await self._client.call(LOOK, [lease, *keys], [token, LEASE_MS])
                if not which:
                    return Look(holder=found.decode(errors="replace") if found else "")
                there = places[which - 1]
                entry = self._read(found, there)
                if entry is not None:
                    return Look(entry, there.form)
                del places[:which], keys[:which]
        except RedisError:
            return Look(away=True)
        except asyncio.CancelledError:
            if token:  # it may have been given, and nobody would know
                self.release(address, token)
            raise
        return Look()

    def keep(
        self, address: Address, entry: Entry, *, token: str = "", derived: tuple[Address, Entry | None] | None = None
    ) -> None:
        key = _key(address)
        if not self._may_keep(key, entry):
            self.lost += 1
            if token:
                self.release(address, token)
            return
        keys = [key, _lease(key)]
        values = [pack(entry, address, self._secret)]
        args: list[Argument] = [token, values[0], self._ttl_ms(entry)]
        if derived is not None:
            other, told_otherwise = derived
            keys.append(_key(other))
            if told_otherwise is not None and len(told_otherwise.body) <= BODY_BYTES_MAX:
                values.append(pack(told_otherwise, other, self._secret))
                args += [values[1], self._ttl_ms(told_otherwise)]
        size = sum(len(value) + _KEY_OVERHEAD_BYTES for value in values)
        self._guard.took(key, size)
        self._send(KEEP, keys, args, _Values(size, (key, *keys[2:])))

    def renew(self, address: Address, token: str) -> None:
        # Sent again (the server forgot the script, the slot moved), it may be overtaken by its release: a lease that
        # nobody has is then there for as long as one lasts.
        self._send(RENEW, [_lease(_key(address))], [token, LEASE_MS])

    def release(self, address: Address, token: str) -> None:
        self._send(RELEASE, [_lease(_key(address))], [token])

    async def close(self) -> None:
        """Wait a moment for the answers to what was sent."""
        await self._guard.close()
        if self._unanswered:
            await asyncio.wait(list(self._unanswered), timeout=CLOSE_S)

    def _may_keep(self, key: str, entry: Entry) -> bool:
        return (
            len(entry.body) <= BODY_BYTES_MAX
            and self._unanswered_bytes < UNANSWERED_BYTES_MAX
            and self._guard.has_room(key)
        )

    def _read(self, value: bytes | None, address: Address) -> Entry | None:
        """The entry, if it is one, and not past its time: that another clock lets it live proves nothing."""
        entry = unpack(value, address, self._secret) if value is not None else None
        if entry is None:
            self.corrupt += 1
            return None
        return entry if entry.expires_at_ms > self._clock.now_ms() else None

    def _ttl_ms(self, entry: Entry) -> int:
        return max(1, entry.expires_at_ms - self._clock.now_ms())

    def _send(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument], values: _Values = _NO_VALUES
    ) -> None:
        try:
            answer = self._client.call(script, keys, args)
        except RedisError:
            self.lost += values.size > 0
            return
        self._unanswered[answer] = values
        self._unanswered_bytes += values.size
        self._keeping.update(dict.fromkeys(values.keys, answer))
        answer.add_done_callback(self._answered)

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        values = self._unanswered.pop(answer)
        self._unanswered_bytes -= values.size
        for key in values.keys:
            if self._keeping.get(key) is answer:
                del self._keeping[key]
        if answer.cancelled() or answer.exception() is not None:
            self.lost += values.size > 0

    async def _kept(self, keys: Sequence[str]) -> None:
        """Wait for values on their way to ``keys``: one that is sent again, since the server forgot its script or the
        slot moved, would be overtaken by the look.
        """
        answers = {answer for key in keys if (answer := self._keeping.get(key)) is not None}
        if answers:
            await asyncio.wait(answers)


class MemoryGuard:
    """Keeps entries from filling the server: when it is full, it refuses the limits' writes, and calls with them.

    Each server that gets entries is asked every ``ROOM_EVERY_S`` how full it is; between two answers this process
    counts what it sends itself. A server is known by its run, and asked by way of a key that it has: so it is in a
    cluster too.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._nodes: dict[str, _Node] = {}
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"MemoryGuard(room {[node.room_bytes for node in self._nodes.values()]})"

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="redis memory")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    def has_room(self, key: str) -> bool:
        """Whether an entry may be kept at ``key``; so it may where the server was not asked yet."""
        node = self._node(key)
        return node is None or node.room_bytes > 0

    def took(self, key: str, size: int) -> None:
        """``size`` bytes are sent to the server that has ``key``."""
        node = self._node(key)
        if node is not None:
            node.room_bytes -= size

    def _node(self, key: str) -> _Node | None:
        """The server that has ``key``, if there is a connection to it."""
        run_id = self._client.run_id_for(key)
        if run_id is None:
            return None
        node = self._nodes.get(run_id)
        if node is None and len(self._nodes) < NODES_MAX:
            node = self._nodes[run_id] = _Node(key)
        return node

    async def _watch(self) -> None:
        while True:
            self._node(_ANY_KEY)
            await asyncio.gather(*(self._ask(run_id, node) for run_id, node in list(self._nodes.items())))
            await asyncio.sleep(ROOM_EVERY_S)

    async def _ask(self, run_id: str, node: _Node) -> None:
        if self._client.run_id_for(node.key) != run_id:
            del self._nodes[run_id]  # if it is still there, the next keep finds it under another key
            return
        with suppress(RedisError):
            node.room_bytes = room_bytes(await self._client.command(node.key, "INFO", "memory"))


_ANY_KEY = "hg:cache"


@dataclass(slots=True)
class _Node:
    """One run of a server, and a key that it has."""

    key: str
    room_bytes: float = math.inf


def room_bytes(info: Any) -> float:
    """How much may be added, by what INFO memory says; infinite where the server has no limit or tells none."""
    told: dict[bytes, bytes] = {}
    if isinstance(info, bytes):
        told = {name: value for name, _, value in (line.partition(b":") for line in info.splitlines())}
    try:
        maximum, used = int(told[b"maxmemory"]), int(told[b"used_memory"])
    except (KeyError, ValueError):
        return math.inf
    return maximum * ROOM_SHARE - used if maximum > 0 else math.inf


def _key(address: Address) -> str:
    return f"hg:cache:{{{address.digest.hex()}}}:{address.form}"


def _lease(key: str) -> str:
    return f"{key}:lease"
