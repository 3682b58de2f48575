"""Moves folds on: what they take in, which there are, and what is left of those that went.

Each step is one short transaction, and may be taken by any process: what a fold has is in its row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import BindParameter, and_, bindparam, delete, func, insert, select, text, update

from app.store.fold_statements import new_values, taking, taking_tagged
from app.store.folds import Fold, month_of_utc
from app.store.meta import PRUNED_FACT, find_fact
from app.store.periods import DAY_MS, HOUR_MS, first_day_of_month, offset_ms_of, offset_parts, start_of_day
from app.store.steps import run_on
from app.store.tables import SUMS_KEY, folds, rollups, sums
from app.store.tag_values import register

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.store.database import Database

ALWAYS = (("day", "UTC"), ("hour", "0"))
"""Periods and zones of the folds that every ledger has."""
ZONES_MAX = 8
"""Time zones with sums of their own, beside UTC."""
MINUTE_MS = 60_000
LOCK_TIMEOUT = "5s"
PIECE_ROWS = 5000
"""Rows of rollups in one step: writers wait for its end."""
USED_INTERVAL_MS = HOUR_MS
"""How often it is noted that a zone is used."""
DROPPED_ROWS_AT_ONCE = 2000


class Step(msgspec.Struct, frozen=True):
    """How far a fold is, and whether there is more for it."""

    until_ms: int
    more: bool


async def list_folds(connection: AsyncConnection) -> list[Fold]:
    asked = select(folds.c.id, folds.c.period, folds.c.zone, folds.c.until_ms, folds.c.tags_from_ms)
    return [Fold(*row) for row in await connection.execute(asked.order_by(folds.c.id))]


async def keep_fold(database: Database, period: str, zone: str, now_ms: int) -> bool:
    """Sees to it that there is a fold for ``zone``, and notes that it is used. Of more than eight zones beside UTC
    the one that was used the longest ago goes. Returns whether the fold is new. Raises DatabaseUnavailable.
    """
    this = and_(folds.c.period == period, folds.c.zone == zone)
    async with database.read() as connection:
        used_at_ms = (await connection.execute(select(folds.c.used_at_ms).where(this))).scalar()
    if used_at_ms is not None and now_ms - used_at_ms < USED_INTERVAL_MS:
        return False
    async with database.transaction() as connection:
        await _hold_all(connection)
        noted = await connection.execute(update(folds).where(this).values(used_at_ms=now_ms))
        if noted.rowcount:
            return False
        # A number that was never given: sums of a fold that went may still be there.
        last = [(await connection.execute(select(func.max(column)))).scalar() for column in (folds.c.id, sums.c.fold)]
        await connection.execute(
            insert(folds).values(
                id=max(each or 0 for each in last) + 1,
                period=period,
                zone=zone,
                until_ms=0,
                tags_from_ms=int(await find_fact(connection, PRUNED_FACT) or 0),
                used_at_ms=now_ms,
            )
        )
        zones = select(folds.c.id).where(folds.c.period == "day", folds.c.zone != "UTC")
        too_many = zones.order_by(folds.c.used_at_ms.desc(), folds.c.id.desc()).offset(ZONES_MAX).limit(ZONES_MAX)
        ids = list((await connection.execute(too_many)).scalars())
        await connection.execute(delete(folds).where(folds.c.id.in_(ids)))
        return True


async def _hold_all(connection: AsyncConnection) -> None:
    """Until the transaction ends no batch is between its look at the folds and its commit.

    On PostgreSQL it is the table that is locked: for a row that batches share, one after the other, it might never
    be the turn of whoever wants it alone.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT set_config('lock_timeout', :limit, true)"), {"limit": LOCK_TIMEOUT})
        await connection.execute(text("LOCK TABLE folds IN EXCLUSIVE MODE"))


async def drop_left_over(database: Database) -> int:
    """Removes some sums of folds that are gone; how many. Raises DatabaseUnavailable."""
    async with database.read() as connection:
        known = {fold.id for fold in await list_folds(connection)}
        # Few numbers among many rows: each is found by the index.
        number = (await connection.execute(select(func.min(sums.c.fold)))).scalar()
        while number is not None and number in known:
            number = (await connection.execute(select(func.min(sums.c.fold)).where(sums.c.fold > number))).scalar()
    if number is None:
        return 0
    key = [sums.c[name] for name in SUMS_KEY]
    named: list[BindParameter[Any]] = [bindparam(f"of_{name}") for name in SUMS_KEY]
    async with database.transaction() as connection:
        if (await connection.execute(select(folds.c.id).where(folds.c.id == number))).first() is not None:
            return 0
        some = select(*key).where(sums.c.fold == number).limit(DROPPED_ROWS_AT_ONCE)
        rows = [tuple(row) for row in await connection.execute(some)]
        gone = delete(sums).where(*[column == each for column, each in zip(key, named, strict=True)])
        await connection.execute(gone, [dict(zip([each.key for each in named], row, strict=True)) for row in rows])
    return len(rows)


