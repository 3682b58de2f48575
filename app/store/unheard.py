"""Budgets that a request had not heard of.

A gateway follows a new rule within a second, and a request names the budgets that it knew when it was admitted. One
that ran while a budget was made, or came a moment later, belongs to the budget all the same. Where its record comes
before the budget's counter, the counter begins with it (``budgets.py``); here it names the window where it comes after.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from app.core.calendar import window_of
from app.core.patterns import matches_any
from app.core.records import BudgetWindow
from app.store import statements
from app.store.budgets import RULE_COLUMNS, SETTLING_MS
from app.store.rows import rule_from
from app.store.steps import Ask, Steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from app.core.identity import LimitRule
    from app.core.records import Record


def windows_unheard_of(records: Sequence[Record]) -> Steps[dict[str, tuple[BudgetWindow, ...]]]:
    """By request, the windows that its record should name and does not."""
    paid = [record for record in records if any(entry.cost_nanousd for entry in record.entries)]
    if not paid:
        return {}
    since_ms = min(record.admitted_at_ms for record in paid) - SETTLING_MS
    rows = yield Ask(statements.YOUNG_BUDGETS, [(since_ms,)])
    if not rows:
        return {}
    by_team: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for values in rows:
        row = dict(zip(RULE_COLUMNS, values, strict=True))
        by_team[row["team_id"]].append(row)
    found = {}
    for record in paid:
        windows = [_window(row, record) for row in by_team.get(record.team_id, ())]
        missing = tuple(window for window in windows if window is not None and window not in record.budgets)
        if missing:
            found[record.request_id] = missing
    return found


def _window(row: Mapping[str, Any], record: Record) -> BudgetWindow | None:
    """The window of a rule that counts the record; None where none does."""
    if row["key_id"] not in {None, record.key_id} or record.admitted_at_ms >= row["created_at_ms"] + SETTLING_MS:
        return None
    rule: LimitRule = rule_from(row)  # type: ignore[arg-type] # it only looks up names
    if rule.model is not None and not matches_any([rule.model], record.model_requested):
        return None
    budget_id = rule.id
    if rule.tag_name is not None:
        value = record.tags.get(rule.tag_name)
        if value is None or rule.tag_value not in {None, value}:
            return None
        if rule.tag_value is None:
            budget_id = f"{rule.id}:{value}"
    start_ms, _ = window_of(rule.window, rule.time_zone, record.quarter_ms)  # type: ignore[arg-type] # of the calendar
    return BudgetWindow(budget_id, start_ms)
