"""The control plane's application: what people and monitoring ask, never what SDKs do."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from app import __version__
from app.admin.console import mount_console
from app.core.errors import GatewayError, InternalError, InvalidAPIKey, NotFound, render
from app.core.ids import new_request_id
from app.telemetry.metrics import Metrics


def create_control_plane(metrics: Metrics, *, host: str, metrics_token: str | None) -> FastAPI:
    """The FastAPI application. ``host`` is where the gateway listens: metrics are open on loopback only."""
    app = FastAPI(title="Headgate", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    page = _MetricsPage(metrics)
    is_open = _is_loopback(host)

    @app.get("/metrics", include_in_schema=False)
    async def read_metrics(request: Request) -> Response:
        if not is_open and not _bears(request, metrics_token):
            raise _MetricsTokenWrong(metrics_token is not None)
        return Response(await page.render(), media_type=CONTENT_TYPE_LATEST)

    mount_console(app)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(GatewayError, _answer_gateway)
    app.add_exception_handler(Exception, _answer_bug)
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


Answer = Callable[[Request, Exception], Awaitable[Response]]


async def _answer_http(_request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code not in {404, 405}:
        return JSONResponse(
            {"error": {"message": str(error.detail), "type": "invalid_request_error", "param": None, "code": None}},
            error.status_code,
        )
    return _rendered(NotFound("There is no such page."))


async def _answer_gateway(_request: Request, error: Exception) -> Response:
    return _rendered(error if isinstance(error, GatewayError) else InternalError())


async def _answer_bug(_request: Request, _error: Exception) -> Response:
    return _rendered(InternalError())


def _rendered(error: GatewayError) -> Response:
    status, headers, body = render(error, new_request_id(time.time_ns() // 1_000_000))
    response = Response(body, status)
    response.raw_headers = headers
    return response
