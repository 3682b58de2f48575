"""Whose request it is, as an address: the peer's, or what a trusted proxy says."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from app.core.errors import Headers

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Peers:
    """Believes ``x-forwarded-for`` only of the configured proxies, and then from its end on."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted: tuple[Network, ...] = ()
        self.trust(trusted)

    def __repr__(self) -> str:
        return f"Peers(trusted={[str(network) for network in self._trusted]})"

    def trust(self, trusted: Sequence[str]) -> None:
        """From now on these proxies and no others."""
        self._trusted = tuple(ipaddress.ip_network(text, strict=False) for text in trusted)

    def address(self, client: tuple[str, int] | None, headers: Headers) -> str:
        """The nearest address that is not a trusted proxy; "" for a local socket."""
        peer = client[0] if client else ""
        if not self._trusted or not self.is_trusted(peer):
            return peer
        hops = [
            hop.strip()
            for name, value in headers
            if name == b"x-forwarded-for"
            for hop in value.decode("latin-1").split(",")
        ]
        for text in reversed(hops):
            hop = _address_in(text)
            if hop is None:
                return peer
            if not self.is_trusted(hop):
                return hop
            peer = hop
        return peer

    def is_trusted(self, address: str) -> bool:
        """Whether ``address`` is one of the configured proxies."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)


def _address_in(hop: str) -> str | None:
    """The address of a hop, which some proxies write with its port: 10.0.0.7:5555, [2001:db8::7]:5555."""
    host = hop.rpartition(":")[0] if hop.count(":") == 1 or "]:" in hop else hop
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None
