"""A year of traffic by a seed: put through the real batch writer, so that every sum is the product's own.

``Traffic`` draws requests of some teams and keys: more of them where clocks change and where days and months end.
Some cost nothing that is known, some are estimates of which the truth comes months later, some are repriced, some
repeated from the cache, some went to a second upstream. ``facts`` is what all of it comes to in the end, reckoned
here and not by the product: one fact for each place (model and upstream) that a request counts at.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from app.core.clock import quarter_of
from app.core.records import Entry, Record, attempt_id_of
from app.core.usage import Usage
from app.store.batch import write_batch
from app.store.database import Database
from app.store.keys import create_key
from app.store.reprice import Found, Unpriced, reprice
from app.store.teams import create_team

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
TEAMS = ("search", "support", "research", "batch jobs")
MODELS = ("gpt-5", "gpt-5-mini", "gpt-4.1", "text-embedding-3-small")
NEW_MODEL, NAMELESS_MODEL = "gpt-6-preview", "in-house-7b"
"""The first gets a price by repricing, the second never."""
UPSTREAMS = ("openai", "azure")
REPRICED_NANOUSD = 11
BATCH_RECORDS = 500
PERIODS = ("hour", "day", "week", "month")
SUMS = (
    "requests",
    "failed",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nanousd",
    "saved_nanousd",
    "unpriced",
    "estimated",
    "estimated_nanousd",
)


@dataclass(frozen=True)
class Fact:
    """What one request comes to at one model and upstream."""

    quarter_ms: int
    team_id: str
    team: str
    key_id: str
    key: str
    model: str
    upstream: str
    tags: dict[str, str]
    sums: dict[str, int]

    def value_of(self, name: str) -> str:
        return self.tags.get(name, "")

    def member_of(self, name: str, zone: str) -> str:
        """What it belongs to of a group of reports: ids of teams and keys, periods of ``zone`` as they are written."""
        if name.startswith("tag."):
            return self.value_of(name.removeprefix("tag."))
        if name in {"team", "key"}:
            return self.team_id if name == "team" else self.key_id
        if name not in PERIODS:
            return getattr(self, name)
        local = datetime.fromtimestamp(self.quarter_ms / 1000, zone_of(zone))
        if name == "hour":
            # Its own offset, and not that of the hour's first minute: clocks may change by half an hour in it.
            return local.replace(minute=0, tzinfo=timezone(local.utcoffset())).isoformat(timespec="minutes")
        if name == "week":
            return (local.date() - timedelta(days=local.weekday())).isoformat()
        return local.date().isoformat() if name == "day" else f"{local:%Y-%m}"


@dataclass
class _Request:
    """A record as it is written first, and what is known of it later."""

    record: Record
    late: Record | None = None
    facts: list[Fact] = field(default_factory=list)


@dataclass(frozen=True)
class Person:
    team_id: str
    team: str
    key_id: str
    key: str


class Traffic:
    """``requests`` of a year of UTC, ``near_edges`` of them (a share) where a day, a month or an offset changes."""

    def __init__(
        self,
        people: Iterable[Person],
        *,
        seed: int = 1,
        requests: int = 2000,
        year: int = 2026,
        near_edges: float = 0.4,
    ) -> None:
        self._chance = random.Random(seed)
        self._near_edges = near_edges
        self.people = list(people)
        self.start_ms = _ms(datetime(year, 1, 1, tzinfo=UTC))
        self.end_ms = _ms(datetime(year + 1, 1, 1, tzinfo=UTC))
        self._moments = list(_edges(year))
        made = [self._request(number) for number in range(requests)]
        self._requests = sorted(made, key=lambda each: each.record.admitted_at_ms)

    def __repr__(self) -> str:
        return f"Traffic(requests={len(self._requests)})"

    @property
    def facts(self) -> list[Fact]:
        """What it comes to when everything is written, corrected and repriced."""
        return [fact for each in self._requests for fact in each.facts]

    @property
    def fact_of(self) -> dict[str, Fact]:
        """What each request comes to, by its id."""
        return {each.record.request_id: fact for each in self._requests for fact in each.facts}

    def records(self, start_ms: int = 0, end_ms: int = 2**62) -> list[Record]:
        """As they are written first, in the order of their admission."""
        return [each.record for each in self._requests if start_ms <= each.record.admitted_at_ms < end_ms]

    def corrections(self) -> list[Record]:
        """The same requests, of which only an estimate was known, with what they really used."""
        return [each.late for each in self._requests if each.late is not None]

    def sums_by(
        self,
        by: Iterable[str],
        zone: str = "UTC",
        *,
        start_ms: int = 0,
        end_ms: int = 2**62,
        lets: Callable[[Fact], bool] = lambda _fact: True,
    ) -> dict[tuple[str, ...], tuple[int, ...]]:
        """What a report has to tell: ``SUMS`` by the members of its groups, without groups of nothing at all."""
        found: dict[tuple[str, ...], dict[str, int]] = {}
        for fact in self.facts:
            if start_ms <= fact.quarter_ms < end_ms and lets(fact):
                group = tuple(fact.member_of(name, zone) for name in by)
                kept = found.setdefault(group, dict.fromkeys(SUMS, 0))
                for name, value in fact.sums.items():
                    kept[name] += value
        return {group: tuple(sums.values()) for group, sums in found.items() if any(sums.values())}

    def _request(self, number: int) -> _Request:
        chance = self._chance
        at_ms = self._moment()
        request_id = f"req_{number:07}_{chance.randrange(16**8):08x}"
        person = chance.choices(self.people, [1 / (rank + 1) for rank in range(len(self.people))])[0]
        model, upstream = chance.choice(MODELS), chance.choices(UPSTREAMS, (4, 1))[0]
        kind = chance.choices(
            (
                "charge",
                "fallback",
                "nameless",
                "new",
                "estimate",
                "late",
                "late_nameless",
                "new_estimate",
                "hit",
                "failed",
            ),
            (50, 6, 4, 5, 5, 8, 2, 3, 10, 7),
        )[0]
        if kind == "nameless":
            model = NAMELESS_MODEL
        if kind in {"new", "new_estimate"}:
            model = NEW_MODEL
        return getattr(self, f"_{kind}")(_Draft(chance, request_id, at_ms, person, model, upstream, self._tags(person)))

    def _moment(self) -> int:
        chance = self._chance
        if chance.random() < self._near_edges:
            near = chance.choice(self._moments) + int(chance.gauss(0, 3 * 3_600_000))
            return min(max(near, self.start_ms), self.end_ms - 1)
        return chance.randrange(self.start_ms, self.end_ms)

    def _tags(self, person: Person) -> dict[str, str]:
        chance = self._chance
        tags: dict[str, str] = {}
        if chance.random() < 0.7:
            tags["project"] = f"{person.team.split()[0]}-{chance.choice('abc')}"
        if chance.random() < 0.5:
            tags["env"] = chance.choice(("prod", "prod", "staging", "dev eu"))
        if chance.random() < 0.1:
            tags["run.id"] = f"{chance.randrange(10**6)}"
        return tags

    def _charge(self, draft: _Draft) -> _Request:
        entry = draft.entry("charge")
        return _Request(draft.record(entry), facts=[draft.fact(entry.usage, entry.cost_nanousd)])

    def _failed(self, draft: _Draft) -> _Request:
        entry = draft.entry("void", usage=Usage(), cost_nanousd=0)
        outcome = self._chance.choice(("failed", "interrupted", "cancelled"))
        record = draft.record(entry, outcome=outcome, status=502)
        return _Request(record, facts=[draft.fact(Usage(), 0, failed=int(outcome != "cancelled"))])

    def _fallback(self, draft: _Draft) -> _Request:
        other = "azure" if draft.upstream == "openai" else "openai"
        void = draft.entry("void", usage=Usage(), cost_nanousd=0, upstream=other)
        entry = draft.entry("charge", number=2)
        fact = draft.fact(entry.usage, entry.cost_nanousd)
        return _Request(draft.record(void, entry, attempts=2), facts=[fact])

    def _nameless(self, draft: _Draft) -> _Request:
        entry = draft.entry("charge", cost_nanousd=None)
        return _Request(draft.record(entry), facts=[draft.fact(entry.usage, None)])

    def _new(self, draft: _Draft) -> _Request:
        entry = draft.entry("charge", cost_nanousd=None)
        return _Request(draft.record(entry), facts=[draft.fact(entry.usage, price_of_new(entry.usage))])

    def _new_estimate(self, draft: _Draft) -> _Request:
        entry = draft.entry("estimate", cost_nanousd=None)
        cost = price_of_new(entry.usage)
        fact = draft.fact(entry.usage, cost, estimated=1, estimated_nanousd=cost)
        return _Request(draft.record(entry, outcome="disconnected"), facts=[fact])

    def _estimate(self, draft: _Draft) -> _Request:
        entry = draft.entry("estimate")
        cost = entry.cost_nanousd
        fact = draft.fact(entry.usage, cost, estimated=1, estimated_nanousd=cost)
        return _Request(draft.record(entry, outcome="disconnected"), facts=[fact])

    def _late(self, draft: _Draft) -> _Request:
        first, exact = draft.entry("estimate"), draft.entry("charge")
        return _Request(draft.record(first), draft.record(exact), [draft.fact(exact.usage, exact.cost_nanousd)])

    def _late_nameless(self, draft: _Draft) -> _Request:
        """The money of the estimate stays, and no price is known."""
        first, exact = draft.entry("estimate"), draft.entry("charge", cost_nanousd=None)
        fact = draft.fact(exact.usage, first.cost_nanousd, unpriced=1)
        return _Request(draft.record(first), draft.record(exact), [fact])

    def _hit(self, draft: _Draft) -> _Request:
        entry = draft.entry("charge", number=0, cost_nanousd=0, price_source="cache")
        saved = self._chance.randrange(10**6)
        record = draft.record(entry, cache="hit", attempts=0, saved_nanousd=saved)
        return _Request(record, facts=[draft.fact(entry.usage, 0, saved_nanousd=saved)])


@dataclass
class _Draft:
    chance: random.Random
    request_id: str
    at_ms: int
    person: Person
    model: str
    upstream: str
    tags: dict[str, str]

    def entry(self, kind: str, *, number: int = 1, **changes: Any) -> Entry:
        chance = self.chance
        input_tokens, output_tokens = chance.randrange(1, 20_000), chance.randrange(1, 4000)
        given: dict[str, Any] = {
            "attempt_id": attempt_id_of(self.request_id, number),
            "kind": kind,
            "upstream": self.upstream,
            "model": self.model,
            "usage": Usage(
                input_tokens=input_tokens,
                cached_tokens=chance.randrange(input_tokens),
                cache_write_tokens=chance.randrange(50),
                output_tokens=output_tokens,
                reasoning_tokens=chance.randrange(output_tokens),
            ),
            "cost_nanousd": chance.randrange(1, 10**8),
            "price_source": "list",
            "price_version": "1",
        }
        return Entry(**{**given, **changes})

    def record(self, *entries: Entry, **changes: Any) -> Record:
        took_ms = int(self.chance.lognormvariate(6.5, 0.8)) + 1
        given: dict[str, Any] = {
            "request_id": self.request_id,
            "admitted_at_ms": self.at_ms,
            "quarter_ms": quarter_of(self.at_ms),
            "first_byte_at_ms": self.at_ms + took_ms // 3,
            "ended_at_ms": self.at_ms + took_ms,
            "team_id": self.person.team_id,
            "key_id": self.person.key_id,
            "secret_id": self.person.key_id,
            "endpoint": "responses",
            "stream": True,
            "model_requested": self.model,
            "upstream": self.upstream,
            "model": self.model,
            "outcome": "completed",
            "entries": entries,
            "status": 200,
            "cache": "miss",
            "tags": self.tags,
            "own_us": int(self.chance.lognormvariate(6.5, 0.4)),
        }
        return Record(**{**given, **changes})

    def fact(self, usage: Usage, cost_nanousd: int | None, **more: int | None) -> Fact:
        sums = dict.fromkeys(SUMS, 0)
        sums["requests"] = 1
        sums["unpriced"] = int(cost_nanousd is None)
        sums["cost_nanousd"] = cost_nanousd or 0
        for name in ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"):
            sums[name] = getattr(usage, name)
        sums.update({name: value or 0 for name, value in more.items()})
        person = self.person
        return Fact(
            quarter_ms=quarter_of(self.at_ms),
            team_id=person.team_id,
            team=person.team,
            key_id=person.key_id,
            key=person.key,
            model=self.model,
            upstream=self.upstream,
            tags=self.tags,
            sums=sums,
        )


async def make_people(database: Database, *, keys_per_team: int = 3) -> list[Person]:
    """Teams with keys; each team has one that is named as those of the others."""
    people = []
    async with database.transaction() as connection:
        for team_number, name in enumerate(TEAMS):
            team = await create_team(connection, name=name, now_ms=1)
            for number in range(keys_per_team):
                secret_id = f"k{team_number:04}{number:05}"
                key = await create_key(
                    connection,
                    team_id=team.id,
                    name=f"{name} {number}" if number else "web",
                    secret_id=secret_id,
                    digest=secret_id.encode(),
                    now_ms=1,
                )
                people.append(Person(team.id, name, key.id, key.name))
    return people


async def write(database: Database, records: Iterable[Record]) -> None:
    """Through the batch writer, a batch at a time."""
    for batch in batched(records):
        await write_batch(database, batch)


async def reprice_new(database: Database, traffic: Traffic) -> None:
    """Gives the new model its price."""
    await reprice(
        database, _price_of, traffic.start_ms, traffic.end_ms, traffic.end_ms, matches=lambda model: model == NEW_MODEL
    )


async def write_year(database: Database, *, seed: int = 1, requests: int = 2000, year: int = 2026) -> Traffic:
    """A year, with all that became known of it later."""
    traffic = Traffic(await make_people(database), seed=seed, requests=requests, year=year)
    await write(database, traffic.records())
    await write(database, traffic.corrections())
    await reprice_new(database, traffic)
    return traffic


def zone_of(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)


def price_of_new(usage: Usage) -> int:
    return REPRICED_NANOUSD * usage.tokens


def _price_of(asked: Unpriced) -> Found | None:
    return Found(price_of_new(asked.usage), "override", "1") if asked.model == NEW_MODEL else None


def batched(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        if len(batch) == BATCH_RECORDS:
            yield batch
            batch = []
    if batch:
        yield batch


def _edges(year: int) -> Iterator[int]:
    """Where a day's or a month's number, or a clock, changes: in each zone."""
    for name in ZONES:
        zone = ZoneInfo(name)
        day = datetime(year, 1, 1, tzinfo=UTC)
        while day.year == year:
            if day.astimezone(zone).utcoffset() != (day + timedelta(days=1)).astimezone(zone).utcoffset():
                yield _ms(day + timedelta(hours=12))
            day += timedelta(days=1)
        for month in range(1, 13):
            yield _ms(datetime(year, month, 1, tzinfo=zone))


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
