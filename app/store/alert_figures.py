"""The figures that alerts are decided by: small questions, asked several times a minute.

Each goes by an index, or over the few quarters of an hour that matter, so that ten million records cost no more
than ten thousand.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, and_, case, cast, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.errors import InsufficientQuota
from app.core.identity import LimitRule
from app.store.flatten import FAILED
from app.store.now import NowMs
from app.store.rows import rule_from
from app.store.tables import INT, budgets, entries, keys, limits, records, refusals, rollups, secrets, teams

BUDGETS_AT_ONCE = 500
ROWS_AT_A_TIME = 200
"""Between so many, requests go on."""
REFUSALS_MAX = 10_000
BUDGET = "budget_usd"
VALUES_MAX = 1000
"""Values of a tag that are looked at; those that spent most."""


class MoneyLimit(msgspec.Struct, frozen=True):
    """A rule about money with whom it binds, by id and name."""

    rule: LimitRule
    warn_percents: tuple[int, ...]
    team_id: str
    team_name: str
    key_id: str | None
    key_name: str | None


class Owner(msgspec.Struct, frozen=True):
    """A team, or a key of it, by id and name."""

    team_id: str
    team_name: str
    key_id: str | None = None
    key_name: str | None = None


class RefusingBudget(NamedTuple):
    """A budget as refusals name it: ``scope`` and ``scope_id`` say what it binds, ``limit`` is ``limit_name``'s,
    ``maximum`` what it was then.
    """

    team_id: str
    scope: str
    scope_id: str
    limit: str
    maximum: int


class Told(msgspec.Struct, frozen=True):
    """Of the decision of a refusal what says which limit it was."""

    limit: str = ""
    scope: str = ""
    scope_id: str = ""
    maximum: int = 0


_told = msgspec.json.Decoder(Told).decode


class Spender(NamedTuple):
    """What a key has spent, in nano-dollars."""

    team_id: str
    team_name: str
    key_id: str
    key_name: str
    nanousd: int


class UnpricedSum(NamedTuple):
    """Attempts of a team without a price."""

    team_id: str
    model: str
    upstream: str
    unpriced: int


class UpstreamSum(NamedTuple):
    upstream: str
    requests: int
    failed: int


class KeyEnd(NamedTuple):
    """When a key stops working: on its own day, or with the last of its secrets, whichever comes first."""

    team_id: str
    team_name: str
    key_id: str
    key_name: str
    key_ends_at_ms: int | None
    secrets_end_at_ms: int | None


async def money_limits(connection: AsyncConnection) -> list[MoneyLimit]:
    """Every rule about money, of teams and of keys that are not revoked."""
    names = teams.c.name.label("team_name"), keys.c.name.label("key_name")
    joined = limits.join(teams, teams.c.id == limits.c.team_id).outerjoin(keys, keys.c.id == limits.c.key_id)
    asked = select(limits, *names).select_from(joined)
    asked = asked.where(limits.c.kind == "money", keys.c.revoked_at_ms.is_(None)).order_by(limits.c.id)
    found: list[MoneyLimit] = []
    for row in (await connection.execute(asked)).mappings():
        if len(found) % ROWS_AT_A_TIME == 0:
            await asyncio.sleep(0)
        percents = msgspec.json.decode(row["warn_percents"], type=tuple[int, ...])
        owner = row["team_id"], row["team_name"], row["key_id"], row["key_name"]
        found.append(MoneyLimit(rule_from(row), percents, *owner))
    return found


async def spent_of(connection: AsyncConnection, windows: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """What is settled in each of ``windows`` (budget id and first millisecond), of those that have a counter."""
    found: dict[tuple[str, int], int] = {}
    place = tuple_(budgets.c.budget_id, budgets.c.start_ms)
    for part in _parts(windows, BUDGETS_AT_ONCE):
        asked = select(budgets.c.budget_id, budgets.c.start_ms, budgets.c.spent_nanousd).where(place.in_(part))
        found |= {(budget_id, start_ms): spent for budget_id, start_ms, spent in await connection.execute(asked)}
    return found


async def spent_of_each(connection: AsyncConnection, rule_id: str, start_ms: int) -> dict[str, int]:
    """What is settled of a rule that counts each value of a tag on its own, or each owner: by that value."""
    named = budgets.c.budget_id.startswith(f"{rule_id}:", autoescape=True)
    asked = select(budgets.c.budget_id, budgets.c.spent_nanousd).where(budgets.c.start_ms == start_ms, named)
    most = asked.order_by(budgets.c.spent_nanousd.desc()).limit(VALUES_MAX)
    return {name.removeprefix(f"{rule_id}:"): spent for name, spent in await connection.execute(most)}


async def owners_of(connection: AsyncConnection, owner: str, owner_ids: Sequence[str]) -> dict[str, Owner]:
    """The teams (``owner`` "team") or keys that are not revoked, of these ids."""
    found: dict[str, Owner] = {}
    for part in _parts(owner_ids, BUDGETS_AT_ONCE):
        if owner == "team":
            asked = select(teams.c.id, teams.c.name).where(teams.c.id.in_(part))
            found |= {row.id: Owner(row.id, row.name) for row in await connection.execute(asked)}
            continue
        columns = keys.c.id, keys.c.name, keys.c.team_id, teams.c.name.label("team_name")
        joined = keys.join(teams, teams.c.id == keys.c.team_id)
        of_keys = select(*columns).select_from(joined).where(keys.c.id.in_(part), keys.c.revoked_at_ms.is_(None))
        for row in await connection.execute(of_keys):
            found[row.id] = Owner(row.team_id, row.team_name, row.id, row.name)
    return found


async def refusals_of_budgets(connection: AsyncConnection, since_ms: int) -> Counter[RefusingBudget]:
    """How many requests each budget has refused since then because of what is spent, not of what is held."""
    refused = refusals.c.at_ms >= since_ms, refusals.c.code == InsufficientQuota.code
    asked = select(refusals.c.team_id, refusals.c.decision).where(*refused)
    latest = asked.order_by(refusals.c.at_ms.desc()).limit(REFUSALS_MAX)
    found: Counter[RefusingBudget] = Counter()
    for team_id, text in await connection.execute(latest):
        told = _told(text)
        if told.limit.startswith(BUDGET):
            found[RefusingBudget(team_id, told.scope, told.scope_id, told.limit, told.maximum)] += 1
    return found


async def recent_spenders(
    connection: AsyncConnection, from_quarter_ms: int, nanousd_min: int, also: Sequence[str]
) -> list[Spender]:
    """The keys that spent so much on requests since that quarter of an hour began, and those of ``also``."""
    spent = _sum(rollups.c.cost_nanousd)
    sums = (
        select(rollups.c.key_id, spent.label("nanousd"))
        .where(rollups.c.quarter_ms >= from_quarter_ms)
        .group_by(rollups.c.key_id)
        .having(or_(spent >= nanousd_min, rollups.c.key_id.in_(also)))
        .subquery()
    )
    columns = keys.c.team_id, teams.c.name.label("team_name"), keys.c.id, keys.c.name, sums.c.nanousd
    joined = sums.join(keys, keys.c.id == sums.c.key_id).join(teams, teams.c.id == keys.c.team_id)
    return [Spender(*row) for row in await connection.execute(select(*columns).select_from(joined))]


async def spent_since(connection: AsyncConnection, key_id: str, since_ms: int, admitted_from_ms: int) -> int:
    """What a key's calls have cost that ended since then, in nano-dollars; of requests admitted from then on."""
    joined = records.join(entries, entries.c.request_id == records.c.request_id)
    asked = select(func.coalesce(_sum(entries.c.cost_nanousd), 0)).select_from(joined)
    of_key = records.c.key_id == key_id, records.c.admitted_at_ms >= admitted_from_ms
    found: int = (await connection.execute(asked.where(*of_key, entries.c.created_at_ms > since_ms))).scalar_one()
    return found


