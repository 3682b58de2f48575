"""Deadlines of calls upstream: one sweep for all of them, instead of a timer each.

A deadline is met with the precision of the sweep (a quarter of a second), which is enough for waits
of seconds and minutes and costs a request nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from math import inf

SWEEP_INTERVAL_S = 0.25


class Watched:
    """Something that must get on before ``deadline_s`` (the loop's clock); else ``expire`` is called once."""

    __slots__ = ("deadline_s", "expire")

    def __init__(self, expire: Callable[[], None]) -> None:
        self.deadline_s = inf
        self.expire = expire

    def forget(self) -> None:
        """Nothing more to watch; lets go of the owner, who holds this, so that neither waits for the collector."""
        self.deadline_s = inf
        self.expire = _nothing


def _nothing() -> None:
    """For what is not watched any more."""


class Sweep:
    """Looks at everything watched, four times a second."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Sweep(watched={len(self._watched)}, running={self._task is not None})"

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="upstream-sweep")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def add(self, watched: Watched) -> None:
        self._watched.add(watched)

    def remove(self, watched: Watched) -> None:
        self._watched.discard(watched)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            now_s = loop.time()
            for watched in [one for one in self._watched if one.deadline_s <= now_s]:
                watched.deadline_s = inf
                watched.expire()
