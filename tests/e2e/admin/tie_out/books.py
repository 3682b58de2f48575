"""A ledger with a generated year, a real gateway on it whose clock the tests set, and what the year comes to.

Everything is exact: money is compared in whole nano-dollars, read from the decimal texts that clients are given.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest
from typer.testing import CliRunner

from app.auth.keys import ADMIN_PREFIX, mint
from app.cli.commands import app
from app.core.clock import QUARTER_MS, quarter_of
from app.core.money import nanousd_from_usd
from app.store import migrate
from app.store.admin_tokens import create_admin_token
from app.store.database import Database
from app.store.folding import fold_all, keep_fold
from app.store.keys import add_secret
from tests.contract.store.databases import empty_url
from tests.e2e.admin.people import API
from tests.fakes.gateway import RunningGateway
from tests.fakes.traffic import SUMS, Fact, Traffic, make_people, reprice_new, write, zone_of
from tests.faults.table.clocks import set_clock, with_a_clock

REQUESTS = 500
FIRST, LAST = date(2026, 1, 1), date(2026, 12, 31)
YEAR = {"from": FIRST.isoformat(), "to": LAST.isoformat()}
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe")
BERLIN, LORD_HOWE = "Europe/Berlin", "Australia/Lord_Howe"
FOLDED_ZONES = ("UTC", BERLIN, LORD_HOWE)
"""The others are answered from quarters until the gateway, which is asked for them, has folded them too."""
SPRING = datetime(2026, 3, 29, 21, 46, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 31, 23, 31, tzinfo=UTC)
NEW_YEAR = datetime(2026, 12, 31, 23, 46, tzinfo=UTC)
"""In the last quarter of the year: all of it is in reach, and in half of the zones another month has begun."""
MOMENTS = (SPRING, AUTUMN, NEW_YEAR)
TRIED = {(SPRING, BERLIN), (AUTUMN, "America/New_York"), (NEW_YEAR, "Asia/Kathmandu"), (NEW_YEAR, LORD_HOWE)}
MOMENTS_AND_ZONES = tuple(
    pytest.param(moment, zone, marks=() if (moment, zone) in TRIED else pytest.mark.long)
    for moment in MOMENTS
    for zone in ZONES
)
"""All of them, of which the default run takes a few."""
CONFIG = """
upstreams:
  openai: {base_url: "http://127.0.0.1:9/v1", api_key: none}
  azure: {base_url: "http://127.0.0.1:9/v1", api_key: none}
models:
  - {match: "*", upstream: openai}
server: {drain_delay_s: 0}
"""
COUNTS = frozenset(name for name in SUMS if not name.endswith("_nanousd"))

Sums = tuple[int, ...]
NOTHING: Sums = (0,) * len(SUMS)


class Books:
    """``admin`` asks for everything, ``own`` with the key of ``person`` alone."""

    def __init__(self, gateway: RunningGateway, traffic: Traffic, token: str, key: str) -> None:
        self.gateway = gateway
        self.traffic = traffic
        self.person = traffic.people[0]
        self.admin = _client(f"{gateway.url}{API}", token)
        self.own = _client(gateway.url, key)
        self.now_ms = 0
        self.at(NEW_YEAR)

    def close(self) -> None:
        self.admin.close()
        self.own.close()

    def at(self, moment: datetime) -> None:
        """From now on it is so late, for the gateway and for commands."""
        self.now_ms = ms(moment)
        set_clock(self.gateway, self.now_ms - time.time_ns() // 1_000_000)

    @property
    def end_ms(self) -> int:
        """Of the quarter of an hour that runs."""
        return quarter_of(self.now_ms) + QUARTER_MS

    # -- what has to be told ------------------------------------------------------------------

    def wanted(self, by: Iterable[str], zone: str = "UTC", **more: Any) -> dict[tuple[str, ...], Sums]:
        return self.traffic.sums_by(by, zone, **more)

    def whole(self, **more: Any) -> dict[str, int]:
        """The sums of all that the filters let through, by their names."""
        return dict(zip(SUMS, self.wanted((), **more).get((), NOTHING), strict=True))

    # -- what is told -------------------------------------------------------------------------

    def ask(self, path: str, query: Mapping[str, str] | None = None, *, of: httpx.Client | None = None) -> Any:
        return self.fetch(path, query, of=of).json()

    def fetch(
        self, path: str, query: Mapping[str, str] | None = None, *, of: httpx.Client | None = None
    ) -> httpx.Response:
        place, _, given = path.partition("?")
        answer = (of or self.admin).get(f"{place}?{urlencode({**dict(parse_qsl(given)), **(query or {})})}")
        assert answer.status_code == 200, (path, query, answer.text)
        return answer

    def pages(
        self, path: str, query: Mapping[str, str], *, of: httpx.Client | None = None, member: str = "data"
    ) -> list[dict[str, Any]]:
        """The rows of all pages."""
        rows, cursor = [], None
        while True:
            page = self.ask(path, {**query, **({} if cursor is None else {"cursor": cursor})}, of=of)
            rows += page[member]
            cursor = page["next"]
            if cursor is None:
                return rows

    def lines(self, path: str, query: Mapping[str, str]) -> list[dict[str, str]]:
        """The rows of a CSV file."""
        return csv_rows(self.fetch(path, query).text)

    def command(self, *arguments: str) -> str:
        """What a command prints, at the time that the gateway has."""
        names = {name: value for name, value in self.gateway.environment.items() if name.startswith("HEADGATE_")}
        names["HEADGATE_DATA_DIR"] = str(self.gateway.data_dir)
        with mock.patch("time.time_ns", lambda: self.now_ms * 1_000_000):
            done = CliRunner().invoke(app, list(arguments), env=names)
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        return done.stdout

    def told_by(self, *arguments: str) -> Any:
        """The JSON that a command prints."""
        return json.loads(self.command(*arguments, "--json"))


def _client(url: str, token: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60)


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def midnight_ms(day: date, zone: str) -> int:
    """The first millisecond of a day where it is ``zone``'s."""
    return ms(datetime(day.year, day.month, day.day, tzinfo=zone_of(zone)))


