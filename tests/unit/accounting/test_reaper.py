"""What a reaper does about silent owners: it charges, and drops only what is known to be nothing."""

from __future__ import annotations

import msgspec
import pytest

from app.accounting import reaper
from app.accounting.reaper import Reaper
from app.accounting.steps import (
    AdvanceEpoch,
    EpochView,
    InsertTag,
    ListTags,
    ProcessView,
    ReadEpoch,
    ReadProcess,
    Sleep,
    Submit,
    TagInserted,
)
from app.ledger.lines import AttemptLine, encode_payload, joined_lines
from app.ledger.recovery import interrupted_record
from app.limits.hot import Confirm, Confirmed, Done, Due, FindDue, InSQL, Known, Look, Lost, NotDue, OpenTag, TakeOver
from tests.unit.accounting.samples import (
    BUDGET,
    NOW_MS,
    PROCESS,
    TEAM,
    Process,
    claim_of,
    opening_of,
    opening_payload,
    record_of,
    record_payload,
)
from tests.unit.accounting.stepping import NO_SQL, NOT_SENT, Meanwhile, Walk, play

OWNER = "process-9"
OPENING = opening_of("r1")
HELD = Known("open", 7, 0, OWNER, opening_payload(OPENING), b"", 0, output_tokens=12, lower_nanousd=40)
TAKEN = msgspec.structs.replace(HELD, state="done", rank=1, nanousd=100)
LIST, FIND, LOOK = (ListTags(), (TEAM,)), (FindDue(TEAM, "7"), Due(("r1",))), (Look(TEAM, "r1"), HELD)
TAKE = TakeOver(TEAM, "7", "r1", (BUDGET,))
DROP = Confirm(TEAM, "7", (InSQL("r1", 2, 0, (BUDGET,)),), ())
CHARGED = interrupted_record(
    OPENING, (), (), NOW_MS, lower_nanousd=40, seen_output_tokens=12, error_code="gateway_lost"
)


class Reaping(Process):
    """A process with its reaper; ``unreadable`` is what it was told of."""

    def __init__(self):
        super().__init__()
        self.unreadable = []
        self.reaper = Reaper(self.epochs, self.clock.now_ms, on_unreadable=self.unreadable.append)

    def reap(self, *script):
        play(self.reaper.reap(), *script)


@pytest.fixture
def process():
    process = Reaping()
    process.open(7)
    process.epochs.knows(TEAM, 7)
    return process


# -- charged ------------------------------------------------------------------------------------


def test_a_silent_owners_call_is_charged_at_its_bound(process):
    process.reap(LIST, FIND, LOOK, (TAKE, TAKEN), (Submit(CHARGED), None))
    entry = CHARGED.entries[0]
    assert (entry.kind, entry.cost_nanousd, entry.cost_lower_nanousd, entry.cost_upper_nanousd) == (
        "estimate",
        100,
        40,
        100,
    )
    assert (CHARGED.outcome, CHARGED.error_code) == ("interrupted", "gateway_lost")
    assert process.reaper.taken_over == 1
    assert repr(process.reaper) == "Reaper(taken_over=1)"


def test_it_ends_no_earlier_than_it_began(process):
    process.clock.at_ms = OPENING.admitted_at_ms - 5
    record = msgspec.structs.replace(CHARGED, ended_at_ms=OPENING.admitted_at_ms)
    process.reap(LIST, FIND, LOOK, (TAKE, TAKEN), (Submit(record), None))


def test_what_its_owner_said_of_its_end_is_submitted_as_it_is(process):
    record = record_of("r1", 55)
    done = msgspec.structs.replace(HELD, state="done", rank=2, nanousd=55, record=record_payload(record))
    process.reap(LIST, FIND, (LOOK[0], done), (TAKE, done), (Submit(record), None))


@pytest.mark.parametrize("broken", [b"{", opening_payload(OPENING)], ids=["broken", "of another kind"])
def test_an_end_that_cannot_be_read_is_charged_at_its_bound(process, broken):
    done = msgspec.structs.replace(TAKEN, record=broken)
    process.reap(LIST, FIND, (LOOK[0], done), (TAKE, done), (Submit(CHARGED), None))


def test_all_that_is_due_is_taken_over(process):
    second = msgspec.structs.replace(HELD, opening=opening_payload(opening_of("r2")))
    charged = interrupted_record(
        opening_of("r2"), (), (), NOW_MS, lower_nanousd=40, seen_output_tokens=12, error_code="gateway_lost"
    )
    process.reap(
        LIST,
        (FIND[0], Due(("r1", "r2"))),
        LOOK,
        (TAKE, TAKEN),
        (Submit(CHARGED), None),
        (Look(TEAM, "r2"), second),
        (TakeOver(TEAM, "7", "r2", (BUDGET,)), second),
        (Submit(charged), None),
    )
    assert process.reaper.taken_over == 2


@pytest.mark.parametrize("answer", [NotDue(), Done(changed=False), Lost(None)])
def test_what_another_was_faster_with_is_left_to_it(process, answer):
    process.reap(LIST, FIND, LOOK, (TAKE, answer))
    assert process.reaper.taken_over == 0


