"""When something is wrong, and by how much: at each bound, one unit below, and with the slack that keeps it quiet."""

from __future__ import annotations

import pytest

from app.alerts.kinds import BudgetParameters, ExpiryParameters, UpstreamParameters, VelocityParameters
from app.alerts.readings import (
    BudgetNow,
    budget_reading,
    expiry_reading,
    failing_reading,
    is_quiet,
    unpriced_readings,
    unreachable_reading,
    velocity_reading,
)
from app.core.calendar import FOREVER_MS
from app.core.identity import LimitRule
from app.store.alert_figures import KeyEnd, Owner, Spender, UnpricedSum, UpstreamSum
from app.store.upstream_sights import UpstreamSight
from tests.unit.alerts.samples import DAY_MS, HOUR_MS, MINUTE_MS, NOW_MS, alert_of

USD = 10**9
OWNER = Owner("t1", "search")
RULE = LimitRule("l1", "money", 100 * USD, "month")
WINDOW = NOW_MS - DAY_MS, NOW_MS + DAY_MS


# -- budgets ----------------------------------------------------------------------------------


def budget(spent, rule=RULE, window=WINDOW, earlier=None, **more):
    now = BudgetNow(rule=rule, owner=OWNER, window=window, budget_id=rule.id, spent_nanousd=spent, **more)
    return budget_reading(BudgetParameters(), now, earlier)


@pytest.mark.parametrize(
    ("spent", "level", "holds"),
    [
        (0, 0, 0),
        (78 * USD - 1, 0, 0),
        (78 * USD, 0, 80),
        (80 * USD - 1, 0, 80),
        (80 * USD, 80, 80),
        (98 * USD, 80, 100),
        (100 * USD - 1, 80, 100),
        (100 * USD, 100, 100),
        (500 * USD, 100, 100),
    ],
)
def test_a_budget_without_thresholds_of_its_own_is_told_of_at_80_and_when_it_is_used_up(spent, level, holds):
    reading = budget(spent)
    assert (reading.level, reading.holds) == (level, holds)
    assert reading.severity == ("bad" if level == 100 else "warn")


def test_a_budget_goes_by_its_own_thresholds_and_always_by_100():
    assert [budget(percent * USD, warn_percents=(50, 95)).level for percent in (49, 50, 80, 95, 100)] == [
        0, 50, 50, 95, 100,
    ]  # fmt: skip
    assert budget(120 * USD, warn_percents=(50, 120)).level == 120


def test_amounts_are_exact():
    figures = budget(123_456_789).figures
    assert (figures["spent_usd"], figures["maximum_usd"], figures["spent_percent"]) == ("0.123456789", "100", 0.1)
    # The largest that there is: no float is in the way.
    rule = LimitRule("l1", "money", 9 * 10**15, "total")
    assert budget(9 * 10**15 - 1, rule).level == 80
    assert budget(9 * 10**15, rule).level == 100


def test_each_window_is_an_alert_of_its_own_and_one_without_an_end_has_none():
    first, second = budget(USD), budget(USD, window=(WINDOW[1], WINDOW[1] + DAY_MS))
    assert first.subject != second.subject
    total = budget(USD, LimitRule("l2", "money", USD, "total"), (0, FOREVER_MS))
    assert total.figures["window_to"] is None
    assert first.figures["window_to"] == "2026-11-21T12:00:00.000Z"


def test_a_budget_that_refuses_counts_as_used_up():
    """One that is enforced never is: what would go beyond it is not let through."""
    assert [budget(97 * USD, refused=number).level for number in (0, 2, 3)] == [80, 80, 100]
    assert budget(10 * USD, refused=3).level == 100
    assert budget(10 * USD, refused=3).severity == "bad"


def test_that_it_refused_is_not_over_when_nobody_asks_for_a_while():
    figures = budget(97 * USD, refused=3).figures
    earlier = alert_of(100, figures=figures)
    assert budget(97 * USD, earlier=earlier).holds == 100
    assert budget(97 * USD, earlier=earlier).figures["threshold_percent"] == 100
    # But where it is raised, or little is spent and one asked for too much.
    raised = LimitRule("l1", "money", 200 * USD, "month")
    assert budget(97 * USD, raised, earlier=earlier).holds == 0
    assert budget(10 * USD, earlier=alert_of(100, figures=figures), refused=1).holds == 100
    assert budget(10 * USD, earlier=alert_of(100, figures=figures)).holds == 0


