"""Teams: made, changed and found. Every change is stamped for the change feed (``changes.py``)."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.identity import LimitSettings
from app.core.ids import random_base62
from app.store.errors import NameTaken, NoSuchTeam
from app.store.rows import TeamRow, columns_of, next_change, team_from
from app.store.tables import teams

TEAM_ID_CHARS = 10


class TeamChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What to change; None takes a limit away."""

    name: str | UnsetType = UNSET
    requests_per_minute: int | UnsetType | None = UNSET
    tokens_per_minute: int | UnsetType | None = UNSET
    concurrency: int | UnsetType | None = UNSET


async def create_team(
    connection: AsyncConnection, *, name: str, now_ms: int, limits: LimitSettings | None = None
) -> TeamRow:
    """Raises NameTaken."""
    change = await next_change(connection)
    await _require_free(connection, name)
    team = TeamRow(random_base62(TEAM_ID_CHARS), name, limits or LimitSettings(), now_ms, change)
    await connection.execute(
        insert(teams).values(
            id=team.id,
            name=name,
            **msgspec.structs.asdict(team.limits),
            created_at_ms=now_ms,
            changed=change,
        )
    )
    return team


async def list_teams(connection: AsyncConnection) -> list[TeamRow]:
    found = await connection.execute(select(teams).order_by(teams.c.name))
    return [team_from(row) for row in found.mappings()]


async def find_team(connection: AsyncConnection, name_or_id: str) -> TeamRow:
    """The team with this id, else with this name. Raises NoSuchTeam."""
    asked = select(teams).where(or_(teams.c.id == name_or_id, teams.c.name == name_or_id))
    found = [team_from(row) for row in (await connection.execute(asked)).mappings()]
    if not found:
        raise NoSuchTeam(f"There is no team {name_or_id!r}.")
    return max(found, key=lambda team: team.id == name_or_id)


async def update_team(connection: AsyncConnection, team_id: str, changes: TeamChanges) -> TeamRow:
    """Raises NoSuchTeam, NameTaken."""
    change = await next_change(connection)
    if changes.name is not UNSET:
        await _require_free(connection, changes.name, except_id=team_id)
    changed = (
        update(teams).where(teams.c.id == team_id).values(**columns_of(changes), changed=change).returning(*teams.c)
    )
    row = (await connection.execute(changed)).mappings().one_or_none()
    if row is None:
        raise NoSuchTeam(f"There is no team {team_id!r}.")
    return team_from(row)


async def _require_free(connection: AsyncConnection, name: str, except_id: str = "") -> None:
    taken = select(teams.c.id).where(teams.c.name == name, teams.c.id != except_id)
    if (await connection.execute(taken)).first() is not None:
        raise NameTaken(f"There is a team {name!r} already.")
