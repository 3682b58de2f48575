"""Measures every view of usage on a year of traffic, and what batches cost: ``make bench-usage [RECORDS=10000000]``.

Rollups are drawn as many records would make them (sparse: nearly a row for each record), and folded by the product;
the sums of one tag are drawn from those of keys, and times from the air. Views are asked of a gateway, one after the
other (``views.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import statistics
import tempfile
import time
from bisect import bisect
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import insert, text

from app.core.clock import QUARTER_MS, quarter_of
from app.core.ids import new_request_id
from app.core.records import Entry, Record, attempt_id_of
from app.core.usage import Usage
from app.store import migrate
from app.store.batch import write_batch
from app.store.database import Database
from app.store.folding import fold_on, keep_fold, list_folds
from app.store.folds import month_of_utc
from app.store.periods import DAY_MS
from app.store.tables import keys, teams
from tests.bench.views import ZONE, measure_views
from tests.fakes.postgres import shared_server

DAYS = 365
END_MS = quarter_of(time.time_ns() // 1_000_000)
START_MS = END_MS - DAYS * DAY_MS
TEAMS, KEYS, MODELS = 12, 200, 10
BATCH = 1000
BATCHES = 20
QUARTERS_PER_DAY = 96
DIMENSIONS = ("quarter_ms", "team_id", "key_id", "model", "upstream")
SUMS = 12
TAG = "project"
PROJECTS = 40

DRAW_TAG = f"""
INSERT INTO sums (fold, level, tag, start, value, team_id, key_id, model, upstream, requests, failed, input_tokens,
  cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_nanousd, saved_nanousd, unpriced, estimated,
  estimated_nanousd)
SELECT fold, CAST(:to_level AS INTEGER), '{TAG}', start, 'p' || (CAST(substr(key_id, 2) AS INTEGER) % {PROJECTS}),
  team_id, CASE WHEN :keeps_key = 1 THEN key_id ELSE '' END, CASE WHEN :keeps_model = 1 THEN model ELSE '' END,
  CASE WHEN :keeps_model = 1 THEN upstream ELSE '' END, sum(requests), sum(failed), sum(input_tokens),
  sum(cached_tokens), sum(cache_write_tokens), sum(output_tokens), sum(reasoning_tokens), sum(cost_nanousd),
  sum(saved_nanousd), sum(unpriced), sum(estimated), sum(estimated_nanousd)
FROM sums WHERE level = :from_level AND tag = '' AND CAST(substr(key_id, 2) AS INTEGER) % 3 > 0
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
"""


def days_of_rollups(records: int) -> Iterator[list[tuple[Any, ...]]]:
    """A day's rows at a time, in the order of their key."""
    chance = random.Random(1)
    shares = list(accumulate(1 / (rank + 8) for rank in range(KEYS)))
    per_day = records // DAYS
    for day in range(DAYS):
        drawn: Counter[tuple[int, int, int]] = Counter()
        for _ in range(per_day):
            key = bisect(shares, chance.random() * shares[-1])
            drawn[int(chance.random() * QUARTERS_PER_DAY), key, int(chance.random() ** 2 * MODELS)] += 1
        yield sorted(
            (
                START_MS + day * DAY_MS + quarter * QUARTER_MS,
                f"team{key % TEAMS:02}",
                f"k{key:09}",
                f"model-{model}",
                "azure" if model == 1 else "openai",
                count,
                int(chance.random() < 0.01),
                1200 * count,
                300 * count,
                0,
                400 * count,
                50 * count,
                2_000_000 * count,
                0,
                0,
                0,
                0,
            )
            for (quarter, key, model), count in drawn.items()
        )


def timings_of_the_last_day() -> list[tuple[Any, ...]]:
    return [
        (END_MS - DAY_MS + quarter * QUARTER_MS, f"team{team:02}", upstream, measure, bucket, 3)
        for quarter in range(QUARTERS_PER_DAY)
        for team in range(TEAMS)
        for upstream in ("azure", "openai")
        for measure in ("first_byte", "overhead")
        for bucket in range(60, 80)
    ]


async def add_people(database: Database) -> None:
    async with database.transaction() as connection:
        for team in range(TEAMS):
            row = {"id": f"team{team:02}", "name": f"Team {team:02}", "created_at_ms": START_MS, "changed": 1}
            await connection.execute(insert(teams).values(row))
        for key in range(KEYS):
            row = {"id": f"k{key:09}", "team_id": f"team{key % TEAMS:02}", "name": f"key {key:03}"}
            await connection.execute(insert(keys).values(row | {"created_at_ms": START_MS, "changed": 1}))


async def fill(url: str, records: int) -> int:
    """Returns the number of rollups."""
    rows = 0
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        for day in days_of_rollups(records):
            connection.execute("BEGIN")
            connection.executemany(f"INSERT INTO rollups VALUES ({', '.join('?' * (5 + SUMS))})", day)
            connection.execute("COMMIT")
            rows += len(day)
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO timings VALUES (?, ?, ?, ?, ?, ?)", timings_of_the_last_day())
        connection.execute("COMMIT")
        connection.close()
        return rows
    connection: Any = await asyncpg.connect(url)
    for day in days_of_rollups(records):
        await connection.copy_records_to_table("rollups", records=day)
        rows += len(day)
    await connection.copy_records_to_table("timings", records=timings_of_the_last_day())
    await connection.execute("ANALYZE")
    await connection.close()
    return rows


