"""What a claim needs to be decided, and what the hot state's answer to it means."""

from __future__ import annotations

from app.core.calendar import FOREVER_MS
from app.core.records import BudgetWindow
from app.limits.hot import Granted, Refused
from app.limits.limiter import Claim, Grant, Refusal, Standing


def seeded_windows(claim: Claim) -> list[BudgetWindow]:
    """The windows of a claim's budgets, and those that follow: a new day must not depend on SQL."""
    windows: list[BudgetWindow] = []
    for window in claim.money:
        windows.append(window.budget)
        if window.end_ms < FOREVER_MS:
            windows.append(BudgetWindow(window.budget.budget_id, window.end_ms))
    return windows


def decision_of(claim: Claim, answer: object) -> Grant | Refusal | None:
    """A granted or refused claim, in our words; None for any other answer."""
    if not isinstance(answer, Granted | Refused):
        return None
    standings = tuple(
        Standing(limit, remaining, reset_ms)
        for limit, (remaining, reset_ms) in zip(claim.limits, answer.standings, strict=True)
    )
    if isinstance(answer, Granted):
        observed = tuple(claim.limits[index] for index in answer.observed)
        return Grant(claim, answer.admitted_at_ms, standings, observed)
    return Refusal(claim.limits[answer.index], answer.retry_after_ms, standings, answer.is_held)
