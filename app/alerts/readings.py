"""From figures to readings, without I/O: what is wrong with a budget, a key, an upstream, and how much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from app.alerts.decisions import Reading
from app.alerts.kinds import (
    EXHAUSTED_PERCENT,
    LEVELS_MAX,
    BudgetParameters,
    ExpiryParameters,
    UpstreamParameters,
    VelocityParameters,
)
from app.core.calendar import FOREVER_MS
from app.core.identity import LimitRule
from app.core.money import nanousd_from_usd, usd_text
from app.store.alert_figures import KeyEnd, Owner, Spender, UnpricedSum, UpstreamSum
from app.store.alert_states import Alert
from app.store.upstream_sights import UpstreamSight

DAY_MS = 24 * 60 * 60 * 1000
BUDGET_SLACK_PERCENT = 2
"""So far below a threshold it is no longer reached: corrections of the bill take a little away."""
REFUSED_MIN = 3
"""Fewer may be one client that wants too much at once."""
FAILED_SLACK_PERCENT = 20
EXPIRY_SLACK_MS = 60 * 60 * 1000
BAR_KEPT_MS = DAY_MS
"""So long spending is measured by the week before the alert: what it began with is then its own week."""
TEN_OF_QUARTER = 2, 3
"""Ten minutes of a quarter of an hour, which is what the ledger sums."""


def iso_time(at_ms: int) -> str:
    """``2026-11-24T15:40:12.123Z``."""
    text = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class BudgetNow(msgspec.Struct, frozen=True, kw_only=True):
    """A budget in its window. ``refused``: requests of the last quarter of an hour that wanted more than was left."""

    rule: LimitRule
    owner: Owner
    window: tuple[int, int]
    budget_id: str
    warn_percents: tuple[int, ...] = ()
    tag_value: str | None = None
    spent_nanousd: int = 0
    refused: int = 0

    @property
    def subject(self) -> str:
        """Each window is one of its own."""
        return f"{self.budget_id}@{self.window[0]}"


def is_quiet(parameters: BudgetParameters, budget: BudgetNow) -> bool:
    """Whether nothing would begin to fire for it: cheaper to say than what would."""
    least = min((*(budget.warn_percents or parameters.percents), EXHAUSTED_PERCENT))
    return budget.refused < REFUSED_MIN and budget.spent_nanousd * 100 < budget.rule.maximum * least


def budget_reading(parameters: BudgetParameters, budget: BudgetNow, earlier: Alert | None = None) -> Reading | None:
    """A budget of nothing has no parts of which to be told.

    One that is enforced refuses what would go beyond it, so that all of it is never spent: it counts as used up
    when it refuses. That it did is not over when nobody asks, as long as no more is left.
    """
    rule, spent = budget.rule, budget.spent_nanousd
    if rule.maximum <= 0:
        return None
    thresholds = sorted({*(budget.warn_percents or parameters.percents), EXHAUSTED_PERCENT})
    level = _highest(thresholds, lambda percent: spent * 100 >= rule.maximum * percent)
    holds = _highest(thresholds, lambda percent: spent * 100 >= rule.maximum * (percent - BUDGET_SLACK_PERCENT))
    maximum_usd = usd_text(rule.maximum)
    has_refused = (
        earlier is not None and earlier.level >= EXHAUSTED_PERCENT and earlier.figures["maximum_usd"] == maximum_usd
    )
    if budget.refused >= REFUSED_MIN:
        level = max(level, EXHAUSTED_PERCENT)
    elif has_refused and (budget.refused or holds):
        holds = max(holds, EXHAUSTED_PERCENT)
    start_ms, end_ms = budget.window
    figures: dict[str, Any] = {
        "budget_id": rule.id,
        "window": rule.window,
        "time_zone": rule.time_zone,
        "window_from": iso_time(start_ms),
        "window_to": None if end_ms >= FOREVER_MS else iso_time(end_ms),
        "maximum_usd": maximum_usd,
        "spent_usd": usd_text(spent),
        "spent_percent": spent * 1000 // rule.maximum / 10,
        "threshold_percent": holds if has_refused and holds >= EXHAUSTED_PERCENT else level or holds,
        "refused_15_minutes": budget.refused,
        "model": rule.model,
        "tag_name": rule.tag_name,
        "tag_value": rule.tag_value if budget.tag_value is None else budget.tag_value,
        "mode": rule.mode,
    }
    return Reading(
        subject=budget.subject,
        level=level,
        holds=holds,
        severity="bad" if level >= EXHAUSTED_PERCENT else "warn",
        figures=figures,
        team_id=budget.owner.team_id,
        team_name=budget.owner.team_name,
        key_id=budget.owner.key_id,
        key_name=budget.owner.key_name,
    )


def velocity_reading(
    parameters: VelocityParameters, spender: Spender, busiest_quarter_nanousd: int, earlier: Alert | None, now_ms: int
) -> Reading:
    """A key's last ten minutes, ``spender.nanousd``. While an alert fires it is measured by what was usual before."""
    part, whole = TEN_OF_QUARTER
    busiest = busiest_quarter_nanousd * part // whole
    if earlier is not None and now_ms - earlier.fired_at_ms < BAR_KEPT_MS:
        busiest = nanousd_from_usd(earlier.figures["busiest_10_minutes_usd"])
    bar = max(parameters.minimum_nanousd, round(busiest * parameters.times))
    level = _doublings(spender.nanousd, bar)
    return Reading(
        subject=spender.key_id,
        level=level,
        holds=_doublings(spender.nanousd * 2, bar),
        severity="bad" if level > 1 else "warn",
        figures={
            "spent_10_minutes_usd": usd_text(spender.nanousd),
            "busiest_10_minutes_usd": usd_text(busiest),
            "times": parameters.times,
            "bar_usd": usd_text(bar),
        },
        team_id=spender.team_id,
        team_name=spender.team_name,
        key_id=spender.key_id,
        key_name=spender.key_name,
    )


