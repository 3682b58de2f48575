"""Leases on addresses in the shared store: of several replicas one makes the call, the others wait for it.

A lease lasts 1.5 s and is renewed while the call runs. Where its replica dies another one takes over after 1.6 s
at the most: what is left of the lease, and one look more.
"""

from __future__ import annotations

import asyncio
import contextlib

from app.cache.entry import Address, CacheStore

RENEW_EVERY_S = 0.4
LOOK_EVERY_S = 0.1
WAIT_S_MAX = 600.0
STREAM_WAIT_S_MAX = 30.0
"""A replica that waits for another one for so long makes the call itself; sooner where its client waits for the first
byte of a stream.
"""


class Leases:
    """Those that this process has."""

    def __init__(self, store: CacheStore) -> None:
        self._store = store
        self._held: dict[Address, str] = {}
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Leases(held={len(self._held)})"

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="cache leases")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def add(self, address: Address, token: str) -> None:
        """``token`` has the lease on ``address`` now."""
        self._held[address] = token

    def remove(self, address: Address, token: str) -> bool:
        """It needs the lease no longer; whether it had it."""
        if self._held.get(address) != token:
            return False
        del self._held[address]
        return True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            for address, token in list(self._held.items()):
                self._store.renew(address, token)
