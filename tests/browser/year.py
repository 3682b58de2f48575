"""A gateway whose ledger holds a year up to now: thirteen teams, forty keys, ten models, and what they sent."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from app.core.clock import QUARTER_MS, quarter_of
from app.store.database import Database
from app.store.folding import fold_on, keep_fold, list_folds
from tests.e2e.admin.people import Admin
from tests.fakes.gateway import SIMULATED, RunningGateway

TEAMS, KEYS, MODELS = 13, 40, 10
DAYS = 365
DAY_MS = 86_400_000
QUARTERS_PER_DAY = 96
RECORDS_PER_DAY = 1_000
ZONE = "Europe/Berlin"
UNPRICED = MODELS - 1
"""The model, the least used one, that has no price."""

Row = tuple[Any, ...]


class Year:
    """Used with ``with``; ``gateway`` then runs on that ledger."""

    def __init__(self, folder: Path) -> None:
        self.gateway = RunningGateway(folder, SIMULATED)
        self.rollups = 0

    def __enter__(self) -> Self:
        self.gateway.start()
        members = self._furnish()
        self.gateway.stop()
        now_ms = int(time.time() * 1000)
        ledger = self.gateway.data_dir / "headgate.db"
        self.rollups = draw(ledger, members, now_ms)
        # Playwright's own loop runs in this thread.
        with ThreadPoolExecutor(1) as apart:
            apart.submit(asyncio.run, fold(f"sqlite:///{ledger}", now_ms)).result()
        self.gateway.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gateway.stop()

    def _furnish(self) -> list[tuple[str, str]]:
        """(team, key) by their ids; every second team has a budget."""
        with Admin(self.gateway) as admin:
            teams = [admin.team(f"team number {index:02}") for index in range(TEAMS)]
            keys = [admin.key(teams[index % TEAMS], f"service-{index:02}-prod") for index in range(KEYS)]
            for team in teams[::2]:
                budget = {"team_id": team["id"], "window": "month", "maximum_usd": "500", "mode": "observe"}
                admin.ask("POST", "/budgets", json=budget)
        return [(key["team"]["id"], key["id"]) for key in keys]


def rows_of(day_ms: int, members: list[tuple[str, str]], chance: random.Random, until_ms: int) -> Iterator[Row]:
    drawn: Counter[tuple[int, int, int]] = Counter(
        (
            int(chance.random() * QUARTERS_PER_DAY),
            int(chance.random() ** 1.5 * KEYS),
            int(chance.random() ** 2 * MODELS),
        )
        for _ in range(RECORDS_PER_DAY)
    )
    for (quarter, key, model), count in sorted(drawn.items()):
        at_ms = day_ms + quarter * QUARTER_MS
        if at_ms > until_ms:
            break
        is_priced = model != UNPRICED
        tokens = (1200 * count, 300 * count, 0, 400 * count, 50 * count)
        cost = 20_000_000 * count * (model + 1) if is_priced else 0
        failed = int(chance.random() < 0.01)
        money = (cost, cost // 20, 0 if is_priced else count, 0, 0)
        yield (at_ms, *members[key], f"model-{model}", "simulator", count, failed, *tokens, *money)


def times_of(until_ms: int, members: list[tuple[str, str]]) -> Iterator[Row]:
    """How long things took in the last day."""
    for back in range(QUARTERS_PER_DAY):
        for team in sorted({team for team, _ in members}):
            for measure, buckets in (("first_byte", range(70, 80)), ("overhead", range(30, 40))):
                for bucket in buckets:
                    yield (until_ms - back * QUARTER_MS, team, "simulator", measure, bucket, 3)


def draw(ledger: Path, members: list[tuple[str, str]], now_ms: int) -> int:
    """The sums as so many records would have left them; returns how many they are."""
    chance = random.Random(1)
    until_ms = quarter_of(now_ms)
    today_ms = now_ms - now_ms % DAY_MS
    connection = sqlite3.connect(ledger, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    for back in range(DAYS, -1, -1):
        rows = rows_of(today_ms - back * DAY_MS, members, chance, until_ms)
        connection.executemany(f"INSERT INTO rollups VALUES ({', '.join('?' * 17)})", rows)
    connection.executemany("INSERT INTO timings VALUES (?, ?, ?, ?, ?, ?)", times_of(until_ms, members))
    connection.execute("COMMIT")
    (count,) = connection.execute("SELECT count(*) FROM rollups").fetchone()
    connection.close()
    return count


async def fold(url: str, now_ms: int) -> None:
    """As it is while gateways run: the last quarters are not folded yet."""
    database = await Database.open(url, command_timeout_s=600)
    for period, zone in (("day", "UTC"), ("day", ZONE), ("hour", "0")):
        await keep_fold(database, period, zone, 1)
    async with database.read() as connection:
        folds = await list_folds(connection)
    for each in folds:
        while (await fold_on(database, each.id, quarter_of(now_ms) - 2 * QUARTER_MS)).more:
            pass
    await database.close()
