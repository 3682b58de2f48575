"""The statements of the ledger's batches, compiled once per database.

SQLite gets several rows in one statement: its driver lets go of the interpreter for every step, and
getting it back from a busy event loop costs more than the insert. PostgreSQL gets a column an array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Dialect, bindparam, column, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from app.store import tables

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.sql.dml import Insert

POSTGRES: Dialect = PGDialect_asyncpg()  # type: ignore[no-untyped-call] # its own __init__ has no types

CHUNKS = (128, 64, 32, 16, 8, 4, 2, 1)
"""Rows in one statement on SQLite, the largest that fits first; 128 records are 3,584 of 32,766 variables."""


def _added(table: Table, insert: postgresql.Insert | sqlite.Insert) -> Insert:
    """``insert`` as an upsert that adds its sums to what is there."""
    return insert.on_conflict_do_update(
        index_elements=list(tables.ROLLUP_KEY),
        set_={name: table.columns[name] + insert.excluded[name] for name in tables.ROLLUP_SUMS},
    )


def _repeated(statement: Insert, table: Table) -> dict[int, str]:
    """The text of ``statement`` for each size of chunk. Only its group of placeholders is repeated: no
    value ever enters the text.
    """
    text = str(statement.compile(dialect=sqlite.dialect()))
    group = f"({', '.join('?' * len(table.columns))})"
    head, values, tail = text.partition("VALUES " + group)
    if not values:
        raise ValueError(f"not an insert of one row: {text}")
    return {rows: f"{head}VALUES {', '.join([group] * rows)}{tail}" for rows in CHUNKS}


def _from_arrays(table: Table) -> postgresql.Insert:
    arrays = [bindparam(each.name, type_=postgresql.ARRAY(each.type)) for each in table.columns]
    rows = func.unnest(*arrays).table_valued(*[column(each.name, each.type) for each in table.columns])
    rows = rows.render_derived(name="given")
    names = [each.name for each in table.columns]
    return postgresql.insert(table).from_select(names, select(*rows.columns))


def _postgres(statement: Insert) -> str:
    return str(statement.compile(dialect=POSTGRES))


SQLITE_RECORDS = _repeated(sqlite.insert(tables.records).on_conflict_do_nothing(), tables.records)
SQLITE_ENTRIES = _repeated(sqlite.insert(tables.entries).on_conflict_do_nothing(), tables.entries)
SQLITE_OBJECTS = _repeated(sqlite.insert(tables.objects).on_conflict_do_nothing(), tables.objects)
SQLITE_POISON = _repeated(sqlite.insert(tables.poison).on_conflict_do_nothing(), tables.poison)
SQLITE_ROLLUPS = _repeated(_added(tables.rollups, sqlite.insert(tables.rollups)), tables.rollups)

POSTGRES_RECORDS = _postgres(
    _from_arrays(tables.records).on_conflict_do_nothing().returning(tables.records.c.request_id)
)
POSTGRES_ENTRIES = _postgres(
    _from_arrays(tables.entries)
    .on_conflict_do_nothing()
    .returning(tables.entries.c.attempt_id, tables.entries.c.reason, tables.entries.c.number)
)
POSTGRES_OBJECTS = _postgres(_from_arrays(tables.objects).on_conflict_do_nothing())
POSTGRES_POISON = _postgres(_from_arrays(tables.poison).on_conflict_do_nothing())
POSTGRES_ROLLUPS = _postgres(_added(tables.rollups, _from_arrays(tables.rollups)))
