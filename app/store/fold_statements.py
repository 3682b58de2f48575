"""The statements that take a piece of the bill into a fold, made once for each level.

A piece lies in one local month, at one offset from UTC, and in one month of UTC. Parameters: ``fold`` (its id),
``start_ms`` and ``end_ms`` of the piece, ``moved_ms`` and ``length_ms`` (a quarter moved by the first is so many of the
second after 1970), ``month`` (of the zone), ``utc_month``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Text,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.store.bill import added, counted
from app.store.folds import ALL, LEVELS, Level
from app.store.tables import INT, ROLLUP_KEY, ROLLUP_SUMS, SUMS_KEY, records, rollups, sums, tag_values
from app.store.tag_values import NAME_ROW, OTHER

if TYPE_CHECKING:
    from sqlalchemy import FromClause, Insert, Select

Dialect: TypeAlias = Literal["sqlite", "postgresql"]

_TRUE = literal_column("1") == literal_column("1")


@lru_cache(maxsize=len(LEVELS) * 2)
def taking(dialect: str, level: Level) -> Insert:
    """Adds quarters of ``rollups`` to the sums of a level."""
    return _adding(dialect, summed(dialect, level))


@lru_cache(maxsize=len(LEVELS) * 2)
def taking_tagged(dialect: str, level: Level) -> Insert:
    """Adds requests with tags to the sums by tag of a level, from their records."""
    return _adding(dialect, summed_tagged(dialect, level))


def summed(_dialect: str, level: Level) -> Select[Any]:
    """What quarters of ``rollups`` come to at a level, in the order of the columns of ``sums``."""
    places = [rollups.c[name] for name in (*ROLLUP_KEY[1:], *ROLLUP_SUMS)]
    rows = (
        select(_number(rollups.c.quarter_ms).label("number"), *places)
        .where(rollups.c.quarter_ms >= _int("start_ms"), rollups.c.quarter_ms < _int("end_ms"))
        .subquery()
    )
    nothing = literal("", Text())
    return _grouped(level, rows, nothing, nothing, [])


def summed_tagged(dialect: str, level: Level) -> Select[Any]:
    """What requests with tags come to, by each of these; values without sums of their own as ``_other``."""
    bill = counted((_int("start_ms"), _int("end_ms")), tags="some")
    pair, name, value = tags_in(dialect, bill.c.tags)
    names, values = tag_values.alias("names"), tag_values.alias("of_names")
    utc_month = _int("utc_month")
    told = case((values.c.value.is_not(None), values.c.value), else_=literal(OTHER, Text()))
    source = (
        bill.join(pair, _TRUE)
        .join(names, and_(names.c.month == utc_month, names.c.name == name, names.c.value == NAME_ROW))
        .outerjoin(values, and_(values.c.month == utc_month, values.c.name == name, values.c.value == value))
    )
    columns: list[ColumnElement[Any]] = [_number(bill.c.quarter_ms).label("number"), name.label("name")]
    columns += [told.label("value"), *[bill.c[column] for column in (*ALL, *ROLLUP_SUMS)]]
    rows = select(*columns).select_from(source).subquery()
    return _grouped(level, rows, rows.c.name, rows.c.value, [rows.c.name, rows.c.value])


@lru_cache(maxsize=2)
def new_values(dialect: str) -> Select[str, str]:
    """Names and values of tags in a piece that have no sums yet."""
    pair, name, value = tags_in(dialect, records.c.tags)
    there = tag_values.c
    known = exists(
        select(literal_column("1"))
        .select_from(tag_values)
        .where(there.month == _int("utc_month"), there.name == name, there.value == value)
    )
    return (
        select(name, value)
        .distinct()
        .select_from(records.join(pair, _TRUE))
        .where(
            records.c.admitted_at_ms >= _int("start_ms"),
            records.c.admitted_at_ms < _int("end_ms"),
            records.c.tags != "{}",
            ~known,
        )
    )


def tags_in(dialect: str, column: ColumnElement[Any]) -> tuple[FromClause, ColumnElement[str], ColumnElement[str]]:
    """The tags of a row beside it: the source, the columns of the name and the value."""
    if dialect == "sqlite":
        each = func.json_each(column).table_valued("key", "value", name="pair")
        return each, cast(each.c.key, Text), cast(each.c.value, Text)
    pairs = func.jsonb_each_text(cast(column, postgresql.JSONB)).table_valued("key", "value", name="pair")
    lateral = pairs.render_derived().lateral()
    return lateral, cast(lateral.c.key, Text), cast(lateral.c.value, Text)


def _int(name: str) -> BindParameter[int]:
    return bindparam(name, type_=INT)


def _number(quarter_ms: ColumnElement[int]) -> ColumnElement[int]:
    """The number of the hour or the day that a quarter lies in."""
    return cast((quarter_ms + _int("moved_ms")) // _int("length_ms"), INT)


def _grouped(
    level: Level,
    rows: FromClause,
    tag: ColumnElement[str],
    value: ColumnElement[str],
    by_tag: list[ColumnElement[Any]],
) -> Select[Any]:
    """What ``rows`` add to a level, in the order of the columns of ``sums``."""
    is_month = level.period == "month"
    number: ColumnElement[int] = _int("month") if is_month else rows.c.number
    places = [rows.c[name] if name in level.columns else literal("", Text()) for name in ALL]
    columns = [_int("fold"), literal(level.number, INT), tag, number, value, *places]
    named = [column.label(name) for column, name in zip(columns, SUMS_KEY, strict=True)]
    groups = [*([] if is_month else [number]), *by_tag, *[rows.c[name] for name in level.columns]]
    # SQLite would take ON CONFLICT for the condition of a join.
    return select(*named, *added(rows)).where(_TRUE).group_by(*groups)


def _adding(dialect: str, grouped: Select[Any]) -> Insert:
    inserting = sqlite.insert if dialect == "sqlite" else postgresql.insert
    given: Any = inserting(sums).from_select([*SUMS_KEY, *ROLLUP_SUMS], grouped)
    excluded = given.excluded
    result: Insert = given.on_conflict_do_update(
        index_elements=list(SUMS_KEY), set_={name: sums.c[name] + excluded[name] for name in ROLLUP_SUMS}
    )
    return result
