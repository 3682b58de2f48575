"""Rules about requests, tokens, calls at once and money, of teams and of keys."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Request, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.answers import OF_OTHERS, TAKEN, answered
from app.admin.asking import Asked, of_team
from app.admin.rules import change_rule, make_rule, rule_data, rules_data, take_rule_away
from app.admin.schemas.budgets import LimitChanged, LimitMade, Limits
from app.admin.schemas.limits import Limit
from app.admin.schemas.parameters import ID, PAGE, documented, query
from app.admin.wire import Administrator, Reader, ToolsOf, next_offset, offset_of
from app.store.limits import list_limits
from app.store.rows import LimitRow
from app.store.usage import UsageFilter

router = APIRouter(tags=["limits"])

LimitId = Annotated[str, Path(pattern=ID, examples=["Qm3ZsA81kdPx"])]
OWNER = (
    query("team", "Of these teams and their keys, with commas between them.", "Tk3VmLq09sXa"),
    query("key", "Of these keys.", "9t2xkdQ4mZ"),
)


@router.get(
    "/limits",
    summary="Every rule",
    response_model=Limits,
    openapi_extra=documented(OWNER, PAGE),
)
async def read_limits(caller: Reader, request: Request, tools: ToolsOf) -> Response:
    """Of all teams, or of some teams or keys; a team's own rules before those of its keys. A lead sees its team's."""
    asked = Asked(request.query_params.multi_items())
    owners = owners_asked(asked, caller.team_id)
    limit = asked.number("limit", 50, at_least=1, at_most=200)
    offset = offset_of(asked.cursor())
    asked.finish()
    async with tools.database.read() as connection:
        rows = await rules_asked(connection, owners)
        data = await rules_data(connection, rows[offset : offset + limit])
    return answered({"data": data, "next": next_offset(len(rows), offset, limit)})


@router.post("/limits", status_code=201, summary="Make a rule", response_model=Limit, responses={**OF_OTHERS, **TAKEN})
async def make_limit(body: LimitMade, caller: Administrator, tools: ToolsOf) -> Response:
    """It holds within a second, on every gateway. There is one rule at most for the same requests and window."""
    row = await make_rule(tools.database, caller, body, tools.clock.now_ms())
    async with tools.database.read() as connection:
        return answered(await rule_data(connection, row), 201)


@router.patch("/limits/{limit_id}", summary="Change a rule", response_model=Limit)
async def change_limit(limit_id: LimitId, body: LimitChanged, caller: Administrator, tools: ToolsOf) -> Response:
    """What is counted goes on: it hangs on the rule, not on its maximum."""
    row = await change_rule(tools.database, caller, limit_id, body, tools.clock.now_ms(), is_budget=False)
    async with tools.database.read() as connection:
        return answered(await rule_data(connection, row))


@router.delete("/limits/{limit_id}", status_code=204, summary="Take a rule away")
async def delete_limit(limit_id: LimitId, caller: Administrator, tools: ToolsOf) -> Response:
    """What it counted is forgotten, what was spent stays in the ledger."""
    await take_rule_away(tools.database, caller, limit_id, tools.clock.now_ms(), is_budget=False)
    return Response(status_code=204)


class Owners(msgspec.Struct, frozen=True):
    """Whose rules: of any of the teams, and of any of the keys; empty is anybody's."""

    team_ids: tuple[str, ...]
    key_ids: tuple[str, ...]

    def hold(self, row: LimitRow) -> bool:
        of_team = not self.team_ids or row.team_id in self.team_ids
        return of_team and (not self.key_ids or row.key_id in self.key_ids)


async def rules_asked(connection: AsyncConnection, owners: Owners) -> list[LimitRow]:
    """The rules of these owners, a team's own before those of its keys."""
    one_team = owners.team_ids[0] if len(owners.team_ids) == 1 else None
    one_key = owners.key_ids[0] if len(owners.key_ids) == 1 else None
    return [row for row in await list_limits(connection, one_team, one_key) if owners.hold(row)]


def owners_asked(asked: Asked, own_team_id: str | None) -> Owners:
    """``team`` and ``key``; what a lead asks of another team is of nobody."""
    only = of_team(UsageFilter(team_ids=asked.values("team"), key_ids=asked.values("key")), own_team_id)
    return Owners(only.team_ids, only.key_ids)
