"""Whose request it is, behind proxies that are believed."""

from __future__ import annotations

import pytest

from app.edge.peers import Peers

PROXIES = ["10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:5555", "203.0.113.9"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:5555", "2001:db8::7"),
        ("2001:0DB8::0007", "2001:db8::7"),
        ("1.2.3.4, 203.0.113.9, 10.0.0.2:80", "203.0.113.9"),
        ("1.2.3.4, [fd00::1]:443", "1.2.3.4"),
        ("unknown", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("203.0.113.9, _hidden", "10.0.0.1"),
        ("[203.0.113.9", "10.0.0.1"),
        ("203.0.113.9, 10.0.0.2, x", "10.0.0.1"),
    ],
)
def test_what_a_trusted_proxy_says(said, address):
    """Some write the port behind the address."""
    peers = Peers(PROXIES)
    assert peers.address(("10.0.0.1", 1), [(b"x-forwarded-for", said.encode())]) == address
    assert peers.address(("203.0.113.1", 1), [(b"x-forwarded-for", said.encode())]) == "203.0.113.1"
