"""Whether an upstream that could not be connected to can be by now, while nobody asks anything of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

CONNECT_S_MAX = 5.0

Connect = Callable[[], Awaitable[bool]]
"""Connects the way that calls take, and sends nothing."""


async def is_reached(connect: Connect) -> bool:
    """Whether that succeeds in time."""
    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            return await connect()
    except TimeoutError:
        return False
