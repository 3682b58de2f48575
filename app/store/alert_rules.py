"""Rules of alerts as rows: what people are told of, and which targets want nothing more of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import RowMapping, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.ids import random_base62
from app.store.errors import NoSuchAlertRule, TooManyAlertRules
from app.store.meta import fact_or
from app.store.rows import columns_of
from app.store.tables import alert_blocks, alert_rules, alert_states

RULE_ID_CHARS = 12
RULES_MAX = 100
"""Each is looked at several times a minute."""

MADE_FACT = "alert_rules_made"


class AlertRule(msgspec.Struct, frozen=True):
    """``team_id`` None: of all teams. ``targets`` None: all that the configuration file names."""

    id: str
    kind: str
    name: str
    team_id: str | None
    targets: tuple[str, ...] | None
    enabled: bool
    parameters: dict[str, Any]
    created_at_ms: int


class AlertRuleChanges(msgspec.Struct, frozen=True, kw_only=True):
    name: str | UnsetType = UNSET
    team_id: str | UnsetType | None = UNSET
    targets: tuple[str, ...] | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET


class AlertBlock(msgspec.Struct, frozen=True):
    """``target`` answered that it wants nothing more of the rule."""

    rule_id: str
    target: str
    reason: str
    at_ms: int


async def list_alert_rules(connection: AsyncConnection) -> list[AlertRule]:
    """All of them, oldest first."""
    asked = select(alert_rules).order_by(alert_rules.c.created_at_ms, alert_rules.c.id)
    return [_rule(row) for row in (await connection.execute(asked)).mappings()]


async def find_alert_rule(connection: AsyncConnection, rule_id: str) -> AlertRule:
    """Raises NoSuchAlertRule."""
    row = (await connection.execute(select(alert_rules).where(alert_rules.c.id == rule_id))).mappings().one_or_none()
    if row is None:
        raise NoSuchAlertRule(f"There is no alert rule {rule_id!r}.")
    return _rule(row)


async def add_alert_rule(connection: AsyncConnection, rule: AlertRule) -> AlertRule:
    """A new rule; ``rule.id`` is given here. Raises TooManyAlertRules."""
    if (await connection.execute(select(func.count()).select_from(alert_rules))).scalar_one() >= RULES_MAX:
        raise TooManyAlertRules(f"There are at most {RULES_MAX} alert rules.")
    made = msgspec.structs.replace(rule, id=random_base62(RULE_ID_CHARS))
    await connection.execute(insert(alert_rules).values(**_columns(msgspec.structs.asdict(made))))
    return made


async def update_alert_rule(connection: AsyncConnection, rule_id: str, changes: AlertRuleChanges) -> AlertRule:
    """Raises NoSuchAlertRule. Targets that are set anew are told again, whatever they answered before."""
    await find_alert_rule(connection, rule_id)
    given = columns_of(changes)
    if given:
        await connection.execute(update(alert_rules).where(alert_rules.c.id == rule_id).values(**_columns(given)))
    if "targets" in given:
        await connection.execute(delete(alert_blocks).where(alert_blocks.c.rule_id == rule_id))
    return await find_alert_rule(connection, rule_id)


async def remove_alert_rule(connection: AsyncConnection, rule_id: str) -> AlertRule:
    """Raises NoSuchAlertRule. What it has fired goes with it; its messages stay in the log."""
    found = await find_alert_rule(connection, rule_id)
    await connection.execute(delete(alert_states).where(alert_states.c.rule_id == rule_id))
    await connection.execute(delete(alert_blocks).where(alert_blocks.c.rule_id == rule_id))
    await connection.execute(delete(alert_rules).where(alert_rules.c.id == rule_id))
    return found


async def make_rules_once(connection: AsyncConnection, rules: Sequence[AlertRule]) -> bool:
    """Adds ``rules`` to a ledger that never had any; whoever removes them then is not given them again."""
    token = random_base62(RULE_ID_CHARS)
    if await fact_or(connection, MADE_FACT, token) != token:
        return False
    for rule in rules:
        await add_alert_rule(connection, rule)
    return True


async def list_alert_blocks(connection: AsyncConnection) -> list[AlertBlock]:
    asked = select(alert_blocks).order_by(alert_blocks.c.rule_id, alert_blocks.c.target)
    return [AlertBlock(**row) for row in (await connection.execute(asked)).mappings()]


async def block_alert_target(connection: AsyncConnection, block: AlertBlock) -> None:
    """The first reason stays."""
    inserting = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    await connection.execute(inserting(alert_blocks).values(**msgspec.structs.asdict(block)).on_conflict_do_nothing())


def _columns(given: dict[str, Any]) -> dict[str, Any]:
    columns = dict(given)
    if "targets" in columns and columns["targets"] is not None:
        columns["targets"] = msgspec.json.encode(columns["targets"]).decode()
    if "parameters" in columns:
        columns["parameters"] = msgspec.json.encode(columns["parameters"]).decode()
    if "enabled" in columns:
        columns["enabled"] = int(columns["enabled"])
    return columns


def _rule(row: RowMapping) -> AlertRule:
    targets = row["targets"]
    return AlertRule(
        id=row["id"],
        kind=row["kind"],
        name=row["name"],
        team_id=row["team_id"],
        targets=None if targets is None else msgspec.json.decode(targets, type=tuple[str, ...]),
        enabled=bool(row["enabled"]),
        parameters=msgspec.json.decode(row["parameters"], type=dict[str, Any]),
        created_at_ms=row["created_at_ms"],
    )
