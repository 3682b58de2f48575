from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.admin.asking import (
    RANGES,
    Asked,
    Order,
    filter_asked,
    groups_asked,
    named_span,
    order_asked,
    shown_asked,
    span_asked,
)
from app.core.clock import QUARTER_MS
from app.core.errors import InvalidRequest
from app.store.usage import UsageFilter

BERLIN = ZoneInfo("Europe/Berlin")
DAY_MS = 86_400_000


def ms(*parts, zone=UTC):
    return round(datetime(*parts, tzinfo=zone).timestamp() * 1000)


NOW_MS = ms(2026, 11, 24, 15, 40, 12)
NOW_END_MS = ms(2026, 11, 24, 15, 45)


def asked(**values: str) -> Asked:
    return Asked((name.replace("__", "."), value) for name, value in values.items())


def span(default="this_month", now_ms=NOW_MS, **values):
    pairs = asked(**{name.rstrip("_"): value for name, value in values.items()})
    found = span_asked(pairs, now_ms, default)
    pairs.finish()
    return found


def fault(call, *args, **kwargs) -> str | None:
    with pytest.raises(InvalidRequest) as raised:
        call(*args, **kwargs)
    return raised.value.param


@pytest.mark.parametrize(
    ("name", "start", "end_ms"),
    [
        ("today", (2026, 11, 24), NOW_END_MS),
        ("yesterday", (2026, 11, 23), ms(2026, 11, 24, zone=BERLIN)),
        ("last_7_days", (2026, 11, 18), NOW_END_MS),
        ("last_30_days", (2026, 10, 26), NOW_END_MS),
        ("this_month", (2026, 11, 1), NOW_END_MS),
        ("last_month", (2026, 10, 1), ms(2026, 11, 1, zone=BERLIN)),
        ("this_year", (2026, 1, 1), NOW_END_MS),
    ],
)
def test_ranges_are_those_of_the_zone(name, start, end_ms):
    found = span(range=name, tz="Europe/Berlin")
    assert (found.start_ms, found.end_ms) == (ms(*start, zone=BERLIN), end_ms)
    assert found.time_zone == "Europe/Berlin"


def test_the_last_day_is_a_day_of_quarters():
    found = span(range="last_24_hours")
    assert (found.start_ms, found.end_ms) == (NOW_END_MS - DAY_MS, NOW_END_MS)


def test_without_a_range_it_is_the_default_or_any_time():
    assert span() == named_span("this_month", "UTC", NOW_MS)
    assert span(default=None) is None
    assert span(default=None, range="today") == named_span("today", "UTC", NOW_MS)


def test_a_date_is_a_whole_day_of_the_zone_also_where_clocks_change():
    found = span(from_="2026-10-25", to="2026-10-25", tz="Europe/Berlin")
    assert found.end_ms - found.start_ms == 25 * 3_600_000
    assert found.start_ms == ms(2026, 10, 25, zone=BERLIN)
    assert span(from_="2026-11-01").end_ms == NOW_END_MS


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("2026-11-24T15:40:12.123Z", ms(2026, 11, 24, 15, 40, 12) + 123),
        ("2026-11-24T15:40:12+01:00", ms(2026, 11, 24, 14, 40, 12)),
        ("2026-11-24T15:40", ms(2026, 11, 24, 14, 40)),
    ],
)
def test_a_time_is_itself_and_without_an_offset_the_zones(text, at_ms):
    assert span(from_=text, tz="Europe/Berlin").start_ms == at_ms
    assert span(from_="2026-11-01", to=text, tz="Europe/Berlin").end_ms == at_ms


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"range": "this_week"}, "range"),
        ({"range": ""}, "range"),
        ({"range": "today", "from_": "2026-11-01"}, "range"),
        ({"to": "2026-11-01"}, "from"),
        ({"from_": "2026-11-02", "to": "2026-11-01"}, "to"),
        ({"from_": "2026-11-25"}, "from"),
        ({"from_": "2026-02-30"}, "from"),
        ({"from_": "20261101"}, "from"),
        ({"from_": "2026-W01-1"}, "from"),
        ({"from_": "2026-11-24T25:00Z"}, "from"),
        ({"from_": "2026-11-24T15:00 01:00"}, "from"),
        ({"from_": "0001-01-01"}, "from"),
        ({"from_": "9999-12-31", "to": "9999-12-31"}, "from"),
        ({"from_": "\u0662\u0660\u0662\u0666-11-01"}, "from"),
        ({"from_": "2026-11-01", "to": "soon"}, "to"),
        ({"tz": "Mars/Olympus"}, "tz"),
        ({"tz": "../../etc/passwd"}, "tz"),
        ({"tz": "\0"}, "tz"),
    ],
)
def test_what_means_nothing_is_named(values, param):
    assert fault(span, **values) == param


