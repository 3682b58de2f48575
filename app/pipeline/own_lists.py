"""Lists of what a team has upstream: of the account's objects those that are its own, and nothing of the others.

The provider's own list is of all teams: its pages, its cursors and how long it takes would tell of the others. So the
ledger says which objects the team has, and each is asked for where it is held. One that is not
found there is left out, and forgotten only once the team has deleted it: a provider may be wrong for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from app.auth.ownership import Ownership
from app.auth.references import Reference, fields_of_query
from app.core.errors import GatewayError, InvalidRequest, UpstreamInvalidResponse, UpstreamTimeout, copied
from app.core.exchange import Endpoint, Exchange
from app.core.identity import Principal
from app.core.records import OwnedObject
from app.upstream.pool import UpstreamPool

LIMIT_MAX = 100
LIMIT_USUAL = 20
OLDEST_FIRST = frozenset(("completion", "eval"))
"""Kinds that the API lists so, where a request does not say."""
SCANNED_MAX = 2000
"""Objects that are asked for to fill one page."""
AT_ONCE_MAX = 16
FETCH_TIMEOUT_S = 20.0
LIST_S_MAX = 60.0
OBJECT_BYTES_MAX = 1024 * 1024
GONE = 404


class Asked(msgspec.Struct, frozen=True):
    """What a list is to hold. ``before``: its page ends where that object stands, instead of beginning there."""

    limit: int
    ascending: bool
    after: str | None
    before: str | None
    filters: dict[str, str]


class OwnLists:
    """Makes such lists."""

    def __init__(self, ownership: Ownership, pools: Mapping[str, UpstreamPool]) -> None:
        self._ownership = ownership
        self._pools = pools

    def __repr__(self) -> str:
        return f"OwnLists(upstreams={sorted(self._pools)})"

    async def body_for(self, exchange: Exchange, principal: Principal) -> bytes:
        """A page as JSON, as OpenAI's cursor pages are. Raises InvalidRequest, StoredObjectNotFound for a cursor that
        is not the team's, UpstreamError, LedgerUnavailable.
        """
        try:
            async with asyncio.timeout(LIST_S_MAX):
                return await self._body(exchange, principal)
        except TimeoutError:
            raise UpstreamTimeout from None

    async def _body(self, exchange: Exchange, principal: Principal) -> bytes:
        endpoint, team_id = exchange.endpoint, principal.team_id
        asked = _asked(endpoint, exchange.query)
        after, ascending = None, asked.ascending
        if asked.before is not None:
            # Read the other way round from there, and turned in the end.
            after, ascending = await self._ownership.own(team_id, Reference(asked.before, "before")), not ascending
        elif asked.after is not None:
            after = await self._ownership.own(team_id, Reference(asked.after, "after"))
        rows: list[tuple[str, bytes]] = []
        scanned = 0
        while len(rows) <= asked.limit:
            page = await self._ownership.page(
                team_id, endpoint.lists, after=after, ascending=ascending, limit=asked.limit + 1
            )
            rows += await self._rows(endpoint, asked.filters, page)
            scanned += len(page)
            if len(page) <= asked.limit:
                break
            if scanned >= SCANNED_MAX:
                raise InvalidRequest(f"More than {SCANNED_MAX} objects would have to be looked at for this page.")
            after = page[-1]
        shown = rows[: asked.limit]
        return page_json(shown if asked.before is None else shown[::-1], has_more=len(rows) > asked.limit)

    async def forget(self, exchange: Exchange, principal: Principal) -> None:
        """The team has deleted what the path ends with: it need not be looked for again."""
        if exchange.endpoint.path.endswith("}"):
            await self._ownership.forget(principal.team_id, [exchange.ids[-1][1]])

    async def _rows(
        self, endpoint: Endpoint, filters: Mapping[str, str], page: Sequence[OwnedObject]
    ) -> list[tuple[str, bytes]]:
        """The objects of a page that are still there, and that the filters let through: id and JSON."""
        gate = asyncio.Semaphore(AT_ONCE_MAX)
        # Raised behind the clause: within it some releases of Python 3.11 make a group of what is raised.
        failure: GatewayError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._fetched(gate, endpoint, owned)) for owned in page]
        except* GatewayError as failed:
            failure = _first_of(failed)
        if failure is not None:
            raise copied(failure)
        found = [(owned, task.result()) for owned, task in zip(page, tasks, strict=True)]
        return [(owned.object_id, body) for owned, body in found if body is not None and _passes(body, filters)]

    async def _fetched(self, gate: asyncio.Semaphore, endpoint: Endpoint, owned: OwnedObject) -> bytes | None:
        pool = self._pools.get(owned.upstream)
        if pool is None:
            return None
        async with gate:
            try:
                async with asyncio.timeout(FETCH_TIMEOUT_S):
                    return await _fetch(pool, f"{endpoint.path}/{quote(owned.object_id, safe='')}")
            except TimeoutError:
                raise UpstreamTimeout from None


def _first_of(failed: BaseExceptionGroup[GatewayError]) -> GatewayError:
    first = failed.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


async def _fetch(pool: UpstreamPool, path: str) -> bytes | None:
    """An object's JSON; None where there is none. Raises UpstreamError."""
    status, body = await pool.fetch(path, OBJECT_BYTES_MAX)
    if status not in {200, GONE}:
        raise UpstreamInvalidResponse
    return body if status == 200 else None


def _asked(endpoint: Endpoint, query: bytes) -> Asked:
    fields = fields_of_query(query)
    limit, ascending = LIMIT_USUAL, endpoint.lists in OLDEST_FIRST
    after = before = None
    filters: dict[str, str] = {}
    for name, value in fields:
        if name == "limit":
            if not value.isdecimal() or not int(value[:9]) >= 1:
                raise InvalidRequest("limit must be a whole number of at least 1.", param="limit")
            # A larger page than this is told in parts, as its has_more says.
            limit = min(int(value[:9]), LIMIT_MAX)
        elif name == "order":
            if value not in {"asc", "desc"}:
                raise InvalidRequest("order is asc or desc.", param="order")
            ascending = value == "asc"
        elif name == "order_by" and value == "created_at":
            # That is how they stand anyway.
            continue
        elif name == "after":
            after = value or None
        elif name == "before":
            before = value or None
        elif name.partition("[")[0] in endpoint.filters:
            filters[name] = value
        else:
            raise InvalidRequest("A list of a team's own objects cannot be narrowed so.", param=name[:64])
    if after is not None and before is not None:
        raise InvalidRequest("A page begins after an object or ends before one, not both.", param="before")
    return Asked(limit, ascending, after, before, filters)


def _passes(body: bytes, filters: Mapping[str, str]) -> bool:
    if not filters:
        return True
    try:
        row: Any = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return False
    return all(str(_member(row, name)) == wanted for name, wanted in filters.items())


def _member(row: Any, name: str) -> Any:
    """The member that a filter names: ``purpose``, or ``metadata[project]``."""
    for part in name.replace("]", "").split("["):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def page_json(rows: Sequence[tuple[str, bytes]], *, has_more: bool) -> bytes:
    """Objects as they came, each with its id, in one of OpenAI's cursor pages."""
    ends = {
        "first_id": rows[0][0] if rows else None,
        "last_id": rows[-1][0] if rows else None,
        "has_more": has_more,
    }
    return b'{"object":"list","data":[%b],%b' % (b",".join(body for _, body in rows), msgspec.json.encode(ends)[1:])
