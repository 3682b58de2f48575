"""One admission, from the question to the decision, and what stands in its way."""

from __future__ import annotations

import msgspec
import pytest

from app.accounting.decisions import decision_of, seeded_windows
from app.accounting.steps import (
    AdvanceEpoch,
    EpochView,
    InsertTag,
    Post,
    ReadBudgets,
    Sleep,
    TagInserted,
    TeamBudget,
)
from app.core.calendar import FOREVER_MS
from app.core.errors import LimitsUnavailable
from app.core.records import BudgetWindow
from app.limits.hot import (
    BudgetValue,
    Cold,
    Done,
    Granted,
    Lost,
    OpenTag,
    OutOfWindow,
    Refused,
    Reserve,
    Seed,
    StoreAway,
    Void,
    Voided,
)
from app.limits.limiter import Grant, MoneyWindow, Refusal, Standing
from tests.unit.accounting.samples import (
    BUDGET,
    NOW_MS,
    PROCESS,
    TEAM,
    TOTAL,
    Process,
    claim_of,
    concurrency,
    free_claim,
    money,
    never_remade,
    protective,
    requests,
)
from tests.unit.accounting.stepping import NO_SQL, NOT_SENT, SENT, Meanwhile, Walk, play

CLAIM = claim_of("r1", money(), requests())
GRANTED = Granted(NOW_MS, ((900, 5), (9, 60_000)))
DAY = MoneyWindow(BudgetWindow("budget_1", 1000), 2000)
NEXT_DAY = MoneyWindow(BudgetWindow("budget_1", 2000), 3000)


@pytest.fixture
def process():
    return Process().open(7).knows_mark()


def admit(process, claim=CLAIM, remake=never_remade):
    return process.accountant.admit(claim, remake)


# -- decided ------------------------------------------------------------------------------------


def test_a_granted_claim_is_held(process):
    decided = play(admit(process), (Reserve(CLAIM, "7"), GRANTED))
    limits = CLAIM.limits
    assert decided == Grant(CLAIM, NOW_MS, (Standing(limits[0], 900, 5), Standing(limits[1], 9, 60_000)))
    holding = process.holding("r1")
    assert (holding.is_admitted, holding.is_stored, holding.is_told, holding.outcome) == (True, True, False, None)
    assert process.holdings.taken(BUDGET) == 100


def test_limits_that_only_observe_are_named(process):
    decided = play(admit(process), (Reserve(CLAIM, "7"), Granted(NOW_MS, ((900, 5), (9, 6)), observed=(1,))))
    assert decided.observed == (CLAIM.limits[1],)


def test_a_refused_claim_is_not_held(process):
    refused = Refused(1, 2500, ((900, 5), (0, 2500)), is_held=False)
    decided = play(admit(process), (Reserve(CLAIM, "7"), refused))
    limits = CLAIM.limits
    assert decided == Refusal(limits[1], 2500, (Standing(limits[0], 900, 5), Standing(limits[1], 0, 2500)))
    assert "r1" not in process.holdings
    assert process.holdings.taken(BUDGET) == 0


def test_a_refusal_says_whether_only_holds_stand_in_the_way(process):
    decided = play(admit(process), (Reserve(CLAIM, "7"), Refused(0, 2000, ((0, 5), (9, 6)), is_held=True)))
    assert decided.is_held


def test_a_claim_without_limits_is_reserved_too(process):
    claim = free_claim()
    assert play(admit(process, claim), (Reserve(claim, "7"), Granted(NOW_MS, ()))) == Grant(claim, NOW_MS)


def test_a_call_counts_as_held_before_it_is_decided(process):
    """What is asked for may be granted: others must assume it if this process falls silent now."""
    walk = Walk(admit(process))
    assert process.holdings.taken(BUDGET) == 100
    assert process.holdings.admitted() == []
    walk.answer(GRANTED)


def test_an_answer_that_is_no_decision_is_none_in_our_words():
    assert decision_of(CLAIM, Voided()) is None
    with pytest.raises(ValueError, match="shorter"):
        decision_of(CLAIM, Granted(NOW_MS, ((900, 5),)))


# -- repaired and asked again -------------------------------------------------------------------


