"""What SQL has is told to the hot state: at once, or again, in the epoch of then and with values of then."""

from __future__ import annotations

import pytest

from app.accounting.accountant import CONFIRMED_AT_ONCE
from app.accounting.steps import InsertTag, ReadBudgets, TagInserted, TeamBudget
from app.core.records import BudgetWindow
from app.limits.hot import BudgetValue, Confirm, Confirmed, Done, Lost, OpenTag
from app.limits.limiter import Claim, Grant, Refusal
from tests.unit.accounting.samples import (
    BUDGET,
    TEAM,
    Process,
    claim_of,
    concurrency,
    exact,
    in_sql,
    money,
    protective,
)
from tests.unit.accounting.stepping import NO_SQL, NOT_SENT, SENT, Meanwhile, Walk, play

VALUE, NEWER = BudgetValue(BUDGET, 570, 8), BudgetValue(BUDGET, 640, 9)
OTHER = BudgetWindow("budget_2", 0)
READ = ReadBudgets((TeamBudget(TEAM, BUDGET),))
CONFIRM = Confirm(TEAM, "7", (in_sql(),), (VALUE,))
AGAIN = Confirm(TEAM, "7", (in_sql(),), (NEWER,))


@pytest.fixture
def process():
    """A call has ended, and the hot state knows how."""
    process = Process().open(7).knows_mark()
    process.grant(claim_of("r1"))
    process.accountant.settle("r1", exact())
    process.accountant.settled("r1", Done())
    return process


def committed(process, number=7, requests=None, values=((TEAM, VALUE),)):
    return process.accountant.committed(requests or [(TEAM, in_sql())], list(values), number)


def confirm_again(process, *script):
    play(process.accountant.confirm_again(), *script)


# -- at once ------------------------------------------------------------------------------------


def test_what_is_confirmed_is_no_longer_held(process):
    play(committed(process), (CONFIRM, Confirmed()))
    assert "r1" not in process.holdings
    assert process.accountant.unconfirmed == 0
    assert process.holdings.taken(BUDGET) == 0
    confirm_again(process)


def test_what_is_kept_stays_held(process):
    """It holds more than SQL knows: its owner's row is still on its way."""
    play(committed(process), (CONFIRM, Confirmed(kept=("r1",))))
    assert "r1" in process.holdings
    assert process.accountant.unconfirmed == 0


def test_each_team_is_told_of_its_own(process):
    theirs, value = in_sql("r2", budgets=(OTHER,)), BudgetValue(OTHER, 5, 1)
    requests = [(TEAM, in_sql()), ("team_2", theirs), (TEAM, in_sql("r3"))]
    play(
        committed(process, requests=requests, values=[("team_2", value), (TEAM, VALUE)]),
        (Confirm(TEAM, "7", (in_sql(), in_sql("r3")), (VALUE,)), Confirmed()),
        (Confirm("team_2", "7", (theirs,), (value,)), Confirmed()),
    )


def test_records_of_others_are_confirmed_too(process):
    """A reaper's, or those of a journal that was replayed."""
    request = in_sql("of another")
    play(
        committed(process, requests=[(TEAM, request)]),
        (Confirm(TEAM, "7", (request,), (VALUE,)), Confirmed()),
    )
    assert "r1" in process.holdings


def test_what_the_hot_state_never_heard_of_is_forgotten(process):
    process.grant_locally(protective(claim_of("local", concurrency())))
    requests = [(TEAM, in_sql("local", budgets=()))]
    play(committed(process, requests=requests, values=[]))
    assert "local" not in process.holdings
    confirm_again(process)


def test_its_budgets_are_confirmed_all_the_same(process):
    process.grant_locally(protective(claim_of("local")))
    requests = [(TEAM, in_sql("local"))]
    play(committed(process, requests=requests), (Confirm(TEAM, "7", (), (VALUE,)), Confirmed()))


# -- not now ------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [NOT_SENT, SENT, Lost(None), Lost("8:run")])
def test_what_cannot_be_confirmed_is_confirmed_later_with_values_of_then(process, answer):
    play(committed(process), (CONFIRM, answer))
    assert "r1" in process.holdings
    assert process.accountant.unconfirmed == 1
    process.epochs.knows(TEAM, 7)
    confirm_again(process, (READ, (NEWER,)), (AGAIN, Confirmed()))
    assert process.accountant.unconfirmed == 0
    assert "r1" not in process.holdings


@pytest.mark.parametrize("number", [0, 6, 8])
def test_values_of_another_epoch_are_not_told(process, number):
    """They were read before somebody else counted anew what they have in them."""
    play(committed(process, number))
    assert process.accountant.unconfirmed == 1


