"""``headgate tokens``: who may look after this gateway; the way in where no token is left."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from app.auth.keys import ADMIN_PREFIX, mint
from app.cli.noting import note
from app.cli.options import AsJson, DataDir, Expires, expiry_of, moment_text, name_of, reading, writing
from app.cli.output import Format, run, show_object, show_rows
from app.cli.people import now_ms
from app.store.admin_tokens import (
    AdminTokenRow,
    create_admin_token,
    find_admin_token_by_id,
    list_admin_tokens,
    revoke_admin_token,
)
from app.store.people import names_of_teams
from app.store.sessions import close_sessions_of
from app.store.teams import find_team

tokens = typer.Typer(help="Admin tokens: what the console and the admin API are opened with.", no_args_is_help=True)
COLUMNS = ("id", "name", "role", "team", "state", "created_at", "expires_at", "last_used_at")


class RoleOption(StrEnum):
    """What its holder may do."""

    admin = "admin"
    viewer = "viewer"
    lead = "lead"


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Option("--name", help="Whose it is.")],
    role: Annotated[RoleOption, typer.Option("--role")] = RoleOption.admin,
    team: Annotated[str | None, typer.Option("--team", help="Of a lead: the team's name or id.")] = None,
    expires: Expires = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make an admin token; its text is shown this once."""
    if (role is RoleOption.lead) != (team is not None):
        raise typer.BadParameter("a lead has a --team, and no other role has one")
    minted = mint(ADMIN_PREFIX)
    at_ms = now_ms()
    expires_at_ms = expiry_of(expires, at_ms)

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            owner = None if team is None else await find_team(connection, team)
            made = await create_admin_token(
                connection,
                name=name_of(name),
                role=role.value,
                digest=minted.digest,
                now_ms=at_ms,
                team_id=None if owner is None else owner.id,
                expires_at_ms=expires_at_ms if isinstance(expires_at_ms, int) else None,
            )
            shown = _token(made, {} if owner is None else {owner.id: owner.name})
            await note(
                connection,
                "token.create",
                now_ms=at_ms,
                object_id=made.id,
                object_name=made.name,
                team_id=made.team_id,
                after=shown,
            )
        return {"id": shown.pop("id"), "token": minted.text, **shown}

    show_object(run(work()), as_json=as_json)


@tokens.command("list")
def list_tokens(data_dir: DataDir = None, style: Annotated[Format, typer.Option("--format")] = Format.table) -> None:
    """List admin tokens, the revoked too."""

    async def work() -> list[dict[str, Any]]:
        async with reading(data_dir) as connection:
            names = await names_of_teams(connection)
            return [_token(row, names) for row in await list_admin_tokens(connection)]

    show_rows(run(work()), COLUMNS, style)


@tokens.command("revoke")
def revoke_token(
    token: Annotated[str, typer.Argument(help="The token's id.")], data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """End an admin token, and whoever is signed in with it."""

    async def work() -> dict[str, Any]:
        async with writing(data_dir) as connection:
            teams = await names_of_teams(connection)
            before = _token(await find_admin_token_by_id(connection, token), teams)
            ended = await revoke_admin_token(connection, token, now_ms=now_ms())
            await close_sessions_of(connection, "token", ended.id)
            shown = _token(ended, teams)
            await note(
                connection,
                "token.revoke",
                now_ms=now_ms(),
                object_id=ended.id,
                object_name=ended.name,
                team_id=ended.team_id,
                before=before,
                after=shown,
            )
            return shown

    show_object(run(work()), as_json=as_json)


def _token(row: AdminTokenRow, teams: dict[str, str]) -> dict[str, Any]:
    live = row.is_live(now_ms())
    return {
        "id": row.id,
        "name": row.name,
        "role": row.role,
        "team": None if row.team_id is None else teams.get(row.team_id, row.team_id),
        "state": "active" if live else "revoked" if row.revoked_at_ms is not None else "expired",
        "created_at": moment_text(row.created_at_ms),
        "expires_at": moment_text(row.expires_at_ms),
        "last_used_at": moment_text(row.used_at_ms),
    }
