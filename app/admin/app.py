"""The control plane's application: what people and monitoring ask, never what SDKs do."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from app import __version__
from app.admin.answers import BUG
from app.admin.console import mount_console
from app.admin.document import DESCRIPTION, describe, routes_of
from app.admin.guard import Guard
from app.admin.routes import (
    alerts,
    audit,
    budgets,
    keys,
    limits,
    live,
    me,
    overview,
    prices,
    records,
    session,
    sso,
    teams,
    upstreams,
    usage,
)
from app.admin.wire import Tools, add_error_handlers
from app.core.errors import InvalidAPIKey
from app.telemetry.metrics import Metrics

ADMIN_API = "/admin/api/v1"
ROUTERS: tuple[APIRouter, ...] = (
    session.router,
    sso.router,
    teams.router,
    keys.router,
    overview.router,
    usage.router,
    records.router,
    budgets.router,
    limits.router,
    upstreams.router,
    prices.router,
    audit.router,
    live.router,
    alerts.router,
)
OWN_ROUTERS: tuple[APIRouter, ...] = (me.router, live.own_router)
"""What a plain key may see of itself, at `/me`."""


def create_control_plane(tools: Tools, *, host: str, metrics_token: str | None) -> FastAPI:
    """The FastAPI application. ``host`` is where the gateway listens: metrics are open on loopback only."""
    app = FastAPI(
        title="Headgate admin API",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/admin/api/openapi.json",
        separate_input_output_schemas=False,
        # Another spelling of an address is not one: the redirect would go to whatever the host header says.
        redirect_slashes=False,
    )
    app.state.tools = tools
    page = _MetricsPage(tools.metrics)
    is_open = _is_loopback(host)

    @app.get("/metrics", include_in_schema=False)
    async def read_metrics(request: Request) -> Response:
        if not is_open and not _bears(request, metrics_token):
            raise _MetricsTokenWrong(metrics_token is not None)
        return Response(await page.render(), media_type=CONTENT_TYPE_LATEST)

    mount_console(app)
    for router in ROUTERS:
        app.include_router(router, prefix=ADMIN_API, responses=BUG)
    for router in OWN_ROUTERS:
        app.include_router(router, responses=BUG)
    describe(app, {**routes_of(ROUTERS, ADMIN_API), **routes_of(OWN_ROUTERS, "")})
    add_error_handlers(app)
    app.add_middleware(Guard)
    return app


class _MetricsTokenWrong(InvalidAPIKey):
    def __init__(self, is_set: bool) -> None:  # noqa: FBT001 - one fact
        super().__init__(
            "The metrics need the token of HEADGATE_METRICS_TOKEN as a bearer."
            if is_set
            else "The metrics are closed: the gateway listens beyond loopback and HEADGATE_METRICS_TOKEN is not set."
        )


class _MetricsPage:
    """Rendered off the event loop, one at a time; who waits while another's is made shares the next one."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._rendered = b""
        self._begun_s = 0.0
        self._lock = asyncio.Lock()

    async def render(self) -> bytes:
        """The page as it stands now: never one that was begun before it was asked for."""
        asked_s = time.monotonic()
        async with self._lock:
            if self._begun_s < asked_s:
                self._begun_s = time.monotonic()
                self._rendered = await asyncio.to_thread(self._metrics.render)
            return self._rendered


def _bears(request: Request, token: str | None) -> bool:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    return token is not None and hmac.compare_digest(given.encode(), token.encode())


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