async def fold_on(database: Database, fold_id: int, end_ms: int, *, piece_rows: int = PIECE_ROWS) -> Step:
    """Takes into a fold the next quarters that hold something, up to ``end_ms`` and some ``piece_rows`` of them,
    inside of one month. Raises DatabaseUnavailable.
    """
    async with database.transaction() as connection:
        this = folds.c.id == fold_id
        columns = (folds.c.id, folds.c.period, folds.c.zone, folds.c.until_ms, folds.c.tags_from_ms)
        await _hold_all(connection)
        row = (await connection.execute(select(*columns).where(this))).first()
        if row is None:
            # It went.
            return Step(end_ms, more=False)
        fold = Fold(*row)
        if fold.until_ms >= end_ms:
            return Step(fold.until_ms, more=False)
        next_quarter = select(func.min(rollups.c.quarter_ms)).where(
            rollups.c.quarter_ms >= fold.until_ms, rollups.c.quarter_ms < end_ms
        )
        start_ms = (await connection.execute(next_quarter)).scalar()
        until_ms = end_ms
        if start_ms is not None:
            pruned_ms = int(await find_fact(connection, PRUNED_FACT) or 0)
            if start_ms < pruned_ms and fold.tags_from_ms < pruned_ms:
                # It came too late for the records.
                fold = msgspec.structs.replace(fold, tags_from_ms=pruned_ms)
                await connection.execute(update(folds).where(this).values(tags_from_ms=pruned_ms))
            enough = select(rollups.c.quarter_ms).where(rollups.c.quarter_ms > start_ms, rollups.c.quarter_ms < end_ms)
            enough = enough.order_by(rollups.c.quarter_ms).offset(piece_rows).limit(1)
            enough_ms = (await connection.execute(enough)).scalar() or end_ms
            until_ms = min(end_ms, enough_ms, end_of_piece(fold, start_ms))
            await _take(connection, fold, start_ms, until_ms)
        await connection.execute(update(folds).where(this).values(until_ms=until_ms))
        return Step(until_ms, more=until_ms < end_ms)


async def fold_all(database: Database, end_ms: int) -> None:
    """Takes into every fold all there is of before ``end_ms`` (a whole quarter of an hour)."""
    async with database.read() as connection:
        found = await list_folds(connection)
    for fold in found:
        while (await fold_on(database, fold.id, end_ms)).more:
            pass


def piece_parameters(fold: Fold, start_ms: int, end_ms: int) -> dict[str, int]:
    """What the statements for a piece are given (``fold_statements.py``)."""
    given = {"fold": fold.id, "start_ms": start_ms, "end_ms": end_ms, "utc_month": month_of_utc(start_ms)}
    if fold.period == "hour":
        return given | {"moved_ms": -int(fold.zone) * MINUTE_MS, "length_ms": HOUR_MS}
    moved_ms = offset_ms_of(start_ms, fold.time_zone)
    return given | {"moved_ms": moved_ms, "length_ms": DAY_MS, "month": fold.start_of("month", start_ms)}


def end_of_piece(fold: Fold, start_ms: int) -> int:
    """Pieces lie in one local month at one offset, and in one month of UTC, for which the values of tags are kept."""
    month_end_ms = first_day_of_month(month_of_utc(start_ms) + 1) * DAY_MS
    if fold.period == "hour":
        return month_end_ms
    zone = fold.time_zone
    local_end_ms = start_of_day(first_day_of_month(fold.start_of("month", start_ms) + 1), zone)
    if local_end_ms > start_ms:
        month_end_ms = min(month_end_ms, local_end_ms)
    return next(offset_parts(start_ms, month_end_ms, zone))[1]


async def _take(connection: AsyncConnection, fold: Fold, start_ms: int, end_ms: int) -> None:
    dialect = connection.dialect.name
    given = piece_parameters(fold, start_ms, end_ms)
    for level in fold.levels:
        await connection.execute(taking(dialect, level), given)
    if end_ms <= fold.tags_from_ms or not any(level.by_tag for level in fold.levels):
        return
    given["start_ms"] = max(start_ms, fold.tags_from_ms)
    found = await connection.execute(new_values(dialect), given)
    new = {(given["utc_month"], row[0], row[1]) for row in found}
    if new:
        await run_on(connection, register(new))
    for level in fold.levels:
        if level.by_tag:
            await connection.execute(taking_tagged(dialect, level), given)
