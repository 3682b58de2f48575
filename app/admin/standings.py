"""Where budgets stand: what is spent of each, what each day cost, and when it will be gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Literal, TypeAlias

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.asking import day_of, start_of
from app.admin.forecast import (
    DAYS_LOOKED_AT,
    HORIZON_DAYS,
    DaySpan,
    days_from,
    forecast,
    gone_at,
    usual_days,
    went_at,
)
from app.core.calendar import FOREVER_MS, zone_of
from app.core.clock import QUARTER_MS, quarter_of
from app.core.patterns import matches_any
from app.store.rows import LimitRow
from app.store.spending import counts_each_value, running_window, spent_by_rule, start_of_window
from app.store.usage import UsageFilter, usage

DAYS_SHOWN_MAX = 92
"""Of a budget without an end; one of a month has 31."""
OWNERS_AT_ONCE = 400

State: TypeAlias = Literal["ok", "warned", "exhausted"]
Spent: TypeAlias = Mapping[date, int]


class ValueStanding(msgspec.Struct, frozen=True):
    """What one value of a tag has spent."""

    tag_value: str
    spent_nanousd: int
    spent_percent: float


class BudgetStands(msgspec.Struct, frozen=True):
    """A budget in the window that runs. ``days`` are those of its own time zone, from the window's first on.

    Where each value of a tag counts on its own, all of this is of the value that has spent the most.
    """

    row: LimitRow
    start_ms: int
    end_ms: int | None
    spent_nanousd: int
    spent_percent: float
    state: State
    days: tuple[tuple[date, int], ...]
    forecast_nanousd: int | None
    exhausted_at_ms: int | None
    values: tuple[ValueStanding, ...] | None = None

    @property
    def left_nanousd(self) -> int:
        return max(0, self.row.rule.maximum - self.spent_nanousd)


async def stand_budgets(connection: AsyncConnection, rows: Sequence[LimitRow], now_ms: int) -> list[BudgetStands]:
    """Of each of ``rows`` (rules of money), in their order."""
    spent = await spent_by_rule(connection, rows, now_ms)
    tops = {row.rule.id: _top_value(row, spent[row.rule.id]) for row in rows}
    days = await _days_of(connection, rows, tops, now_ms)
    return [_stands(row, spent[row.rule.id], days[row.rule.id], now_ms) for row in rows]


async def stand_near(
    connection: AsyncConnection, rows: Sequence[LimitRow], now_ms: int, at_least_percent: float
) -> list[BudgetStands]:
    """Of those of ``rows`` alone that have spent so much: what each day cost is looked up for few."""
    spent = await spent_by_rule(connection, rows, now_ms)
    near = [
        row
        for row in rows
        if percent_of(max(spent[row.rule.id].values(), default=0), row.rule.maximum) >= at_least_percent
    ]
    return await stand_budgets(connection, near, now_ms)


def percent_of(part: int, whole: int) -> float:
    """A budget of nothing is spent."""
    return 100.0 if whole <= 0 else round(100 * part / whole, 1)


def sooner(stands: BudgetStands) -> tuple[int, int, float, str]:
    """What budgets are ordered by: those that are spent, then those that will be, soonest first, then the others."""
    is_spent = stands.state == "exhausted"
    at_ms = FOREVER_MS if stands.exhausted_at_ms is None else stands.exhausted_at_ms
    return 0 if is_spent else 1, at_ms, -stands.spent_percent, stands.row.rule.id


def _top_value(row: LimitRow, spent: Mapping[str | None, int]) -> str | None:
    """The value of a tag that a rule is told of, where each counts on its own."""
    if not counts_each_value(row.rule):
        return row.rule.tag_value
    return max(spent, key=lambda value: (spent[value], value or ""), default=None)


def _stands(row: LimitRow, spent: Mapping[str | None, int], by_day: Spent, now_ms: int) -> BudgetStands:
    rule = row.rule
    zone = zone_of(rule.time_zone)
    today = day_of(now_ms, zone)
    is_endless = rule.window == "total"
    if is_endless:
        first = max(min((day for day, amount in by_day.items() if amount), default=today), _shown_from(today))
        start_ms, end_ms = min(start_of(first, zone), now_ms), None
        last = today + timedelta(days=HORIZON_DAYS)
    else:
        start_ms, end_ms = running_window(rule, now_ms)
        first, last = day_of(start_ms, zone), day_of(end_ms - 1, zone) + timedelta(days=1)
    shown = [*days_from(first, today), today]
    taken = max(spent.values(), default=0)
    coming = [
        DaySpan(day, start_of(day, zone), start_of(day + timedelta(days=1), zone)) for day in days_from(today, last)
    ]
    usual = usual_days(by_day, today)
    expected = {} if usual is None else {span.day: usual[span.day.weekday()] for span in coming}
    percent = percent_of(taken, rule.maximum)
    is_spent = taken >= rule.maximum
    if is_spent:
        past = [DaySpan(day, start_of(day, zone), start_of(day + timedelta(days=1), zone)) for day in shown]
        exhausted_at_ms = went_at(rule.maximum, by_day, past, now_ms)
    else:
        exhausted_at_ms = gone_at(rule.maximum, taken, expected, by_day.get(today, 0), coming, now_ms)
    foreseen = None if is_endless else forecast(by_day, today, first, last)
    return BudgetStands(
        row=row,
        start_ms=start_ms,
        end_ms=end_ms,
        spent_nanousd=taken,
        spent_percent=percent,
        state="exhausted" if is_spent else "warned" if _is_warned(row, percent) else "ok",
        days=tuple((day, by_day.get(day, 0)) for day in shown),
        forecast_nanousd=None if foreseen is None else max(foreseen.total_nanousd, taken),
        exhausted_at_ms=exhausted_at_ms,
        values=_values(rule.maximum, spent) if counts_each_value(rule) else None,
    )


def _is_warned(row: LimitRow, percent: float) -> bool:
    return bool(row.warn_percents) and percent >= row.warn_percents[0]


def _values(maximum: int, spent: Mapping[str | None, int]) -> tuple[ValueStanding, ...]:
    return tuple(
        ValueStanding(value or "", amount, percent_of(amount, maximum))
        for value, amount in sorted(spent.items(), key=lambda each: (-each[1], each[0] or ""))
    )


def _shown_from(today: date) -> date:
    return today - timedelta(days=DAYS_SHOWN_MAX - 1)


# -- what each day cost -----------------------------------------------------------------------


async def _days_of(
    connection: AsyncConnection, rows: Sequence[LimitRow], tops: Mapping[str, str | None], now_ms: int
) -> dict[str, Spent]:
    """By the ids of rules: rules that count all of their owner's requests are asked together."""
    found: dict[str, Spent] = {}
    together: dict[tuple[str, bool], list[LimitRow]] = defaultdict(list)
    for row in rows:
        rule = row.rule
        if rule.model is None and rule.tag_name is None:
            together[rule.time_zone, row.key_id is not None].append(row)
        else:
            found[rule.id] = await _days_of_narrow(connection, row, tops[rule.id], now_ms)
    for (time_zone, is_of_keys), group in together.items():
        for first in range(0, len(group), OWNERS_AT_ONCE):
            part = group[first : first + OWNERS_AT_ONCE]
            by_owner = await _days_of_owners(connection, part, time_zone, is_of_keys=is_of_keys, now_ms=now_ms)
            for row in part:
                found[row.rule.id] = by_owner.get(row.key_id if is_of_keys else row.team_id, {})
    return found


