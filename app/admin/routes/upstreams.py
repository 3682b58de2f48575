"""Upstreams: who is healthy."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from app.admin.access import Caller
from app.admin.answers import BUSY, answered
from app.admin.asking import Asked
from app.admin.probe import Probes
from app.admin.schemas.parameters import ID
from app.admin.schemas.upstreams import PauseSet, Probe, Upstreams
from app.admin.service import paused_data, upstreams_data
from app.admin.wire import Administrator, Tools, ToolsOf, Viewer
from app.core.errors import InvalidRequest, NotFound
from app.store.audit import note_change
from app.store.pauses import Pause, set_paused

router = APIRouter(tags=["upstreams"])
probes = Probes()

Name = Annotated[str, Path(pattern=ID, examples=["openai"])]


@router.get("/upstreams", summary="Upstreams and how they are", response_model=Upstreams)
async def read_upstreams(_caller: Viewer, request: Request, tools: ToolsOf) -> Response:
    """All of the configuration, in its order."""
    Asked(request.query_params.multi_items()).finish()
    async with tools.database.read() as connection:
        data = await upstreams_data(connection, tools.in_force(), tools.clock.now_ms())
    return answered({"data": data, "next": None})


@router.post("/upstreams/{name}/probe", summary="Try an upstream", response_model=Probe, responses=BUSY)
async def probe_upstream(name: Name, _caller: Administrator, tools: ToolsOf) -> Response:
    """Asks it for its list of models, by the way that requests take; waits up to 10 s. One at a time: 409 while
    another runs.
    """
    _check_name(tools, name)
    pool = tools.in_force().pools.get(name)
    if pool is None:
        raise InvalidRequest("This upstream has no key, and is off.")
    return answered(await probes.probe(pool))


@router.post("/upstreams/{name}/pause", summary="Pause an upstream", response_model=PauseSet)
async def pause_upstream(name: Name, caller: Administrator, tools: ToolsOf) -> dict[str, Any]:
    """Sends nothing new there, from every gateway within a second, until it is resumed. What runs comes to its end, and
    what is stored there can be read, changed and deleted. Pausing it once more changes nothing.
    """
    _check_name(tools, name)
    return await _set(name, caller, tools, is_paused=True)


@router.post("/upstreams/{name}/resume", summary="Resume an upstream", response_model=PauseSet)
async def resume_upstream(name: Name, caller: Administrator, tools: ToolsOf) -> dict[str, Any]:
    """Has it called again, by every gateway within a second."""
    _check_name(tools, name)
    return await _set(name, caller, tools, is_paused=False)


async def _set(name: str, caller: Caller, tools: Tools, *, is_paused: bool) -> dict[str, Any]:
    now_ms = tools.clock.now_ms()
    by = caller.actor.name
    async with tools.database.transaction() as connection:
        before = await set_paused(connection, name, is_paused=is_paused, actor_name=by, now_ms=now_ms)
        if (before is not None) is is_paused:
            return {"name": name, "paused": paused_data(before)}
        after = Pause(name, now_ms, by) if is_paused else None
        await note_change(
            connection,
            caller.actor,
            action="upstream.pause" if is_paused else "upstream.resume",
            object_kind="upstream",
            object_id=name,
            object_name=name,
            before={"paused": paused_data(before)},
            after={"paused": paused_data(after)},
            now_ms=now_ms,
        )
    return {"name": name, "paused": paused_data(after)}


def _check_name(tools: Tools, name: str) -> None:
    """Raises NotFound."""
    if name not in tools.in_force().configuration.upstreams:
        raise NotFound("There is no such upstream.")
