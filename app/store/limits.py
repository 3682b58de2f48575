"""Limits as rows: one rule a row, with the team or the key that it binds.

A rule keeps its id while its maximum, its policy, its mode or its bound change: what was spent hangs on
the id. What says *where* it counts (kind, window, time zone, model, tag) never changes; that is another
rule, whose budget starts from what the ledger says was spent. Every change is stamped on the owner for
the change feed (``changes.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.identity import BoundPolicy, LimitKind, LimitMode, LimitPolicy, LimitRule, LimitWindow
from app.core.ids import random_base62
from app.core.rules import check_rule, in_order, limit_name
from app.store.errors import LimitInvalid, LimitTaken, NoSuchKey, NoSuchLimit, NoSuchTeam, TooManyLimits
from app.store.rows import LimitRow, columns_of, json_text, limit_from, next_change, rule_from
from app.store.tables import keys, limits, teams

LIMIT_ID_CHARS = 12
LIMITS_OF_OWNER_MAX = 32
"""Each one that applies is looked at for every request."""

WARN_PERCENTS = (80, 95)
"""Of a budget for which nothing else is said."""
WARN_PERCENTS_MAX = 8

_PLACE = ("kind", "window", "model", "tag_name", "tag_value")


class PlainLimit(msgspec.Struct, frozen=True):
    """Sets the limit that counts every request of its owner; ``maximum`` None takes it away.

    ``time_zone`` is for money, None keeps the one that is set (UTC where there is none).
    """

    kind: LimitKind
    window: LimitWindow
    maximum: int | None
    time_zone: str | None = None


class LimitChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What to change of a rule; what it counts cannot be."""

    maximum: int | UnsetType = UNSET
    policy: LimitPolicy | UnsetType = UNSET
    mode: LimitMode | UnsetType = UNSET
    bound: BoundPolicy | UnsetType = UNSET
    warn_percents: tuple[int, ...] | UnsetType = UNSET


async def add_limit(
    connection: AsyncConnection,
    rule: LimitRule,
    *,
    team_id: str,
    key_id: str | None,
    now_ms: int,
    warn_percents: tuple[int, ...] = WARN_PERCENTS,
) -> LimitRow:
    """A new rule of a team, or of one of its keys; ``rule.id`` is given here. ``warn_percents`` are of budgets.

    Raises NoSuchTeam, NoSuchKey, LimitInvalid, LimitTaken, TooManyLimits.
    """
    change = await next_change(connection)
    await _stamp(connection, team_id, key_id, change)
    rule = msgspec.structs.replace(rule, id=random_base62(LIMIT_ID_CHARS))
    taken = await _find_same(connection, team_id, key_id, rule)
    if taken is not None:
        raise LimitTaken(
            f"There is a limit {limit_name(rule.kind, rule.window)} for the same requests already: {taken.id}."
        )
    return await _insert(connection, rule, team_id, key_id, now_ms, warn_percents)


async def update_limit(connection: AsyncConnection, limit_id: str, changes: LimitChanges) -> LimitRow:
    """Raises NoSuchLimit, LimitInvalid."""
    change = await next_change(connection)
    found = await find_limit(connection, limit_id)
    given = columns_of(changes)
    warn_percents = given.pop("warn_percents", found.warn_percents)
    rule = msgspec.structs.replace(found.rule, **given)
    _check(rule)
    changed = msgspec.structs.replace(found, rule=rule, warn_percents=_checked_percents(rule, warn_percents))
    if changed != found:
        given["warn_percents"] = json_text(changed.warn_percents)
        await connection.execute(update(limits).where(limits.c.id == limit_id).values(**given))
    await _stamp(connection, found.team_id, found.key_id, change)
    return changed


async def remove_limit(connection: AsyncConnection, limit_id: str) -> LimitRow:
    """Raises NoSuchLimit."""
    change = await next_change(connection)
    found = await find_limit(connection, limit_id)
    await connection.execute(delete(limits).where(limits.c.id == limit_id))
    await _stamp(connection, found.team_id, found.key_id, change)
    return found


async def find_limit(connection: AsyncConnection, limit_id: str) -> LimitRow:
    """Raises NoSuchLimit."""
    row = (await connection.execute(select(limits).where(limits.c.id == limit_id))).mappings().one_or_none()
    if row is None:
        raise NoSuchLimit(f"There is no limit {limit_id!r}.")
    return limit_from(row)


async def list_limits(
    connection: AsyncConnection, team_id: str | None = None, key_id: str | None = None
) -> list[LimitRow]:
    """All rules, or a team's and its keys', or a key's; a team's own before those of its keys."""
    asked = select(limits).order_by(limits.c.team_id, func.coalesce(limits.c.key_id, ""))
    if team_id is not None:
        asked = asked.where(limits.c.team_id == team_id)
    if key_id is not None:
        asked = asked.where(limits.c.key_id == key_id)
    owners: dict[tuple[str, str | None], dict[str, LimitRow]] = {}
    for row in (await connection.execute(asked)).mappings():
        found = limit_from(row)
        owners.setdefault((found.team_id, found.key_id), {})[found.rule.id] = found
    return [rows[rule.id] for rows in owners.values() for rule in in_order(each.rule for each in rows.values())]


