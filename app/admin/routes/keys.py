"""Keys: made, found, changed, rotated with an overlap, revoked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from msgspec import UNSET, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.access import Caller
from app.admin.answers import OF_OTHERS, TAKEN
from app.admin.families import families_sent, require_may_give
from app.admin.naming import key_of, limits_by_owner, secret_of
from app.admin.schemas.fields import ms_of
from app.admin.schemas.people import (
    Key,
    KeyChanged,
    KeyCounts,
    KeyMade,
    Keys,
    NewKey,
    Revocation,
    Rotation,
    SecretChanged,
    SecretUses,
)
from app.admin.spending import spent_this_month
from app.admin.wire import Cursor, KeyKeeper, Limit, Reader, Tools, ToolsOf, cursor_text, position_of
from app.auth.keys import mint
from app.core.errors import InvalidRequest, NotFound
from app.store import keys as stored
from app.store.audit import note_change
from app.store.colors import bind_colors
from app.store.errors import NoSuchKey
from app.store.explanations import iso_time
from app.store.keys import KeyChanges
from app.store.people import KeyListing, KeySearch, count_keys, names_of_teams, search_keys
from app.store.rows import KeyRow
from app.store.secret_uses import HOUR_MS, HOURS, SecretDay, last_day, last_uses

router = APIRouter(tags=["keys"])
KeyId = Annotated[str, Path(max_length=64)]
SecretId = Annotated[str, Path(max_length=64)]
TeamId = Annotated[str | None, Query(max_length=64, description="Of this team.")]
NOTHING = SecretDay(0, (0,) * HOURS, ())


@router.get("/keys", summary="Keys", response_model=Keys)
async def read_keys(
    caller: Reader,
    tools: ToolsOf,
    team: TeamId = None,
    state: KeyListing = "active",
    q: Annotated[str | None, Query(max_length=100, description="In name, id, secret, team, owner or tag.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """By team and name. `expiring`: within seven days; `unused`: not for thirty; `rotating`: with two secrets."""
    after = position_of(cursor, tuple[str, str, str])
    search = KeySearch(listing=state, team_id=_team_asked(caller, team), text=q)
    async with tools.database.read() as connection:
        found = await search_keys(connection, search, now_ms=tools.clock.now_ms(), limit=limit + 1, after=after)
        shown = await _shown(connection, tools, [key for _, key in found[:limit]])
    following = cursor_text(found[limit - 1][0]) if len(found) > limit else None
    return {"data": await _colored(tools, shown), "next": following}


@router.get("/keys/counts", summary="How many keys there are", response_model=KeyCounts)
async def read_key_counts(caller: Reader, tools: ToolsOf, team: TeamId = None) -> dict[KeyListing, int]:
    """Of each state that `GET keys` lists."""
    async with tools.database.read() as connection:
        return await count_keys(connection, _team_asked(caller, team), now_ms=tools.clock.now_ms())


@router.post("/keys", summary="Make a key", status_code=201, response_model=NewKey, responses={**OF_OTHERS, **TAKEN})
async def make_key(body: KeyMade, caller: KeyKeeper, tools: ToolsOf) -> dict[str, Any]:
    """Its text is in this answer and never again. A lead makes keys of one team, with families that the team has."""
    if not caller.sees(body.team_id):
        raise NotFound(f"There is no team {body.team_id!r}.")
    now_ms = tools.clock.now_ms()
    minted = mint()
    families = families_sent(body.endpoints, tools)
    async with tools.database.transaction() as connection:
        await require_may_give(connection, caller, tools, team_id=body.team_id, families=families)
        key = await stored.create_key(
            connection,
            team_id=body.team_id,
            name=body.name,
            secret_id=minted.id,
            digest=minted.digest,
            now_ms=now_ms,
            limits=body.plain_limits(),
            models=None if body.models is None else tuple(body.models),
            endpoints=families,
            cache_mode=body.cache_mode,
            expires_at_ms=_expiry(body, now_ms),
            owner=body.owner,
            tags=body.tags,
        )
        shown = (await _shown(connection, tools, [key]))[0]
        await _note(connection, caller, "key.create", now_ms, None, shown)
    return {**(await _colored(tools, [shown]))[0], "key": minted.text, "secret_id": minted.id}


@router.get("/keys/{key_id}", summary="One key", response_model=Key)
async def read_key(key_id: KeyId, caller: Reader, tools: ToolsOf) -> dict[str, Any]:
    """With its secrets: their public ids and when each was last used."""
    async with tools.database.read() as connection:
        shown = await _shown(connection, tools, [await _own(connection, caller, key_id)])
    return (await _colored(tools, shown))[0]


@router.patch("/keys/{key_id}", summary="Change a key", response_model=Key, responses=TAKEN)
async def change_key(key_id: KeyId, body: KeyChanged, caller: KeyKeeper, tools: ToolsOf) -> dict[str, Any]:
    """What is left out stays; null takes a restriction away."""
    now_ms = tools.clock.now_ms()
    models = body.sent("models")
    families = families_sent(body.endpoints, tools)
    changes = KeyChanges(
        name=UNSET if body.name is None else body.name,
        limits=body.plain_limits(),
        models=tuple(models) if isinstance(models, list) else models,
        endpoints=families if "endpoints" in body.model_fields_set else UNSET,
        cache_mode=body.sent("cache_mode"),
        expires_at_ms=_expiry(body, now_ms) if "expires_at" in body.model_fields_set else UNSET,
        owner=body.sent("owner"),
        tags=_tags(body),
    )
    async with tools.database.transaction() as connection:
        key = await _own(connection, caller, key_id)
        await require_may_give(connection, caller, tools, team_id=key.team_id, families=families, owned=key.endpoints)
        before = (await _shown(connection, tools, [key]))[0]
        changed = await stored.update_key(connection, key_id, changes, now_ms=now_ms)
        shown = (await _shown(connection, tools, [changed]))[0]
        await _note(connection, caller, "key.update", now_ms, before, shown)
    return (await _colored(tools, [shown]))[0]


@router.post("/keys/{key_id}/rotate", summary="Give a key another secret", response_model=NewKey)
async def rotate_key(key_id: KeyId, body: Rotation, caller: KeyKeeper, tools: ToolsOf) -> dict[str, Any]:
    """Id, limits and usage stay; the other secrets end after the overlap. The new text is in this answer only."""
    now_ms = tools.clock.now_ms()
    minted = mint()
    async with tools.database.transaction() as connection:
        before = (await _shown(connection, tools, [await _own(connection, caller, key_id)]))[0]
        key = await stored.rotate_key(
            connection,
            key_id=key_id,
            secret_id=minted.id,
            digest=minted.digest,
            now_ms=now_ms,
            overlap_ms=body.overlap_s * 1000,
        )
        shown = (await _shown(connection, tools, [key]))[0]
        await _note(connection, caller, "key.rotate", now_ms, before, shown)
    return {**(await _colored(tools, [shown]))[0], "key": minted.text, "secret_id": minted.id}


@router.post("/keys/{key_id}/revoke", summary="Revoke a key", response_model=Key)
async def revoke_key(key_id: KeyId, body: Revocation, caller: KeyKeeper, tools: ToolsOf) -> dict[str, Any]:
    """Everywhere within a second, and not to be undone. What runs ends as it would, but for `at_once`."""
    now_ms = tools.clock.now_ms()
    async with tools.database.transaction() as connection:
        key = await _own(connection, caller, key_id)
        if body.name != key.name:
            raise InvalidRequest("This is not the key's name.", param="name")
        before = (await _shown(connection, tools, [key]))[0]
        revoked = await stored.revoke_key(connection, key_id, now_ms=now_ms, at_once=body.at_once)
        shown = (await _shown(connection, tools, [revoked]))[0]
        await _note(connection, caller, "key.revoke", now_ms, before, shown)
    return (await _colored(tools, [shown]))[0]


# -- secrets ----------------------------------------------------------------------------------


@router.get("/keys/{key_id}/secrets", summary="Who still uses which secret", response_model=SecretUses)
async def read_secrets(key_id: KeyId, caller: Reader, tools: ToolsOf) -> dict[str, Any]:
    """Each secret's last 24 hours, and the tags that it was used with."""
    now_ms = tools.clock.now_ms()
    async with tools.database.read() as connection:
        await _own(connection, caller, key_id)
        secrets = await stored.list_secrets(connection, key_id)
        used = await last_uses(connection, [secret.id for secret in secrets])
        days = await last_day(connection, key_id, now_ms=now_ms)
    data = []
    for secret in secrets:
        day = days.get(secret.id, NOTHING)
        labels = [
            {
                "name": use.name,
                "value": use.value,
                "last_used_at": iso_time(use.used_at_ms),
                "requests_last_hour": use.requests_last_hour,
            }
            for use in day.tags
        ]
        shown = secret_of(secret, used.get(secret.id), now_ms)
        recent = {"requests_last_hour": day.requests_last_hour, "hours": list(day.hours), "tags": labels}
        data.append({**shown, **recent})
    return {"data": data, "hours_from": iso_time(now_ms - HOURS * HOUR_MS)}


