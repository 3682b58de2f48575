"""Sends a message to a webhook, signed as standard webhooks are (https://www.standardwebhooks.com).

Where it goes stands in the administrator's own file, so that a private address is as good as any. What comes back
is looked at for its status alone: redirects are not followed, and of a body at most 200 characters are kept, where
it says why a message was not taken.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
import time
from base64 import b64encode
from collections.abc import Sequence

import httpx
import msgspec

from app import __version__
from app.core.errors import quoted
from app.settings import WebhookTarget

TIMEOUT_S = 10.0
ERROR_CHARS_MAX = 200
ANSWER_BYTES_MAX = 1024
RETRY_AFTER_S_MAX = 3600
CONNECTIONS_MAX = 50
GONE = 410
MAY_NAME_A_TIME = frozenset({429, 502, 503, 504})


class Sent(msgspec.Struct, frozen=True):
    """What came of one try. ``error`` says what was wrong with it; ``is_gone``: the receiver wants nothing more, and
    ``retry_after_s`` nothing sooner.
    """

    took_ms: int
    is_taken: bool
    status: int | None = None
    error: str | None = None
    is_gone: bool = False
    retry_after_s: int = 0


def signature_of(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """``v1,`` and the HMAC-SHA256, in base64, of ``ID.TIMESTAMP.BODY``."""
    digest = hmac.new(key, b"%s.%d.%s" % (message_id.encode(), timestamp_s, body), hashlib.sha256).digest()
    return f"v1,{b64encode(digest).decode()}"


def headers_of(keys: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The headers of one try: the id stays the same in every one, the timestamp is that of this one."""
    return {
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": f"headgate/{__version__}",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signature_of(key, message_id, timestamp_s, body) for key in keys),
    }


class WebhookSender:
    """The connections to all webhooks."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        """``timeout_s`` is for all of a try: the connection, the message and the answer."""
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(),
            # A proxy from the environment would be told everything.
            trust_env=False,
            follow_redirects=False,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=0),
        )

    def __repr__(self) -> str:
        return f"WebhookSender(timeout_s={self._timeout_s})"

    async def close(self) -> None:
        await self._client.aclose()

    async def send(self, target: WebhookTarget, message_id: str, body: bytes, now_s: int) -> Sent:
        """Tries once. Nothing is raised: whatever goes wrong is in what is returned."""
        begun_s = time.monotonic()
        status, error, retry_after_s = None, None, 0
        headers = headers_of(target.keys, message_id, now_s, body)
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("POST", target.url.get_secret_value(), headers=headers, content=body) as answer,
            ):
                status = answer.status_code
                if not answer.is_success:
                    retry_after_s = _retry_after_s(answer)
                    error = f"HTTP {status}"
                    error = await _told(answer) or error
        except TimeoutError:
            error = error or f"no answer within {self._timeout_s:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as failure:
            error = error or _reason(failure)
        took_ms = round((time.monotonic() - begun_s) * 1000)
        return Sent(
            took_ms,
            is_taken=error is None,
            status=status,
            error=None if error is None else error[:ERROR_CHARS_MAX],
            is_gone=status == GONE,
            retry_after_s=retry_after_s,
        )


async def _told(answer: httpx.Response) -> str:
    """The first words of an answer, as one line."""
    read = b""
    async for piece in answer.aiter_raw(ANSWER_BYTES_MAX):
        read += piece
        if len(read) >= ANSWER_BYTES_MAX:
            break
    words = " ".join(read[:ANSWER_BYTES_MAX].decode("utf-8", "replace").split())
    return quoted(f"HTTP {answer.status_code}: {words}"[:ERROR_CHARS_MAX]) if words else ""


def _retry_after_s(answer: httpx.Response) -> int:
    value = answer.headers.get("retry-after", "")
    if answer.status_code in MAY_NAME_A_TIME and value.isascii() and value.isdecimal():
        return min(int(value[:10]), RETRY_AFTER_S_MAX)
    return 0


def _reason(failure: Exception) -> str:
    """Fixed words, and of a connection that failed what the system says: never the URL, which is half a secret."""
    if isinstance(failure, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(failure, httpx.ConnectError):
        return quoted(f"no connection: {failure}")
    if isinstance(failure, httpx.NetworkError | httpx.RemoteProtocolError):
        return "the connection broke before there was an answer"
    return type(failure).__name__
