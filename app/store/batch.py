"""The door to the bill: a batch of records goes in whole, once, with its sums (accounting.md, rule 7).

In one transaction, in this order and sorted, so that writers with the same rows wait for each other and
never in a circle: records, their primary entries, and what follows on these (``posting.py``).
A row that is there already is left as it is and adds nothing, so a batch may be written again.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from app.store import statements
from app.store.database import reason_of
from app.store.engines import driver
from app.store.errors import DatabaseUnavailable, RowsRefused, StoreError
from app.store.flatten import Row, entry_row, object_row, record_row
from app.store.posting import Given, Written, post
from app.store.steps import Ask, Steps, run_in_thread, run_on_driver
from app.store.unheard import windows_unheard_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from app.core.records import BudgetWindow, Entry, OwnedObject, Record
    from app.store.database import Database

REFUSING_STATES = frozenset({"22", "23", "54"})
"""Classes of SQLSTATE that blame the rows: data exception, integrity constraint, program limit."""

CONFLICT_STATES = frozenset({"40001", "40P01"})
"""SQLSTATEs that blame two transactions for each other: it goes well the next time."""
CONFLICT_TRIES_MAX = 4
CONFLICT_DELAY_S = 0.02

T = TypeVar("T")


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
        # Of two with one key the first is taken, as it would be in two batches; but one that is exact goes
        # before an estimate, which needs no correction then.
        unique: dict[str, Record] = {}
        pairs: dict[EntryKey, tuple[Record, Entry]] = {}
        twice: list[Record] = []
        for record in records:
            if unique.setdefault(record.request_id, record) is not record:
                twice.append(record)
            for entry in record.entries:
                if entry.reason or entry.number:
                    raise ValueError("a record brings the primary entries of its attempts, and no other")
                first = pairs.setdefault(_key(entry), (record, entry))[1]
                if first.kind == "estimate" and entry.kind != "estimate":
                    pairs[_key(entry)] = record, entry
        for record in twice:
            if _is_estimated(unique[record.request_id]) and not _is_estimated(record):
                unique[record.request_id] = record
        self.records = [unique[key] for key in sorted(unique)]
        self.entries = [pairs[key] for key in sorted(pairs)]
        self.record_rows = [record_row(record) for record in self.records]
        self.entry_rows = [entry_row(record, entry) for record, entry in self.entries]
        self.object_rows = sorted(object_row(owned) for owned in objects)

    def name(self, windows: Mapping[str, tuple[BudgetWindow, ...]]) -> None:
        """Lets records, by their request, name these windows too."""
        told = {
            record.request_id: msgspec.structs.replace(record, budgets=record.budgets + windows[record.request_id])
            for record in self.records
            if record.request_id in windows
        }
        if not told:
            return
        self.records = [told.get(record.request_id, record) for record in self.records]
        self.entries = [(told.get(record.request_id, record), entry) for record, entry in self.entries]
        self.record_rows = [record_row(record) for record in self.records]


def _is_estimated(record: Record) -> bool:
    return any(entry.kind == "estimate" for entry in record.entries)


async def write_batch(database: Database, records: Sequence[Record], objects: Sequence[OwnedObject] = ()) -> Written:
    """Writes what is not there yet; what is in SQL then of all that was given, once it is committed.

    Raises RowsRefused where the database will never take one of the rows, DatabaseUnavailable where it
    may take them later. In both cases nothing was written.
    """
    if database.dialect == "sqlite":
        return await database.run_in_sqlite(lambda connection: _write_sqlite(connection, records, objects))
    for tries in range(1, CONFLICT_TRIES_MAX + 1):
        try:
            batch = _Batch(records, objects)
            async with database.postgres_transaction() as connection:
                return await _write_postgres(connection, batch)
        except Exception as error:
            if tries == CONFLICT_TRIES_MAX or not _is_conflict(error):
                raise _blamed(error) from error
        await asyncio.sleep(CONFLICT_DELAY_S * tries * random.random())  # noqa: S311 - jitter, not a secret
    raise AssertionError("the last try returns or raises")


async def keep_poison(database: Database, rows: Sequence[PoisonRow]) -> None:
    """Puts refused rows aside, so that the others can be written."""
    values = sorted((row.request_id, row.item, row.payload, row.error, row.at_ms) for row in rows)
    if database.dialect == "sqlite":
        await database.run_in_sqlite(lambda connection: _in_transaction(connection, _keep(values)))
        return
    try:
        async with database.postgres_transaction() as connection:
            await run_on_driver(connection, _keep(values))
    except Exception as error:
        raise _blamed(error) from error


def _is_conflict(error: Exception) -> bool:
    return driver is not None and isinstance(error, driver.PostgresError) and error.sqlstate in CONFLICT_STATES


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


def _write_sqlite(connection: sqlite3.Connection, records: Sequence[Record], objects: Sequence[OwnedObject]) -> Written:
    """Runs in the writer's thread, where BEGIN IMMEDIATE makes it the only writer there is."""
    try:
        batch = _Batch(records, objects)
    except Exception as error:
        raise _blamed(error) from error
    return _in_transaction(connection, _steps_sqlite(connection, batch))


def _in_transaction(connection: sqlite3.Connection, steps: Steps[T]) -> T:
    try:
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = run_in_thread(connection, steps)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    except Exception as error:
        raise _blamed(error) from error
    return result


def _keep(rows: Sequence[Row]) -> Steps[None]:
    yield Ask(statements.POISON, rows)


def _steps_sqlite(connection: sqlite3.Connection, batch: _Batch) -> Steps[Written]:
    batch.name((yield from windows_unheard_of(batch.records)))
    inserted = _insert(connection, statements.SQLITE_RECORDS, batch.record_rows)
    inserted += _insert(connection, statements.SQLITE_ENTRIES, batch.entry_rows)
    if inserted == len(batch.records) + len(batch.entries):
        given = Given(batch.records, batch.entries, batch.records, batch.entries, batch.object_rows)
        return (yield from post(given))
    # Some were there already, and counting does not say which.
    connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    return (yield from _steps(batch))


def _insert(connection: sqlite3.Connection, texts: dict[int, str], rows: Sequence[Row]) -> int:
    """Inserts ``rows`` in their order, few steps for many rows; how many were new."""
    inserted = start = 0
    for size, text in texts.items():
        while len(rows) - start >= size:
            values = tuple(chain.from_iterable(rows[start : start + size]))
            inserted += connection.execute(text, values).rowcount
            start += size
    return inserted


async def _write_postgres(connection: Any, batch: _Batch) -> Written:
    return await run_on_driver(connection, _steps_postgres(batch))


def _steps_postgres(batch: _Batch) -> Steps[Written]:
    batch.name((yield from windows_unheard_of(batch.records)))
    return (yield from _steps(batch))


def _steps(batch: _Batch) -> Steps[Written]:
    new_ids = {row[0] for row in (yield Ask(statements.RECORDS, batch.record_rows))}
    new_keys = {tuple(row) for row in (yield Ask(statements.ENTRIES, batch.entry_rows))}
    given = Given(
        records=batch.records,
        entries=batch.entries,
        new_records=[record for record in batch.records if record.request_id in new_ids],
        new_entries=[pair for pair in batch.entries if _key(pair[1]) in new_keys],
        object_rows=batch.object_rows,
    )
    return (yield from post(given))