def _doublings(nanousd: int, bar: int) -> int:
    """0 below the bar, 1 from it on, 2 from twice the bar on, 3 from four times."""
    level = 0
    while level < LEVELS_MAX and nanousd >= bar << level:
        level += 1
    return level


def unpriced_readings(sums: Iterable[UnpricedSum], team_id: str | None) -> list[Reading]:
    """A reading for each model and upstream: of all teams, or of one."""
    numbers: dict[tuple[str, str], int] = {}
    for each in sums:
        if team_id in {None, each.team_id}:
            place = each.model, each.upstream
            numbers[place] = numbers.get(place, 0) + each.unpriced
    return [
        Reading(
            subject=f"{upstream}/{model}",
            level=1,
            holds=1,
            severity="warn",
            figures={"model": model, "upstream": upstream, "requests": number},
            team_id=team_id,
        )
        for (model, upstream), number in sorted(numbers.items())
        if number > 0
    ]


def unreachable_reading(parameters: UpstreamParameters, sight: UpstreamSight, now_ms: int) -> Reading:
    is_down = now_ms - sight.down_since_ms >= parameters.after_s * 1000
    return Reading(
        subject=sight.upstream,
        level=int(is_down),
        # Whatever process still sees it away keeps the alert up.
        holds=1,
        severity="bad",
        figures={
            "upstream": sight.upstream,
            "cause": "unreachable",
            "since": iso_time(sight.down_since_ms),
            "processes": sight.processes,
        },
    )


def failing_reading(parameters: UpstreamParameters, found: UpstreamSum, requests_min: int) -> Reading:
    def is_over(percent: int) -> bool:
        return found.requests >= requests_min and found.failed * 100 >= found.requests * percent

    return Reading(
        subject=found.upstream,
        level=int(is_over(parameters.failed_percent)),
        holds=int(is_over(max(1, parameters.failed_percent - FAILED_SLACK_PERCENT))),
        severity="bad",
        figures={
            "upstream": found.upstream,
            "cause": "failing",
            "requests_10_minutes": found.requests,
            "failed_10_minutes": found.failed,
        },
    )


def expiry_reading(parameters: ExpiryParameters, end: KeyEnd, now_ms: int) -> Reading | None:
    """A key that stops working on its own day, or because the last of its secrets does."""
    ends = [at_ms for at_ms in (end.key_ends_at_ms, end.secrets_end_at_ms) if at_ms is not None]
    if not ends:
        return None
    at_ms = min(ends)
    days = sorted(set(parameters.days), reverse=True)
    level = sum(at_ms - now_ms <= each * DAY_MS for each in days)
    return Reading(
        subject=end.key_id,
        level=level,
        holds=sum(at_ms - now_ms - EXPIRY_SLACK_MS <= each * DAY_MS for each in days),
        severity="bad" if level == len(days) else "warn",
        figures={
            "expires_at": iso_time(at_ms),
            "days_left": max(0, (at_ms - now_ms) // DAY_MS),
            "threshold_days": days[level - 1] if level else days[0],
            "cause": "key" if at_ms == end.key_ends_at_ms else "last_secret",
        },
        team_id=end.team_id,
        team_name=end.team_name,
        key_id=end.key_id,
        key_name=end.key_name,
    )


def _highest(thresholds: Sequence[int], is_reached: Any) -> int:
    return max((percent for percent in thresholds if is_reached(percent)), default=0)