async def set_plain_limits(
    connection: AsyncConnection, plain: Sequence[PlainLimit], *, team_id: str, key_id: str | None, now_ms: int
) -> None:
    """Sets or takes away plain rules of an owner, inside of a change that stamps it (``next_change``).

    Raises LimitInvalid, TooManyLimits.
    """
    for limit in plain:
        found = await _find_same(connection, team_id, key_id, LimitRule("", limit.kind, 0, limit.window))
        rule = found or LimitRule("", limit.kind, 0, limit.window)
        rule = msgspec.structs.replace(
            rule,
            id=random_base62(LIMIT_ID_CHARS),
            maximum=limit.maximum or 0,
            time_zone=limit.time_zone or rule.time_zone,
        )
        if found is not None and limit.maximum is not None and rule.time_zone == found.time_zone:
            _check(rule)
            await connection.execute(update(limits).where(limits.c.id == found.id).values(maximum=rule.maximum))
            continue
        if found is not None:
            await connection.execute(delete(limits).where(limits.c.id == found.id))
        if limit.maximum is not None:
            await _insert(connection, rule, team_id, key_id, now_ms)


async def rules_of_teams(connection: AsyncConnection, asked: ColumnElement[bool]) -> dict[str, tuple[LimitRule, ...]]:
    """The teams' own rules by team id, of the teams for which ``asked`` holds."""
    found = select(limits).join(teams, teams.c.id == limits.c.team_id).where(asked, limits.c.key_id.is_(None))
    return await _by_owner(connection, found, "team_id")


async def rules_of_keys(connection: AsyncConnection, asked: ColumnElement[bool]) -> dict[str, tuple[LimitRule, ...]]:
    """The rules by key id, of the keys for which ``asked`` holds."""
    return await _by_owner(connection, select(limits).join(keys, keys.c.id == limits.c.key_id).where(asked), "key_id")


async def _by_owner(connection: AsyncConnection, asked: Select[Any], owner: str) -> dict[str, tuple[LimitRule, ...]]:
    found: dict[str, list[LimitRule]] = {}
    for row in (await connection.execute(asked)).mappings():
        found.setdefault(row[owner], []).append(rule_from(row))
    return {owner_id: in_order(rules) for owner_id, rules in found.items()}


async def _insert(
    connection: AsyncConnection,
    rule: LimitRule,
    team_id: str,
    key_id: str | None,
    now_ms: int,
    warn_percents: tuple[int, ...] = WARN_PERCENTS,
) -> LimitRow:
    _check(rule)
    counted = select(func.count()).select_from(limits).where(*_owned(team_id, key_id))
    if (await connection.execute(counted)).scalar_one() >= LIMITS_OF_OWNER_MAX:
        raise TooManyLimits(f"A team or a key has at most {LIMITS_OF_OWNER_MAX} limits.")
    row = LimitRow(rule, team_id, key_id, now_ms, _checked_percents(rule, warn_percents))
    await connection.execute(
        insert(limits).values(
            **msgspec.structs.asdict(rule),
            team_id=team_id,
            key_id=key_id,
            created_at_ms=now_ms,
            warn_percents=json_text(row.warn_percents),
        )
    )
    return row


def _checked_percents(rule: LimitRule, percents: tuple[int, ...]) -> tuple[int, ...]:
    """Rising and without repetitions; none where ``rule`` is no budget. Raises LimitInvalid."""
    if rule.kind != "money":
        return ()
    if len(percents) > WARN_PERCENTS_MAX or not all(1 <= percent <= 100 for percent in percents):
        raise LimitInvalid(f"A budget has at most {WARN_PERCENTS_MAX} warnings, each at 1 to 100 percent of it.")
    return tuple(sorted(set(percents)))


async def _find_same(
    connection: AsyncConnection, team_id: str, key_id: str | None, rule: LimitRule
) -> LimitRule | None:
    """The owner's rule that counts the same requests, if there is one."""
    same = [limits.c[name].is_not_distinct_from(getattr(rule, name)) for name in _PLACE]
    asked = select(limits).where(*_owned(team_id, key_id), *same)
    row = (await connection.execute(asked)).mappings().first()
    return None if row is None else rule_from(row)


def _owned(team_id: str, key_id: str | None) -> tuple[ColumnElement[bool], ...]:
    return limits.c.team_id == team_id, limits.c.key_id.is_not_distinct_from(key_id)


def _check(rule: LimitRule) -> None:
    try:
        check_rule(rule)
    except ValueError as error:
        reason = str(error)
        raise LimitInvalid(f"{reason[0].upper()}{reason[1:]}.") from error


async def _stamp(connection: AsyncConnection, team_id: str, key_id: str | None, change: int) -> None:
    """Tells the change feed. Raises NoSuchTeam, NoSuchKey."""
    if key_id is None:
        stamped = update(teams).where(teams.c.id == team_id).values(changed=change)
        if not (await connection.execute(stamped)).rowcount:
            raise NoSuchTeam(f"There is no team {team_id!r}.")
        return
    stamped = update(keys).where(keys.c.id == key_id, keys.c.team_id == team_id).values(changed=change)
    if not (await connection.execute(stamped)).rowcount:
        raise NoSuchKey(f"The team has no key {key_id!r}.")
