"""``headgate teams`` and ``headgate keys``: work on the ledger; running servers follow within a second."""

from __future__ import annotations

import time
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from msgspec import UNSET, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.keys import mint
from app.cli.noting import note
from app.cli.options import (
    AsJson,
    Cache,
    DataDir,
    Endpoints,
    Expires,
    Models,
    cache_mode_of,
    endpoints_of,
    expiry_of,
    moment_text,
    name_of,
    overlap_of,
    patterns_of,
    reading,
    writing,
)
from app.cli.output import Format, run, show_object, show_rows, warn
from app.cli.plain_limits import PLAIN_COLUMNS, PlainLimits, plain_columns, takes_limits
from app.core.families import EVERYTHING
from app.store import keys as stored_keys
from app.store import teams as stored_teams
from app.store.explanations import iso_time
from app.store.keys import KeyChanges
from app.store.rows import KeyRow, SecretRow, TeamRow
from app.store.teams import TeamChanges

T = TypeVar("T")

NO_ISOLATION = (
    f"{EVERYTHING} gives up the isolation of teams: paths that the gateway does not know are passed to the provider as "
    "they are, whatever they name, and leave no record."
)

teams = typer.Typer(help="Teams: who shares limits and a bill.", no_args_is_help=True)
keys = typer.Typer(help="Keys: what an SDK is given.", no_args_is_help=True)

TEAM_COLUMNS = ("id", "name", *PLAIN_COLUMNS, "endpoints", "created_at")
KEY_COLUMNS = (
    "id",
    "team",
    "name",
    "state",
    *PLAIN_COLUMNS,
    "models",
    "endpoints",
    "cache",
    "expires_at",
    "created_at",
)
Style = Annotated[Format, typer.Option("--format", help="How rows come out.")]
Team = Annotated[str | None, typer.Option("--team", help="The team's name or id.")]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# -- teams ------------------------------------------------------------------------------------


