"""The usage query."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, cast, func, literal, select

from app.store.tables import INT, ROLLUP_SUMS, keys, rollups, teams
from app.store.usage.periods import DAY_MS, HOUR_MS, hour_text, offset_parts, text_of_day
from app.store.usage.shape import Grouping, UsageFilter, UsageReport, UsageRow, UsageSums, grouping_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import tzinfo

    from sqlalchemy import FromClause, Select, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

EVERYTHING = UsageFilter()
COLUMNS = {"team": "team_id", "key": "key_id", "model": "model", "upstream": "upstream"}
IDS_AT_ONCE = 500


async def usage(
    connection: AsyncConnection,
    by: Sequence[str],
    start_ms: int,
    end_ms: int,
    time_zone: tzinfo = UTC,
    *,
    only: UsageFilter = EVERYTHING,
) -> UsageReport:
    """Usage admitted from ``start_ms`` up to, not including, ``end_ms`` (both in whole quarters of an
    hour), grouped and ordered by ``by``: team, key, model, upstream, at most one ``tag.NAME`` and at most one of
    hour, day, week (by its Monday) and month of ``time_zone``.

    Raises ValueError where it cannot be grouped or filtered so.
    """
    grouping = grouping_of(by)
    if grouping.tag is not None or only.tags or only.not_tags:
        raise ValueError("usage by tag is not there yet")
    sums: dict[tuple[Any, ...], list[int]] = {}
    parts = offset_parts(start_ms, end_ms, time_zone) if grouping.period else [(start_ms, end_ms, 0)]
    for part_start_ms, part_end_ms, offset_ms in parts:
        asked = _of_quarters(grouping, part_start_ms, part_end_ms, offset_ms).where(*conditions(rollups, only))
        text = _texts(grouping, offset_ms)
        _add(sums, (await connection.execute(asked)).all(), len(grouping.by), text)
    return await _report(connection, grouping, sums)


def conditions(table: Table | FromClause, only: UsageFilter) -> list[ColumnElement[bool]]:
    """What ``only`` says of the columns of sums."""
    found: list[ColumnElement[bool]] = []
    for name, any_of, none_of in (
        ("team_id", only.team_ids, only.not_team_ids),
        ("key_id", only.key_ids, only.not_key_ids),
        ("model", only.models, only.not_models),
        ("upstream", only.upstreams, only.not_upstreams),
    ):
        if any_of:
            found.append(table.c[name].in_(any_of))
        if none_of:
            found.append(table.c[name].not_in(none_of))
    return found


def _of_quarters(grouping: Grouping, start_ms: int, end_ms: int, offset_ms: int) -> Select[Any]:
    """Sums of the quarters in a span of one offset from UTC: the columns of the group in its order, then sums."""
    groups: list[ColumnElement[Any]] = []
    if grouping.period is not None:
        # Written into the text as numbers: PostgreSQL takes two parameters for two expressions.
        length = literal(HOUR_MS if grouping.period == "hour" else DAY_MS, INT, literal_execute=True)
        local = rollups.c.quarter_ms + literal(offset_ms, INT, literal_execute=True)
        groups.append(cast((local - local % length) / length, INT))
    groups += [rollups.c[COLUMNS[name]] for name in grouping.members]
    sums = [cast(func.sum(rollups.c[name]), INT) for name in ROLLUP_SUMS]
    in_span = and_(rollups.c.quarter_ms >= start_ms, rollups.c.quarter_ms < end_ms)
    # Without groups SQL would return one row of nothing where there is nothing.
    return select(*groups, *sums).where(in_span).group_by(*groups).having(func.count() > 0)


def _texts(grouping: Grouping, offset_ms: int) -> Callable[[int], str] | None:
    if grouping.period is None:
        return None
    period = grouping.period
    return lambda number: hour_text(number, offset_ms) if period == "hour" else text_of_day(period, number)


def _add(
    sums: dict[tuple[Any, ...], list[int]],
    rows: Iterable[Sequence[Any]],
    groups: int,
    text: Callable[[int], str] | None,
) -> None:
    texts: dict[int, str] = {}
    for row in rows:
        key = tuple(row[:groups])
        if text is not None:
            number = key[0]
            if number not in texts:
                texts[number] = text(number)
            key = (texts[number], *key[1:])
        kept = sums.get(key)
        if kept is None:
            sums[key] = list(row[groups:])
        else:
            for position, value in enumerate(row[groups:]):
                kept[position] += value


async def _report(
    connection: AsyncConnection, grouping: Grouping, sums: dict[tuple[Any, ...], list[int]]
) -> UsageReport:
    """The sums under the names that people know, in the order of these."""
    inner = ((grouping.period,) if grouping.period else ()) + grouping.members
    places = [inner.index(name) for name in grouping.by]
    names: dict[str, dict[str, str]] = {}
    for dimension, table in (("team", teams), ("key", keys)):
        if dimension in inner:
            place = inner.index(dimension)
            names[dimension] = await _names(connection, table, {key[place] for key in sums})
    total = [0] * len(ROLLUP_SUMS)
    rows: list[tuple[tuple[Any, ...], UsageRow]] = []
    for key, values in sums.items():
        group: dict[str, str] = {}
        ids: dict[str, str] = {}
        for name, place in zip(grouping.by, places, strict=True):
            member = key[place]
            if name in names:
                ids[f"{name}_id"] = member
                member = names[name].get(member, member)
            group[name] = member
        for position, value in enumerate(values):
            total[position] += value
        row = UsageRow(*values, group=group, team_id=ids.get("team_id"), key_id=ids.get("key_id"))
        rows.append(((*group.values(), *ids.values()), row))
    rows.sort(key=lambda each: each[0])
    return UsageReport([row for _, row in rows], UsageSums(*total))


async def _names(connection: AsyncConnection, table: Table, ids: set[str]) -> dict[str, str]:
    """Names by id; what is not there any more has none."""
    wanted = sorted(ids)
    found: dict[str, str] = {}
    for start in range(0, len(wanted), IDS_AT_ONCE):
        asked = select(table.c.id, table.c.name).where(table.c.id.in_(wanted[start : start + IDS_AT_ONCE]))
        for row in await connection.execute(asked):
            found[row.id] = row.name
    return found
