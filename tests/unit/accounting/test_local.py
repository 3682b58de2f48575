"""What a process decides alone while the hot state is away."""

from __future__ import annotations

import msgspec
import pytest

from app.accounting.local import LocalShare
from app.core.errors import LimitsUnavailable
from app.core.records import BudgetWindow
from app.limits.hot import StoreAway
from app.limits.limiter import Claim, Grant, MoneyWindow, Outcome, Refusal, Standing
from tests.unit.accounting.samples import (
    BUDGET,
    NOW_MS,
    TEAM,
    TOTAL,
    TestClock,
    claim_of,
    concurrency,
    exact,
    free_claim,
    money,
    protective,
    requests,
)


@pytest.fixture
def clock():
    return TestClock()


@pytest.fixture
def local(clock):
    return LocalShare(clock)


def a_claim(request_id, *limits, **changes):
    return protective(claim_of(request_id, *limits, **changes))


def granted(local, claim):
    decided = local.admit(claim)
    assert isinstance(decided, Grant), decided
    return decided


def refused(local, claim):
    decided = local.admit(claim)
    assert isinstance(decided, Refusal), decided
    return decided


# -- which limits are decided -------------------------------------------------------------------


def test_a_strict_limit_is_not_decided(local):
    with pytest.raises(LimitsUnavailable) as raised:
        local.admit(free_claim("r1", requests(policy="protective"), concurrency()))
    assert not isinstance(raised.value, StoreAway)


def test_what_only_observes_is_not_asked(local):
    claim = free_claim("r1", requests(0, mode="observe"))
    assert local.admit(claim) == Grant(claim, NOW_MS, is_held=False)


def test_what_observes_keeps_its_window_from_no_other_budget(local):
    observes, counts = money(mode="observe"), money(100, counter="budget_2", policy="protective")
    claim = claim_of("r1", observes, counts, bound=70)
    assert [each.limit.name for each in granted(local, claim).standings] == ["budget"]
    assert refused(local, claim_of("r2", observes, counts, bound=70)).limit.counter == "budget_2"


def test_without_limits_it_is_granted_and_not_held(local):
    claim = free_claim()
    assert local.admit(claim) == Grant(claim, NOW_MS, is_held=False)
    assert repr(local) == "LocalShare(processes=1, running=0)"


def test_a_grant_is_that_of_the_claim_and_says_what_is_left(local):
    claim = free_claim("r1", requests(10, "protective"))
    assert local.admit(claim) == Grant(claim, NOW_MS, (Standing(claim.limits[0], 9, 61_000),), is_held=False)
    assert repr(local) == "LocalShare(processes=1, running=1)"


# -- shares -------------------------------------------------------------------------------------


def test_a_limit_is_shared_with_the_other_processes(local):
    local.processes = 3
    limit = concurrency(10, "protective")
    for number in range(3):
        granted(local, free_claim(f"r{number}", limit))
    decided = refused(local, free_claim("r3", limit))
    assert decided.limit == msgspec.structs.replace(limit, maximum=3)
    assert decided.retry_after_ms == 1000
    assert decided.standings == (Standing(decided.limit, 0, 1000),)


def test_everybody_has_something_of_a_small_limit(local):
    local.processes = 3
    limit = concurrency(2, "protective")
    granted(local, free_claim("r1", limit))
    refused(local, free_claim("r2", limit))


def test_of_nothing_nobody_has_anything(local):
    assert refused(local, free_claim("r1", requests(0, "protective"))).retry_after_ms is None


def test_a_budget_is_shared_too(local):
    local.processes = 2
    granted(local, a_claim("r1", money(1000), bound=400))
    decided = refused(local, a_claim("r2", money(1000), bound=101))
    assert (decided.limit.maximum, decided.is_held, decided.retry_after_ms) == (500, True, 2000)
    granted(local, a_claim("r3", money(1000), bound=100))


def test_a_budget_of_another_day_is_not_asked(local):
    for start_ms, end_ms in [(0, NOW_MS), (NOW_MS + 1, NOW_MS + 9)]:
        window = MoneyWindow(BudgetWindow("budget_1", start_ms), end_ms)
        claim = a_claim(f"r{start_ms}", money(10), bound=400, windows=(window,))
        assert granted(local, claim).standings == ()
    window = MoneyWindow(BudgetWindow("budget_1", NOW_MS), NOW_MS + 1)
    refused(local, a_claim("r1", money(10), bound=400, windows=(window,)))


def test_windows_stand_beside_their_own_budgets(local):
    """One that is left out takes its window with it."""
    over = MoneyWindow(BudgetWindow("budget_0", 0), NOW_MS)
    claim = a_claim("r1", money(10, counter="budget_0"), money(1000), bound=400, windows=(over, TOTAL))
    assert [each.limit.counter for each in granted(local, claim).standings] == ["budget_1"]
    assert refused(local, a_claim("r2", money(1000), bound=601)).is_held


# -- the end of a call --------------------------------------------------------------------------


