"""The audit log: who changed what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from app.admin.answers import FILES, answered
from app.admin.asking import Asked, span_asked
from app.admin.exports import Column, ExportFormat, download, lines_of
from app.admin.schemas.audit import Changes
from app.admin.schemas.parameters import PAGE, RANGE, documented, query
from app.admin.wire import LIMIT_MAX, ToolsOf, Viewer, page_of, position_of
from app.store.audit import AuditFilter, AuditRow, list_changes
from app.store.database import Database
from app.store.explanations import iso_time

router = APIRouter(tags=["audit"])
EXPORT_PAGE = 500
STYLES: tuple[ExportFormat, ...] = ("csv", "jsonl")
STYLE = (query("format", "The kind of file.", enum=list(STYLES), default="csv"),)
FILTERS = (
    query("actor", "Whose changes: the id of a token, of a person, or the name at a terminal.", "4kq8wzB7x2"),
    query("action", "What was done, such as `key.rotate`.", "key.rotate"),
    query("object_kind", "To what: `key`, `team`, `token`, `limit`, `budget`, `price`, `upstream`, `alert`.", "key"),
    query("object_id", "To which of them.", "9t2xkdC6r8"),
)
COLUMNS = tuple(
    Column(name)
    for name in (
        "id at actor_kind actor_id actor action object_kind object_id object team_id before after peer".split()
    )
)
"""Of a CSV file; ``before`` and ``after`` are JSON."""


@router.get(
    "/audit",
    summary="Who changed what",
    response_model=Changes,
    openapi_extra=documented(FILTERS, RANGE, PAGE),
)
async def read_audit(_caller: Viewer, request: Request, tools: ToolsOf) -> Response:
    """Newest first; of any time unless a range is given. Of a change only what differs is kept; a secret never is."""
    asked = Asked(request.query_params.multi_items())
    only = _filter(asked, tools.clock.now_ms())
    limit = asked.number("limit", 50, at_least=1, at_most=LIMIT_MAX)
    before = position_of(asked.cursor(), tuple[int, str])
    asked.finish()
    async with tools.database.read() as connection:
        rows = await list_changes(connection, only, limit=limit + 1, before=before)
    page = page_of(rows, limit, _place)
    return answered({**page, "data": [change_of(row) for row in page["data"]]})


@router.get(
    "/audit/export",
    summary="The audit log as a file",
    response_class=StreamingResponse,
    responses=FILES,
    openapi_extra=documented(STYLE, FILTERS, RANGE),
)
async def export_audit(_caller: Viewer, request: Request, tools: ToolsOf) -> StreamingResponse:
    """All changes that are asked for, newest first, streamed."""
    asked = Asked(request.query_params.multi_items())
    style = asked.choice("format", STYLES, "csv")
    only = _filter(asked, tools.clock.now_ms())
    asked.finish()
    return await download(lines_of(_parts(tools.database, only, style), COLUMNS, style), style, "headgate-audit")


def _filter(asked: Asked, now_ms: int) -> AuditFilter:
    span = span_asked(asked, now_ms, None, since_ever=True)
    return AuditFilter(
        actor_id=asked.text("actor"),
        action=asked.text("action"),
        object_kind=asked.text("object_kind"),
        object_id=asked.text("object_id"),
        start_ms=None if span is None else span.start_ms,
        end_ms=None if span is None else span.end_ms,
    )


async def _parts(database: Database, only: AuditFilter, style: ExportFormat) -> AsyncIterator[list[dict[str, Any]]]:
    """All changes, newest first, a part at a time, each read on its own: what is made meanwhile is newer."""
    data = _line if style == "csv" else change_of
    before: tuple[int, str] | None = None
    while True:
        async with database.read() as connection:
            rows = await list_changes(connection, only, limit=EXPORT_PAGE, before=before)
        if not rows:
            return
        yield [data(row) for row in rows]
        before = _place(rows[-1])


def _place(row: AuditRow) -> tuple[int, str]:
    return row.at_ms, row.id


def _line(row: AuditRow) -> dict[str, Any]:
    """A change as a line of a table."""
    return {
        "id": row.id,
        "at": iso_time(row.at_ms),
        "actor_kind": row.actor.kind,
        "actor_id": row.actor.id,
        "actor": row.actor.name,
        "action": row.action,
        "object_kind": row.object_kind,
        "object_id": row.object_id,
        "object": row.object_name,
        "team_id": row.team_id,
        "before": row.before,
        "after": row.after,
        "peer": row.actor.peer,
    }


def change_of(row: AuditRow) -> dict[str, Any]:
    """A change as JSON tells it."""
    return {
        "id": row.id,
        "at": iso_time(row.at_ms),
        "actor": {"kind": row.actor.kind, "id": row.actor.id, "name": row.actor.name},
        "action": row.action,
        "object": {"kind": row.object_kind, "id": row.object_id, "name": row.object_name},
        "team_id": row.team_id,
        "before": row.before,
        "after": row.after,
        "peer": row.actor.peer,
    }
