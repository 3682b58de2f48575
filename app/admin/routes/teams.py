"""Teams."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from msgspec import UNSET
from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.access import Caller
from app.admin.answers import TAKEN
from app.admin.families import families_sent
from app.admin.naming import limits_by_owner, team_of
from app.admin.schemas.people import Team, TeamChanged, TeamMade, Teams
from app.admin.wire import Administrator, Cursor, Limit, Reader, Tools, ToolsOf, cursor_text, position_of
from app.core.errors import NotFound
from app.store.audit import note_change
from app.store.colors import bind_colors
from app.store.people import active_keys_by_team
from app.store.teams import TeamChanges, create_team, find_team_by_id, list_teams, update_team

router = APIRouter(tags=["teams"])
TeamId = Annotated[str, Path(max_length=64)]


@router.get("/teams", summary="Teams", response_model=Teams)
async def read_teams(
    caller: Reader,
    tools: ToolsOf,
    q: Annotated[str | None, Query(max_length=100, description="Part of a name, or an id.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """By name. A lead sees one."""
    after = position_of(cursor, tuple[str, str])
    async with tools.database.read() as connection:
        rows = [team for team in await list_teams(connection) if caller.sees(team.id)]
        if q:
            rows = [team for team in rows if q.lower() in team.name.lower() or q == team.id]
        # In the order of their characters, whatever the database's collation.
        rows.sort(key=lambda team: (team.name, team.id))
        if after is not None:
            rows = [team for team in rows if (team.name, team.id) > after]
        page = rows[:limit]
        shown = await _shown(connection, tools, [team.id for team in page])
    last = page[-1] if len(rows) > limit else None
    return {"data": await _colored(tools, shown), "next": None if last is None else cursor_text((last.name, last.id))}


@router.post("/teams", summary="Make a team", status_code=201, response_model=Team, responses=TAKEN)
async def make_team(body: TeamMade, caller: Administrator, tools: ToolsOf) -> dict[str, Any]:
    """A name that is taken is 409."""
    now_ms = tools.clock.now_ms()
    families = families_sent(body.endpoints, tools)
    async with tools.database.transaction() as connection:
        team = await create_team(
            connection, name=body.name, now_ms=now_ms, limits=body.plain_limits(), endpoints=families
        )
        shown = (await _shown(connection, tools, [team.id]))[0]
        await _note(connection, caller, "team.create", now_ms, None, shown)
    return (await _colored(tools, [shown]))[0]


@router.get("/teams/{team_id}", summary="One team", response_model=Team)
async def read_team(team_id: TeamId, caller: Reader, tools: ToolsOf) -> dict[str, Any]:
    """With all of its own limits."""
    if not caller.sees(team_id):
        raise NotFound(f"There is no team {team_id!r}.")
    async with tools.database.read() as connection:
        shown = await _shown(connection, tools, [team_id])
    return (await _colored(tools, shown))[0]


@router.patch("/teams/{team_id}", summary="Change a team", response_model=Team, responses=TAKEN)
async def change_team(team_id: TeamId, body: TeamChanged, caller: Administrator, tools: ToolsOf) -> dict[str, Any]:
    """What is left out stays; null takes the families away that were given."""
    now_ms = tools.clock.now_ms()
    families = families_sent(body.endpoints, tools)
    changes = TeamChanges(
        name=UNSET if body.name is None else body.name,
        limits=body.plain_limits(),
        endpoints=families if "endpoints" in body.model_fields_set else UNSET,
    )
    async with tools.database.transaction() as connection:
        before = (await _shown(connection, tools, [team_id]))[0]
        await update_team(connection, team_id, changes, now_ms=now_ms)
        shown = (await _shown(connection, tools, [team_id]))[0]
        await _note(connection, caller, "team.update", now_ms, before, shown)
    return (await _colored(tools, [shown]))[0]


async def _shown(connection: AsyncConnection, tools: Tools, team_ids: list[str]) -> list[dict[str, Any]]:
    """Teams as JSON tells them, their colours still to come. Raises NoSuchTeam."""
    counts = await active_keys_by_team(connection, now_ms=tools.clock.now_ms())
    limits = await limits_by_owner(connection, team_ids[0] if len(team_ids) == 1 else None)
    shown = []
    for team_id in team_ids:
        team = await find_team_by_id(connection, team_id)
        shown.append(team_of(team, limits.get((team_id, None), ()), keys_active=counts.get(team_id, 0), color=0))
    return shown


async def _colored(tools: Tools, shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    slots = await bind_colors(tools.database, "team", [team["id"] for team in shown])
    return [{**team, "color": slots.get(team["id"], 1)} for team in shown]


async def _note(
    connection: AsyncConnection,
    caller: Caller,
    action: str,
    now_ms: int,
    before: dict[str, Any] | None,
    after: dict[str, Any],
) -> None:
    await note_change(
        connection,
        caller.actor,
        action=action,
        object_kind="team",
        object_id=after["id"],
        object_name=after["name"],
        team_id=after["id"],
        before=before,
        after=after,
        now_ms=now_ms,
    )