async def busiest_quarter(connection: AsyncConnection, key_id: str, from_ms: int, to_ms: int) -> int:
    """The most that a key spent in one quarter of an hour of a span, in nano-dollars."""
    spent = _sum(rollups.c.cost_nanousd).label("nanousd")
    of_key = rollups.c.key_id == key_id, rollups.c.quarter_ms >= from_ms, rollups.c.quarter_ms < to_ms
    sums = select(spent).where(*of_key).group_by(rollups.c.quarter_ms).subquery()
    found: int = (await connection.execute(select(func.coalesce(func.max(sums.c.nanousd), 0)))).scalar_one()
    return found


async def unpriced_since(connection: AsyncConnection, from_quarter_ms: int) -> list[UnpricedSum]:
    unpriced = _sum(rollups.c.unpriced)
    group = rollups.c.team_id, rollups.c.model, rollups.c.upstream
    asked = select(*group, unpriced).where(rollups.c.quarter_ms >= from_quarter_ms, rollups.c.unpriced > 0)
    return [UnpricedSum(*row) for row in await connection.execute(asked.group_by(*group).order_by(*group))]


async def failing_upstreams(connection: AsyncConnection, from_quarter_ms: int, requests_min: int) -> list[UpstreamSum]:
    """Upstreams with so many requests, and how many of them failed for whatever reason."""
    requests, failed = (_sum(rollups.c[name]) for name in ("requests", "failed"))
    asked = select(rollups.c.upstream, requests, failed).where(rollups.c.quarter_ms >= from_quarter_ms)
    grouped = asked.group_by(rollups.c.upstream).having(requests >= requests_min)
    return [UpstreamSum(*row) for row in await connection.execute(grouped)]


