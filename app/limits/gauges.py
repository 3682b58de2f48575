"""What is held of a limit of requests, tokens or concurrency, in memory.

The same arithmetic as ``scripts/reserve.lua``; one suite of tests compares the two step by step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from app.limits.limiter import CONCURRENCY_RETRY_MS, SLOTS_PER_WINDOW, Limit

NEVER_MS = 2**62
"""A wait without an end: the request alone is larger than the limit."""

LIFETIME_MS_MIN = 61_000


def lifetime_ms(limits: Iterable[Limit]) -> int:
    """How long what was counted can matter to any of them."""
    return max([LIFETIME_MS_MIN, *((SLOTS_PER_WINDOW + 1) * limit.slot_ms for limit in limits)])


class Gauge(Protocol):
    """What is held of one limit."""

    def wait_ms(self, amount: int, maximum: int, now_ms: int) -> int:
        """How long until ``amount`` fits: 0 now, NEVER_MS never."""
        ...

    def held(self) -> int: ...

    def reset_ms(self, now_ms: int) -> int:
        """How long until nothing is held."""
        ...

    def is_idle(self, now_ms: int) -> bool:
        """Whether a new gauge would say the same."""
        ...


class SlidingWindow:
    """Amounts per slot, oldest first, and their sum."""

    __slots__ = ("_last", "_slot_ms", "_slots", "_total")

    def __init__(self, slot_ms: int) -> None:
        self._slot_ms = slot_ms
        self._slots: dict[int, int] = {}
        self._last = -1
        self._total = 0

    def wait_ms(self, amount: int, maximum: int, now_ms: int) -> int:
        self._advance(now_ms)
        excess = self._total + amount - maximum
        if excess <= 0 or amount == 0:
            return 0
        if amount <= maximum:
            for slot, counted in self._slots.items():
                excess -= counted
                if excess <= 0:
                    return self._leaves_at_ms(slot) - now_ms
        return NEVER_MS

    def take(self, amount: int, now_ms: int) -> int:
        """Count ``amount`` now; the slot it is counted in."""
        slot = self._advance(now_ms)
        self._slots[slot] = self._slots.get(slot, 0) + amount
        self._total += amount
        self._last = slot
        return slot

    def correct(self, slot: int, difference: int) -> None:
        """What was taken in ``slot`` turned out to be more or less by ``difference``."""
        counted = self._slots.get(slot)
        if counted is not None:
            difference = max(difference, -counted)
            self._slots[slot] = counted + difference
            self._total += difference

    def held(self) -> int:
        return self._total

    def reset_ms(self, now_ms: int) -> int:
        return self._leaves_at_ms(self._last) - now_ms if self._total else 0

    def is_idle(self, now_ms: int) -> bool:
        return not self._slots or self._leaves_at_ms(self._last) <= now_ms

    def _leaves_at_ms(self, slot: int) -> int:
        return (slot + SLOTS_PER_WINDOW + 1) * self._slot_ms

    def _advance(self, now_ms: int) -> int:
        """The slot of ``now_ms``, after the slots that have left the window are forgotten."""
        slot = now_ms // self._slot_ms
        if not self._slots:
            return slot
        # A clock that was set back a little stands still here until it has caught up. Set back by more
        # than a window, it would lock the limit for as long: then what was counted is forgotten.
        set_back = self._last > slot + SLOTS_PER_WINDOW
        slot = slot if set_back else max(slot, self._last)
        oldest = slot - SLOTS_PER_WINDOW
        if set_back or self._last < oldest:
            self._slots.clear()
            self._total = 0
            return slot
        while (first := next(iter(self._slots))) < oldest:
            self._total -= self._slots.pop(first)
        return slot


class Leases:
    """The calls that run, each until its lease ends."""

    __slots__ = ("_until_ms",)

    def __init__(self) -> None:
        self._until_ms: dict[str, int] = {}

    def wait_ms(self, amount: int, maximum: int, now_ms: int) -> int:
        self._advance(now_ms)
        if amount > maximum:
            return NEVER_MS
        fits = amount == 0 or len(self._until_ms) + amount <= maximum
        return 0 if fits else CONCURRENCY_RETRY_MS

    def prolong(self, request_id: str, until_ms: int) -> None:
        """Take a lease, or have it last longer; also above the limit, since the call does run."""
        self._until_ms[request_id] = until_ms

    def free(self, request_id: str) -> None:
        self._until_ms.pop(request_id, None)

    def held(self) -> int:
        return len(self._until_ms)

    def reset_ms(self, now_ms: int) -> int:  # noqa: ARG002 - a gauge's signature
        return CONCURRENCY_RETRY_MS if self._until_ms else 0

    def is_idle(self, now_ms: int) -> bool:
        self._advance(now_ms)
        return not self._until_ms

    def _advance(self, now_ms: int) -> None:
        """Drop what has ended."""
        ended = [request_id for request_id, until_ms in self._until_ms.items() if until_ms <= now_ms]
        for request_id in ended:
            del self._until_ms[request_id]
