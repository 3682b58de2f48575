"""A year in five time zones: every way to ask for it gives what its requests come to, whatever has been folded yet."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from app.core.clock import QUARTER_MS, quarter_of
from app.store.folding import fold_all, fold_on, keep_fold, list_folds
from app.store.periods import offset_ms_of
from app.store.proof import prove
from app.store.tables import rollups, sums
from app.store.usage import UsageFilter, usage
from app.store.usage.plan import phase_of
from tests.fakes.traffic import PERIODS, SUMS, ZONES, Traffic, make_people, reprice_new, write, zone_of

REQUESTS = 500
BY = [
    (),
    ("team",),
    ("key",),
    ("model",),
    ("upstream",),
    ("team", "key", "model", "upstream"),
    ("tag.project",),
    ("tag.env", "model"),
    ("key", "tag.project"),
]
EVERYTHING = UsageFilter()
LONG = pytest.mark.long
STAGES = [pytest.param(stage, marks=LONG) for stage in ("unfolded", "folded", "half")] + ["late"]
"""The last has all that there is: folds, quarters beside them, and what comes late. It alone runs every time."""


class Ledger:
    """A database with a year of traffic, and what it comes to."""

    def __init__(self, database, traffic):
        self.database = database
        self.traffic = traffic
        self.start_ms, self.end_ms = traffic.start_ms, traffic.end_ms

    async def report(self, by, zone, *, start_ms=None, end_ms=None, only=EVERYTHING):
        async with self.database.read() as connection:
            return await usage(
                connection,
                by,
                self.start_ms if start_ms is None else start_ms,
                self.end_ms if end_ms is None else end_ms,
                zone_of(zone),
                only=only,
            )

    def wanted(self, by, zone, **more):
        return self.traffic.sums_by(by, zone, **more)


def told(report, by):
    ids = {"team": "team_id", "key": "key_id"}
    rows = {
        tuple(getattr(row, ids[name]) if name in ids else row.group[name] for name in by): sums_of(row)
        for row in report.rows
    }
    assert len(rows) == len(report.rows)
    assert sums_of(report.total) == added(rows.values())
    # What was sent to an upstream in vain leaves a row of nothing there.
    return {key: values for key, values in rows.items() if any(values)}


def sums_of(row):
    return tuple(getattr(row, name) for name in SUMS)


def added(rows):
    return tuple(map(sum, zip(*rows, strict=True))) or (0,) * len(SUMS)


async def register(database, zones=ZONES):
    for zone in zones:
        await keep_fold(database, "day", zone, 1)
    for offset_ms in {
        offset_ms_of(at_ms, zone_of(zone)) for zone in zones for at_ms in range(0, 365 * 86_400_000, 10**9)
    }:
        await keep_fold(database, "hour", str(phase_of(offset_ms)), 1)
    # Of 2026.
    await keep_fold(database, "hour", "30", 1)


@pytest.fixture
async def ledger(database, stage):
    """At several stages of folding, the last of which has all that comes late on quarters that were folded."""
    traffic = Traffic(await make_people(database), requests=REQUESTS, near_edges=0.85)
    july_ms = quarter_of(int(datetime(2026, 7, 15, 13, 30, tzinfo=UTC).timestamp()) * 1000)
    if stage == "late":
        late = set(range(0, REQUESTS, 3))
        records = traffic.records()
        await write(database, [record for number, record in enumerate(records) if number not in late])
        await register(database)
        await fold_all(database, july_ms)
        await write(database, [records[number] for number in sorted(late)])
        await write(database, traffic.corrections()[::2])
        await fold_all(database, july_ms + 1000 * QUARTER_MS)
        await write(database, traffic.corrections()[1::2])
        await reprice_new(database, traffic)
        return Ledger(database, traffic)
    await write(database, traffic.records())
    await write(database, traffic.corrections())
    await reprice_new(database, traffic)
    if stage != "unfolded":
        await register(database)
        await fold_all(database, july_ms if stage == "half" else traffic.end_ms + QUARTER_MS)
    return Ledger(database, traffic)


@pytest.mark.parametrize("stage", STAGES)
async def test_every_way_to_ask_gives_what_the_requests_come_to(ledger):
    whole = ledger.wanted((), "UTC")[()]
    for zone in ZONES:
        for by in BY:
            assert told(await ledger.report(by, zone), by) == ledger.wanted(by, zone), (zone, by)
        for period in PERIODS:
            for by in [(period,), ("model", period), (period, "key"), (period, "tag.project")]:
                report = await ledger.report(by, zone)
                assert told(report, by) == ledger.wanted(by, zone), (zone, by)
                assert sums_of(report.total) == whole
    async with ledger.database.read() as connection:
        proof = await prove(connection)
    assert proof.holds, proof


@pytest.mark.parametrize("stage", STAGES[2:])
async def test_filters_and_what_they_leave_out_are_all_there_is(ledger):
    people = ledger.traffic.people
    teams, keys = (people[0].team_id, people[4].team_id), (people[0].key_id,)
    cases = [
        ({"team_ids": teams}, {"not_team_ids": teams}, lambda fact: fact.team_id in teams),
        ({"key_ids": keys}, {"not_key_ids": keys}, lambda fact: fact.key_id in keys),
        ({"models": ("gpt-5",)}, {"not_models": ("gpt-5",)}, lambda fact: fact.model == "gpt-5"),
        ({"upstreams": ("azure",)}, {"not_upstreams": ("azure",)}, lambda fact: fact.upstream == "azure"),
        (
            {"tags": (("env", ("prod", "dev eu")),)},
            {"not_tags": (("env", ("prod", "dev eu")),)},
            lambda fact: fact.value_of("env") in {"prod", "dev eu"},
        ),
        (
            {"tags": (("project", ("", "search-a")),)},
            {"not_tags": (("project", ("", "search-a")),)},
            lambda fact: fact.value_of("project") in {"", "search-a"},
        ),
    ]
    for zone in ("UTC", "Australia/Lord_Howe"):
        for given, left_out, lets in cases:
            for by in [(), ("month", "model"), ("week", "key")]:
                mine = told(await ledger.report(by, zone, only=UsageFilter(**given)), by)
                others = told(await ledger.report(by, zone, only=UsageFilter(**left_out)), by)
                assert mine == ledger.wanted(by, zone, lets=lets), (zone, given, by)
                assert others == ledger.wanted(by, zone, lets=lambda fact, lets=lets: not lets(fact)), (zone, given, by)


@pytest.mark.parametrize("stage", STAGES)
async def test_filters_combine(ledger):
    first = ledger.traffic.people[0]
    only = UsageFilter(team_ids=(first.team_id,), not_models=("gpt-5",), tags=(("env", ("prod",)),))

    def lets(fact):
        return fact.team_id == first.team_id and fact.model != "gpt-5" and fact.value_of("env") == "prod"

    for by in [("day",), ("tag.env",), ("tag.project", "month"), ("key", "upstream")]:
        assert told(await ledger.report(by, "Europe/Berlin", only=only), by) == ledger.wanted(
            by, "Europe/Berlin", lets=lets
        )


@pytest.mark.parametrize("stage", [STAGES[0], *STAGES[2:]])
async def test_spans_that_are_not_whole_days(ledger):
    spans = [
        (datetime(2026, 3, 29, 0, 45, tzinfo=UTC), datetime(2026, 3, 29, 2, 15, tzinfo=UTC)),
        (datetime(2026, 1, 31, 22, 15, tzinfo=UTC), datetime(2026, 3, 1, 5, 45, tzinfo=UTC)),
        (datetime(2026, 6, 30, 18, 30, tzinfo=UTC), datetime(2026, 7, 15, 13, 45, tzinfo=UTC)),
        (datetime(2026, 7, 15, 4, 0, tzinfo=UTC), datetime(2026, 12, 31, 23, 45, tzinfo=UTC)),
    ]
    for zone in ZONES:
        for start, end in spans:
            span = {"start_ms": int(start.timestamp() * 1000), "end_ms": int(end.timestamp() * 1000)}
            for by in [(), ("key",), ("day", "team"), ("hour", "model"), ("month",), ("day", "tag.env")]:
                assert told(await ledger.report(by, zone, **span), by) == ledger.wanted(by, zone, **span), (
                    zone,
                    span,
                    by,
                )


@pytest.mark.parametrize("stage", ["folded"])
async def test_what_is_folded_is_read_from_few_rows(ledger):
    """The other tests would hold as well if nothing were ever read from folds."""
    async with ledger.database.transaction() as connection:
        quarters = (await connection.execute(select(func.count()).select_from(rollups))).scalar()
        assert quarters > REQUESTS / 2
        await connection.execute(rollups.delete())
    for zone in ZONES:
        for by in [(), ("day", "team"), ("week", "model"), ("month", "key", "model"), ("hour", "team"), ("tag.env",)]:
            if (by == () and zone != "UTC") or (by[:1] == ("hour",) and zone == "Australia/Lord_Howe"):
                # Days of UTC make up what has no period; and half an hour is no hour of a fold.
                continue
            start_ms = int(datetime(2026, 2, 1, tzinfo=zone_of(zone)).timestamp() * 1000)
            end_ms = int(datetime(2026, 12, 1, tzinfo=zone_of(zone)).timestamp() * 1000)
            found = told(await ledger.report(by, zone, start_ms=start_ms, end_ms=end_ms), by)
            assert found == ledger.wanted(by, zone, start_ms=start_ms, end_ms=end_ms), (zone, by)


@pytest.mark.parametrize("stage", ["unfolded"])
async def test_folding_by_small_pieces_is_folding(ledger):
    await keep_fold(ledger.database, "day", "Australia/Lord_Howe", 1)
    async with ledger.database.read() as connection:
        (fold,) = await list_folds(connection)
    steps = 0
    while (await fold_on(ledger.database, fold.id, ledger.end_ms, piece_rows=1)).more:
        steps += 1
        if steps % 200 == 0:
            by = ("day", "model")
            assert told(await ledger.report(by, fold.zone), by) == ledger.wanted(by, fold.zone)
    assert steps > 200
    by = ("month", "key", "model")
    assert told(await ledger.report(by, fold.zone), by) == ledger.wanted(by, fold.zone)
    async with ledger.database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(sums))).scalar() > 0
