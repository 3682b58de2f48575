"""Several statements with decisions between them, written once and run on any connection.

A function of steps yields what it asks and is sent the rows; it does no I/O. The ledger's batches run on a
driver's own connection, in a thread on SQLite and on the event loop on PostgreSQL; all else runs on SQLAlchemy's.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import msgspec

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")
Values: TypeAlias = tuple[str | int | None, ...]


class Statement(msgspec.Struct, frozen=True):
    """One statement for rows of values. ``sqlite`` has its text by the number of rows that it takes, the largest
    first; ``postgres`` takes each column as an array, or, where not ``arrays``, one row as it is.
    """

    sqlite: dict[int, str]
    postgres: str
    arrays: bool = True


class Ask(NamedTuple):
    """``statement`` is to be run with ``rows``, in their order."""

    statement: Statement
    rows: Sequence[Values]


Steps: TypeAlias = Generator[Ask, list[Any], T]
"""Yields what it asks, is sent the rows of the answer as tuples, and returns a T."""


def run_in_thread(connection: sqlite3.Connection, steps: Steps[T]) -> T:
    """Runs ``steps`` on SQLite's own connection."""
    found: list[Any] | None = None
    while True:
        try:
            ask = next(steps) if found is None else steps.send(found)
        except StopIteration as end:
            result: T = end.value
            return result
        found = []
        for text, values in _sqlite_calls(ask):
            found += connection.execute(text, values).fetchall()


async def run_on_driver(connection: Any, steps: Steps[T]) -> T:
    """Runs ``steps`` on asyncpg's own connection."""
    found: list[Any] | None = None
    while True:
        try:
            ask = next(steps) if found is None else steps.send(found)
        except StopIteration as end:
            result: T = end.value
            return result
        found = []
        for text, values in _postgres_calls(ask):
            found += await connection.fetch(text, *values)


async def run_on(connection: AsyncConnection, steps: Steps[T]) -> T:
    """Runs ``steps`` inside of a transaction of ``Database``."""
    calls = _sqlite_calls if connection.dialect.name == "sqlite" else _postgres_calls
    found: list[Any] | None = None
    while True:
        try:
            ask = next(steps) if found is None else steps.send(found)
        except StopIteration as end:
            result: T = end.value
            return result
        found = []
        for text, values in calls(ask):
            answer = await connection.exec_driver_sql(text, tuple(values))
            if answer.returns_rows:
                found += [tuple(row) for row in answer]


def _sqlite_calls(ask: Ask) -> Iterator[tuple[str, Values]]:
    """Few steps for many rows."""
    start = 0
    for size, text in ask.statement.sqlite.items():
        while len(ask.rows) - start >= size:
            yield text, tuple(chain.from_iterable(ask.rows[start : start + size]))
            start += size


def _postgres_calls(ask: Ask) -> Iterator[tuple[str, Sequence[Any]]]:
    if not ask.rows:
        return
    if ask.statement.arrays:
        yield ask.statement.postgres, list(zip(*ask.rows, strict=True))
    else:
        for row in ask.rows:
            yield ask.statement.postgres, row
