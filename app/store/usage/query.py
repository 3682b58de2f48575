"""The usage query."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import func, select

from app.core.clock import QUARTER_MS
from app.store.folding import list_folds
from app.store.periods import offset_parts
from app.store.tables import keys, rollups, teams
from app.store.usage.groups import Groups, take_away, take_in, with_most, without_nothing
from app.store.usage.plan import Asked, Folded, Piece, name_of_zone, phase_of, pieces_of
from app.store.usage.selects import COLUMNS, are_whole, filtered_columns, select_highest, select_sums
from app.store.usage.shape import (
    Grouping,
    Highest,
    UsageFilter,
    UsageNotTold,
    UsageReport,
    UsageRow,
    UsageSums,
    grouping_of,
)
from app.store.usage.tagged import usage_by_tag
from app.store.zones import note_zone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from sqlalchemy import Select, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.store.folds import Fold

EVERYTHING = UsageFilter()
IDS_AT_ONCE = 500
EDGES = 2
GROUPS_MAX = 100_000
"""So many take half a second and a hundred megabytes."""


async def usage(
    connection: AsyncConnection,
    by: Sequence[str],
    start_ms: int,
    end_ms: int,
    time_zone: tzinfo = UTC,
    *,
    only: UsageFilter = EVERYTHING,
    highest: Highest | None = None,
) -> UsageReport:
    """Usage admitted from ``start_ms`` up to, not including, ``end_ms`` (both in whole quarters of an
    hour), grouped and ordered by ``by``: team, key, model, upstream, at most one ``tag.NAME`` and at most one of
    hour, day, week (by its Monday) and month of ``time_zone``. To be asked inside of ``Database.read()``, where all
    that it reads is of one moment.

    Raises UsageNotTold, an InvalidRequest and a ValueError, where it cannot be grouped or filtered so, or where that
    makes more than GROUPS_MAX groups.
    """
    grouping = grouping_of(by)
    columns = {COLUMNS[name] for name in grouping.members} | filtered_columns(only)
    asked = Asked(start_ms, end_ms, grouping.period, time_zone, columns)
    _note_zone(connection, asked)
    folds = await list_folds(connection)
    others: list[Sequence[int]] = []
    if grouping.tag is not None or only.tags or only.not_tags:
        groups = await usage_by_tag(connection, grouping, asked, only, folds)
    elif only.not_key_ids and not only.key_ids and "key" not in grouping.members:
        groups = await _without_keys(connection, grouping, asked, only, folds)
    elif highest is not None and grouping.period is not None:
        groups, others = await _with_most(connection, grouping, asked, only, folds, highest)
    else:
        groups = await _sums(connection, grouping, pieces_of(asked, folds), only)
    total = UsageSums(*[sum(column) for column in zip(*groups.values(), *others, strict=True)])
    if highest is not None:
        place = UsageSums.__struct_fields__.index(highest.sum)
        groups = with_most(groups, place, highest.count, is_falling=highest.is_falling)
    return UsageReport(await _rows(connection, grouping, groups), total)


async def used_between(connection: AsyncConnection) -> tuple[int, int]:
    """The first moment of the first quarter of an hour of which there is usage, and the end of the last; (0, 0) where
    there is none.
    """
    quarter = rollups.c.quarter_ms
    asked = select(select(func.min(quarter)).scalar_subquery(), select(func.max(quarter)).scalar_subquery())
    first, last = (await connection.execute(asked)).one()
    return (0, 0) if first is None else (first, last + QUARTER_MS)


async def _sums(connection: AsyncConnection, grouping: Grouping, pieces: Sequence[Piece], only: UsageFilter) -> Groups:
    groups: Groups = {}
    for piece in pieces:
        await _take(connection, groups, grouping, piece, select_sums(piece, grouping.members, only))
    return groups


async def _take(
    connection: AsyncConnection, groups: Groups, grouping: Grouping, piece: Piece, asked: Select[Any]
) -> None:
    """Takes in the rows of a piece. Raises UsageNotTold."""
    rows = (await connection.execute(asked.limit(GROUPS_MAX + 1))).all()
    width = (grouping.period is not None) + len(grouping.members)
    take_in(groups, rows, width, piece.text if piece.period is not None else None)
    if len(groups) > GROUPS_MAX:
        raise UsageNotTold(
            f"That is more than {GROUPS_MAX} rows at once: take a shorter range, a filter or fewer groups, or leave"
            " out the order."
        )


async def _with_most(
    connection: AsyncConnection,
    grouping: Grouping,
    asked: Asked,
    only: UsageFilter,
    folds: Sequence[Fold],
    highest: Highest,
) -> tuple[Groups, list[Sequence[int]]]:
    """All groups that may be among the highest, and sums in which the others are, and these once less than none.

    What a fold has between its first period and its last is in no other piece: of that the database chooses.
    """
    groups: Groups = {}
    others: list[Sequence[int]] = []
    for piece in pieces_of(asked, folds):
        if not (isinstance(piece, Folded) and are_whole(piece, grouping.members) and piece.end - piece.first > EDGES):
            await _take(connection, groups, grouping, piece, select_sums(piece, grouping.members, only))
            continue
        first, end = piece.first + 1, piece.end - 1
        for begin, until in ((piece.first, first), (end, piece.end)):
            edge = msgspec.structs.replace(piece, first=begin, end=until)
            await _take(connection, groups, grouping, edge, select_sums(edge, grouping.members, only))
        between = msgspec.structs.replace(piece, first=first, end=end)
        found: Groups = {}
        await _take(connection, found, grouping, between, select_highest(between, grouping.members, only, highest))
        whole = msgspec.structs.replace(between, period=None)
        others += [tuple(row) for row in await connection.execute(select_sums(whole, (), only))]
        others += [tuple(-value for value in sums) for sums in found.values()]
        groups |= found
    return groups, others


async def _without_keys(
    connection: AsyncConnection, grouping: Grouping, asked: Asked, only: UsageFilter, folds: Sequence[Fold]
) -> Groups:
    """All less what these keys have: few rows of two kinds of sums, where leaving keys out would read every key's."""
    of_all = msgspec.structs.replace(only, not_key_ids=())
    of_keys = msgspec.structs.replace(only, key_ids=only.not_key_ids, not_key_ids=())
    columns = {COLUMNS[name] for name in grouping.members} | filtered_columns(of_all)
    pieces = pieces_of(msgspec.structs.replace(asked, columns=columns), folds)
    groups = await _sums(connection, grouping, pieces, of_all)
    for key, sums in (await _sums(connection, grouping, pieces_of(asked, folds), of_keys)).items():
        take_away(groups, key, sums)
    return without_nothing(groups)


