"""Heartbeats: what lives, what has to be told again, and what the hot state says that it does not know."""

from __future__ import annotations

import pytest

from app.accounting.accountant import BEATEN_AT_ONCE
from app.accounting.holdings import Progress
from app.accounting.steps import AdvanceEpoch, EpochView, InsertTag, ReadEpoch, TagInserted
from app.limits.hot import Beat, Beaten, Done, Lost, NotDue, OpenTag, Restore, Seen, Settle
from app.limits.limiter import Claim
from tests.unit.accounting.samples import (
    PROCESS,
    TEAM,
    Process,
    claim_of,
    concurrency,
    exact,
    in_sql,
    protective,
)
from tests.unit.accounting.stepping import NO_SQL, NOT_SENT, SENT, Meanwhile, play

CLAIM = claim_of("r1")
LOCAL = protective(claim_of("local", concurrency()))


@pytest.fixture
def process():
    return Process().open(7).knows_mark()


def beat(process, *script):
    play(process.accountant.beat(), *script)


def beaten(claim=CLAIM, output_tokens=0, lower_nanousd=0):
    return Beat(claim.tag, "7", (Seen(claim, output_tokens, lower_nanousd),), ())


def settled(process, claim=CLAIM, *, is_told):
    """A call that was granted and has ended."""
    holding = process.grant(claim)
    process.accountant.settle(claim.request_id, exact())
    if is_told:
        process.accountant.settled(claim.request_id, Done())
    return holding


# -- running calls ------------------------------------------------------------------------------


def test_what_has_just_begun_needs_no_beat(process):
    process.grant(CLAIM)
    beat(process)
    beat(process, (beaten(), Beaten()))
    beat(process, (beaten(), Beaten()))


def test_a_beat_carries_what_was_seen(process):
    process.grant(CLAIM).progress = lambda: Progress(42, 17)
    beat(process)
    beat(process, (beaten(output_tokens=42, lower_nanousd=17), Beaten()))


def test_what_is_asked_for_and_not_admitted_is_not_beaten_for(process):
    process.holdings.add(CLAIM)
    beat(process)
    beat(process)
    assert process.holding("r1").beats == 0


def test_each_team_has_a_beat_of_its_own(process):
    other = claim_of("r2", tag="team_2")
    process.grant(CLAIM)
    process.grant(other)
    beat(process)
    beat(process, (beaten(), Beaten()), (beaten(other), Beaten()))


def test_what_is_missing_is_put_back(process):
    process.grant(CLAIM)
    beat(process)
    beat(process, (beaten(), Beaten(("r1",))), (Restore(CLAIM, "7"), Done()))
    assert process.holding("r1").is_stored


def test_what_was_admitted_while_the_hot_state_was_away_is_put_there(process):
    holding = process.grant_locally(LOCAL)
    beat(process)
    beat(
        process,
        (beaten(LOCAL), Beaten(("local",))),
        (InsertTag(TEAM, 7), TagInserted(inserted=True)),
        (OpenTag(TEAM, "7"), Done()),
        (Restore(LOCAL, "7"), Done()),
    )
    assert (holding.is_stored, holding.is_told) == (True, False)


def test_what_the_hot_state_knows_after_all_is_stored(process):
    holding = process.grant_locally(LOCAL)
    beat(process)
    beat(process, (beaten(LOCAL), Beaten()))
    assert holding.is_stored


def test_a_call_that_ends_while_its_beat_is_under_way_is_settled_if_missing(process):
    process.grant(CLAIM)
    beat(process)
    ends = Meanwhile(lambda: process.accountant.settle("r1", exact()), Beaten(("r1",)))
    beat(process, (beaten(), ends), (Settle(CLAIM, "7", exact()), Done()))
    assert process.holding("r1").is_told


def test_a_call_that_is_in_sql_before_its_beat_is_answered_is_not_put_back(process):
    """Nobody would ever confirm it."""
    process.epochs.knows(TEAM, 7)
    process.grant_locally(LOCAL)
    beat(process)

    def ends():
        process.accountant.settle("local", exact(0))
        play(process.accountant.committed([(TEAM, in_sql("local", budgets=()))], [], 7))

    beat(process, (beaten(LOCAL), Meanwhile(ends, Beaten(("local",)))))
    assert "local" not in process.holdings


def test_a_restore_that_finds_the_epoch_lost_says_so(process):
    process.grant(CLAIM)
    beat(process)
    next_epoch = EpochView(8, is_open=False)
    beat(
        process,
        (beaten(), Beaten(("r1",))),
        (Restore(CLAIM, "7"), Lost(None)),
        (AdvanceEpoch(7, PROCESS, 2500), next_epoch),
    )
    assert process.epochs.number == 8


