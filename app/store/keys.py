"""Keys and their secrets. Every change is stamped for the change feed: a secret's on its key.

The text of a key is made elsewhere (``app.auth``); here are its public id and its digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, and_, func, insert, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.identity import CacheMode
from app.store.errors import NameTaken, NoSuchKey, NoSuchTeam, SecretTaken
from app.store.limits import PlainLimit, rules_of_keys, set_plain_limits
from app.store.rows import (
    KeyRow,
    SecretRow,
    columns_of,
    json_text,
    key_from,
    next_change,
    patterns_text,
    secret_from,
)
from app.store.tables import keys, secrets, teams


class KeyChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What to change; None takes a list of patterns, the expiry or the mode of the cache away."""

    name: str | UnsetType = UNSET
    limits: tuple[PlainLimit, ...] = ()
    models: tuple[str, ...] | UnsetType | None = UNSET
    endpoints: tuple[str, ...] | UnsetType | None = UNSET
    cache_mode: CacheMode | UnsetType | None = UNSET
    expires_at_ms: int | UnsetType | None = UNSET
    owner: str | UnsetType | None = UNSET
    tags: dict[str, str] | UnsetType = UNSET


async def create_key(
    connection: AsyncConnection,
    *,
    team_id: str,
    name: str,
    secret_id: str,
    digest: bytes,
    now_ms: int,
    limits: Sequence[PlainLimit] = (),
    models: tuple[str, ...] | None = None,
    endpoints: tuple[str, ...] | None = None,
    cache_mode: CacheMode | None = None,
    expires_at_ms: int | None = None,
    owner: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> KeyRow:
    """A key and its first secret, whose id is the key's too. Raises NoSuchTeam, NameTaken, SecretTaken,
    LimitInvalid.
    """
    change = await next_change(connection)
    if (await connection.execute(select(teams.c.id).where(teams.c.id == team_id))).first() is None:
        raise NoSuchTeam(f"There is no team {team_id!r}.")
    await _require_free(connection, team_id, name)
    await _require_new(connection, secret_id, digest)
    await connection.execute(
        insert(keys).values(
            id=secret_id,
            team_id=team_id,
            name=name,
            models=patterns_text(models),
            endpoints=patterns_text(endpoints),
            cache_mode=cache_mode,
            expires_at_ms=expires_at_ms,
            owner=owner,
            tags=json_text(dict(tags or {})),
            created_at_ms=now_ms,
            changed=change,
        )
    )
    await connection.execute(
        insert(secrets).values(id=secret_id, key_id=secret_id, digest=digest, created_at_ms=now_ms)
    )
    await set_plain_limits(connection, limits, team_id=team_id, key_id=secret_id, now_ms=now_ms)
    return await find_key_by_id(connection, secret_id)


async def list_keys(connection: AsyncConnection, team_id: str | None = None) -> list[KeyRow]:
    """All keys, or a team's, oldest first; the revoked too."""
    return await keys_where(connection, *(() if team_id is None else (keys.c.team_id == team_id,)))


async def find_key(connection: AsyncConnection, name_or_id: str, team_id: str | None = None) -> KeyRow:
    """The key with this id, else the team's with this name (any team's, if only one has it), else the one with a
    secret of this public id, which is what the text of a key and logs tell. Raises NoSuchKey.
    """
    of_secret = select(secrets.c.key_id).where(secrets.c.id == name_or_id)
    named: ColumnElement[bool] = or_(keys.c.id == name_or_id, keys.c.name == name_or_id)
    of_team = () if team_id is None else (keys.c.team_id == team_id,)
    found = await keys_where(connection, named, *of_team)
    if not found:
        found = await keys_where(connection, keys.c.id.in_(of_secret), *of_team)
    exact = [key for key in found if key.id == name_or_id] or found
    if not exact:
        raise NoSuchKey(f"There is no key {name_or_id!r}.")
    if len(exact) > 1:
        raise NoSuchKey(f"{len(exact)} teams have a key {name_or_id!r}: name the team, or use the key's id.")
    return exact[0]


async def update_key(connection: AsyncConnection, key_id: str, changes: KeyChanges, *, now_ms: int) -> KeyRow:
    """Raises NoSuchKey, NameTaken, LimitInvalid."""
    change = await next_change(connection)
    key = await find_key_by_id(connection, key_id)
    columns = columns_of(changes)
    plain = columns.pop("limits")
    for name in ("models", "endpoints"):
        if name in columns:
            columns[name] = patterns_text(columns[name])
    if "tags" in columns:
        columns["tags"] = json_text(columns["tags"])
    if changes.name is not UNSET:
        await _require_free(connection, key.team_id, changes.name, except_id=key_id)
    await set_plain_limits(connection, plain, team_id=key.team_id, key_id=key_id, now_ms=now_ms)
    return await _change(connection, key_id, change, columns)


async def revoke_key(connection: AsyncConnection, key_id: str, *, now_ms: int, at_once: bool = False) -> KeyRow:
    """Ends a key: nothing more begins with it. The time of an earlier revocation stays. Raises NoSuchKey.

    ``at_once`` revokes its secrets as well, which also cuts off what runs with them.
    """
    change = await next_change(connection)
    key = await find_key_by_id(connection, key_id)
    if at_once:
        living = update(secrets).where(secrets.c.key_id == key_id, secrets.c.revoked_at_ms.is_(None))
        await connection.execute(living.values(revoked_at_ms=now_ms))
    return await _change(connection, key_id, change, {"revoked_at_ms": key.revoked_at_ms or now_ms})


async def find_key_by_id(connection: AsyncConnection, key_id: str) -> KeyRow:
    """Raises NoSuchKey."""
    found = await keys_where(connection, keys.c.id == key_id)
    if not found:
        raise NoSuchKey(f"There is no key {key_id!r}.")
    return found[0]


async def add_secret(
    connection: AsyncConnection,
    *,
    key_id: str,
    secret_id: str,
    digest: bytes,
    now_ms: int,
    expires_at_ms: int | None = None,
) -> SecretRow:
    """A further secret of a key, beside those that it has. Raises NoSuchKey, SecretTaken."""
    change = await next_change(connection)
    await _change(connection, key_id, change, {})
    await _require_new(connection, secret_id, digest)
    secret = SecretRow(secret_id, key_id, digest, now_ms, expires_at_ms, None)
    await connection.execute(insert(secrets).values(**msgspec.structs.asdict(secret)))
    return secret


async def list_secrets(connection: AsyncConnection, key_id: str) -> list[SecretRow]:
    """A key's secrets, oldest first."""
    asked = select(secrets).where(secrets.c.key_id == key_id).order_by(secrets.c.created_at_ms, secrets.c.id)
    return [secret_from(row) for row in (await connection.execute(asked)).mappings()]


async def secrets_of_keys(connection: AsyncConnection, key_ids: Sequence[str]) -> dict[str, list[SecretRow]]:
    """Each key's secrets, oldest first."""
    asked = select(secrets).where(secrets.c.key_id.in_(key_ids)).order_by(secrets.c.created_at_ms, secrets.c.id)
    found: dict[str, list[SecretRow]] = {key_id: [] for key_id in key_ids}
    for row in (await connection.execute(asked)).mappings():
        found[row["key_id"]].append(secret_from(row))
    return found


async def expire_secret(
    connection: AsyncConnection, key_id: str, secret_id: str, *, expires_at_ms: int | None, now_ms: int
) -> None:
    """Moves the end of one secret of a key; None: it has none. Raises NoSuchKey, also of a secret that is revoked or
    has ended: whoever found it may not use it again.
    """
    change = await next_change(connection)
    lives = and_(
        secrets.c.revoked_at_ms.is_(None), or_(secrets.c.expires_at_ms.is_(None), secrets.c.expires_at_ms > now_ms)
    )
    moved = (
        update(secrets)
        .where(secrets.c.id == secret_id, secrets.c.key_id == key_id, lives)
        .values(expires_at_ms=expires_at_ms)
    )
    if not (await connection.execute(moved)).rowcount:
        raise NoSuchKey(f"The key has no living secret {secret_id!r}.")
    await _change(connection, key_id, change, {})


async def expire_other_secrets(
    connection: AsyncConnection, key_id: str, keep_secret_id: str, *, expires_at_ms: int
) -> None:
    """Lets a key's other secrets end by ``expires_at_ms``: the second half of a rotation. Raises NoSuchKey."""
    change = await next_change(connection)
    await _change(connection, key_id, change, {})
    later: ColumnElement[bool] = or_(secrets.c.expires_at_ms.is_(None), secrets.c.expires_at_ms > expires_at_ms)
    await connection.execute(
        update(secrets)
        .where(secrets.c.key_id == key_id, secrets.c.id != keep_secret_id, later)
        .values(expires_at_ms=expires_at_ms)
    )


async def rotate_key(
    connection: AsyncConnection,
    *,
    key_id: str,
    secret_id: str,
    digest: bytes,
    now_ms: int,
    overlap_ms: int,
) -> KeyRow:
    """A further secret for a key, whose others end after the overlap. Raises NoSuchKey, also of a revoked key, and
    SecretTaken.
    """
    if (await find_key_by_id(connection, key_id)).revoked_at_ms is not None:
        raise NoSuchKey(f"The key {key_id!r} is revoked: make another one.")
    await add_secret(connection, key_id=key_id, secret_id=secret_id, digest=digest, now_ms=now_ms)
    await expire_other_secrets(connection, key_id, secret_id, expires_at_ms=now_ms + overlap_ms)
    return await find_key_by_id(connection, key_id)


async def revoke_secret(connection: AsyncConnection, secret_id: str, *, now_ms: int) -> None:
    """Ends one secret, and what runs with it; the time of an earlier revocation stays. Raises NoSuchKey."""
    change = await next_change(connection)
    ended = (
        update(secrets)
        .where(secrets.c.id == secret_id)
        .values(revoked_at_ms=func.coalesce(secrets.c.revoked_at_ms, now_ms))
        .returning(secrets.c.key_id)
    )
    key_id = (await connection.execute(ended)).scalar_one_or_none()
    if key_id is None:
        raise NoSuchKey(f"There is no secret {secret_id!r}.")
    await _change(connection, key_id, change, {})


async def _change(connection: AsyncConnection, key_id: str, change: int, columns: dict[str, Any]) -> KeyRow:
    await connection.execute(update(keys).where(keys.c.id == key_id).values(**columns, changed=change))
    return await find_key_by_id(connection, key_id)


async def keys_where(connection: AsyncConnection, *asked: ColumnElement[bool]) -> list[KeyRow]:
    """Keys for which all of ``asked`` holds, oldest first."""
    found = select(keys).where(*asked).order_by(keys.c.created_at_ms, keys.c.id)
    rows = list((await connection.execute(found)).mappings())
    rules = await rules_of_keys(connection, and_(true(), *asked))
    return [key_from(row, rules.get(row["id"], ())) for row in rows]


async def _require_free(connection: AsyncConnection, team_id: str, name: str, except_id: str = "") -> None:
    taken = select(keys.c.id).where(keys.c.team_id == team_id, keys.c.name == name, keys.c.id != except_id)
    if (await connection.execute(taken)).first() is not None:
        raise NameTaken(f"The team has a key {name!r} already.")


async def _require_new(connection: AsyncConnection, secret_id: str, digest: bytes) -> None:
    taken = select(secrets.c.id).where(or_(secrets.c.id == secret_id, secrets.c.digest == digest))
    if (await connection.execute(taken)).first() is not None:
        raise SecretTaken("There is a key with this text or this public id already.")
