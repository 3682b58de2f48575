"""Folds: which there are, what they take in while batches are written, and what is counted as another."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, select

from app.core.clock import QUARTER_MS
from app.main.folding import Folding
from app.store import tag_values
from app.store.batch import write_batch
from app.store.folding import DROPPED_ROWS_AT_ONCE, ZONES_MAX, drop_left_over, fold_all, fold_on, keep_fold, list_folds
from app.store.folds import _hold_folds, month_of_utc
from app.store.periods import DAY_MS
from app.store.proof import prove
from app.store.prune import prune
from app.store.steps import run_on_driver
from app.store.tables import folds, rollups, sums
from app.store.tables import tag_values as tag_values_table
from app.store.usage import UsageFilter, usage
from app.telemetry.logs import LogWriter
from tests.contract.store.samples import NOON_MS, entry_of, record_of

YEAR = (NOON_MS - 200 * DAY_MS, NOON_MS + 200 * DAY_MS)


async def used(database, by=(), span=YEAR, zone=UTC, **only):
    async with database.read() as connection:
        return await usage(connection, by, *span, zone, only=UsageFilter(**only))


async def by_value(database, name, **only):
    report = await used(database, (f"tag.{name}",), **only)
    return {row.group[f"tag.{name}"]: row.requests for row in report.rows}


async def folds_of(database):
    async with database.read() as connection:
        return await list_folds(connection)


async def proven(database):
    async with database.read() as connection:
        proof = await prove(connection)
    assert proof.holds, proof
    return proof


class Clock:
    def __init__(self, now_ms):
        self.now = now_ms

    def now_ms(self):
        return self.now

    def monotonic_s(self):
        return self.now / 1000


def folding_at(database, now_ms, **options):
    return Folding(database, Clock(now_ms), LogWriter(), **options)


async def test_of_too_many_zones_the_one_used_longest_ago_goes_with_its_sums(database):
    await write_batch(database, [record_of(tags={"env": "prod"})])
    zones = ["Europe/Berlin", "Europe/Paris", "Asia/Tokyo", "Asia/Kolkata", "America/New_York", "America/Lima"]
    zones += ["Africa/Cairo", "Pacific/Apia"]
    assert len(zones) == ZONES_MAX
    await keep_fold(database, "day", "UTC", 0)
    await keep_fold(database, "hour", "0", 0)
    for number, zone in enumerate(zones):
        assert await keep_fold(database, "day", zone, number)
    assert not await keep_fold(database, "day", zones[0], 10 * DAY_MS)
    await fold_all(database, NOON_MS + DAY_MS)
    assert await keep_fold(database, "day", "Asia/Seoul", 11 * DAY_MS)
    left = {fold.zone for fold in await folds_of(database)}
    assert left == {"UTC", "0", *zones, "Asia/Seoul"} - {"Europe/Paris"}
    removed = 0
    while number := await drop_left_over(database):
        assert number <= DROPPED_ROWS_AT_ONCE
        removed += number
    assert removed == 7 + 5
    await proven(database)
    # The number of the one that went is not given again.
    ids = [fold.id for fold in await folds_of(database)]
    assert len(set(ids)) == len(ids)
    assert max(ids) == ZONES_MAX + 3


async def test_a_zone_is_folded_once_a_report_has_asked_for_its_days(database):
    await write_batch(database, [record_of(at_ms=NOON_MS - hours * 3_600_000) for hours in range(80)])
    folding = folding_at(database, NOON_MS + DAY_MS)
    await folding.work()
    assert {(fold.period, fold.zone) for fold in await folds_of(database)} == {("day", "UTC"), ("hour", "0")}
    kathmandu = ZoneInfo("Asia/Kathmandu")
    before = (await used(database, ("day",), zone=kathmandu)).rows
    await used(database, ("hour",), (NOON_MS - DAY_MS, NOON_MS), kathmandu)
    await folding.work()
    found = {(fold.period, fold.zone): fold.until_ms for fold in await folds_of(database)}
    assert found[("day", "Asia/Kathmandu")] == found[("hour", "15")] == found[("day", "UTC")]
    async with database.transaction() as connection:
        await connection.execute(rollups.delete())
    assert (await used(database, ("day",), zone=kathmandu)).rows == before


async def test_nothing_is_folded_that_the_journal_has_records_of(database):
    await write_batch(database, [record_of()])
    now_ms = NOON_MS + DAY_MS
    await folding_at(database, now_ms, behind_s=lambda: 7200.0).work()
    assert {fold.until_ms for fold in await folds_of(database)} == {now_ms - 4 * 3_600_000}
    await folding_at(database, now_ms, folds=False).work()
    assert {fold.until_ms for fold in await folds_of(database)} == {now_ms - 4 * 3_600_000}
    await folding_at(database, now_ms).work()
    assert {fold.until_ms for fold in await folds_of(database)} == {now_ms - QUARTER_MS}


async def test_batches_and_folding_at_once_leave_nothing_out(database, conflicts):
    """Writers, corrections, folds that move on, and zones that come: on PostgreSQL all at the same moment."""
    chance = random.Random(5)
    start_ms = NOON_MS - NOON_MS % DAY_MS
    wanted = 0
    done = asyncio.Event()

    async def write(writer):
        nonlocal wanted
        for number in range(25):
            batch = []
            for _ in range(8):
                record = record_of(
                    f"r{writer}-{number}-{len(batch)}",
                    at_ms=start_ms + chance.randrange(3 * DAY_MS),
                    key_id=f"k{chance.randrange(4)}",
                    tags={"env": chance.choice("abc")} if chance.random() < 0.7 else {},
                )
                if chance.random() < 0.3:
                    entry = entry_of(record.request_id, kind="estimate", cost_nanousd=5)
                    record = record_of(
                        record.request_id, at_ms=record.admitted_at_ms, tags=record.tags, entries=(entry,)
                    )
                batch.append(record)
            await write_batch(database, batch)
            wanted += len(batch)
            if number % 3 == 0:
                exact = [
                    record_of(each.request_id, at_ms=each.admitted_at_ms, tags=each.tags)
                    for each in batch
                    if each.entries[0].kind == "estimate"
                ]
                await write_batch(database, exact)

    async def fold():
        zones = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]
        end_ms = start_ms
        while not done.is_set():
            if zones and chance.random() < 0.3:
                await keep_fold(database, "day", zones.pop(), 1)
            for each in await folds_of(database):
                await fold_on(database, each.id, min(end_ms, start_ms + 3 * DAY_MS), piece_rows=chance.randrange(1, 40))
            end_ms += chance.randrange(40) * QUARTER_MS
            await asyncio.sleep(0)

    folding = [asyncio.create_task(fold()) for _ in range(2)]
    await asyncio.gather(*[write(writer) for writer in range(4)])
    done.set()
    await asyncio.gather(*folding)
    proof = await proven(database)
    assert (proof.records, proof.estimated > 0) == (wanted, True)
    for zone in ("UTC", "Europe/Berlin", "Asia/Kolkata"):
        for by in [(), ("day",), ("day", "tag.env"), ("key",)]:
            assert (await used(database, by, zone=ZoneInfo(zone))).total.requests == wanted
    await fold_all(database, start_ms + 4 * DAY_MS)
    await proven(database)
    # Whoever waits for another here waits in one order.
    assert not conflicts


async def test_values_beyond_the_bound_are_another_and_are_found_by_records(database, monkeypatch):
    monkeypatch.setattr(tag_values, "VALUES_MAX", 3)
    await write_batch(
        database, [record_of(f"r{number}", tags={"run": f"v{number}"}) for number in range(5)] + [record_of("untagged")]
    )
    await keep_fold(database, "day", "UTC", 1)
    before = await by_value(database, "run")
    await fold_all(database, NOON_MS + DAY_MS)
    found = await by_value(database, "run")
    assert sorted(found.values()) == [1, 1, 1, 1, 2]
    assert (found["_other"], found[""]) == (2, 1)
    assert sorted(before.values()) == sorted(found.values())
    hidden = next(f"v{number}" for number in range(5) if f"v{number}" not in found)
    # Too long a span to read the records of, if there were many.
    assert (await used(database, tags=(("run", (hidden,)),))).total.requests == 1
    assert (await used(database, not_tags=(("run", (hidden,)),))).total.requests == 5
    # A value that was another stays one, and what comes late is counted so too.
    await write_batch(database, [record_of("late", tags={"run": hidden}), record_of("new", tags={"run": "v9"})])
    assert (await by_value(database, "run"))["_other"] == 4
    await proven(database)


async def test_names_beyond_the_bound_have_no_sums_and_are_found_by_records(database, monkeypatch):
    monkeypatch.setattr(tag_values, "NAMES_MAX", 2)
    await write_batch(database, [record_of(f"r{number}", tags={f"name{number}": "v"}) for number in range(4)])
    await keep_fold(database, "day", "UTC", 1)
    await fold_all(database, NOON_MS + DAY_MS)
    async with database.read() as connection:
        names = (
            await connection.execute(select(func.count(func.distinct(sums.c.tag))).where(sums.c.tag != ""))
        ).scalar()
    assert names == 2
    for number in range(4):
        assert await by_value(database, f"name{number}") == {"": 3, "v": 1}
    assert await by_value(database, "unheard.of") == {"": 4}
    await proven(database)


async def test_two_tags_at_once_are_read_from_records_while_they_are_few(database, monkeypatch):
    await write_batch(
        database,
        [record_of(f"r{number}", tags={"a": f"{number % 2}", "b": f"{number % 3}"}) for number in range(12)],
    )
    await keep_fold(database, "day", "UTC", 1)
    await fold_all(database, NOON_MS + DAY_MS)
    assert await by_value(database, "a", tags=(("b", ("0", "2")),)) == {"0": 4, "1": 4}
    assert await by_value(database, "a", not_tags=(("b", ("0", "2")),), key_ids=("key0000001",)) == {"0": 2, "1": 2}
    monkeypatch.setattr("app.store.usage.tagged.RECORDS_MAX", 11)
    with pytest.raises(ValueError, match="up to 31 days"):
        await by_value(database, "a", tags=(("b", ("0", "2")),))
    month = (NOON_MS - 15 * DAY_MS, NOON_MS + 15 * DAY_MS)
    report = await used(database, ("tag.a",), month, tags=(("b", ("0", "2")),))
    assert report.total.requests == 8


async def test_tags_of_before_a_prune_are_told_by_zones_that_were_there_and_refused_by_others(database):
    await write_batch(database, [record_of(tags={"env": "prod"}), record_of(at_ms=NOON_MS - 40 * DAY_MS)])
    await prune(database, NOON_MS + DAY_MS)
    assert await by_value(database, "env") == {"": 1, "prod": 1}
    await keep_fold(database, "day", "Asia/Tokyo", 1)
    await fold_all(database, NOON_MS + DAY_MS)
    tokyo = ZoneInfo("Asia/Tokyo")
    assert (await used(database, ("day",), zone=tokyo)).total.requests == 2
    with pytest.raises(ValueError, match="is known from 2026-11-21"):
        await used(database, ("day", "tag.env"), zone=tokyo)
    since = (NOON_MS + DAY_MS, NOON_MS + 10 * DAY_MS)
    assert (await used(database, ("day", "tag.env"), since, tokyo)).rows == []
    await proven(database)


async def test_a_month_of_utc_that_ends_inside_of_a_local_day(database):
    """Values are counted by the month of UTC, days by the zone: one day has two of them."""
    turn_ms = int(datetime(2026, 8, 1, tzinfo=UTC).timestamp()) * 1000
    hours = range(-20, 20, 4)
    await write_batch(database, [record_of(at_ms=turn_ms + hour * 3_600_000, tags={"env": "x"}) for hour in hours])
    await keep_fold(database, "day", "America/New_York", 1)
    await fold_all(database, turn_ms + 2 * DAY_MS)
    rows = (await used(database, ("day", "tag.env"), zone=ZoneInfo("America/New_York"))).rows
    assert [(row.group["day"], row.requests) for row in rows] == [("2026-07-31", 6), ("2026-08-01", 4)]
    async with database.read() as connection:
        months = set((await connection.execute(select(tag_values_table.c.month))).scalars())
    assert months == {month_of_utc(turn_ms) - 1, month_of_utc(turn_ms)}
    await proven(database)


async def test_a_fold_that_went_meanwhile_is_left_alone(database):
    await write_batch(database, [record_of()])
    assert (await fold_on(database, 77, NOON_MS)).more is False
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(folds))).scalar() == 0


async def test_a_batch_that_cannot_see_a_fold_is_done_before_there_is_one(database):
    """And one that comes meanwhile waits, and sees it: else its late rows would be in no sum."""
    if database.dialect == "sqlite":
        pytest.skip("one writer")
    order = []

    async def look():
        async with database.postgres_transaction() as connection:
            found = await run_on_driver(connection, _hold_folds())
            order.append(f"batch sees {len(found)}")

    async def make():
        await keep_fold(database, "day", "UTC", 1)
        order.append("made")

    async with database.postgres_transaction() as connection:
        assert await run_on_driver(connection, _hold_folds()) == []
        making = asyncio.create_task(make())
        await asyncio.sleep(0.3)
        looking = asyncio.create_task(look())
        await asyncio.sleep(0.3)
        order.append("first batch done")
    await asyncio.gather(making, looking)
    assert order[0] == "first batch done"
    assert sorted(order[1:]) == ["batch sees 1", "made"]


async def test_writers_that_take_turns_do_not_keep_a_fold_where_it_is(database):
    """On PostgreSQL a lock that is shared without a gap lets nobody in who wants it alone, if it is a row's."""
    if database.dialect == "sqlite":
        pytest.skip("one writer")
    await write_batch(database, [record_of()])
    await keep_fold(database, "day", "UTC", 1)
    (fold,) = await folds_of(database)
    done = asyncio.Event()

    async def hold(delay_s):
        await asyncio.sleep(delay_s)
        while not done.is_set():
            async with database.postgres_transaction() as connection:
                await run_on_driver(connection, _hold_folds())
                await asyncio.sleep(0.1)

    holding = [asyncio.create_task(hold(number * 0.03)) for number in range(3)]
    await asyncio.sleep(0.2)
    async with asyncio.timeout(30):
        assert (await fold_on(database, fold.id, NOON_MS + DAY_MS)).until_ms == NOON_MS + DAY_MS
    done.set()
    await asyncio.gather(*holding)
