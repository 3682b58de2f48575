"""What a limit is, what a request claims, and the contract that memory and Redis both keep.

A window limit is an exact sliding window of slots: 61 slots of a second for a minute. The current slot
and the sixty before it are summed, so that no sixty seconds, wherever they start, hold more than the
limit. What a request used belongs to the slot of its admission, however late it settles.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

Scope = Literal["key", "team"]
Kind = Literal["requests", "tokens", "concurrency"]
LimitName = Literal["requests_per_minute", "tokens_per_minute", "concurrency"]

SLOTS_PER_WINDOW = 60
"""A window is divided into so many slots; one more is summed, since the oldest is only partly inside."""

CONCURRENCY_RETRY_MS = 1000
"""When a running request will end is not known."""

AMOUNT_MAX = 10**12
"""The most that one request can count: sums stay exact in the doubles of Lua."""


MAXIMUM_MAX = 10**15
"""A limit above this is as good as none; ``policy`` lowers it to this."""


def countable(tokens: int) -> int:
    """``tokens``, within what a limit can count."""
    return min(max(tokens, 0), AMOUNT_MAX)


class Limit(msgspec.Struct, frozen=True):
    """At most ``maximum`` of ``kind`` in any ``window_ms`` (0 for concurrency), for one key or team."""

    scope: Scope
    scope_id: str
    name: LimitName
    kind: Kind
    maximum: int
    window_ms: int = 0

    def __post_init__(self) -> None:
        if self.maximum < 0:
            raise ValueError(f"{self.name} is negative")
        if self.kind != "concurrency" and (self.window_ms <= 0 or self.window_ms % SLOTS_PER_WINDOW):
            raise ValueError(f"a window of {self.window_ms} ms does not divide into {SLOTS_PER_WINDOW} slots")

    @property
    def slot_ms(self) -> int:
        return self.window_ms // SLOTS_PER_WINDOW


class Claim(msgspec.Struct, frozen=True):
    """What a request asks for before it is sent: one request, ``tokens`` (an estimate), one running call."""

    request_id: str
    team_id: str
    limits: tuple[Limit, ...]
    tokens: int

    def amount_of(self, limit: Limit) -> int:
        """How much of ``limit`` is taken at admission."""
        return countable(self.tokens) if limit.kind == "tokens" else 1


class Standing(msgspec.Struct, frozen=True):
    """Where a limit stands after a decision: what is left, and how long until all of it is again."""

    limit: Limit
    remaining: int
    reset_ms: int


class Grant(msgspec.Struct, frozen=True):
    """Admitted. Has to be settled or released, once; ``admitted_at_ms`` is the store's time."""

    claim: Claim
    admitted_at_ms: int
    standings: tuple[Standing, ...]


class Refusal(msgspec.Struct, frozen=True):
    """Not admitted, nothing was counted: ``limit`` keeps it waiting longest.

    ``retry_after_ms`` is None where the request alone is larger than the limit.
    """

    limit: Limit
    retry_after_ms: int | None
    standings: tuple[Standing, ...]


class Limiter(Protocol):
    """Decides over all limits of a claim at once: all are taken, or none."""

    async def start(self) -> None: ...

    async def close(self) -> None:
        """End; settlements that are still queued are given a bounded time."""
        ...

    async def reserve(self, claim: Claim) -> Grant | Refusal:
        """Take the claim. The same claim again, until it is settled, is granted and not counted twice.

        Raises LimitsUnavailable where the store gives no answer in time.
        """
        ...

    def settle(self, grant: Grant, tokens: int) -> None:
        """Correct the estimate to the ``tokens`` used and end the running call; never waits, never raises.

        What was used above the estimate is owed, and may exceed the limit: later requests wait for it.
        Settling twice changes nothing.
        """
        ...

    def release(self, grant: Grant) -> None:
        """Nothing was used: as ``settle`` with no tokens. The request was admitted, so it stays counted."""
        ...
