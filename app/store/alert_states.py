"""What fires and what fired: one row for each firing of a rule for a subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Select, and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.ids import random_base62
from app.store.tables import alert_rules, alert_states, keys, teams

AlertState = Literal["firing", "resolved"]
AlertSeverity = Literal["bad", "warn"]

ALERT_ID_CHARS = 16
FIRING_OF_RULE_MAX = 200
"""More subjects of one rule are not told of until some of these are over."""

_ENDED: dict[str, Any] = {"state": "resolved", "clear_since_ms": None}


class Alert(msgspec.Struct, frozen=True):
    """``figures`` are JSON values. ``level`` is how far people were told, from 1 up; ``clear_since_ms`` since when
    nothing is wrong any more, while it is too early to say so. The names are those of now, None where all are meant.
    """

    id: str
    rule_id: str
    kind: str
    subject: str
    team_id: str | None
    key_id: str | None
    level: int
    severity: AlertSeverity
    figures: dict[str, Any]
    fired_at_ms: int
    changed_at_ms: int
    state: AlertState = "firing"
    clear_since_ms: int | None = None
    resolved_at_ms: int | None = None
    reason: str | None = None
    rule_name: str = ""
    team_name: str | None = None
    key_name: str | None = None


NAMES = ("rule_name", "team_name", "key_name")


class AlertPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a page ends."""

    severity: str
    at_ms: Annotated[int, Meta(ge=0, le=2**53)]
    id: str


def new_alert_id() -> str:
    return random_base62(ALERT_ID_CHARS)


async def firing_alerts(connection: AsyncConnection) -> list[Alert]:
    """All that fires, oldest first."""
    asked = _named().where(alert_states.c.state == "firing").order_by(alert_states.c.fired_at_ms, alert_states.c.id)
    return await _alerts(connection, asked)


async def list_alerts(
    connection: AsyncConnection,
    state: AlertState,
    *,
    kind: str | None = None,
    team_id: str | None = None,
    after: AlertPlace | None = None,
    limit: int = 50,
) -> list[Alert]:
    """What fires, worst first and then newest; or what is resolved, the last one first."""
    columns = alert_states.c
    asked = _named().where(columns.state == state)
    if kind is not None:
        asked = asked.where(columns.kind == kind)
    if team_id is not None:
        asked = asked.where(columns.team_id == team_id)
    at_ms = columns.fired_at_ms if state == "firing" else columns.changed_at_ms
    if after is not None:
        later = or_(at_ms < after.at_ms, and_(at_ms == after.at_ms, columns.id < after.id))
        if state == "firing":
            later = or_(columns.severity > after.severity, and_(columns.severity == after.severity, later))
        asked = asked.where(later)
    # "bad" stands before "warn".
    order = (
        (columns.severity, at_ms.desc(), columns.id.desc()) if state == "firing" else (at_ms.desc(), columns.id.desc())
    )
    return await _alerts(connection, asked.order_by(*order).limit(limit))


def place_of(alert: Alert) -> AlertPlace:
    at_ms = alert.fired_at_ms if alert.state == "firing" else alert.changed_at_ms
    return AlertPlace(alert.severity, at_ms, alert.id)


async def keep_alerts(connection: AsyncConnection, new: Sequence[Alert], changed: Sequence[Alert]) -> None:
    """Inserts ``new`` ones and brings ``changed`` ones to what they are now."""
    if new:
        await connection.execute(insert(alert_states), [_columns(alert) for alert in new])
    for alert in changed:
        await connection.execute(update(alert_states).where(alert_states.c.id == alert.id).values(**_columns(alert)))


async def end_alerts_of_rule(connection: AsyncConnection, rule_id: str, reason: str, now_ms: int) -> int:
    """Nothing of the rule fires any more, and nobody is told; how many there were."""
    firing = update(alert_states).where(alert_states.c.rule_id == rule_id, alert_states.c.state == "firing")
    ended = firing.values(**_ENDED, resolved_at_ms=now_ms, changed_at_ms=now_ms, reason=reason)
    return (await connection.execute(ended)).rowcount


async def count_firing(connection: AsyncConnection) -> dict[str, int]:
    """How many alerts fire, by rule id."""
    asked = select(alert_states.c.rule_id, func.count()).where(alert_states.c.state == "firing")
    rows = await connection.execute(asked.group_by(alert_states.c.rule_id))
    return {row[0]: row[1] for row in rows}


async def last_fired(connection: AsyncConnection) -> dict[str, int]:
    """When each rule last began to fire, by rule id, as far as that is kept."""
    asked = select(alert_states.c.rule_id, func.max(alert_states.c.fired_at_ms)).group_by(alert_states.c.rule_id)
    return {row[0]: row[1] for row in await connection.execute(asked)}


async def forget_alerts(connection: AsyncConnection, before_ms: int) -> int:
    """Deletes what was over before; returns how many."""
    old = delete(alert_states).where(alert_states.c.state == "resolved", alert_states.c.changed_at_ms < before_ms)
    return (await connection.execute(old)).rowcount


def _named() -> Select[Any]:
    joined = (
        alert_states.join(alert_rules, alert_rules.c.id == alert_states.c.rule_id)
        .outerjoin(teams, teams.c.id == alert_states.c.team_id)
        .outerjoin(keys, keys.c.id == alert_states.c.key_id)
    )
    names = alert_rules.c.name.label("rule_name"), teams.c.name.label("team_name"), keys.c.name.label("key_name")
    return select(alert_states, *names).select_from(joined)


async def _alerts(connection: AsyncConnection, asked: Select[Any]) -> list[Alert]:
    rows = (await connection.execute(asked)).mappings()
    return [Alert(**{**row, "figures": msgspec.json.decode(row["figures"], type=dict[str, Any])}) for row in rows]


def _columns(alert: Alert) -> dict[str, Any]:
    columns = {name: value for name, value in msgspec.structs.asdict(alert).items() if name not in NAMES}
    return {**columns, "figures": msgspec.json.encode(alert.figures).decode()}
