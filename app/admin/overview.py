"""All that the first view shows, from one reading: each figure is a sum of the one usage query."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.asking import day_of, start_of
from app.admin.attention import (
    NEAR_PERCENT,
    BudgetNear,
    Item,
    KeyExpiring,
    Reader,
    Unpriced,
    UpstreamUnwell,
    attention,
)
from app.admin.forecast import (
    DAYS_LOOKED_AT,
    WEEKS,
    Forecast,
    change_percent,
    days_from,
    forecast,
    share_percent,
    usual_days,
)
from app.admin.service import health_of, service_data
from app.admin.standings import BudgetStands, stand_near
from app.admin.usage_pages import COLORED_MAX, colors_for
from app.admin.usage_reading import member_of
from app.admin.wire import InForce
from app.core.calendar import window_of, zone_of
from app.core.clock import QUARTER_MS, quarter_of
from app.core.money import usd_text
from app.core.rules import is_plain
from app.store.database import Database
from app.store.explanations import iso_time
from app.store.limits import list_limits
from app.store.people import KeySearch, OwnerNames, names_of, search_keys
from app.store.rows import LimitRow
from app.store.usage import UsageFilter, UsageReport, UsageRow, usage

TOP = 10
EXPIRING_MAX = 200
OTHER = "_other"
OTHER_NAME = "Other"


class View(msgspec.Struct, frozen=True):
    """What is asked for: of no ``team_ids`` all teams; ``show`` is what columns are made of."""

    now_ms: int
    time_zone: str
    team_ids: tuple[str, ...]
    show: str
    reader: Reader

    @property
    def only(self) -> UsageFilter:
        return UsageFilter(team_ids=self.team_ids)

    @property
    def only_team(self) -> str | None:
        """Where it is of one team."""
        return self.team_ids[0] if len(self.team_ids) == 1 else None

    def holds(self, team_id: str) -> bool:
        return not self.team_ids or team_id in self.team_ids

    @property
    def end_ms(self) -> int:
        """Of the quarter of an hour that runs."""
        return quarter_of(self.now_ms) + QUARTER_MS

    @property
    def month(self) -> tuple[int, int]:
        return window_of("month", self.time_zone, self.now_ms)

    @property
    def today(self) -> date:
        return day_of(self.now_ms, zone_of(self.time_zone))


class Reading(msgspec.Struct, frozen=True):
    """What was read, all at one moment. ``usual_nanousd`` is what today's weekday has cost by this time."""

    month: UsageReport
    before: UsageReport
    keys: UsageReport
    models: UsageReport
    days: dict[date, int]
    usual_nanousd: int | None
    rules: list[LimitRow]
    items: list[Item]
    service: dict[str, Any]


async def overview_data(database: Database, in_force: InForce, view: View) -> dict[str, Any]:
    """The answer. Raises StoreError."""
    async with database.read() as connection:
        reading = await _read(connection, in_force, view)
    members = _members(reading.month, view.show)
    shown = list(members)[:COLORED_MAX]
    colors = await colors_for(database, view.show, shown)
    top_keys = sorted(reading.keys.rows, key=lambda row: (-row.cost_nanousd, row.group["key"], row.key_id or ""))[:TOP]
    top_models = sorted(reading.models.rows, key=lambda row: (-row.cost_nanousd, row.group["model"]))[:TOP]
    team_colors = await colors_for(database, "team", [row.team_id or "" for row in top_keys])
    model_colors = await colors_for(database, "model", [row.group["model"] for row in top_models])
    start_ms, end_ms = view.month
    zone = zone_of(view.time_zone)
    foreseen = forecast(reading.days, view.today, day_of(start_ms, zone), day_of(end_ms - 1, zone) + timedelta(days=1))
    total = reading.month.total
    return {
        "time_zone": view.time_zone,
        "until": iso_time(view.now_ms),
        "month": {
            "from": iso_time(start_ms),
            "to": iso_time(end_ms),
            "spent_usd": usd_text(total.cost_nanousd),
            "estimated_usd": usd_text(total.estimated_nanousd),
            "unpriced": total.unpriced,
            "budget_usd": _usd(_month_budget(reading, in_force)),
            "forecast_usd": None if foreseen is None else usd_text(foreseen.total_nanousd),
            "change_percent": change_percent(total.cost_nanousd, reading.before.total.cost_nanousd),
        },
        "today": _today(reading, view),
        "requests": {"requests": total.requests, "failed": total.failed},
        "saved": {"saved_usd": usd_text(total.saved_nanousd)},
        "attention": [msgspec.to_builtins(item) for item in reading.items],
        "days": _days(reading.month, view, frozenset(shown), foreseen),
        "legend": _legend(reading, view.show, members, shown, colors),
        "top_keys": [_top_key(row, team_colors) for row in top_keys],
        "top_models": [_top_model(row, model_colors) for row in top_models],
        "service": reading.service,
    }


