"""Commands that tell requests, tokens or money of the year: as a table, CSV and JSON."""

from __future__ import annotations

import json
import re

import pytest

from app.cli.usage import COLUMNS, MORE_COLUMNS
from tests.e2e.admin.tie_out.books import (
    AUTUMN,
    FIRST,
    LAST,
    LORD_HOWE,
    NEW_YEAR,
    REQUESTS,
    SPRING,
    YEAR,
    ZONES,
    added,
    csv_rows,
    ms,
    nano,
    span_of,
    sums_of,
)
from tests.e2e.admin.tie_out.test_records import LOOKED_AT, check_record
from tests.e2e.admin.tie_out.test_usage import listed, ranges
from tests.fakes.traffic import NAMELESS_MODEL, SUMS

LONG = pytest.mark.long
GIVEN = ("--from", YEAR["from"], "--to", YEAR["to"])
DAY = {"spring": SPRING, "autumn": AUTUMN, "new year": NEW_YEAR}


def names_of(fact, by, zone):
    """A group as commands write it: by the names of teams and keys, not by their ids."""
    return tuple(getattr(fact, name) if name in {"team", "key"} else fact.member_of(name, zone) for name in by)


def wanted(books, by, zone, *, start_ms=0, end_ms=2**62, lets=lambda _fact: True):
    """Each group's sums, of those that are anything."""
    found = {}
    for fact in books.traffic.facts:
        if start_ms <= fact.quarter_ms < end_ms and lets(fact):
            group = names_of(fact, by, zone)
            found[group] = added([found.get(group, (0,) * len(SUMS)), tuple(fact.sums.values())])
    return {group: sums for group, sums in found.items() if any(sums)}


def found(rows, by):
    groups = {}
    for row in rows:
        group = tuple(row[name] for name in by)
        # Two teams may each have a key of one name, and where nobody asks for the team they are two rows.
        groups[group] = added([groups.get(group, (0,) * len(SUMS)), sums_of(row)])
    return {group: sums for group, sums in groups.items() if any(sums)}


@pytest.mark.parametrize("zone", [LORD_HOWE, *(pytest.param(zone, marks=LONG) for zone in ZONES[1:4])])
@pytest.mark.parametrize("by", ["team,key,model", "month", "day,tag.project", pytest.param("hour,team", marks=LONG)])
def test_usage_as_data(books, by, zone):
    sums = wanted(books, listed(by), zone, **span_of(FIRST, LAST, zone))
    options = ("usage", "--by", by, "--tz", zone, *GIVEN)
    assert found(books.told_by(*options), listed(by)) == sums
    assert found(json.loads(books.command(*options, "--format", "json")), listed(by)) == sums
    assert found(csv_rows(books.command(*options, "--format", "csv")), listed(by)) == sums


def test_usage_as_a_table(books):
    for by in ("model", "month"):
        lines = [re.split(r"\s{2,}", line.strip()) for line in books.command("usage", "--by", by, *GIVEN).splitlines()]
        assert lines[0] == [by, *COLUMNS]
        rows = {(line[0],): table_sums(line[1:]) for line in lines[1:]}
        whole = rows.pop(("total",))
        sums = {
            group: shown(each) for group, each in wanted(books, (by,), "UTC", **span_of(FIRST, LAST, "UTC")).items()
        }
        assert rows == sums
        assert whole == shown(added(wanted(books, (), "UTC", **span_of(FIRST, LAST, "UTC")).values()))


def table_sums(cells):
    """What has no price at all is not written as if it cost nothing."""
    return tuple(
        nano("0" if cell == "unpriced" else cell) if name.endswith("_usd") else int(cell)
        for name, cell in zip(COLUMNS, cells, strict=True)
    )


def shown(sums):
    by_name = {name.replace("_nanousd", "_usd"): value for name, value in zip(SUMS, sums, strict=True)}
    assert set(by_name) == {*COLUMNS, *MORE_COLUMNS}
    return tuple(by_name[name] for name in COLUMNS)


