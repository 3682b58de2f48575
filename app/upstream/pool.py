"""One pool of connections per upstream. aiohttp's defaults suit a browser; each is set here for a proxy."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from app.core.errors import UpstreamInvalidResponse, UpstreamOutcomeUnknown, UpstreamTimeout, UpstreamUnreachable
from app.settings import UpstreamSettings

READ_BUFFER_BYTES = 64 * 1024
HEADER_LINE_BYTES_MAX = 32 * 1024
SKIPPED_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
SECRET_SHAPE = re.compile(rb"\bsk-[A-Za-z0-9_*.-]{6,}")
SIMULATOR_URL = "http://simulator/v1"


class UpstreamPool:
    """The connections to one upstream, and the credentials that it is called with."""

    def __init__(self, name: str, settings: UpstreamSettings, *, simulator_socket: Path | None = None) -> None:
        self.name = name
        self.settings = settings
        self.forwarded = frozenset(header.encode() for header in settings.forward_headers)
        self._base_url = (settings.base_url or SIMULATOR_URL).rstrip("/")
        self._socket = simulator_socket if settings.kind == "simulator" else None
        self._keys = settings.keys
        self._turns = itertools.cycle(self._keys) if self._keys else None
        self.reachable = True
        """Whether the last try to connect succeeded."""
        self.in_use = 0
        """Calls under way; above ``connections_max`` another would wait for one of them to end."""
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[tuple[str, bytes], URL] = {}

    def __repr__(self) -> str:
        # The base URL is the administrator's and is never shown to clients; keys are shown to nobody.
        return f"UpstreamPool(name={self.name!r}, keys={len(self._keys)}, open={self._session is not None})"

    @property
    def base_url(self) -> str:
        """Where the upstream is; the price book tells the provider by it."""
        return self._base_url

    async def open(self) -> None:
        """Make the session; no connection is made yet."""
        settings = self.settings
        timeout = aiohttp.ClientTimeout(
            # The relay watches the first byte and silence itself, so that one sweep serves all requests.
            total=None,
            sock_connect=settings.timeouts.connect_s,
            connect=None,
            sock_read=None,
        )
        connector: aiohttp.BaseConnector
        if self._socket is not None:
            connector = aiohttp.UnixConnector(
                path=str(self._socket),
                limit=settings.connections_max,
                keepalive_timeout=settings.keepalive_timeout_s,
            )
        else:
            connector = aiohttp.TCPConnector(
                limit=settings.connections_max, keepalive_timeout=settings.keepalive_timeout_s
            )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=SKIPPED_AUTO_HEADERS,
            trust_env=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=HEADER_LINE_BYTES_MAX,
            max_field_size=HEADER_LINE_BYTES_MAX,
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(
        self, method: str, path: str, query: bytes, headers: CIMultiDict[str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        """Send a request and wait for the answer's head; the caller reads or closes the answer.

        Raises UpstreamUnreachable (nothing was sent), UpstreamTimeout or UpstreamOutcomeUnknown (it may
        have been), UpstreamInvalidResponse (what came is not HTTP).
        """
        if self._session is None:
            raise UpstreamUnreachable
        self._own_headers(headers)
        try:
            answer = await self._session.request(
                method, self._url(path, query), data=body, headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            self.reachable = False
            raise UpstreamUnreachable from error
        except aiohttp.ServerTimeoutError as error:
            raise UpstreamTimeout from error
        except (aiohttp.ClientConnectionError, ConnectionError) as error:
            raise UpstreamOutcomeUnknown from error
        except (aiohttp.ClientError, ValueError) as error:
            raise UpstreamInvalidResponse from error
        self.reachable = True
        return answer

    def redact(self, body: bytes) -> bytes:
        """An error's body without this upstream's keys, or anything of a key's shape."""
        for key in self._keys:
            body = body.replace(key.encode(), b"[redacted]")
        return SECRET_SHAPE.sub(b"[redacted]", body)

    def _own_headers(self, headers: CIMultiDict[str]) -> None:
        if self._turns is not None:
            headers["authorization"] = f"Bearer {next(self._turns)}"
        headers["accept-encoding"] = "identity"
        if self.settings.organization:
            headers["openai-organization"] = self.settings.organization
        if self.settings.project:
            headers["openai-project"] = self.settings.project

    def _url(self, path: str, query: bytes) -> URL:
        key = (path, query)
        found = self._urls.get(key)
        if found is None:
            text = f"{self._base_url}{path}"
            if query:
                text = f"{text}?{query.decode('ascii', 'replace')}"
            found = URL(text, encoded=True)
            if not query:
                self._urls[key] = found
        return found
