"""Limits of one process. Every decision is one synchronous step, so nothing has to be locked.

The same arithmetic as ``scripts/reserve.lua``; one suite of tests compares the two step by step.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import msgspec

from app.core.clock import Clock, SystemClock
from app.limits.limiter import (
    CONCURRENCY_RETRY_MS,
    SLOTS_PER_WINDOW,
    Claim,
    Grant,
    Limit,
    Refusal,
    Standing,
    countable,
)

NEVER_MS = 2**62
"""A wait without an end: the request alone is larger than the limit."""


class Gauge(Protocol):
    """What is held of one limit."""

    def wait_ms(self, amount: int, maximum: int, now_ms: int) -> int:
        """How long until ``amount`` fits: 0 now, NEVER_MS never."""
        ...

    def take(self, request_id: str, amount: int, now_ms: int) -> int:
        """Hold ``amount``; the slot it is counted in."""
        ...

    def correct(self, request_id: str, slot: int, difference: int) -> None:
        """What was taken in ``slot`` turned out to be more or less by ``difference``; its call has ended."""
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

    def take(self, request_id: str, amount: int, now_ms: int) -> int:  # noqa: ARG002 - a gauge's signature
        slot = self._advance(now_ms)
        self._slots[slot] = self._slots.get(slot, 0) + amount
        self._total += amount
        self._last = slot
        return slot

    def correct(self, request_id: str, slot: int, difference: int) -> None:  # noqa: ARG002 - as above
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
    """The calls that run. They need no expiry here: they end with the process."""

    __slots__ = ("_request_ids",)

    def __init__(self) -> None:
        self._request_ids: set[str] = set()

    def wait_ms(self, amount: int, maximum: int, now_ms: int) -> int:  # noqa: ARG002 - a gauge's signature
        if amount > maximum:
            return NEVER_MS
        fits = amount == 0 or len(self._request_ids) + amount <= maximum
        return 0 if fits else CONCURRENCY_RETRY_MS

    def take(self, request_id: str, amount: int, now_ms: int) -> int:  # noqa: ARG002 - as above
        self._request_ids.add(request_id)
        return 0

    def correct(self, request_id: str, slot: int, difference: int) -> None:  # noqa: ARG002 - as above
        self._request_ids.discard(request_id)

    def held(self) -> int:
        return len(self._request_ids)

    def reset_ms(self, now_ms: int) -> int:  # noqa: ARG002 - as above
        return CONCURRENCY_RETRY_MS if self._request_ids else 0

    def is_idle(self, now_ms: int) -> bool:  # noqa: ARG002 - as above
        return not self._request_ids


class Reservation(msgspec.Struct, frozen=True):
    """What a grant holds: in which slot of each limit its amount is counted."""

    claim: Claim
    admitted_at_ms: int
    slots: tuple[int, ...]


GaugeKey = tuple[str, str, str]


class MemoryLimiter:
    """The limiter of a gateway that is one process."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        # In the order in which the sweep will look at them.
        self._gauges: OrderedDict[GaugeKey, Gauge] = OrderedDict()
        self._open: dict[str, Reservation] = {}

    async def start(self) -> None:
        """Nothing to begin."""

    async def close(self) -> None:
        """Nothing is queued."""

    async def reserve(self, claim: Claim) -> Grant | Refusal:
        now_ms = self._clock.now_ms()
        if not claim.limits:
            return Grant(claim, now_ms, ())
        gauges = [self._gauge(limit) for limit in claim.limits]
        decision = self._decide(claim, gauges, now_ms)
        self._sweep(len(gauges), now_ms)
        return decision

    def settle(self, grant: Grant, tokens: int) -> None:
        reservation = self._open.pop(grant.claim.request_id, None)
        if reservation is None:
            return
        claim = reservation.claim
        for limit, slot in zip(claim.limits, reservation.slots, strict=True):
            gauge = self._gauges.get(_key(limit))
            if gauge is not None:
                used = countable(tokens) if limit.kind == "tokens" else 1
                gauge.correct(claim.request_id, slot, used - claim.amount_of(limit))

    def release(self, grant: Grant) -> None:
        self.settle(grant, 0)

    def __repr__(self) -> str:
        return f"MemoryLimiter(open {len(self._open)}, gauges {len(self._gauges)})"

    def _decide(self, claim: Claim, gauges: list[Gauge], now_ms: int) -> Grant | Refusal:
        limits = claim.limits
        reservation = self._open.get(claim.request_id)
        amounts = [0 if reservation else claim.amount_of(limit) for limit in limits]
        refused, wait_ms = _longest_wait(limits, gauges, amounts, now_ms)
        if refused is not None:
            retry_after_ms = None if wait_ms == NEVER_MS else wait_ms
            return Refusal(refused, retry_after_ms, _standings(limits, gauges, now_ms))
        if reservation is None:
            taken = zip(gauges, amounts, strict=True)
            slots = tuple([gauge.take(claim.request_id, amount, now_ms) for gauge, amount in taken])
            reservation = self._open[claim.request_id] = Reservation(claim, now_ms, slots)
        return Grant(claim, reservation.admitted_at_ms, _standings(limits, gauges, now_ms))

    def _gauge(self, limit: Limit) -> Gauge:
        key = _key(limit)
        gauge = self._gauges.get(key)
        if gauge is None:
            gauge = Leases() if limit.kind == "concurrency" else SlidingWindow(limit.slot_ms)
            self._gauges[key] = gauge
        return gauge

    def _sweep(self, count: int, now_ms: int) -> None:
        """Drop what is idle among the ``count`` gauges that were looked at longest ago.

        As many are looked at as a request can add, so that idle ones never pile up.
        """
        for _ in range(min(count, len(self._gauges))):
            key, gauge = self._gauges.popitem(last=False)
            if not gauge.is_idle(now_ms):
                self._gauges[key] = gauge


def _key(limit: Limit) -> GaugeKey:
    return limit.scope, limit.scope_id, limit.name


def _longest_wait(
    limits: tuple[Limit, ...], gauges: list[Gauge], amounts: list[int], now_ms: int
) -> tuple[Limit | None, int]:
    """The limit that the claim has to wait for longest, if any: the first of those alike."""
    refused: Limit | None = None
    longest_ms = 0
    for limit, gauge, amount in zip(limits, gauges, amounts, strict=True):
        wait_ms = gauge.wait_ms(amount, limit.maximum, now_ms)
        if wait_ms > longest_ms:
            refused, longest_ms = limit, wait_ms
    return refused, longest_ms


def _standings(limits: tuple[Limit, ...], gauges: list[Gauge], now_ms: int) -> tuple[Standing, ...]:
    return tuple(
        Standing(limit, max(0, limit.maximum - gauge.held()), gauge.reset_ms(now_ms))
        for limit, gauge in zip(limits, gauges, strict=True)
    )
