"""Signing in and out of the console, and admin tokens."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from app import __version__
from app.admin.access import COOKIE, SESSION_MS_MAX, Caller
from app.admin.answers import OF_OTHERS, TAKEN, WRONG
from app.admin.schemas.fields import ms_of
from app.admin.schemas.session import NewToken, Session, SignIn, Token, TokenMade, Tokens
from app.admin.wire import Administrator, Cursor, Limit, Tools, ToolsOf, next_offset, offset_of, require_known
from app.auth.keys import ADMIN_PREFIX, mint
from app.core.errors import InvalidRequest
from app.store.admin_tokens import (
    AdminTokenRow,
    create_admin_token,
    find_admin_token_by_id,
    list_admin_tokens,
    revoke_admin_token,
)
from app.store.audit import note_change
from app.store.explanations import iso_time
from app.store.people import names_of_teams
from app.store.sessions import close_sessions_of

router = APIRouter(tags=["session"])
SIGNED_IN: dict[str, Any] = {"security": [{"token": []}, {"session": []}]}
TokenId = Annotated[str, Path(max_length=64)]


@router.post("/session", summary="Sign in", response_model=Session, responses=WRONG)
async def sign_in(body: SignIn, request: Request, response: Response, tools: ToolsOf) -> dict[str, Any]:
    """Takes an admin token or a gateway key, and sets the cookie of a new session."""
    require_known(request)
    signed_in = await tools.access.sign_in(body.credential.get_secret_value(), request)
    response.set_cookie(
        COOKIE,
        signed_in.cookie,
        max_age=SESSION_MS_MAX // 1000,
        path="/",
        secure=tools.is_secure(request),
        httponly=True,
        samesite="strict",
    )
    return await _session(tools, signed_in.caller)


@router.get("/session", summary="Who is signed in", response_model=Session, openapi_extra=SIGNED_IN)
async def read_session(request: Request, tools: ToolsOf) -> dict[str, Any]:
    """Also what a bearer may do."""
    caller = await tools.access.signed_in(request)
    require_known(request)
    return await _session(tools, caller)


@router.delete("/session", summary="Sign out", status_code=204, openapi_extra=SIGNED_IN)
async def sign_out(request: Request, response: Response, tools: ToolsOf) -> None:
    """Ends the session on the gateway, not in the browser alone."""
    await tools.access.signed_in(request)
    require_known(request)
    await tools.access.sign_out(request)
    response.delete_cookie(COOKIE, path="/", secure=tools.is_secure(request), httponly=True, samesite="strict")


async def _session(tools: Tools, caller: Caller) -> dict[str, Any]:
    names = await _team_names(tools) if caller.team_id is not None else {}
    return {
        "kind": caller.kind,
        "role": caller.role,
        "name": caller.name,
        "team": _team(caller.team_id, names),
        "csrf": None if caller.session is None else caller.session.csrf,
        "expires_at": None if caller.session is None else iso_time(caller.session.expires_at_ms),
        "version": __version__,
        "sso": tools.sso is not None,
    }


# -- tokens -----------------------------------------------------------------------------------


@router.get("/tokens", summary="Admin tokens", response_model=Tokens)
async def read_tokens(
    _caller: Administrator, tools: ToolsOf, limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    """All of them, oldest first; the revoked too. Their texts are nowhere."""
    offset = offset_of(cursor)
    names = await _team_names(tools)
    async with tools.database.read() as connection:
        rows = await list_admin_tokens(connection)
    shown = [_token(row, names) for row in rows[offset : offset + limit]]
    return {"data": shown, "next": next_offset(len(rows), offset, limit)}


@router.post(
    "/tokens", summary="Make an admin token", status_code=201, response_model=NewToken, responses={**OF_OTHERS, **TAKEN}
)
async def make_token(body: TokenMade, caller: Administrator, tools: ToolsOf) -> dict[str, Any]:
    """Its text is in this answer and never again. A lead has a team, the other roles have none."""
    if (body.role == "lead") != (body.team_id is not None):
        raise InvalidRequest("A lead has a team, and no other role has one.", param="team_id")
    now_ms = tools.clock.now_ms()
    expires_at_ms = None if body.expires_at is None else ms_of(body.expires_at)
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        raise InvalidRequest("expires_at is in the past.", param="expires_at")
    minted = mint(ADMIN_PREFIX)
    async with tools.database.transaction() as connection:
        row = await create_admin_token(
            connection,
            name=body.name,
            role=body.role,
            digest=minted.digest,
            now_ms=now_ms,
            team_id=body.team_id,
            expires_at_ms=expires_at_ms,
        )
        shown = _token(row, await _team_names(tools))
        await note_change(
            connection,
            caller.actor,
            action="token.create",
            object_kind="token",
            object_id=row.id,
            object_name=row.name,
            team_id=row.team_id,
            after=shown,
            now_ms=now_ms,
        )
    return {**shown, "token": minted.text}


@router.delete("/tokens/{token_id}", summary="Revoke an admin token", response_model=Token)
async def revoke_token(token_id: TokenId, caller: Administrator, tools: ToolsOf) -> dict[str, Any]:
    """It opens nothing more, and whoever is signed in with it is signed out. One's own token is refused: another
    administrator revokes it.
    """
    if token_id == caller.id:
        raise InvalidRequest("This is the token that you are signed in with.", param="token_id")
    now_ms = tools.clock.now_ms()
    names = await _team_names(tools)
    async with tools.database.transaction() as connection:
        before = _token(await find_admin_token_by_id(connection, token_id), names)
        row = await revoke_admin_token(connection, token_id, now_ms=now_ms)
        await close_sessions_of(connection, "token", token_id)
        shown = _token(row, names)
        await note_change(
            connection,
            caller.actor,
            action="token.revoke",
            object_kind="token",
            object_id=row.id,
            object_name=row.name,
            team_id=row.team_id,
            before=before,
            after=shown,
            now_ms=now_ms,
        )
    return shown


async def _team_names(tools: Tools) -> dict[str, str]:
    async with tools.database.read() as connection:
        return await names_of_teams(connection)


def _team(team_id: str | None, names: dict[str, str]) -> dict[str, str] | None:
    return None if team_id is None else {"id": team_id, "name": names.get(team_id, team_id)}


def _token(row: AdminTokenRow, names: dict[str, str]) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "role": row.role,
        "team": _team(row.team_id, names),
        "created_at": iso_time(row.created_at_ms),
        "expires_at": iso_time(row.expires_at_ms),
        "revoked_at": iso_time(row.revoked_at_ms),
        "last_used_at": iso_time(row.used_at_ms),
    }
