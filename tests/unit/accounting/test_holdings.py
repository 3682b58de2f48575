"""What a process holds, and what it takes of each budget."""

from __future__ import annotations

import msgspec
import pytest

from app.accounting.holdings import NO_PROGRESS, Holdings, Progress
from app.core.records import BudgetWindow
from app.limits.hot import Seen
from app.limits.limiter import MoneyWindow
from tests.unit.accounting.samples import BUDGET, TEAM, TOTAL, claim_of, exact, free_claim, money, requests

OTHER = BudgetWindow("budget_2", 0)


@pytest.fixture
def holdings():
    return Holdings()


def test_a_holding_begins_as_asked_for(holdings):
    holding = holdings.add(claim_of("r1"))
    assert (holding.is_admitted, holding.is_stored, holding.is_told) == (False, False, False)
    assert (holding.outcome, holding.beats) == (None, 0)
    assert holding.seen == Seen(claim_of("r1"), 0, 0)
    assert holding.progress() == NO_PROGRESS == Progress(0, 0)
    assert repr(holding) == "Holding('r1', running, stored=False, told=False)"


def test_holdings_are_found_by_their_request(holdings):
    first = holdings.add(claim_of("r1"))
    second = holdings.add(claim_of("r2"))
    assert holdings.get("r1") is first
    assert holdings.get("r3") is None
    assert ("r2" in holdings, "r3" in holdings, len(holdings)) == (True, False, 2)
    second.is_admitted = True
    assert holdings.admitted() == [second]
    assert repr(holdings) == "Holdings(2)"


def test_amounts_of_a_budget_add_up(holdings):
    holdings.add(claim_of("r1", bound=100))
    holdings.add(claim_of("r2", bound=30))
    assert holdings.taken(BUDGET) == 130
    holdings.remove("r1")
    assert holdings.taken(BUDGET) == 30
    holdings.remove("r2")
    assert holdings.taken(BUDGET) == 0
    assert holdings._taken == {}


def test_each_budget_takes_what_its_limit_says(holdings):
    holdings.add(claim_of("r1", requests(), money(), money(counter="budget_2", bound="estimate"), bound=100, likely=60))
    assert (holdings.taken(BUDGET), holdings.taken(OTHER)) == (100, 60)


def test_what_is_taken_is_told_by_team_and_budget(holdings):
    holdings.add(claim_of("r1", money(), money(counter="budget_2", bound="estimate"), bound=100, likely=60))
    holdings.add(claim_of("r2", bound=30))
    holdings.add(claim_of("r3", money(counter="budget_3"), tag="team_2", bound=5))
    holdings.add(claim_of("r4", bound=0))
    assert holdings.by_budget() == {
        (TEAM, BUDGET): 130,
        (TEAM, OTHER): 60,
        ("team_2", BudgetWindow("budget_3", 0)): 5,
    }


def test_a_claim_without_budgets_takes_nothing(holdings):
    holdings.add(free_claim("r1", requests()))
    holdings.add(claim_of("r2", bound=0))
    assert holdings._taken == {}
    holdings.remove("r1")
    holdings.remove("r2")
    assert len(holdings) == 0


def test_a_claim_made_anew_takes_of_its_new_windows_only(holdings):
    new = BudgetWindow("budget_1", 5)
    holding = holdings.add(claim_of("r1", bound=100))
    holdings.claim_again(holding, claim_of("r1", bound=40, windows=(MoneyWindow(new, 9),)))
    assert (holdings.taken(BUDGET), holdings.taken(new)) == (0, 40)
    assert holding.amounts == {new: 40}


def test_a_claim_made_anew_without_budgets_takes_nothing(holdings):
    holding = holdings.add(claim_of("r1"))
    holdings.claim_again(holding, free_claim("r1"))
    assert holdings._taken == {}
    assert holding.claim == free_claim("r1")


def test_of_what_is_kept_for_long_only_the_amounts_are_kept(holdings):
    """Its row is in the hot state and in the journal."""
    holding = holdings.add(claim_of("r1"))
    holdings.lighten(holding)
    assert (holding.claim, holding.outcome) == (msgspec.structs.replace(claim_of("r1"), opening=b""), None)
    holdings.settle(holding, exact(70, b"a long record"))
    holdings.lighten(holding)
    assert holding.outcome == exact(70, b"")
    assert holdings.taken(BUDGET) == 70


def test_the_end_counts_what_it_cost_and_may_cost_more_than_was_held(holdings):
    holding = holdings.add(claim_of("r1", bound=100))
    holding.is_told, holding.beats = True, 9
    holdings.settle(holding, exact(130))
    assert (holding.outcome, holding.is_told, holding.beats) == (exact(130), False, 0)
    assert holdings.taken(BUDGET) == 130
    assert repr(holding) == "Holding('r1', done, stored=False, told=False)"
    holdings.remove("r1")
    assert holdings._taken == {}


def test_a_call_that_cost_nothing_takes_nothing(holdings):
    holdings.settle(holdings.add(claim_of("r1")), exact(0))
    assert holdings._taken == {}
    assert "r1" in holdings


def test_what_is_not_held_is_removed_without_a_word(holdings):
    holdings.add(claim_of("r1"))
    holdings.remove("r2")
    assert len(holdings) == 1


def test_a_claim_needs_a_window_for_each_of_its_budgets(holdings):
    with pytest.raises(ValueError, match="zip"):
        holdings.add(claim_of("r1", money(), windows=(TOTAL, MoneyWindow(OTHER, 9))))
