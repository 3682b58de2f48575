"""What was used and what it cost, from the rollups: the one query behind every report.

Rollups are by the quarter of an hour, so hours, days and months of any time zone are sums of them. A
span is cut where its zone's offset changes; inside each part a local day is whole numbers away from UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from sqlalchemy import ColumnElement, and_, cast, func, literal, select

from app.core.clock import QUARTER_MS
from app.store.tables import INT, ROLLUP_SUMS, keys, rollups, teams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import FromClause, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

Dimension: TypeAlias = Literal["team", "key", "model", "upstream", "hour", "day", "month"]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

PERIODS = {"hour": HOUR_MS, "day": DAY_MS, "month": DAY_MS}


class UsageRow(msgspec.Struct, frozen=True):
    """Sums of one group. ``group`` has the dimensions that were asked for, in their order, as people read
    them; the ids are set where their dimension was asked for. ``cost_nanousd`` leaves out what has no
    price: ``unpriced`` says of how many attempts.
    """

    group: dict[str, str]
    requests: int
    failed: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nanousd: int
    saved_nanousd: int
    unpriced: int
    estimated: int
    team_id: str | None = None
    key_id: str | None = None


async def usage(
    connection: AsyncConnection,
    by: Sequence[Dimension],
    start_ms: int,
    end_ms: int,
    time_zone: tzinfo = UTC,
    *,
    team_id: str | None = None,
    key_id: str | None = None,
) -> list[UsageRow]:
    """Usage admitted from ``start_ms`` up to, not including, ``end_ms`` (both in whole quarters of an
    hour), grouped and ordered by ``by``; optionally of one team or key.
    """
    periods = [dimension for dimension in by if dimension in PERIODS]
    if len(periods) > 1:
        raise ValueError(f"usage cannot be grouped by {periods[0]} and {periods[1]} at once")
    period = periods[0] if periods else None
    sums: dict[tuple[str, ...], tuple[dict[str, Any], list[int]]] = {}
    for part_start_ms, part_end_ms, offset_ms in _parts(start_ms, end_ms, time_zone if period else UTC):
        asked = _summed(by, part_start_ms, part_end_ms, offset_ms)
        if team_id is not None:
            asked = asked.where(rollups.c.team_id == team_id)
        if key_id is not None:
            asked = asked.where(rollups.c.key_id == key_id)
        for row in (await connection.execute(asked)).mappings():
            given = dict(row)
            if period is not None:
                given[period] = _period_text(period, given.pop("period"), offset_ms)
            # Ids too: two teams may each have a key of one name.
            identity = tuple(str(given[name]) for name in (*by, *_ids(by)))
            kept = sums.setdefault(identity, (given, [0] * len(ROLLUP_SUMS)))[1]
            for position, name in enumerate(ROLLUP_SUMS):
                kept[position] += given[name]
    return [_row(by, given, totals) for _, (given, totals) in sorted(sums.items(), key=lambda each: each[0])]


def _ids(by: Sequence[Dimension]) -> list[str]:
    return [f"{dimension}_id" for dimension in by if dimension in {"team", "key"}]


def _row(by: Sequence[Dimension], given: dict[str, Any], totals: list[int]) -> UsageRow:
    return UsageRow(
        group={dimension: given[dimension] for dimension in by},
        **dict(zip(ROLLUP_SUMS, totals, strict=True)),
        team_id=given.get("team_id"),
        key_id=given.get("key_id"),
    )


def _summed(by: Sequence[Dimension], start_ms: int, end_ms: int, offset_ms: int) -> Select[Any]:
    """Sums of the quarters in a span of one offset from UTC, by the columns of ``by``."""
    source: FromClause = rollups
    named: list[ColumnElement[Any]] = []
    groups: list[ColumnElement[Any]] = []
    for dimension in by:
        if dimension in PERIODS:
            # Written into the text as numbers: PostgreSQL takes two parameters for two expressions.
            length = literal(PERIODS[dimension], INT, literal_execute=True)
            local = rollups.c.quarter_ms + literal(offset_ms, INT, literal_execute=True)
            start = local - local % length
            named.append(start.label("period"))
            groups.append(start)
        elif dimension in {"team", "key"}:
            table = teams if dimension == "team" else keys
            id_column = rollups.c[f"{dimension}_id"]
            source = source.outerjoin(table, table.c.id == id_column)
            named += [func.coalesce(table.c.name, id_column).label(dimension), id_column]
            groups += [table.c.name, id_column]
        else:
            named.append(rollups.c[dimension])
            groups.append(rollups.c[dimension])
    sums = [cast(func.sum(rollups.c[name]), INT).label(name) for name in ROLLUP_SUMS]
    in_span = and_(rollups.c.quarter_ms >= start_ms, rollups.c.quarter_ms < end_ms)
    # Without groups SQL would return one row of nothing where there is nothing.
    return select(*named, *sums).select_from(source).where(in_span).group_by(*groups).having(func.count() > 0)


def _parts(start_ms: int, end_ms: int, time_zone: tzinfo) -> Iterator[tuple[int, int, int]]:
    """The span from ``start_ms`` to ``end_ms`` in parts of one offset each: start, end, offset."""
    part_ms = at_ms = start_ms
    offset_ms = _offset_ms(start_ms, time_zone)
    while at_ms < end_ms:
        next_ms = min(at_ms + DAY_MS, end_ms)
        if _offset_ms(next_ms, time_zone) != offset_ms:
            change_ms = _first_of_other_offset(at_ms, next_ms, offset_ms, time_zone)
            yield part_ms, change_ms, offset_ms
            part_ms = next_ms = change_ms
            offset_ms = _offset_ms(change_ms, time_zone)
        at_ms = next_ms
    if part_ms < end_ms:
        yield part_ms, end_ms, offset_ms


def _first_of_other_offset(low_ms: int, high_ms: int, offset_ms: int, time_zone: tzinfo) -> int:
    """The first whole quarter in (low, high] with another offset than ``offset_ms``; clocks change on one."""
    low, high = low_ms // QUARTER_MS, -(-high_ms // QUARTER_MS)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset_ms(middle * QUARTER_MS, time_zone) == offset_ms:
            low = middle
        else:
            high = middle
    return high * QUARTER_MS


def _offset_ms(at_ms: int, time_zone: tzinfo) -> int:
    offset = datetime.fromtimestamp(at_ms / 1000, time_zone).utcoffset() or timedelta()
    return int(offset.total_seconds()) * 1000


def _period_text(period: str, local_ms: int, offset_ms: int) -> str:
    """A local time as people read it. Hours carry their offset: in autumn one comes twice."""
    local = datetime.fromtimestamp(local_ms / 1000, UTC).replace(tzinfo=None)
    if period == "month":
        return f"{local:%Y-%m}"
    if period == "day":
        return f"{local:%Y-%m-%d}"
    zoned = local.replace(tzinfo=timezone(timedelta(milliseconds=offset_ms)))
    return zoned.isoformat(timespec="minutes")
