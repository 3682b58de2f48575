"""Usage, asked in every way: each answer is what the year's requests come to, in every zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from app.core.clock import QUARTER_MS, quarter_of
from tests.e2e.admin.tie_out.books import (
    AUTUMN,
    FIRST,
    LAST,
    LORD_HOWE,
    MOMENTS_AND_ZONES,
    NEW_YEAR,
    NOTHING,
    YEAR,
    ZONES,
    added,
    midnight_ms,
    span_of,
    sums_of,
    told,
)
from tests.fakes.traffic import PERIODS, zone_of

LONG = pytest.mark.long
BY = (
    "",
    "team",
    "key",
    "model",
    "upstream",
    "tag.project",
    "tag.env",
    "day",
    "week",
    "month",
    "team,key,model,upstream",
    "month,model",
    "key,tag.project",
    "day,team",
)
MORE_BY = ("week,tag.env,key", "tag.run.id", "day,key,model,upstream,tag.project", "upstream,month", "model,week")
CLOCKS_CHANGE = (date(2026, 3, 8), date(2026, 3, 29), date(2026, 4, 5), date(2026, 10, 4), date(2026, 10, 25))
DAYS = (*CLOCKS_CHANGE, date(2026, 11, 1), date(2026, 1, 31), date(2026, 2, 28), date(2026, 3, 31), date(2026, 12, 31))
WEEKS_OF_HOURS = ((date(2026, 3, 1), date(2026, 4, 12)), (date(2026, 9, 28), date(2026, 11, 8)))


def listed(by):
    return tuple(by.split(",")) if by else ()


def asked(books, by, zone, **more):
    """All pages of an answer, of which each tells the same total."""
    query = {"by": by, "tz": zone, **more} if by else {"tz": zone, **more}
    first = books.ask("/usage", query)
    rows = books.pages("/usage", query, member="rows") if first["next"] else first["rows"]
    assert added(map(sums_of, rows)) == sums_of(first["total"]), query
    return told(rows, listed(by)), sums_of(first["total"])


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", LORD_HOWE, *(pytest.param(zone, marks=LONG) for zone in ZONES[::2][:2]), "Asia/Kathmandu"]
)
@pytest.mark.parametrize("by", [*BY, *(pytest.param(by, marks=LONG) for by in MORE_BY)])
def test_every_group_of_the_year(books, by, zone):
    rows, total = asked(books, by, zone, **YEAR)
    wanted = books.wanted(listed(by), zone, **span_of(FIRST, LAST, zone))
    assert rows == wanted
    assert total == added(wanted.values())


@pytest.mark.parametrize("zone", [*(pytest.param(zone, marks=LONG) for zone in ZONES[:3]), *ZONES[3:]])
def test_hours_where_clocks_change(books, zone):
    for first, last in WEEKS_OF_HOURS:
        for by in ("hour", "hour,team", "tag.env,hour"):
            rows, _ = asked(books, by, zone, **{"from": first.isoformat(), "to": last.isoformat()})
            assert rows == books.wanted(listed(by), zone, **span_of(first, last, zone)), (first, by)


@pytest.mark.parametrize("zone", ZONES)
def test_days_on_which_clocks_or_months_change(books, zone):
    for day in DAYS:
        for by in ("hour", "model"):
            rows, total = asked(books, by, zone, **{"from": day.isoformat(), "to": day.isoformat()})
            wanted = books.wanted(listed(by), zone, **span_of(day, day, zone))
            assert rows == wanted, day
            assert total == added(wanted.values())


@pytest.mark.parametrize(("moment", "zone"), MOMENTS_AND_ZONES)
def test_ranges_that_have_names(books, moment, zone):
    books.at(moment)
    for name, (start_ms, end_ms) in ranges(books.now_ms, zone).items():
        for by in ("", "key", "day"):
            rows, total = asked(books, by, zone, range=name)
            wanted = books.wanted(listed(by), zone, start_ms=start_ms, end_ms=end_ms)
            assert rows == {group: sums for group, sums in wanted.items() if any(sums)}, (name, by)
            assert total == added(wanted.values())


def ranges(now_ms, zone):
    today = datetime.fromtimestamp(now_ms / 1000, zone_of(zone)).date()
    end_ms = quarter_of(now_ms) + QUARTER_MS
    month = today.replace(day=1)
    last_month = (month - timedelta(days=1)).replace(day=1)

    def since(day):
        return midnight_ms(day, zone)

    return {
        "today": (since(today), end_ms),
        "yesterday": (since(today - timedelta(days=1)), since(today)),
        "last_24_hours": (end_ms - 24 * 4 * QUARTER_MS, end_ms),
        "last_7_days": (since(today - timedelta(days=6)), end_ms),
        "last_30_days": (since(today - timedelta(days=29)), end_ms),
        "this_month": (since(month), end_ms),
        "last_month": (since(last_month), since(month)),
        "this_year": (since(today.replace(month=1, day=1)), end_ms),
    }


def test_pages_by_a_cursor_add_up_to_the_whole(books):
    by = "day,key,model"
    query = {"by": by, "tz": LORD_HOWE, **YEAR}
    whole = books.ask("/usage", {**query, "limit": "5000"})
    for order in ({}, {"sort": "-cost"}, {"sort": "requests"}):
        rows = books.pages("/usage", {**query, **order, "limit": "97"}, member="rows")
        assert told(rows, listed(by)) == told(whole["rows"], listed(by))
        assert added(map(sums_of, rows)) == sums_of(whole["total"])


def filters(books):
    """(query, what it lets through)"""
    people = books.traffic.people
    teams, key = (people[0].team_id, people[4].team_id), people[1].key_id
    return [
        ({"team": ",".join(teams)}, lambda fact: fact.team_id in teams),
        ({"key": key}, lambda fact: fact.key_id == key),
        ({"model": "gpt-5,gpt-6-preview"}, lambda fact: fact.model in {"gpt-5", "gpt-6-preview"}),
        ({"upstream": "azure"}, lambda fact: fact.upstream == "azure"),
        ({"tag.env": "prod,dev eu"}, lambda fact: fact.value_of("env") in {"prod", "dev eu"}),
        ({"tag.project": ",search-a"}, lambda fact: fact.value_of("project") in {"", "search-a"}),
    ]


@pytest.mark.parametrize("zone", ["Europe/Berlin", pytest.param("America/New_York", marks=LONG)])
def test_a_filter_and_what_it_leaves_out_are_all_there_is(books, zone):
    span = span_of(FIRST, LAST, zone)
    for query, lets in filters(books):
        others = {f"not.{name}": value for name, value in query.items()}
        for by in ("", "month", "key,week", "tag.project"):
            mine, mine_total = asked(books, by, zone, **YEAR, **query)
            rest, rest_total = asked(books, by, zone, **YEAR, **others)
            assert mine == books.wanted(listed(by), zone, **span, lets=lets), (query, by)
            assert rest == books.wanted(listed(by), zone, **span, lets=lambda fact, lets=lets: not lets(fact))
            assert added((mine_total, rest_total)) == books.wanted((), **span)[()]


def test_filters_together(books):
    (teams, is_of_team), _, (models, is_of_model), _, (tags, has_tag), _ = filters(books)
    query = {**teams, **tags, **{f"not.{name}": value for name, value in models.items()}}
    for by in ("", "day", "tag.env", "upstream,month"):
        rows, _ = asked(books, by, "Asia/Kathmandu", **YEAR, **query)
        assert rows == books.wanted(
            listed(by),
            "Asia/Kathmandu",
            **span_of(FIRST, LAST, "Asia/Kathmandu"),
            lets=lambda fact: is_of_team(fact) and has_tag(fact) and not is_of_model(fact),
        )


def test_moments_within_days(books):
    begin, end = datetime(2026, 3, 29, 0, 45, tzinfo=UTC), datetime(2026, 10, 25, 1, 15, tzinfo=UTC)
    span = {"start_ms": round(begin.timestamp() * 1000), "end_ms": round(end.timestamp() * 1000)}
    query = {"from": "2026-03-29T00:45:00Z", "to": "2026-10-25T01:15:00Z"}
    for zone in ZONES:
        for by in ("", *PERIODS[1:], "team,month"):
            rows, _ = asked(books, by, zone, **query)
            assert rows == books.wanted(listed(by), zone, **span), (zone, by)


@pytest.mark.parametrize("moment", [AUTUMN, NEW_YEAR])
def test_a_key_sees_its_own_part(books, moment):
    books.at(moment)

    def is_own(fact):
        return fact.key_id == books.person.key_id

    for zone in ZONES:
        for by in ("", "model", "day", "month", "tag.env", "team,key"):
            query = {"tz": zone, **YEAR, **({"by": by} if by else {})}
            found = books.ask("/me/usage", query, of=books.own)
            wanted = books.wanted(listed(by), zone, **span_of(FIRST, LAST, zone), lets=is_own)
            assert told(found["rows"], listed(by)) == wanted
            assert sums_of(found["total"]) == added(wanted.values()) != NOTHING
        found = books.ask("/me/usage", {"tz": zone, "range": "last_month"}, of=books.own)
        start_ms, end_ms = ranges(books.now_ms, zone)["last_month"]
        assert sums_of(found["total"]) == added(
            books.wanted((), start_ms=start_ms, end_ms=end_ms, lets=is_own).values()
        )
