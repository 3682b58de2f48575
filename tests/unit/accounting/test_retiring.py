"""All that a dead process held is in SQL: what is held for it ends."""

from __future__ import annotations

import pytest

from app.accounting.steps import (
    AdvanceEpoch,
    CloseProcess,
    EpochView,
    InsertTag,
    Mark,
    ReadBudgets,
    ReadEpoch,
    ReadMarks,
    TagInserted,
    TeamBudget,
)
from app.core.records import BudgetWindow
from app.limits.hot import BudgetValue, Done, Lost, OpenTag, Seed, StandIn
from tests.unit.accounting.samples import BUDGET, PROCESS, TEAM, Process
from tests.unit.accounting.stepping import NO_SQL, NOT_SENT, SENT, Meanwhile, play

DEAD = "process-0"
MARK = Mark(DEAD, TEAM, BUDGET, 500)
OTHER = Mark(DEAD, "team_2", BudgetWindow("budget_2", 0), 70)
VALUE = BudgetValue(BUDGET, 90, 3)
READ = ReadBudgets((TeamBudget(TEAM, BUDGET),))
VIEW = EpochView(7, is_open=True)

LISTED = (ReadMarks(DEAD), (MARK,))
WORTH = (READ, (VALUE,))
SEEDED = (Seed(TEAM, "7", (VALUE,)), Done())
ENDED = (StandIn(TEAM, "7", DEAD, BUDGET, 0), Done())
CLOSED = (CloseProcess(DEAD), None)
LOOKED = (ReadEpoch(PROCESS, 7), VIEW)


@pytest.fixture
def process():
    process = Process().open(7)
    process.epochs.knows(TEAM, 7)
    return process


def retire(process, *script):
    return play(process.accountant.retire(DEAD), *script)


def test_the_value_with_its_rows_goes_first_and_then_its_stand_in(process):
    """Else they would count nowhere for a moment."""
    assert retire(process, LISTED, WORTH, SEEDED, ENDED, CLOSED, LOOKED) is True


def test_who_declared_nothing_is_closed(process):
    assert retire(process, (ReadMarks(DEAD), ()), CLOSED, LOOKED) is True


def test_all_values_are_told_before_any_stand_in_ends(process):
    value = BudgetValue(OTHER.budget, 1, 1)
    retire(
        process,
        (ReadMarks(DEAD), (MARK, OTHER)),
        WORTH,
        SEEDED,
        (InsertTag("team_2", 7), TagInserted(inserted=True)),
        (OpenTag("team_2", "7"), Done()),
        (ReadBudgets((TeamBudget("team_2", OTHER.budget),)), (value,)),
        (Seed("team_2", "7", (value,)), Done()),
        ENDED,
        (StandIn("team_2", "7", DEAD, OTHER.budget, 0), Done()),
        CLOSED,
        LOOKED,
    )


def test_nothing_is_done_while_an_epoch_is_being_opened(process):
    process.lose()
    assert retire(process) is False


@pytest.mark.parametrize("away", [NO_SQL, NOT_SENT, SENT])
def test_whatever_does_not_answer_it_is_tried_again(process, away):
    steps = [LISTED, WORTH, SEEDED, ENDED, CLOSED, LOOKED]
    for number in range(1, len(steps)):
        command = steps[number][0]
        # Its marks are remembered: SQL forgets them when it is closed.
        assert retire(process, *steps[1 if number > 1 else 0 : number], (command, away)) is False
    assert retire(process, *steps[1:]) is True
    # And only then they are forgotten here.
    assert retire(process, *steps) is True


def test_marks_that_cannot_be_read_are_read_again(process):
    assert retire(process, (ReadMarks(DEAD), NO_SQL)) is False
    assert retire(process, LISTED, WORTH, SEEDED, ENDED, CLOSED, LOOKED) is True


def test_an_epoch_that_began_meanwhile_has_them_ended_there_too(process):
    """Its leader may have read these marks before they went."""
    later = EpochView(8, is_open=False)
    assert retire(process, LISTED, WORTH, SEEDED, ENDED, CLOSED, (ReadEpoch(PROCESS, 7), later)) is False
    process.lose()
    process.open(8)
    process.epochs.knows(TEAM, 8)
    assert (
        retire(
            process,
            WORTH,
            (Seed(TEAM, "8", (VALUE,)), Done()),
            (StandIn(TEAM, "8", DEAD, BUDGET, 0), Done()),
            CLOSED,
            (ReadEpoch(PROCESS, 8), EpochView(8, is_open=True)),
        )
        is True
    )


def test_it_is_not_closed_in_an_epoch_that_is_over(process):
    ends = (ENDED[0], Meanwhile(process.lose, Done()))
    assert retire(process, LISTED, WORTH, SEEDED, ends) is False


def test_a_stand_in_that_finds_the_epoch_lost_says_so(process):
    lost = (AdvanceEpoch(7, PROCESS, 2500), EpochView(8, is_open=False))
    assert retire(process, LISTED, WORTH, SEEDED, (ENDED[0], Lost(None)), lost) is False
    assert process.epochs.number == 8


def test_a_newer_epoch_is_waited_for(process):
    assert retire(process, LISTED, WORTH, SEEDED, (ENDED[0], Lost("8:run"))) is False
    assert (process.epochs.number, process.epochs.is_open) == (7, False)
