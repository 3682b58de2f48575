"""Exports of usage: CSV, JSON Lines and FOCUS have the rows of the answers, and their sums."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

from tests.e2e.admin.tie_out.books import FIRST, LAST, LORD_HOWE, YEAR, ZONES, nano, span_of, told
from tests.e2e.admin.tie_out.test_usage import WEEKS_OF_HOURS, filters, listed

LONG = pytest.mark.long
BY = ("", "team,key,model", "month,upstream", "day,tag.project", "week,model")
FILE_ZONES = (LORD_HOWE, *(pytest.param(zone, marks=LONG) for zone in ZONES if zone != LORD_HOWE))


@pytest.mark.parametrize("zone", FILE_ZONES)
def test_csv_and_json_lines(books, zone):
    for by in BY:
        wanted = books.wanted(listed(by), zone, **span_of(FIRST, LAST, zone))
        query = {"tz": zone, **YEAR, **({"by": by} if by else {})}
        assert told(books.lines("/usage/export", query), listed(by)) == wanted, by
        text = books.fetch("/usage/export", {**query, "format": "jsonl", "sort": "-cost"}).text
        assert told([json.loads(line) for line in text.splitlines()], listed(by)) == wanted, by


@pytest.mark.parametrize("zone", FILE_ZONES)
def test_hours_where_clocks_change(books, zone):
    for first, last in WEEKS_OF_HOURS:
        query = {"by": "hour,team", "tz": zone, "from": first.isoformat(), "to": last.isoformat()}
        wanted = books.wanted(("hour", "team"), zone, **span_of(first, last, zone))
        assert told(books.lines("/usage/export", query), ("hour", "team")) == wanted


def test_filtered_files(books):
    zone = "Europe/Berlin"
    for query, lets in filters(books):
        rows = books.lines("/usage/export", {"by": "month,team", "tz": zone, **YEAR, **query})
        assert told(rows, ("month", "team")) == books.wanted(
            ("month", "team"), zone, **span_of(FIRST, LAST, zone), lets=lets
        )


COLUMNS = {
    "x_Requests": ("requests",),
    "x_FailedRequests": ("failed",),
    "x_InputTokens": ("input_tokens",),
    "x_CachedTokens": ("cached_tokens",),
    "x_OutputTokens": ("output_tokens",),
    "x_ReasoningTokens": ("reasoning_tokens",),
    "x_UnpricedRequests": ("unpriced",),
    "ConsumedQuantity": ("input_tokens", "output_tokens"),
    "PricingQuantity": ("input_tokens", "output_tokens"),
}
MONEY = {
    "BilledCost": "cost_nanousd",
    "EffectiveCost": "cost_nanousd",
    "ListCost": "cost_nanousd",
    "ContractedCost": "cost_nanousd",
    "x_SavedCost": "saved_nanousd",
    "x_EstimatedCost": "estimated_nanousd",
}


def charged(line):
    """The figures of a line of FOCUS."""
    return (*(int(line[name]) for name in COLUMNS), *(nano(line[name]) for name in MONEY))


def figures_of(fact):
    counts = (sum(fact.sums[name] for name in names) for names in COLUMNS.values())
    return (*counts, *(fact.sums[name] for name in MONEY.values()))


def summed(pairs):
    found = defaultdict(lambda: (0,) * (len(COLUMNS) + len(MONEY)))
    for place, figures in pairs:
        found[place] = tuple(map(sum, zip(found[place], figures, strict=True)))
    return {place: figures for place, figures in found.items() if any(figures)}


@pytest.mark.parametrize("zone", FILE_ZONES)
@pytest.mark.parametrize("by", [pytest.param("", marks=LONG), "tag.project", pytest.param("hour", marks=LONG)])
def test_focus(books, by, zone):
    lines = books.lines("/usage/export", {"format": "focus", "tz": zone, **YEAR, **({"by": by} if by else {})})
    span = span_of(FIRST, LAST, zone)
    facts = [fact for fact in books.traffic.facts if span["start_ms"] <= fact.quarter_ms < span["end_ms"]]
    assert charged_whole(lines) == summed((None, figures_of(fact)) for fact in facts)
    owners = summed(
        ((line["SubAccountId"], line["ResourceId"], line["SkuId"], line["ProviderName"]), charged(line))
        for line in lines
    )
    assert owners == summed(
        ((fact.team_id, fact.key_id, f"{fact.upstream}/{fact.model}", fact.upstream), figures_of(fact))
        for fact in facts
    )
    months = summed((line["BillingPeriodStart"], charged(line)) for line in lines)
    assert list(months.values()) == [
        figures
        for _, figures in sorted(summed((fact.member_of("month", zone), figures_of(fact)) for fact in facts).items())
    ]
    if by == "tag.project":
        projects = summed((json.loads(line["Tags"] or "{}").get("project", ""), charged(line)) for line in lines)
        assert projects == summed((fact.value_of("project"), figures_of(fact)) for fact in facts)


def charged_whole(lines):
    return summed((None, charged(line)) for line in lines)


def test_focus_by_months_is_the_year(books):
    """As a company would fetch it: a file a month."""
    zone = "America/New_York"
    whole = books.lines("/usage/export", {"format": "focus", "tz": zone, **YEAR})
    parts = []
    for month in range(1, 13):
        begin = f"2026-{month:02}-01T00:00"
        end = f"2026-{month + 1:02}-01T00:00" if month < 12 else "2027-01-01T00:00"
        parts += books.lines("/usage/export", {"format": "focus", "tz": zone, "from": begin, "to": end})
    assert charged_whole(parts) == charged_whole(whole)
    assert len(parts) == len(whole)
