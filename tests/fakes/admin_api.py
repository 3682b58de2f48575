"""A stand-in for the admin API: the console's own files, and figures that are known beforehand and tie.

One table of cells (day, team, key, model) is summed for every answer, as the gateway sums its ledger.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo

import msgspec
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from app.admin.console import mount_console
from app.core.money import usd_text

NOW = datetime(2026, 11, 24, 15, 40, 12, tzinfo=UTC)
API = "/admin/api/v1"
ADMIN, VIEWER, LEAD, KEY = "hg-admin-of-tests", "hg-viewer-of-tests", "hg-lead-of-tests", "sk-hg-of-tests"
TEAMS = ("assistant", "growth", "platform", "research", "support")
KEYS = ("assistant-prod", "email-writer", "ci-agents", "eval-batch", "support-bot")
MODELS = ("gpt-5.4", "gpt-4.1-mini")
WEEK = (100, 98, 130, 110, 96, 34, 31)
SUMS = ("requests", "failed", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens")
REQUEST_ID = "01938f2e-7c41-7d0a-b6e2-51c09a77e3d8"
UNPRICED_DAYS = {date(2026, 11, 13): 4, date(2026, 11, 23): 5, date(2026, 11, 24): 3}


class Cell(msgspec.Struct, frozen=True):
    """What one key did on one day with one model. ``nanousd`` is 0 where ``unpriced`` is all of it."""

    day: date
    member: int
    model: str
    requests: int
    nanousd: int
    unpriced: int = 0


class Shop(msgspec.Struct):
    """Names, days and cells; ``failing`` are resources that answer 503, ``slow_s`` is waited before each answer."""

    teams: Sequence[str] = TEAMS
    keys: Sequence[str] = KEYS
    days: int = 359
    is_empty: bool = False
    has_sso: bool = False
    failing: set[str] = msgspec.field(default_factory=set)
    slow_s: float = 0.0
    rows_max: int = 5000
    asked: list[str] = msgspec.field(default_factory=list)
    _cells: list[Cell] | None = None

    def cells(self) -> list[Cell]:
        """Made once: what a test changes of a shop, it changes before."""
        if self._cells is None:
            self._cells = [] if self.is_empty else list(self._made())
        return [] if self.is_empty else self._cells

    def _made(self) -> Iterable[Cell]:
        last = NOW.date()
        for back in range(self.days, -1, -1):
            day = last - timedelta(days=back)
            for member in range(len(self.keys)):
                for place, model in enumerate(MODELS):
                    base = WEEK[day.weekday()] * (7 - member % 5) * (3 - 2 * place)
                    base += (day.toordinal() * 37 + member * 11) % 29
                    yield Cell(day, member, model, base, base * 12_345_678)
            if day in UNPRICED_DAYS:
                yield Cell(day, 2, "qwen3-coder", UNPRICED_DAYS[day], 0, UNPRICED_DAYS[day])


def team_id(member: int, teams: Sequence[str]) -> str:
    return f"team_{member % len(teams)}"


def sums_of(cells: Iterable[Cell]) -> dict[str, Any]:
    cells = list(cells)
    requests = sum(cell.requests for cell in cells)
    cost = sum(cell.nanousd for cell in cells)
    return {
        **dict.fromkeys(SUMS, 0),
        "requests": requests,
        "failed": requests // 200,
        "input_tokens": requests * 3400,
        "output_tokens": requests * 700,
        "reasoning_tokens": requests * 150,
        "cost_usd": usd_text(cost),
        "saved_usd": usd_text(cost // 20),
        "unpriced": sum(cell.unpriced for cell in cells),
        "estimated": requests // 1000,
        "estimated_usd": usd_text(cost // 1000),
    }


class AdminApi:
    """Served with ``with``, on a port of its own. Change ``shop`` between requests."""

    def __init__(self, shop: Shop | None = None) -> None:
        self.shop = shop or Shop()
        self.sessions: dict[str, dict[str, Any]] = {}
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener
        self._server = uvicorn.Server(
            uvicorn.Config(self._app(), log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self._server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()

    # -- wiring -------------------------------------------------------------------------------

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)
        routes: dict[str, Callable[[dict[str, str], dict[str, Any]], Any]] = {
            "overview": self.overview,
            "usage": self.usage,
            "teams": lambda _query, _who: {"data": self.teams(), "next": None},
        }
        for name, answer in routes.items():
            app.add_route(f"{API}/{name}", self._guarded(name, answer))
        app.add_route(f"{API}/usage/export", self._guarded("export", self.export))
        app.add_route(f"{API}/live", lambda _request: PlainTextResponse(RUNNING, media_type="text/event-stream"))
        app.add_route(f"{API}/sso", lambda _request: JSONResponse({"enabled": self.shop.has_sso}))
        app.add_route(f"{API}/session", self._session, methods=["GET", "POST", "DELETE"])
        mount_console(app)
        return app

    def _guarded(self, name: str, answer: Callable[[dict[str, str], dict[str, Any]], Any]) -> Any:
        def respond(request: Request) -> Response:
            who = self.sessions.get(request.cookies.get("headgate_session", ""))
            self.shop.asked.append(f"{name}?{request.url.query}")
            time.sleep(self.shop.slow_s)
            if who is None:
                return _error(401, "invalid_admin_token", "Nobody is signed in.")
            if name in self.shop.failing:
                return _error(503, "ledger_unavailable", "The ledger cannot be read at this moment.")
            found = answer(dict(request.query_params), who)
            return found if isinstance(found, Response) else JSONResponse(found)

        return respond

    async def _session(self, request: Request) -> Response:
        cookie = request.cookies.get("headgate_session", "")
        if request.method == "POST":
            given = (await request.json())["credential"]
            if given not in ROLES:
                return _error(401, "invalid_admin_token", "The token is not known.")
            cookie = secrets.token_hex(16)
            self.sessions[cookie] = {**ROLES[given], "csrf": secrets.token_hex(8)}
        who = self.sessions.get(cookie)
        if who is None:
            return _error(401, "invalid_admin_token", "Nobody is signed in.")
        if request.method == "DELETE":
            if request.headers.get("x-headgate-csrf") != who["csrf"]:
                return _error(403, "forbidden", "The CSRF token is wrong.")
            del self.sessions[cookie]
            return Response(status_code=204)
        answer = JSONResponse({**who, "expires_at": "2026-12-01T00:00:00.000Z", "version": "0.1.0", "sso": False})
        answer.set_cookie("headgate_session", cookie, httponly=True, samesite="strict")
        return answer

    # -- answers ------------------------------------------------------------------------------

    def teams(self) -> list[dict[str, Any]]:
        return [
            {
                "id": f"team_{index}",
                "name": name,
                "limits": [],
                "endpoints": None,
                "keys_active": 1,
                "created_at": "2026-03-03T09:00:00.000Z",
                "color": index % 8 + 1,
            }
            for index, name in enumerate(self.shop.teams)
        ]

    def member(self, cell: Cell, dimension: str) -> tuple[str, str]:
        """(id, name) of what a cell is part of."""
        if dimension == "team":
            return team_id(cell.member, self.shop.teams), self.shop.teams[cell.member % len(self.shop.teams)]
        if dimension == "key":
            return f"key_{cell.member}", self.shop.keys[cell.member]
        name = {"model": cell.model, "upstream": "openai"}.get(dimension, "")
        return name, name

    def usage(self, query: dict[str, str], who: Mapping[str, Any], rows_max: int | None = None) -> dict[str, Any]:
        start, end, zone = _days(query)
        by = [name for name in query.get("by", "").split(",") if name]
        cells = self._chosen(query, who, start, end)
        groups: dict[tuple[tuple[str, str], ...], list[Cell]] = defaultdict(list)
        for cell in cells:
            groups[tuple(_period(cell.day, name) or self.member(cell, name) for name in by)].append(cell)
        rows = []
        for group, members in groups.items():
            row: dict[str, Any] = {}
            for name, (identity, shown) in zip(by, group, strict=True):
                row[name] = shown
                if name in {"team", "key"}:
                    row[f"{name}_id"] = identity
            rows.append({**row, **sums_of(members)})
        order = query.get("sort", "-cost")
        column = {"cost": "cost_usd", "saved": "saved_usd"}.get(order.lstrip("-"), order.lstrip("-"))
        rows.sort(
            key=lambda row: float(row[column]) if column.endswith("_usd") else row[column],
            reverse=order.startswith("-"),
        )
        first = next((name for name in by if name in {"team", "key", "model"}), "")
        colors = (
            {row.get(f"{first}_id", row.get(first)): index % 8 + 1 for index, row in enumerate(rows)} if first else {}
        )
        limit = rows_max or min(self.shop.rows_max, int(query.get("limit", "1000")))
        offset = int(query.get("cursor", "0"))
        return {
            "from": _iso(datetime.combine(start, datetime.min.time(), zone)),
            "to": _iso(
                min(NOW + timedelta(minutes=5), datetime.combine(end + timedelta(days=1), datetime.min.time(), zone))
            ),
            "time_zone": str(zone),
            "by": by,
            "rows": rows[offset : offset + limit],
            "total": sums_of(cells),
            "colors": colors,
            "next": str(offset + limit) if offset + limit < len(rows) else None,
        }

    def export(self, query: dict[str, str], who: Mapping[str, Any]) -> Response:
        rows = self.usage(query, who, rows_max=100_000)["rows"]
        text = "\n".join(",".join(str(value) for value in row.values()) for row in rows)
        return PlainTextResponse(text, headers={"content-disposition": 'attachment; filename="usage.csv"'})

    def overview(self, query: dict[str, str], who: Mapping[str, Any]) -> dict[str, Any]:
        start, end, zone = _days({"tz": query.get("tz", "UTC")})
        show = query.get("show", "team")
        cells = self._chosen(query, who, start, end)
        total = sums_of(cells)
        costs: dict[tuple[str, str], int] = defaultdict(int)
        for cell in cells:
            costs[self.member(cell, show)] += cell.nanousd
        whole = sum(costs.values()) or 1
        last = (start + timedelta(days=31)).replace(day=1)
        return {
            "time_zone": str(zone),
            "until": _iso(NOW),
            "month": {
                "from": _iso(datetime.combine(start, datetime.min.time(), zone)),
                "to": _iso(datetime.combine(last, datetime.min.time(), zone)),
                "spent_usd": total["cost_usd"],
                "estimated_usd": total["estimated_usd"],
                "unpriced": total["unpriced"],
                "budget_usd": None if self.shop.is_empty else "15000",
                "forecast_usd": None if self.shop.is_empty else usd_text(whole * 30 // 24),
                "change_percent": None if self.shop.is_empty else 8.1,
            },
            "today": {
                "spent_usd": sums_of(cell for cell in cells if cell.day == end)["cost_usd"],
                "usual_percent": 6.2,
            },
            "requests": {"requests": total["requests"], "failed": total["failed"]},
            "saved": {"saved_usd": total["saved_usd"]},
            "attention": [] if self.shop.is_empty else ATTENTION,
            "days": [
                self._day(start + timedelta(days=index), cells, show, end) for index in range((last - start).days)
            ],
            "legend": [
                {
                    "id": identity,
                    "name": name,
                    "color": index % 8 + 1,
                    "is_other": False,
                    "cost_usd": usd_text(cost),
                    "share_percent": round(cost * 100 / whole, 1),
                    "change_percent": 4.0,
                }
                for index, ((identity, name), cost) in enumerate(sorted(costs.items(), key=lambda each: -each[1]))
            ],
            "top_keys": [
                {
                    "id": identity,
                    "name": name,
                    "team": {
                        "id": team_id(member, self.shop.teams),
                        "name": self.shop.teams[member % len(self.shop.teams)],
                        "color": 1,
                    },
                    **_top(group),
                }
                for (identity, name), member, group in self._ranked(cells, "key")
            ][:10],
            "top_models": [
                {"name": name, "color": 1, **_top(group)} for (_, name), _member, group in self._ranked(cells, "model")
            ],
            "service": SERVICE
            if not self.shop.is_empty
            else {**SERVICE, "failed_percent": None, "series": [], "upstreams": []},
        }

    def _day(self, day: date, cells: Iterable[Cell], show: str, today: date) -> dict[str, Any]:
        own = [cell for cell in cells if cell.day == day]
        parts: dict[str, int] = defaultdict(int)
        for cell in own:
            parts[self.member(cell, show)[0]] += cell.nanousd
        return {
            "day": day.isoformat(),
            "cost_usd": usd_text(sum(parts.values())),
            "unpriced": sum(cell.unpriced for cell in own),
            "parts": {identity: usd_text(cost) for identity, cost in parts.items()},
            "forecast_usd": usd_text(WEEK[day.weekday()] * 10**9) if day >= today and not self.shop.is_empty else None,
        }

    def _ranked(self, cells: Iterable[Cell], dimension: str) -> list[tuple[tuple[str, str], int, list[Cell]]]:
        groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
        for cell in cells:
            groups[self.member(cell, dimension)].append(cell)
        ranked = sorted(groups.items(), key=lambda each: -sum(cell.nanousd for cell in each[1]))
        return [(member, group[0].member, group) for member, group in ranked]

    def _chosen(self, query: Mapping[str, str], who: Mapping[str, Any], start: date, end: date) -> list[Cell]:
        cells = [cell for cell in self.shop.cells() if start <= cell.day <= end]
        for name, value in query.items():
            dimension, wanted = name.removeprefix("not."), set(value.split(","))
            if dimension in {"team", "key", "model", "upstream"}:
                cells = [
                    cell for cell in cells if (self.member(cell, dimension)[0] in wanted) != name.startswith("not.")
                ]
        if who["role"] == "lead":
            cells = [cell for cell in cells if self.member(cell, "team")[0] == who["team"]["id"]]
        return cells


ROLES: dict[str, dict[str, Any]] = {
    ADMIN: {"kind": "token", "role": "admin", "name": "mara@acme.example", "team": None},
    VIEWER: {"kind": "token", "role": "viewer", "name": "finance@acme.example", "team": None},
    LEAD: {"kind": "token", "role": "lead", "name": "jonas@acme.example", "team": {"id": "team_4", "name": "support"}},
    KEY: {"kind": "key", "role": "key", "name": "support-bot", "team": {"id": "team_4", "name": "support"}},
}
ATTENTION = [
    {
        "level": "bad",
        "title": "support is at 92% of its budget",
        "detail": "$158.63 left, gone by Thu 26 Nov",
        "verb": "Open budget",
        "href": "/console/budgets?open=limit_5",
    },
    {
        "level": "warn",
        "title": "azure-eu is degraded",
        "detail": "3.8% failed for 22 min",
        "verb": "Open upstream",
        "href": "/console/upstreams?open=azure-eu",
    },
    {
        "level": "unpriced",
        "title": "12 requests have no price",
        "detail": "qwen3-coder, not in any total here",
        "verb": "Set a price",
        "href": "/console/prices",
    },
]
HOURS = [
    {
        "at": f"2026-11-24T{hour:02d}:00:00.000Z",
        "requests": 900,
        "failed_percent": 0.4 + hour % 3 / 10,
        "first_byte_p95_ms": 1300.0 + hour * 7,
        "overhead_p95_ms": 2.0,
    }
    for hour in range(24)
]
SERVICE = {
    "failed_percent": 0.51,
    "first_byte_p95_ms": 1420.4,
    "overhead_p95_ms": 2.1,
    "series": HOURS,
    "upstreams": [
        {
            "name": name,
            "state": state,
            "since": since,
            "failed_percent": failed,
            "first_byte_p95_ms": 1180.0,
            "series": HOURS,
        }
        for name, state, since, failed in (
            ("openai", "healthy", None, 0.3),
            ("azure-eu", "degraded", "2026-11-24T15:18:00.000Z", 3.8),
        )
    ],
}
RUNNING = (
    'event: snapshot\ndata: {"in_flight":[],"finished":[]}\n\nevent: count\ndata: {"in_flight":11,"degraded":false}\n\n'
)


def _top(cells: Iterable[Cell]) -> dict[str, Any]:
    sums = sums_of(cells)
    return {
        "requests": sums["requests"],
        "tokens": sums["input_tokens"] + sums["output_tokens"],
        "cost_usd": sums["cost_usd"],
        "unpriced": sums["unpriced"],
    }


def _days(query: Mapping[str, str]) -> tuple[date, date, ZoneInfo]:
    zone = ZoneInfo(query.get("tz", "UTC"))
    today = NOW.astimezone(zone).date()
    if "from" in query:
        return date.fromisoformat(query["from"]), date.fromisoformat(query["to"]), zone
    starts = {
        "today": today,
        "last_24_hours": today - timedelta(days=1),
        "last_7_days": today - timedelta(days=6),
        "this_year": today.replace(month=1, day=1),
    }
    return starts.get(query.get("range", "this_month"), today.replace(day=1)), today, zone


def _period(day: date, name: str) -> tuple[str, str] | None:
    starts = {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}
    if name == "hour":
        text = f"{day.isoformat()}T12:00:00+00:00"
        return text, text
    return (starts[name].isoformat(), starts[name].isoformat()) if name in starts else None


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _error(status: int, code: str, message: str) -> Response:
    body = {"error": {"message": message, "type": code, "param": None, "code": code}}
    return JSONResponse(body, status, headers={"x-headgate-request-id": REQUEST_ID})
