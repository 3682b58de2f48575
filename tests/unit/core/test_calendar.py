"""Windows of the calendar: they are as long as the days of their zone are, and leave no gap."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.calendar import FOREVER_MS, window_of, zone_of

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WINDOWS = ("day", "week", "month")
# Half and quarter hours, southern summers, clocks that change at midnight, a day that was left out.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
)


def ms(*parts: int, zone: str = "UTC") -> int:
    return round(datetime(*parts, tzinfo=zoneinfo.ZoneInfo(zone)).timestamp() * 1000)


def test_a_day_a_week_and_a_month_of_utc():
    at_ms = ms(2026, 2, 18, 13, 45)
    assert window_of("day", "UTC", at_ms) == (ms(2026, 2, 18), ms(2026, 2, 19))
    assert window_of("week", "UTC", at_ms) == (ms(2026, 2, 16), ms(2026, 2, 23))
    assert window_of("month", "UTC", at_ms) == (ms(2026, 2, 1), ms(2026, 3, 1))


def test_a_total_never_ends_and_is_exact_in_doubles():
    for at_ms in (0, ms(2026, 1, 1), 2**52):
        assert window_of("total", "Europe/Berlin", at_ms) == (0, FOREVER_MS)
    assert int(float(FOREVER_MS)) == FOREVER_MS
    assert int(float(FOREVER_MS - 1)) == FOREVER_MS - 1


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("Europe/Berlin", (2026, 7, 1), 24),
        ("America/New_York", (2026, 3, 8), 23),
        ("America/New_York", (2026, 11, 1), 25),
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5),
        ("Australia/Lord_Howe", (2026, 10, 4), 23.5),
    ],
)
def test_a_day_on_which_clocks_change_is_shorter_or_longer(zone, day, hours):
    start, end = window_of("day", zone, ms(*day, 12, zone=zone))
    assert start == ms(*day, zone=zone)
    assert end - start == hours * HOUR_MS
    # Its last hour belongs to it, and the first of the next day does not.
    assert window_of("day", zone, end - 1) == (start, end)
    assert window_of("day", zone, end)[0] == end


def test_a_month_and_a_week_in_which_clocks_change_are_an_hour_off():
    start, end = window_of("month", "Europe/Berlin", ms(2026, 3, 15))
    assert end - start == 31 * DAY_MS - HOUR_MS
    start, end = window_of("week", "Europe/Berlin", ms(2026, 10, 22))
    assert end - start == 7 * DAY_MS + HOUR_MS
    assert start == ms(2026, 10, 19, zone="Europe/Berlin")


def test_zones_with_half_and_quarter_hours_begin_their_own_days():
    assert window_of("day", "Asia/Kolkata", ms(2026, 1, 1, 18, 29))[0] == ms(2025, 12, 31, 18, 30)
    assert window_of("day", "Asia/Kolkata", ms(2026, 1, 1, 18, 30))[0] == ms(2026, 1, 1, 18, 30)
    assert window_of("day", "Asia/Kathmandu", ms(2026, 1, 1, 18, 14))[1] == ms(2026, 1, 1, 18, 15)
    assert window_of("month", "Pacific/Chatham", ms(2026, 1, 1, 0, 0, zone="Pacific/Chatham"))[0] == ms(
        2025, 12, 31, 10, 15
    )


def test_a_year_ends_where_its_zone_says():
    for zone in ZONES:
        midnight = ms(2027, 1, 1, zone=zone)
        assert window_of("month", zone, midnight - 1) == (ms(2026, 12, 1, zone=zone), midnight)
        assert window_of("day", zone, midnight - 1)[1] == midnight
        assert window_of("day", zone, midnight)[0] == midnight
    # The week goes on across it: 28 December 2026 is a Monday.
    assert window_of("week", "UTC", ms(2027, 1, 1)) == (ms(2026, 12, 28), ms(2027, 1, 4))


def test_february_of_a_leap_year_has_its_day():
    assert window_of("month", "UTC", ms(2028, 2, 29)) == (ms(2028, 2, 1), ms(2028, 3, 1))
    assert window_of("month", "UTC", ms(2027, 2, 28))[1] == ms(2027, 3, 1)


def test_where_midnight_does_not_exist_the_day_begins_with_its_first_moment():
    """In Beirut clocks go forward at midnight: the day begins at one o'clock, when the one before ends."""
    before = window_of("day", "Asia/Beirut", ms(2026, 3, 28, 12, zone="Asia/Beirut"))
    after = window_of("day", "Asia/Beirut", ms(2026, 3, 29, 12, zone="Asia/Beirut"))
    assert before[1] == after[0] == ms(2026, 3, 28, 22)
    assert after[1] - after[0] == 23 * HOUR_MS


@pytest.mark.parametrize("zone", ["Mars/Phobos", "", "../etc/passwd", "/etc/localtime", "Europe/", "a" * 300, "\x00"])
def test_an_unknown_zone_is_refused(zone):
    with pytest.raises(ValueError, match="no time zone"):
        zone_of(zone)
    with pytest.raises(ValueError, match="no time zone"):
        window_of("day", zone, 0)


# From when on this can be asked. Long ago some clocks went back a minute after midnight, into the day before.
MOMENTS = st.integers(ms(2020, 1, 1), ms(2060, 1, 1))


def test_the_days_of_every_zone_there_is_tile_a_year():
    for zone in sorted(zoneinfo.available_timezones()):
        start, end = window_of("day", zone, ms(2026, 1, 1))
        days = 0
        while start < ms(2027, 1, 1):
            assert 22 * HOUR_MS <= end - start <= 26 * HOUR_MS, zone
            following = window_of("day", zone, end)
            assert following[0] == end, zone
            start, end = following
            days += 1
        assert days in {365, 366}, zone


@given(MOMENTS, st.sampled_from(WINDOWS), st.sampled_from(ZONES))
def test_a_window_holds_its_moment_and_is_the_same_for_all_in_it(at_ms, window, zone):
    start, end = window_of(window, zone, at_ms)
    assert start <= at_ms < end
    assert window_of(window, zone, start) == window_of(window, zone, end - 1) == (start, end)


@given(MOMENTS, st.sampled_from(WINDOWS), st.sampled_from(ZONES))
def test_windows_tile_the_time_line(at_ms, window, zone):
    for _ in range(4):
        start, end = window_of(window, zone, at_ms)
        assert window_of(window, zone, end)[0] == end
        assert window_of(window, zone, start - 1)[1] == start
        at_ms = end


@given(MOMENTS, st.sampled_from(ZONES))
def test_days_fit_into_weeks_and_months(at_ms, zone):
    start, end = window_of("day", zone, at_ms)
    for larger in ("week", "month"):
        first, last = window_of(larger, zone, at_ms)
        assert first <= start
        assert end <= last


@given(MOMENTS, st.sampled_from(ZONES))
def test_a_window_is_the_zones_own_date(at_ms, zone):
    """Compared with a clock on the wall, which is another way to the same answer."""

    def wall(moment_ms):
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment_ms)).astimezone(
            zoneinfo.ZoneInfo(zone)
        )

    day_start, day_end = window_of("day", zone, at_ms)
    assert wall(day_start).date() == wall(at_ms).date() == wall(day_end - 1).date() != wall(day_end).date()
    week_start, week_end = window_of("week", zone, at_ms)
    assert wall(week_start).weekday() == wall(week_end).weekday() == 0
    month_start, month_end = window_of("month", zone, at_ms)
    assert (wall(month_start).day, wall(month_end).day) == (1, 1)
    assert wall(month_end - 1).month == wall(at_ms).month
