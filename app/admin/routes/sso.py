"""Signing in through a provider; with the extra ``sso`` and ``sso:`` in the configuration."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse

from app.admin.access import COOKIE
from app.admin.answers import NO_PROVIDER, REFUSED
from app.admin.schemas.session import Provider
from app.admin.sso import STATE_COOKIE, STATE_S_MAX, cookie_of, remembered
from app.admin.wire import ToolsOf, require_known
from app.core.errors import Forbidden, NotFound
from app.store.people import names_of_teams

router = APIRouter(tags=["session"])
ROUTE = "/admin/api/v1/sso"
SSO_SESSION_MS_MAX = 12 * 60 * 60 * 1000
"""Groups are looked at when one signs in; who has left one is out by the next day."""


@router.get("/sso", summary="Whether one can sign in through a provider", response_model=Provider)
async def read_provider(request: Request, tools: ToolsOf) -> dict[str, bool]:
    """For the page to sign in, before anybody is known."""
    require_known(request)
    return {"enabled": tools.sso is not None}


@router.get(
    "/sso/login",
    summary="Sign in through the provider",
    status_code=303,
    response_class=RedirectResponse,
    responses=NO_PROVIDER,
)
async def begin(request: Request, tools: ToolsOf) -> RedirectResponse:
    """Sends the browser to the provider."""
    require_known(request)
    if tools.sso is None:
        raise NotFound("Signing in through a provider is not configured here.")
    url, began = await tools.sso.begin()
    answer = RedirectResponse(url, 303)
    # Lax: the provider's redirect back comes from its own site.
    answer.set_cookie(
        STATE_COOKIE,
        cookie_of(began),
        max_age=STATE_S_MAX,
        path=ROUTE,
        secure=tools.is_secure(request),
        httponly=True,
        samesite="lax",
    )
    return answer


@router.get(
    "/sso/callback",
    summary="Back from the provider",
    status_code=303,
    response_class=RedirectResponse,
    responses={**NO_PROVIDER, **REFUSED},
)
async def finish(
    request: Request,
    tools: ToolsOf,
    code: Annotated[str, Query(max_length=4096)] = "",
    state: Annotated[str, Query(max_length=256)] = "",
    error: Annotated[str, Query(max_length=256)] = "",
) -> RedirectResponse:
    """Sets the cookie of a new session, and sends the browser to the console."""
    if tools.sso is None:
        raise NotFound("Signing in through a provider is not configured here.")
    if error or not code:
        raise Forbidden("The sign-in provider did not let you in.")
    claims = await tools.sso.finish(remembered(request), state=state, code=code)
    async with tools.database.read() as connection:
        teams = {name: team_id for team_id, name in (await names_of_teams(connection)).items()}
    caller = tools.sso.caller(claims, teams, tools.access.peer(request))
    signed_in = await tools.access.open(caller, request, lasts_ms=SSO_SESSION_MS_MAX)
    answer = RedirectResponse("/", 303)
    answer.delete_cookie(STATE_COOKIE, path=ROUTE)
    answer.set_cookie(
        COOKIE,
        signed_in.cookie,
        max_age=SSO_SESSION_MS_MAX // 1000,
        path="/",
        secure=tools.is_secure(request),
        httponly=True,
        samesite="strict",
    )
    return answer
