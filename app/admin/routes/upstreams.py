"""Upstreams: who is healthy."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.admin.answers import BUSY, answered
from app.admin.asking import Asked
from app.admin.probe import Probes
from app.admin.schemas.parameters import ID
from app.admin.schemas.upstreams import Probe, Upstreams
from app.admin.service import upstreams_data
from app.admin.wire import Administrator, ToolsOf, Viewer
from app.core.errors import InvalidRequest, NotFound

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
    in_force = tools.in_force()
    if name not in in_force.configuration.upstreams:
        raise NotFound("There is no such upstream.")
    pool = in_force.pools.get(name)
    if pool is None:
        raise InvalidRequest("This upstream has no key, and is off.")
    return answered(await probes.probe(pool))
