"""Leading the warm-up of an epoch: nobody's money is forgotten, and nobody waits for ever."""

from __future__ import annotations

import pytest

from app.accounting.steps import (
    AdvanceEpoch,
    EpochView,
    InsertTag,
    Mark,
    OpenEpoch,
    ReadEpoch,
    ReadLaggards,
    ReadMarks,
    Sleep,
    TagInserted,
    TakeLead,
)
from app.core.records import BudgetWindow
from app.limits.hot import Done, Lost, OpenTag, StandIn
from tests.unit.accounting.samples import BUDGET, PROCESS, TEAM, Process
from tests.unit.accounting.stepping import NO_SQL, NOT_SENT, Meanwhile, play

LED = EpochView(8, is_open=False, leader=PROCESS, leader_left_ms=2500)
OPEN = EpochView(8, is_open=True, leader=PROCESS, leader_left_ms=2000)
LOOKED, LEADS = (ReadEpoch(PROCESS, 8), LED), (TakeLead(8, PROCESS, 2500), LED)
MARK = Mark("silent", TEAM, BUDGET, 500)
OTHER = Mark("silent", "team_2", BudgetWindow("budget_2", 0), 70)
NOBODY, SOMEBODY = (ReadLaggards(8), ()), (ReadLaggards(8), (MARK, OTHER))
OPENS, NO_MARKS = (OpenEpoch(8, PROCESS), OPEN), (ReadMarks(PROCESS), ())
HELD = (StandIn(TEAM, "8", "silent", BUDGET, 500), Done())
HELD_TOO = (StandIn("team_2", "8", "silent", OTHER.budget, 70), Done())


@pytest.fixture
def process():
    """It has begun epoch 8, and has put back what it held: nothing."""
    process = Process().open(7)
    play(process.epochs.follow(), (ReadEpoch(PROCESS, 7), LED), LOOKED, LEADS, NOBODY)
    process.epochs.knows(TEAM, 8)
    process.epochs.knows("team_2", 8)
    return process


def follow(process, *script):
    play(process.epochs.follow(), *script)


def test_without_laggards_it_opens_in_the_second_round(process):
    """Leases of concurrency are put back by others meanwhile."""
    assert not process.epochs.is_open
    follow(process, LOOKED, LEADS, NOBODY, OPENS, NO_MARKS)
    assert process.epochs.is_current(8)


def test_with_laggards_it_opens_in_the_sixth(process):
    for _ in range(4):
        follow(process, LOOKED, LEADS, SOMEBODY)
    assert not process.epochs.is_open
    follow(process, LOOKED, LEADS, SOMEBODY, HELD, HELD_TOO, OPENS, NO_MARKS)
    assert process.epochs.is_current(8)


def test_it_opens_as_soon_as_the_last_has_acknowledged(process):
    follow(process, LOOKED, LEADS, SOMEBODY)
    follow(process, LOOKED, LEADS, NOBODY, OPENS, NO_MARKS)
    assert process.epochs.is_open


def test_it_waits_for_those_that_live_and_have_declared_nothing(process):
    """They may hold something that SQL could not be told of."""
    behind = EpochView(8, is_open=False, leader=PROCESS, leader_left_ms=2500, behind=1)
    for _ in range(4):
        follow(process, LOOKED, (LEADS[0], behind), NOBODY)
    assert not process.epochs.is_open
    follow(process, LOOKED, (LEADS[0], behind), NOBODY, OPENS, NO_MARKS)
    assert process.epochs.is_open


def test_rounds_are_counted_anew_in_each_epoch(process):
    for _ in range(4):
        follow(process, LOOKED, LEADS, SOMEBODY)
    nine = EpochView(9, is_open=False, leader=PROCESS, leader_left_ms=2500)
    script = [(ReadEpoch(PROCESS, 9), nine), (TakeLead(9, PROCESS, 2500), nine), (ReadLaggards(9), (MARK,))]
    follow(process, (ReadEpoch(PROCESS, 8), nine), *script)
    for _ in range(4):
        follow(process, *script)
    assert not process.epochs.is_open


def test_another_leads_while_its_lease_lasts(process):
    follow(process, (ReadEpoch(PROCESS, 8), EpochView(8, is_open=False, leader="other", leader_left_ms=1)))


def test_a_leader_that_fell_silent_is_followed_by_another(process):
    silent = EpochView(8, is_open=False, leader="other", leader_left_ms=0)
    follow(process, (ReadEpoch(PROCESS, 8), silent), LEADS, NOBODY, OPENS, NO_MARKS)
    assert process.epochs.is_open


