"""HTTP proxies on the way to an upstream: which one is used, and the handshake with it.

An upstream with TLS is reached by a tunnel (CONNECT): its certificate is checked as ever, and the proxy sees names and
sizes alone. To one without, requests go in absolute form, and the proxy sees all of them.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

import msgspec

from app.settings import ProxySettings

HEAD_BYTES_MAX = 16 * 1024
"""Of a proxy's answer to CONNECT."""
READ_BYTES = 4096
STATUS_LINE = re.compile(rb"HTTP/1\.[01] 2[0-9]{2}[ \r]")
DEFAULT_PORT = 80


class ProxyRefused(ConnectionError):
    """The proxy was reached and made no tunnel. Nothing was sent to the upstream."""


class Proxy(msgspec.Struct, frozen=True):
    """Where it listens, and the value of ``proxy-authorization``, if it wants any."""

    host: str
    port: int
    authorization: bytes = b""

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port}{', with credentials' if self.authorization else ''})"


def proxy_of(settings: ProxySettings | None, base_url: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for an upstream; None where it is called directly. Raises ValueError for a variable that names none."""
    if settings is None:
        return None
    if settings.environment:
        return _of_environment(base_url, environ)
    parts = urlsplit(settings.url or "")
    password = "" if settings.password is None else settings.password.get_secret_value()
    return Proxy(parts.hostname or "", parts.port or DEFAULT_PORT, _basic(settings.user, password))


async def open_tunnel(loop: asyncio.AbstractEventLoop, one: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Has ``proxy`` connect the socket ``one`` on to the upstream. OSError: it does not; the socket is closed then."""
    place = b"%s:%d" % (f"[{host}]".encode() if ":" in host else host.encode("ascii"), port)
    credentials = b"proxy-authorization: %s\r\n" % proxy.authorization if proxy.authorization else b""
    try:
        await loop.sock_sendall(one, b"CONNECT %s HTTP/1.1\r\nhost: %s\r\n%s\r\n" % (place, place, credentials))
        await _read_consent(loop, one)
    except BaseException:
        one.close()
        raise


async def _read_consent(loop: asyncio.AbstractEventLoop, one: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = await loop.sock_recv(one, READ_BYTES)
        head += data
        if not data or len(head) > HEAD_BYTES_MAX:
            raise ProxyRefused("The proxy gave no answer to CONNECT.")
    if STATUS_LINE.match(head) is None or not head.endswith(b"\r\n\r\n"):
        # The upstream speaks second in TLS: what stands behind the head is not its.
        raise ProxyRefused("The proxy makes no tunnel.")


def _of_environment(base_url: str, environ: Mapping[str, str]) -> Proxy | None:
    """``HTTPS_PROXY`` or ``HTTP_PROXY``, else ``ALL_PROXY``, but for what ``NO_PROXY`` names. Small letters count
    first, as with curl.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    if _is_excepted(host, port, _variable("no_proxy", environ)):
        return None
    text = _variable(f"{parts.scheme}_proxy", environ) or _variable("all_proxy", environ)
    if not text:
        return None
    found = urlsplit(text if "://" in text else f"http://{text}")
    if found.scheme != "http" or not found.hostname:
        raise ValueError(f"the environment's proxy for {parts.scheme} is not of the form http://HOST:PORT")
    user = None if found.username is None else unquote(found.username)
    return Proxy(found.hostname, found.port or DEFAULT_PORT, _basic(user, unquote(found.password or "")))


def _variable(name: str, environ: Mapping[str, str]) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _is_excepted(host: str, port: int, no_proxy: str) -> bool:
    """``no_proxy``: names (with all below them), addresses, networks, each perhaps with a port; ``*``: everything."""
    for entry in (each.strip().lower() for each in no_proxy.split(",")):
        name, _, number = entry.rpartition(":") if re.search(r"[^:]:[0-9]+\Z", entry) else (entry, "", "")
        if entry == "*":
            return True
        if not name or (number and int(number) != port):
            continue
        if "/" in name or _is_address(host):
            if _is_within(host, name.strip("[]")):
                return True
        elif f".{host.lower()}".endswith(f".{name.removeprefix('*').strip('.')}"):
            return True
    return False


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_within(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False


def _basic(user: str | None, password: str) -> bytes:
    return b"" if user is None else b"Basic " + base64.b64encode(f"{user}:{password}".encode())
