"""The end of a call, and whether the hot state has been told of it."""

from __future__ import annotations

import pytest

from app.accounting import accountant
from app.accounting.steps import EpochView, InsertTag, Mark, RaiseMarks, ReadEpoch, ReadMarks, TagInserted
from app.limits.hot import Done, Lost, OpenTag, Restore, Settle
from tests.unit.accounting.samples import BUDGET, Process, claim_of, concurrency, exact, money, protective, requests
from tests.unit.accounting.stepping import play

CLAIM = claim_of("r1")
LOCAL = protective(claim_of("r1", concurrency(1)))


@pytest.fixture
def process():
    return Process().open(7).knows_mark()


def test_the_outcome_is_told_at_once(process):
    holding = process.grant(CLAIM)
    assert process.accountant.settle("r1", exact(70)) == Settle(CLAIM, "7", exact(70))
    assert (holding.outcome, holding.is_told) == (exact(70), False)
    assert process.holdings.taken(BUDGET) == 70
    assert repr(holding) == "Holding('r1', done, stored=True, told=False)"


def test_only_the_first_outcome_counts(process):
    process.grant(CLAIM)
    process.accountant.settle("r1", exact(70))
    assert process.accountant.settle("r1", exact(5)) is None
    assert process.holding("r1").outcome == exact(70)
    assert process.holdings.taken(BUDGET) == 70


def test_what_is_not_held_has_no_end(process):
    assert process.accountant.settle("r1", exact()) is None
    process.accountant.settled("r1", Done())
    assert "r1" not in process.holdings


def test_an_answer_means_that_it_is_told(process):
    holding = process.grant(CLAIM)
    process.accountant.settle("r1", exact())
    process.accountant.settled("r1", Done(changed=False))
    assert holding.is_told


def test_a_loss_means_that_it_is_not(process):
    holding = process.grant(CLAIM)
    process.accountant.settle("r1", exact())
    process.accountant.settled("r1", Lost(None))
    assert not holding.is_told


def test_where_strict_limits_are_closed_it_is_told_later(process):
    holding = process.grant(CLAIM)
    process.lose()
    assert process.accountant.settle("r1", exact()) is None
    assert holding.outcome == exact()


def test_what_the_hot_state_has_not_heard_of_is_told_later(process):
    process.grant_locally(LOCAL)
    assert process.accountant.settle("r1", exact(0)) is None


def test_the_end_frees_the_local_share(process):
    process.grant_locally(LOCAL)
    process.accountant.settle("r1", exact(0))
    other = protective(claim_of("r2", concurrency(1)))
    process.grant_locally(other)
    assert "r2" in process.holdings


def test_every_budget_of_the_claim_counts_what_it_cost(process):
    claim = claim_of("r1", money(), money(counter="budget_2"), requests())
    process.knows_mark(claim.money[1].budget)
    process.grant(claim)
    process.accountant.settle("r1", exact(30))
    assert [process.holdings.taken(window.budget) for window in claim.money] == [30, 30]


def test_a_settlement_is_told_in_the_epoch_of_now(process):
    process.grant(CLAIM)
    process.lose()
    view = EpochView(8, is_open=True)
    play(
        process.epochs.follow(),
        (ReadEpoch(process.id, 7), view),
        (RaiseMarks((Mark(process.id, CLAIM.tag, BUDGET, 100),)), None),
        (InsertTag(CLAIM.tag, 8), TagInserted(inserted=True)),
        (OpenTag(CLAIM.tag, "8"), Done()),
        (Restore(CLAIM, "8"), Done()),
        (ReadEpoch(process.id, 8), view),
        (ReadMarks(process.id), ()),
    )
    assert process.accountant.settle("r1", exact()) == Settle(CLAIM, "8", exact())


def test_rows_of_many_calls_are_not_kept_in_memory(process, monkeypatch):
    """While SQL is away for long: the hot state and the journal have them."""
    monkeypatch.setattr(accountant, "WHOLE_MAX", 2)
    claims = [claim_of(f"r{number}") for number in range(3)]
    told = []
    for claim in claims:
        holding = process.grant(claim)
        process.accountant.settle(claim.request_id, exact())
        process.accountant.settled(claim.request_id, Done())
        told.append((holding.claim.opening, holding.outcome.record))
    assert told == [*((claim.opening, b"record") for claim in claims[:2]), (b"", b"")]


def test_what_the_hot_state_has_not_heard_of_is_kept_whole(process, monkeypatch):
    monkeypatch.setattr(accountant, "WHOLE_MAX", 0)
    holding = process.grant(CLAIM)
    process.accountant.settle("r1", exact())
    process.accountant.settled("r1", Lost(None))
    assert (holding.claim, holding.outcome) == (CLAIM, exact())


def test_a_further_attempt_is_told_with_the_opening(process):
    holding = process.grant(CLAIM)
    told = process.accountant.go_on("r1", b"attempt 2")
    assert told == Restore(holding.claim, "7")
    assert holding.claim.opening == CLAIM.opening + b"\nattempt 2"
    assert process.accountant.settle("r1", exact(70)) == Settle(holding.claim, "7", exact(70))


def test_where_nobody_can_be_told_of_an_attempt_it_is_kept(process):
    process.grant_locally(LOCAL)
    assert process.accountant.go_on("r1", b"attempt 2") is None
    assert process.holding("r1").claim.opening == LOCAL.opening + b"\nattempt 2"
    assert process.accountant.go_on("r2", b"attempt 2") is None
    holding = process.grant(claim_of("r3"))
    process.lose()
    assert process.accountant.go_on("r3", b"attempt 2") is None
    assert holding.claim.opening.endswith(b"\nattempt 2")


def test_a_call_that_has_ended_makes_no_attempt(process):
    process.grant(CLAIM)
    process.accountant.settle("r1", exact(70))
    assert process.accountant.go_on("r1", b"attempt 2") is None
    assert process.holding("r1").claim == CLAIM
