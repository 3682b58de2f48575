"""The proof that the bill adds up: records = entries = rollups, in SQL, on any amount of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
    union_all,
)

from app.store.flatten import FAILED
from app.store.tables import INT, ROLLUP_KEY, ROLLUP_SUMS, entries, poison, records, rollups

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection

DIFFERENCES_MAX = 20


class Difference(msgspec.Struct, frozen=True):
    """A rollup that is not the sum of its rows: what it has too much (or, negative, too little)."""

    quarter_ms: int
    team_id: str
    key_id: str
    model: str
    upstream: str
    excess: dict[str, int]


class Proof(msgspec.Struct, frozen=True):
    """What was counted, and whether it agrees. Ids and differences are the first 20 of each kind."""

    records: int
    entries: int
    rollups: int
    records_without_entry: int
    entries_without_record: int
    entries_misplaced: int
    rollups_different: int
    request_ids: list[str]
    differences: list[Difference]
    unpriced: int
    estimated: int
    suspect: int
    poison: int

    @property
    def holds(self) -> bool:
        """Every record has its entries, every entry its record, every rollup is their sum."""
        return not (
            self.records_without_entry
            or self.entries_without_record
            or self.entries_misplaced
            or self.rollups_different
        )


async def prove(connection: AsyncConnection) -> Proof:
    """Checks all rows. Each check is one statement, so that batches may go on being written meanwhile."""
    primary = and_(entries.c.request_id == records.c.request_id, entries.c.kind != "adjust")
    bare = ~exists(select(literal_column("1")).select_from(entries).where(primary))
    same_request = records.c.request_id == entries.c.request_id
    orphaned = ~exists(select(literal_column("1")).select_from(records).where(same_request))
    misplaced = or_(
        entries.c.quarter_ms != records.c.quarter_ms,
        entries.c.team_id != records.c.team_id,
        entries.c.key_id != records.c.key_id,
    )
    without_entry, bare_ids = await _offenders(connection, select(records.c.request_id).where(bare))
    without_record, orphan_ids = await _offenders(connection, select(entries.c.request_id).where(orphaned))
    in_wrong_place, misplaced_ids = await _offenders(
        connection, select(entries.c.request_id).join(records, same_request).where(misplaced)
    )
    different, differences = await _differences(connection)
    return Proof(
        records=await _count(connection, records),
        entries=await _count(connection, entries),
        rollups=await _count(connection, rollups),
        records_without_entry=without_entry,
        entries_without_record=without_record,
        entries_misplaced=in_wrong_place,
        rollups_different=different,
        request_ids=(bare_ids + orphan_ids + misplaced_ids)[:DIFFERENCES_MAX],
        differences=differences,
        unpriced=await _count(connection, entries, entries.c.cost_nanousd.is_(None)),
        estimated=await _count(connection, entries, entries.c.kind == "estimate"),
        suspect=await _count(connection, records, records.c.suspect == 1),
        poison=await _count(connection, poison),
    )


async def _count(connection: AsyncConnection, table: Table, *where: ColumnElement[bool]) -> int:
    counted = select(func.count(type_=INT)).select_from(table).where(*where)
    number: int = (await connection.execute(counted)).scalar_one()
    return number


async def _offenders(connection: AsyncConnection, asked: Select[str]) -> tuple[int, list[str]]:
    """How many rows there are, and the ids of the first few."""
    found = asked.subquery()
    limited = (
        select(found.c.request_id, func.count(type_=INT).over().label("total"))
        .order_by(found.c.request_id)
        .limit(DIFFERENCES_MAX)
    )
    rows = (await connection.execute(limited)).all()
    return (rows[0].total if rows else 0), [row.request_id for row in rows]


def _zeros(values: dict[str, ColumnElement[int]]) -> list[ColumnElement[Any]]:
    """A column for each sum of a rollup: those given, taken away, and 0 for the rest."""
    return [
        (-values[name]).label(name) if name in values else literal_column("0", INT).label(name) for name in ROLLUP_SUMS
    ]


def _is(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, 1), else_=0)


async def _differences(connection: AsyncConnection) -> tuple[int, list[Difference]]:
    """Rollups with the sums of their rows taken away: what is left, by key, should be nothing."""
    of_rollups = select(*[rollups.c[name] for name in (*ROLLUP_KEY, *ROLLUP_SUMS)])
    of_records = select(
        *[records.c[name] for name in ROLLUP_KEY],
        *_zeros(
            {
                "requests": literal_column("1", INT),
                "failed": _is(records.c.outcome.in_(sorted(FAILED))),
                "saved_nanousd": records.c.saved_nanousd,
            }
        ),
    )
    of_entries = select(
        *[entries.c[name] for name in ROLLUP_KEY],
        *_zeros(
            {
                "input_tokens": entries.c.input_tokens,
                "cached_tokens": entries.c.cached_tokens,
                "cache_write_tokens": entries.c.cache_write_tokens,
                "output_tokens": entries.c.output_tokens,
                "reasoning_tokens": entries.c.reasoning_tokens,
                "cost_nanousd": func.coalesce(entries.c.cost_nanousd, 0),
                "unpriced": _is(entries.c.cost_nanousd.is_(None)),
                "estimated": _is(entries.c.kind == "estimate"),
            }
        ),
    )
    rows = union_all(of_rollups, of_records, of_entries).subquery()
    sums = [cast(func.sum(rows.c[name]), INT) for name in ROLLUP_SUMS]
    asked = (
        select(
            *[rows.c[name] for name in ROLLUP_KEY],
            *[each.label(name) for name, each in zip(ROLLUP_SUMS, sums, strict=True)],
            func.count(type_=INT).over().label("total"),
        )
        .group_by(*[rows.c[name] for name in ROLLUP_KEY])
        .having(or_(*[each != 0 for each in sums]))
        .order_by(*[rows.c[name] for name in ROLLUP_KEY])
        .limit(DIFFERENCES_MAX)
    )
    found = (await connection.execute(asked)).mappings().all()
    differences = [
        Difference(
            **{name: row[name] for name in ROLLUP_KEY},
            excess={name: row[name] for name in ROLLUP_SUMS if row[name]},
        )
        for row in found
    ]
    return (found[0]["total"] if found else 0), differences
