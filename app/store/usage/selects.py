"""The select for each piece of a span: the number of the period if there is one, what it is grouped by, the sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Text, cast, func, literal, select
from sqlalchemy.dialects import postgresql

from app.store.bill import added, counted
from app.store.periods import DAY_MS, HOUR_MS
from app.store.tables import INT, ROLLUP_SUMS, rollups, sums
from app.store.usage.plan import Folded, Piece, Quarters

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import FromClause, Select

    from app.store.usage.shape import Highest, TagFilter, UsageFilter

COLUMNS = {"team": "team_id", "key": "key_id", "model": "model", "upstream": "upstream"}

_FILTERS = (
    ("team_id", "team_ids", "not_team_ids"),
    ("key_id", "key_ids", "not_key_ids"),
    ("model", "models", "not_models"),
    ("upstream", "upstreams", "not_upstreams"),
)


def filtered_columns(only: UsageFilter) -> set[str]:
    """The columns of sums that a filter looks at."""
    return {column for column, any_of, none_of in _FILTERS if getattr(only, any_of) or getattr(only, none_of)}


def conditions(rows: FromClause, only: UsageFilter) -> list[ColumnElement[bool]]:
    """What a filter says of the columns of sums."""
    found: list[ColumnElement[bool]] = []
    for column, any_of, none_of in _FILTERS:
        if wanted := getattr(only, any_of):
            found.append(rows.c[column].in_(wanted))
        if unwanted := getattr(only, none_of):
            found.append(rows.c[column].not_in(unwanted))
    return found


def select_sums(piece: Piece, members: Sequence[str], only: UsageFilter) -> Select[Any]:
    """The sums of all requests of a piece."""
    if isinstance(piece, Folded):
        return _of_fold(piece, "", members, only)
    groups = [*_period_of_quarters(piece, rollups), *_members(rollups, members)]
    asked = select(*groups, *added(rollups)).where(
        rollups.c.quarter_ms >= piece.span[0], rollups.c.quarter_ms < piece.span[1], *conditions(rollups, only)
    )
    # Without groups SQL would return one row of nothing where there is nothing.
    return asked.group_by(*groups).having(func.count() > 0)


def select_highest(piece: Folded, members: Sequence[str], only: UsageFilter, highest: Highest) -> Select[Any]:
    """Of a piece whose rows are groups of their own, those that are among the highest."""
    asked = _of_fold(piece, "", members, only)
    value = sums.c[highest.sum]
    in_order = value.desc() if highest.is_falling else value
    last = asked.with_only_columns(value).order_by(in_order).offset(highest.count - 1).limit(1).scalar_subquery()
    # Where there are not so many, all are.
    bound = func.coalesce(last, value)
    return asked.where(value >= bound if highest.is_falling else value <= bound)


def select_tagged(
    piece: Folded, name: str, members: Sequence[str], only: UsageFilter, values: Collection[str] | None
) -> Select[Any]:
    """The sums of requests with a tag, by its value (one of ``values`` if there are), of a piece of a fold: the value
    comes before the sums.
    """
    asked = _of_fold(piece, name, members, only)
    return asked if values is None else asked.where(sums.c.value.in_(sorted(values)))


def _of_fold(piece: Folded, tag: str, members: Sequence[str], only: UsageFilter) -> Select[Any]:
    groups: list[ColumnElement[Any]] = []
    if piece.period == "week":
        # Its Monday.
        week, thursday = (literal(days, INT, literal_execute=True) for days in (7, 3))
        groups.append(sums.c.start - (sums.c.start + thursday) % week)
    elif piece.period is not None:
        groups.append(sums.c.start)
    groups += _members(sums, members)
    if tag:
        groups.append(sums.c.value)
    where = [
        sums.c.fold == piece.fold.id,
        sums.c.level == piece.level.number,
        sums.c.tag == tag,
        sums.c.start >= piece.first,
        sums.c.start < piece.end,
        *conditions(sums, only),
    ]
    if not tag:
        where.append(sums.c.value == "")
    if are_whole(piece, members):
        return select(*groups, *[sums.c[name] for name in ROLLUP_SUMS]).where(*where)
    return select(*groups, *added(sums)).where(*where).group_by(*groups).having(func.count() > 0)


def are_whole(piece: Folded, members: Sequence[str]) -> bool:
    """Whether each row is a group of its own: nothing that the level keeps apart is added up. A key has one team."""
    kept = {COLUMNS[name] for name in members}
    if "key_id" in kept:
        kept.add("team_id")
    return piece.period == piece.level.period and kept >= set(piece.level.columns)


def select_records(
    piece: Quarters,
    tag: str | None,
    filters: Sequence[TagFilter],
    members: Sequence[str],
    only: UsageFilter,
    dialect: str,
) -> Select[Any]:
    """The sums of requests of a piece that ``filters`` let through, from their records; by the value of ``tag`` ("" is
    none), if one is given, which comes before the sums.
    """
    bill = counted(piece.span, tags="all")
    found = [*conditions(bill, only)]
    for each in filters:
        value = _value(bill.c.tags, each.name, dialect)
        if each.any_of is not None:
            found.append(value.in_(sorted(each.any_of)))
        if each.none_of:
            found.append(value.not_in(sorted(each.none_of)))
    values = [] if tag is None else [_value(bill.c.tags, tag, dialect).label("tag_value")]
    rows = select(bill, *values).where(*found).subquery()
    groups = [*_period_of_quarters(piece, rows), *_members(rows, members)]
    if tag is not None:
        groups.append(rows.c.tag_value)
    return select(*groups, *added(rows)).group_by(*groups).having(func.count() > 0)


def _value(tags: ColumnElement[Any], name: str, dialect: str) -> ColumnElement[str]:
    found: ColumnElement[Any]
    if dialect == "sqlite":
        found = func.json_extract(tags, literal(f'$."{name}"', Text()))
    else:
        found = cast(tags, postgresql.JSONB).op("->>")(literal(name, Text()))
    return cast(func.coalesce(found, ""), Text)


def _members(rows: FromClause, members: Sequence[str]) -> list[ColumnElement[Any]]:
    return [rows.c[COLUMNS[name]] for name in members]


def _period_of_quarters(piece: Quarters, rows: FromClause) -> list[ColumnElement[Any]]:
    """The local hour, or the local day, for all that is longer."""
    if piece.period is None:
        return []
    # Written into the text as numbers: PostgreSQL takes two parameters for two expressions.
    length = literal(HOUR_MS if piece.period == "hour" else DAY_MS, INT, literal_execute=True)
    local = rows.c.quarter_ms + literal(piece.offset_ms, INT, literal_execute=True)
    return [cast((local - local % length) / length, INT)]
