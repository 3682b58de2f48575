"""Usage: what was asked for, and what it cost."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from app.admin.answers import FILES, answered
from app.admin.asking import Asked
from app.admin.exports import ExportFormat, download, lines_of
from app.admin.focus import COLUMNS as FOCUS_COLUMNS
from app.admin.focus import focus_parts, focus_question
from app.admin.rows import usage_columns
from app.admin.schemas.parameters import BY, CURSOR, FILTERS, RANGE, documented, limit, query
from app.admin.schemas.usage import Usage
from app.admin.usage_pages import (
    PAGE_DEFAULT,
    PAGE_MAX,
    SORTED_BY,
    page_asked,
    question_asked,
    usage_page,
    usage_parts,
)
from app.admin.wire import Reader, ToolsOf

router = APIRouter(tags=["usage"])

STYLES: tuple[ExportFormat | Literal["focus"], ...] = ("csv", "jsonl", "focus")
SORT = (
    query(
        "sort",
        f"A dimension of `by`, or one of {', '.join(SORTED_BY)}; with a minus before it the largest first. Without it"
        " rows come in the order of their groups.",
        "-cost",
    ),
)
STYLE = (
    query(
        "format",
        "The kind of file. `focus`: CSV in the columns of FOCUS 1.2, by team, key, model, upstream and day (or hour,"
        " where `by` says so), with the tag of `by`, if any.",
        enum=list(STYLES),
        default="csv",
    ),
)


@router.get(
    "/usage",
    summary="Usage by anything, of any time",
    response_model=Usage,
    openapi_extra=documented(BY, RANGE, FILTERS, SORT, limit(PAGE_DEFAULT, PAGE_MAX), CURSOR),
)
async def read_usage(caller: Reader, request: Request, tools: ToolsOf) -> Response:
    """Sums of what was admitted in the range, this month unless another is named. Every view, export and command
    asks this one query, so that their totals are the same. A lead sees its own team.
    """
    asked = Asked(request.query_params.multi_items())
    question, page = page_asked(asked, question_asked(asked, tools.clock.now_ms()))
    asked.finish()
    return answered(await usage_page(tools.database, question.of_team(caller.team_id), page))


@router.get(
    "/usage/export",
    summary="The same rows as a file",
    response_class=StreamingResponse,
    responses=FILES,
    openapi_extra=documented(STYLE, BY, RANGE, FILTERS, SORT),
)
async def export_usage(caller: Reader, request: Request, tools: ToolsOf) -> StreamingResponse:
    """All rows of the question, streamed. With a period among `by` and without `sort` they come by its time."""
    asked = Asked(request.query_params.multi_items())
    style = asked.choice("format", STYLES, "csv")
    question = question_asked(asked, tools.clock.now_ms())
    asked.finish()
    if style == "focus":
        question = focus_question(question.of_team(caller.team_id))
        rows = focus_parts(usage_parts(tools.database, question), question)
        return await download(lines_of(rows, FOCUS_COLUMNS, "csv"), "csv", "headgate-focus")
    parts = usage_parts(tools.database, question.of_team(caller.team_id))
    return await download(lines_of(parts, usage_columns(question.by), style), style, "headgate-usage")
