from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.admin.forecast import (
    DaySpan,
    change_percent,
    days_from,
    forecast,
    gone_at,
    share_percent,
    usual_days,
    went_at,
)

TODAY = date(2026, 11, 24)
"""A Tuesday."""
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START, END = date(2026, 11, 1), date(2026, 12, 1)


def spans(first: date, count: int) -> list[DaySpan]:
    """Days of 24 hours, the first of which begins at 0."""
    return [DaySpan(first + timedelta(days=each), each * DAY_MS, (each + 1) * DAY_MS) for each in range(count)]


def test_each_weekday_costs_the_mean_of_its_last_four():
    spent = dict.fromkeys(days_from(TODAY - timedelta(days=28), TODAY), 10)
    for weeks, amount in enumerate((40, 20, 10, 2), 1):
        spent[TODAY - timedelta(weeks=weeks)] = amount
    # Five weeks ago is too long ago.
    spent[TODAY - timedelta(weeks=5)] = 10**6
    usual = usual_days(spent, TODAY)
    assert usual == (10, 18, 10, 10, 10, 10, 10)


def test_under_seven_days_it_is_too_early_to_say():
    assert usual_days({}, TODAY) is None
    assert usual_days({TODAY: 5}, TODAY) is None
    six = dict.fromkeys(days_from(TODAY - timedelta(days=6), TODAY), 1)
    assert usual_days(six, TODAY) is None
    assert forecast(six, TODAY, START, END) is None
    assert usual_days({TODAY - timedelta(days=7): 7}, TODAY) == (0, 7, 0, 0, 0, 0, 0)


def test_days_before_the_first_use_are_not_zeros():
    ten = dict.fromkeys(days_from(TODAY - timedelta(days=10), TODAY), 8)
    assert usual_days(ten, TODAY) == (8,) * 7


def test_days_without_use_after_it_are_zeros():
    spent = {TODAY - timedelta(days=28): 8}
    assert usual_days(spent, TODAY) == (0, 2, 0, 0, 0, 0, 0)


def test_a_month_is_what_was_spent_and_what_is_expected():
    spent = dict.fromkeys(days_from(TODAY - timedelta(days=40), TODAY), 100)
    foreseen = forecast({**spent, TODAY: 30}, TODAY, START, END)
    assert foreseen is not None
    # 23 days, today as a usual day, six to come.
    assert foreseen.total_nanousd == 23 * 100 + 100 + 6 * 100
    assert list(foreseen.days) == list(days_from(TODAY, END))
    dear = forecast({**spent, TODAY: 130}, TODAY, START, END)
    assert dear is not None
    assert dear.total_nanousd == 23 * 100 + 130 + 6 * 100
    assert dear.days[TODAY] == 130


def test_a_budget_is_gone_in_the_middle_of_a_day():
    days = spans(TODAY, 3)
    expected = {span.day: 240 for span in days}
    # Noon, 100 so far of 240: 140 to come in twelve hours, then 240 a day.
    noon_ms = 12 * HOUR_MS
    assert gone_at(200, 100, expected, 100, days, noon_ms) == noon_ms + 12 * HOUR_MS * 100 // 140
    assert gone_at(240 + 60, 100, expected, 100, days, noon_ms) == DAY_MS + 6 * HOUR_MS
    assert gone_at(10_000, 100, expected, 100, days, noon_ms) is None
    assert gone_at(300, 100, {}, 100, days, noon_ms) is None


def test_a_dear_day_takes_nothing_back():
    days = spans(TODAY, 2)
    expected = {TODAY: 10, TODAY + timedelta(days=1): 100}
    assert gone_at(150, 100, expected, 100, days, 0) == DAY_MS + DAY_MS // 2


def test_when_a_budget_went():
    days = spans(TODAY, 3)
    spent = {TODAY: 100, TODAY + timedelta(days=1): 100}
    assert went_at(150, spent, days, 3 * DAY_MS) == DAY_MS + DAY_MS // 2
    assert went_at(150, spent, days, DAY_MS + HOUR_MS) == DAY_MS + HOUR_MS // 2
    assert went_at(0, spent, days, 3 * DAY_MS) == 0
    assert went_at(201, spent, days, 3 * DAY_MS) is None


@given(
    amounts=st.lists(st.integers(0, 10**12), min_size=40, max_size=40),
    maximum=st.integers(1, 10**14),
    hour=st.integers(0, 23),
)
def test_it_is_gone_in_the_window_exactly_where_the_forecast_is_beyond_it(amounts, maximum, hour):
    spent = {TODAY - timedelta(days=39 - number): amount for number, amount in enumerate(amounts)}
    foreseen = forecast(spent, TODAY, START, END)
    assert foreseen is not None
    taken = sum(spent.get(day, 0) for day in days_from(START, TODAY + timedelta(days=1)))
    if taken >= maximum:
        return
    coming = spans(TODAY, 7)
    at_ms = gone_at(maximum, taken, foreseen.days, spent[TODAY], coming, hour * HOUR_MS)
    assert (at_ms is not None) == (foreseen.total_nanousd >= maximum)
    if at_ms is not None:
        assert hour * HOUR_MS <= at_ms <= coming[-1].end_ms


def test_percents():
    assert change_percent(108, 100) == 8.0
    assert change_percent(96, 100) == -4.0
    assert change_percent(5, 0) is None
    assert share_percent(1, 3, 1) == 33.3
    assert share_percent(1, 0) is None