def test_while_strict_limits_are_closed_nothing_is_confirmed(process):
    process.lose()
    play(committed(process, 8))
    confirm_again(process)
    assert process.accountant.unconfirmed == 1


def test_later_the_team_is_opened_first(process):
    play(committed(process, 0))
    process.epochs._opened.clear()
    confirm_again(
        process,
        (InsertTag(TEAM, 7), TagInserted(inserted=True)),
        (OpenTag(TEAM, "7"), Done()),
        (READ, (NEWER,)),
        (AGAIN, Confirmed()),
    )


def test_budgets_of_all_that_waits_are_read_once_and_in_order(process):
    process.epochs.knows(TEAM, 7)
    first, second = in_sql("a", budgets=(OTHER, BUDGET)), in_sql("b")
    play(committed(process, 0, [(TEAM, first), (TEAM, second)]))
    values = (VALUE, BudgetValue(OTHER, 1, 1))
    confirm_again(
        process,
        (ReadBudgets((TeamBudget(TEAM, BUDGET), TeamBudget(TEAM, OTHER))), values),
        (Confirm(TEAM, "7", (first, second), values), Confirmed()),
    )


def test_what_has_no_budget_needs_nothing_from_sql(process):
    process.epochs.knows(TEAM, 7)
    request = in_sql(budgets=())
    play(committed(process, 0, [(TEAM, request)], values=[]))
    confirm_again(process, (Confirm(TEAM, "7", (request,), ()), Confirmed()))


def test_values_that_could_not_be_told_are_read_again_even_without_requests(process):
    process.epochs.knows(TEAM, 7)
    process.grant_locally(protective(claim_of("local")))
    requests = [(TEAM, in_sql("local"))]
    play(committed(process, requests=requests), (Confirm(TEAM, "7", (), (VALUE,)), NOT_SENT))
    for answer in (NOT_SENT, Confirmed()):
        confirm_again(process, (READ, (NEWER,)), (Confirm(TEAM, "7", (), (NEWER,)), answer))
    confirm_again(process)


@pytest.mark.parametrize("away", [NO_SQL, NOT_SENT])
def test_what_fails_again_waits_on(process, away):
    process.epochs.knows(TEAM, 7)
    play(committed(process, 0))
    confirm_again(process, (READ, away))
    confirm_again(process, (READ, (NEWER,)), (AGAIN, NOT_SENT))
    assert process.accountant.unconfirmed == 1
    confirm_again(process, (READ, (NEWER,)), (AGAIN, Confirmed()))
    assert process.accountant.unconfirmed == 0


def test_what_is_given_up_in_the_middle_waits_on(process):
    process.epochs.knows(TEAM, 7)
    play(committed(process, 0))
    walk = Walk(process.accountant.confirm_again())
    assert walk.command == READ
    assert process.accountant.unconfirmed == 0
    walk.give_up()
    assert process.accountant.unconfirmed == 1


def test_values_that_an_epoch_has_outlived_are_not_told(process):
    process.epochs.knows(TEAM, 7)
    play(committed(process, 0))
    confirm_again(process, (READ, Meanwhile(process.lose, (NEWER,))))
    assert process.accountant.unconfirmed == 1


def test_a_failure_for_one_team_keeps_no_other_waiting(process):
    for tag in (TEAM, "team_2"):
        process.epochs.knows(tag, 7)
    theirs = in_sql("r2", budgets=())
    play(committed(process, 0, [(TEAM, in_sql()), ("team_2", theirs)]))
    confirm_again(process, (READ, NO_SQL), (Confirm("team_2", "7", (theirs,), ()), Confirmed()))
    assert process.accountant.unconfirmed == 1


def test_an_epoch_that_ends_between_two_teams_ends_the_round(process):
    for tag in (TEAM, "team_2"):
        process.epochs.knows(tag, 7)
    play(committed(process, 0, [(TEAM, in_sql(budgets=())), ("team_2", in_sql("r2", budgets=()))], values=[]))
    confirm_again(process, (Confirm(TEAM, "7", (in_sql(budgets=()),), ()), Meanwhile(process.lose, Confirmed())))
    assert process.accountant.unconfirmed == 1


def test_many_are_confirmed_in_parts(process):
    process.epochs.knows(TEAM, 7)
    requests = [in_sql(f"r{number}", budgets=()) for number in range(CONFIRMED_AT_ONCE + 1)]
    play(committed(process, 0, [(TEAM, request) for request in requests], values=[]))
    assert process.accountant.unconfirmed == 501
    confirm_again(process, (Confirm(TEAM, "7", tuple(requests[:500]), ()), Confirmed()))
    assert process.accountant.unconfirmed == 1
    confirm_again(process, (Confirm(TEAM, "7", tuple(requests[500:]), ()), Confirmed()))
    assert process.accountant.unconfirmed == 0


