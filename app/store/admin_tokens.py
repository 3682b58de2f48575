"""Tokens for the control plane, by their SHA-256, each with a role."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from sqlalchemy import ColumnElement, RowMapping, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.ids import random_base62
from app.store.errors import NameTaken, NoSuchTeam, NoSuchToken
from app.store.tables import admin_tokens, teams

Role: TypeAlias = Literal["admin", "viewer", "lead"]

ADMIN_TOKEN_ID_CHARS = 10


class AdminTokenRow(msgspec.Struct, frozen=True):
    """A token. ``team_id`` is a lead's team, None for the other roles."""

    id: str
    name: str
    role: Role
    digest: bytes
    created_at_ms: int
    team_id: str | None = None
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None
    used_at_ms: int | None = None

    def __repr__(self) -> str:
        return f"AdminTokenRow(id={self.id!r}, name={self.name!r}, role={self.role!r})"

    def is_live(self, now_ms: int) -> bool:
        """Whether it opens anything."""
        return self.revoked_at_ms is None and (self.expires_at_ms is None or self.expires_at_ms > now_ms)


async def create_admin_token(
    connection: AsyncConnection,
    *,
    name: str,
    role: Role,
    digest: bytes,
    now_ms: int,
    team_id: str | None = None,
    expires_at_ms: int | None = None,
) -> AdminTokenRow:
    """A new token. Raises NameTaken where a living one has its name, NoSuchTeam."""
    living = or_(admin_tokens.c.expires_at_ms.is_(None), admin_tokens.c.expires_at_ms > now_ms)
    same = select(admin_tokens.c.id).where(admin_tokens.c.name == name, admin_tokens.c.revoked_at_ms.is_(None), living)
    if (await connection.execute(same)).first() is not None:
        raise NameTaken(f"There is an admin token {name!r} already.")
    if (
        team_id is not None
        and (await connection.execute(select(teams.c.id).where(teams.c.id == team_id))).first() is None
    ):
        raise NoSuchTeam(f"There is no team {team_id!r}.")
    token = AdminTokenRow(
        random_base62(ADMIN_TOKEN_ID_CHARS), name, role, digest, now_ms, team_id=team_id, expires_at_ms=expires_at_ms
    )
    await connection.execute(insert(admin_tokens).values(**msgspec.structs.asdict(token)))
    return token


async def find_admin_token(connection: AsyncConnection, digest: bytes) -> AdminTokenRow | None:
    """The token with this digest, whatever its state."""
    return await _find(connection, admin_tokens.c.digest == digest)


async def find_admin_token_by_id(connection: AsyncConnection, token_id: str) -> AdminTokenRow:
    """Raises NoSuchToken."""
    found = await _find(connection, admin_tokens.c.id == token_id)
    if found is None:
        raise NoSuchToken(f"There is no admin token {token_id!r}.")
    return found


async def list_admin_tokens(connection: AsyncConnection) -> list[AdminTokenRow]:
    """All of them, oldest first; the revoked too."""
    asked = select(admin_tokens).order_by(admin_tokens.c.created_at_ms, admin_tokens.c.id)
    return [_row(row) for row in (await connection.execute(asked)).mappings()]


async def revoke_admin_token(connection: AsyncConnection, token_id: str, *, now_ms: int) -> AdminTokenRow:
    """Ends a token; the time of an earlier revocation stays. Raises NoSuchToken."""
    ended = update(admin_tokens).where(admin_tokens.c.id == token_id)
    await connection.execute(ended.values(revoked_at_ms=func.coalesce(admin_tokens.c.revoked_at_ms, now_ms)))
    return await find_admin_token_by_id(connection, token_id)


async def use_admin_token(connection: AsyncConnection, token_id: str, *, now_ms: int) -> None:
    """It was used now."""
    await connection.execute(update(admin_tokens).where(admin_tokens.c.id == token_id).values(used_at_ms=now_ms))


async def _find(connection: AsyncConnection, asked: ColumnElement[bool]) -> AdminTokenRow | None:
    row = (await connection.execute(select(admin_tokens).where(asked))).mappings().one_or_none()
    return None if row is None else _row(row)


def _row(row: RowMapping) -> AdminTokenRow:
    return AdminTokenRow(**{**row, "digest": bytes(row["digest"])})
