"""Before more is held of a budget than others assume, they are told."""

from __future__ import annotations

import pytest

from app.accounting.steps import Mark, RaiseMarks, ReadBudgets, TeamBudget
from app.core.errors import LimitsUnavailable
from app.core.records import BudgetWindow
from app.limits.hot import BudgetValue, Cold, Done, Granted, Reserve, Seed
from tests.unit.accounting.samples import (
    BUDGET,
    NOW_MS,
    PROCESS,
    TEAM,
    Process,
    claim_of,
    exact,
    free_claim,
    money,
    never_remade,
)
from tests.unit.accounting.stepping import NO_SQL, Meanwhile, Walk, play

OTHER = BudgetWindow("budget_2", 0)


@pytest.fixture
def process():
    return Process().open(7)


def mark(nanousd, budget=BUDGET):
    return Mark(PROCESS, TEAM, budget, nanousd)


def a_claim(request_id, *limits, **changes):
    """A claim whose budget is beyond all that is asked for here, if no other is given."""
    return claim_of(request_id, *(limits or (money(10**6),)), **changes)


def raised_by(process, claim):
    """The marks that are raised before ``claim`` is reserved, which is granted then."""
    walk = Walk(process.accountant.admit(claim, never_remade))
    raised = None
    if isinstance(walk.command, RaiseMarks):
        raised = walk.command.marks
        walk.answer()
    walk.expect(Reserve(claim, "7"), Granted(NOW_MS, tuple((0, 0) for _ in claim.limits)))
    return raised


def test_a_first_mark_is_for_a_few_calls_as_dear_as_the_first(process):
    """The call itself and four more of its kind: it is not raised for each of them."""
    assert raised_by(process, a_claim("r1", bound=100)) == (mark(500),)
    for number in range(2, 6):
        assert raised_by(process, a_claim(f"r{number}", bound=100)) is None
    assert raised_by(process, a_claim("r6", bound=100)) == (mark(1000),)


def test_a_mark_grows_by_half_where_much_is_held(process):
    for number in range(20):
        raised_by(process, a_claim(f"r{number}", money(10_000), bound=100))
    # 2,000 are held, and one of 1 more: half of that again is more than four such calls.
    process.accountant._marks[BUDGET] = 2000
    assert raised_by(process, a_claim("cheap", money(10_000), bound=1)) == (mark(3001),)


def test_a_mark_is_no_higher_than_the_budget(process):
    """Nobody can hold more than all of it, and what stands in for a dead process is taken from the others."""
    assert raised_by(process, a_claim("r1", money(300), bound=100)) == (mark(300),)
    assert raised_by(process, a_claim("r2", money(300), bound=100)) is None


def test_what_no_budget_has_room_for_raises_no_mark(process):
    """It is refused: its bound says nothing about what this process holds."""
    assert raised_by(process, a_claim("r1", money(1000), money(99, counter="budget_2"), bound=100)) is None
    only_looks = money(99, counter="budget_2", mode="observe")
    assert raised_by(process, a_claim("r2", money(1000), only_looks, bound=100)) == (mark(600), mark(600, OTHER))


def test_a_mark_is_raised_for_what_is_beyond_it_only(process):
    process.knows_mark(nanousd=100)
    assert raised_by(process, a_claim("r1", bound=100)) is None
    assert raised_by(process, a_claim("r2", bound=1)) == (mark(151),)


def test_a_mark_is_no_lower_than_what_is_held(process):
    """The budget was lowered meanwhile."""
    process.knows_mark(nanousd=100)
    raised_by(process, a_claim("r1", money(1000), bound=100))
    assert raised_by(process, a_claim("r2", money(50), bound=50)) == (mark(150),)


def test_a_budget_that_only_observes_bounds_no_mark(process):
    assert raised_by(process, a_claim("r1", money(50, mode="observe"), bound=100)) == (mark(500),)


