"""The cache of one process: entries as they are, the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush

from app.cache.entry import Address, Entry, Look
from app.core.clock import Clock

LEASE_S = 1.5
"""A lease that is not renewed ends after this: so long do others wait for somebody who died at work."""
OVERHEAD_BYTES = 1536
"""What an entry takes besides its body, headers and usage: 1.4 KB were measured where it shares no text with others,
all that is kept to find it included."""
HEADER_OVERHEAD_BYTES = 136
"""Of each header: a tuple and two objects."""
SWEPT_AT_ONCE = 8
_STALE_EXPIRIES_MIN = 1024


class MemoryStore:
    """``CacheStore`` in memory. ``bytes_max`` bounds what the entries take, as ``size_of`` estimates it.

    No method waits for anything. Leases are between the requests of this process.
    """

    def __init__(self, clock: Clock, bytes_max: int) -> None:
        self._clock = clock
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: OrderedDict[Address, Entry] = OrderedDict()
        # Times of expiry and what may expire then. It may have been replaced or evicted meanwhile.
        self._expiries: list[tuple[int, bytes, str]] = []
        # All leases are equally long: in the order in which they were given or renewed, they end.
        self._leases: OrderedDict[Address, tuple[str, float]] = OrderedDict()

    def __repr__(self) -> str:
        return (
            f"MemoryStore({len(self._entries)} entries, {self._bytes} of {self._bytes_max} bytes, "
            f"{len(self._leases)} leases)"
        )

    @property
    def entries(self) -> int:
        """How many there are. Expired ones count until they are swept, a few with each miss and each keep."""
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """What they take, as ``size_of`` estimates it."""
        return self._bytes

    async def look(self, address: Address, *, also: str = "", token: str = "", lease_only: bool = False) -> Look:
        now_ms = self._clock.now_ms()
        if not lease_only:
            entry = self._find(address, now_ms)
            if entry is not None:
                return Look(entry, address.form)
            if also:
                entry = self._find(Address(address.digest, also), now_ms)
                if entry is not None:
                    return Look(entry, also)
        self._sweep(now_ms)
        return Look(holder=self._lease(address, token)) if token else Look()

    def keep(
        self, address: Address, entry: Entry, *, token: str = "", derived: tuple[Address, Entry | None] | None = None
    ) -> None:
        now_ms = self._clock.now_ms()
        self._sweep(now_ms)
        self._put(address, entry, now_ms)
        if derived is not None:
            other, told_otherwise = derived
            if told_otherwise is None:
                self._drop(other)
            else:
                self._put(other, told_otherwise, now_ms)
        self._evict()
        if token:
            self.release(address, token)

    def renew(self, address: Address, token: str) -> None:
        self._lease(address, token)

    def release(self, address: Address, token: str) -> None:
        lease = self._leases.get(address)
        if lease is not None and lease[0] == token:
            del self._leases[address]

    def resize(self, bytes_max: int) -> None:
        """From now on the entries may take so much; what is too much goes at once."""
        self._bytes_max = bytes_max
        self._evict()

    async def close(self) -> None:
        self._entries.clear()
        self._expiries.clear()
        self._leases.clear()
        self._bytes = 0

    # -- entries --------------------------------------------------------------------------------

    def _find(self, address: Address, now_ms: int) -> Entry | None:
        entry = self._entries.get(address)
        if entry is None:
            return None
        if entry.expires_at_ms <= now_ms:
            self._drop(address)
            return None
        self._entries.move_to_end(address)
        return entry

    def _put(self, address: Address, entry: Entry, now_ms: int) -> None:
        """In the place of what is there, which goes in any case."""
        self._drop(address)
        size = size_of(entry)
        if size > self._bytes_max or entry.expires_at_ms <= now_ms:
            return
        self._entries[address] = entry
        self._bytes += size
        heappush(self._expiries, (entry.expires_at_ms, address.digest, address.form))
        if len(self._expiries) > 2 * len(self._entries) + _STALE_EXPIRIES_MIN:
            self._expiries = [(kept.expires_at_ms, where.digest, where.form) for where, kept in self._entries.items()]
            heapify(self._expiries)

    def _drop(self, address: Address) -> None:
        entry = self._entries.pop(address, None)
        if entry is not None:
            self._bytes -= size_of(entry)

    def _evict(self) -> None:
        while self._entries and self._bytes > self._bytes_max:
            _, entry = self._entries.popitem(last=False)
            self._bytes -= size_of(entry)

    def _sweep(self, now_ms: int) -> None:
        """Drop some of what has expired: more than one keep can add."""
        expiries = self._expiries
        for _ in range(SWEPT_AT_ONCE):
            if not expiries or expiries[0][0] > now_ms:
                return
            _, digest, form = heappop(expiries)
            address = Address(digest, form)
            entry = self._entries.get(address)
            if entry is not None and entry.expires_at_ms <= now_ms:
                self._drop(address)

    # -- leases ---------------------------------------------------------------------------------

    def _lease(self, address: Address, token: str) -> str:
        """Who has the lease now: ``token``, for another while, unless somebody else has it."""
        now_s = self._clock.monotonic_s()
        holder = self._holder(address, now_s)
        if holder not in {"", token}:
            return holder
        self._leases[address] = (token, now_s + LEASE_S)
        self._leases.move_to_end(address)
        return token

    def _holder(self, address: Address, now_s: float) -> str:
        """Who has the lease, "" if nobody; leases that have ended are forgotten."""
        leases = self._leases
        while leases and next(iter(leases.values()))[1] <= now_s:
            leases.popitem(last=False)
        lease = leases.get(address)
        return "" if lease is None else lease[0]


def size_of(entry: Entry) -> int:
    """What it takes in memory, in bytes: what is large in it exactly, the rest by a flat rate."""
    headers = sum(len(name) + len(value) + HEADER_OVERHEAD_BYTES for name, value in entry.headers)
    return len(entry.body) + headers + len(entry.usage_raw or "") + len(entry.tool_usage or "") + OVERHEAD_BYTES
