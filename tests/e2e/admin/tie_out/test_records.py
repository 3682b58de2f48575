"""Records, singly and in files: each says of its request what the sums have of it."""

from __future__ import annotations

import json

import pytest

from tests.e2e.admin.tie_out.books import (
    AUTUMN,
    FIRST,
    LAST,
    LORD_HOWE,
    YEAR,
    nano,
    span_of,
)
from tests.e2e.admin.tie_out.test_usage import filters
from tests.fakes.traffic import SUMS

TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
LOOKED_AT = 12
"""Each so manieth record is asked for on its own."""


def check_record(row, fact):
    assert {name: int(row[name]) for name in TOKENS} == {name: fact.sums[name] for name in TOKENS}, row
    assert nano(row["cost_usd"]) == fact.sums["cost_nanousd"], row
    assert nano(row["saved_usd"]) == fact.sums["saved_nanousd"], row
    assert (row["unpriced"] in {True, "true"}) == bool(fact.sums["unpriced"]), row
    assert (row["estimated"] in {True, "true"}) == bool(fact.sums["estimated"]), row
    assert (row["outcome"] in {"failed", "interrupted"}) == bool(fact.sums["failed"]), row
    assert (row["model"], row["upstream"]) == (fact.model, fact.upstream)


def check_records(books, rows, lets=lambda _fact: True):
    """That there are these records and no others."""
    wanted = {request_id: fact for request_id, fact in books.traffic.fact_of.items() if lets(fact)}
    assert {row["request_id"] for row in rows} == set(wanted)
    assert len(rows) == len(wanted)
    for row in rows:
        check_record(row, wanted[row["request_id"]])


def test_search(books):
    rows = books.pages("/records", {"limit": "200"})
    check_records(books, rows)
    whole = books.whole()
    assert len(rows) == whole["requests"]
    assert sum(nano(row["cost_usd"]) for row in rows) == whole["cost_nanousd"]
    for query, lets in filters(books):
        check_records(books, books.pages("/records", {"limit": "200", **query}), lets)
        others = {f"not.{name}": value for name, value in query.items()}
        check_records(
            books, books.pages("/records", {"limit": "200", **others}), lambda fact, lets=lets: not lets(fact)
        )


@pytest.mark.parametrize("zone", ["Europe/Berlin", LORD_HOWE])
def test_search_in_a_span(books, zone):
    for first, last in ((FIRST, LAST), (AUTUMN.date().replace(day=1), AUTUMN.date())):
        span = span_of(first, last, zone)
        query = {"limit": "200", "tz": zone, "from": first.isoformat(), "to": last.isoformat()}
        check_records(
            books,
            books.pages("/records", query),
            lambda fact, span=span: span["start_ms"] <= fact.quarter_ms < span["end_ms"],
        )


def test_files(books):
    check_records(books, books.lines("/records/export", {}))
    text = books.fetch("/records/export", {"format": "jsonl"}).text
    check_records(books, [json.loads(line) for line in text.splitlines()])
    for query, lets in filters(books):
        check_records(books, books.lines("/records/export", query), lets)


def test_a_key_sees_its_own(books):
    rows = books.pages("/me/records", {"limit": "100"}, of=books.own)
    check_records(books, rows, lambda fact: fact.key_id == books.person.key_id)


def test_each_record_and_its_explanation(books):
    for request_id, fact in list(books.traffic.fact_of.items())[::LOOKED_AT]:
        whole = books.ask(f"/records/{request_id}")
        check_record(whole, fact)
        assert whole["cache_write_tokens"] == fact.sums["cache_write_tokens"]
        assert sum(nano(entry["cost_usd"]) for entry in whole["entries"]) == fact.sums["cost_nanousd"]
        for name in (*TOKENS, "cache_write_tokens"):
            assert sum(entry["usage"].get(name, 0) for entry in whole["entries"]) == fact.sums[name]
        why = books.ask(f"/explain/{request_id}")
        check_record(why, fact)
        attempts = sum(nano(attempt["cost_usd"]) for attempt in why["attempts"])
        assert attempts == fact.sums["cost_nanousd"]
        if why["bill"] is not None:
            assert sum(nano(line["cost_usd"]) for line in why["bill"]["lines"]) == fact.sums["cost_nanousd"]


def test_records_of_each_month_are_its_usage(books):
    """Of a zone of half hours."""
    months = books.wanted(("month",), LORD_HOWE, **span_of(FIRST, LAST, LORD_HOWE))
    rows = books.pages("/records", {"limit": "200", "tz": LORD_HOWE, **YEAR})
    facts = books.traffic.fact_of
    of_months = {}
    for row in rows:
        of_months.setdefault((facts[row["request_id"]].member_of("month", LORD_HOWE),), []).append(row)
    assert set(of_months) == set(months)
    for month, found in of_months.items():
        sums = dict(zip(SUMS, months[month], strict=True))
        assert sum(nano(row["cost_usd"]) for row in found) == sums["cost_nanousd"]
        assert sum(row["input_tokens"] for row in found) == sums["input_tokens"]
        assert len(found) == sums["requests"]