async def _days_of_owners(
    connection: AsyncConnection, rows: Sequence[LimitRow], time_zone: str, *, is_of_keys: bool, now_ms: int
) -> dict[str | None, dict[date, int]]:
    if is_of_keys:
        only = UsageFilter(key_ids=tuple({row.key_id for row in rows if row.key_id is not None}))
    else:
        only = UsageFilter(team_ids=tuple({row.team_id for row in rows}))
    zone = zone_of(time_zone)
    start_ms = min(_looked_at_from(row, now_ms) for row in rows)
    by = ("key" if is_of_keys else "team", "day")
    report = await usage(connection, by, start_ms, _end_of_now(now_ms), zone, only=only)
    found: dict[str | None, dict[date, int]] = defaultdict(dict)
    for each in report.rows:
        found[each.key_id if is_of_keys else each.team_id][date.fromisoformat(each.group["day"])] = each.cost_nanousd
    return found


async def _days_of_narrow(connection: AsyncConnection, row: LimitRow, tag_value: str | None, now_ms: int) -> Spent:
    """Of one for a model or a tag. Sums are kept by the model that answered, a rule is for what was asked for: of an
    alias the days show nothing, though it is counted.
    """
    rule = row.rule
    only = UsageFilter(
        team_ids=(row.team_id,),
        key_ids=() if row.key_id is None else (row.key_id,),
        tags=() if rule.tag_name is None or tag_value is None else ((rule.tag_name, (tag_value,)),),
    )
    if rule.tag_name is not None and tag_value is None:
        return {}
    start_ms = _looked_at_from(row, now_ms)
    by = ("day",) if rule.model is None else ("model", "day")
    report = await usage(connection, by, start_ms, _end_of_now(now_ms), zone_of(rule.time_zone), only=only)
    days: dict[date, int] = defaultdict(int)
    for each in report.rows:
        if rule.model is None or matches_any([rule.model], each.group["model"]):
            days[date.fromisoformat(each.group["day"])] += each.cost_nanousd
    return days


def _looked_at_from(row: LimitRow, now_ms: int) -> int:
    """The start of its window, or of the four weeks that a forecast looks at."""
    rule = row.rule
    zone = zone_of(rule.time_zone)
    today = day_of(now_ms, zone)
    weeks_ms = start_of(today - timedelta(days=DAYS_LOOKED_AT), zone)
    if rule.window == "total":
        return start_of(_shown_from(today), zone)
    return min(weeks_ms, start_of_window(rule, now_ms))


def _end_of_now(now_ms: int) -> int:
    return quarter_of(now_ms) + QUARTER_MS
