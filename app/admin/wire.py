"""What routes of the control plane are given, and how their errors leave: always in the API's shape."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import Match

from app.admin.access import Access, Caller
from app.admin.asking import Asked
from app.admin.sso import SSO
from app.alerts.courier import Courier
from app.auth.authenticator import Authenticator
from app.catalog import Catalog
from app.core.clock import Clock
from app.core.errors import (
    Conflict,
    Forbidden,
    GatewayError,
    InternalError,
    InvalidRequest,
    LedgerUnavailable,
    MethodNotAllowed,
    NotFound,
    quoted,
    render,
)
from app.core.identity import Principal
from app.core.ids import new_request_id
from app.limits.limiter import Limit as CountedLimit
from app.metering.pricing import PriceBook
from app.settings import Configuration
from app.store.database import Database
from app.store.errors import (
    LimitInvalid,
    LimitTaken,
    NameTaken,
    NoSuchAlertRule,
    NoSuchKey,
    NoSuchLimit,
    NoSuchPrice,
    NoSuchTeam,
    NoSuchToken,
    StoreError,
    TooManyAlertRules,
    TooManyLimits,
    TooManyPrices,
)
from app.telemetry.live import LiveFeed
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics
from app.upstream.pool import UpstreamPool

LIMIT_MAX = 200
CURSOR_CHARS_MAX = 1024

T = TypeVar("T")


class InForce(msgspec.Struct, frozen=True):
    """What a configuration is compiled to; another one after each reload."""

    configuration: Configuration
    catalog: Catalog
    prices: PriceBook
    pools: Mapping[str, UpstreamPool]
    off: frozenset[str]


class Tools(msgspec.Struct, frozen=True):
    """What routes work with. ``in_force`` tells what the data plane goes by at this moment, ``is_secure`` whether
    a request came by TLS, ``families`` the endpoints that keys may be given, ``default_families`` those that they have
    without, ``peek`` what is counted of limits under the tag of a team: how much, and for how many milliseconds more;
    None where that is not known.
    """

    database: Database
    clock: Clock
    log: LogWriter
    metrics: Metrics
    access: Access
    authenticator: Authenticator
    in_force: Callable[[], InForce]
    is_secure: Callable[[HTTPConnection], bool]
    families: tuple[str, ...]
    default_families: frozenset[str]
    peek: Callable[[str, tuple[CountedLimit, ...]], Awaitable[tuple[tuple[int, int], ...] | None]]
    live: LiveFeed
    alerts: Courier
    sso: SSO | None = None

    def __repr__(self) -> str:
        return f"Tools(database={self.database!r})"


def tools_of(request: Request) -> Tools:
    """The application's tools."""
    tools: Tools = request.app.state.tools
    return tools


ToolsOf = Annotated[Tools, Depends(tools_of)]


def require_known(request: Request) -> None:
    """Raises InvalidRequest for a parameter that is given twice, or that the route does not have.

    A route whose parameters no signature can say (``tag.NAME``) names them in ``openapi_extra``, and reads them
    with ``Asked`` itself.
    """
    asked = Asked(request.query_params.multi_items())
    route = request.scope.get("route")
    if isinstance(route, APIRoute) and "parameters" not in (route.openapi_extra or {}):
        asked.skip(_parameters(route.dependant))
        asked.finish()


def _parameters(dependant: Dependant) -> Iterator[str]:
    """The parameters that a route's signature names, and those of what it depends on."""
    yield from (field.alias for field in dependant.query_params)
    for each in dependant.dependencies:
        yield from _parameters(each)


async def reader(request: Request, tools: ToolsOf) -> Caller:
    """An administrator, a viewer or a team lead."""
    caller = await tools.access.caller(request)
    require_known(request)
    return caller


Reader = Annotated[Caller, Depends(reader)]


async def viewer(caller: Reader) -> Caller:
    """An administrator or a viewer: what concerns all teams."""
    if caller.role not in {"admin", "viewer"}:
        raise Forbidden("This concerns all teams: an administrator or a viewer may see it.")
    return caller


async def administrator(caller: Reader) -> Caller:
    if caller.role != "admin":
        raise Forbidden("Only an administrator may do this.")
    return caller


async def key_keeper(caller: Reader) -> Caller:
    """An administrator, or the lead of a team, who keeps the keys of that team."""
    if caller.role not in {"admin", "lead"}:
        raise Forbidden("An administrator or the team's lead may do this.")
    return caller


async def own_key(request: Request, tools: ToolsOf) -> Principal:
    """A plain gateway key, for what it may see about itself."""
    principal = await tools.access.principal(request)
    require_known(request)
    return principal


Viewer = Annotated[Caller, Depends(viewer)]
Administrator = Annotated[Caller, Depends(administrator)]
KeyKeeper = Annotated[Caller, Depends(key_keeper)]
OwnKey = Annotated[Principal, Depends(own_key)]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="How many at most.")]
Cursor = Annotated[str | None, Query(max_length=CURSOR_CHARS_MAX, description="`next` of the page before.")]


