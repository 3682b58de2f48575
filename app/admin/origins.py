"""Whether what a browser sends comes from a page of this gateway.

A browser says so in ``origin`` and in ``sec-fetch-site``, which no page can write. Anything else sends neither of them.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from app.core.errors import Forbidden

SAME = "same-origin"
OWN_SITES = frozenset({SAME, "none"})
"""What browsers say of a gateway's own page, and of what a person typed in."""
PORTS = {"http": 80, "https": 443}


class Origins:
    """Knows the gateway's own address: ``public_url`` where it is configured, and the host that a request came to, as a
    trusted proxy tells it where there is one.
    """

    def __init__(
        self,
        *,
        is_by_proxy: Callable[[HTTPConnection], bool],
        is_secure: Callable[[HTTPConnection], bool],
        public_url: str | None = None,
    ) -> None:
        self._is_by_proxy = is_by_proxy
        self._is_secure = is_secure
        self._public = None if public_url is None else _place_of(public_url)

    def __repr__(self) -> str:
        return f"Origins(public={self._public})"

    def require_own(self, request: HTTPConnection) -> None:
        """Raises Forbidden where a page of another origin sends this."""
        sites = request.headers.getlist("sec-fetch-site")
        if sites == [SAME]:
            # Whatever a proxy, of which nobody has told us, makes of the host.
            return
        if not all(site in OWN_SITES for site in sites) or not all(
            self._is_own(origin, request) for origin in request.headers.getlist("origin")
        ):
            raise Forbidden("This page is not the gateway's.")

    def _is_own(self, origin: str, request: HTTPConnection) -> bool:
        place = _place_of(origin)
        if place is None:
            return False
        if place == self._public:
            return True
        scheme = place[0]
        if scheme == "http" and self._is_secure(request):
            return False
        # The scheme of the origin: a proxy that nobody has named may have taken TLS off.
        return place == _place_of(f"{scheme}://{self._host(request)}")

    def _host(self, request: HTTPConnection) -> str:
        """The host that the client asked; of several proxies the nearest one's word counts."""
        told = request.headers.get("x-forwarded-host", "").rpartition(",")[2].strip()
        return told if told and self._is_by_proxy(request) else request.headers.get("host", "")


def _place_of(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for what is no origin, such as ``null``."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in PORTS or not parts.hostname or parts.username is not None:
        return None
    return parts.scheme, parts.hostname, PORTS[parts.scheme] if port is None else port
