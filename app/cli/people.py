"""``headgate teams`` and ``headgate keys``: work on the ledger; running servers follow within a second."""

from __future__ import annotations

import time
from typing import Annotated, Any, TypeVar

import typer
from msgspec import UNSET, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.keys import mint
from app.cli.options import (
    AsJson,
    Concurrency,
    DataDir,
    Endpoints,
    Expires,
    Models,
    RequestsPerMinute,
    TokensPerMinute,
    expiry_of,
    limit_of,
    moment_text,
    name_of,
    patterns_of,
    reading,
    writing,
)
from app.cli.output import Format, run, show_object, show_rows
from app.core.identity import LimitSettings
from app.edge.endpoints import FAMILIES
from app.store import keys as stored_keys
from app.store import teams as stored_teams
from app.store.keys import KeyChanges
from app.store.rows import KeyRow, TeamRow
from app.store.teams import TeamChanges

T = TypeVar("T")

teams = typer.Typer(help="Teams: who shares limits and a bill.", no_args_is_help=True)
keys = typer.Typer(help="Keys: what an SDK is given.", no_args_is_help=True)

TEAM_COLUMNS = ("id", "name", "requests_per_minute", "tokens_per_minute", "concurrency", "created_at")
KEY_COLUMNS = (
    "id",
    "team",
    "name",
    "state",
    "requests_per_minute",
    "tokens_per_minute",
    "concurrency",
    "models",
    "endpoints",
    "expires_at",
    "created_at",
)
Style = Annotated[Format, typer.Option("--format", help="How rows come out.")]
Team = Annotated[str | None, typer.Option("--team", help="The team's name or id.")]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# -- teams ------------------------------------------------------------------------------------


@teams.command("create")
def create_team(
    name: Annotated[str, typer.Option("--name", help="Unique among teams.")],
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrency: Concurrency = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a team."""
    limits = _limits(requests_per_minute, tokens_per_minute, concurrency)

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            team = await stored_teams.create_team(connection, name=name_of(name), now_ms=now_ms(), limits=limits)
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
def update_team(
    team: Annotated[str, typer.Argument(help="The team's name or id.")],
    name: Annotated[str | None, typer.Option("--name")] = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrency: Concurrency = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Rename a team or change its limits."""
    changes = TeamChanges(
        name=UNSET if name is None else name_of(name),
        requests_per_minute=limit_of(requests_per_minute),
        tokens_per_minute=limit_of(tokens_per_minute),
        concurrency=limit_of(concurrency),
    )

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            found = await stored_teams.find_team(connection, team)
            return _team(await stored_teams.update_team(connection, found.id, changes))

    show_object(run(work()), as_json=as_json)


# -- keys -------------------------------------------------------------------------------------


@keys.command("create")
def create_key(
    team: Annotated[str, typer.Option("--team", help="The team's name or id.")],
    name: Annotated[str, typer.Option("--name", help="Unique within the team.")],
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrency: Concurrency = None,
    models: Models = None,
    endpoints: Endpoints = None,
    expires: Expires = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key; its text is shown this once."""
    minted = mint()
    limits = _limits(requests_per_minute, tokens_per_minute, concurrency)
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
                limits=limits,
                models=_given(patterns_of(models)),
                endpoints=_given(patterns_of(endpoints, FAMILIES)),
                expires_at_ms=_given(expiry_of(expires, at_ms)),
            )
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
    """Show one key; never its secret."""

    async def work() -> dict[str, Any]:
        async with reading(data_dir) as connection:
            found, team_name = await _find(connection, key, team)
            secrets = await stored_keys.list_secrets(connection, found.id)
            return {**_key(found, team_name), "secrets": [secret.id for secret in secrets]}

    show_object(run(work()), as_json=as_json)


@keys.command("update")
def update_key(
    key: KeyName,
    team: Team = None,
    name: Annotated[str | None, typer.Option("--name")] = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrency: Concurrency = None,
    models: Models = None,
    endpoints: Endpoints = None,
    expires: Expires = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change a key's name, limits, models, endpoints or expiry."""
    changes = KeyChanges(
        name=UNSET if name is None else name_of(name),
        requests_per_minute=limit_of(requests_per_minute),
        tokens_per_minute=limit_of(tokens_per_minute),
        concurrency=limit_of(concurrency),
        models=patterns_of(models),
        endpoints=patterns_of(endpoints, FAMILIES),
        expires_at_ms=expiry_of(expires, now_ms()),
    )

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            found, team_name = await _find(connection, key, team)
            return _key(await stored_keys.update_key(connection, found.id, changes), team_name)

    show_object(run(work()), as_json=as_json)


@keys.command("revoke")
def revoke_key(key: KeyName, team: Team = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """End a key, everywhere within a second; what is running runs to its end."""

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            found, team_name = await _find(connection, key, team)
            return _key(await stored_keys.revoke_key(connection, found.id, now_ms=now_ms()), team_name)

    show_object(run(work()), as_json=as_json)


async def _find(connection: AsyncConnection, key: str, team: str | None) -> tuple[KeyRow, str]:
    team_id = (await stored_teams.find_team(connection, team)).id if team is not None else None
    found = await stored_keys.find_key(connection, key, team_id)
    return found, (await stored_teams.find_team(connection, found.team_id)).name


def _limits(requests: str | None, tokens: str | None, concurrency: str | None) -> LimitSettings:
    return LimitSettings(_given(limit_of(requests)), _given(limit_of(tokens)), _given(limit_of(concurrency)))


def _given(value: T | UnsetType | None) -> T | None:
    return None if value is UNSET else value


def _team(team: TeamRow) -> dict[str, Any]:
    return {
        "id": team.id,
        "name": team.name,
        **_limit_columns(team.limits),
        "created_at": moment_text(team.created_at_ms),
    }


def _key(key: KeyRow, team_name: str) -> dict[str, Any]:
    expired = key.expires_at_ms is not None and key.expires_at_ms <= now_ms()
    return {
        "id": key.id,
        "team": team_name,
        "name": key.name,
        "state": "revoked" if key.revoked_at_ms is not None else "expired" if expired else "active",
        **_limit_columns(key.limits),
        "models": key.models,
        "endpoints": key.endpoints,
        "expires_at": moment_text(key.expires_at_ms),
        "revoked_at": moment_text(key.revoked_at_ms),
        "created_at": moment_text(key.created_at_ms),
    }


def _limit_columns(limits: LimitSettings) -> dict[str, int | None]:
    return {
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "concurrency": limits.concurrency,
    }
