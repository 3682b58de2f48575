"""How the console writes figures and moments, and reads addresses: its own modules, called in a page."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest

from app.admin.asking import start_of


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("m.usd('0')", "$0.00"),
        ("m.usd(null)", "unpriced"),
        ("m.usd('0.0031')", "$0.0031"),
        ("m.usd('0.0008899')", "$0.00089"),
        ("m.usd('0.000000004')", "$0.000000004"),
        ("m.usd('0.0999')", "$0.0999"),
        ("m.usd('0.1')", "$0.10"),
        ("m.usd('12.4')", "$12.40"),
        ("m.usd('1.005')", "$1.01"),
        ("m.usd('11259.305')", "$11,259.31"),
        ("m.usd('9007199254740993.11')", "$9,007,199,254,740,993.11"),
        ("m.usd('-3.5')", "\u2212$3.50"),
        ("m.usdCents('0.004')", "<$0.01"),
        ("m.usdCents('0.0051')", "$0.01"),
        ("m.usdColumn('0.5')('0.0031')", "$0.0031"),
        ("m.usdColumn('50')('0.0031')", "<$0.01"),
        ("m.usdLimit('15000')", "$15,000"),
        ("m.usdLimit('12.5')", "$12.50"),
        ("m.usdExact('0.066301')", "$0.066301"),
        ("m.usdAxis(200)", "$200"),
        ("m.usdAxis(18200)", "$18.2k"),
        ("m.usdAxis(0.0025)", "$0.0025"),
        ("m.short(820)", "820"),
        ("m.short(45600)", "45.6k"),
        ("m.short(1200000)", "1.2M"),
        ("m.short(5500000000)", "5.5B"),
        ("m.short(999999)", "1.0M"),
        ("m.short(null)", "–"),
        ("m.count(1252687)", "1,252,687"),
        ("m.percent(0.42)", "0.42%"),
        ("m.percent(9.4)", "9.4%"),
        ("m.percent(0)", "0%"),
        ("m.percent(null)", "–"),
        ("m.change(6.2)", "+6%"),
        ("m.change(-4)", "\u22124%"),
        ("m.change(null)", "–"),
        ("m.duration(2.1)", "2.1 ms"),
        ("m.duration(1310)", "1.31 s"),
        ("m.duration(484000)", "8 m 04 s"),
        ("m.duration(59999)", "1 m 00 s"),
        ("m.duration(null)", "–"),
        ("m.clock('2026-11-24T15:40:12Z', 'Europe/Berlin')", "16:40"),
        ("m.clock('2026-10-25T00:59:59Z', 'Europe/Berlin', {seconds: true})", "02:59:59"),
        (
            "m.moment('2026-09-23T08:02:00Z', 'Europe/Berlin', {now: Date.parse('2026-11-24T00:00:00Z')})",
            "23 Sep, 10:02",
        ),
        (
            "m.moment('2025-12-31T23:30:00Z', 'Europe/Berlin', {now: Date.parse('2025-11-24T00:00:00Z')})",
            "1 Jan 2026, 00:30",
        ),
        ("m.ago('2026-11-24T15:37:00Z', 'UTC', {now: Date.parse('2026-11-24T15:40:12Z')})", "3 min ago"),
        ("m.ago(null, 'UTC')", "never"),
        ("m.until('2026-11-30T09:02:00Z', {now: Date.parse('2026-11-24T15:40:00Z')})", "in 5 days 17 hours"),
        ("m.exactly('2026-11-24T15:22:07.418Z', 'Europe/Berlin')", "Tue 24 Nov 2026, 16:22:07.418 Europe/Berlin"),
        ("m.day('2026-11-13')", "Fri 13 Nov"),
        ("m.plural(1, 'request')", "1 request"),
    ],
)
def test_figures_read_the_same_in_every_browser(words, call, text):
    assert words("format", call) == text


@pytest.mark.parametrize(
    ("range_name", "now", "zone", "days"),
    [
        ("this_month", "2026-10-31T23:30:00Z", "Europe/Berlin", ["2026-11-01", "2026-11-01"]),
        ("this_month", "2026-10-31T23:30:00Z", "UTC", ["2026-10-01", "2026-10-31"]),
        ("last_month", "2026-03-31T12:00:00Z", "UTC", ["2026-02-01", "2026-02-28"]),
        ("last_7_days", "2026-10-25T12:00:00Z", "Europe/Berlin", ["2026-10-19", "2026-10-25"]),
        ("2026-11-01..2026-11-24", "2026-01-01T00:00:00Z", "UTC", ["2026-11-01", "2026-11-24"]),
    ],
)
def test_a_day_is_the_zones_day(words, range_name, now, zone, days):
    assert words("range", f"m.rangeDays('{range_name}', '{zone}', Date.parse('{now}'))") == days


@pytest.mark.parametrize(
    ("address", "expression", "value"),
    [
        ("/?tz=UTC", "state.with()", "/?tz=UTC"),
        ("/?tz=Nowhere/Land", "state.tz", "America/New_York"),
        ("/console/explore?tz=UTC&range=nonsense", "state.range", "this_month"),
        ("/console/explore?tz=UTC&by=team&draw=columns", "state.with()", "/console/explore?tz=UTC"),
        (
            "/console/explore?tz=UTC&team=a,b&not.model=x&q=1",
            "JSON.stringify(state.filters)",
            '[["team",["a","b"]],["not.model",["x"]]]',
        ),
        (
            "/console/explore?tz=UTC&range=2026-11-01..2026-11-24&team=a",
            "JSON.stringify(state.query({by: 'key'}))",
            '{"from":"2026-11-01","to":"2026-11-24","tz":"UTC","team":"a","by":"key"}',
        ),
        ("/console/keys?tz=UTC&open=k1&sort=-cost", "state.with({open: null})", "/console/keys?tz=UTC&sort=-cost"),
        ("/console/keys/a%2Fb?tz=UTC", "state.item + ' ' + state.with()", "a/b /console/keys/a%2Fb?tz=UTC"),
        ("/console/%E0%A4%A", "state.view", "%E0%A4%A"),
    ],
)
def test_an_address_is_read_and_written(words, address, expression, value):
    assert words("state", f"((state) => {expression})(new m.State('{address}'))") == value


@pytest.mark.parametrize("largest", [0, 0.0004, 0.009, 1, 7, 99, 815, 18_200, 3.3e9])
def test_lines_of_an_axis_are_round_and_the_tallest_column_fits(words, largest):
    found = words("charts/scale", f"m.ticks({largest})")
    assert found["values"][0] == 0
    if largest:
        assert 0.94 < largest / found["top"] < 0.96
        assert 3 <= len(found["values"]) <= 8
        step = found["values"][1]
        assert float(f"{step:e}".split("e")[0]) in {1, 2, 2.5, 5}


def test_two_that_share_a_colour_are_told_apart(words):
    members = ", ".join(
        f"{{id: '{name}', name: '{name}', color: {color}, size: 1}}"
        for name, color in (("a", 3), ("b", 3), ("c", 1), ("d", 0))
    )
    assert words("charts/series", f"m.seriesOf([{members}]).series.map((one) => one.color)") == [3, 2, 1, 4]


@pytest.mark.parametrize(
    ("first", "zone", "moment"),
    [
        ("2026-11-24", "UTC", "2026-11-24T00:00:00.000Z"),
        ("2026-11-24", "Europe/Berlin", "2026-11-23T23:00:00.000Z"),
        ("2026-03-29", "Europe/Berlin", "2026-03-28T23:00:00.000Z"),
        ("2026-10-26", "Europe/Berlin", "2026-10-25T23:00:00.000Z"),
        ("2026-03-08", "America/Havana", "2026-03-08T05:00:00.000Z"),
        ("2026-03-09", "America/Havana", "2026-03-09T04:00:00.000Z"),
        ("2026-11-01", "America/Havana", "2026-11-01T04:00:00.000Z"),
        ("2026-09-06", "America/Santiago", "2026-09-06T04:00:00.000Z"),
        ("2026-04-05", "America/Santiago", "2026-04-05T04:00:00.000Z"),
        ("2026-10-04", "Australia/Lord_Howe", "2026-10-03T13:30:00.000Z"),
        ("2026-11-24", "Asia/Kathmandu", "2026-11-23T18:15:00.000Z"),
        ("2026-11-24", "Pacific/Kiritimati", "2026-11-23T10:00:00.000Z"),
    ],
)
def test_a_day_begins_when_the_server_says_so(words, first, zone, moment):
    assert words("zone", f"new Date(m.startOfDay('{first}', '{zone}')).toISOString()") == moment
    assert start_of(date.fromisoformat(first), ZoneInfo(zone)) == round(
        datetime.fromisoformat(moment).timestamp() * 1000
    )
