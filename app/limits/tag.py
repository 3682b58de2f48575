"""What memory holds under one tag: budgets, reservations, and what is counted of limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from app.core.records import BudgetWindow
from app.limits.gauges import NEVER_MS, Gauge, Leases, SlidingWindow
from app.limits.hot import Counted, Known
from app.limits.limiter import HELD_RETRY_MS, Claim, Limit, MoneyWindow

BUDGET_KEPT_MS = 2 * 24 * 3600 * 1000
"""How long a budget without anything held is remembered; then it is cold, and read again."""


class Budget:
    """One window of a budget; ``version`` 0 with ``is_warm`` False is cold."""

    __slots__ = ("confirmed", "epoch", "held", "is_warm", "stand_ins", "touched_ms", "unconfirmed", "version")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.touched_ms = 0
        self.is_warm = False
        self.version = 0
        self.confirmed = 0
        self.unconfirmed = 0
        self.held = 0
        self.stand_ins: dict[str, int] = {}

    @property
    def taken(self) -> int:
        return self.confirmed + self.unconfirmed + self.held

    def assign(self, spent: int, version: int, now_ms: int) -> bool:
        """Whether that was news."""
        self.touched_ms = now_ms
        if self.is_warm and version <= self.version:
            return False
        self.is_warm, self.version, self.confirmed = True, version, spent
        return True


class Reservation(msgspec.Struct):
    """``held`` and ``nanousd`` count in the budgets of ``epoch``; ``slots`` are those of the windows."""

    state: Literal["open", "done", "gone", "void"]
    epoch: int
    owner: str = ""
    opening: bytes = b""
    record: bytes = b""
    rank: int = 0
    bound_nanousd: int = 0
    held: tuple[int, ...] = ()
    nanousd: int = 0
    slots: tuple[int, ...] = ()
    admitted_at_ms: int = 0
    output_tokens: int = 0
    lower_nanousd: int = 0
    forget_at_ms: int = 0

    @property
    def is_over(self) -> bool:
        """Only remembered, so that what comes late finds it."""
        return self.state in {"gone", "void"}


class Tag:
    """All that is held under one tag."""

    __slots__ = ("budgets", "due", "gauges", "reservations", "token")

    def __init__(self) -> None:
        self.token: str | None = None
        self.gauges: dict[str, Gauge] = {}
        self.budgets: dict[BudgetWindow, Budget] = {}
        self.reservations: dict[str, Reservation] = {}
        self.due: dict[str, int] = {}

    def find(self, request_id: str, now_ms: int) -> Reservation | None:
        """What is known of a request, if it is not time to forget it."""
        known = self.reservations.get(request_id)
        if known is not None and 0 < known.forget_at_ms <= now_ms:
            del self.reservations[request_id]
            return None
        return known

    def gauge(self, limit: Limit) -> Gauge | None:
        """Where a limit is counted; None for money."""
        if limit.kind == "money":
            return None
        gauge = self.gauges.get(limit.counter)
        if gauge is None:
            gauge = Leases() if limit.kind == "concurrency" else SlidingWindow(limit.slot_ms)
            self.gauges[limit.counter] = gauge
        return gauge

    def budget(self, window: BudgetWindow, epoch: int) -> Budget:
        """The budget as it counts in ``epoch``: what another one counted is nothing."""
        budget = self.budgets.get(window)
        if budget is None or budget.epoch != epoch:
            budget = self.budgets[window] = Budget(epoch)
        return budget


def windows_of(claim: Claim) -> tuple[BudgetWindow, ...]:
    """The budgets that a claim counts in."""
    return tuple(window.budget for window in claim.money)


def unhold(tag: Tag, known: Reservation, windows: tuple[BudgetWindow, ...]) -> None:
    """Its hold is over, in the budgets that counted it."""
    for window, amount in zip(windows, known.held, strict=False):
        budget = tag.budgets.get(window)
        if budget is not None and budget.epoch == known.epoch:
            budget.held -= amount
    known.held = ()


def uncount(tag: Tag, known: Reservation, windows: tuple[BudgetWindow, ...]) -> None:
    """What it settled is in SQL, or is to be counted anew."""
    for window in windows:
        budget = tag.budgets.get(window)
        if budget is not None and budget.epoch == known.epoch:
            budget.unconfirmed -= known.nanousd


def count_done(tag: Tag, known: Reservation, windows: tuple[BudgetWindow, ...], epoch: int) -> bool:
    """Count what an earlier epoch had counted, once."""
    if known.state != "done" or known.epoch == epoch:
        return False
    known.epoch = epoch
    for window in windows:
        tag.budget(window, epoch).unconfirmed += known.nanousd
    return True


def known_of(known: Reservation) -> Known:
    """As it is told."""
    return Known(
        state="open" if known.state == "open" else "done",
        epoch=known.epoch,
        rank=known.rank,
        owner=known.owner,
        opening=known.opening,
        record=known.record,
        nanousd=known.nanousd,
        output_tokens=known.output_tokens,
        lower_nanousd=known.lower_nanousd,
    )


def counts_of(tag: Tag | None, limits: tuple[Limit, ...], now_ms: int) -> Counted:
    """What is counted of each limit; one of which nothing is known counts nothing."""
    counts: list[tuple[int, int]] = []
    for limit in limits:
        gauge = None if tag is None else tag.gauges.get(limit.counter)
        if gauge is None or gauge.is_idle(now_ms):
            counts.append((0, 0))
            continue
        # Nothing fits at once: asking only lets go of what has left the window.
        gauge.wait_ms(0, limit.maximum, now_ms)
        counts.append((gauge.held(), gauge.reset_ms(now_ms)))
    return Counted(tuple(counts))


def decide(
    claim: Claim, gauges: list[Gauge | None], budgets: list[Budget], amounts: list[int], now_ms: int
) -> tuple[tuple[int, int, bool] | None, tuple[int, ...]]:
    """The limit that it has to wait for longest, if any: (index, wait, whether only holds stand in the way);
    and those that only observe and would have had it wait.
    """
    refused: tuple[int, int, bool] | None = None
    longest_ms = 0
    observed: list[int] = []
    remaining = iter(budgets)
    for index, (limit, gauge, amount) in enumerate(zip(claim.limits, gauges, amounts, strict=True)):
        if gauge is not None:
            wait_ms, is_held = gauge.wait_ms(amount, limit.maximum, now_ms), False
        else:
            wait_ms, is_held = _budget_wait(next(remaining), amount, limit.maximum)
        if wait_ms > 0 and limit.mode == "observe":
            observed.append(index)
        elif wait_ms > longest_ms:
            refused, longest_ms = (index, wait_ms, is_held), wait_ms
    return refused, tuple(observed)


def _budget_wait(budget: Budget, amount: int, maximum: int) -> tuple[int, bool]:
    """What costs nothing always fits; holds of running calls are worth waiting for, spent money is not."""
    if amount == 0 or budget.taken + amount <= maximum:
        return 0, False
    if budget.confirmed + budget.unconfirmed + amount > maximum:
        return NEVER_MS, False
    return HELD_RETRY_MS, True


def standings_of(
    claim: Claim, gauges: list[Gauge | None], budgets: list[Budget], now_ms: int
) -> tuple[tuple[int, int], ...]:
    """(remaining, reset_ms) of each limit."""
    money: Iterator[tuple[Budget, MoneyWindow]] = zip(budgets, claim.money, strict=True)
    standings: list[tuple[int, int]] = []
    for limit, gauge in zip(claim.limits, gauges, strict=True):
        if gauge is not None:
            standings.append((max(0, limit.maximum - gauge.held()), gauge.reset_ms(now_ms)))
        else:
            budget, window = next(money)
            standings.append((max(0, limit.maximum - budget.taken), max(0, window.end_ms - now_ms)))
    return tuple(standings)
