"""Budgets: the rules of money, and where each of them stands."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.admin.answers import OF_OTHERS, TAKEN, answered
from app.admin.asking import Asked, zone_asked
from app.admin.routes.limits import OWNER, owners_asked, rules_asked
from app.admin.rules import budgets_data, change_rule, make_rule, take_rule_away
from app.admin.schemas.budgets import Budget, BudgetMade, Budgets, LimitChanged
from app.admin.schemas.parameters import ID, PAGE, ZONE, documented
from app.admin.standings import sooner, stand_budgets
from app.admin.wire import Administrator, Reader, Tools, ToolsOf, next_offset, offset_of
from app.core.errors import NotFound
from app.store.limits import find_limit

router = APIRouter(tags=["budgets"])

BudgetId = Annotated[str, Path(pattern=ID, examples=["Qm3ZsA81kdPx"])]


@router.get(
    "/budgets",
    summary="Budgets, and which ends early",
    response_model=Budgets,
    openapi_extra=documented(OWNER, ZONE, PAGE),
)
async def read_budgets(caller: Reader, request: Request, tools: ToolsOf) -> Response:
    """What is spent of each in its window, what each day cost, what it will come to, and when it is gone. Those that
    are used up come first, then those that will be. Windows and days are those of each budget's own time zone.
    """
    asked = Asked(request.query_params.multi_items())
    owners = owners_asked(asked, caller.team_id)
    zone_asked(asked)
    limit = asked.number("limit", 50, at_least=1, at_most=200)
    offset = offset_of(asked.cursor())
    asked.finish()
    async with tools.database.read() as connection:
        rows = [row for row in await rules_asked(connection, owners) if row.rule.kind == "money"]
        found = sorted(await stand_budgets(connection, rows, tools.clock.now_ms()), key=sooner)
        data = await budgets_data(connection, found[offset : offset + limit])
    return answered({"data": data, "next": next_offset(len(rows), offset, limit)})


@router.get(
    "/budgets/{budget_id}",
    summary="One budget",
    response_model=Budget,
    openapi_extra=documented(ZONE),
)
async def read_budget(budget_id: BudgetId, caller: Reader, request: Request, tools: ToolsOf) -> Response:
    """Where it stands now."""
    asked = Asked(request.query_params.multi_items())
    zone_asked(asked)
    asked.finish()
    return await _standing(tools, budget_id, caller.team_id)


@router.post(
    "/budgets", status_code=201, summary="Make a budget", response_model=Budget, responses={**OF_OTHERS, **TAKEN}
)
async def make_budget(body: BudgetMade, caller: Administrator, tools: ToolsOf) -> Response:
    """It begins with what the ledger says was spent in its window, and holds within a second on every gateway."""
    row = await make_rule(tools.database, caller, body, tools.clock.now_ms())
    return await _standing(tools, row.rule.id, None, status=201)


@router.patch("/budgets/{budget_id}", summary="Raise a budget", response_model=Budget)
async def change_budget(budget_id: BudgetId, body: LimitChanged, caller: Administrator, tools: ToolsOf) -> Response:
    """What is spent stays counted: it hangs on the budget, not on its maximum."""
    row = await change_rule(tools.database, caller, budget_id, body, tools.clock.now_ms(), is_budget=True)
    return await _standing(tools, row.rule.id, None)


@router.delete("/budgets/{budget_id}", status_code=204, summary="Take a budget away")
async def delete_budget(budget_id: BudgetId, caller: Administrator, tools: ToolsOf) -> Response:
    """What was spent stays in the ledger."""
    await take_rule_away(tools.database, caller, budget_id, tools.clock.now_ms(), is_budget=True)
    return Response(status_code=204)


async def _standing(tools: Tools, budget_id: str, team_id: str | None, status: int = 200) -> Response:
    """A budget of any team, or of ``team_id`` alone."""
    async with tools.database.read() as connection:
        row = await find_limit(connection, budget_id)
        if row.rule.kind != "money" or team_id not in {None, row.team_id}:
            raise NotFound("There is no such budget.")
        found = await stand_budgets(connection, [row], tools.clock.now_ms())
        (data,) = await budgets_data(connection, found)
    return answered(data, status)
