"""What the hot state is told of a batch that SQL has."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.records import BudgetWindow, Record
from app.limits.hot import BudgetValue, InSQL
from app.store.posting import Written

RANK_EXACT = 2


def what_is_in_sql(
    records: Sequence[Record], written: Written
) -> tuple[list[tuple[str, InSQL]], list[tuple[str, BudgetValue]]]:
    """The requests of a batch, and the values of their budgets, each with its team's id."""
    requests: list[tuple[str, InSQL]] = []
    values: dict[BudgetWindow, tuple[str, BudgetValue]] = {}
    for record in records:
        rank = written.ranks.get(record.request_id)
        if rank is None:
            if record.request_id not in written.poisoned:
                continue
            # What the database will never take must not be held for ever.
            rank = RANK_EXACT
        cost = sum(entry.cost_nanousd or 0 for entry in record.entries)
        requests.append((record.team_id, InSQL(record.request_id, rank, cost, record.budgets)))
        for budget in record.budgets:
            counter = written.budgets.get(budget)
            if counter is not None:
                values[budget] = (record.team_id, BudgetValue(budget, *counter))
    return requests, list(values.values())
