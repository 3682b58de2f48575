"""Keys as an administrator looks for them: by state, by what is written on them, a page at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from sqlalchemy import ColumnElement, Select, Table, and_, func, or_, select, true, tuple_

from app.store.keys import keys_where
from app.store.tables import INT, keys, secret_uses, secrets, teams

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.store.rows import KeyRow

KeyListing: TypeAlias = Literal["active", "rotating", "expiring", "unused", "revoked", "expired", "all"]
LISTINGS: tuple[KeyListing, ...] = ("active", "rotating", "expiring", "unused", "revoked", "expired", "all")

DAY_MS = 24 * 60 * 60 * 1000
EXPIRING_MS = 7 * DAY_MS
UNUSED_MS = 30 * DAY_MS

KeyPlace: TypeAlias = tuple[str, str, str]
"""Where a key stands in the list: its team's name, its own, its id."""


class KeySearch(msgspec.Struct, frozen=True, kw_only=True):
    """Which keys; ``text`` is looked for in name, id, ids of secrets, team, owner and tags, in any case of letters."""

    listing: KeyListing = "active"
    team_id: str | None = None
    text: str | None = None


class OwnerNames(msgspec.Struct, frozen=True):
    """What teams and keys are called, by id."""

    teams: dict[str, str]
    keys: dict[str, str]


async def search_keys(
    connection: AsyncConnection, search: KeySearch, *, now_ms: int, limit: int, after: KeyPlace | None = None
) -> list[tuple[KeyPlace, KeyRow]]:
    """Keys by team and name, each with its place in the list."""
    place = (teams.c.name, keys.c.name, keys.c.id)
    asked = (
        select(*place)
        .join(teams, teams.c.id == keys.c.team_id)
        .where(*_wanted(search, now_ms))
        .order_by(*place)
        .limit(limit)
    )
    if after is not None:
        asked = asked.where(tuple_(*place) > tuple_(*after))
    places: list[KeyPlace] = [(row[0], row[1], row[2]) for row in await connection.execute(asked)]
    found = {key.id: key for key in await keys_where(connection, keys.c.id.in_([each[2] for each in places]))}
    return [(each, found[each[2]]) for each in places if each[2] in found]


async def count_keys(connection: AsyncConnection, team_id: str | None, *, now_ms: int) -> dict[KeyListing, int]:
    """How many keys each listing has."""
    counts: dict[KeyListing, int] = {}
    for listing in LISTINGS:
        wanted = _wanted(KeySearch(listing=listing, team_id=team_id), now_ms)
        asked = select(func.count(type_=INT)).select_from(keys.join(teams, teams.c.id == keys.c.team_id)).where(*wanted)
        counts[listing] = (await connection.execute(asked)).scalar_one()
    return counts


async def active_keys_by_team(connection: AsyncConnection, *, now_ms: int) -> dict[str, int]:
    """How many living keys each team has; a team without any is not in it."""
    asked = select(keys.c.team_id, func.count(type_=INT)).where(_is_active(now_ms)).group_by(keys.c.team_id)
    return {row[0]: row[1] for row in await connection.execute(asked)}


async def names_of(connection: AsyncConnection, team_ids: Iterable[str], key_ids: Iterable[str]) -> OwnerNames:
    """What these are called now; those that are gone are left out."""
    return OwnerNames(await names_of_teams(connection, team_ids), await _names(connection, keys, key_ids))


async def names_of_teams(connection: AsyncConnection, team_ids: Iterable[str] | None = None) -> dict[str, str]:
    """Names by id, of all teams or of these."""
    return await _names(connection, teams, team_ids)


async def _names(connection: AsyncConnection, table: Table, ids: Iterable[str] | None) -> dict[str, str]:
    asked = select(table.c.id, table.c.name)
    if ids is not None:
        asked = asked.where(table.c.id.in_(sorted(set(ids))))
    return {row.id: row.name for row in await connection.execute(asked)}


def _wanted(search: KeySearch, now_ms: int) -> list[ColumnElement[bool]]:
    wanted = [_in_listing(search.listing, now_ms)]
    if search.team_id is not None:
        wanted.append(keys.c.team_id == search.team_id)
    if search.text:
        text = search.text.lower()
        of_secret = select(secrets.c.key_id).where(func.lower(secrets.c.id).contains(text, autoescape=True))
        columns = (keys.c.name, keys.c.id, keys.c.owner, keys.c.tags, teams.c.name)
        wanted.append(
            or_(
                *[func.lower(func.coalesce(column, "")).contains(text, autoescape=True) for column in columns],
                keys.c.id.in_(of_secret),
            )
        )
    return wanted


def _in_listing(listing: KeyListing, now_ms: int) -> ColumnElement[bool]:
    active = _is_active(now_ms)
    if listing == "active":
        return active
    if listing == "all":
        return true()
    if listing == "revoked":
        return keys.c.revoked_at_ms.is_not(None)
    if listing == "expired":
        return and_(keys.c.revoked_at_ms.is_(None), keys.c.expires_at_ms <= now_ms)
    if listing == "expiring":
        return and_(active, keys.c.expires_at_ms <= now_ms + EXPIRING_MS)
    if listing == "rotating":
        return and_(active, keys.c.id.in_(_rotating(now_ms)))
    used = (
        select(secrets.c.key_id)
        .join(secret_uses, secret_uses.c.secret_id == secrets.c.id)
        .where(secret_uses.c.used_at_ms > now_ms - UNUSED_MS)
    )
    return and_(active, keys.c.created_at_ms <= now_ms - UNUSED_MS, keys.c.id.not_in(used))


def _is_active(now_ms: int) -> ColumnElement[bool]:
    return and_(keys.c.revoked_at_ms.is_(None), or_(keys.c.expires_at_ms.is_(None), keys.c.expires_at_ms > now_ms))


def _rotating(now_ms: int) -> Select[Any]:
    """Keys with two living secrets or more."""
    return (
        select(secrets.c.key_id)
        .where(
            secrets.c.revoked_at_ms.is_(None), or_(secrets.c.expires_at_ms.is_(None), secrets.c.expires_at_ms > now_ms)
        )
        .group_by(secrets.c.key_id)
        .having(func.count() > 1)
    )