def _note_zone(connection: AsyncConnection, asked: Asked) -> None:
    """Sums by the days, or hours, of this zone are wanted."""
    if asked.period == "hour":
        for _, _, offset_ms in offset_parts(asked.start_ms, asked.end_ms, asked.time_zone):
            note_zone(connection, "hour", str(phase_of(offset_ms)))
    elif asked.period is not None:
        name = name_of_zone(asked.time_zone)
        if name is not None:
            note_zone(connection, "day", name)


async def _rows(connection: AsyncConnection, grouping: Grouping, groups: Groups) -> list[UsageRow]:
    """The sums under the names that people know, in the order of these."""
    inner = [*([grouping.period] if grouping.period is not None else []), *grouping.members]
    if grouping.tag is not None:
        inner.append(f"tag.{grouping.tag}")
    keys_of = list(groups)
    columns: dict[str, list[str]] = {name: [key[place] for key in keys_of] for place, name in enumerate(inner)}
    nobody: list[str | None] = [None] * len(keys_of)
    ids: dict[str, list[str]] = {}
    for name, table in (("team", teams), ("key", keys)):
        if name in columns:
            ids[name] = columns[name]
            names = await _names(connection, table, set(ids[name]))
            columns[name] = [names.get(each, each) for each in ids[name]]
    members = list(zip(*(columns[name] for name in grouping.by), strict=True)) if grouping.by else [()] * len(keys_of)
    # Ids too: two teams may each have a key of one name.
    order = sorted(range(len(keys_of)), key=list(zip(members, *ids.values(), strict=True)).__getitem__)
    found = zip(members, ids.get("team", nobody), ids.get("key", nobody), groups.values(), strict=True)
    rows = [
        UsageRow(*sums, group=dict(zip(grouping.by, group, strict=True)), team_id=team_id, key_id=key_id)
        for group, team_id, key_id, sums in found
    ]
    return [rows[number] for number in order]


async def _names(connection: AsyncConnection, table: Table, ids: set[str]) -> dict[str, str]:
    """Names by id; what is not there any more has none."""
    wanted = sorted(ids)
    found: dict[str, str] = {}
    for start in range(0, len(wanted), IDS_AT_ONCE):
        asked = select(table.c.id, table.c.name).where(table.c.id.in_(wanted[start : start + IDS_AT_ONCE]))
        for row in await connection.execute(asked):
            found[row.id] = row.name
    return found
