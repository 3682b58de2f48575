"""Tokens for the control plane, by their SHA-256."""

from __future__ import annotations

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.ids import random_base62
from app.store.tables import admin_tokens

ADMIN_TOKEN_ID_CHARS = 10


class AdminTokenRow(msgspec.Struct, frozen=True):
    id: str
    name: str
    role: str
    digest: bytes
    created_at_ms: int


async def create_admin_token(
    connection: AsyncConnection, *, name: str, role: str, digest: bytes, now_ms: int
) -> AdminTokenRow:
    token = AdminTokenRow(random_base62(ADMIN_TOKEN_ID_CHARS), name, role, digest, now_ms)
    await connection.execute(insert(admin_tokens).values(**msgspec.structs.asdict(token)))
    return token


async def find_admin_token(connection: AsyncConnection, digest: bytes) -> AdminTokenRow | None:
    asked = select(admin_tokens).where(admin_tokens.c.digest == digest)
    row = (await connection.execute(asked)).mappings().one_or_none()
    if row is None:
        return None
    return AdminTokenRow(row["id"], row["name"], row["role"], bytes(row["digest"]), row["created_at_ms"])
