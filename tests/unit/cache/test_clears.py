"""A clearing takes away what was begun before it, of those whom it names, and nothing else."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cache.clears import Clears
from app.core.patterns import matches_any
from app.store.cache import CacheClear
from tests.unit.cache.asking import entry


def clear(change: int, team: str = "", model: str = "") -> CacheClear:
    return CacheClear(team, model, change, cleared_at_ms=0)


def after(*clears: CacheClear) -> Clears:
    """Each told on its own, in this order."""
    found = Clears()
    for one in clears:
        found.take([one], one.change)
    return found


def takes(clears: Clears, change: int, team: str = "team_1", asked_for: str = "gpt-4o", model: str = "gpt-4o") -> bool:
    return clears.takes(entry(change=change, team_id=team, model_requested=asked_for, model=model))


def test_nothing_was_cleared_yet():
    assert not takes(Clears(), 0)
    assert Clears().change == 0


@pytest.mark.parametrize("extent", [("", ""), ("team_1", ""), ("", "gpt-*"), ("team_1", "gpt-4o")])
def test_only_what_was_begun_before_is_taken(extent):
    clears = after(clear(10, *extent))
    assert [takes(clears, change) for change in (0, 9, 10, 11)] == [True, True, False, False]


def test_a_clearing_of_one_team_touches_no_other():
    clears = after(clear(10, "team_1"))
    assert takes(clears, 1, "team_1")
    for team in ("team_2", "team_10", "team_", "TEAM_1", ""):
        assert not takes(clears, 1, team)


@pytest.mark.parametrize(
    ("pattern", "asked_for", "model", "taken"),
    [
        ("gpt-4o", "gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini", "gpt-4o-mini", False),
        ("gpt-4o", "my-gpt-4o", "x", False),
        ("gpt-4*", "gpt-4o-mini", "x", True),
        ("gpt-4?", "gpt-4o", "x", True),
        ("gpt-4?", "gpt-4", "x", False),
        # By the name that was asked for, or the one that served.
        ("gpt-4o", "fast", "gpt-4o", True),
        ("fast", "fast", "gpt-4o", True),
        ("gpt.4o", "gpt-4o", "gpt-4o", False),
        ("GPT-4o", "gpt-4o", "gpt-4o", False),
        ("*", "a\nb", "", True),
    ],
)
def test_a_pattern_names_whole_models(pattern, asked_for, model, taken):
    for team in ("", "team_1"):
        clears = after(clear(10, team, pattern))
        assert takes(clears, 9, asked_for=asked_for, model=model) == taken
        assert not takes(clears, 10, asked_for=asked_for, model=model)
        assert takes(clears, 9, "team_2", asked_for=asked_for, model=model) == (taken and not team)


def test_a_call_is_taken_by_any_model_that_may_serve_it():
    clears = after(clear(10, "team_1", "gpt-4o"))
    for models, taken in [(("fast", "gpt-4o"), True), (("gpt-4o", "x"), True), (("fast", "x"), False), ((), False)]:
        assert clears.take_call(9, "team_1", models) == taken
        assert not clears.take_call(10, "team_1", models)
        assert not clears.take_call(9, "team_2", models)
    assert after(clear(10)).take_call(9, "team_1", ())
    assert after(clear(10, "team_1")).take_call(9, "team_1", ())


def test_the_change_that_is_known_is_the_highest():
    clears = Clears()
    clears.take([], 5)
    assert clears.change == 5
    clears.take([clear(7, "team_1")], 9)
    assert clears.change == 9
    clears.take([], 3)
    assert clears.change == 9, "what is known is not forgotten"
    assert not takes(clears, clears.change), "a call that begins now is after all of it"


@pytest.mark.parametrize("extent", [("", ""), ("team_1", ""), ("", "gpt-*"), ("team_1", "gpt-4o")])
def test_the_later_of_two_equal_clearings_holds_in_any_order(extent):
    one, other = clear(10, *extent), clear(20, *extent)
    together = Clears()
    together.take([other, one], 20)
    for clears in (after(one, other), after(other, one), together):
        assert takes(clears, 19)
        assert not takes(clears, 20)


def test_what_a_clearing_of_everything_implies_is_kept_no_longer():
    clears = after(clear(10, "team_1"), clear(30, "team_2"), clear(20))
    assert "narrow=1" in repr(clears)
    assert takes(clears, 19)
    assert not takes(clears, 20)
    assert takes(clears, 29, "team_2")
    # One that comes late and is implied is not kept at all.
    clears.take([clear(15, "team_3")], 15)
    assert "narrow=1" in repr(clears)
    assert not takes(clears, 20, "team_3")


TEAMS = ["", "team_1", "team_2"]
PATTERNS = ["", "gpt-*", "gpt-4o", "other"]
NAMES = ["gpt-4o", "gpt-5", "other"]


@given(
    st.lists(
        st.builds(clear, st.integers(1, 6), st.sampled_from(TEAMS), st.sampled_from(PATTERNS)),
        max_size=6,
    ),
    st.randoms(use_true_random=False),
)
def test_any_clearings_in_any_order_take_what_each_of_them_takes(told, dice):
    """Against a list of all, asked one by one."""
    dice.shuffle(told)
    clears = Clears()
    at = 0
    while at < len(told):
        together = told[at : at + dice.randint(1, 3)]
        clears.take(together, max(one.change for one in together))
        at += len(together)
    for change, team, asked_for, model in itertools.product(range(7), TEAMS[1:], NAMES, NAMES):
        taken = any(
            change < one.change
            and one.team_id in ("", team)
            and (not one.model or matches_any([one.model], asked_for) or matches_any([one.model], model))
            for one in told
        )
        assert takes(clears, change, team, asked_for, model) == taken
