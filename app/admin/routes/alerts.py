"""Alerts: rules, what fires, who is told, what became of each message."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from msgspec import UNSET
from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.access import Caller
from app.admin.answers import OF_OTHERS
from app.admin.schemas.alerts import (
    ID,
    AlertRuleChanged,
    AlertRuleMade,
    Kind,
    Tested,
)
from app.admin.schemas.alerts import AlertRule as RuleShown
from app.admin.schemas.alerts import AlertRules as RulesShown
from app.admin.schemas.alerts import Alerts as AlertsShown
from app.admin.schemas.alerts import AlertTargets as TargetsShown
from app.admin.schemas.alerts import Deliveries as DeliveriesShown
from app.admin.wire import Administrator, Cursor, Limit, Reader, Tools, ToolsOf, Viewer, page_of, position_of
from app.alerts.events import alert_object
from app.alerts.kinds import NAMES, as_written, kind_of, parameters_of
from app.core.errors import InvalidRequest, NotFound, quoted
from app.settings import AlertTarget
from app.store.alert_deliveries import (
    Delivery,
    DeliveryPlace,
    DeliveryState,
    TargetStanding,
    list_deliveries,
    target_standings,
)
from app.store.alert_rules import (
    AlertBlock,
    AlertRule,
    AlertRuleChanges,
    add_alert_rule,
    find_alert_rule,
    list_alert_blocks,
    list_alert_rules,
    remove_alert_rule,
    update_alert_rule,
)
from app.store.alert_states import (
    AlertPlace,
    AlertState,
    count_firing,
    end_alerts_of_rule,
    last_fired,
    list_alerts,
    place_of,
)
from app.store.audit import note_change
from app.store.explanations import iso_time
from app.store.teams import find_team_by_id, list_teams

router = APIRouter(tags=["alerts"])
RuleId = Annotated[str, Path(max_length=64, pattern=ID)]
TeamId = Annotated[str | None, Query(max_length=64, pattern=ID)]
Text = Annotated[str | None, Query(max_length=128, pattern=ID)]
CHANGED = "rule_changed"


# -- rules ----------------------------------------------------------------------------------------


@router.get("/alerts", summary="Rules of alerts", response_model=RulesShown)
async def read_rules(
    _caller: Viewer,
    tools: ToolsOf,
    kind: Kind | None = None,
    team: TeamId = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Oldest first, each with its state now."""
    after = position_of(cursor, tuple[int, str])
    async with tools.database.read() as connection:
        rules = [
            rule
            for rule in await list_alert_rules(connection)
            if kind in {None, rule.kind} and team in {None, rule.team_id}
        ]
        rules = [rule for rule in rules if after is None or (rule.created_at_ms, rule.id) > after]
        page = page_of(rules[: limit + 1], limit, lambda rule: (rule.created_at_ms, rule.id))
        return {**page, "data": await _shown(connection, page["data"])}


@router.post("/alerts", summary="Make a rule", status_code=201, response_model=RuleShown, responses=OF_OTHERS)
async def make_rule(body: AlertRuleMade, caller: Administrator, tools: ToolsOf) -> dict[str, Any]:
    """It is looked at within a minute."""
    kind = kind_of(body.kind)
    now_ms = tools.clock.now_ms()
    made = AlertRule(
        id="",
        kind=kind,
        name=body.name or NAMES[kind],
        team_id=body.team_id,
        targets=_targets(tools, body.targets),
        enabled=body.enabled,
        parameters=as_written(parameters_of(kind, body.parameters)),
        created_at_ms=now_ms,
    )
    async with tools.database.transaction() as connection:
        await _check_team(connection, kind, body.team_id)
        rule = await add_alert_rule(connection, made)
        shown = (await _shown(connection, [rule]))[0]
        await _note(connection, caller, "alert.create", now_ms, rule, None, shown)
    return shown


