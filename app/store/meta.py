"""Single facts about this ledger, by name."""

from __future__ import annotations

from sqlalchemy import delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.tables import meta

PRUNED_FACT = "pruned_before_ms"
"""Records and entries of quarters before this moment are gone, their sums are not."""

STATE_CANARY_FACT = "state_canary"
"""Encrypted with the key of the kept turns, so that a wrong one is known at the start."""


async def find_fact(connection: AsyncConnection, key: str) -> str | None:
    value: str | None = (await connection.execute(select(meta.c.value).where(meta.c.key == key))).scalar_one_or_none()
    return value


async def keep_fact(connection: AsyncConnection, key: str, value: str) -> None:
    await connection.execute(delete(meta).where(meta.c.key == key))
    await connection.execute(insert(meta).values(key=key, value=value))


async def drop_fact(connection: AsyncConnection, key: str) -> None:
    await connection.execute(delete(meta).where(meta.c.key == key))


async def fact_or(connection: AsyncConnection, key: str, value: str) -> str:
    """The fact that is there, else ``value``, which is kept then. Of many that ask at once, each in a writing
    transaction, all get the same.
    """
    inserting = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    # Where another transaction has just put it in, this waits for its end.
    await connection.execute(inserting(meta).values(key=key, value=value).on_conflict_do_nothing())
    found: str = (await connection.execute(select(meta.c.value).where(meta.c.key == key))).scalar_one()
    return found
