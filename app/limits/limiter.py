"""What a limit is, what a request claims, and what is decided about it.

A window of requests or tokens is an exact sliding window of slots: 61 slots of a second for a minute. The
current slot and the sixty before it are summed, so that no sixty seconds, wherever they start, hold more
than the limit. What a request used belongs to the slot of its admission, however late it settles. A
window of money is one of the calendar; where it begins and ends is fixed at admission.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from app.core.identity import BoundPolicy, LimitKind, LimitMode, LimitPolicy, LimitWindow
from app.core.records import BudgetWindow

Scope = Literal["key", "team", "key_model", "team_model", "tag", "upstream"]

SLOTS_PER_WINDOW = 60
"""A window is divided into so many slots; one more is summed, since the oldest is only partly inside."""

CONCURRENCY_RETRY_MS = 1000
"""When a running request will end is not known."""

HELD_RETRY_MS = 2000
"""Nor when those will whose holds fill a budget."""

AMOUNT_MAX = 10**12
"""The most that one request can count in a window: sums stay exact in the doubles of Lua."""

MAXIMUM_MAX = 9 * 10**15
"""A limit above this is as good as none; ``policy`` lowers it to this. Exact in doubles, too."""

UPSTREAM_TAG = "up:"
"""Limits that protect an upstream are counted under this and the upstream's name, not under a team."""


def countable(tokens: int) -> int:
    """``tokens``, within what a limit can count."""
    return min(max(tokens, 0), AMOUNT_MAX)


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``maximum`` of ``kind``: in any ``window_ms`` for requests and tokens, at once for concurrency,
    in a calendar ``window`` of ``time_zone`` for money (nano-dollars).

    ``counter`` is where it is counted: unique within its tag (a team, or an upstream), and the same
    whatever becomes of the maximum. For money it is the budget's id.
    """

    scope: Scope
    scope_id: str
    name: str
    kind: LimitKind
    maximum: int
    counter: str
    window_ms: int = 0
    window: LimitWindow = ""
    time_zone: str = "UTC"
    policy: LimitPolicy = "strict"
    mode: LimitMode = "enforce"
    bound: BoundPolicy = "maximum"

    def __post_init__(self) -> None:
        if self.maximum < 0:
            raise ValueError(f"{self.name} is negative")
        is_sliding = self.kind in {"requests", "tokens"}
        if is_sliding and (self.window_ms <= 0 or self.window_ms % SLOTS_PER_WINDOW):
            raise ValueError(f"a window of {self.window_ms} ms does not divide into {SLOTS_PER_WINDOW} slots")
        if self.kind == "money" and self.window not in {"day", "week", "month", "total"}:
            raise ValueError("a budget needs a window")

    @property
    def slot_ms(self) -> int:
        return self.window_ms // SLOTS_PER_WINDOW


class MoneyWindow(msgspec.Struct, frozen=True):
    """The window of a budget that a claim is meant for; the store refuses it at another time."""

    budget: BudgetWindow
    end_ms: int


class Claim(msgspec.Struct, frozen=True):
    """What a request asks for before it is sent: one request, ``tokens`` (an estimate), one running call, and
    money: ``bound_nanousd``, the most it can cost, or ``likely_nanousd``, by each budget's choice.

    ``money`` has a window for every limit of that kind, in their order. ``opening`` is what another
    process needs to write the request's row if this one dies; ``owner`` is this process.
    """

    request_id: str
    tag: str
    limits: tuple[Limit, ...]
    tokens: int = 0
    bound_nanousd: int = 0
    likely_nanousd: int = 0
    money: tuple[MoneyWindow, ...] = ()
    owner: str = ""
    opening: bytes = b""

    def amount_of(self, limit: Limit) -> int:
        """How much of ``limit`` is taken at admission."""
        if limit.kind == "tokens":
            return countable(self.tokens)
        if limit.kind == "money":
            return self.bound_nanousd if limit.bound == "maximum" else self.likely_nanousd
        return 1


class Standing(msgspec.Struct, frozen=True):
    """Where a limit stands after a decision: what is left, and how long until all of it is again."""

    limit: Limit
    remaining: int
    reset_ms: int


class Grant(msgspec.Struct, frozen=True):
    """Admitted. Has to be settled or voided, once; ``admitted_at_ms`` is the store's time.

    ``observed``: limits in mode ``observe`` that would have refused it. ``is_held`` is False where no store
    knows of it: nothing limits it, or the store was away and every limit is protective.
    """

    claim: Claim
    admitted_at_ms: int
    standings: tuple[Standing, ...] = ()
    observed: tuple[Limit, ...] = ()
    is_held: bool = True


class Refusal(msgspec.Struct, frozen=True):
    """Not admitted, nothing was counted: ``limit`` keeps it waiting longest.

    ``retry_after_ms`` is None where waiting does not help: the request alone is larger than the limit, or
    the budget is spent. ``is_held``: only the holds of calls in flight stand in the way of a budget.
    """

    limit: Limit
    retry_after_ms: int | None
    standings: tuple[Standing, ...] = ()
    is_held: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """How an admitted request ended: what it counts, and the record that says so.

    ``rank`` is 2 for exact knowledge (a charge, or known to be unbilled), 1 for an estimate. ``record`` is
    kept with the reservation until SQL has it.
    """

    rank: int
    nanousd: int
    tokens: int
    record: bytes = b""
