"""What budgets have spent in the windows that run, of many rules at once."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sqlalchemy import and_, select

from app.core.calendar import window_of, zone_of
from app.core.clock import QUARTER_MS, quarter_of
from app.core.rules import is_plain
from app.store.budgets import spent_in_history
from app.store.tables import budgets
from app.store.tag_values import OTHER
from app.store.usage import UsageFilter, UsageNotTold, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.core.identity import LimitRule
    from app.store.rows import LimitRow

IDS_AT_ONCE = 400
VALUES_MAX = 200


async def spent_by_rule(
    connection: AsyncConnection, rows: Sequence[LimitRow], now_ms: int
) -> dict[str, dict[str | None, int]]:
    """Nano-dollars by the ids of rules (of money): of one that counts each value of a tag on its own, those of
    the values that have spent something, at most 200 that spent the most; of any other under None.
    """
    rules = [row.rule for row in rows]
    starts = {rule.id: start_of_window(rule, now_ms) for rule in rules}
    found: dict[str, dict[str | None, int]] = {}
    single = [rule for rule in rules if not counts_each_value(rule)]
    for first in range(0, len(single), IDS_AT_ONCE):
        part = single[first : first + IDS_AT_ONCE]
        asked = select(budgets.c.budget_id, budgets.c.start_ms, budgets.c.spent_nanousd).where(
            budgets.c.budget_id.in_([rule.id for rule in part]),
            budgets.c.start_ms.in_(sorted({starts[rule.id] for rule in part})),
        )
        for counter in await connection.execute(asked):
            if starts[counter.budget_id] == counter.start_ms:
                found[counter.budget_id] = {None: counter.spent_nanousd}
    for row in rows:
        if counts_each_value(row.rule):
            found[row.rule.id] = await _by_value(connection, row, starts[row.rule.id], now_ms)
    await _told_by_the_bill(connection, [row for row in rows if row.rule.id not in found], found, now_ms)
    return found


async def _told_by_the_bill(
    connection: AsyncConnection, rows: Sequence[LimitRow], found: dict[str, dict[str | None, int]], now_ms: int
) -> None:
    """Of those without a counter, which the first request makes: rules of one kind and window are asked together."""
    together: dict[tuple[str, str, bool], list[LimitRow]] = defaultdict(list)
    for row in rows:
        rule = row.rule
        if is_plain(rule) and rule.window != "total":
            together[rule.window, rule.time_zone, row.key_id is not None].append(row)
        else:
            spent = await spent_in_history(connection, rule.id, start_of_window(rule, now_ms))
            found[rule.id] = {None: spent}
    for (_, time_zone, is_of_keys), group in together.items():
        start_ms = start_of_window(group[0].rule, now_ms)
        for first in range(0, len(group), IDS_AT_ONCE):
            part = group[first : first + IDS_AT_ONCE]
            ids = tuple({_owner(row) for row in part})
            only = UsageFilter(key_ids=ids) if is_of_keys else UsageFilter(team_ids=ids)
            by = ("key",) if is_of_keys else ("team",)
            end_ms = quarter_of(now_ms) + QUARTER_MS
            report = await usage(connection, by, start_ms, end_ms, zone_of(time_zone), only=only)
            spent_of = {each.key_id if is_of_keys else each.team_id: each.cost_nanousd for each in report.rows}
            for row in part:
                found[row.rule.id] = {None: spent_of.get(_owner(row), 0)}


def _owner(row: LimitRow) -> str:
    return row.team_id if row.key_id is None else row.key_id


def counts_each_value(rule: LimitRule) -> bool:
    return rule.tag_name is not None and rule.tag_value is None


def start_of_window(rule: LimitRule, now_ms: int) -> int:
    """The first millisecond of the window of a budget that runs."""
    return window_of(rule.window, rule.time_zone, now_ms)[0]  # type: ignore[arg-type] # those of money are of the calendar


async def _by_value(connection: AsyncConnection, row: LimitRow, start_ms: int, now_ms: int) -> dict[str | None, int]:
    """From the counters; of values whose counter the next request with them makes, from the bill."""
    rule_id = row.rule.id
    named = budgets.c.budget_id.startswith(f"{rule_id}:", autoescape=True)
    asked = select(budgets.c.budget_id, budgets.c.spent_nanousd).where(and_(budgets.c.start_ms == start_ms, named))
    spent: dict[str | None, int] = {
        counter.budget_id.partition(":")[2]: counter.spent_nanousd for counter in await connection.execute(asked)
    }
    for value, nanousd in await _used_by_value(connection, row, start_ms, now_ms):
        if value in spent:
            continue
        if row.rule.model is not None:
            nanousd = await spent_in_history(connection, f"{rule_id}:{value}", start_ms)  # noqa: PLW2901 - of its models
        spent[value] = nanousd
    # A request that was refused has made its counter, and spent nothing.
    most = sorted((value for value in spent if spent[value] > 0), key=lambda value: (-spent[value], value or ""))
    return {value: spent[value] for value in most[:VALUES_MAX]}


async def _used_by_value(
    connection: AsyncConnection, row: LimitRow, start_ms: int, now_ms: int
) -> list[tuple[str, int]]:
    """The values of a rule's tag that cost something in the window, those that cost the most first; none where the
    sums of so long ago are not kept by tag.
    """
    name = row.rule.tag_name
    only = UsageFilter(team_ids=(row.team_id,), key_ids=() if row.key_id is None else (row.key_id,))
    end_ms = quarter_of(now_ms) + QUARTER_MS
    try:
        report = await usage(connection, (f"tag.{name}",), start_ms, end_ms, zone_of(row.rule.time_zone), only=only)
    except UsageNotTold:
        return []
    rows = sorted(report.rows, key=lambda each: -each.cost_nanousd)
    values = [(each.group[f"tag.{name}"], each.cost_nanousd) for each in rows if each.cost_nanousd > 0]
    return [(value, cost) for value, cost in values if value not in {"", OTHER}][:VALUES_MAX]
