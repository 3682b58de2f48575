"""Ends connections that are overdue: one timer for all of them, instead of one for each request."""

from __future__ import annotations

import asyncio
from typing import Protocol

SWEEP_INTERVAL_S = 0.25


class Sweepable(Protocol):
    """A connection as the sweeper sees it. ``deadline`` is of the loop's clock."""

    deadline: float
    loop: asyncio.AbstractEventLoop

    def overdue(self, now: float) -> None:
        """The deadline has passed."""
        ...

    def check_progress(self, now: float) -> None:
        """Called on every sweep while ``must_progress``."""
        ...

    @property
    def must_progress(self) -> bool:
        """Whether the client has something to read without which nothing goes on."""
        ...


class Sweeper:
    """Looks at all open connections four times a second; without any it has no timer."""

    def __init__(self) -> None:
        self._connections: set[Sweepable] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"Sweeper(connections={len(self._connections)})"

    def add(self, connection: Sweepable) -> None:
        self._connections.add(connection)
        if self._timer is None:
            self._arm(connection.loop)

    def discard(self, connection: Sweepable) -> None:
        self._connections.discard(connection)
        if not self._connections and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(SWEEP_INTERVAL_S, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._arm(loop)
        now = loop.time()
        for connection in tuple(self._connections):
            if connection.deadline <= now:
                connection.overdue(now)
            if connection.must_progress:
                connection.check_progress(now)