async def fold(database: Database) -> None:
    longest_s = 0.0
    for period, zone in (("day", "UTC"), ("day", ZONE), ("hour", "0")):
        await keep_fold(database, period, zone, 1)
    async with database.read() as connection:
        folds = await list_folds(connection)
    for each in folds:
        begun_s = time.monotonic()
        steps, more = 0, True
        while more:
            step_s = time.monotonic()
            # As it is while gateways run: the last quarters are not folded yet.
            more = (await fold_on(database, each.id, END_MS - 2 * QUARTER_MS)).more
            longest_s = max(longest_s, time.monotonic() - step_s)
            steps += 1
        print(
            f"  folded {each.period} {each.zone:<14} {time.monotonic() - begun_s:7.1f} s in {steps} steps", flush=True
        )
    print(f"  the longest step took {longest_s * 1000:.0f} ms", flush=True)


async def draw_tags(database: Database) -> None:
    levels = ((21, 22, 0, 0), (22, 22, 1, 0), (23, 24, 0, 1), (32, 32, 1, 0), (33, 34, 0, 1))
    async with database.maintenance() as connection:
        for to_level, from_level, keeps_key, keeps_model in levels:
            given = {
                "to_level": to_level,
                "from_level": from_level,
                "keeps_key": keeps_key,
                "keeps_model": keeps_model,
            }
            await connection.execute(text(DRAW_TAG), given)
        for month in range(month_of_utc(START_MS), month_of_utc(END_MS) + 1):
            for value in ("", *(f"p{number}" for number in range(PROJECTS))):
                await connection.execute(
                    text("INSERT INTO tag_values (month, name, value) VALUES (:month, :name, :value)"),
                    {"month": month, "name": TAG, "value": value},
                )


async def measure_batches(database: Database, at_ms: int, title: str) -> None:
    """Batches of new records of one quarter, with three tags each."""
    chance = random.Random(2)
    batches = [[_record(chance, at_ms) for _ in range(BATCH)] for _ in range(BATCHES)]
    took = []
    for batch in batches:
        begun_s = time.perf_counter()
        await write_batch(database, batch)
        took.append(time.perf_counter() - begun_s)
    print(f"  {title:<45} {BATCH / statistics.median(took):>7.0f} records a second, median of {BATCHES}", flush=True)


def _record(chance: random.Random, at_ms: int) -> Record:
    request_id, key = new_request_id(at_ms), chance.randrange(KEYS)
    model = f"model-{chance.randrange(MODELS)}"
    at_ms += chance.randrange(QUARTER_MS)
    entry = Entry(
        attempt_id=attempt_id_of(request_id, 1),
        kind="charge",
        upstream="openai",
        model=model,
        usage=Usage(input_tokens=100, output_tokens=20),
        cost_nanousd=60_000,
        price_source="list",
        price_version="1",
    )
    return Record(
        request_id=request_id,
        admitted_at_ms=at_ms,
        quarter_ms=quarter_of(at_ms),
        first_byte_at_ms=at_ms + int(chance.lognormvariate(6, 0.7)),
        ended_at_ms=at_ms + 5000,
        team_id=f"team{key % TEAMS:02}",
        key_id=f"k{key:09}",
        secret_id=f"k{key:09}",
        endpoint="responses",
        stream=True,
        model_requested=model,
        upstream="openai",
        model=model,
        outcome="completed",
        entries=(entry,),
        status=200,
        cache="miss",
        tags={"project": f"p{key % PROJECTS}", "env": chance.choice(("prod", "dev")), "feature": f"f{key % 7}"},
        own_us=int(chance.lognormvariate(6.5, 0.4)),
    )


async def bench(kind: str, records: int, folder: Path) -> None:
    url = f"sqlite:///{folder / 'bench.db'}" if kind == "sqlite" else await shared_server().create_database()
    database = await Database.open(url, command_timeout_s=600)
    await migrate.upgrade(database)
    begun_s = time.monotonic()
    await add_people(database)
    rollups = await fill(url, records)
    print(f"{kind}: {records} records as {rollups} rollups, drawn in {time.monotonic() - begun_s:.0f} s", flush=True)
    await fold(database)
    await draw_tags(database)
    if kind == "postgresql":
        async with database.transaction() as connection:
            await connection.execute(text("ANALYZE"))
    measure_views(folder, url)
    await measure_batches(database, END_MS - QUARTER_MS, "batches of a quarter that is not folded")
    await measure_batches(database, END_MS - DAY_MS, "batches of a quarter that is (late)")
    await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    given = parser.parse_args()
    kinds = ("sqlite", "postgresql") if given.database == "both" else (given.database,)
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="hg-bench-") as folder:
            asyncio.run(bench(kind, given.records, Path(folder)))


if __name__ == "__main__":
    main()