def test_a_cold_budget_is_seeded_from_sql_and_asked_again(process):
    value = BudgetValue(BUDGET, 300, 4)
    decided = play(
        admit(process),
        (Reserve(CLAIM, "7"), Cold((0,))),
        (ReadBudgets((TeamBudget(TEAM, BUDGET),)), (value,)),
        (Seed(TEAM, "7", (value,)), Done()),
        (Reserve(CLAIM, "7"), GRANTED),
    )
    assert isinstance(decided, Grant)


COLD, READ = Cold((0,)), ReadBudgets((TeamBudget(TEAM, BUDGET),))
SEED = Seed(TEAM, "7", (BudgetValue(BUDGET, 300, 4),))


def test_of_two_that_find_a_budget_cold_one_reads_it(process):
    claims = [claim_of(name) for name in ("r1", "r2")]
    first, second = (Walk(admit(process, claim)) for claim in claims)
    for walk, claim in zip((first, second), claims, strict=True):
        walk.expect(Reserve(claim, "7"), COLD)
    assert second.command == Sleep(0.02)
    first.expect(READ, SEED.values)
    assert second.answer() == Sleep(0.02)
    first.expect(SEED, Done())
    assert second.answer() == Reserve(claims[1], "7")


def test_where_the_first_of_them_fails_the_second_reads_it(process):
    claims = [protective(claim_of(name)) for name in ("r1", "r2")]
    first, second = (Walk(admit(process, claim)) for claim in claims)
    for walk, claim in zip((first, second), claims, strict=True):
        walk.expect(Reserve(claim, "7"), COLD)
    first.expect(READ, NO_SQL)
    assert isinstance(first.result, Grant)
    second.answer()
    second.expect(Reserve(claims[1], "7"), COLD)
    assert second.command == READ


def test_it_waits_for_another_no_longer_than_a_second(process):
    claims = [claim_of(name) for name in ("r1", "r2")]
    first, second = (Walk(admit(process, claim)) for claim in claims)
    for walk, claim in zip((first, second), claims, strict=True):
        walk.expect(Reserve(claim, "7"), COLD)
    for _ in range(49):
        assert second.answer() == Sleep(0.02)
    assert second.answer() == READ
    assert first.command == READ


def test_teams_wait_for_their_own_budgets_only(process):
    other = claim_of("r2", tag="team_2")
    first, second = Walk(admit(process, claim_of("r1"))), Walk(admit(process, other))
    first.expect(Reserve(claim_of("r1"), "7"), COLD)
    second.expect(Reserve(other, "7"), COLD)
    assert second.command == ReadBudgets((TeamBudget("team_2", BUDGET),))


def test_the_next_window_is_seeded_with_the_first():
    """A new day must not depend on SQL."""
    claim = claim_of("r1", money(), money(counter="budget_2", window="day"), windows=(TOTAL, DAY))
    assert seeded_windows(claim) == [BUDGET, DAY.budget, BudgetWindow("budget_1", 2000)]


def test_a_window_that_ends_at_the_end_of_time_has_no_next_one():
    last = MoneyWindow(BUDGET, FOREVER_MS - 1)
    assert seeded_windows(claim_of("r1", money(), windows=(last,))) == [
        BUDGET,
        BudgetWindow("budget_1", FOREVER_MS - 1),
    ]
    assert seeded_windows(claim_of("r1", money(), windows=(TOTAL,))) == [BUDGET]


def test_a_claim_of_another_day_is_made_anew(process):
    process.knows_mark(NEXT_DAY.budget)
    process.knows_mark(DAY.budget)
    old, new = claim_of(windows=(DAY,)), claim_of(windows=(NEXT_DAY,))
    asked_for = []

    def remake(at_ms):
        asked_for.append(at_ms)
        return new

    decided = play(
        admit(process, old, remake),
        (Reserve(old, "7"), OutOfWindow(2345)),
        (Reserve(new, "7"), Granted(NOW_MS, ((9, 9),))),
    )
    assert decided.claim == new
    assert asked_for == [2345]
    assert process.holding("r1").claim == new
    assert process.holdings.taken(DAY.budget) == 0
    assert process.holdings.taken(NEXT_DAY.budget) == 100


