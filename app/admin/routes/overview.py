"""The first view, and how the service does."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.admin.access import Caller
from app.admin.answers import OF_OTHERS, answered
from app.admin.asking import Asked, shown_asked, zone_asked
from app.admin.attention import Reader as AttentionReader
from app.admin.overview import View, overview_data
from app.admin.schemas.overview import Overview
from app.admin.schemas.parameters import ZONE, documented, query
from app.admin.schemas.upstreams import Service
from app.admin.service import HOURS, HOURS_MAX, service_data
from app.admin.wire import Reader, Tools, ToolsOf
from app.core.errors import NotFound
from app.store.people import names_of_teams

router = APIRouter(tags=["overview"])

_READERS: dict[str, AttentionReader] = {"admin": "admin", "viewer": "viewer", "lead": "lead"}

TEAM = (
    query(
        "team", "Ids of teams, with commas between them; all that the caller sees where none is given.", "Tk3VmLq09sXa"
    ),
)
SHOW = (query("show", "What columns are made of: `team`, `model`, `key` or `tag.NAME`.", "team", default="team"),)
OF_HOURS = (
    query("hours", "How many, the last of which runs.", type="integer", minimum=1, maximum=HOURS_MAX, default=HOURS),
)


@router.get(
    "/overview",
    summary="Are we fine this month?",
    response_model=Overview,
    responses=OF_OTHERS,
    openapi_extra=documented(ZONE, TEAM, SHOW),
)
async def read_overview(caller: Reader, request: Request, tools: ToolsOf) -> Response:
    """Everything is read at one moment, by the query of `usage`: its totals are those of every other view."""
    asked = Asked(request.query_params.multi_items())
    time_zone, show = zone_asked(asked), shown_asked(asked)
    team_ids = await _teams(tools, caller, asked)
    asked.finish()
    view = View(tools.clock.now_ms(), time_zone, team_ids, show, _READERS.get(caller.role, "viewer"))
    return answered(await overview_data(tools.database, tools.in_force(), view))


@router.get(
    "/service",
    summary="Failed, first byte, and our own time",
    response_model=Service,
    responses=OF_OTHERS,
    openapi_extra=documented(OF_HOURS, TEAM),
)
async def read_service(caller: Reader, request: Request, tools: ToolsOf) -> Response:
    """By the hour, of all teams or of some, and of each upstream."""
    asked = Asked(request.query_params.multi_items())
    hours = asked.number("hours", HOURS, at_least=1, at_most=HOURS_MAX)
    team_ids = await _teams(tools, caller, asked)
    asked.finish()
    async with tools.database.read() as connection:
        data = await service_data(connection, tools.in_force(), tools.clock.now_ms(), hours=hours, team_ids=team_ids)
    return answered(data)


async def _teams(tools: Tools, caller: Caller, asked: Asked) -> tuple[str, ...]:
    """The teams that are asked for, or a lead's own; none: all. Raises NotFound where one of them is not there."""
    team_ids = asked.values("team")
    if not team_ids:
        return () if caller.team_id is None else (caller.team_id,)
    async with tools.database.read() as connection:
        known = await names_of_teams(connection, team_ids)
    if not all(team_id in known and caller.sees(team_id) for team_id in team_ids):
        raise NotFound("There is no such team.")
    return team_ids