@router.patch("/alerts/{rule_id}", summary="Change a rule", response_model=RuleShown)
async def change_rule(rule_id: RuleId, body: AlertRuleChanged, caller: Administrator, tools: ToolsOf) -> dict[str, Any]:
    """What is left out stays. Switched off, or for another team, nothing of it fires any more."""
    sent = body.model_fields_set
    now_ms = tools.clock.now_ms()
    async with tools.database.transaction() as connection:
        rule = await find_alert_rule(connection, rule_id)
        before = (await _shown(connection, [rule]))[0]
        kind = kind_of(rule.kind)
        parameters: Any = UNSET
        if body.parameters is not None:
            parameters = as_written(parameters_of(kind, body.parameters))
        changes = AlertRuleChanges(
            name=UNSET if body.name is None else body.name,
            team_id=body.team_id if "team_id" in sent else UNSET,
            targets=_targets(tools, body.targets) if "targets" in sent else UNSET,
            enabled=UNSET if body.enabled is None else body.enabled,
            parameters=parameters,
        )
        if "team_id" in sent:
            await _check_team(connection, kind, body.team_id)
        changed = await update_alert_rule(connection, rule_id, changes)
        if not changed.enabled or changed.team_id != rule.team_id:
            await end_alerts_of_rule(connection, rule_id, CHANGED, now_ms)
        shown = (await _shown(connection, [changed]))[0]
        await _note(connection, caller, "alert.update", now_ms, changed, before, shown)
    return shown


@router.delete("/alerts/{rule_id}", summary="Remove a rule", status_code=204)
async def drop_rule(rule_id: RuleId, caller: Administrator, tools: ToolsOf) -> Response:
    """What it has fired goes with it; its messages stay in the log."""
    now_ms = tools.clock.now_ms()
    async with tools.database.transaction() as connection:
        rule = await find_alert_rule(connection, rule_id)
        before = (await _shown(connection, [rule]))[0]
        await remove_alert_rule(connection, rule_id)
        await _note(connection, caller, "alert.delete", now_ms, rule, before, None)
    return Response(status_code=204)