def test_a_team_that_nobody_has_used_is_opened(process):
    decided = play(
        admit(process),
        (Reserve(CLAIM, "7"), Lost(None)),
        (InsertTag(TEAM, 7), TagInserted(inserted=True)),
        (OpenTag(TEAM, "7"), Done()),
        (Reserve(CLAIM, "7"), GRANTED),
    )
    assert isinstance(decided, Grant)


def test_a_team_that_another_is_opening_is_waited_for(process):
    decided = play(
        admit(process),
        (Reserve(CLAIM, "7"), Lost(None)),
        (InsertTag(TEAM, 7), TagInserted(inserted=False, age_ms=1)),
        (Sleep(0.05), None),
        (Reserve(CLAIM, "7"), GRANTED),
    )
    assert isinstance(decided, Grant)


@pytest.mark.parametrize("answer", [GRANTED, Refused(0, None, ((0, 5), (9, 6)))])
def test_a_team_that_has_answered_and_is_gone_was_lost(process, answer):
    play(admit(process), (Reserve(CLAIM, "7"), answer))
    other = claim_of("r2")
    with pytest.raises(LimitsUnavailable):
        play(
            admit(process, other),
            (Reserve(other, "7"), Lost(None)),
            (AdvanceEpoch(7, PROCESS, 2500), EpochView(8, is_open=False, leader=PROCESS, leader_left_ms=2500)),
        )
    assert (process.epochs.number, process.epochs.is_open) == (8, False)
    assert "r2" not in process.holdings


def test_a_newer_epoch_than_ours_closes_strict_limits(process):
    with pytest.raises(LimitsUnavailable):
        play(admit(process), (Reserve(CLAIM, "7"), Lost("9:run")))
    assert not process.epochs.is_open


def test_what_was_granted_in_an_epoch_that_is_over_is_asked_for_again(process):
    """Its hold may have been lost with the epoch: others do not count it."""
    with pytest.raises(LimitsUnavailable):
        play(admit(process), (Reserve(CLAIM, "7"), Meanwhile(process.lose, GRANTED)))
    assert "r1" not in process.holdings

    def go_on():
        process.lose()
        process.open(process.epochs.number)

    process.open(process.epochs.number)
    decided = play(admit(process), (Reserve(CLAIM, "8"), Meanwhile(go_on, GRANTED)), (Reserve(CLAIM, "9"), GRANTED))
    assert isinstance(decided, Grant)


def test_an_old_epochs_answer_tells_nothing_of_the_new_one(process):
    def go_on():
        process.lose()
        process.open(process.epochs.number)

    play(
        admit(process),
        (Reserve(CLAIM, "7"), Meanwhile(go_on, GRANTED)),
        # Not taken for a loss: nobody has used it in this epoch.
        (Reserve(CLAIM, "8"), Lost("7:run")),
        (InsertTag(TEAM, 8), TagInserted(inserted=True)),
        (OpenTag(TEAM, "8"), Done()),
        (Reserve(CLAIM, "8"), GRANTED),
    )


def test_a_call_that_was_given_up_is_refused(process):
    with pytest.raises(LimitsUnavailable):
        play(admit(process), (Reserve(CLAIM, "7"), Voided()))
    assert "r1" not in process.holdings


def test_after_six_rounds_it_is_unavailable(process):
    waits = [
        step
        for _ in range(6)
        for step in (
            (Reserve(CLAIM, "7"), Lost(None)),
            (InsertTag(TEAM, 7), TagInserted(inserted=False, age_ms=1999)),
            (Sleep(0.05), None),
        )
    ]
    with pytest.raises(LimitsUnavailable):
        play(admit(process), *waits)
    assert "r1" not in process.holdings


def test_the_sixth_round_may_still_decide(process):
    waits = [
        step
        for _ in range(5)
        for step in (
            (Reserve(CLAIM, "7"), Lost(None)),
            (InsertTag(TEAM, 7), TagInserted(inserted=False, age_ms=1999)),
            (Sleep(0.05), None),
        )
    ]
    assert isinstance(play(admit(process), *waits, (Reserve(CLAIM, "7"), GRANTED)), Grant)


# -- the hot state or SQL is away ---------------------------------------------------------------


def test_a_strict_limit_is_unavailable_without_the_hot_state(process):
    with pytest.raises(LimitsUnavailable) as raised:
        play(admit(process), (Reserve(CLAIM, "7"), NOT_SENT))
    assert not isinstance(raised.value, StoreAway)
    assert "r1" not in process.holdings


