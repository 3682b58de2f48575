"""What budgets have spent in the windows that run, of many rules at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, select

from app.core.calendar import window_of
from app.core.rules import is_plain
from app.store.budgets import spent_in_history
from app.store.tables import budgets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.core.identity import LimitRule

IDS_AT_ONCE = 400
VALUES_MAX = 200


async def spent_by_rule(
    connection: AsyncConnection, rules: Sequence[LimitRule], now_ms: int
) -> dict[str, dict[str | None, int]]:
    """Nano-dollars by the ids of ``rules`` (of money): of one that counts each value of a tag on its own, those of
    the values that have spent something, at most 200 that spent the most; of any other under None.

    Left out is a rule that counts all of its owner's requests, in a window that ends, of which none came yet: what
    its days cost is what it has spent.
    """
    starts = {rule.id: start_of_window(rule, now_ms) for rule in rules}
    single = [rule for rule in rules if not counts_each_value(rule)]
    found: dict[str, dict[str | None, int]] = {}
    for first in range(0, len(single), IDS_AT_ONCE):
        part = single[first : first + IDS_AT_ONCE]
        asked = select(budgets.c.budget_id, budgets.c.start_ms, budgets.c.spent_nanousd).where(
            budgets.c.budget_id.in_([rule.id for rule in part]),
            budgets.c.start_ms.in_(sorted({starts[rule.id] for rule in part})),
        )
        for row in await connection.execute(asked):
            if starts[row.budget_id] == row.start_ms:
                found[row.budget_id] = {None: row.spent_nanousd}
    for rule in single:
        if rule.id not in found and not (is_plain(rule) and rule.window != "total"):
            # The counter is made by the first request: until then the bill tells.
            found[rule.id] = {None: await spent_in_history(connection, rule.id, starts[rule.id])}
    for rule in rules:
        if counts_each_value(rule):
            found[rule.id] = await _by_value(connection, rule.id, starts[rule.id])
    return found


def counts_each_value(rule: LimitRule) -> bool:
    return rule.tag_name is not None and rule.tag_value is None


def start_of_window(rule: LimitRule, now_ms: int) -> int:
    """The first millisecond of the window of a budget that runs."""
    return window_of(rule.window, rule.time_zone, now_ms)[0]  # type: ignore[arg-type] # those of money are of the calendar


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
