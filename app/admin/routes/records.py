"""Records: where a call is, and why it did, and cost, what it did."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse

from app.admin.answers import FILES, answered
from app.admin.asking import Asked
from app.admin.bills import bill_of
from app.admin.exports import ExportFormat, download, lines_of
from app.admin.record_pages import OUTCOMES, record_page, record_page_asked, record_parts, records_asked
from app.admin.rows import RECORD_COLUMNS, record_whole
from app.admin.schemas.parameters import FILTERS, ID, PAGE, RANGE, documented, query
from app.admin.schemas.records import Explanation, Records, RecordWhole
from app.admin.wire import Reader, ToolsOf
from app.core.errors import NotFound
from app.store.explanations import RecordExplained, data_of, explain
from app.store.people import names_of
from app.store.records import find_record

router = APIRouter(tags=["records"])

RequestId = Annotated[
    str,
    Path(pattern=ID, description="`x-headgate-request-id`", examples=["019ab3f2-7c11-7d3e-9b10-5f0c6a1e2d44"]),
]
SEARCHED = (
    query("outcome", f"Any of {', '.join(OUTCOMES)}, with commas between them.", "failed,interrupted"),
    query("q", "A request id, a response id, an end user, a key's or a secret's id, or `tag=value`.", "project=search"),
    query("end_user", "Whom the client named as its `user`.", "u-4711"),
    query("response_id", "The id that the upstream gave its answer.", "resp_68f1c0"),
)
STYLES: tuple[ExportFormat, ...] = ("csv", "jsonl")
STYLE = (query("format", "The kind of file.", enum=list(STYLES), default="csv"),)


@router.get(
    "/records",
    summary="Find records",
    response_model=Records,
    openapi_extra=documented(RANGE, FILTERS, SEARCHED, PAGE),
)
async def read_records(caller: Reader, request: Request, tools: ToolsOf) -> Response:
    """Requests that were admitted, newest first; of any time unless a range is given. A lead sees its own team."""
    asked = Asked(request.query_params.multi_items())
    question = records_asked(asked, tools.clock.now_ms())
    limit, before = record_page_asked(asked)
    asked.finish()
    return answered(await record_page(tools.database, question.of_team(caller.team_id), limit, before))


@router.get(
    "/records/export",
    summary="Records as a file",
    response_class=StreamingResponse,
    responses=FILES,
    openapi_extra=documented(STYLE, RANGE, FILTERS, SEARCHED),
)
async def export_records(caller: Reader, request: Request, tools: ToolsOf) -> StreamingResponse:
    """All that are found, newest first, streamed: a year of them takes no more memory than a page."""
    asked = Asked(request.query_params.multi_items())
    style = asked.choice("format", STYLES, "csv")
    question = records_asked(asked, tools.clock.now_ms())
    asked.finish()
    parts = record_parts(tools.database, question.of_team(caller.team_id), style)
    return await download(lines_of(parts, RECORD_COLUMNS, style), style, "headgate-records")


@router.get("/records/{request_id}", summary="One record", response_model=RecordWhole)
async def read_record(request_id: RequestId, caller: Reader, request: Request, tools: ToolsOf) -> Response:
    """All of it, with every entry of its bill."""
    Asked(request.query_params.multi_items()).finish()
    async with tools.database.read() as connection:
        record = await find_record(connection, request_id)
        if record is None or not caller.sees(record.team_id):
            raise NotFound("There is no such record.")
        names = await names_of(connection, [record.team_id], [record.key_id])
    return answered(record_whole(record, names))


@router.get("/explain/{request_id}", summary="Why a request was decided so", response_model=Explanation)
async def read_explanation(request_id: RequestId, caller: Reader, request: Request, tools: ToolsOf) -> Response:
    """The limits that were checked and what they said, what was held against what it came to, the cache's reason, the
    upstreams tried, the prices and the sum; also of a request of the last day that was refused.
    """
    Asked(request.query_params.multi_items()).finish()
    async with tools.database.read() as connection:
        found = await explain(connection, request_id)
    team_id = None
    if found is not None:
        team_id = found.record.team_id if isinstance(found, RecordExplained) else found.refusal.team_id
    if found is None or team_id is None or not caller.sees(team_id):
        raise NotFound("Nothing is known of this request: it was never admitted, or refused more than a day ago.")
    told = data_of(found)
    if isinstance(found, RecordExplained):
        told["bill"] = bill_of(found, tools.in_force().prices)
    return answered(told)