def test_a_protective_limit_goes_on_without_the_hot_state(process):
    claim = protective(CLAIM)
    decided = play(admit(process, claim), (Reserve(claim, "7"), NOT_SENT))
    assert isinstance(decided, Grant)
    assert not decided.is_held
    holding = process.holding("r1")
    assert (holding.is_admitted, holding.is_stored) == (True, False)


def test_a_reserve_without_an_answer_is_voided(process):
    """It may be granted yet, and nobody would settle it."""
    with pytest.raises(LimitsUnavailable):
        play(admit(process), (Reserve(CLAIM, "7"), SENT), (Post(Void(CLAIM)), None))


def test_the_void_names_the_windows_that_were_asked_for(process):
    process.knows_mark(NEXT_DAY.budget)
    process.knows_mark(DAY.budget)
    old, new = claim_of(windows=(DAY,)), claim_of(windows=(NEXT_DAY,))
    with pytest.raises(LimitsUnavailable):
        play(
            admit(process, old, lambda _at_ms: new),
            (Reserve(old, "7"), OutOfWindow(2345)),
            (Reserve(new, "7"), SENT),
            (Post(Void(new)), None),
        )


def test_nothing_is_asked_where_strict_limits_are_closed():
    process = Process()
    with pytest.raises(LimitsUnavailable):
        play(admit(process))
    claim = protective(CLAIM)
    assert not play(admit(process, claim)).is_held


@pytest.mark.parametrize("away", [NO_SQL, NOT_SENT, SENT])
def test_a_cold_budget_without_sql_is_decided_here(process, away):
    claim = protective(CLAIM)
    read = ReadBudgets((TeamBudget(TEAM, BUDGET),))
    assert not play(admit(process, claim), (Reserve(claim, "7"), Cold((0,))), (read, away)).is_held
    with pytest.raises(LimitsUnavailable):
        play(admit(process), (Reserve(CLAIM, "7"), Cold((0,))), (read, away))


def test_a_new_team_without_sql_is_decided_here(process):
    claim = protective(CLAIM)
    decided = play(admit(process, claim), (Reserve(claim, "7"), Lost(None)), (InsertTag(TEAM, 7), NO_SQL))
    assert not decided.is_held


def test_a_refusal_of_the_local_share_is_final(process):
    claims = [claim_of(name, concurrency(1, policy="protective")) for name in ("r1", "r2")]
    play(admit(process, claims[0]), (Reserve(claims[0], "7"), NOT_SENT))
    decided = play(admit(process, claims[1]), (Reserve(claims[1], "7"), NOT_SENT))
    assert isinstance(decided, Refusal)
    assert "r2" not in process.holdings


# -- given up -----------------------------------------------------------------------------------


def test_an_admission_that_nobody_waits_for_holds_nothing(process):
    walk = Walk(admit(process))
    walk.give_up()
    assert "r1" not in process.holdings
    assert process.holdings.taken(BUDGET) == 0


def test_an_abandoned_call_is_forgotten_and_voided(process):
    play(admit(process), (Reserve(CLAIM, "7"), GRANTED))
    assert process.accountant.abandon(CLAIM) == Void(CLAIM)
    assert "r1" not in process.holdings


def test_a_process_tells_what_it_is_for_people(process):
    play(admit(process), (Reserve(CLAIM, "7"), GRANTED))
    assert repr(process.accountant) == "Accountant('process-1', Epochs(number=7, open=True), Holdings(1))"
    assert repr(process.holding("r1")) == "Holding('r1', running, stored=True, told=False)"


def test_a_claim_is_asked_for_with_the_amounts_of_now(process):
    """A claim that is made anew may cost something else."""
    dear = msgspec.structs.replace(claim_of(windows=(NEXT_DAY,)), bound_nanousd=400)
    process.knows_mark(DAY.budget)
    process.knows_mark(NEXT_DAY.budget)
    old = claim_of(windows=(DAY,))
    play(
        admit(process, old, lambda _at_ms: dear),
        (Reserve(old, "7"), OutOfWindow(2345)),
        (Reserve(dear, "7"), Granted(NOW_MS, ((9, 9),))),
    )
    assert process.holdings.taken(NEXT_DAY.budget) == 400
