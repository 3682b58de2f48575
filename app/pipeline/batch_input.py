"""What a batch is to run, read before it is made: each line is a request, and may name no more than one could.

The file lies upstream, where any team's may lie; so may what its lines name. A file cannot be changed once it is there,
so that what was read is what will be run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from urllib.parse import quote

from app.auth.references import Reference, find_references, refuse_other_spellings
from app.core.codec import SLOW_IN_THREAD_BYTES, JSONObject, parse_object_slow
from app.core.errors import EndpointNotAllowed, InvalidRequest, ModelNotAllowed, StoredObjectNotFound
from app.core.exchange import Endpoint
from app.core.identity import Principal
from app.core.peek import refuse_own_id
from app.pipeline.planning import Planner
from app.upstream.pool import UpstreamPool

LINES_MAX = 50_000
LINE_BYTES_MAX = 16 * 1024 * 1024
FILE_BYTES_MAX = 256 * 1024 * 1024
READ_S_MAX = 120.0
REFERENCES_AT_ONCE = 500
CHECKS_AT_ONCE = 4
"""Of a process: each may hold a line of the largest size, and takes the time of many requests."""
PARAM = "input_file_id"
LINE_FIELDS = ("method", "url", "body")
YIELD_EVERY_LINES = 50

Match = Callable[[str, str], Endpoint | None]
"""The endpoint of a method and a path that is billed; None where it is none."""


async def check_batch_input(
    planner: Planner,
    pool: UpstreamPool,
    principal: Principal,
    file_id: str,
    match: Match,
    allows: Callable[[str], bool],
) -> None:
    """Raises StoredObjectNotFound where a line names what is not the team's, as where the file itself is not; and
    InvalidRequest, ModelNotAllowed, ModelNotFound, EndpointNotAllowed for lines that the key could not send itself.
    """
    waiting: list[Reference] = []
    number = 0
    async for line in _lines(pool, file_id):
        number += 1
        if number > LINES_MAX:
            raise InvalidRequest(f"A batch may have at most {LINES_MAX} requests.", param=PARAM)
        if number % YIELD_EVERY_LINES == 0:
            await asyncio.sleep(0)
        asked = partial(_references, planner, pool, principal, line, number, match, allows)
        waiting += await asyncio.to_thread(asked) if len(line) > SLOW_IN_THREAD_BYTES else asked()
        if len(waiting) >= REFERENCES_AT_ONCE:
            await _check(planner, pool, principal, waiting)
            waiting = []
    await _check(planner, pool, principal, waiting)


async def _check(planner: Planner, pool: UpstreamPool, principal: Principal, references: list[Reference]) -> None:
    named = [Reference(each.object_id, PARAM) for each in references]
    holder = await planner.holder_of(principal, named)
    if holder not in {None, pool.name}:
        raise InvalidRequest("The batch names what is stored at another upstream than its file.", param=PARAM)


def _references(
    planner: Planner,
    pool: UpstreamPool,
    principal: Principal,
    line: bytes,
    number: int,
    match: Match,
    allows: Callable[[str], bool],
) -> list[Reference]:
    try:
        method, url, document = _request_in(line)
    except InvalidRequest as error:
        raise InvalidRequest(f"Line {number} of the batch is not valid: {error.message}", param=PARAM) from None
    endpoint = match(method, url)
    if endpoint is None:
        raise InvalidRequest(f"Line {number} of the batch asks for what no batch can.", param=PARAM)
    if not allows(endpoint.family):
        raise EndpointNotAllowed(f"This key may not use the endpoint {endpoint.family}, as line {number} would.")
    references = find_references(endpoint.dialect, document)
    model = document.get_str("model")
    if model is not None:
        references += planner.fine_tuned.references(principal, model)
        routes = planner.routes_of(principal, model)
        if not any(route.upstream == pool.name and route.model == model for route in routes):
            # An alias is the gateway's own word: the provider would not know it, or take it for another model.
            raise ModelNotAllowed(f"Line {number} of the batch names a model that its upstream does not serve.")
    return references


def _request_in(line: bytes) -> tuple[str, str, JSONObject]:
    """The method, the URL and the body of a line. Raises InvalidRequest."""
    request = parse_object_slow(line)
    refuse_other_spellings(request.members, LINE_FIELDS)
    method, url = request.get_str("method") or "", request.get_str("url") or ""
    if not isinstance(request.value.get("body"), dict):
        raise InvalidRequest("It has no body.")
    body = parse_object_slow(bytes(request.members["body"]))
    refuse_own_id(body)
    return method, url, body


async def _lines(pool: UpstreamPool, file_id: str) -> AsyncIterator[bytes]:
    """The lines of a file upstream. Raises StoredObjectNotFound, InvalidRequest, UpstreamError, TimeoutError."""
    async with asyncio.timeout(READ_S_MAX):
        answer = await pool.send("GET", f"/files/{quote(file_id, safe='')}/content", b"", [], None)
        try:
            if answer.status != 200 or answer.content_encoding not in {"", "identity"}:
                raise StoredObjectNotFound.of(PARAM, file_id)
            begun: list[bytes] = []
            size = line_size = 0
            while chunk := await answer.read_any():
                size += len(chunk)
                *ends, rest = chunk.split(b"\n")
                for end in ends:
                    line = b"".join((*begun, end))
                    begun, line_size = [], 0
                    if line.strip():
                        yield line
                begun.append(rest)
                line_size += len(rest)
                if size > FILE_BYTES_MAX or line_size > LINE_BYTES_MAX:
                    raise InvalidRequest("The batch's file, or a line of it, is too large to be checked.", param=PARAM)
            if (line := b"".join(begun)).strip():
                yield line
        finally:
            answer.close()
