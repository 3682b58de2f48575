"""Moves folds on: what they take in, which there are, and what is left of those that went.

Each step is one short transaction, and may be taken by any process: what a fold has is in its row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.core.clock import QUARTER_MS, quarter_of
from app.store.bill import added, counted
from app.store.folds import ALL, Fold, Level, month_of_utc
from app.store.meta import find_fact
from app.store.periods import HOUR_MS, first_day_of_month, start_of_day
from app.store.proof import PRUNED_FACT
from app.store.steps import run_on
from app.store.tables import INT, ROLLUP_KEY, ROLLUP_SUMS, SUMS_KEY, folds, records, rollups, sums, tag_values
from app.store.tag_values import NAME_ROW, OTHER, register

if TYPE_CHECKING:
    from datetime import tzinfo

    from sqlalchemy import FromClause, Insert, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.store.database import Database

ZONES_MAX = 8
"""Time zones with sums of their own, beside UTC."""
DAY_MS = 24 * HOUR_MS
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
        if database.dialect == "postgresql":
            # Batches hold the rows there are: whoever cannot see the new one has to be done before it is there.
            await connection.execute(text("LOCK TABLE folds IN EXCLUSIVE MODE"))
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


async def fold_on(database: Database, fold_id: int, end_ms: int, *, piece_ms: int = DAY_MS) -> Step:
    """Takes into a fold the next quarters that hold something, up to ``end_ms`` and at most ``piece_ms`` of them,
    inside of one local day. Raises DatabaseUnavailable.
    """
    async with database.transaction() as connection:
        this = folds.c.id == fold_id
        columns = (folds.c.id, folds.c.period, folds.c.zone, folds.c.until_ms, folds.c.tags_from_ms)
        locked = select(*columns).where(this).with_for_update(skip_locked=True)
        row = (await connection.execute(locked)).first()
        if row is None:
            # It went, or somebody else moves it on.
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
            until_ms = min(end_ms, start_ms + piece_ms, _end_of_piece(fold, start_ms))
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


def _end_of_piece(fold: Fold, start_ms: int) -> int:
    """Pieces lie in one local day and in one month of UTC, for which the values of tags are kept."""
    month_end_ms = first_day_of_month(month_of_utc(start_ms) + 1) * DAY_MS
    if fold.period == "hour":
        return month_end_ms
    zone = fold.time_zone
    return min(month_end_ms, _next_day(fold.start_of("day", start_ms), start_ms, zone))


def _next_day(day: int, start_ms: int, zone: tzinfo) -> int:
    """Where the day after begins; a date that a zone has left out has no beginning of its own."""
    at_ms = start_of_day(day + 1, zone)
    return at_ms if at_ms > start_ms else quarter_of(start_ms) + QUARTER_MS


async def _take(connection: AsyncConnection, fold: Fold, start_ms: int, end_ms: int) -> None:
    span = and_(rollups.c.quarter_ms >= start_ms, rollups.c.quarter_ms < end_ms)
    for level in fold.levels:
        start: ColumnElement[int]
        if level.period == "hour":
            moved = rollups.c.quarter_ms - literal(int(fold.zone) * 60_000, INT, literal_execute=True)
            length = literal(HOUR_MS, INT, literal_execute=True)
            start = cast((moved - moved % length) / length, INT)
        else:
            start = literal(fold.start_of(level.period, start_ms), INT)
        nothing = literal("", Text())
        grouped = _grouped(fold, level, rollups, start, nothing, nothing).where(span)
        if level.period == "hour":
            grouped = grouped.group_by(start)
        await connection.execute(_adding(connection, grouped))
    if end_ms > fold.tags_from_ms and any(level.by_tag for level in fold.levels):
        await _take_tagged(connection, fold, max(start_ms, fold.tags_from_ms), end_ms)


async def _take_tagged(connection: AsyncConnection, fold: Fold, start_ms: int, end_ms: int) -> None:
    month = month_of_utc(start_ms)
    pair, name, value = _tags_in(connection, records.c.tags)
    known = exists(
        select(literal_column("1"))
        .select_from(tag_values)
        .where(tag_values.c.month == month, tag_values.c.name == name, tag_values.c.value == value)
    )
    found = await connection.execute(
        select(name, value)
        .distinct()
        .select_from(records.join(pair, literal_column("1") == literal_column("1")))
        .where(
            records.c.admitted_at_ms >= start_ms,
            records.c.admitted_at_ms < end_ms,
            records.c.tags != "{}",
            ~known,
        )
    )
    new = {(month, row[0], row[1]) for row in found}
    if new:
        await run_on(connection, register(new))
    rows = tagged(connection, start_ms, end_ms, month)
    for level in fold.levels:
        if level.by_tag:
            start = literal(fold.start_of(level.period, start_ms), INT)
            grouped = _grouped(fold, level, rows, start, rows.c.name, rows.c.value)
            # SQLite would take ON CONFLICT for the condition of a join.
            await connection.execute(_adding(connection, grouped.where(literal_column("1") == literal_column("1"))))


def tagged(connection: AsyncConnection, start_ms: int, end_ms: int, month: int) -> FromClause:
    """The sums of requests with tags in a span of one month of UTC, by all that sums are kept by and by each tag's
    name and value; values without sums of their own as ``_other``.
    """
    bill = counted((start_ms, end_ms), tags="some")
    pair, name, value = _tags_in(connection, bill.c.tags)
    names, values = tag_values.alias("names"), tag_values.alias("of_names")
    told = case((values.c.value.is_not(None), values.c.value), else_=literal(OTHER, Text()))
    source = (
        bill.join(pair, literal_column("1") == literal_column("1"))
        .join(names, and_(names.c.month == month, names.c.name == name, names.c.value == NAME_ROW))
        .outerjoin(values, and_(values.c.month == month, values.c.name == name, values.c.value == value))
    )
    places = [bill.c[column] for column in ALL]
    columns = [name.label("name"), told.label("value"), *places]
    return select(*columns, *added(bill)).select_from(source).group_by(name, told, *places).subquery()


def _tags_in(
    connection: AsyncConnection, column: ColumnElement[Any]
) -> tuple[FromClause, ColumnElement[str], ColumnElement[str]]:
    """The tags of a row beside it: the source, the columns of the name and the value."""
    if connection.dialect.name == "sqlite":
        each = func.json_each(column).table_valued("key", "value", name="pair")
        return each, cast(each.c.key, Text), cast(each.c.value, Text)
    pairs = func.jsonb_each_text(cast(column, postgresql.JSONB)).table_valued("key", "value", name="pair")
    lateral = pairs.render_derived().lateral()
    return lateral, cast(lateral.c.key, Text), cast(lateral.c.value, Text)


def _grouped(
    fold: Fold,
    level: Level,
    rows: FromClause,
    start: ColumnElement[int],
    tag: ColumnElement[str],
    value: ColumnElement[str],
) -> Select[Any]:
    """What ``rows`` add to a level, in the order of the columns of ``sums``."""
    places = [rows.c[name] if name in level.columns else literal("", Text()) for name in ALL]
    columns = [literal(fold.id, INT), literal(level.number, INT), tag, start, value, *places]
    named = [column.label(name) for column, name in zip(columns, SUMS_KEY, strict=True)]
    groups = [rows.c[name] for name in level.columns]
    groups += [rows.c[name] for name in ("name", "value") if name in rows.c and name not in ROLLUP_KEY]
    return select(*named, *added(rows)).group_by(*groups)


def _adding(connection: AsyncConnection, grouped: Select[Any]) -> Insert:
    inserting = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    given: Any = inserting(sums).from_select([*SUMS_KEY, *ROLLUP_SUMS], grouped)
    result: Insert = given.on_conflict_do_update(
        index_elements=list(SUMS_KEY), set_={name: sums.c[name] + given.excluded[name] for name in ROLLUP_SUMS}
    )
    return result
