"""The audit log: who changed what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from app.admin.schemas.audit import Changes
from app.admin.schemas.fields import Moment, ms_of
from app.admin.wire import Cursor, Limit, ToolsOf, Viewer, page_of, position_of
from app.store.audit import AuditFilter, AuditRow, list_changes
from app.store.explanations import iso_time

router = APIRouter(tags=["audit"])
Text = Annotated[str | None, Query(max_length=128)]
EXPORT_PAGE = 500


def _filter(
    actor: Text = None,
    action: Text = None,
    object_kind: Text = None,
    object_id: Text = None,
    since: Annotated[Moment | None, Query(alias="from")] = None,
    until: Annotated[Moment | None, Query(alias="to")] = None,
) -> AuditFilter:
    return AuditFilter(
        actor_id=actor,
        action=action,
        object_kind=object_kind,
        object_id=object_id,
        start_ms=None if since is None else ms_of(since),
        end_ms=None if until is None else ms_of(until),
    )


@router.get("/audit", summary="Who changed what", response_model=Changes)
async def read_audit(
    _caller: Viewer,
    tools: ToolsOf,
    actor: Text = None,
    action: Text = None,
    object_kind: Text = None,
    object_id: Text = None,
    since: Annotated[Moment | None, Query(alias="from")] = None,
    until: Annotated[Moment | None, Query(alias="to")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Newest first. Of a change only what differs is kept; a secret never is."""
    only = _filter(actor, action, object_kind, object_id, since, until)
    before = position_of(cursor, tuple[int, str])
    async with tools.database.read() as connection:
        rows = await list_changes(connection, only, limit=limit + 1, before=before)
    page = page_of(rows, limit, _place)
    return {**page, "data": [change_of(row) for row in page["data"]]}


@router.get("/audit/export", summary="The audit log as a file", response_class=StreamingResponse)
async def export_audit(_caller: Viewer, tools: ToolsOf) -> StreamingResponse:
    """All of it, newest first, a JSON object a line."""

    async def lines() -> AsyncIterator[bytes]:
        before: tuple[int, str] | None = None
        while True:
            async with tools.database.read() as connection:
                rows = await list_changes(connection, AuditFilter(), limit=EXPORT_PAGE, before=before)
            if not rows:
                return
            yield b"".join(msgspec.json.encode(change_of(row)) + b"\n" for row in rows)
            before = (rows[-1].at_ms, rows[-1].id)

    return StreamingResponse(
        lines(),
        media_type="application/jsonl",
        headers={"content-disposition": 'attachment; filename="headgate-audit.jsonl"'},
    )


def _place(row: AuditRow) -> tuple[int, str]:
    return row.at_ms, row.id


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
