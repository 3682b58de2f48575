"""Single facts about this ledger, by name."""

from __future__ import annotations

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.tables import meta


async def find_fact(connection: AsyncConnection, key: str) -> str | None:
    value: str | None = (await connection.execute(select(meta.c.value).where(meta.c.key == key))).scalar_one_or_none()
    return value


async def keep_fact(connection: AsyncConnection, key: str, value: str) -> None:
    await connection.execute(delete(meta).where(meta.c.key == key))
    await connection.execute(insert(meta).values(key=key, value=value))