def test_what_takes_all_of_a_budget_raises_one(process):
    limits = (money(1000, counter="budget_2"), money(100))
    assert raised_by(process, a_claim("r1", *limits, bound=100)) == (mark(500, OTHER), mark(100))


def test_what_is_settled_leaves_room_under_the_mark(process):
    process.knows_mark(nanousd=100)
    raised_by(process, a_claim("r1", bound=100))
    process.accountant.settle("r1", exact(30))
    assert raised_by(process, a_claim("r2", bound=70)) is None


def test_every_budget_has_a_mark_of_its_own(process):
    claim = a_claim("r1", money(10**6), money(10**6, counter="budget_2", bound="estimate"), bound=100, likely=60)
    assert raised_by(process, claim) == (mark(500), mark(300, OTHER))
    process.knows_mark(OTHER, 10_000)
    claim = a_claim("r2", money(9000), money(9000, counter="budget_2"), bound=1000)
    assert raised_by(process, claim) == (mark(1100 + 4 * 1000),)


def test_what_costs_nothing_or_has_no_budget_raises_none(process):
    assert raised_by(process, a_claim("r1", bound=0)) is None
    assert raised_by(process, free_claim("r2")) is None


def test_the_smallest_amount_raises_one_too(process):
    assert raised_by(process, a_claim("r1", bound=1)) == (mark(5),)


def test_what_costs_nothing_raises_it_for_what_others_hold_only(process):
    process.accountant._marks[BUDGET] = 10
    raised_by(process, a_claim("r1", bound=2))
    # As after a raise that SQL did not answer.
    del process.accountant._marks[BUDGET]
    assert raised_by(process, a_claim("r2", bound=0)) == (mark(3),)


def test_marks_are_raised_before_anything_is_reserved(process):
    claim = a_claim("r1")
    walk = Walk(process.accountant.admit(claim, never_remade))
    assert walk.command == RaiseMarks((mark(500),))
    assert walk.answer() == Reserve(claim, "7")


def test_a_mark_is_raised_once_for_all_rounds_of_an_admission(process):
    claim = a_claim("r1")
    play(
        process.accountant.admit(claim, never_remade),
        (RaiseMarks((mark(500),)), None),
        (Reserve(claim, "7"), Cold((0,))),
        (ReadBudgets((TeamBudget(TEAM, BUDGET),)), (BudgetValue(BUDGET, 0, 1),)),
        (Seed(TEAM, "7", (BudgetValue(BUDGET, 0, 1),)), Done()),
        (Reserve(claim, "7"), Granted(NOW_MS, ((0, 0),))),
    )


def test_without_sql_the_request_goes_on_and_the_next_one_tries_again(process):
    claim = a_claim("r1", bound=100)
    play(
        process.accountant.admit(claim, never_remade),
        (RaiseMarks((mark(500),)), NO_SQL),
        (Reserve(claim, "7"), Granted(NOW_MS, ((0, 0),))),
    )
    assert raised_by(process, a_claim("r2", bound=100)) == (mark(600),)


def test_of_two_raises_at_once_the_higher_one_is_known_afterwards(process):
    first = Walk(process.accountant.admit(a_claim("r1", bound=100), never_remade))
    second = Walk(process.accountant.admit(a_claim("r2", bound=100), never_remade))
    assert (first.command, second.command) == (RaiseMarks((mark(500),)), RaiseMarks((mark(600),)))
    second.answer()
    first.answer()
    assert raised_by(process, a_claim("r3", bound=400)) is None
    assert raised_by(process, a_claim("r4", bound=1)) == (mark(int(601 * 1.5)),)


def test_an_epoch_that_ends_while_a_mark_is_raised_closes_strict_limits(process):
    claim = a_claim("r1")
    with pytest.raises(LimitsUnavailable):
        play(
            process.accountant.admit(claim, never_remade),
            (RaiseMarks((mark(500),)), Meanwhile(process.lose)),
            (Reserve(claim, "7"), Granted(NOW_MS, ((0, 0),))),
        )