def test_those_that_are_passed_over_are_those_of_which_nothing_begins():
    for spent in range(0, 110 * USD, USD // 2):
        for refused in (0, 2, 3):
            for warn_percents in ((), (50,), (120,)):
                now = BudgetNow(
                    rule=RULE,
                    owner=OWNER,
                    window=WINDOW,
                    budget_id="l1",
                    spent_nanousd=spent,
                    refused=refused,
                    warn_percents=warn_percents,
                )
                reading = budget_reading(BudgetParameters(), now)
                assert is_quiet(BudgetParameters(), now) == (reading.level == 0)


def test_a_budget_of_nothing_has_no_parts():
    assert budget(0, LimitRule("l1", "money", 0, "day")) is None


# -- velocity ---------------------------------------------------------------------------------


def velocity(spent, busiest_quarter, earlier=None, now_ms=NOW_MS, parameters=VelocityParameters()):  # noqa: B008 - frozen
    return velocity_reading(parameters, Spender("t1", "search", "k1", "ci", spent), busiest_quarter, earlier, now_ms)


@pytest.mark.parametrize(
    ("spent", "busiest_quarter", "level"),
    [
        # Ten of fifteen minutes that cost three dollars: two, and three times that is six.
        (6 * USD - 1, 3 * USD, 0),
        (6 * USD, 3 * USD, 1),
        (12 * USD - 1, 3 * USD, 1),
        (12 * USD, 3 * USD, 2),
        (24 * USD, 3 * USD, 3),
        # A cheap key: the minimum holds.
        (5 * USD - 1, 1000, 0),
        (5 * USD, 1000, 1),
        # A key without a week.
        (5 * USD - 1, 0, 0),
        (5 * USD, 0, 1),
        (0, 0, 0),
    ],
)
def test_spending_is_measured_by_the_busiest_ten_minutes_of_the_week(spent, busiest_quarter, level):
    assert velocity(spent, busiest_quarter).level == level


def test_what_was_told_stays_until_spending_has_halved():
    assert velocity(6 * USD, 3 * USD).holds >= 1
    assert velocity(3 * USD, 3 * USD).holds == 1
    assert velocity(3 * USD - 1, 3 * USD).holds == 0


def test_while_it_fires_it_is_measured_by_what_was_usual_before():
    """Else what it fires for would soon be the busiest of its week, and usual."""
    earlier = alert_of(figures={"busiest_10_minutes_usd": "2"}, fired_at_ms=NOW_MS - HOUR_MS)
    assert velocity(6 * USD, 300 * USD, earlier).level == 1
    assert velocity(6 * USD, 300 * USD, earlier, now_ms=NOW_MS - HOUR_MS + DAY_MS).level == 0


def test_a_rule_says_how_much_and_from_what_amount_on():
    parameters = VelocityParameters(times=1.5, minimum_usd="0.50")
    assert velocity(3 * USD, 3 * USD, parameters=parameters).level == 1
    assert velocity(USD // 2, 0, parameters=parameters).level == 1


# -- the others -------------------------------------------------------------------------------


def test_models_without_a_price_are_summed_over_teams_or_told_of_one():
    sums = [UnpricedSum("t1", "m", "u", 2), UnpricedSum("t2", "m", "u", 3), UnpricedSum("t2", "n", "u", 1)]
    assert [(each.subject, each.figures["requests"]) for each in unpriced_readings(sums, None)] == [
        ("u/m", 5),
        ("u/n", 1),
    ]
    assert [each.figures["requests"] for each in unpriced_readings(sums, "t1")] == [2]


def test_corrections_that_take_away_more_than_there_is_are_nothing():
    assert unpriced_readings([UnpricedSum("t1", "m", "u", 2), UnpricedSum("t2", "m", "u", -2)], None) == []


def test_an_upstream_is_down_when_it_has_been_away_for_a_while():
    parameters = UpstreamParameters()

    def seen(ago_ms):
        return unreachable_reading(parameters, UpstreamSight("openai", NOW_MS - ago_ms, 2), NOW_MS)

    assert (seen(MINUTE_MS - 1).level, seen(MINUTE_MS).level) == (0, 1)
    # What fires already goes on while anybody sees it away.
    assert seen(0).holds == 1


@pytest.mark.parametrize(
    ("requests", "failed", "level", "holds"),
    [
        (19, 19, 0, 0),
        (20, 18, 1, 1),
        (20, 17, 0, 1),
        (100, 89, 0, 1),
        (100, 90, 1, 1),
        (100, 70, 0, 1),
        (100, 69, 0, 0),
        (0, 0, 0, 0),
    ],
)
def test_an_upstream_whose_requests_fail_is_down_too(requests, failed, level, holds):
    reading = failing_reading(UpstreamParameters(), UpstreamSum("openai", requests, failed), 20)
    assert (reading.level, reading.holds) == (level, holds)


def expiry(key_ms=None, secrets_ms=None, parameters=ExpiryParameters()):  # noqa: B008 - frozen
    def at(left):
        return None if left is None else NOW_MS + left

    return expiry_reading(parameters, KeyEnd("t1", "search", "k1", "ci", at(key_ms), at(secrets_ms)), NOW_MS)


@pytest.mark.parametrize(
    ("left_ms", "level"),
    [(7 * DAY_MS + 1, 0), (7 * DAY_MS, 1), (DAY_MS + 1, 1), (DAY_MS, 2), (0, 2)],
)
def test_a_key_is_told_of_a_week_and_a_day_before_it_ends(left_ms, level):
    reading = expiry(left_ms)
    assert reading.level == level
    assert reading.severity == ("bad" if level == 2 else "warn")


def test_a_key_ends_with_the_last_of_its_secrets_too():
    assert expiry(9 * DAY_MS, 6 * DAY_MS).figures["cause"] == "last_secret"
    assert expiry(3 * DAY_MS, 6 * DAY_MS).figures["cause"] == "key"
    assert expiry(None, DAY_MS).level == 2
    assert expiry(None, None) is None


def test_the_days_may_be_others_in_any_order():
    parameters = ExpiryParameters(days=(1, 30, 14))
    assert [expiry(days * DAY_MS, parameters=parameters).level for days in (31, 30, 14, 2, 1)] == [0, 1, 2, 2, 3]
    assert expiry(14 * DAY_MS, parameters=parameters).figures["threshold_days"] == 14
