"""What runs now, and what has just ended: for whoever watches, and for a key about itself."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sse_starlette import EventSourceResponse

from app.admin.answers import OF_OTHERS, ErrorAnswer
from app.admin.live_stream import LiveStream
from app.admin.wire import OwnKey, Reader, ToolsOf
from app.core.errors import InvalidRequest, NotFound
from app.telemetry.live import Scope

TEAMS_MAX = 50
TEXT_CHARS_MAX = 2000

router = APIRouter(tags=["live"])
own_router = APIRouter(tags=["me"])
"""Beside the admin API: what a key may see of itself."""

EXAMPLE = """\
event: snapshot
data: {"in_flight":[],"finished":[]}

event: count
data: {"in_flight":0,"degraded":false,"processes":3}

event: started
data: {"request_id":"0193c0de-0000-7000-8000-000000000000","started_at":"2026-11-24T15:40:12.123Z",\
"team":{"id":"8Zk2m1qLp0xA","name":"Support"},"key":{"id":"9t2xkdC6r8","name":"support-bot"},\
"model":"gpt-4.1-mini","upstream":"openai","stream":true,"state":"waiting","output_tokens":0,"worker":"gateway-1/0"}

event: progress
data: {"request_id":"0193c0de-0000-7000-8000-000000000000","state":"streaming","output_tokens":64}

event: ended
data: {"request_ids":["0193c0de-0000-7000-8000-000000000000"]}

event: dropped
data: {"events":1}

"""
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events, for as long as it runs.", "content": {"text/event-stream": {"example": EXAMPLE}}},
    503: {
        "model": ErrorAnswer,
        "description": "As many watch as may, or the gateway drains: `retry-after` says when to come again.",
    },
}


@router.get("/live", summary="What runs now", response_class=EventSourceResponse, responses={**EVENTS, **OF_OTHERS})
async def watch(
    caller: Reader,
    request: Request,
    tools: ToolsOf,
    team: Annotated[str | None, Query(max_length=TEXT_CHARS_MAX, description="Ids, with commas between.")] = None,
) -> LiveStream:
    """Server-Sent Events: `snapshot`, then `started`, `progress`, `finished`, `ended`, `dropped` and `count`."""
    teams = None if team is None else frozenset(team.split(","))
    if teams is not None and len(teams) > TEAMS_MAX:
        raise InvalidRequest(f"team names at most {TEAMS_MAX} teams.", param="team")
    if caller.team_id is not None:
        if teams is not None and teams != {caller.team_id}:
            raise NotFound("There is no such team.")
        teams = frozenset((caller.team_id,))

    async def check() -> bool:
        now = await tools.access.caller(request)
        return (now.role, now.team_id) == (caller.role, caller.team_id)

    return LiveStream(tools.live, Scope(teams=teams), check)


@own_router.get("/me/live", summary="What of this key's runs now", response_class=EventSourceResponse, responses=EVENTS)
async def watch_own(principal: OwnKey, request: Request, tools: ToolsOf) -> LiveStream:
    """As the admin API's `live`, of the key that asks alone."""

    async def check() -> bool:
        return (await tools.access.principal(request)).key_id == principal.key_id

    return LiveStream(tools.live, Scope(key_id=principal.key_id, is_own=True), check)
