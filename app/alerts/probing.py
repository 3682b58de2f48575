"""Whether an upstream that could not be connected to can be by now, while nobody asks anything of it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from urllib.parse import urlsplit

CONNECT_S_MAX = 5.0
DEFAULT_PORTS = {"http": 80, "https": 443}


async def can_connect(base_url: str) -> bool:
    """Connects, with TLS where the URL says so, and sends nothing."""
    parts = urlsplit(base_url)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            _, writer = await asyncio.open_connection(
                parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme], ssl=tls
            )
    except (OSError, ValueError, KeyError):
        return False
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(CONNECT_S_MAX):
            await writer.wait_closed()
    return True