# -- reading ----------------------------------------------------------------------------------


async def _read(connection: AsyncConnection, in_force: InForce, view: View) -> Reading:
    zone = zone_of(view.time_zone)
    start_ms, _ = view.month
    only, end_ms = view.only, view.end_ms
    month = await usage(connection, (view.show, "day"), start_ms, end_ms, zone, only=only)
    before_start_ms, before_end_ms = _month_before(view)
    before = await usage(connection, (view.show,), before_start_ms, before_end_ms, zone, only=only)
    looked_at_ms = start_of(view.today - timedelta(days=DAYS_LOOKED_AT), zone)
    weeks = await usage(connection, ("day",), min(looked_at_ms, start_ms), end_ms, zone, only=only)
    days = {date.fromisoformat(row.group["day"]): row.cost_nanousd for row in weeks.rows}
    keys = await usage(connection, ("team", "key"), start_ms, end_ms, zone, only=only)
    models = await usage(connection, ("model",), start_ms, end_ms, zone, only=only)
    rules = [
        row
        for row in await list_limits(connection, view.only_team)
        if row.rule.kind == "money" and view.holds(row.team_id)
    ]
    near = await stand_near(connection, rules, view.now_ms, NEAR_PERCENT)
    key_ids = [stands.row.key_id for stands in near if stands.row.key_id is not None]
    names = await names_of(connection, [stands.row.team_id for stands in near], key_ids)
    items = attention(
        [_near(stands, names) for stands in near],
        await _unwell(connection, in_force, view),
        _unpriced(models),
        await _expiring(connection, view),
        reader=view.reader,
        zone=zone,
        now_ms=view.now_ms,
    )
    return Reading(
        month=month,
        before=before,
        keys=keys,
        models=models,
        days=days,
        usual_nanousd=await _usual_by_now(connection, view, days),
        rules=rules,
        items=items,
        service=await service_data(connection, in_force, view.now_ms, team_ids=view.team_ids),
    )


def _month_before(view: View) -> tuple[int, int]:
    """As much of the month before as there is of this one: to the same day and time, at most to its end."""
    zone = zone_of(view.time_zone)
    start_ms, _ = view.month
    before_start_ms, before_end_ms = window_of("month", view.time_zone, start_ms - 1)
    now = datetime.fromtimestamp(view.now_ms / 1000, zone)
    first = day_of(before_start_ms, zone)
    day = first + timedelta(days=now.day - 1)
    if day.month != first.month:
        return before_start_ms, before_end_ms
    return before_start_ms, min(_same_time(day, view), before_end_ms)