def test_what_is_gone_by_then_is_left_alone(process):
    process.reap(LIST, FIND, (LOOK[0], Done(changed=False)))


def test_what_this_process_holds_is_never_taken_over(process):
    process.knows_mark()
    process.grant(claim_of("r1"))
    process.reap(LIST, FIND)


# -- dropped ------------------------------------------------------------------------------------


def test_its_own_that_it_does_not_hold_is_nothing(process):
    """It was given up, and the word of it was lost."""
    own = msgspec.structs.replace(HELD, owner=PROCESS)
    process.reap(LIST, FIND, (LOOK[0], own), (DROP, Confirmed()))
    older = msgspec.structs.replace(own, epoch=6)
    process.reap(LIST, FIND, (LOOK[0], older), (DROP, Confirmed()))


@pytest.mark.parametrize(
    "owner", [ProcessView(6, is_closed=True), ProcessView(7, is_closed=False), ProcessView(8, is_closed=False)]
)
def test_one_of_an_old_epoch_is_nothing_if_its_owner_would_have_put_it_back(process, owner):
    old = msgspec.structs.replace(HELD, epoch=6)
    process.reap(LIST, FIND, (LOOK[0], old), (ReadProcess(OWNER), owner), (DROP, Confirmed()))


def test_one_of_an_old_epoch_is_charged_if_its_owner_could_not(process):
    old = msgspec.structs.replace(HELD, epoch=6)
    process.reap(
        LIST,
        FIND,
        (LOOK[0], old),
        (ReadProcess(OWNER), ProcessView(6, is_closed=False)),
        (TAKE, TAKEN),
        (Submit(CHARGED), None),
    )


def test_of_one_of_this_epoch_nobody_asks_whose_it_is(process):
    """Its owner may have closed: whatever it left open was sent."""
    process.reap(LIST, FIND, LOOK, (TAKE, NotDue()))


def test_nothing_is_dropped_or_charged_in_an_epoch_that_is_over(process):
    old = msgspec.structs.replace(HELD, epoch=6)
    asks = (ReadProcess(OWNER), Meanwhile(process.lose, ProcessView(7, is_closed=False)))
    process.reap(LIST, FIND, (LOOK[0], old), asks)


# -- unreadable ---------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [b"{", b"", record_payload(record_of("r1"))], ids=["broken", "empty", "a record"])
def test_what_cannot_be_understood_is_left_where_it_is_and_told_once(process, broken):
    unreadable = msgspec.structs.replace(HELD, opening=broken)
    process.reap(LIST, FIND, (LOOK[0], unreadable))
    process.reap(LIST, (FindDue(TEAM, "7", 101), Due(("r1",))), (LOOK[0], unreadable))
    assert process.unreadable == ["r1"]


def test_a_hundred_that_cannot_be_understood_do_not_hide_what_can(process):
    """They stay due, longer than all others."""
    unreadable = msgspec.structs.replace(HELD, opening=b"{")
    names = tuple(f"x{number}" for number in range(100))
    process.reap(LIST, (FIND[0], Due(names)), *((Look(TEAM, name), unreadable) for name in names))
    process.reap(
        LIST,
        (FindDue(TEAM, "7", 200), Due((*names, "r1"))),
        *((Look(TEAM, name), unreadable) for name in names),
        LOOK,
        (TAKE, TAKEN),
        (Submit(CHARGED), None),
    )


def test_nobody_has_to_listen():
    process = Process().open(7)
    process.epochs.knows(TEAM, 7)
    reaper = Reaper(process.epochs, process.clock.now_ms)
    play(reaper.reap(), LIST, FIND, (LOOK[0], msgspec.structs.replace(HELD, opening=b"{")))


def test_only_so_many_that_cannot_be_understood_are_remembered(process, monkeypatch):
    monkeypatch.setattr(reaper, "UNREADABLE_MAX", 1)
    unreadable = msgspec.structs.replace(HELD, opening=b"{")
    looks = [(Look(TEAM, name), unreadable) for name in ("a", "b")]
    process.reap(LIST, (FIND[0], Due(("a", "b"))), *looks)
    process.reap(LIST, (FindDue(TEAM, "7", 101), Due(("a", "b"))), *looks)
    assert process.unreadable == ["a", "b", "b"]


def test_what_cannot_be_understood_keeps_it_from_nothing_else(process):
    unreadable = msgspec.structs.replace(HELD, opening=b"{")
    process.reap(
        LIST, (FIND[0], Due(("x", "r1"))), (Look(TEAM, "x"), unreadable), LOOK, (TAKE, TAKEN), (Submit(CHARGED), None)
    )


# -- when it may --------------------------------------------------------------------------------


def test_it_does_nothing_while_strict_limits_are_closed(process):
    process.lose()
    process.reap()


def test_it_does_nothing_unless_sql_has_just_answered(process):
    play(process.epochs.follow(), (ReadEpoch(PROCESS, 7), NO_SQL))
    process.reap()
    play(process.epochs.follow(), (ReadEpoch(PROCESS, 7), EpochView(7, is_open=True)))
    process.reap(LIST, (FIND[0], Due(())))


