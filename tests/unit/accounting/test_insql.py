"""What the hot state is told of a batch."""

from __future__ import annotations

from app.accounting.insql import what_is_in_sql
from app.core.records import BudgetWindow
from app.limits.hot import BudgetValue
from app.store.posting import Written
from tests.unit.accounting.samples import BUDGET, TEAM, in_sql, record_of

OTHER = BudgetWindow("budget_2", 0)


def test_a_request_has_the_rank_that_sql_gives_it():
    written = Written(2, {"r1": 2, "r2": 1}, {})
    requests, values = what_is_in_sql([record_of("r1", 70), record_of("r2", 30)], written)
    assert requests == [(TEAM, in_sql("r1", 70, 2)), (TEAM, in_sql("r2", 30, 1))]
    assert values == []


def test_it_costs_what_its_attempts_cost_together_and_without_a_price_nothing():
    written = Written(1, {"r1": 2}, {})
    requests, _ = what_is_in_sql([record_of("r1", 70, None, 5)], written)
    assert requests == [(TEAM, in_sql("r1", 75, 2))]


def test_a_budget_of_many_requests_is_told_once():
    records = [record_of("r1", budgets=(BUDGET, OTHER)), record_of("r2")]
    written = Written(2, {"r1": 2, "r2": 2}, {BUDGET: (140, 9), OTHER: (70, 3)})
    requests, values = what_is_in_sql(records, written)
    assert [request.budgets for _, request in requests] == [(BUDGET, OTHER), (BUDGET,)]
    assert values == [(TEAM, BudgetValue(BUDGET, 140, 9)), (TEAM, BudgetValue(OTHER, 70, 3))]


def test_each_value_goes_to_the_team_of_its_records():
    records = [record_of("r1"), record_of("r2", budgets=(OTHER,), team_id="team_2")]
    written = Written(2, {"r1": 2, "r2": 2}, {BUDGET: (70, 1), OTHER: (70, 1)})
    requests, values = what_is_in_sql(records, written)
    assert [tag for tag, _ in requests] == [TEAM, "team_2"]
    assert [tag for tag, _ in values] == [TEAM, "team_2"]


def test_a_budget_without_a_value_is_passed_over():
    requests, values = what_is_in_sql([record_of("r1")], Written(1, {"r1": 2}, {}))
    assert requests[0][1].budgets == (BUDGET,)
    assert values == []


def test_what_the_database_will_never_take_is_not_held_for_ever():
    requests, _ = what_is_in_sql([record_of("r1", 70)], Written(0, {}, {}, poisoned=("r1",)))
    assert requests == [(TEAM, in_sql("r1", 70, 2))]


def test_what_is_not_in_sql_is_not_told_and_keeps_nothing_else_from_it():
    requests, values = what_is_in_sql([record_of("r1"), record_of("r2")], Written(1, {"r2": 2}, {BUDGET: (70, 1)}))
    assert requests == [(TEAM, in_sql("r2"))]
    assert len(values) == 1