def _same_time(day: date, view: View) -> int:
    """The quarter of an hour nearest to the time that it is now, on another day."""
    now = datetime.fromtimestamp(view.now_ms / 1000, zone_of(view.time_zone))
    at = now.replace(year=day.year, month=day.month, day=day.day)
    return quarter_of(round(at.timestamp() * 1000) + QUARTER_MS // 2)


async def _usual_by_now(connection: AsyncConnection, view: View, days: Mapping[date, int]) -> int | None:
    """What this weekday has cost until this time, on the mean of four weeks; None: too early to say."""
    if usual_days(days, view.today) is None:
        return None
    zone = zone_of(view.time_zone)
    first = min(days)
    amounts = []
    for weeks in range(1, WEEKS + 1):
        day = view.today - timedelta(weeks=weeks)
        if day < first:
            break
        start_ms, end_ms = start_of(day, zone), _same_time(day, view)
        # By the hour: of a part of a day there are sums by hours, and none of all of it.
        hours = await usage(connection, ("hour",), start_ms, max(end_ms, start_ms), zone, only=view.only)
        amounts.append(hours.total.cost_nanousd)
    return sum(amounts) // len(amounts) if amounts else None


async def _unwell(connection: AsyncConnection, in_force: InForce, view: View) -> list[UpstreamUnwell]:
    """A lead cannot do anything about an upstream."""
    if view.reader == "lead":
        return []
    health = await health_of(connection, in_force, view.now_ms)
    return [
        UpstreamUnwell(
            name, each.state, each.since_ms, each.recent_percent, each.pause.actor_name if each.pause else ""
        )
        for name, each in health.items()
        if each.state in {"down", "degraded", "paused"}
    ]


async def _expiring(connection: AsyncConnection, view: View) -> list[KeyExpiring]:
    search = KeySearch(listing="expiring", team_id=view.only_team)
    found = await search_keys(connection, search, now_ms=view.now_ms, limit=EXPIRING_MAX)
    return [
        KeyExpiring(key.id, key.name, place[0], key.expires_at_ms)
        for place, key in found
        if key.expires_at_ms is not None and view.holds(key.team_id)
    ]


def _unpriced(models: UsageReport) -> Unpriced:
    rows = sorted((row for row in models.rows if row.unpriced > 0), key=lambda row: -row.unpriced)
    return Unpriced(models.total.unpriced, tuple(row.group["model"] for row in rows))


def _near(stands: BudgetStands, names: OwnerNames) -> BudgetNear:
    row = stands.row
    name = names.teams.get(row.team_id, row.team_id) if row.key_id is None else names.keys.get(row.key_id, row.key_id)
    narrowed = [row.rule.model, row.rule.tag_value or row.rule.tag_name]
    return BudgetNear(
        id=row.rule.id,
        name=" · ".join([name, *(each for each in narrowed if each is not None)]),
        spent_percent=stands.spent_percent,
        left_nanousd=stands.left_nanousd,
        is_exhausted=stands.state == "exhausted" and row.rule.mode == "enforce",
        gone_at_ms=stands.exhausted_at_ms,
        window_to_ms=stands.end_ms,
    )


# -- telling ----------------------------------------------------------------------------------


def _today(reading: Reading, view: View) -> dict[str, Any]:
    spent = reading.days.get(view.today, 0)
    usual = reading.usual_nanousd
    return {"spent_usd": usd_text(spent), "usual_percent": None if usual is None else change_percent(spent, usual)}


def _month_budget(reading: Reading, in_force: InForce) -> int | None:
    """The sum of what teams may spend in a month; None where one that spends has no such budget."""
    defaults = [
        rule.maximum
        for rule in in_force.configuration.limits.team_rules
        if rule.kind == "money" and rule.window == "month"
    ]
    budgets = {row.team_id: row.rule.maximum for row in reading.rules if _is_of_month(row)}
    spending = {row.team_id for row in reading.keys.rows if row.cost_nanousd and row.team_id is not None}
    without = spending - budgets.keys()
    if (without and not defaults) or not (budgets or without):
        return None
    return sum(budgets.values()) + len(without) * (defaults[0] if defaults else 0)


def _is_of_month(row: LimitRow) -> bool:
    return row.key_id is None and is_plain(row.rule) and row.rule.window == "month" and row.rule.mode == "enforce"


def _members(report: UsageReport, show: str) -> dict[str, tuple[str, int]]:
    """(name, cost) of each member, those of the largest cost first."""
    found: dict[str, tuple[str, int]] = {}
    for row in report.rows:
        member = member_of(row, show)
        _, cost = found.get(member, ("", 0))
        found[member] = (row.group[show], cost + row.cost_nanousd)
    return dict(sorted(found.items(), key=lambda each: (-each[1][1], each[0])))


def other_id(members: Collection[str]) -> str:
    """What Other is known by: a client may have called something `_other` too."""
    found = OTHER
    while found in members:
        found = f"_{found}"
    return found


def _days(report: UsageReport, view: View, shown: frozenset[str], foreseen: Forecast | None) -> list[dict[str, Any]]:
    """Every day of the month, those to come with nothing but what is expected of them."""
    zone = zone_of(view.time_zone)
    rows: dict[date, list[UsageRow]] = defaultdict(list)
    other = other_id(shown)
    for row in report.rows:
        rows[date.fromisoformat(row.group["day"])].append(row)
    start_ms, end_ms = view.month
    days = []
    for day in days_from(day_of(start_ms, zone), day_of(end_ms - 1, zone) + timedelta(days=1)):
        parts: dict[str, int] = defaultdict(int)
        for row in rows[day]:
            member = member_of(row, view.show)
            parts[member if member in shown else other] += row.cost_nanousd
        expected = None if foreseen is None else foreseen.days.get(day)
        days.append(
            {
                "day": day.isoformat(),
                "cost_usd": usd_text(sum(parts.values())),
                "unpriced": sum(row.unpriced for row in rows[day]),
                "parts": {member: usd_text(cost) for member, cost in parts.items()},
                "forecast_usd": None if expected is None else usd_text(expected),
            }
        )
    return days


def _legend(
    reading: Reading,
    show: str,
    members: Mapping[str, tuple[str, int]],
    shown: Sequence[str],
    colors: Mapping[str, int],
) -> list[dict[str, Any]]:
    before: dict[str, int] = defaultdict(int)
    other = other_id(shown)
    for row in reading.before.rows:
        member = member_of(row, show)
        before[member if member in shown else other] += row.cost_nanousd
    costs = {member: members[member] for member in shown}
    rest = sum(cost for member, (_, cost) in members.items() if member not in costs)
    if len(members) > len(shown):
        costs[other] = (OTHER_NAME, rest)
    whole = reading.month.total.cost_nanousd
    return [
        {
            "id": member,
            "name": name if member or not show.startswith("tag.") else f"no {show.removeprefix('tag.')}",
            "color": colors.get(member, 0),
            "is_other": member == other,
            "cost_usd": usd_text(cost),
            "share_percent": share_percent(cost, whole, 1),
            "change_percent": change_percent(cost, before[member]),
        }
        for member, (name, cost) in costs.items()
    ]


def _top_key(row: UsageRow, colors: Mapping[str, int]) -> dict[str, Any]:
    team = row.team_id or ""
    return {
        "id": row.key_id,
        "name": row.group["key"],
        "team": {"id": team, "name": row.group["team"], "color": colors.get(team, 0)},
        **_top(row),
    }


def _top_model(row: UsageRow, colors: Mapping[str, int]) -> dict[str, Any]:
    return {"name": row.group["model"], "color": colors.get(row.group["model"], 0), **_top(row)}


def _top(row: UsageRow) -> dict[str, Any]:
    return {
        "requests": row.requests,
        "tokens": row.input_tokens + row.output_tokens,
        "cost_usd": usd_text(row.cost_nanousd),
        "unpriced": row.unpriced,
    }


def _usd(nanousd: int | None) -> str | None:
    return None if nanousd is None else usd_text(nanousd)
