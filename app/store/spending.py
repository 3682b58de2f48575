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
from app.store.usage import UsageFilter, usage

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
    for rule in rules:
        if counts_each_value(rule):
            found[rule.id] = await _by_value(connection, rule.id, starts[rule.id])
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


def running_window(rule: LimitRule, now_ms: int) -> tuple[int, int]:
    """The first millisecond of the window of a budget that runs, and the first of the next one."""
    return window_of(rule.window, rule.time_zone, now_ms)  # type: ignore[arg-type] # those of money are of the calendar


def start_of_window(rule: LimitRule, now_ms: int) -> int:
    """The first millisecond of the window of a budget that runs."""
    return running_window(rule, now_ms)[0]


async def _by_value(connection: AsyncConnection, rule_id: str, start_ms: int) -> dict[str | None, int]:
    named = budgets.c.budget_id.startswith(f"{rule_id}:", autoescape=True)
    asked = (
        select(budgets.c.budget_id, budgets.c.spent_nanousd)
        # A request that was refused has made its counter, and spent nothing.
        .where(and_(budgets.c.start_ms == start_ms, named, budgets.c.spent_nanousd > 0))
        .order_by(budgets.c.spent_nanousd.desc(), budgets.c.budget_id)
        .limit(VALUES_MAX)
    )
    return {row.budget_id.partition(":")[2]: row.spent_nanousd for row in await connection.execute(asked)}