def _targets(tools: Tools, names: list[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    for name in names:
        if tools.in_force().configuration.alerts.find(name) is None:
            raise InvalidRequest(f"The configuration file has no target {quoted(name)!r}.", param="targets")
    return tuple(dict.fromkeys(names))


async def _check_team(connection: AsyncConnection, kind: str, team_id: str | None) -> None:
    """Raises NoSuchTeam, InvalidRequest."""
    if team_id is None:
        return
    if kind == "upstream.down":
        raise InvalidRequest("An upstream is down for all teams.", param="team_id")
    await find_team_by_id(connection, team_id)


async def _shown(connection: AsyncConnection, rules: list[AlertRule]) -> list[dict[str, Any]]:
    """Rules as JSON tells them, with their state."""
    firing, fired_at = await count_firing(connection), await last_fired(connection)
    teams = {team.id: team.name for team in await list_teams(connection)}
    blocks: dict[str, list[AlertBlock]] = {}
    for block in await list_alert_blocks(connection):
        blocks.setdefault(block.rule_id, []).append(block)
    return [
        {
            "id": rule.id,
            "kind": rule.kind,
            "name": rule.name,
            "team": None
            if rule.team_id is None
            else {"id": rule.team_id, "name": teams.get(rule.team_id, rule.team_id)},
            "targets": None if rule.targets is None else list(rule.targets),
            "enabled": rule.enabled,
            "parameters": rule.parameters,
            "state": "firing" if firing.get(rule.id) else "quiet",
            "firing": firing.get(rule.id, 0),
            "last_fired_at": iso_time(fired_at.get(rule.id)),
            "blocked": [
                {"target": block.target, "reason": block.reason, "since": iso_time(block.at_ms)}
                for block in blocks.get(rule.id, ())
            ],
            "created_at": iso_time(rule.created_at_ms),
        }
        for rule in rules
    ]


async def _note(
    connection: AsyncConnection,
    caller: Caller,
    action: str,
    now_ms: int,
    rule: AlertRule,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> None:
    await note_change(
        connection,
        caller.actor,
        action=action,
        object_kind="alert_rule",
        object_id=rule.id,
        object_name=rule.name,
        team_id=rule.team_id,
        before=before,
        after=after,
        now_ms=now_ms,
    )


# -- what fires -----------------------------------------------------------------------------------


@router.get("/alerts/open", summary="What fires now", response_model=AlertsShown, responses=OF_OTHERS)
async def read_open(
    caller: Reader,
    tools: ToolsOf,
    kind: Kind | None = None,
    team: TeamId = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Worst first, then newest. A lead sees what is about its own team."""
    return await _alerts(caller, tools, "firing", kind, team, limit, cursor)


@router.get("/alerts/resolved", summary="What fired", response_model=AlertsShown, responses=OF_OTHERS)
async def read_resolved(
    caller: Reader,
    tools: ToolsOf,
    kind: Kind | None = None,
    team: TeamId = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Of the last 30 days, the last one first. A lead sees what was about its own team."""
    return await _alerts(caller, tools, "resolved", kind, team, limit, cursor)


async def _alerts(
    caller: Caller, tools: Tools, state: AlertState, kind: str | None, team: str | None, limit: int, cursor: str | None
) -> dict[str, Any]:
    if team is not None and not caller.sees(team):
        raise NotFound(f"There is no team {quoted(team)!r}.")
    after = position_of(cursor, AlertPlace)
    team_id = caller.team_id if team is None else team
    async with tools.database.read() as connection:
        found = await list_alerts(connection, state, kind=kind, team_id=team_id, after=after, limit=limit + 1)
    page = page_of(found, limit, lambda alert: _place(place_of(alert)))
    return {**page, "data": [alert_object(alert) for alert in page["data"]]}


def _place(place: AlertPlace) -> tuple[str, int, str]:
    return place.severity, place.at_ms, place.id


# -- targets and messages -------------------------------------------------------------------------


@router.get("/alerts/targets", summary="Who can be told", response_model=TargetsShown)
async def read_targets(_caller: Viewer, tools: ToolsOf) -> dict[str, Any]:
    """In the order of the configuration file, where they stand with their addresses and secrets."""
    targets = tools.in_force().configuration.alerts.targets
    async with tools.database.read() as connection:
        standings = await target_standings(connection, [target.name for target in targets])
    return {"data": [_target(target, standings[target.name]) for target in targets], "next": None}


@router.post("/alerts/targets/{name}/test", summary="Send a test", response_model=Tested)
async def test_target(
    name: Annotated[str, Path(max_length=64, pattern=ID)], caller: Administrator, tools: ToolsOf
) -> dict[str, Any]:
    """Sends one now, once, and answers with what came of it, within 15 seconds."""
    target = tools.in_force().configuration.alerts.find(name)
    if target is None:
        raise NotFound(f"The configuration file has no target {quoted(name)!r}.")
    async with tools.database.transaction() as connection:
        # Before it is sent: what nobody can write down is not done.
        await note_change(
            connection,
            caller.actor,
            action="alert.test",
            object_kind="alert_target",
            object_id=name,
            object_name=name,
            now_ms=tools.clock.now_ms(),
        )
    delivery = await tools.alerts.test(target)
    return {"ok": delivery.state == "delivered", "delivery": _delivery(delivery, {})}


@router.get("/alerts/deliveries", summary="What became of each message", response_model=DeliveriesShown)
async def read_deliveries(
    _caller: Viewer,
    tools: ToolsOf,
    target: Text = None,
    rule: Text = None,
    state: Literal["waiting", "delivered", "failed", "gone"] | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Newest first, of the last 30 days."""
    after = position_of(cursor, DeliveryPlace)
    async with tools.database.read() as connection:
        found = await list_deliveries(
            connection, target=target, rule_id=rule, state=state, after=after, limit=limit + 1
        )
        names = {each.id: each.name for each in await list_alert_rules(connection)}
    page = page_of(found, limit, lambda each: (each.created_at_ms, each.id))
    return {**page, "data": [_delivery(each, names) for each in page["data"]]}


def _target(target: AlertTarget, standing: TargetStanding) -> dict[str, Any]:
    last = standing.last
    attempt = last.attempts[-1] if last is not None and last.attempts else None
    result: DeliveryState | None = None
    if last is not None:
        # One that waits has failed so far.
        result = "failed" if last.state == "waiting" else last.state
    return {
        "name": target.name,
        "kind": "email" if target.email is not None else "webhook",
        "to": _address_of(target),
        "last_sent_at": None if attempt is None else iso_time(attempt.at_ms),
        "last_result": result,
        "last_status": None if attempt is None else attempt.status,
        "last_error": None if attempt is None else attempt.error,
        "waiting": standing.waiting,
    }


def _address_of(target: AlertTarget) -> str:
    """Where messages go, as far as everybody may see it."""
    if target.webhook is not None:
        return target.webhook.host
    number = 0 if target.email is None else len(target.email.to)
    return "1 address" if number == 1 else f"{number} addresses"


def _delivery(delivery: Delivery, names: dict[str, str]) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "type": delivery.type,
        "rule": None if delivery.rule_id is None else {"id": delivery.rule_id, "name": names.get(delivery.rule_id)},
        "alert_id": delivery.alert_id,
        "target": delivery.target,
        "state": delivery.state,
        "created_at": iso_time(delivery.created_at_ms),
        "next_at": iso_time(delivery.next_at_ms),
        "attempts": [
            {
                "number": each.number,
                "at": iso_time(each.at_ms),
                "status": each.status,
                "took_ms": each.took_ms,
                "error": each.error,
            }
            for each in delivery.attempts
        ],
    }