def test_a_beat_that_finds_the_epoch_lost_says_so(process):
    process.grant(CLAIM)
    beat(process)
    lost = (AdvanceEpoch(7, PROCESS, 2500), EpochView(8, is_open=False))
    beat(process, (beaten(), Lost(None)), lost)
    assert not process.epochs.is_open


def test_nothing_is_put_back_in_an_epoch_that_is_over(process):
    process.grant(CLAIM)
    beat(process)
    beat(process, (beaten(), Meanwhile(process.lose, Beaten(("r1",)))))


def test_what_cannot_be_answered_changes_nothing(process):
    holding = process.grant_locally(LOCAL)
    beat(process)
    beat(process, (beaten(LOCAL), NotDue()))
    assert not holding.is_stored


@pytest.mark.parametrize("away", [NOT_SENT, SENT, NO_SQL])
def test_a_beat_that_is_not_answered_is_followed_by_another(process, away):
    process.grant(CLAIM)
    beat(process)
    beat(process, (beaten(), away))
    beat(process, (beaten(), Beaten()))


def test_no_beat_before_everything_is_put_back(process):
    process.grant(CLAIM)
    process.lose()
    beat(process)
    beat(process)
    assert process.holding("r1").beats == 0


def test_without_sql_it_asks_the_hot_state_for_a_new_epoch(process):
    """Nobody else would tell."""
    follow = process.epochs.follow()
    play(follow, (ReadEpoch(PROCESS, 7), NO_SQL))
    settled(process, is_told=True)
    process.grant(claim_of("r2"))
    beat(process, (Beat(TEAM, "7"), Beaten()))
    beat(process, (beaten(claim_of("r2")), Lost("8:run")))
    assert not process.epochs.is_open
    restored = (Settle(CLAIM, "8", exact()), Done()), (Restore(claim_of("r2"), "8"), Done())
    beat(process, (Beat(TEAM, "7"), Lost("8:run")), *restored)
    beat(process, (Beat(TEAM, "7"), NOT_SENT))


def test_without_sql_what_waits_for_it_is_beaten_for_all_the_same(process):
    settled(process, is_told=True)
    for _ in range(14):
        beat(process)
    settled(process, claim_of("r2"), is_told=True)
    play(process.epochs.follow(), (ReadEpoch(PROCESS, 7), NO_SQL))
    beat(process, (Beat(TEAM, "7", (), ("r1",)), Beaten()))


def test_many_calls_are_beaten_for_in_parts(process):
    claims = [Claim(f"r{number}", TEAM, ()) for number in range(BEATEN_AT_ONCE + 1)]
    for claim in claims:
        process.grant(claim)
    beat(process)
    beat(
        process,
        (Beat(TEAM, "7", tuple(map(Seen, claims[:500]))), Beaten((claims[3].request_id,))),
        (Restore(claims[3], "7"), Done()),
        (Beat(TEAM, "7", (Seen(claims[500]),)), Beaten()),
    )


def test_a_call_that_ends_before_its_part_is_sent_is_not_beaten_for(process):
    claims = [Claim(f"r{number}", TEAM, ()) for number in range(BEATEN_AT_ONCE + 2)]
    for claim in claims:
        process.grant(claim)
    beat(process)
    ends = Meanwhile(lambda: process.accountant.settle("r500", exact(0)), Beaten())
    beat(
        process,
        (Beat(TEAM, "7", tuple(map(Seen, claims[:500]))), ends),
        (Beat(TEAM, "7", (Seen(claims[501]),)), Beaten()),
    )


# -- settled calls ------------------------------------------------------------------------------


def test_an_outcome_without_an_answer_is_told_again_at_the_second_beat(process):
    """The first comes when the answer may still be under way."""
    holding = settled(process, is_told=False)
    beat(process)
    beat(process, (Settle(CLAIM, "7", exact()), Done()))
    assert holding.is_told
    beat(process)


@pytest.mark.parametrize("away", [NOT_SENT, SENT])
def test_it_is_told_until_it_is_heard(process, away):
    settled(process, is_told=False)
    beat(process)
    beat(process, (Settle(CLAIM, "7", exact()), away))
    beat(process, (Settle(CLAIM, "7", exact()), Done()))
    beat(process)


def test_the_end_of_a_call_that_the_hot_state_never_heard_of_is_told(process):
    holding = process.grant_locally(LOCAL)
    process.accountant.settle("local", exact(0))
    beat(process)
    beat(
        process,
        (InsertTag(TEAM, 7), TagInserted(inserted=True)),
        (OpenTag(TEAM, "7"), Done()),
        (Settle(LOCAL, "7", exact(0)), Done()),
    )
    assert (holding.is_stored, holding.is_told) == (True, True)


