"""Making, changing and taking away rules: one way for limits and for budgets, each change in the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.access import Caller
from app.admin.schemas.budgets import BudgetMade, LimitChanged, LimitMade
from app.admin.schemas.limits import limit_of
from app.admin.standings import BudgetStands
from app.core.errors import InvalidRequest, NotFound
from app.core.money import usd_text
from app.core.rules import limit_name
from app.store.audit import note_change
from app.store.database import Database
from app.store.explanations import iso_time
from app.store.limits import add_limit, find_limit, remove_limit, update_limit
from app.store.people import names_of
from app.store.rows import LimitRow


async def make_rule(database: Database, caller: Caller, body: LimitMade | BudgetMade, now_ms: int) -> LimitRow:
    """Raises NoSuchTeam, NoSuchKey, LimitInvalid, LimitTaken, TooManyLimits."""
    async with database.transaction() as connection:
        row = await add_limit(
            connection,
            body.rule(),
            team_id=body.team_id,
            key_id=body.key_id,
            now_ms=now_ms,
            warn_percents=tuple(body.warn_percents),
        )
        await _note(connection, caller, "create", row, now_ms, after=await rule_data(connection, row))
    return row


async def change_rule(
    database: Database, caller: Caller, limit_id: str, body: LimitChanged, now_ms: int, *, is_budget: bool
) -> LimitRow:
    """Raises NoSuchLimit, LimitInvalid, InvalidRequest, NotFound."""
    async with database.transaction() as connection:
        found = await _found(connection, limit_id, is_budget=is_budget)
        is_money = found.rule.kind == "money"
        wrong = "maximum" if is_money else "maximum_usd"
        if wrong in body.model_fields_set:
            raise InvalidRequest(f"A limit on {found.rule.kind} has no {wrong}.", param=wrong)
        row = await update_limit(connection, limit_id, body.changes())
        before, after = await rule_data(connection, found), await rule_data(connection, row)
        await _note(connection, caller, "update", row, now_ms, before=before, after=after)
    return row


async def take_rule_away(database: Database, caller: Caller, limit_id: str, now_ms: int, *, is_budget: bool) -> None:
    """Raises NoSuchLimit, NotFound."""
    async with database.transaction() as connection:
        await _found(connection, limit_id, is_budget=is_budget)
        row = await remove_limit(connection, limit_id)
        await _note(connection, caller, "delete", row, now_ms, before=await rule_data(connection, row))


async def _found(connection: AsyncConnection, limit_id: str, *, is_budget: bool) -> LimitRow:
    row = await find_limit(connection, limit_id)
    if is_budget and row.rule.kind != "money":
        raise NotFound("There is no such budget.")
    return row


async def _note(
    connection: AsyncConnection,
    caller: Caller,
    did: str,
    row: LimitRow,
    now_ms: int,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    kind = "budget" if row.rule.kind == "money" else "limit"
    await note_change(
        connection,
        caller.actor,
        action=f"{kind}.{did}",
        object_kind=kind,
        object_id=row.rule.id,
        object_name=limit_name(row.rule.kind, row.rule.window),
        team_id=row.team_id,
        before=before,
        after=after,
        now_ms=now_ms,
    )


# -- as JSON ----------------------------------------------------------------------------------


async def rule_data(connection: AsyncConnection, row: LimitRow) -> dict[str, Any]:
    """One rule."""
    (data,) = await rules_data(connection, [row])
    return data


async def rules_data(connection: AsyncConnection, rows: Sequence[LimitRow]) -> list[dict[str, Any]]:
    """Rules with the names of whom they bind."""
    names = await names_of(connection, [row.team_id for row in rows], [row.key_id for row in rows if row.key_id])
    return [limit_of(row, names.teams, names.keys) for row in rows]


async def budgets_data(connection: AsyncConnection, found: Sequence[BudgetStands]) -> list[dict[str, Any]]:
    """Rules of money with where they stand."""
    rules = await rules_data(connection, [stands.row for stands in found])
    return [{**rule, **_standing_data(stands)} for rule, stands in zip(rules, found, strict=True)]


def _standing_data(stands: BudgetStands) -> dict[str, Any]:
    values = None
    if stands.values is not None:
        values = [
            {
                "tag_value": each.tag_value,
                "spent_usd": usd_text(each.spent_nanousd),
                "spent_percent": each.spent_percent,
            }
            for each in stands.values
        ]
    forecast = stands.forecast_nanousd
    return {
        "window_from": iso_time(stands.start_ms),
        "window_to": iso_time(stands.end_ms),
        "spent_usd": usd_text(stands.spent_nanousd),
        "left_usd": usd_text(stands.left_nanousd),
        "spent_percent": stands.spent_percent,
        "forecast_usd": None if forecast is None else usd_text(forecast),
        "exhausted_at": iso_time(stands.exhausted_at_ms),
        "state": stands.state,
        "days": [{"day": day.isoformat(), "spent_usd": usd_text(amount)} for day, amount in stands.days],
        "values": values,
    }
