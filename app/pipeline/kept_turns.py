"""What the gateway does itself of the Responses API, where an upstream keeps nothing: it goes on from kept turns, keeps
new ones, and answers what is asked of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from app.auth.ownership import Ownership
from app.auth.references import Reference, fields_of_query, find_references
from app.catalog import Route
from app.core.clock import Clock
from app.core.codec import SLOW_IN_THREAD_BYTES, JSONObject
from app.core.errors import InvalidRequest, StoredObjectNotFound
from app.core.exchange import Exchange
from app.core.identity import Principal
from app.core.peek import Peek
from app.pipeline.own_lists import page_json
from app.settings import ServerSettings
from app.state.chains import Chains
from app.state.expansion import PREVIOUS
from app.state.items import listed, model_of, own_items
from app.state.room import Room
from app.state.turn import Keeping, Turn
from app.state.turns import Turns
from app.upstream.pool import UpstreamPool

LIMIT_USUAL = 20
LIMIT_MAX = 100
LIMIT_DIGITS_MAX = 9
CREATE = "/responses"

Holder = Callable[[Principal, list[Reference]], Awaitable[str | None]]
"""Which upstream holds what is referred to; raises StoredObjectNotFound."""


def open_kept_turns(
    turns: Turns, pools: Mapping[str, UpstreamPool], server: ServerSettings, clock: Clock, ownership: Ownership
) -> KeptTurns | None:
    """None where every upstream keeps what it makes itself: nothing is looked for then."""
    ttl_days = {name: pool.settings.state_ttl_days for name, pool in pools.items() if pool.settings.state == "gateway"}
    if not ttl_days:
        return None
    chains = Chains(
        turns, ttl_days, body_bytes_max=server.body_bytes_max, held_bytes_max=server.body_bytes_in_flight_max
    )
    return KeptTurns(chains, clock, ownership)


class KeptTurns:
    """For one configuration, in which an upstream keeps nothing."""

    def __init__(self, chains: Chains, clock: Clock, ownership: Ownership) -> None:
        self._chains = chains
        self._clock = clock
        self._ownership = ownership

    def __repr__(self) -> str:
        return f"KeptTurns({self._chains!r})"

    # -- a request that goes on -------------------------------------------------------------------

    def open_room(self, exchange: Exchange) -> Room:
        """Room for what a request is told of turns, until its body is let go."""
        return self._chains.open_room(exchange)

    async def chain_of(
        self,
        room: Room,
        principal: Principal,
        response_id: str | None,
        references: list[Reference],
        holder_of: Holder,
    ) -> tuple[list[Turn], list[Reference]]:
        """The kept turns of ``response_id``, which the request says that it goes on from, the oldest first, and what
        else it names: no turns where an upstream holds what it goes on from, and can. Raises StoredObjectNotFound,
        InvalidRequest, LedgerUnavailable, Overloaded.
        """
        team_id = principal.team_id
        if not response_id or self._is_held_elsewhere(team_id, response_id):
            return [], references
        named = Reference(response_id, PREVIOUS)

        async def find() -> list[Turn] | None:
            return await self._chains.find(team_id, response_id, self._clock.now_ms(), room)

        chain = await find()
        if chain is None:
            if await self._held_by(principal, named, holder_of) not in {None, *self._chains.upstreams}:
                return [], references
            chain = await self._chains.wait_for(team_id, response_id, find)
        if chain is None:
            raise StoredObjectNotFound.of(PREVIOUS, response_id)
        others = list(references)
        if named in others:
            # The same id in another place is another reference.
            others.remove(named)
        return chain, others

    def _is_held_elsewhere(self, team_id: str, response_id: str) -> bool:
        """Whether memory knows of an upstream that holds it, and keeps its own: the ledger need not be asked then."""
        upstream = self._ownership.known_at(team_id, response_id)
        if upstream is None or upstream in self._chains.upstreams:
            return False
        return not self._chains.is_in_memory(team_id, response_id)

    def to_be_found(self, routes: Sequence[Route], references: list[Reference]) -> list[Reference]:
        """What has to be looked up: where every route leads to an upstream that keeps nothing, not what is told."""
        if all(route.upstream in self._chains.upstreams for route in routes):
            return [each for each in references if not each.told]
        return references

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
        self, room: Room, body: JSONObject, chain: Sequence[Turn], routes: Sequence[Route]
    ) -> tuple[JSONObject, dict[str, JSONObject]]:
        """The body that brings along what came before, and those of upstreams that are sent another one. Raises
        InvalidRequest, Overloaded.
        """
        return await self._chains.expanded(room, body, chain, {route.upstream for route in routes})

    def last_route(self, chain: Sequence[Turn]) -> Route:
        """Where the last turn was answered, and by what. Raises InvalidRequest where nobody knows."""
        model = model_of(chain[-1].content.response)
        if chain[-1].upstream not in self._chains.upstreams or model is None:
            raise InvalidRequest("The request names no model.", param="model")
        return Route(chain[-1].upstream, model)

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
        """What is to be kept of the request, as it came; None where nothing is. ``pinned``: its input
        names something stored. Raises InvalidRequest.
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
        turn = await self._turn(exchange, principal, Reference(exchange.ids[0][1], "response_id"), holder_of)
        if turn is None:
            return None
        if exchange.path.endswith("/input_items"):
            if len(turn.content.input) > SLOW_IN_THREAD_BYTES:
                return await asyncio.to_thread(_page, turn, exchange.query)
            return _page(turn, exchange.query)
        if exchange.method == "DELETE":
            await self._chains.delete(turn)
            return msgspec.json.encode({"id": turn.response_id, "object": "response", "deleted": True})
        if exchange.method not in {"GET", "HEAD"}:
            raise InvalidRequest("This response has come to its end.")
        if ("stream", "true") in fields_of_query(exchange.query):
            raise InvalidRequest("A response that the gateway keeps is not streamed again.", param="stream")
        return turn.content.response

    async def _turn(self, exchange: Exchange, principal: Principal, named: Reference, holder_of: Holder) -> Turn | None:
        team_id, response_id = principal.team_id, named.object_id
        if self._is_held_elsewhere(team_id, response_id):
            return None
        room = self.open_room(exchange)

        async def find() -> Turn | None:
            return await self._chains.one(team_id, response_id, self._clock.now_ms(), room)

        turn = await find()
        if turn is None and await self._held_by(principal, named, holder_of) is None:
            turn = await self._chains.wait_for(team_id, response_id, find)
            if turn is None:
                raise StoredObjectNotFound.of(named.param, named.object_id)
        return turn


def names_in_input(body: JSONObject, references: Sequence[Reference]) -> bool:
    """Whether any of ``references`` stands in the input, which is what is sent again."""
    if not references or not body.has("input"):
        return False
    alone = JSONObject(body.body, {"input": body.members["input"]}, {"input": body.value["input"]})
    return any(each in references for each in find_references("responses", alone))


def _page(turn: Turn, query: bytes) -> bytes:
    """The input items of a turn, as OpenAI's cursor pages are. Raises InvalidRequest, StoredObjectNotFound."""
    limit, ascending, after = LIMIT_USUAL, False, ""
    for name, value in fields_of_query(query):
        if name == "limit":
            # Beyond some thousand digits int() raises.
            is_short = value.isdecimal() and len(value) <= LIMIT_DIGITS_MAX
            if not (is_short and 1 <= int(value) <= LIMIT_MAX):
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
    return page_json(items[:limit], has_more=len(items) > limit)
