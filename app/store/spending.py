"""What budgets have spent in the windows that run, of many rules at once."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import and_, cast, func, select

from app.core.calendar import window_of, zone_of
from app.core.clock import QUARTER_MS, quarter_of
from app.core.patterns import matches_any
from app.core.rules import is_plain
from app.store.budgets import SETTLING_MS, spent_in_history
from app.store.tables import INT, budgets, entries, records
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


def running_window(rule: LimitRule, now_ms: int) -> tuple[int, int]:
    """The first millisecond of the window of a budget that runs, and the first of the next one."""
    return window_of(rule.window, rule.time_zone, now_ms)  # type: ignore[arg-type] # those of money are of the calendar


def start_of_window(rule: LimitRule, now_ms: int) -> int:
    """The first millisecond of the window of a budget that runs."""
    return running_window(rule, now_ms)[0]


async def _by_value(connection: AsyncConnection, row: LimitRow, start_ms: int, now_ms: int) -> dict[str | None, int]:
    """By the counters, and of values without one by the bill: their first request under the rule makes it."""
    named = budgets.c.budget_id.startswith(f"{row.rule.id}:", autoescape=True)
    asked = select(budgets.c.budget_id, budgets.c.spent_nanousd).where(and_(budgets.c.start_ms == start_ms, named))
    found = {each.budget_id.partition(":")[2]: each.spent_nanousd for each in await connection.execute(asked)}
    # What was admitted so long after the rule was made has made its counter.
    end_ms = quarter_of(min(now_ms, row.created_at_ms + SETTLING_MS)) + QUARTER_MS
    if start_ms < end_ms:
        ask = _values_in_sums if row.rule.model is None else _values_in_records
        found = await ask(connection, row, start_ms, end_ms) | found
    # A request that was refused has made its counter, and spent nothing.
    most = sorted(((value, spent) for value, spent in found.items() if spent), key=lambda each: (-each[1], each[0]))
    return dict(most[:VALUES_MAX])


async def _values_in_sums(connection: AsyncConnection, row: LimitRow, start_ms: int, end_ms: int) -> dict[str, int]:
    tag = f"tag.{row.rule.tag_name}"
    only = UsageFilter(team_ids=(row.team_id,), key_ids=() if row.key_id is None else (row.key_id,))
    try:
        report = await usage(connection, (tag,), start_ms, end_ms, only=only)
    except UsageNotTold:
        # The tags of so long ago were pruned: a budget does not see them either.
        return {}
    return {each.group[tag]: each.cost_nanousd for each in report.rows if each.group[tag] not in {"", OTHER}}


async def _values_in_records(connection: AsyncConnection, row: LimitRow, start_ms: int, end_ms: int) -> dict[str, int]:
    """Sums are kept by the model that answered, a rule is for what was asked for."""
    asked = (
        select(records.c.tags, records.c.model_requested, cast(func.sum(entries.c.cost_nanousd), INT))
        .join(entries, entries.c.request_id == records.c.request_id)
        .where(records.c.team_id == row.team_id)
        .where(records.c.admitted_at_ms >= start_ms, records.c.admitted_at_ms < end_ms)
        .group_by(records.c.tags, records.c.model_requested)
    )
    if row.key_id is not None:
        asked = asked.where(records.c.key_id == row.key_id)
    found: dict[str, int] = defaultdict(int)
    for text, model, spent in await connection.execute(asked):
        value = msgspec.json.decode(text, type=dict[str, str]).get(row.rule.tag_name or "")
        if value and spent and matches_any([row.rule.model or ""], model):
            found[value] += spent
    return found