@pytest.mark.parametrize("name", [pytest.param("spring", marks=LONG), pytest.param("autumn", marks=LONG), "new year"])
def test_ranges_that_have_names(books, name):
    books.at(DAY[name])
    zone = "Asia/Kathmandu"
    for named, (start_ms, end_ms) in ranges(books.now_ms, zone).items():
        rows = books.told_by("usage", "--by", "model", "--range", named, "--tz", zone)
        assert found(rows, ("model",)) == wanted(books, ("model",), zone, start_ms=start_ms, end_ms=end_ms), named
    start_ms, end_ms = ranges(books.now_ms, zone)["this_month"]
    rows = books.told_by("usage", "--tz", zone)
    by = ("team", "key", "model")
    assert found(rows, by) == wanted(books, by, zone, start_ms=start_ms, end_ms=end_ms)


def test_filters(books):
    person = books.person
    for options, lets in (
        (("--team", person.team), lambda fact: fact.team == person.team),
        (("--key", person.key_id), lambda fact: fact.key_id == person.key_id),
        (("--model", "gpt-5", "--model", "gpt-4.1"), lambda fact: fact.model in {"gpt-5", "gpt-4.1"}),
        (("--upstream", "azure"), lambda fact: fact.upstream == "azure"),
        (("--tag", "env=prod", "--tag", "env="), lambda fact: fact.value_of("env") in {"prod", ""}),
    ):
        rows = books.told_by("usage", "--by", "month", "--tz", "Europe/Berlin", *GIVEN, *options)
        span = span_of(FIRST, LAST, "Europe/Berlin")
        assert found(rows, ("month",)) == wanted(books, ("month",), "Europe/Berlin", **span, lets=lets), options


def test_check(books):
    proof = books.told_by("check", "--ledger")
    whole = books.whole()
    assert (proof["ok"], proof["records"]) == (True, REQUESTS)
    assert (proof["unpriced"], proof["estimated"]) == (whole["unpriced"], whole["estimated"])


def test_explain(books):
    for request_id, fact in list(books.traffic.fact_of.items())[:: 6 * LOOKED_AT]:
        why = books.told_by("explain", request_id)
        check_record(why, fact)
        assert why == {name: value for name, value in books.ask(f"/explain/{request_id}").items() if name != "bill"}


def test_cache_stats(books):
    """By the models that were asked for."""
    cached = {record.request_id: record.cache for record in books.traffic.records()}
    for span in ((), ("--team", "support")):
        rows = books.told_by("cache", "stats", *GIVEN, *span)
        sums = {}
        for request_id, fact in books.traffic.fact_of.items():
            if not span or fact.team == "support":
                requests, hits, saved = sums.get((fact.team, fact.model), (0, 0, 0))
                is_hit = cached[request_id] == "hit"
                sums[fact.team, fact.model] = requests + 1, hits + is_hit, saved + fact.sums["saved_nanousd"]
        told = {(row["team"], row["model"]): (row["requests"], row["hits"], nano(row["saved_usd"])) for row in rows}
        assert told == sums


def test_what_cannot_be_priced_again(books):
    told = books.told_by("reprice", "--from", "2026-01-01", "--model", NAMELESS_MODEL)
    nameless = books.whole(lets=lambda fact: fact.model == NAMELESS_MODEL)["unpriced"]
    assert (told["priced"], told["cost_usd"], told["unpriced"]) == (0, "0", nameless)
    assert told["unpriced_models"] == {NAMELESS_MODEL: nameless}


def test_what_would_be_pruned(books):
    told = books.told_by("prune", "--records-before", "2026-10-25", "--dry-run")
    before = books.whole(end_ms=ms(AUTUMN.replace(day=25, hour=0, minute=0)))
    assert told["records"] == before["requests"]


def test_backup(books, tmp_path):
    rows = books.told_by("backup", str(tmp_path / "year.hgb"))["rows"]
    assert rows["records"] == REQUESTS
    assert (rows["teams"], rows["keys"]) == (4, len(books.traffic.people))
