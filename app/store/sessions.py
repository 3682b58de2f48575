"""Who is signed in to the console: a random cookie each, by its SHA-256."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.tables import sessions

HolderKind: TypeAlias = Literal["token", "key", "sso"]


class SessionRow(msgspec.Struct, frozen=True):
    """``holder_id`` is an admin token's id, a secret's, or the subject that a provider vouches for.

    ``name``, ``role`` and ``team_id`` count for a person of a provider; of the others whatever holds now.
    """

    digest: bytes
    kind: HolderKind
    holder_id: str
    name: str
    role: str
    team_id: str | None
    csrf: str
    created_at_ms: int
    seen_at_ms: int
    expires_at_ms: int

    def __repr__(self) -> str:
        return f"SessionRow(kind={self.kind!r}, holder_id={self.holder_id!r})"


async def open_session(connection: AsyncConnection, session: SessionRow) -> None:
    """Keeps a new session; those that are over go."""
    await connection.execute(delete(sessions).where(sessions.c.expires_at_ms <= session.created_at_ms))
    await connection.execute(insert(sessions).values(**msgspec.structs.asdict(session)))


async def find_session(connection: AsyncConnection, digest: bytes) -> SessionRow | None:
    asked = select(sessions).where(sessions.c.digest == digest)
    row = (await connection.execute(asked)).mappings().one_or_none()
    return None if row is None else SessionRow(**{**row, "digest": bytes(row["digest"])})


async def see_session(connection: AsyncConnection, digest: bytes, *, now_ms: int) -> None:
    """Its holder is there."""
    await connection.execute(update(sessions).where(sessions.c.digest == digest).values(seen_at_ms=now_ms))


async def close_session(connection: AsyncConnection, digest: bytes) -> None:
    """Signs out; one that is not there is no fault."""
    await connection.execute(delete(sessions).where(sessions.c.digest == digest))


async def close_sessions_of(connection: AsyncConnection, kind: HolderKind, holder_id: str) -> None:
    """Signs a holder out everywhere."""
    await connection.execute(delete(sessions).where(sessions.c.kind == kind, sessions.c.holder_id == holder_id))