@pytest.mark.parametrize("away", [NO_SQL, NOT_SENT])
def test_a_round_that_fails_is_followed_by_another(process, away):
    process.reap((ListTags(), away))
    process.reap(LIST, (FIND[0], away))
    process.reap(LIST, FIND, LOOK, (TAKE, away))
    process.reap(LIST, FIND, LOOK, (TAKE, TAKEN), (Submit(CHARGED), None))


# -- teams in turn ------------------------------------------------------------------------------


def test_teams_are_looked_at_in_turn(process):
    process.epochs.knows("team_2", 7)
    names = (TEAM, "team_2")
    for _ in range(2):
        process.reap((ListTags(), names), *((FindDue(name, "7"), Due(())) for name in names))


def test_two_hundred_teams_are_looked_at_in_a_round(process):
    names = tuple(f"team_{number}" for number in range(201))
    for name in names:
        process.epochs.knows(name, 7)
    process.reap((ListTags(), names), *((FindDue(name, "7"), Due(())) for name in names[:200]))
    process.reap((FindDue(names[200], "7"), Due(())))
    process.reap((ListTags(), ()))


def test_a_team_that_nobody_has_used_in_this_epoch_is_opened(process):
    """It may hold what was left behind in another."""
    process.epochs._opened.clear()
    process.reap(
        LIST,
        (InsertTag(TEAM, 7), TagInserted(inserted=True)),
        (OpenTag(TEAM, "7"), Done()),
        (FIND[0], Due(())),
    )


def test_a_loss_ends_the_round(process):
    lost = (AdvanceEpoch(7, PROCESS, 2500), EpochView(8, is_open=False))
    process.reap((ListTags(), (TEAM, "team_2")), (FIND[0], Lost(None)), lost)
    assert process.epochs.number == 8


def test_a_team_that_answers_is_lost_if_it_is_gone_later(process):
    process.epochs._opened.clear()
    waits = ((InsertTag(TEAM, 7), TagInserted(inserted=False, age_ms=1)), (Sleep(0.05), None))
    process.reap(LIST, *waits, (FIND[0], Due(())))
    lost = (AdvanceEpoch(7, PROCESS, 2500), EpochView(8, is_open=False))
    process.reap(LIST, (FIND[0], Lost(None)), lost)


def test_an_old_epochs_answer_tells_nothing_of_the_new_one(process):
    process.reap(LIST, (FIND[0], Meanwhile(process.lose, Due(()))))
    walk = Walk(process.epochs.open_tag(TEAM, 8))
    assert walk.command == InsertTag(TEAM, 8)


def test_a_newer_epoch_ends_the_round_and_begins_none(process):
    process.reap((ListTags(), (TEAM, "team_2")), (FIND[0], Lost("8:run")))
    assert (process.epochs.number, process.epochs.is_open) == (7, False)


def test_the_last_attempt_is_charged_and_those_before_it_are_void(process):
    second = msgspec.structs.replace(
        OPENING.attempt,
        number=2,
        upstream="dearer",
        bound=msgspec.structs.replace(OPENING.attempt.bound, cost_upper_nanousd=900),
    )
    line = AttemptLine("r1", second)
    held = msgspec.structs.replace(HELD, opening=joined_lines(HELD.opening, encode_payload(line)))
    taken = msgspec.structs.replace(held, state="done", rank=1, nanousd=900)
    record = interrupted_record(
        OPENING, [line], (), NOW_MS, lower_nanousd=40, seen_output_tokens=12, error_code="gateway_lost"
    )
    assert [(entry.attempt_id, entry.kind, entry.cost_nanousd) for entry in record.entries] == [
        ("r1.1", "void", 0),
        ("r1.2", "estimate", 900),
    ]
    process.reap(LIST, FIND, (Look(TEAM, "r1"), held), (TAKE, taken), (Submit(record), None))


@pytest.mark.parametrize("opening", [b"\n", b"{}", HELD.opening + b"\n", HELD.opening + b"\nrubbish"])
def test_an_opening_of_which_a_line_cannot_be_read_stays(process, opening):
    held = msgspec.structs.replace(HELD, opening=opening)
    process.reap(LIST, FIND, (Look(TEAM, "r1"), held))
    assert process.unreadable == ["r1"]


def test_what_has_ended_needs_no_opening(process):
    """Its owner settled it where nothing was known of it: the record is all there is, and says which budgets it has."""
    ended = msgspec.structs.replace(HELD, state="done", rank=2, opening=b"", record=record_payload(record_of("r1")))
    assert record_of("r1").budgets == (BUDGET,)
    process.reap(LIST, FIND, (Look(TEAM, "r1"), ended), (TAKE, ended), (Submit(record_of("r1")), None))


def test_an_owner_that_settles_it_meanwhile_is_believed(process):
    ended = msgspec.structs.replace(HELD, state="done", rank=2, record=record_payload(record_of("r1")))
    process.reap(LIST, FIND, LOOK, (TAKE, ended), (Submit(record_of("r1")), None))
