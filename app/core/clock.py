"""Time, so that tests can own it.

Wall-clock milliseconds are for records and people; seconds of the monotonic clock are for durations.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def __repr__(self) -> str:
        return "SystemClock()"


QUARTER_MS = 15 * 60 * 1000


def quarter_of(at_ms: int) -> int:
    """The start, in milliseconds, of the quarter of an hour (UTC) that holds ``at_ms``."""
    return at_ms - at_ms % QUARTER_MS
