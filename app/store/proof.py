"""The proof that the bill adds up: records = entries = rollups = budgets = sums, on any amount of rows.

What ``prune`` has taken away is left out: rollups of before, and budgets whose windows began before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects import postgresql

from app.store.bill import counted, of_corrections
from app.store.meta import PRUNED_FACT
from app.store.posting import EXACT
from app.store.proof_sums import SumDifference, different_sums
from app.store.tables import INT, ROLLUP_KEY, ROLLUP_SUMS, budgets, entries, meta, poison, records, rollups, sums

if TYPE_CHECKING:
    from sqlalchemy import FromClause, Table
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


class BudgetDifference(msgspec.Struct, frozen=True):
    """A window whose counter is not the sum of its entries and of what was spent before it was there."""

    budget_id: str
    start_ms: int
    excess_nanousd: int


class Proof(msgspec.Struct, frozen=True):
    """What was counted, and whether it agrees. Ids and differences are the first 20 of each kind.

    ``unpriced`` and ``estimated`` are attempts, as they are after all corrections.
    """

    records: int
    entries: int
    rollups: int
    budgets: int
    records_without_entry: int
    entries_without_record: int
    entries_misplaced: int
    adjusts_without_entry: int
    rollups_different: int
    budgets_different: int
    request_ids: list[str]
    differences: list[Difference]
    budget_differences: list[BudgetDifference]
    sums: int
    sums_different: int
    sum_differences: list[SumDifference]
    pruned_before_ms: int
    unpriced: int
    estimated: int
    suspect: int
    poison: int

    @property
    def holds(self) -> bool:
        """Every record has its entries, every entry its record, every correction what it corrects; every
        rollup and every budget is their sum, and every sum by day, month, hour and tag that of these.
        """
        return not (
            self.records_without_entry
            or self.entries_without_record
            or self.entries_misplaced
            or self.adjusts_without_entry
            or self.rollups_different
            or self.budgets_different
            or self.sums_different
        )


async def prove(connection: AsyncConnection) -> Proof:
    """Checks all rows, in one snapshot, so that batches may go on being written meanwhile."""
    primary = and_(entries.c.request_id == records.c.request_id, entries.c.kind != "adjust")
    bare = ~exists(select(literal_column("1")).select_from(entries).where(primary))
    same_request = records.c.request_id == entries.c.request_id
    orphaned = ~exists(select(literal_column("1")).select_from(records).where(same_request))
    misplaced = or_(
        entries.c.quarter_ms != records.c.quarter_ms,
        entries.c.team_id != records.c.team_id,
        entries.c.key_id != records.c.key_id,
    )
    primaries = entries.alias("primaries")
    corrected = exists(
        select(literal_column("1"))
        .select_from(primaries)
        .where(primaries.c.attempt_id == entries.c.attempt_id, primaries.c.kind != "adjust")
    )
    kept, kept_records = entries.c.quarter_ms >= _pruned_before(), records.c.quarter_ms >= _pruned_before()
    without_entry, bare_ids = await _offenders(connection, select(records.c.request_id).where(bare, kept_records))
    without_record, orphan_ids = await _offenders(connection, select(entries.c.request_id).where(orphaned, kept))
    in_wrong_place, misplaced_ids = await _offenders(
        connection, select(entries.c.request_id).join(records, same_request).where(misplaced, kept)
    )
    of_nothing, of_nothing_ids = await _offenders(
        connection, select(entries.c.request_id).where(entries.c.kind == "adjust", ~corrected, kept)
    )
    different, differences = await _differences(connection)
    budgets_different, budget_differences = await _budget_differences(connection)
    sums_different, sum_differences = await different_sums(connection, DIFFERENCES_MAX)
    unpriced, estimated = await _uncertain(connection)
    return Proof(
        records=await _count(connection, records),
        entries=await _count(connection, entries),
        rollups=await _count(connection, rollups),
        budgets=await _count(connection, budgets),
        records_without_entry=without_entry,
        entries_without_record=without_record,
        entries_misplaced=in_wrong_place,
        adjusts_without_entry=of_nothing,
        rollups_different=different,
        budgets_different=budgets_different,
        request_ids=(bare_ids + orphan_ids + misplaced_ids + of_nothing_ids)[:DIFFERENCES_MAX],
        differences=differences,
        budget_differences=budget_differences,
        sums=await _count(connection, sums),
        sums_different=sums_different,
        sum_differences=sum_differences,
        pruned_before_ms=(await connection.execute(select(_pruned_before()))).scalar_one(),
        unpriced=unpriced,
        estimated=estimated,
        suspect=await _count(connection, records, records.c.suspect == 1),
        poison=await _count(connection, poison),
    )


def _pruned_before() -> ColumnElement[int]:
    """Read inside of each check: ``prune`` may begin between two of them."""
    fact = select(func.max(cast(meta.c.value, INT))).where(meta.c.key == PRUNED_FACT).scalar_subquery()
    return func.coalesce(fact, 0)


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


async def _uncertain(connection: AsyncConnection) -> tuple[int, int]:
    """How many attempts have no price, and of how many nothing exact is known."""
    changed = of_corrections().subquery()
    corrected = (
        await connection.execute(select(func.coalesce(cast(func.sum(changed.c.unpriced), INT), 0)))
    ).scalar_one()
    unpriced = await _count(connection, entries, entries.c.kind != "adjust", entries.c.cost_nanousd.is_(None))
    estimated = await _count(connection, entries, entries.c.kind == "estimate")
    exact = await _count(connection, entries, entries.c.kind == "adjust", entries.c.reason == EXACT)
    return unpriced + corrected, estimated - exact


async def _differences(connection: AsyncConnection) -> tuple[int, list[Difference]]:
    """Rollups with the sums of their rows taken away: what is left, by key, should be nothing."""
    of_rollups = select(*[rollups.c[name] for name in (*ROLLUP_KEY, *ROLLUP_SUMS)])
    bill = counted()
    taken_away = select(*[bill.c[name] for name in ROLLUP_KEY], *[(-bill.c[name]).label(name) for name in ROLLUP_SUMS])
    rows = union_all(of_rollups, taken_away).subquery()
    excess = [cast(func.sum(rows.c[name]), INT) for name in ROLLUP_SUMS]
    asked = (
        select(
            *[rows.c[name] for name in ROLLUP_KEY],
            *[each.label(name) for name, each in zip(ROLLUP_SUMS, excess, strict=True)],
            func.count(type_=INT).over().label("total"),
        )
        .where(rows.c.quarter_ms >= _pruned_before())
        .group_by(*[rows.c[name] for name in ROLLUP_KEY])
        .having(or_(*[each != 0 for each in excess]))
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


async def _budget_differences(connection: AsyncConnection) -> tuple[int, list[BudgetDifference]]:
    """Counters with what they were seeded with and the entries that name them taken away."""
    named, budget_id, start_ms = _named_windows(connection.dialect.name)
    of_counters = select(
        budgets.c.budget_id,
        budgets.c.start_ms,
        (budgets.c.spent_nanousd - budgets.c.seeded_nanousd).label("excess"),
    )
    of_entries = (
        select(
            budget_id.label("budget_id"),
            start_ms.label("start_ms"),
            (-func.coalesce(entries.c.cost_nanousd, 0)).label("excess"),
        )
        .select_from(records.join(entries, entries.c.request_id == records.c.request_id).join(named, true()))
        .where(records.c.budgets != "[]")
    )
    rows = union_all(of_counters, of_entries).subquery()
    excess = cast(func.sum(rows.c.excess), INT)
    asked = (
        select(rows.c.budget_id, rows.c.start_ms, excess.label("excess"), func.count(type_=INT).over().label("total"))
        .where(rows.c.start_ms >= _pruned_before())
        .group_by(rows.c.budget_id, rows.c.start_ms)
        .having(excess != 0)
        .order_by(rows.c.budget_id, rows.c.start_ms)
        .limit(DIFFERENCES_MAX)
    )
    found = (await connection.execute(asked)).all()
    return (found[0].total if found else 0), [BudgetDifference(*row[:3]) for row in found]


def _named_windows(dialect: str) -> tuple[FromClause, ColumnElement[str], ColumnElement[int]]:
    """The windows of ``records.budgets`` as rows beside their record: the source, its two columns."""
    if dialect == "sqlite":
        each = func.json_each(records.c.budgets).table_valued("value", name="named")
        return (
            each,
            func.json_extract(each.c.value, "$[0]"),
            func.json_extract(each.c.value, "$[1]"),
        )
    array = func.jsonb_array_elements(cast(records.c.budgets, postgresql.JSONB))
    named = array.table_valued("value", name="named").lateral()
    value = named.c.value
    return named, value.op("->>")(0), cast(value.op("->>")(1), INT)
