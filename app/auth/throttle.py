"""How often an address may be wrong before it has to wait."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

from app.core.clock import Clock

PEERS_MAX = 10_000
HOST_BITS = 64


class FailureThrottle:
    """Counts failures by address and minute. A trusted proxy is nobody's address, nor is a local socket. Of IPv6
    the first 64 bits count: whoever has one address of a network has all of it.
    """

    def __init__(
        self, clock: Clock, *, per_minute: int, is_trusted_proxy: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._clock = clock
        self._per_minute = per_minute
        self._is_trusted_proxy = is_trusted_proxy
        self._failures: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def __repr__(self) -> str:
        return f"FailureThrottle(per_minute={self._per_minute}, peers={len(self._failures)})"

    def failed(self, peer: str) -> bool:
        """Count a failure; True where this peer has had too many this minute."""
        if not peer or self._is_trusted_proxy(peer):
            return False
        minute, peer = self._minute(), _network_of(peer)
        seen, count = self._failures.get(peer, (minute, 0))
        count = count + 1 if seen == minute else 1
        self._failures[peer] = (minute, count)
        self._failures.move_to_end(peer)
        if len(self._failures) > PEERS_MAX:
            self._failures.popitem(last=False)
        return count > self._per_minute

    def is_over(self, peer: str) -> bool:
        """Whether this peer has had too many this minute."""
        if not self._failures:
            return False
        minute, count = self._failures.get(_network_of(peer), (0, 0))
        return count > self._per_minute and minute == self._minute()

    @property
    def over_in_ms(self) -> int:
        """When the next minute begins."""
        return 60_000 - self._clock.now_ms() % 60_000

    def _minute(self) -> int:
        return self._clock.now_ms() // 60_000


def _network_of(peer: str) -> str:
    if ":" not in peer:
        return peer
    try:
        address = ipaddress.IPv6Address(peer)
    except ValueError:
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> HOST_BITS << HOST_BITS, 128 - HOST_BITS)))