async def failures_of(connection: AsyncConnection, upstream: str, since_ms: int) -> UpstreamSum:
    """Requests to an upstream since then, and those that failed not by their own fault: no answer, or 500 and above."""
    theirs = and_(records.c.outcome.in_(sorted(FAILED)), or_(records.c.status.is_(None), records.c.status >= 500))
    failed = func.coalesce(_sum(case((theirs, 1), else_=0)), 0)
    asked = select(func.count(type_=INT), failed).where(
        records.c.admitted_at_ms >= since_ms, records.c.upstream == upstream
    )
    requests, number = (await connection.execute(asked)).one()
    return UpstreamSum(upstream, requests, number)


async def keys_ending(connection: AsyncConnection, now_ms: int, until_ms: int) -> list[KeyEnd]:
    """The living keys that stop working up to ``until_ms``."""
    living = and_(
        secrets.c.revoked_at_ms.is_(None), or_(secrets.c.expires_at_ms.is_(None), secrets.c.expires_at_ms > now_ms)
    )
    last = func.max(secrets.c.expires_at_ms, type_=INT).label("last_ms")
    ends = (
        select(secrets.c.key_id, last)
        .where(living)
        .group_by(secrets.c.key_id)
        .having(func.count() == func.count(secrets.c.expires_at_ms))
        .subquery()
    )
    soon: ColumnElement[bool] = or_(
        and_(keys.c.expires_at_ms > now_ms, keys.c.expires_at_ms <= until_ms),
        and_(or_(keys.c.expires_at_ms.is_(None), keys.c.expires_at_ms > now_ms), ends.c.last_ms <= until_ms),
    )
    columns = keys.c.team_id, teams.c.name.label("team_name"), keys.c.id, keys.c.name, keys.c.expires_at_ms
    joined = keys.join(teams, teams.c.id == keys.c.team_id).outerjoin(ends, ends.c.key_id == keys.c.id)
    asked = select(*columns, ends.c.last_ms).select_from(joined).where(keys.c.revoked_at_ms.is_(None), soon)
    return [KeyEnd(*row) for row in await connection.execute(asked.order_by(keys.c.id))]


async def database_now(connection: AsyncConnection) -> int:
    """The time in milliseconds, as everybody who shares the database has it."""
    found: int = (await connection.execute(select(NowMs()))).scalar_one()
    return found


def _sum(column: ColumnElement[int]) -> ColumnElement[int]:
    """A sum of 64 bits: PostgreSQL's own has a type that comes back as a decimal."""
    return cast(func.sum(column), INT)


def _parts(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(values), size):
        yield values[begin : begin + size]