def span_of(first: date, last: date, zone: str) -> dict[str, int]:
    """From the first of these days to the end of the last."""
    return {"start_ms": midnight_ms(first, zone), "end_ms": midnight_ms(last + timedelta(days=1), zone)}


def nano(text: str | None) -> int:
    """A decimal text in whole nano-dollars; nothing for what is not known."""
    return 0 if text is None or text == "" else nanousd_from_usd(text)


def sums_of(row: Mapping[str, Any]) -> Sums:
    """The sums of a row, whether they are numbers or the texts of a file."""
    return tuple(int(row[name]) if name in COUNTS else nano(row[name.replace("_nanousd", "_usd")]) for name in SUMS)


def told(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> dict[tuple[str, ...], Sums]:
    """The sums of each group; a row of nothing is what was sent to an upstream in vain."""
    found = {tuple(row[f"{name}_id" if name in {"team", "key"} else name] for name in by): sums_of(row) for row in rows}
    assert len(found) == len(rows), by
    return {group: sums for group, sums in found.items() if any(sums)}


def added(sums: Iterable[Sums]) -> Sums:
    return tuple(map(sum, zip(NOTHING, *sums, strict=True)))


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def costs_by(facts: Iterable[Fact], member: Callable[[Fact], str]) -> dict[str, int]:
    """What each member cost, without those that cost nothing."""
    found: dict[str, int] = {}
    for fact in facts:
        found[member(fact)] = found.get(member(fact), 0) + fact.sums["cost_nanousd"]
    return {name: cost for name, cost in found.items() if cost}


@contextmanager
def opened_books(kind: str, folder: Path, requests: int = REQUESTS) -> Iterator[Books]:
    folder.joinpath("data").mkdir(parents=True)
    token, key = mint(ADMIN_PREFIX), mint()

    async def write_all() -> tuple[str, Traffic]:
        url = await empty_url(kind, folder / "data")
        database = await Database.open(url)
        try:
            await migrate.upgrade(database)
            traffic = Traffic(await make_people(database), requests=requests, near_edges=0.6)
            await _write_year(database, traffic)
            async with database.transaction() as connection:
                await create_admin_token(connection, name="books", role="admin", digest=token.digest, now_ms=1)
                key_id = traffic.people[0].key_id
                await add_secret(connection, key_id=key_id, secret_id=key.id, digest=key.digest, now_ms=1)
        finally:
            await database.close()
        return url, traffic

    url, traffic = asyncio.run(write_all())
    more = {"HEADGATE_DATABASE_URL": url} if kind == "postgresql" else {}
    gateway = with_a_clock(RunningGateway(folder, CONFIG, **more))
    set_clock(gateway, ms(NEW_YEAR) - time.time_ns() // 1_000_000)
    with gateway:
        books = Books(gateway, traffic, token.text, key.text)
        yield books
        books.close()


async def _write_year(database: Database, traffic: Traffic) -> None:
    """A third of it comes late, on quarters that were folded; so do corrections, and prices."""
    records = traffic.records()
    late = set(range(0, len(records), 3))
    await write(database, [record for number, record in enumerate(records) if number not in late])
    for zone in FOLDED_ZONES:
        await keep_fold(database, "day", zone, 1)
    for phase in ("0", "15", "30"):
        await keep_fold(database, "hour", phase, 1)
    await fold_all(database, ms(datetime(2026, 7, 15, 13, 30, tzinfo=UTC)))
    await write(database, [records[number] for number in sorted(late)])
    await write(database, traffic.corrections())
    await fold_all(database, ms(datetime(2026, 12, 20, 7, 15, tzinfo=UTC)))
    await reprice_new(database, traffic)