@router.patch("/keys/{key_id}/secrets/{secret_id}", summary="Move a secret's end", response_model=Key)
async def change_secret(
    key_id: KeyId, secret_id: SecretId, body: SecretChanged, caller: KeyKeeper, tools: ToolsOf
) -> dict[str, Any]:
    """Gives a secret more time; null: it does not end by itself. One that has ended stays so: rotate again."""
    now_ms = tools.clock.now_ms()
    expires_at_ms = None if body.expires_at is None else ms_of(body.expires_at)
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        raise InvalidRequest("expires_at is in the past: revoke the secret instead.", param="expires_at")
    async with tools.database.transaction() as connection:
        before = (await _shown(connection, tools, [await _own(connection, caller, key_id)]))[0]
        await stored.expire_secret(connection, key_id, secret_id, expires_at_ms=expires_at_ms, now_ms=now_ms)
        shown = (await _shown(connection, tools, [await stored.find_key_by_id(connection, key_id)]))[0]
        await _note(connection, caller, "secret.update", now_ms, before, shown)
    return (await _colored(tools, [shown]))[0]


@router.post("/keys/{key_id}/secrets/{secret_id}/revoke", summary="Stop a secret now", response_model=Key)
async def revoke_secret(key_id: KeyId, secret_id: SecretId, caller: KeyKeeper, tools: ToolsOf) -> dict[str, Any]:
    """Also ends what runs with it. The key's other secrets go on."""
    now_ms = tools.clock.now_ms()
    async with tools.database.transaction() as connection:
        before = (await _shown(connection, tools, [await _own(connection, caller, key_id)]))[0]
        if all(secret["id"] != secret_id for secret in before["secrets"]):
            raise NotFound(f"The key has no secret {secret_id!r}.")
        await stored.revoke_secret(connection, secret_id, now_ms=now_ms)
        shown = (await _shown(connection, tools, [await stored.find_key_by_id(connection, key_id)]))[0]
        await _note(connection, caller, "secret.revoke", now_ms, before, shown)
    return (await _colored(tools, [shown]))[0]