# -- pages ----------------------------------------------------------------------------------------


def cursor_text(position: Sequence[str | int]) -> str:
    """Where a page ended, as text that clients pass back as it is."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(position))).decode().rstrip("=")


def position_of(cursor: str | None, type_: type[T]) -> T | None:
    """What ``cursor_text`` was given. Raises InvalidRequest where it is nothing of the kind."""
    if cursor is None:
        return None
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=type_)
        _require_storable(place)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise InvalidRequest("The cursor is not one of this list.", param="cursor") from error
    return place


def _require_storable(value: object) -> None:
    """Raises ValueError for what no database compares with: a number beyond 64 bits, text with NUL."""
    if isinstance(value, tuple):
        for part in value:
            _require_storable(part)
    elif (isinstance(value, int) and not -(2**63) <= value < 2**63) or (isinstance(value, str) and "\0" in value):
        raise ValueError("it cannot be stored")


def offset_of(cursor: str | None) -> int:
    """How many were shown before the page that ``cursor`` asks for, in a list whose order is not of its rows' own."""
    place = position_of(cursor, tuple[int])
    if place is None:
        return 0
    if not 0 < place[0] < 2**31:
        raise InvalidRequest("The cursor is not one of this list.", param="cursor")
    return place[0]


def next_offset(count: int, offset: int, limit: int) -> str | None:
    """``next`` of such a list."""
    return cursor_text([offset + limit]) if offset + limit < count else None


def page_of(rows: Sequence[Any], limit: int, position: Callable[[Any], Sequence[str | int]]) -> dict[str, Any]:
    """A page of ``rows``, of which one more than ``limit`` was asked for: ``data`` holds rows, not yet their JSON."""
    more = len(rows) > limit
    kept = list(rows[:limit])
    return {"data": kept, "next": cursor_text(position(kept[-1])) if more else None}


# -- errors ---------------------------------------------------------------------------------------

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
Answer = Callable[[Request, Exception], Awaitable[Response]]

NOT_FOUND = (NoSuchTeam, NoSuchKey, NoSuchLimit, NoSuchToken, NoSuchPrice, NoSuchAlertRule)
TAKEN = (NameTaken, LimitTaken)
INVALID = (LimitInvalid, TooManyLimits, TooManyPrices, TooManyAlertRules)


def add_error_handlers(app: FastAPI) -> None:
    """Every error of ``app`` leaves as ``{"error": {…}}``."""
    for kind in (HTTPException, RequestValidationError, GatewayError, StoreError, Exception):
        app.add_exception_handler(kind, _answer)


def as_gateway_error(error: Exception) -> GatewayError:
    """What a client is told of ``error``."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, NOT_FOUND):
        return NotFound(str(error))
    if isinstance(error, TAKEN):
        return Conflict(str(error))
    if isinstance(error, INVALID):
        return InvalidRequest(str(error))
    if isinstance(error, StoreError):
        return LedgerUnavailable("The ledger does not answer; try again.")
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, HTTPException):
        return _of_http(error)
    return InternalError()


def _of_http(error: HTTPException) -> GatewayError:
    if error.status_code == 405:
        return MethodNotAllowed()
    if error.status_code == 404:
        return NotFound("There is no such page.")
    return InvalidRequest("The request cannot be read.")


def _of_validation(error: RequestValidationError) -> GatewayError:
    """The first fault, with where it is. What was sent is not repeated: it may be a secret."""
    fault = error.errors()[0]
    place = [str(part) for part in fault["loc"] if part not in {"body", "query", "path", "header", "cookie"}]
    param = quoted(".".join(place)) or None
    if fault["type"] == "json_invalid":
        return InvalidRequest("The body is not JSON.")
    message = fault["msg"].removeprefix("Value error, ").rstrip(".")
    return InvalidRequest(f"{param}: {message}." if param else f"{message}.", param=param)


async def _answer(request: Request, error: Exception) -> Response:
    told = as_gateway_error(error)
    if isinstance(told, MethodNotAllowed):
        if not f"{request.url.path}/".startswith(("/admin/", "/me/")):
            told = NotFound("There is no such page.")
        else:
            told = MethodNotAllowed(headers=[(b"allow", ", ".join(_allowed(request)).encode())])
    if told.status >= 500 and not isinstance(told, InternalError):
        # A bug is logged by the server, which sees it as well. The class alone: a text may quote what was sent.
        tools: Tools | None = getattr(request.app.state, "tools", None)
        if tools is not None:
            tools.log.error("control_plane_failed", error=type(error).__name__, code=told.code)
    return rendered(told)


def _allowed(request: Request) -> list[str]:
    """The methods of an address. Each is a route of its own, of which the framework names the first one's alone."""
    scopes = ({**request.scope, "method": method} for method in METHODS)
    routes = request.app.routes
    return [scope["method"] for scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)]


def rendered(error: GatewayError) -> Response:
    """The answer that ``error`` is."""
    status, headers, body = render(error, new_request_id(time.time_ns() // 1_000_000))
    response = Response(body, status)
    response.raw_headers = headers
    return response
