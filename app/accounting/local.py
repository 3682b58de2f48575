"""What one process decides on its own, while the hot state is away.

Strict limits are not decided at all; a protective one is counted here, against this process' share of it.
"""

from __future__ import annotations

from collections import defaultdict

import msgspec

from app.core.clock import Clock
from app.core.errors import LimitsUnavailable
from app.limits.hot import BudgetValue, Confirm, Granted, InSQL, OpenTag, Refused, Reserve, Seed, Settle, Void
from app.limits.limiter import Claim, Grant, Limit, MoneyWindow, Outcome, Refusal, Standing
from app.limits.memory import MemoryHot

TOKEN = "1"  # noqa: S105 - an epoch's number, no secret
FOREVER_MS = 2**52
RANK_EXACT = 2


class LocalShare:
    """``processes`` is how many share the limits, as far as is known."""

    def __init__(self, clock: Clock, processes: int = 1) -> None:
        self._clock = clock
        self._hot = MemoryHot(clock)
        self.processes = processes
        # Of one request there may be two claims: its team's, and that of the limits that protect its upstream.
        self._claims: dict[tuple[str, str], Claim] = {}
        self._settled: defaultdict[str, list[Claim]] = defaultdict(list)

    def __repr__(self) -> str:
        return f"LocalShare(processes={self.processes}, running={len(self._claims)})"

    def admit(self, claim: Claim) -> Grant | Refusal:
        """Raises LimitsUnavailable where a strict limit binds."""
        if any(limit.policy == "strict" and limit.mode == "enforce" for limit in claim.limits):
            raise LimitsUnavailable
        now_ms = self._clock.now_ms()
        share = self._share_of(claim, now_ms)
        if not share.limits:
            return Grant(claim, now_ms, is_held=False)
        self._hot.apply(OpenTag(claim.tag, TOKEN))
        # What was spent is not known here; what this process may add to it is its share of the whole.
        seeds = tuple(BudgetValue(window.budget, 0, 1) for window in share.money)
        self._hot.apply(Seed(claim.tag, TOKEN, seeds))
        answer = self._hot.apply(Reserve(share, _token_of(share), FOREVER_MS))
        standings = tuple(
            Standing(limit, remaining, reset_ms)
            for limit, (remaining, reset_ms) in zip(share.limits, _standings_of(answer), strict=False)
        )
        if isinstance(answer, Refused):
            return Refusal(share.limits[answer.index], answer.retry_after_ms, standings, answer.is_held)
        if isinstance(answer, Granted):
            self._claims[claim.tag, claim.request_id] = share
            return Grant(claim, now_ms, standings, is_held=False)
        raise LimitsUnavailable

    def settle(self, claim: Claim, outcome: Outcome) -> None:
        """A call that was admitted here has ended; others change nothing."""
        share = self._claims.pop((claim.tag, claim.request_id), None)
        if share is not None:
            bare = msgspec.structs.replace(outcome, record=b"")
            self._hot.apply(Settle(share, _token_of(share), bare))
            if share.money:
                self._settled[claim.tag].append(share)

    def void(self, claim: Claim) -> None:
        """It came to nothing."""
        share = self._claims.pop((claim.tag, claim.request_id), None)
        if share is not None:
            self._hot.apply(Void(share))

    def told(self, tag: str) -> None:
        """The hot state has taken in what SQL knows of a team: money that was settled here counts there now."""
        for share in self._settled.pop(tag, ()):
            known = InSQL(share.request_id, RANK_EXACT, 0, tuple(window.budget for window in share.money))
            self._hot.apply(Confirm(tag, TOKEN, (known,), ()))

    def forget(self) -> None:
        """The hot state is back: what was counted here meanwhile has been told to it, or is over."""
        self._hot.flush()
        self._claims.clear()
        self._settled.clear()

    def _share_of(self, claim: Claim, now_ms: int) -> Claim:
        limits: list[Limit] = []
        money: list[MoneyWindow] = []
        windows = iter(claim.money)
        for limit in claim.limits:
            window = next(windows) if limit.kind == "money" else None
            if limit.mode == "observe":
                continue
            if window is not None:
                if not window.budget.start_ms <= now_ms < window.end_ms:
                    continue
                money.append(window)
            # Of what is more than nothing everybody has something.
            maximum = min(limit.maximum, max(1, limit.maximum // self.processes))
            limits.append(msgspec.structs.replace(limit, maximum=maximum))
        return msgspec.structs.replace(claim, limits=tuple(limits), money=tuple(money), opening=b"")


def _token_of(share: Claim) -> str:
    """Money is kept when it is settled; the rest is over with its call, or its window."""
    return TOKEN if share.money else ""


def _standings_of(answer: object) -> tuple[tuple[int, int], ...]:
    return answer.standings if isinstance(answer, Granted | Refused) else ()