# -- what they share --------------------------------------------------------------------------


def _team_asked(caller: Caller, team_id: str | None) -> str | None:
    """The team whose keys are shown; a lead's own, and none where another's are asked for."""
    if caller.team_id is None:
        return team_id
    return caller.team_id if team_id in {None, caller.team_id} else ""


async def _own(connection: AsyncConnection, caller: Caller, key_id: str) -> KeyRow:
    """A key that this person sees. Raises NotFound, the same for a foreign and an unknown one."""
    try:
        found = await stored.find_key_by_id(connection, key_id)
    except NoSuchKey:
        found = None
    if found is None or not caller.sees(found.team_id):
        raise NotFound(f"There is no key {key_id!r}.")
    return found


def _expiry(body: KeyChanged, now_ms: int) -> int | None:
    if body.expires_at is None:
        return None
    expires_at_ms = ms_of(body.expires_at)
    if expires_at_ms <= now_ms:
        raise InvalidRequest("expires_at is in the past.", param="expires_at")
    return expires_at_ms


def _tags(body: KeyChanged) -> dict[str, str] | UnsetType:
    if "tags" not in body.model_fields_set:
        return UNSET
    return body.tags or {}


async def _shown(connection: AsyncConnection, tools: Tools, keys: Sequence[KeyRow]) -> list[dict[str, Any]]:
    """Keys as JSON tells them, their teams' colours still to come."""
    now_ms = tools.clock.now_ms()
    key_ids = [key.id for key in keys]
    team_ids = list({key.team_id for key in keys})
    names = await names_of_teams(connection, team_ids)
    limits = await limits_by_owner(connection, team_ids[0] if len(team_ids) == 1 else None)
    secrets = await stored.secrets_of_keys(connection, key_ids)
    used = await last_uses(connection, [secret.id for each in secrets.values() for secret in each])
    spent = await spent_this_month(connection, key_ids, now_ms=now_ms)
    return [
        key_of(
            key,
            team={"id": key.team_id, "name": names[key.team_id], "color": 0},
            limits=limits.get((key.team_id, key.id), ()),
            secrets=secrets[key.id],
            used_at_ms=used,
            spent=spent[key.id],
            now_ms=now_ms,
        )
        for key in keys
    ]


async def _colored(tools: Tools, shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    slots = await bind_colors(tools.database, "team", [key["team"]["id"] for key in shown])
    return [{**key, "team": {**key["team"], "color": slots.get(key["team"]["id"], 1)}} for key in shown]


async def _note(
    connection: AsyncConnection,
    caller: Caller,
    action: str,
    now_ms: int,
    before: dict[str, Any] | None,
    after: dict[str, Any],
) -> None:
    volatile = {"spent_month_usd", "requests_month", "last_used_at"}
    await note_change(
        connection,
        caller.actor,
        action=action,
        object_kind="key",
        object_id=after["id"],
        object_name=after["name"],
        team_id=after["team"]["id"],
        before=None if before is None else {name: value for name, value in before.items() if name not in volatile},
        after={name: value for name, value in after.items() if name not in volatile},
        now_ms=now_ms,
    )