def test_of_two_that_take_the_lead_one_leads(process):
    silent = EpochView(8, is_open=False, leader="other", leader_left_ms=0)
    taken = EpochView(8, is_open=False, leader="third", leader_left_ms=2500)
    follow(process, (ReadEpoch(PROCESS, 8), silent), (TakeLead(8, PROCESS, 2500), taken))
    assert not process.epochs.is_open


def test_what_another_has_opened_meanwhile_is_open(process):
    opened = EpochView(8, is_open=True, leader=PROCESS, leader_left_ms=0)
    follow(process, LOOKED, (TakeLead(8, PROCESS, 2500), opened), NO_MARKS)
    assert process.epochs.is_open


def test_an_epoch_that_began_meanwhile_is_not_led(process):
    nine = EpochView(9, is_open=False, leader=PROCESS, leader_left_ms=2500)
    follow(process, LOOKED, (TakeLead(8, PROCESS, 2500), nine))
    assert not process.epochs.is_open


def test_an_epoch_that_another_has_opened_is_not_ours_to_open_again(process):
    follow(process, LOOKED, LEADS, NOBODY, (OpenEpoch(8, PROCESS), EpochView(9, is_open=True)))
    assert not process.epochs.is_open


@pytest.mark.parametrize("away", [NOT_SENT, NO_SQL])
def test_stand_ins_that_could_not_be_put_are_put_before_it_opens(process, away):
    for _ in range(4):
        follow(process, LOOKED, LEADS, SOMEBODY)
    follow(process, LOOKED, LEADS, SOMEBODY, HELD, (HELD_TOO[0], away))
    follow(process, LOOKED, LEADS, SOMEBODY, HELD, HELD_TOO, OPENS, NO_MARKS)


def test_a_loss_while_stand_ins_are_put_begins_the_next_epoch(process):
    for _ in range(4):
        follow(process, LOOKED, LEADS, SOMEBODY)
    lost = (AdvanceEpoch(8, PROCESS, 2500), EpochView(9, is_open=False))
    follow(process, LOOKED, LEADS, SOMEBODY, (HELD[0], Lost(None)), lost)
    assert process.epochs.number == 9


def test_a_team_that_another_is_opening_keeps_it_warming(process):
    for _ in range(4):
        follow(process, LOOKED, LEADS, SOMEBODY)
    process.epochs._opened.clear()
    waits = ((InsertTag(TEAM, 8), TagInserted(inserted=False, age_ms=10)), (Sleep(0.05), None))
    follow(process, LOOKED, LEADS, SOMEBODY, *waits, (HELD[0], Lost(None)))
    assert (process.epochs.number, process.epochs.is_open) == (8, False)


def test_teams_of_laggards_are_opened(process):
    for _ in range(4):
        follow(process, LOOKED, LEADS, SOMEBODY)
    process.epochs._opened.clear()
    noted = TagInserted(inserted=True)
    follow(
        process,
        LOOKED,
        LEADS,
        SOMEBODY,
        (InsertTag(TEAM, 8), noted),
        (OpenTag(TEAM, "8"), Done()),
        HELD,
        (InsertTag("team_2", 8), noted),
        (OpenTag("team_2", "8"), Done()),
        HELD_TOO,
        OPENS,
        NO_MARKS,
    )


def test_who_declares_it_lost_leads_the_next_one():
    process = Process().open(7)
    process.epochs.knows(TEAM, 7)
    play(process.epochs.answer_loss(TEAM, None, 7), (AdvanceEpoch(7, PROCESS, 2500), LED))
    follow(process, (ReadEpoch(PROCESS, 7), LED), LOOKED, LEADS, NOBODY)
    follow(process, LOOKED, LEADS, NOBODY, OPENS, NO_MARKS)
    assert process.states == [(True, ""), (False, "the hot state was lost"), (True, "")]


def test_a_loss_just_before_it_opens_keeps_it_closed(process):
    """Noted elsewhere in this process while SQL was asked to open."""

    def lose():
        play(process.epochs.answer_loss(TEAM, None, 8), (AdvanceEpoch(8, PROCESS, 2500), NO_SQL))

    follow(process, LOOKED, LEADS, NOBODY, (OpenEpoch(8, PROCESS), Meanwhile(lose, OPEN)), NO_MARKS)
    assert not process.epochs.is_open
