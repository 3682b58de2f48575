"""Self-service: what a plain key may see about itself. No other key is ever named."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request, Response

from app.admin.answers import answered
from app.admin.asking import Asked
from app.admin.own_limits import own_limits
from app.admin.record_pages import record_page, record_page_asked, records_asked
from app.admin.routes.records import SEARCHED
from app.admin.routes.usage import SORT
from app.admin.schemas.me import Me, OwnLimits
from app.admin.schemas.parameters import BY, CURSOR, FILTERS, PAGE, RANGE, documented, limit
from app.admin.schemas.records import Records
from app.admin.schemas.usage import Usage
from app.admin.usage_pages import PAGE_DEFAULT, PAGE_MAX, page_asked, question_asked, usage_page
from app.admin.wire import OwnKey, Tools, ToolsOf
from app.core.families import families_on
from app.store.explanations import iso_time

router = APIRouter(prefix="/me", tags=["me"])

HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")


@router.get("", summary="This key", response_model=Me)
async def read_me(principal: OwnKey, request: Request, tools: ToolsOf) -> Response:
    """Who it is, what it may ask for, and where."""
    return answered(
        {
            "key": {"id": principal.key_id, "name": principal.key_name},
            "team": {"name": principal.team_name},
            "models": principal.models,
            "endpoints": principal.endpoints,
            "families": families_on(principal.endpoints, tools.families, tools.default_families),
            "expires_at": iso_time(principal.expires_at_ms),
            "state": "active",
            "base_url": _base_url(request, tools),
        }
    )


@router.get("/limits", summary="What is left", response_model=OwnLimits)
async def read_own_limits(principal: OwnKey, tools: ToolsOf) -> Response:
    """Of each limit of the key and of its team; looking takes nothing. Money is what is settled: what running calls
    hold comes on top.
    """
    return answered({"data": await own_limits(tools, principal), "next": None})


@router.get(
    "/usage",
    summary="What this key used",
    response_model=Usage,
    openapi_extra=documented(BY, RANGE, FILTERS, SORT, limit(PAGE_DEFAULT, PAGE_MAX), CURSOR),
)
async def read_own_usage(principal: OwnKey, request: Request, tools: ToolsOf) -> Response:
    """As `/admin/api/v1/usage`, of this key alone."""
    asked = Asked(request.query_params.multi_items())
    question, page = page_asked(asked, question_asked(asked, tools.clock.now_ms()))
    asked.finish()
    return answered(await usage_page(tools.database, question.of_key(principal.team_id, principal.key_id), page))


@router.get(
    "/records",
    summary="What this key asked for",
    response_model=Records,
    openapi_extra=documented(RANGE, FILTERS, SEARCHED, PAGE),
)
async def read_own_records(principal: OwnKey, request: Request, tools: ToolsOf) -> Response:
    """As `/admin/api/v1/records`, of this key alone."""
    asked = Asked(request.query_params.multi_items())
    question = records_asked(asked, tools.clock.now_ms())
    page, before = record_page_asked(asked)
    asked.finish()
    own = question.of_key(principal.team_id, principal.key_id)
    return answered(await record_page(tools.database, own, page, before))


def _base_url(request: Request, tools: Tools) -> str:
    """Where this request came to, as its client calls it."""
    host = request.headers.get("host", "")
    scheme = "https" if tools.is_secure(request) else "http"
    return f"{scheme}://{host if HOST.fullmatch(host) else request.url.netloc}/v1"
