"""Leases: work that one process does for all of them. They end by the database's clock."""

from __future__ import annotations

from sqlalchemy import delete, or_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.now import NowMs
from app.store.tables import leases


async def take_lease(connection: AsyncConnection, name: str, holder: str, lease_ms: int) -> bool:
    """Whether ``holder`` has the lease from now on, or goes on having it; it ends after ``lease_ms``.

    Until the transaction ends nobody else can take it, so what is written with it is written by one alone.
    """
    inserting = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    given = inserting(leases).values(name=name, holder=holder, until_ms=NowMs() + lease_ms)
    taken = given.on_conflict_do_update(
        index_elements=["name"],
        set_={"holder": given.excluded.holder, "until_ms": given.excluded.until_ms},
        where=or_(leases.c.holder == holder, leases.c.until_ms <= NowMs()),
    ).returning(leases.c.holder)
    return (await connection.execute(taken)).scalar_one_or_none() is not None


async def release_lease(connection: AsyncConnection, name: str, holder: str) -> None:
    """Lets the next one take it at once."""
    await connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))
