"""Rules about requests, tokens, calls at once and money, of teams and of keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.admin.answers import ERRORS, ERRORS_OF_CHANGE, ERRORS_OF_ONE, answered
from app.admin.asking import Asked
from app.admin.rules import change_rule, make_rule, rule_data, rules_data, take_rule_away
from app.admin.schemas.budgets import LimitChanged, LimitMade, Limits
from app.admin.schemas.limits import Limit
from app.admin.schemas.parameters import ID, PAGE, documented, query
from app.admin.wire import Administrator, Reader, ToolsOf, cursor_text, position_of
from app.core.errors import InvalidRequest
from app.store.limits import list_limits

router = APIRouter(tags=["limits"])

LimitId = Annotated[str, Path(pattern=ID, examples=["Qm3ZsA81kdPx"])]
OWNER = (
    query("team", "Of this team and its keys.", "Tk3VmLq09sXa"),
    query("key", "Of this key.", "9t2xkdQ4mZ"),
)


@router.get(
    "/limits",
    summary="Every rule",
    response_model=Limits,
    responses=ERRORS,
    openapi_extra=documented(OWNER, PAGE),
)
async def read_limits(caller: Reader, request: Request, tools: ToolsOf) -> Response:
    """Of all teams, one team or one key; a team's own rules before those of its keys. A lead sees its own team's."""
    asked = Asked(request.query_params.multi_items())
    team_id, key_id = owner_asked(asked, caller.team_id)
    limit = asked.number("limit", 50, at_least=1, at_most=200)
    offset = offset_asked(asked)
    asked.finish()
    async with tools.database.read() as connection:
        rows = await list_limits(connection, team_id, key_id)
        data = await rules_data(connection, rows[offset : offset + limit])
    return answered({"data": data, "next": next_offset(len(rows), offset, limit)})


@router.post("/limits", status_code=201, summary="Make a rule", response_model=Limit, responses=ERRORS_OF_CHANGE)
async def make_limit(body: LimitMade, caller: Administrator, tools: ToolsOf) -> Response:
    """It holds within a second, on every gateway. There is one rule at most for the same requests and window."""
    row = await make_rule(tools.database, caller, body, tools.clock.now_ms())
    async with tools.database.read() as connection:
        return answered(await rule_data(connection, row), 201)


@router.patch("/limits/{limit_id}", summary="Change a rule", response_model=Limit, responses=ERRORS_OF_CHANGE)
async def change_limit(limit_id: LimitId, body: LimitChanged, caller: Administrator, tools: ToolsOf) -> Response:
    """What is counted goes on: it hangs on the rule, not on its maximum."""
    row = await change_rule(tools.database, caller, limit_id, body, tools.clock.now_ms(), is_budget=False)
    async with tools.database.read() as connection:
        return answered(await rule_data(connection, row))


@router.delete("/limits/{limit_id}", status_code=204, summary="Take a rule away", responses=ERRORS_OF_ONE)
async def delete_limit(limit_id: LimitId, caller: Administrator, tools: ToolsOf) -> Response:
    """What it counted is forgotten, what was spent stays in the ledger."""
    await take_rule_away(tools.database, caller, limit_id, tools.clock.now_ms(), is_budget=False)
    return Response(status_code=204)


def owner_asked(asked: Asked, own_team_id: str | None) -> tuple[str | None, str | None]:
    """``team`` and ``key``; what a lead asks of another team is of nobody."""
    team_id, key_id = asked.text("team"), asked.text("key")
    if own_team_id is not None:
        team_id = own_team_id if team_id in {None, own_team_id} else ""
    return team_id, key_id


def offset_asked(asked: Asked) -> int:
    """How many were shown before the page that ``cursor`` asks for."""
    place = position_of(asked.cursor(), tuple[int])
    if place is None:
        return 0
    if not 0 < place[0] < 2**31:
        raise InvalidRequest("The cursor is not one of this list.", param="cursor")
    return place[0]


def next_offset(count: int, offset: int, limit: int) -> str | None:
    return cursor_text([offset + limit]) if offset + limit < count else None
