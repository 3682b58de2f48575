"""Teams and keys as answers name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.schemas.limits import limit_of
from app.store.explanations import iso_time
from app.store.limits import list_limits
from app.store.rows import KeyRow, LimitRow, SecretRow, TeamRow


def state_of(revoked_at_ms: int | None, expires_at_ms: int | None, now_ms: int) -> str:
    """``active``, ``expired`` or ``revoked``."""
    if revoked_at_ms is not None:
        return "revoked"
    return "expired" if expires_at_ms is not None and expires_at_ms <= now_ms else "active"


async def limits_by_owner(
    connection: AsyncConnection, team_id: str | None = None
) -> dict[tuple[str, str | None], list[LimitRow]]:
    """Rules by (team id, key id or None), of all teams or of one."""
    found: dict[tuple[str, str | None], list[LimitRow]] = {}
    for row in await list_limits(connection, team_id):
        found.setdefault((row.team_id, row.key_id), []).append(row)
    return found


def team_of(team: TeamRow, limits: Sequence[LimitRow], *, keys_active: int, color: int) -> dict[str, Any]:
    """A team as JSON tells it."""
    return {
        "id": team.id,
        "name": team.name,
        "limits": [limit_of(row, {team.id: team.name}, {}) for row in limits],
        "endpoints": None if team.endpoints is None else list(team.endpoints),
        "keys_active": keys_active,
        "created_at": iso_time(team.created_at_ms),
        "color": color,
    }


def secret_of(secret: SecretRow, used_at_ms: int | None, now_ms: int) -> dict[str, Any]:
    """A secret as JSON tells it: its public id, never its text."""
    return {
        "id": secret.id,
        "state": state_of(secret.revoked_at_ms, secret.expires_at_ms, now_ms),
        "created_at": iso_time(secret.created_at_ms),
        "expires_at": iso_time(secret.expires_at_ms),
        "revoked_at": iso_time(secret.revoked_at_ms),
        "last_used_at": iso_time(used_at_ms),
    }


def key_of(
    key: KeyRow,
    *,
    team: Mapping[str, Any],
    limits: Sequence[LimitRow],
    secrets: Sequence[SecretRow],
    used_at_ms: Mapping[str, int],
    spent: Mapping[str, Any],
    now_ms: int,
) -> dict[str, Any]:
    """A key as JSON tells it. ``spent`` has ``spent_month_usd`` and ``requests_month``."""
    names = {team["id"]: team["name"]}
    uses = [used_at_ms[secret.id] for secret in secrets if secret.id in used_at_ms]
    return {
        "id": key.id,
        "name": key.name,
        "team": dict(team),
        "state": state_of(key.revoked_at_ms, key.expires_at_ms, now_ms),
        "owner": key.owner,
        "tags": key.tags,
        "models": None if key.models is None else list(key.models),
        "endpoints": None if key.endpoints is None else list(key.endpoints),
        "cache_mode": key.cache_mode,
        "limits": [limit_of(row, names, {key.id: key.name}) for row in limits],
        "expires_at": iso_time(key.expires_at_ms),
        "revoked_at": iso_time(key.revoked_at_ms),
        "created_at": iso_time(key.created_at_ms),
        "last_used_at": iso_time(max(uses, default=None)),
        **spent,
        "secrets": [secret_of(secret, used_at_ms.get(secret.id), now_ms) for secret in secrets],
    }