def test_a_whole_part_leaves_nothing_over(process):
    process.epochs.knows(TEAM, 7)
    requests = [in_sql(f"r{number}", budgets=()) for number in range(CONFIRMED_AT_ONCE)]
    play(committed(process, 0, [(TEAM, request) for request in requests], values=[]))
    confirm_again(process, (Confirm(TEAM, "7", tuple(requests), ()), Confirmed()))
    confirm_again(process)


def test_what_is_added_while_a_part_is_under_way_stays(process):
    process.epochs.knows(TEAM, 7)
    first, second = in_sql("a", budgets=()), in_sql("b", budgets=())
    play(committed(process, 0, [(TEAM, first)], values=[]))
    adds = Meanwhile(lambda: play(committed(process, 0, [(TEAM, second)], values=[])), NOT_SENT)
    confirm_again(process, (Confirm(TEAM, "7", (first,), ()), adds))
    confirm_again(process, (Confirm(TEAM, "7", (second, first), ()), Confirmed()))


def test_a_call_without_a_claim_of_money_is_confirmed_as_well(process):
    claim = Claim("bare", TEAM, ())
    process.grant(claim)
    process.accountant.settle("bare", exact(0))
    request = in_sql("bare", nanousd=0, budgets=())
    play(committed(process, requests=[(TEAM, request)], values=[]), (Confirm(TEAM, "7", (request,), ()), Confirmed()))
    assert "bare" not in process.holdings


def test_values_that_go_stale_while_others_are_read_stay_stale(process):
    process.epochs.knows(TEAM, 7)
    for name in ("a", "b"):
        process.grant_locally(protective(claim_of(name)))
    theirs = BudgetValue(OTHER, 5, 1)
    play(committed(process, requests=[(TEAM, in_sql("a"))]), (Confirm(TEAM, "7", (), (VALUE,)), NOT_SENT))

    def fail_again():
        steps = committed(process, requests=[(TEAM, in_sql("b", budgets=(OTHER,)))], values=[(TEAM, theirs)])
        play(steps, (Confirm(TEAM, "7", (), (theirs,)), NOT_SENT))

    confirm_again(process, (READ, Meanwhile(fail_again, NO_SQL)))
    values = (NEWER, theirs)
    confirm_again(
        process,
        (ReadBudgets((TeamBudget(TEAM, BUDGET), TeamBudget(TEAM, OTHER))), values),
        (Confirm(TEAM, "7", (), values), Confirmed()),
    )


def test_many_of_a_batch_are_confirmed_in_parts_and_the_values_with_each(process):
    requests = [in_sql(f"r{number}") for number in range(CONFIRMED_AT_ONCE + 1)]
    play(
        committed(process, requests=[(TEAM, request) for request in requests]),
        (Confirm(TEAM, "7", tuple(requests[:500]), (VALUE,)), NOT_SENT),
        (Confirm(TEAM, "7", tuple(requests[500:]), (VALUE,)), Confirmed()),
    )
    assert process.accountant.unconfirmed == 500


def test_a_batch_of_just_one_part_is_confirmed_once(process):
    requests = [in_sql(f"r{number}") for number in range(CONFIRMED_AT_ONCE)]
    steps = committed(process, requests=[(TEAM, request) for request in requests])
    play(steps, (Confirm(TEAM, "7", tuple(requests), (VALUE,)), Confirmed()))


# -- the share of this process ------------------------------------------------------------------


def test_money_that_was_settled_here_counts_here_until_it_counts_there(process):
    """The share is for the time without the hot state, be there many such times."""
    dear = protective(claim_of("a", money(1000), bound=1000))
    process.grant_locally(dear)
    process.accountant.settle("a", exact(1000))
    more = protective(claim_of("b", money(1000), bound=1))
    assert isinstance(process.local.admit(more), Refusal)
    play(committed(process, requests=[(TEAM, in_sql("a"))]), (Confirm(TEAM, "7", (), (VALUE,)), NOT_SENT))
    assert isinstance(process.local.admit(more), Refusal)
    process.epochs.knows(TEAM, 7)
    confirm_again(process, (READ, (NEWER,)), (Confirm(TEAM, "7", (), (NEWER,)), Confirmed()))
    assert isinstance(process.local.admit(more), Grant)


def test_sql_that_is_away_is_asked_once_in_a_round(process):
    for tag in (TEAM, "team_2"):
        process.epochs.knows(tag, 7)
    play(committed(process, 0, [(TEAM, in_sql()), ("team_2", in_sql("r2"))]))
    confirm_again(process, (READ, NO_SQL))
    assert process.accountant.unconfirmed == 2