@teams.command("create")
@takes_limits
def create_team(
    name: Annotated[str, typer.Option("--name", help="Unique among teams.")],
    *,
    limits: PlainLimits,
    endpoints: Endpoints = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a team."""
    plain = limits.changes()
    families = _given(_families(endpoints))

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            team = await stored_teams.create_team(
                connection, name=name_of(name), now_ms=now_ms(), limits=plain, endpoints=families
            )
            await _note_team(connection, "team.create", None, team)
        return _team(team)

    show_object(run(work()), as_json=as_json)


@teams.command("list")
def list_teams(data_dir: DataDir = None, style: Style = Format.table, as_json: AsJson = False) -> None:
    """List all teams."""

    async def work() -> list[dict[str, Any]]:
        async with reading(data_dir) as connection:
            return [_team(team) for team in await stored_teams.list_teams(connection)]

    show_rows(run(work()), TEAM_COLUMNS, Format.json if as_json else style)


@teams.command("update")
@takes_limits
def update_team(
    team: Annotated[str, typer.Argument(help="The team's name or id.")],
    name: Annotated[str | None, typer.Option("--name")] = None,
    *,
    limits: PlainLimits,
    endpoints: Endpoints = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Rename a team, or change its limits or the endpoints of its keys."""
    new_name = UNSET if name is None else name_of(name)
    families = _families(endpoints)

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            found = await stored_teams.find_team(connection, team)
            changes = TeamChanges(name=new_name, limits=limits.changes(found.limits), endpoints=families)
            changed = await stored_teams.update_team(connection, found.id, changes, now_ms=now_ms())
            await _note_team(connection, "team.update", found, changed)
            return _team(changed)

    show_object(run(work()), as_json=as_json)


# -- keys -------------------------------------------------------------------------------------


@keys.command("create")
@takes_limits
def create_key(
    team: Annotated[str, typer.Option("--team", help="The team's name or id.")],
    name: Annotated[str, typer.Option("--name", help="Unique within the team.")],
    *,
    limits: PlainLimits,
    models: Models = None,
    endpoints: Endpoints = None,
    cache: Cache = None,
    expires: Expires = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key; its text is shown this once."""
    minted = mint()
    plain = limits.changes()
    families = _families(endpoints)
    at_ms = now_ms()

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            owner = await stored_teams.find_team(connection, team)
            key = await stored_keys.create_key(
                connection,
                team_id=owner.id,
                name=name_of(name),
                secret_id=minted.id,
                digest=minted.digest,
                now_ms=at_ms,
                limits=plain,
                models=_given(patterns_of(models)),
                endpoints=_given(families),
                cache_mode=_given(cache_mode_of(cache)),
                expires_at_ms=_given(expiry_of(expires, at_ms)),
            )
            await _note_key(connection, "key.create", None, key, owner.name)
        shown = _key(key, owner.name)
        return {"id": shown.pop("id"), "key": minted.text, **shown}

    show_object(run(work()), as_json=as_json)


@keys.command("list")
def list_keys(
    team: Team = None, data_dir: DataDir = None, style: Style = Format.table, as_json: AsJson = False
) -> None:
    """List keys, of all teams or of one."""

    async def work() -> list[dict[str, Any]]:
        async with reading(data_dir) as connection:
            team_id = (await stored_teams.find_team(connection, team)).id if team is not None else None
            names = {row.id: row.name for row in await stored_teams.list_teams(connection)}
            return [_key(key, names[key.team_id]) for key in await stored_keys.list_keys(connection, team_id)]

    show_rows(run(work()), KEY_COLUMNS, Format.json if as_json else style)


KeyName = Annotated[str, typer.Argument(help="The key's id, or its name.")]


@keys.command("show")
def show_key(key: KeyName, team: Team = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show one key and its secrets: their public ids, never their texts."""

    async def work() -> dict[str, Any]:
        async with reading(data_dir) as connection:
            found, team_name = await _find(connection, key, team)
            secrets = [_secret(secret) for secret in await stored_keys.list_secrets(connection, found.id)]
        told = secrets if as_json else [_secret_text(secret) for secret in secrets]
        return {**_key(found, team_name), "secrets": told}

    show_object(run(work()), as_json=as_json)


@keys.command("update")
@takes_limits
def update_key(
    key: KeyName,
    team: Team = None,
    name: Annotated[str | None, typer.Option("--name")] = None,
    *,
    limits: PlainLimits,
    models: Models = None,
    endpoints: Endpoints = None,
    cache: Cache = None,
    expires: Expires = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change a key's name, limits, models, endpoints, expiry, or how far it uses the cache."""
    changes = KeyChanges(
        name=UNSET if name is None else name_of(name),
        models=patterns_of(models),
        endpoints=_families(endpoints),
        cache_mode=cache_mode_of(cache),
        expires_at_ms=expiry_of(expires, now_ms()),
    )

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            found, team_name = await _find(connection, key, team)
            wanted = msgspec.structs.replace(changes, limits=limits.changes(found.limits))
            changed = await stored_keys.update_key(connection, found.id, wanted, now_ms=now_ms())
            await _note_key(connection, "key.update", found, changed, team_name)
            return _key(changed, team_name)

    show_object(run(work()), as_json=as_json)


@keys.command("rotate")
def rotate_key(
    key: KeyName,
    team: Team = None,
    overlap: Annotated[str, typer.Option("--overlap", metavar="24h|0", help="How long the others still work.")] = "24h",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a key another secret, shown this once; id, limits and usage stay, and the other secrets run out."""
    minted = mint()
    overlap_ms = overlap_of(overlap)

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            found, team_name = await _find(connection, key, team)
            before = await _ends(connection, found.id)
            rotated = await stored_keys.rotate_key(
                connection,
                key_id=found.id,
                secret_id=minted.id,
                digest=minted.digest,
                now_ms=now_ms(),
                overlap_ms=overlap_ms,
            )
            await _note_key(connection, "key.rotate", found, rotated, team_name, before)
        shown = _key(rotated, team_name)
        return {"id": shown.pop("id"), "key": minted.text, "secret_id": minted.id, **shown}

    show_object(run(work()), as_json=as_json)


@keys.command("revoke")
def revoke_key(
    key: KeyName,
    team: Team = None,
    at_once: Annotated[bool, typer.Option("--now", help="Cut off what is running, too.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """End a key, everywhere within a second; what is running runs to its end, but for --now."""

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            found, team_name = await _find(connection, key, team)
            before = await _ends(connection, found.id)
            revoked = await stored_keys.revoke_key(connection, found.id, now_ms=now_ms(), at_once=at_once)
            await _note_key(connection, "key.revoke", found, revoked, team_name, before)
            return _key(revoked, team_name)

    show_object(run(work()), as_json=as_json)


async def _note_team(connection: AsyncConnection, action: str, before: TeamRow | None, after: TeamRow) -> None:
    await note(
        connection,
        action,
        now_ms=now_ms(),
        object_id=after.id,
        object_name=after.name,
        team_id=after.id,
        before=None if before is None else _team(before),
        after=_team(after),
    )


async def _note_key(
    connection: AsyncConnection,
    action: str,
    before: KeyRow | None,
    after: KeyRow,
    team_name: str,
    ends_before: dict[str, str | None] | None = None,
) -> None:
    """``ends_before``: of its secrets, where they may have changed."""
    ends = ({}, {}) if ends_before is None else ({"ends": ends_before}, {"ends": await _ends(connection, after.id)})
    await note(
        connection,
        action,
        now_ms=now_ms(),
        object_id=after.id,
        object_name=after.name,
        team_id=after.team_id,
        before=None if before is None else {**_key(before, team_name), **ends[0]},
        after={**_key(after, team_name), **ends[1]},
    )


async def _ends(connection: AsyncConnection, key_id: str) -> dict[str, str | None]:
    """When each secret of a key ends, or has ended, by its public id."""
    return {
        secret.id: iso_time(secret.expires_at_ms if secret.revoked_at_ms is None else secret.revoked_at_ms)
        for secret in await stored_keys.list_secrets(connection, key_id)
    }


async def _find(connection: AsyncConnection, key: str, team: str | None) -> tuple[KeyRow, str]:
    team_id = (await stored_teams.find_team(connection, team)).id if team is not None else None
    found = await stored_keys.find_key(connection, key, team_id)
    return found, (await stored_teams.find_team(connection, found.team_id)).name


def _families(text: str | None) -> tuple[str, ...] | UnsetType | None:
    """What ``--endpoints`` gives. Raises BadParameter."""
    families = endpoints_of(text)
    if families is not UNSET and families is not None and EVERYTHING in families:
        warn(NO_ISOLATION)
    return families


def _given(value: T | UnsetType | None) -> T | None:
    return None if value is UNSET else value


def _team(team: TeamRow) -> dict[str, Any]:
    return {
        "id": team.id,
        "name": team.name,
        **plain_columns(team.limits),
        "endpoints": team.endpoints,
        "created_at": moment_text(team.created_at_ms),
    }


def _key(key: KeyRow, team_name: str) -> dict[str, Any]:
    expired = key.expires_at_ms is not None and key.expires_at_ms <= now_ms()
    return {
        "id": key.id,
        "team": team_name,
        "name": key.name,
        "state": "revoked" if key.revoked_at_ms is not None else "expired" if expired else "active",
        **plain_columns(key.limits),
        "models": key.models,
        "endpoints": key.endpoints,
        "cache": key.cache_mode,
        "expires_at": moment_text(key.expires_at_ms),
        "revoked_at": moment_text(key.revoked_at_ms),
        "created_at": moment_text(key.created_at_ms),
    }


def _secret(secret: SecretRow) -> dict[str, Any]:
    expired = secret.expires_at_ms is not None and secret.expires_at_ms <= now_ms()
    return {
        "id": secret.id,
        "state": "revoked" if secret.revoked_at_ms is not None else "expired" if expired else "active",
        "created_at": moment_text(secret.created_at_ms),
        "expires_at": moment_text(secret.expires_at_ms),
        "revoked_at": moment_text(secret.revoked_at_ms),
    }


def _secret_text(secret: dict[str, Any]) -> str:
    ends = secret["expires_at"] if secret["state"] == "active" else None
    return f"{secret['id']} ({secret['state']}{f' until {ends}' if ends else ''})"
