"""Teams: made, changed and found. Every change is stamped for the change feed (``changes.py``)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, and_, insert, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.ids import random_base62
from app.store.errors import NameTaken, NoSuchTeam
from app.store.limits import PlainLimit, rules_of_teams, set_plain_limits
from app.store.rows import TeamRow, next_change, patterns_text, team_from
from app.store.tables import teams

TEAM_ID_CHARS = 10


class TeamChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What to change; None takes the families away that were given."""

    name: str | UnsetType = UNSET
    limits: tuple[PlainLimit, ...] = ()
    endpoints: tuple[str, ...] | UnsetType | None = UNSET


async def create_team(
    connection: AsyncConnection,
    *,
    name: str,
    now_ms: int,
    limits: Sequence[PlainLimit] = (),
    endpoints: tuple[str, ...] | None = None,
) -> TeamRow:
    """Raises NameTaken, LimitInvalid."""
    change = await next_change(connection)
    await _require_free(connection, name)
    team_id = random_base62(TEAM_ID_CHARS)
    columns = {"name": name, "endpoints": patterns_text(endpoints), "created_at_ms": now_ms, "changed": change}
    await connection.execute(insert(teams).values(id=team_id, **columns))
    await set_plain_limits(connection, limits, team_id=team_id, key_id=None, now_ms=now_ms)
    return await find_team_by_id(connection, team_id)


async def list_teams(connection: AsyncConnection) -> list[TeamRow]:
    return await _find(connection)


async def find_team(connection: AsyncConnection, name_or_id: str) -> TeamRow:
    """The team with this id, else with this name. Raises NoSuchTeam."""
    found = await _find(connection, or_(teams.c.id == name_or_id, teams.c.name == name_or_id))
    if not found:
        raise NoSuchTeam(f"There is no team {name_or_id!r}.")
    return max(found, key=lambda team: team.id == name_or_id)


async def find_team_by_id(connection: AsyncConnection, team_id: str) -> TeamRow:
    """Raises NoSuchTeam."""
    found = await _find(connection, teams.c.id == team_id)
    if not found:
        raise NoSuchTeam(f"There is no team {team_id!r}.")
    return found[0]


async def update_team(connection: AsyncConnection, team_id: str, changes: TeamChanges, *, now_ms: int) -> TeamRow:
    """Raises NoSuchTeam, NameTaken, LimitInvalid."""
    change = await next_change(connection)
    columns: dict[str, object] = {"changed": change}
    if changes.name is not UNSET:
        await _require_free(connection, changes.name, except_id=team_id)
        columns["name"] = changes.name
    if changes.endpoints is not UNSET:
        columns["endpoints"] = patterns_text(changes.endpoints)
    changed = update(teams).where(teams.c.id == team_id).values(columns)
    if not (await connection.execute(changed)).rowcount:
        raise NoSuchTeam(f"There is no team {team_id!r}.")
    await set_plain_limits(connection, changes.limits, team_id=team_id, key_id=None, now_ms=now_ms)
    return await find_team_by_id(connection, team_id)


async def _find(connection: AsyncConnection, *asked: ColumnElement[bool]) -> list[TeamRow]:
    """Teams for which all of ``asked`` holds, by name."""
    rows = list((await connection.execute(select(teams).where(*asked).order_by(teams.c.name))).mappings())
    rules = await rules_of_teams(connection, and_(true(), *asked))
    return [team_from(row, rules.get(row["id"], ())) for row in rows]


async def _require_free(connection: AsyncConnection, name: str, except_id: str = "") -> None:
    taken = select(teams.c.id).where(teams.c.name == name, teams.c.id != except_id)
    if (await connection.execute(taken)).first() is not None:
        raise NameTaken(f"There is a team {name!r} already.")