def test_what_waits_for_sql_is_beaten_for_every_fifteen_beats(process):
    settled(process, is_told=True)
    for _ in range(2):
        for _ in range(14):
            beat(process)
        beat(process, (Beat(TEAM, "7", (), ("r1",)), Beaten()))


def test_running_and_settled_ones_of_a_team_share_a_beat(process):
    settled(process, is_told=True)
    for _ in range(13):
        beat(process)
    running = claim_of("r2")
    process.grant(running)
    beat(process)
    beat(process, (Beat(TEAM, "7", (Seen(running),), ("r1",)), Beaten()))


def test_many_settled_calls_are_beaten_for_in_parts(process):
    names = [f"r{number}" for number in range(BEATEN_AT_ONCE + 1)]
    for name in names:
        settled(process, Claim(name, TEAM, ()), is_told=True)
    for _ in range(14):
        beat(process)
    beat(
        process,
        (Beat(TEAM, "7", (), tuple(names[:500])), Beaten()),
        (Beat(TEAM, "7", (), tuple(names[500:])), Beaten()),
    )


def test_what_is_in_sql_meanwhile_is_not_told_again(process):
    """The first of two is told; while that is under way SQL has got the second."""
    first, second = protective(claim_of("a", concurrency())), protective(claim_of("b", concurrency()))
    for claim in (first, second):
        process.grant_locally(claim)
        process.accountant.settle(claim.request_id, exact(0))
    beat(process)
    process.epochs.knows(TEAM, 7)

    def confirm():
        play(process.accountant.committed([(TEAM, in_sql("b", budgets=()))], [], 7))

    beat(process, (Settle(first, "7", exact(0)), Meanwhile(confirm, Done())))


# -- limits that protect an upstream ------------------------------------------------------------


def test_leases_of_upstreams_are_kept_without_an_epoch(process):
    first, second, third = (Claim(name, tag, ()) for name, tag in [("a", "up:x"), ("b", "up:y"), ("c", "up:x")])
    play(
        process.accountant.beat_light({"a": first, "b": second, "c": third}),
        (Beat("up:x", "", (Seen(first), Seen(third))), Beaten()),
        (Beat("up:y", "", (Seen(second),)), Beaten()),
    )


def test_many_of_them_are_kept_in_parts(process):
    claims = [Claim(f"r{number}", "up:x", ()) for number in range(BEATEN_AT_ONCE + 1)]
    play(
        process.accountant.beat_light({claim.request_id: claim for claim in claims}),
        (Beat("up:x", "", tuple(map(Seen, claims[:500]))), Beaten()),
        (Beat("up:x", "", (Seen(claims[500]),)), Beaten()),
    )


def test_without_the_hot_state_they_are_kept_by_the_next_beat(process):
    claim = Claim("a", "up:x", ())
    play(process.accountant.beat_light({"a": claim}), (Beat("up:x", "", (Seen(claim),)), NOT_SENT))


def test_a_call_that_has_ended_does_not_take_its_lease_again(process):
    claims = {tag: Claim(tag, tag, ()) for tag in ("up:x", "up:y", "up:z")}
    beats = [Beat(tag, "", (Seen(claim),)) for tag, claim in claims.items()]
    play(
        process.accountant.beat_light(claims),
        (beats[0], Meanwhile(lambda: claims.pop("up:y"), Beaten())),
        (Beat("up:y", ""), Beaten()),
        (beats[2], Beaten()),
    )


# -- a newer epoch than ours --------------------------------------------------------------------


def test_a_beat_that_finds_a_newer_epoch_begins_none(process):
    process.grant(CLAIM)
    beat(process)
    beat(process, (beaten(), Lost("8:run")))
    assert (process.epochs.number, process.epochs.is_open) == (7, False)


def test_a_restore_that_finds_a_newer_epoch_begins_none(process):
    process.grant(CLAIM)
    beat(process)
    beat(process, (beaten(), Beaten(("r1",))), (Restore(CLAIM, "7"), Lost("8:run")))
    assert (process.epochs.number, process.epochs.is_open) == (7, False)


def test_a_part_that_is_not_understood_keeps_no_other_from_it(process):
    claims = [Claim(f"r{number}", TEAM, ()) for number in range(BEATEN_AT_ONCE + 1)]
    for claim in claims:
        process.grant(claim)
    beat(process)
    beat(
        process,
        (Beat(TEAM, "7", tuple(map(Seen, claims[:500]))), NotDue()),
        (Beat(TEAM, "7", (Seen(claims[500]),)), Beaten()),
    )