def test_the_end_frees_its_lease_and_keeps_its_money(local):
    limits = (concurrency(1), money(1000))
    first = a_claim("r1", *limits, bound=400)
    granted(local, first)
    local.settle(first, exact(300))
    granted(local, a_claim("r2", *limits, bound=700))
    local.settle(a_claim("r2", *limits), exact(700))
    decided = refused(local, a_claim("r3", *limits, bound=1))
    assert (decided.limit.kind, decided.is_held, decided.retry_after_ms) == ("money", False, None)


def test_a_call_ends_once_and_what_was_not_admitted_here_never(local):
    claim = a_claim("r1", money(1000), bound=400)
    local.settle(claim, exact(999))
    granted(local, claim)
    local.settle(claim, exact(300))
    local.settle(claim, exact(999))
    granted(local, a_claim("r2", money(1000), bound=700))


def test_what_came_to_nothing_counts_nothing(local):
    claim = a_claim("r1", money(1000), requests(1), bound=1000)
    granted(local, claim)
    local.void(claim)
    local.void(claim)
    granted(local, a_claim("r2", money(1000), requests(1), bound=1000))


def test_windows_pass_and_leave_nothing(local, clock):
    limit = requests(1, "protective")
    granted(local, free_claim("r1", limit))
    assert refused(local, free_claim("r2", limit)).retry_after_ms == 61_000
    clock.at_ms += 61_000
    granted(local, free_claim("r3", limit))


def test_a_call_may_run_for_longer_than_any_window(local, clock):
    limit = concurrency(1, "protective")
    claim = free_claim("r1", limit)
    granted(local, claim)
    clock.at_ms += 10**9
    refused(local, free_claim("r2", limit))
    local.settle(claim, exact(0))
    granted(local, free_claim("r3", limit))


def test_a_team_and_an_upstream_count_the_same_request_each_for_itself(local):
    limit = concurrency(1, "protective")
    upstream, team = Claim("r1", "up:x", (limit,)), Claim("r1", TEAM, (limit,))
    for claim in (upstream, team):
        granted(local, claim)
    for claim in (team, upstream):
        local.settle(claim, exact(0))
    for claim in (upstream, team):
        granted(local, msgspec.structs.replace(claim, request_id="r2"))
    for claim in (upstream, team):
        local.void(msgspec.structs.replace(claim, request_id="r2"))
    for claim in (upstream, team):
        granted(local, msgspec.structs.replace(claim, request_id="r3"))


def test_a_call_that_was_given_up_is_not_admitted_again(local):
    claim = a_claim("r1", money(1000))
    granted(local, claim)
    local.void(claim)
    with pytest.raises(LimitsUnavailable):
        local.admit(claim)


# -- the hot state is back ----------------------------------------------------------------------


def test_what_the_hot_state_has_taken_in_counts_there_and_no_longer_here(local):
    for number in range(5):
        claim = a_claim(f"r{number}", money(1000), bound=1000)
        granted(local, claim)
        local.settle(claim, exact(1000))
        refused(local, a_claim("more", money(1000), bound=1))
        local.told(TEAM)


def test_what_still_runs_goes_on_counting(local):
    running, ended = (a_claim(name, money(1000), bound=400) for name in ("r1", "r2"))
    for claim in (running, ended):
        granted(local, claim)
    local.settle(ended, exact(400))
    local.told(TEAM)
    granted(local, a_claim("r3", money(1000), bound=600))
    refused(local, a_claim("r4", money(1000), bound=1))


def test_another_teams_money_goes_on_counting(local):
    claim = a_claim("r1", money(1000), bound=1000)
    granted(local, claim)
    local.settle(claim, exact(1000))
    local.told("team_2")
    refused(local, a_claim("r2", money(1000), bound=1))


def test_all_of_it_is_forgotten_with_a_new_epoch(local):
    claims = [a_claim(f"r{number}", money(1000), concurrency(2), bound=500) for number in range(2)]
    for claim in claims:
        granted(local, claim)
    local.settle(claims[0], exact(500))
    local.forget()
    assert repr(local) == "LocalShare(processes=1, running=0)"
    granted(local, a_claim("r2", money(1000), concurrency(1), bound=1000))
    # What was counted before ends without a trace.
    local.settle(claims[1], exact(500))
    local.told(TEAM)
    assert refused(local, a_claim("r3", money(1000), bound=1)).is_held


def test_settled_calls_without_money_leave_nothing_behind(local):
    """The hot state may be away for hours."""
    for number in range(100):
        claim = free_claim(f"r{number}", concurrency(2, "protective"), requests(1000, "protective"))
        granted(local, claim)
        local.settle(claim, exact(0))
    assert repr(local._hot) == "MemoryHot(tags=1, reservations=0)"


def test_of_settled_money_only_the_amount_is_kept(local):
    claim = a_claim("r1")
    granted(local, claim)
    local.settle(claim, Outcome(2, 70, 0, b"a long record"))
    kept = local._hot._tags[TEAM].reservations["r1"]
    assert (kept.opening, kept.record, kept.nanousd) == (b"", b"", 70)
    assert local._hot._tags[TEAM].budgets[BUDGET].unconfirmed == 70
