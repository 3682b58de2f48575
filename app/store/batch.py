"""The door to the bill: a batch of records goes in whole, once, with its rollups (accounting.md, rule 7).

In one transaction, in this order and sorted, so that writers with the same rows wait for each other and
never in a circle: records, their primary entries, what the new ones of both add to the rollups, objects.
A row that is there already is left as it is and adds nothing, so a batch may be written again.
"""

from __future__ import annotations

import sqlite3
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from app.store import statements
from app.store.database import reason_of
from app.store.engines import driver
from app.store.errors import DatabaseUnavailable, RowsRefused, StoreError
from app.store.flatten import Row, entry_row, object_row, record_row, rollup_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from app.core.records import Entry, OwnedObject, Record
    from app.store.database import Database

REFUSING_STATES = frozenset({"22", "23", "54"})
"""Classes of SQLSTATE that blame the rows: data exception, integrity constraint, program limit."""


class PoisonRow(msgspec.Struct, frozen=True):
    """What the database refused: ``item`` is "" for a record, else the id of the object."""

    request_id: str
    item: str
    payload: str
    error: str
    at_ms: int


EntryKey: TypeAlias = tuple[str, str, int]


def _key(entry: Entry) -> EntryKey:
    return entry.attempt_id, entry.reason, entry.number


class _Batch:
    """Rows in the order in which they are written, each beside what it was made of."""

    __slots__ = ("entries", "entry_rows", "object_rows", "record_rows", "records")

    def __init__(self, records: Iterable[Record], objects: Iterable[OwnedObject]) -> None:
        # Of two with one key the first is taken, as it would be in two batches.
        unique: dict[str, Record] = {}
        for record in records:
            unique.setdefault(record.request_id, record)
        self.records = [unique[key] for key in sorted(unique)]
        pairs: dict[EntryKey, tuple[Record, Entry]] = {}
        for record in self.records:
            for entry in record.entries:
                pairs.setdefault(_key(entry), (record, entry))
        self.entries = [pairs[key] for key in sorted(pairs)]
        self.record_rows = [record_row(record) for record in self.records]
        self.entry_rows = [entry_row(record, entry) for record, entry in self.entries]
        self.object_rows = sorted(object_row(owned) for owned in objects)


async def write_batch(database: Database, records: Sequence[Record], objects: Sequence[OwnedObject] = ()) -> int:
    """Writes what is not there yet; returns how many records were new, once all of it is committed.

    Raises RowsRefused where the database will never take one of the rows, DatabaseUnavailable where it
    may take them later. In both cases nothing was written.
    """
    if database.dialect == "sqlite":
        return await database.run_in_sqlite(lambda connection: _write_sqlite(connection, records, objects))
    try:
        batch = _Batch(records, objects)
        async with database.postgres_transaction() as connection:
            new = await _write_postgres(connection, batch)
    except Exception as error:
        raise _blamed(error) from error
    return new


async def keep_poison(database: Database, rows: Sequence[PoisonRow]) -> None:
    """Puts refused rows aside, so that the others can be written."""
    values = sorted((row.request_id, row.item, row.payload, row.error, row.at_ms) for row in rows)
    if database.dialect == "sqlite":
        await database.run_in_sqlite(lambda connection: _keep_sqlite(connection, values))
        return
    try:
        async with database.postgres_transaction() as connection:
            await connection.execute(statements.POSTGRES_POISON, *_columns(values))
    except Exception as error:
        raise _blamed(error) from error


def _blamed(error: Exception) -> StoreError:
    """Whether it was the rows or the database."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, sqlite3.Error):
        binding = str(error).startswith("Error binding parameter")
        rows = binding or isinstance(error, sqlite3.IntegrityError | sqlite3.DataError)
    elif driver is not None and isinstance(error, driver.PostgresError):
        rows = (error.sqlstate or "")[:2] in REFUSING_STATES
    else:
        # Values that do not become a row at all: too large a number, half a surrogate pair, a wrong type.
        rows = isinstance(error, ValueError | OverflowError | TypeError | AttributeError)
    return RowsRefused(reason_of(error)) if rows else DatabaseUnavailable(reason_of(error))


def _write_sqlite(connection: sqlite3.Connection, records: Sequence[Record], objects: Sequence[OwnedObject]) -> int:
    """Runs in the writer's thread, where BEGIN IMMEDIATE makes it the only writer there is."""
    try:
        batch = _Batch(records, objects)
        try:
            connection.execute("BEGIN IMMEDIATE")
            inserted = _insert(connection, statements.SQLITE_RECORDS, batch.record_rows)
            inserted += _insert(connection, statements.SQLITE_ENTRIES, batch.entry_rows)
            if inserted == len(batch.records) + len(batch.entries):
                new_records, new_entries = batch.records, batch.entries
            else:
                # Some were there already, and a statement of many rows does not say which.
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                new_records, new_entries = _insert_each(connection, batch)
            _insert(connection, statements.SQLITE_ROLLUPS, rollup_rows(new_records, new_entries))
            _insert(connection, statements.SQLITE_OBJECTS, batch.object_rows)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    except Exception as error:
        raise _blamed(error) from error
    return len(new_records)


def _insert(connection: sqlite3.Connection, texts: dict[int, str], rows: Sequence[Row]) -> int:
    """Inserts ``rows`` in their order, few steps for many rows; how many were new."""
    inserted = start = 0
    for size in statements.CHUNKS:
        while len(rows) - start >= size:
            values = tuple(chain.from_iterable(rows[start : start + size]))
            inserted += connection.execute(texts[size], values).rowcount
            start += size
    return inserted


def _insert_each(connection: sqlite3.Connection, batch: _Batch) -> tuple[list[Record], list[tuple[Record, Entry]]]:
    """Inserts row by row, and so learns which were new."""

    def is_new(text: str, row: Row) -> bool:
        return connection.execute(text, row).rowcount == 1

    record_text, entry_text = statements.SQLITE_RECORDS[1], statements.SQLITE_ENTRIES[1]
    new_records = [
        record for record, row in zip(batch.records, batch.record_rows, strict=True) if is_new(record_text, row)
    ]
    new_entries = [pair for pair, row in zip(batch.entries, batch.entry_rows, strict=True) if is_new(entry_text, row)]
    return new_records, new_entries


def _keep_sqlite(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    try:
        try:
            connection.execute("BEGIN IMMEDIATE")
            _insert(connection, statements.SQLITE_POISON, rows)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    except Exception as error:
        raise _blamed(error) from error


async def _write_postgres(connection: Any, batch: _Batch) -> int:
    new_records: list[Record] = []
    new_entries: list[tuple[Record, Entry]] = []
    if batch.records:
        found = await connection.fetch(statements.POSTGRES_RECORDS, *_columns(batch.record_rows))
        new_ids = {row[0] for row in found}
        new_records = [record for record in batch.records if record.request_id in new_ids]
    if batch.entries:
        found = await connection.fetch(statements.POSTGRES_ENTRIES, *_columns(batch.entry_rows))
        new_keys = {tuple(row) for row in found}
        new_entries = [pair for pair in batch.entries if _key(pair[1]) in new_keys]
    sums = rollup_rows(new_records, new_entries)
    if sums:
        await connection.execute(statements.POSTGRES_ROLLUPS, *_columns(sums))
    if batch.object_rows:
        await connection.execute(statements.POSTGRES_OBJECTS, *_columns(batch.object_rows))
    return len(new_records)


def _columns(rows: Sequence[Row]) -> list[tuple[str | int | None, ...]]:
    """``rows`` as one array for each column."""
    return list(zip(*rows, strict=True))
