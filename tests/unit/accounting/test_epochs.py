"""How a process follows the epoch: puts back what it holds, opens teams, sees losses, and tells its state."""

from __future__ import annotations

import pytest

from app.accounting.epochs import Epochs
from app.accounting.holdings import Holdings
from app.accounting.steps import (
    AdvanceEpoch,
    EpochView,
    InsertTag,
    Mark,
    RaiseMarks,
    ReadEpoch,
    ReadMarks,
    Sleep,
    TagInserted,
)
from app.core.records import BudgetWindow
from app.limits.hot import Beat, Beaten, Done, Lost, OpenTag, Restore, Settle, StandIn, StoreAway
from tests.unit.accounting.samples import (
    BUDGET,
    PROCESS,
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

CLAIM = claim_of("r1")
OPEN, WARMING = EpochView(8, is_open=True), EpochView(8, is_open=False, leader="other", leader_left_ms=2000)
NOTED, OPENED = (InsertTag(TEAM, 8), TagInserted(inserted=True)), (OpenTag(TEAM, "8"), Done())
SEES_NEW = (ReadEpoch(PROCESS, 7), OPEN)
SEES_OWN = (ReadEpoch(PROCESS, 8), OPEN)
NO_MARKS = (ReadMarks(PROCESS), ())


def declared(nanousd=100):
    return RaiseMarks((Mark(PROCESS, TEAM, BUDGET, nanousd),)), None


@pytest.fixture
def process():
    return Process().open(7).knows_mark()


def follow(process, *script):
    play(process.epochs.follow(), *script)


# -- following ----------------------------------------------------------------------------------


def test_a_process_begins_closed_and_says_so_to_nobody():
    process = Process()
    assert (process.epochs.number, process.epochs.is_open, process.epochs.ledger_answers) == (0, False, False)
    assert process.states == []
    assert not process.epochs.is_current(0)


def test_it_opens_with_the_epoch_that_it_finds_open():
    process = Process()
    follow(process, (ReadEpoch(PROCESS, 0), OPEN), SEES_OWN, NO_MARKS)
    assert process.epochs.is_current(8)
    assert not process.epochs.is_current(7)
    assert (process.epochs.acknowledged, process.epochs.ledger_answers) == (8, True)
    assert process.states == [(True, "")]
    assert repr(process.epochs) == "Epochs(number=8, open=True)"


def test_a_round_without_news_changes_nothing(process):
    for _ in range(3):
        follow(process, (ReadEpoch(PROCESS, 7), EpochView(7, is_open=True)))
    assert process.states == [(True, "")]


def test_a_new_epoch_closes_it_until_everything_is_put_back(process):
    process.grant(CLAIM)
    walk = Walk(process.epochs.follow())
    walk.expect(*SEES_NEW)
    assert process.states == [(True, ""), (False, "a new epoch has begun")]
    assert (process.epochs.number, process.epochs.is_open, process.epochs.acknowledged) == (8, False, 7)
    walk.expect(*declared())
    walk.expect(*NOTED)
    walk.expect(*OPENED)
    walk.expect(Restore(CLAIM, "8"), Done())
    assert process.epochs.acknowledged == 8
    walk.expect(*SEES_OWN)
    assert not process.epochs.is_open
    walk.expect(*NO_MARKS)
    assert process.states[2:] == [(True, "")]
    assert process.holding("r1").is_stored


def test_what_is_settled_and_not_confirmed_is_settled_again(process):
    holding = process.grant(CLAIM)
    process.accountant.settle("r1", exact())
    follow(process, SEES_NEW, declared(70), NOTED, OPENED, (Settle(CLAIM, "8", exact()), Done()), SEES_OWN, NO_MARKS)
    assert (holding.is_stored, holding.is_told) == (True, True)


def test_a_call_that_ends_while_it_is_put_back_is_told_later(process):
    holding = process.grant(CLAIM)
    ends = Meanwhile(lambda: process.accountant.settle("r1", exact()), Done())
    follow(process, SEES_NEW, declared(), NOTED, OPENED, (Restore(CLAIM, "8"), ends), SEES_OWN, NO_MARKS)
    assert (holding.is_stored, holding.is_told) == (True, False)


def test_what_was_admitted_while_the_hot_state_was_away_is_put_back_too(process):
    claim = protective(claim_of("local", concurrency()))
    holding = process.grant_locally(claim)
    follow(process, SEES_NEW, NOTED, OPENED, (Restore(claim, "8"), Done()), SEES_OWN, NO_MARKS)
    assert holding.is_stored


def test_what_is_only_asked_for_is_not_put_back(process):
    process.holdings.add(CLAIM)
    follow(process, SEES_NEW, declared(), SEES_OWN, NO_MARKS)


def test_what_came_into_sql_meanwhile_is_not_put_back(process):
    process.grant(CLAIM)
    local = protective(claim_of("local", concurrency()))
    process.grant_locally(local)
    confirms = Meanwhile(lambda: play(process.accountant.committed([(TEAM, in_sql("local", budgets=()))], [], 7)))
    confirms.answer = Done()
    follow(process, SEES_NEW, declared(), NOTED, OPENED, (Restore(CLAIM, "8"), confirms), SEES_OWN, NO_MARKS)
    assert process.epochs.is_open


def test_what_came_into_sql_meanwhile_keeps_nothing_else_from_being_put_back(process):
    local = protective(claim_of("local", concurrency()))
    process.grant_locally(local)
    process.grant(CLAIM)
    confirms = Meanwhile(lambda: play(process.accountant.committed([(TEAM, in_sql("local", budgets=()))], [], 7)))
    confirms.answer = Done()
    opened = (OPENED[0], confirms)
    follow(process, SEES_NEW, declared(), NOTED, opened, (Restore(CLAIM, "8"), Done()), SEES_OWN, NO_MARKS)
    assert process.epochs.is_open


@pytest.mark.parametrize("away", [NOT_SENT, SENT, NO_SQL])
def test_putting_back_begins_anew_after_a_failure(process, away):
    process.grant(CLAIM)
    follow(process, SEES_NEW, declared(), NOTED, OPENED, (Restore(CLAIM, "8"), away))
    assert process.epochs.acknowledged == 7
    follow(process, SEES_NEW, declared(), (Restore(CLAIM, "8"), Done()), SEES_OWN, NO_MARKS)
    assert process.epochs.is_open


def test_without_sql_it_goes_on_as_it_is(process):
    follow(process, (ReadEpoch(PROCESS, 7), NO_SQL))
    assert process.epochs.is_current(7)
    assert not process.epochs.ledger_answers
    follow(process, (ReadEpoch(PROCESS, 7), EpochView(7, is_open=True)))
    assert process.epochs.ledger_answers


def test_an_epoch_that_ends_while_everything_is_put_back_is_left_alone(process):
    follow(process, SEES_NEW, (ReadEpoch(PROCESS, 8), EpochView(9, is_open=True)))
    assert (process.epochs.number, process.epochs.is_open) == (8, False)
    follow(
        process,
        (ReadEpoch(PROCESS, 8), EpochView(9, is_open=True)),
        (ReadEpoch(PROCESS, 9), EpochView(9, is_open=True)),
        NO_MARKS,
    )
    assert process.epochs.is_current(9)


def test_it_waits_while_another_leads_the_warm_up(process):
    follow(process, (ReadEpoch(PROCESS, 7), WARMING), (ReadEpoch(PROCESS, 8), WARMING))
    follow(process, (ReadEpoch(PROCESS, 8), WARMING))
    assert not process.epochs.is_open
    follow(process, SEES_OWN, NO_MARKS)
    assert process.epochs.is_open


# -- what others must assume --------------------------------------------------------------------


def test_what_it_holds_is_declared_before_any_of_it_is_put_back(process):
    """It may fall silent in the middle of that."""
    other = BudgetWindow("budget_2", 0)
    claims = [claim_of("r1"), claim_of("r2", money(), money(counter="budget_2"), bound=30)]
    theirs = claim_of("r3", money(counter="budget_3"), tag="team_2", bound=5)
    for claim in [*claims, theirs]:
        for window in claim.money:
            process.knows_mark(window.budget)
        process.grant(claim)
    marks = (
        Mark(PROCESS, TEAM, BUDGET, 130),
        Mark(PROCESS, TEAM, other, 30),
        Mark(PROCESS, "team_2", BudgetWindow("budget_3", 0), 5),
    )
    walk = Walk(process.epochs.follow())
    walk.expect(*SEES_NEW)
    assert walk.command == RaiseMarks(marks)
    assert walk.answer() == InsertTag(TEAM, 8)


def test_what_cannot_be_declared_is_not_put_back_yet(process):
    process.grant(CLAIM)
    follow(process, SEES_NEW, (declared()[0], NO_SQL))
    assert (process.epochs.acknowledged, process.epochs.ledger_answers) == (7, False)
    follow(process, SEES_NEW, declared(), NOTED, OPENED, (Restore(CLAIM, "8"), Done()), SEES_OWN, NO_MARKS)
    assert process.epochs.is_open


# -- its own stand-ins --------------------------------------------------------------------------


def test_what_was_held_for_it_ends_before_it_opens(process):
    marks = (Mark(PROCESS, TEAM, BUDGET, 500), Mark(PROCESS, TEAM, BudgetWindow("budget_2", 0), 70))
    follow(
        process,
        SEES_NEW,
        SEES_OWN,
        (ReadMarks(PROCESS), marks),
        NOTED,
        OPENED,
        (StandIn(TEAM, "8", PROCESS, BUDGET, 0), Done()),
        (StandIn(TEAM, "8", PROCESS, marks[1].budget, 0), Meanwhile(lambda: process.states.append("then"), Done())),
    )
    assert process.states[-2:] == ["then", (True, "")]


@pytest.mark.parametrize("away", [NOT_SENT, NO_SQL])
def test_it_stays_closed_until_they_have_ended(process, away):
    mark = Mark(PROCESS, TEAM, BUDGET, 500)
    ended = StandIn(TEAM, "8", PROCESS, BUDGET, 0)
    follow(process, SEES_NEW, SEES_OWN, (ReadMarks(PROCESS), (mark,)), NOTED, OPENED, (ended, away))
    assert not process.epochs.is_open
    follow(process, SEES_OWN, (ReadMarks(PROCESS), (mark,)), (ended, Done()))
    assert process.epochs.is_open


def test_a_team_that_is_not_there_yet_keeps_it_closed(process):
    """Another process is opening it just now."""
    mark = Mark(PROCESS, TEAM, BUDGET, 500)
    ended = StandIn(TEAM, "8", PROCESS, BUDGET, 0)
    waits = ((InsertTag(TEAM, 8), TagInserted(inserted=False, age_ms=10)), (Sleep(0.05), None))
    follow(process, SEES_NEW, SEES_OWN, (ReadMarks(PROCESS), (mark,)), *waits, (ended, Lost("7:run")), *waits)
    assert (process.epochs.number, process.epochs.is_open) == (8, False)


def test_a_loss_found_there_begins_the_next_epoch(process):
    mark = Mark(PROCESS, TEAM, BUDGET, 500)
    ended = StandIn(TEAM, "8", PROCESS, BUDGET, 0)
    lost = (AdvanceEpoch(8, PROCESS, 2500), EpochView(9, is_open=False))
    follow(process, SEES_NEW, SEES_OWN, (ReadMarks(PROCESS), (mark,)), NOTED, OPENED, (ended, Lost(None)), lost)
    assert (process.epochs.number, process.epochs.is_open) == (9, False)


# -- losses -------------------------------------------------------------------------------------


def answer_loss(process, found, *script, number=7):
    play(process.epochs.answer_loss(TEAM, found, number), *script)


LOST = (AdvanceEpoch(7, PROCESS, 2500), EpochView(8, is_open=False, leader=PROCESS, leader_left_ms=2500))


def test_a_team_that_was_there_is_lost_when_it_is_gone(process):
    process.epochs.knows(TEAM, 7)
    answer_loss(process, None, LOST)
    assert process.states[1:] == [(False, "the hot state was lost")]
    assert (process.epochs.number, process.epochs.is_open) == (8, False)


def test_a_team_that_was_there_is_lost_when_it_is_as_it_was_before(process):
    process.epochs.knows(TEAM, 7)
    answer_loss(process, "6:run", LOST)
    assert process.epochs.number == 8


def test_the_same_epoch_on_another_server_is_a_loss(process):
    """A failover, or a restart with its data: what it was told last may be missing."""
    answer_loss(process, "7:another run", LOST)
    assert process.epochs.number == 8


def test_a_team_of_an_older_epoch_that_nobody_has_used_is_opened(process):
    answer_loss(
        process,
        "6:run",
        (InsertTag(TEAM, 7), TagInserted(inserted=True)),
        (OpenTag(TEAM, "7"), Done()),
    )
    assert process.epochs.is_current(7)
    answer_loss(process, "6:run", LOST)


def test_what_an_epoch_that_is_over_finds_lost_means_nothing(process):
    process.epochs.knows(TEAM, 7)
    answer_loss(process, None, number=6)
    assert process.epochs.is_current(7)


def test_a_loss_is_declared_once(process):
    process.epochs.knows(TEAM, 7)
    first = Walk(process.epochs.answer_loss(TEAM, None, 7))
    first.expect(*LOST)
    answer_loss(process, None, number=7)
    assert process.states[1:] == [(False, "the hot state was lost")]


def test_a_loss_that_sql_cannot_be_told_is_told_in_the_next_round(process):
    process.epochs.knows(TEAM, 7)
    answer_loss(process, None, (LOST[0], NO_SQL))
    assert (process.epochs.number, process.epochs.is_open) == (7, False)
    warming = EpochView(8, is_open=False, leader="other", leader_left_ms=2500)
    follow(
        process,
        (ReadEpoch(PROCESS, 7), EpochView(7, is_open=True)),
        (AdvanceEpoch(7, PROCESS, 2500, 0), warming),
        (ReadEpoch(PROCESS, 8), warming),
    )
    assert process.epochs.number == 8


def test_a_lost_epoch_is_never_opened_again(process):
    """What was read of it before the loss must not open it."""
    mark = Mark(PROCESS, TEAM, BUDGET, 500)
    process.lose()
    process.epochs.knows(TEAM, 8)
    walk = Walk(process.epochs.follow())
    walk.expect(*SEES_NEW)
    walk.expect(*SEES_OWN)
    walk.expect(ReadMarks(PROCESS), (mark,))
    play(process.epochs.answer_loss(TEAM, None, 8), (AdvanceEpoch(8, PROCESS, 2500), NO_SQL))
    walk.expect(StandIn(TEAM, "8", PROCESS, BUDGET, 0), Done())
    assert walk.command is None
    assert not process.epochs.is_open


def test_a_newer_epoch_in_the_hot_state_closes_it(process):
    answer_loss(process, "9:run")
    assert process.states[1:] == [(False, "another epoch has begun")]
    answer_loss(process, "8:run")
    assert len(process.states) == 2
    # Sql knows of it: it is followed.
    view = EpochView(9, is_open=True)
    follow(process, (ReadEpoch(PROCESS, 7), view), (ReadEpoch(PROCESS, 9), view), NO_MARKS)
    assert process.epochs.is_current(9)


def test_where_sql_is_behind_the_hot_state_the_next_epoch_is_beyond_it(process):
    """SQL was set back."""
    answer_loss(process, "9:run")
    answer_loss(process, "8:run")
    beyond = EpochView(10, is_open=False, leader="other", leader_left_ms=2500)
    follow(
        process,
        (ReadEpoch(PROCESS, 7), EpochView(8, is_open=True)),
        (AdvanceEpoch(8, PROCESS, 2500, 9), beyond),
        (ReadEpoch(PROCESS, 10), beyond),
    )
    assert process.epochs.number == 10


def test_states_are_told_once_per_change(process):
    process.epochs.knows(TEAM, 7)
    answer_loss(process, None, LOST)
    answer_loss(process, "9:run", number=8)
    view = EpochView(9, is_open=True)
    follow(process, (ReadEpoch(PROCESS, 7), view), (ReadEpoch(PROCESS, 9), view), NO_MARKS)
    assert process.states == [(True, ""), (False, "the hot state was lost"), (True, "")]


def test_nobody_has_to_listen():
    epochs = Epochs(PROCESS, Holdings())
    view = EpochView(1, is_open=True)
    play(epochs.follow(), (ReadEpoch(PROCESS, 0), view), (ReadEpoch(PROCESS, 1), view), NO_MARKS)
    epochs._enter(EpochView(2, is_open=False))
    assert not epochs.is_open


# -- a loss while everything is put back --------------------------------------------------------


def test_a_loss_while_everything_is_put_back_begins_the_next_epoch(process):
    process.grant(CLAIM)
    lost = (AdvanceEpoch(8, PROCESS, 2500), EpochView(9, is_open=False))
    follow(process, SEES_NEW, declared(), NOTED, OPENED, (Restore(CLAIM, "8"), Lost(None)), lost)
    assert (process.epochs.number, process.epochs.acknowledged) == (9, 7)


def test_a_team_that_another_is_opening_is_put_back_in_the_next_round(process):
    process.grant(CLAIM)
    waits = ((InsertTag(TEAM, 8), TagInserted(inserted=False, age_ms=10)), (Sleep(0.05), None))
    follow(process, SEES_NEW, declared(), *waits, (Restore(CLAIM, "8"), Lost(None)))
    assert (process.epochs.number, process.epochs.acknowledged) == (8, 7)
    follow(process, SEES_NEW, declared(), *waits, (Restore(CLAIM, "8"), Done()), SEES_OWN, NO_MARKS)


def test_an_epoch_that_ends_in_the_middle_is_not_acknowledged(process):
    process.grant(CLAIM)
    process.grant(claim_of("r2"))
    follow(process, SEES_NEW, declared(200), NOTED, OPENED, (Restore(CLAIM, "8"), Meanwhile(process.lose, Done())))
    assert (process.epochs.number, process.epochs.acknowledged) == (9, 7)


def test_everything_is_put_back_again_in_each_epoch(process):
    process.grant(CLAIM)
    follow(process, SEES_NEW, declared(), NOTED, OPENED, (Restore(CLAIM, "8"), Done()), SEES_OWN, NO_MARKS)
    nine = EpochView(9, is_open=True)
    follow(
        process,
        (ReadEpoch(PROCESS, 8), nine),
        declared(),
        (InsertTag(TEAM, 9), TagInserted(inserted=True)),
        (OpenTag(TEAM, "9"), Done()),
        (Restore(CLAIM, "9"), Done()),
        (ReadEpoch(PROCESS, 9), nine),
        NO_MARKS,
    )


# -- teams --------------------------------------------------------------------------------------


def open_tag(process, *script, number=7):
    play(process.epochs.open_tag(TEAM, number), *script)


NOTED_7, OPENED_7 = (InsertTag(TEAM, 7), TagInserted(inserted=True)), (OpenTag(TEAM, "7"), Done())


def test_a_team_is_opened_once(process):
    open_tag(process, NOTED_7, OPENED_7)
    open_tag(process)


def test_what_was_noted_long_ago_is_there_or_lost(process):
    open_tag(process, (InsertTag(TEAM, 7), TagInserted(inserted=False, age_ms=2000)))
    open_tag(process)
    answer_loss(process, None, LOST)


def test_what_was_noted_just_now_may_be_about_to_be_opened(process):
    open_tag(process, (InsertTag(TEAM, 7), TagInserted(inserted=False, age_ms=1999)), (Sleep(0.05), None))
    open_tag(process, (InsertTag(TEAM, 7), TagInserted(inserted=False, age_ms=2000)))


def test_a_team_that_is_not_ours_to_open_is_not_known(process):
    open_tag(process, NOTED_7, (OpenTag(TEAM, "7"), Lost("8:run")))
    open_tag(process, NOTED_7, OPENED_7)


@pytest.mark.parametrize("away", [NO_SQL, NOT_SENT])
def test_a_team_that_could_not_be_opened_is_not_known(process, away):
    with pytest.raises(type(away)):
        open_tag(process, (InsertTag(TEAM, 7), away))
    with pytest.raises(type(away)):
        open_tag(process, NOTED_7, (OpenTag(TEAM, "7"), away))
    open_tag(process, NOTED_7, OPENED_7)


def test_two_requests_of_a_process_open_a_team_once(process):
    first = Walk(process.epochs.open_tag(TEAM, 7))
    second = Walk(process.epochs.open_tag(TEAM, 7))
    assert second.command == Sleep(0.02)
    first.expect(*NOTED_7)
    assert second.answer() == Sleep(0.02)
    first.expect(*OPENED_7)
    assert second.answer() is None


def test_where_the_first_of_them_fails_the_second_tries(process):
    first = Walk(process.epochs.open_tag(TEAM, 7))
    second = Walk(process.epochs.open_tag(TEAM, 7))
    first.give_up()
    assert second.answer() == InsertTag(TEAM, 7)


def test_it_waits_for_another_no_longer_than_a_second(process):
    first = Walk(process.epochs.open_tag(TEAM, 7))
    second = Walk(process.epochs.open_tag(TEAM, 7))
    for _ in range(49):
        assert second.answer() == Sleep(0.02)
    assert second.answer() == InsertTag(TEAM, 7)
    assert first.command == InsertTag(TEAM, 7)


def test_nobody_waits_for_a_team_in_an_epoch_that_is_over(process):
    first = Walk(process.epochs.open_tag(TEAM, 7))
    second = Walk(process.epochs.open_tag(TEAM, 7))
    process.lose()
    assert second.answer() is None
    assert first.command == InsertTag(TEAM, 7)


@pytest.mark.parametrize(
    "noted", [TagInserted(inserted=True), TagInserted(inserted=False, age_ms=2000)], ids=["opened", "noted"]
)
def test_a_team_opened_in_an_epoch_that_is_over_is_not_known_in_this_one(process, noted):
    """Else its absence here would be taken for a loss, and the epoch begun anew."""
    walk = Walk(process.epochs.open_tag(TEAM, 7))
    if noted.inserted:
        walk.expect(InsertTag(TEAM, 7), noted)
        walk.expect(OpenTag(TEAM, "7"), Meanwhile(process.lose, Done()))
    else:
        walk.expect(InsertTag(TEAM, 7), Meanwhile(process.lose, noted))
    play(process.epochs.open_tag(TEAM, 8), NOTED, OPENED)


REOPENED = (InsertTag(TEAM, 7), TagInserted(inserted=False, age_ms=1499))


def test_an_opening_that_could_not_be_sent_is_sent_again(process):
    """Nobody else would, and two seconds later it would be taken for a loss."""
    with pytest.raises(StoreAway):
        open_tag(process, NOTED_7, (OPENED_7[0], NOT_SENT))
    with pytest.raises(StoreAway):
        open_tag(process, REOPENED, (OPENED_7[0], NOT_SENT))
    open_tag(process, REOPENED, OPENED_7)
    open_tag(process)


def test_it_is_not_sent_again_when_others_may_have_given_it_up(process):
    with pytest.raises(StoreAway):
        open_tag(process, NOTED_7, (OPENED_7[0], NOT_SENT))
    open_tag(process, (InsertTag(TEAM, 7), TagInserted(inserted=False, age_ms=1500)), (Sleep(0.05), None))


def test_an_opening_that_may_have_arrived_is_not_sent_again(process):
    """Data that was lost after it would be taken for an epoch that goes on."""
    with pytest.raises(StoreAway):
        open_tag(process, NOTED_7, (OPENED_7[0], SENT))
    open_tag(process, REOPENED, (Sleep(0.05), None))


def test_what_was_sent_again_once_is_sent_no_more(process):
    with pytest.raises(StoreAway):
        open_tag(process, NOTED_7, (OPENED_7[0], NOT_SENT))
    with pytest.raises(StoreAway):
        open_tag(process, REOPENED, (OPENED_7[0], SENT))
    open_tag(process, REOPENED, (Sleep(0.05), None))


def test_what_could_not_be_sent_in_an_epoch_that_is_over_means_nothing(process):
    with pytest.raises(StoreAway):
        open_tag(process, NOTED_7, (OPENED_7[0], Meanwhile(process.lose, NOT_SENT)))
    waits = (InsertTag(TEAM, 8), TagInserted(inserted=False, age_ms=10))
    open_tag(process, waits, (Sleep(0.05), None), number=8)


def test_what_could_not_be_sent_is_forgotten_with_its_epoch(process):
    with pytest.raises(StoreAway):
        open_tag(process, NOTED_7, (OPENED_7[0], NOT_SENT))
    process.lose()
    waits = (InsertTag(TEAM, 8), TagInserted(inserted=False, age_ms=10))
    open_tag(process, waits, (Sleep(0.05), None), number=8)


def test_nothing_is_opened_in_an_epoch_that_is_over(process):
    open_tag(process, (NOTED_7[0], Meanwhile(process.lose, NOTED_7[1])))


def test_teams_are_opened_before_anybody_asks(process):
    process.epochs.knows(TEAM, 7)
    play(
        process.epochs.open_tags(["a", TEAM, "b", "c"], 2),
        (InsertTag("a", 7), TagInserted(inserted=True)),
        (OpenTag("a", "7"), Done()),
        (InsertTag("b", 7), TagInserted(inserted=False, age_ms=5000)),
    )
    play(process.epochs.open_tags(["a", TEAM, "b"], 2))


@pytest.mark.parametrize("away", [NO_SQL, NOT_SENT])
def test_what_cannot_be_opened_now_is_opened_in_another_round(process, away):
    play(process.epochs.open_tags(["a", "b"], 2), (InsertTag("a", 7), away))


def test_no_team_is_opened_ahead_in_an_epoch_that_is_not_open(process):
    steps = process.epochs.open_tags(["a", "b"], 2)
    play(steps, (InsertTag("a", 7), Meanwhile(process.lose, TagInserted(inserted=False, age_ms=5000))))
    play(process.epochs.open_tags(["a", "b"], 2))


# -- without SQL --------------------------------------------------------------------------------


LOOKS, FINDS = Beat(TEAM, "7"), Lost("8:run")


@pytest.fixture
def cut_off(process):
    """It has not heard from SQL, and others have begun epoch 8."""
    process.grant(CLAIM)
    follow(process, (ReadEpoch(PROCESS, 7), NO_SQL))
    answer_loss(process, "8:run")
    return process


def put_back(process, *script):
    play(process.epochs.put_back(), *script)


def test_cut_off_from_sql_it_puts_back_what_it_holds_in_the_epoch_that_it_finds(cut_off):
    holding = cut_off.holding("r1")
    holding.is_stored = False
    put_back(cut_off, (LOOKS, FINDS), (Restore(CLAIM, "8"), Done()))
    assert holding.is_stored
    assert (cut_off.epochs.number, cut_off.epochs.acknowledged, cut_off.epochs.is_open) == (7, 7, False)


def test_how_a_call_has_ended_is_put_there_too(cut_off):
    cut_off.accountant.settle("r1", exact())
    put_back(cut_off, (LOOKS, FINDS), (Settle(CLAIM, "8", exact()), Done()))


def test_each_team_is_looked_at_once(cut_off):
    for claim in (claim_of("r2", tag="team_2"), claim_of("r3")):
        cut_off.holdings.add(claim).is_admitted = True
    put_back(
        cut_off,
        (LOOKS, FINDS),
        (Restore(CLAIM, "8"), Done()),
        (Restore(claim_of("r3"), "8"), Done()),
        (Beat("team_2", "7"), Lost("9:run")),
        (Restore(claim_of("r2", tag="team_2"), "9"), Done()),
    )
    # What SQL says of an older one is behind all of them.
    view = EpochView(8, is_open=True)
    walk = Walk(cut_off.epochs.follow())
    walk.expect(ReadEpoch(PROCESS, 7), view)
    assert walk.command == AdvanceEpoch(8, PROCESS, 2500, 9)


@pytest.mark.parametrize("found", [Beaten(), Lost(None), Lost("6:run"), Lost("7:run")])
def test_nothing_is_put_into_an_epoch_that_is_no_newer(cut_off, found):
    cut_off.holdings.add(claim_of("r2", tag="team_2")).is_admitted = True
    put_back(
        cut_off, (LOOKS, found), (Beat("team_2", "7"), FINDS), (Restore(claim_of("r2", tag="team_2"), "8"), Done())
    )


def test_what_is_only_asked_for_is_not_put_there(process):
    process.holdings.add(CLAIM)
    follow(process, (ReadEpoch(PROCESS, 7), NO_SQL))
    put_back(process)


def test_with_sql_it_follows_the_epoch_instead(cut_off):
    follow(cut_off, (ReadEpoch(PROCESS, 7), EpochView(8, is_open=True)), (declared()[0], NOT_SENT))
    put_back(cut_off)