@given(
    now_ms=st.integers(ms(1971, 1, 1), ms(2100, 1, 1)),
    name=st.sampled_from(RANGES),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"]),
)
def test_ranges_are_whole_quarters_and_hold_now_or_end_before_it(now_ms, name, zone):
    found = named_span(name, zone, now_ms)
    assert found == found.quarters
    assert found.start_ms < found.end_ms
    if name in {"yesterday", "last_month"}:
        assert found.end_ms <= now_ms
    else:
        assert now_ms < found.end_ms <= now_ms + QUARTER_MS


def test_quarters_grow():
    found = span(from_="2026-11-24T10:01:00Z", to="2026-11-24T10:16:00Z").quarters
    assert (found.start_ms, found.end_ms) == (ms(2026, 11, 24, 10), ms(2026, 11, 24, 10, 30))


def test_what_is_left_or_twice_is_refused():
    assert fault(asked(teem="a").finish) == "teem"
    assert fault(Asked, [("team", "a"), ("team", "b")]) == "team"
    taken = asked(team="a")
    assert taken.values("team") == ("a",)
    taken.finish()


def test_groups():
    assert groups_asked(asked(by="team,tag.project,day")) == ("team", "tag.project", "day")
    assert groups_asked(asked()) == ()
    for by in ("", "team,", "color", "team,team", "day,hour", "tag.", "tag.a b", "tag.a,tag.b", "constructor"):
        assert fault(groups_asked, asked(by=by)) == "by", by


def test_filters():
    pairs = asked(team="a,b", not__model="x", tag__project="s,t", not__tag__env="prod", tag__owner="")
    assert filter_asked(pairs) == UsageFilter(
        team_ids=("a", "b"),
        not_models=("x",),
        tags=(("owner", ("",)), ("project", ("s", "t"))),
        not_tags=(("env", ("prod",)),),
    )
    pairs.finish()
    for name, value in (
        ("team", ""),
        ("key", "a,,b"),
        ("model", "x" * 300),
        ("upstream", "a\0"),
        ("tag.a b", "x"),
        ("not.tag.", "x"),
        ("team", ",".join(["a"] * 101)),
    ):
        assert fault(filter_asked, Asked([(name, value)])) == name


def test_orders():
    assert order_asked(asked(sort="-cost"), ("cost",)) == Order("cost", is_falling=True)
    assert order_asked(asked(sort="team"), ("team",)) == Order("team", is_falling=False)
    assert order_asked(asked(), ("team",)) is None
    assert fault(order_asked, asked(sort="--cost"), ("cost",)) == "sort"


def test_numbers():
    assert asked(limit="7").number("limit", 50, at_least=1, at_most=200) == 7
    assert asked().number("limit", 50, at_least=1, at_most=200) == 50
    for text in ("0", "201", "-1", "1.0", "\u0661", "1e2", "", "9" * 5000):
        assert fault(asked(limit=text).number, "limit", 50, at_least=1, at_most=200) == "limit", text


def test_what_columns_are_made_of():
    assert shown_asked(asked()) == "team"
    assert shown_asked(asked(show="tag.project")) == "tag.project"
    assert fault(shown_asked, asked(show="upstream")) == "show"


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=30), max_size=5))
def test_whatever_is_sent_is_taken_or_named(values):
    pairs = Asked(values.items())
    try:
        span_asked(pairs, NOW_MS, "today")
        groups_asked(pairs)
        filter_asked(pairs)
        pairs.finish()
    except InvalidRequest as error:
        assert error.param is not None
    else:
        assert not values
