"""The response cache in the ledger: what was cleared, and what it was good for. Its answers are kept elsewhere."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import ColumnElement, and_, case, cast, delete, func, insert, or_, select, true

from app.core.patterns import compile_pattern
from app.store.rows import next_change
from app.store.tables import INT, cache_clears, records, teams

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

CACHE_SECRET_FACT = "cache_secret"  # noqa: S105 - the name of a fact
"""In ``meta``: what the addresses of answers are made with. With another one none of them is found."""

ALL = ""

CLEARS_KEPT_MS = int(timedelta(days=40).total_seconds() * 1000)
"""Longer than an answer may be kept and the call before it may run: what an older clearing took away is gone."""

COUNTED = {"hits": "hit", "joined": "joined", "misses": "miss", "bypassed": "bypass"}
"""Of a row of statistics, by what a record's ``cache`` says."""


class CacheClear(msgspec.Struct, frozen=True):
    """Answers for a team ("": for all) to requests for models that a pattern matches ("": for all) are not used any
    more where their calls began before number ``change`` was known.
    """

    team_id: str
    model: str
    change: int
    cleared_at_ms: int


class CacheStatsRow(msgspec.Struct, frozen=True):
    """What the cache did for the requests of a team for a model, as asked for. ``team`` is its name, or its id where
    it is gone. ``requests`` is the sum of the next four.
    """

    team_id: str
    team: str
    model: str
    requests: int
    hits: int
    joined: int
    misses: int
    bypassed: int
    saved_nanousd: int


async def clear_cache(
    connection: AsyncConnection, *, team_id: str | None, model: str | None, now_ms: int
) -> CacheClear:
    """Takes what was kept for a team (None: for every one) and a pattern of models (None: all) out of the cache, in
    every gateway that follows the change feed. Earlier clearings of a part of it are implied, and go.
    """
    change = await next_change(connection)
    clear = CacheClear(team_id or ALL, model or ALL, change, now_ms)
    extent = {cache_clears.c.team_id: clear.team_id, cache_clears.c.model: clear.model}
    implied = and_(true(), *[column == value for column, value in extent.items() if value != ALL])
    outdated = cache_clears.c.cleared_at_ms < now_ms - CLEARS_KEPT_MS
    await connection.execute(delete(cache_clears).where(or_(implied, outdated)))
    await connection.execute(insert(cache_clears).values(**msgspec.structs.asdict(clear)))
    return clear


async def clears_since(connection: AsyncConnection, change: int) -> list[CacheClear]:
    """Clearings after number ``change``, oldest first."""
    asked = select(cache_clears).where(cache_clears.c.change > change).order_by(cache_clears.c.change)
    return [CacheClear(**row) for row in (await connection.execute(asked)).mappings()]


async def cache_stats(
    connection: AsyncConnection,
    start_ms: int,
    end_ms: int,
    *,
    team_id: str | None = None,
    model: str | None = None,
) -> list[CacheStatsRow]:
    """Requests admitted from ``start_ms`` up to, not including, ``end_ms``, by team and model, in that order;
    optionally of one team, and of the models that a pattern matches. Records that were pruned are not in it.
    """
    wanted = [records.c.admitted_at_ms >= start_ms, records.c.admitted_at_ms < end_ms]
    if team_id is not None:
        wanted.append(records.c.team_id == team_id)
    counted = [_sum(case((records.c.cache == result, 1), else_=0)).label(name) for name, result in COUNTED.items()]
    sums = (
        select(
            records.c.team_id,
            records.c.model_requested.label("model"),
            *counted,
            _sum(records.c.saved_nanousd).label("saved_nanousd"),
        )
        .where(*wanted)
        .group_by(records.c.team_id, records.c.model_requested)
        .subquery()
    )
    asked = select(sums, teams.c.name.label("team")).select_from(sums.outerjoin(teams, teams.c.id == sums.c.team_id))
    pattern = None if model is None else compile_pattern(model)
    rows = [
        CacheStatsRow(**{**row, "team": row["team"] or row["team_id"]}, requests=sum(row[name] for name in COUNTED))
        for row in (await connection.execute(asked)).mappings()
        if pattern is None or pattern.fullmatch(row["model"]) is not None
    ]
    # Sorted here: databases have their own ideas of the order of letters.
    return sorted(rows, key=lambda row: (row.team, row.team_id, row.model))


def _sum(values: ColumnElement[int]) -> ColumnElement[int]:
    return cast(func.sum(values), INT)
