"""What the gateway does itself of the Responses API, where an upstream keeps nothing: it goes on from kept turns, keeps
new ones, and answers what is asked of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from app.auth.references import Reference, fields_of_query
from app.catalog import Route
from app.core.clock import Clock
from app.core.codec import JSONObject
from app.core.errors import InvalidRequest, StoredObjectNotFound
from app.core.exchange import Exchange
from app.core.identity import Principal
from app.core.peek import Peek
from app.settings import ServerSettings
from app.state.chains import Chains
from app.state.expansion import PREVIOUS
from app.state.items import listed, own_items
from app.state.turn import Keeping, Turn
from app.state.turns import Turns
from app.upstream.pool import UpstreamPool

LIMIT_USUAL = 20
LIMIT_MAX = 100
CREATE = "/responses"

Holder = Callable[[Principal, list[Reference]], Awaitable[str | None]]
"""Which upstream holds what is referred to; raises StoredObjectNotFound."""


def open_kept_turns(
    turns: Turns, pools: Mapping[str, UpstreamPool], server: ServerSettings, clock: Clock
) -> KeptTurns | None:
    """None where every upstream keeps what it makes itself: nothing is looked for then."""
    ttl_days = {name: pool.settings.state_ttl_days for name, pool in pools.items() if pool.settings.state == "gateway"}
    if not ttl_days:
        return None
    chains = Chains(
        turns, ttl_days, body_bytes_max=server.body_bytes_max, held_bytes_max=server.body_bytes_in_flight_max
    )
    return KeptTurns(chains, clock)


class KeptTurns:
    """For one configuration, in which an upstream keeps nothing."""

    def __init__(self, chains: Chains, clock: Clock) -> None:
        self._chains = chains
        self._clock = clock

    def __repr__(self) -> str:
        return f"KeptTurns({self._chains!r})"

    # -- a request that goes on -------------------------------------------------------------------

    async def chain_of(
        self, principal: Principal, references: list[Reference], holder_of: Holder
    ) -> tuple[list[Turn], list[Reference]]:
        """The kept turns that a request goes on from, the oldest first, and what else it names: no turns where an
        upstream holds what it goes on from, and can. Raises StoredObjectNotFound, InvalidRequest, LedgerUnavailable.
        """
        named = next((each for each in references if each.param == PREVIOUS), None)
        if named is None:
            return [], references
        team_id, response_id = principal.team_id, named.object_id
        chain = await self._chains.find(team_id, response_id, self._clock.now_ms())
        if chain is None:
            if await self._held_by(principal, named, holder_of) not in {None, *self._chains.upstreams}:
                return [], references
            chain = await self._chains.wait_for(team_id, response_id, self._clock.now_ms())
        if chain is None:
            raise StoredObjectNotFound.of(PREVIOUS, response_id)
        return chain, [each for each in references if each is not named]

    async def _held_by(self, principal: Principal, named: Reference, holder_of: Holder) -> str | None:
        """The upstream at which it was stored for the team; None where it was not."""
        try:
            return await holder_of(principal, [named])
        except StoredObjectNotFound:
            return None

    def narrowed(
        self, routes: tuple[Route, ...], ask: Peek, body: JSONObject, chain: Sequence[Turn]
    ) -> tuple[Route, ...]:
        """The routes that can do what is asked. Raises InvalidRequest."""
        what = "background" if ask.background else "conversation" if body.has("conversation") else None
        if what is not None:
            routes = tuple(route for route in routes if route.upstream not in self._chains.upstreams)
            if not routes:
                raise InvalidRequest(
                    f"The upstream of this model keeps no state, so {what} cannot be used with it;"
                    " previous_response_id can.",
                    param=what,
                )
        pinned = {turn.content.pinned for turn in chain if turn.content.pinned}
        fit = tuple(route for route in routes if not pinned or pinned == {route.upstream})
        if not fit:
            raise InvalidRequest(
                f"What came before names something that is stored at the upstream {min(pinned)!r},"
                " which does not serve this model.",
                param=PREVIOUS,
            )
        return fit

    async def expanded(
        self, exchange: Exchange, body: JSONObject, chain: Sequence[Turn], routes: Sequence[Route]
    ) -> JSONObject:
        """The body that brings along what came before. Raises InvalidRequest, Overloaded."""
        return await self._chains.expanded(exchange, body, chain, {route.upstream for route in routes})

    def keeping(
        self,
        exchange: Exchange,
        principal: Principal,
        ask: Peek,
        body: JSONObject,
        chain: Sequence[Turn],
        routes: Sequence[Route],
        *,
        pinned: bool,
    ) -> Keeping | None:
        """What is to be kept of the request, as it came; None where nothing is. ``pinned``: it names something stored.
        Raises InvalidRequest.
        """
        upstreams = self._chains.upstreams.intersection(route.upstream for route in routes)
        if not upstreams or not ask.stores or exchange.endpoint.path != CREATE:
            return None
        last = chain[-1] if chain else None
        return Keeping(
            team_id=principal.team_id,
            input=own_items(body),
            upstreams=upstreams,
            pinned=routes[0].upstream if pinned else "",
            previous_id=None if last is None else last.turn_id,
            chain_id=None if last is None else last.chain_id,
        )

    # -- what is asked of kept turns ----------------------------------------------------------------

    async def answer(self, exchange: Exchange, principal: Principal, holder_of: Holder) -> bytes | None:
        """The answer to a request about a kept turn; None where it is about something else. Raises InvalidRequest,
        LedgerUnavailable.
        """
        if len(exchange.ids) != 1 or exchange.ids[0][0] != "response":
            return None
        turn = await self._turn(principal, Reference(exchange.ids[0][1], "response_id"), holder_of)
        if turn is None:
            return None
        if exchange.path.endswith("/input_items"):
            return _page(turn, exchange.query)
        if exchange.method == "DELETE":
            await self._chains.delete(turn)
            return msgspec.json.encode({"id": turn.response_id, "object": "response", "deleted": True})
        if exchange.method != "GET":
            raise InvalidRequest("This response has come to its end.")
        if ("stream", "true") in fields_of_query(exchange.query):
            raise InvalidRequest("A response that the gateway keeps is not streamed again.", param="stream")
        return turn.content.response

    async def _turn(self, principal: Principal, named: Reference, holder_of: Holder) -> Turn | None:
        team_id, now_ms = principal.team_id, self._clock.now_ms()
        turn = await self._chains.one(team_id, named.object_id, now_ms)
        if turn is None and await self._held_by(principal, named, holder_of) is None:
            found = await self._chains.wait_for(team_id, named.object_id, now_ms)
            turn = found[-1] if found else None
            if turn is None:
                raise StoredObjectNotFound.of(named.param, named.object_id)
        return turn


def _page(turn: Turn, query: bytes) -> bytes:
    """The input items of a turn, as OpenAI's cursor pages are. Raises InvalidRequest, StoredObjectNotFound."""
    limit, ascending, after = LIMIT_USUAL, False, ""
    for name, value in fields_of_query(query):
        if name == "limit":
            if not value.isdecimal() or not 1 <= int(value[:9]) <= LIMIT_MAX:
                raise InvalidRequest(f"limit must be between 1 and {LIMIT_MAX}.", param="limit")
            limit = int(value)
        elif name == "order":
            if value not in {"asc", "desc"}:
                raise InvalidRequest("order is asc or desc.", param="order")
            ascending = value == "asc"
        elif name == "after":
            after = value
    items = listed(turn)
    if not ascending:
        items.reverse()
    if after:
        at = next((index for index, (item_id, _) in enumerate(items) if item_id == after), None)
        if at is None:
            raise StoredObjectNotFound.of("after", after)
        items = items[at + 1 :]
    page = items[:limit]
    ends = {
        "first_id": page[0][0] if page else None,
        "last_id": page[-1][0] if page else None,
        "has_more": len(items) > limit,
    }
    return b'{"object":"list","data":[%b],%b' % (b",".join(item for _, item in page), msgspec.json.encode(ends)[1:])
