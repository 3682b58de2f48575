"""What a request asks for: its body read, proven and understood, and where it may go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import msgspec

from app.auth.ownership import Ownership
from app.auth.references import (
    Reference,
    find_references,
    models_within,
    references_of_fields,
    references_of_query,
)
from app.catalog import Catalog, Route
from app.core.codec import SLOW_IN_THREAD_BYTES, JSONObject, parse_object_fast, parse_object_slow
from app.core.errors import GatewayError, InvalidRequest, ModelNotAllowed, ModelNotFound, StoredObjectNotFound, quoted
from app.core.exchange import Exchange
from app.core.form import Form, parse_form
from app.core.identity import Principal
from app.core.patterns import matches_any
from app.core.peek import Peek, peek, peek_other
from app.core.splices import usage_splice
from app.pipeline.fine_tuned import FineTuned
from app.pipeline.inquiring import Inquirer
from app.pipeline.kept_turns import KeptTurns, names_in_input
from app.pipeline.plan import Plan, Variant
from app.pipeline.recall import Key, Recall
from app.pipeline.routing import Routing
from app.state.expansion import PREVIOUS
from app.upstream.headers import find
from app.upstream.pool import UpstreamPool

FILE_BYTES_PER_BYTE = 512
"""Of a file in a form, so many bytes are taken for one of text: sound and pictures are no text."""


class Planner:
    """Reads requests for one configuration."""

    def __init__(
        self,
        ownership: Ownership,
        catalog: Catalog,
        pools: Mapping[str, UpstreamPool],
        inquirer: Inquirer,
        recall: Recall,
        routing: Routing,
        default_upstream: str | None,
        kept: KeptTurns | None,
    ) -> None:
        """``default_upstream``: where a request goes that names neither a model nor anything stored. ``kept``: where
        an upstream keeps nothing.
        """
        self._ownership = ownership
        self._catalog = catalog
        self._pools = pools
        self._inquirer = inquirer
        self._recall = recall
        self._routing = routing
        self._default_upstream = default_upstream
        self.kept = kept
        self._public = {object_id: name for name, pool in pools.items() for object_id in pool.settings.shared_objects}
        self.fine_tuned = FineTuned(catalog, ownership, self._public)

    def __repr__(self) -> str:
        return f"Planner({self._recall!r}, default_upstream={self._default_upstream!r})"

    # -- what costs -----------------------------------------------------------------------------

    async def plan(self, exchange: Exchange, principal: Principal) -> Plan:
        """What is to be sent, and where. Raises GatewayError."""
        body = await exchange.read_body()
        if exchange.media == "form":
            return await self._plan_form(exchange, principal, body)
        key, known = self._recall.find(exchange, principal, body)
        if known is not None:
            return known
        document = await parse(body)
        dialect = exchange.endpoint.dialect
        ask = peek_other(exchange.endpoint.family, document) if dialect == "other" else peek(dialect, document)
        try:
            references = [*references_of_path(exchange), *find_references(dialect, document)]
            references += self.fine_tuned.references(principal, ask.model)
            if self.kept is not None and exchange.endpoint.family == "responses":
                return await self._plan_kept(self.kept, exchange, principal, ask, document, references, key)
            routes = await self._routes(exchange, principal, ask, references)
            inquire = partial(self._inquirer.inquire, exchange, principal, ask, document, routes)
            inquiry = await asyncio.to_thread(inquire) if len(body) > SLOW_IN_THREAD_BYTES else inquire()
            asks_usage = ask.stream and exchange.endpoint.family == "chat" and self._routing.asks_usage(routes)
            plan = Plan(ask, body, routes, inquiry, len(body), usage_splice(document) if asks_usage else None)
        except GatewayError as error:
            error.explanation["model"] = quoted(ask.model)
            raise
        if not references:
            # Whose a named object is may change; what is asked for by the same bytes may not.
            self._recall.keep(key, plan)
        return plan

    async def _plan_kept(
        self,
        kept: KeptTurns,
        exchange: Exchange,
        principal: Principal,
        ask: Peek,
        body: JSONObject,
        references: list[Reference],
        key: Key | None,
    ) -> Plan:
        """A plan where an upstream keeps nothing. What it goes on from is brought along, also to another upstream."""
        room = kept.open_room(exchange)
        chain, others = await kept.chain_of(room, principal, ask.previous_response_id, references, self.holder_of)
        routes = kept.narrowed(self._serving(exchange, principal, ask.model), ask, body, chain)
        others = kept.to_be_found(routes, others)
        routes = await self._at_holder(routes, principal, others)
        inquire = partial(self._inquirer.inquire, exchange, principal, ask, body, routes)
        inquiry = await asyncio.to_thread(inquire) if len(body.body) > SLOW_IN_THREAD_BYTES else inquire()
        pinned = names_in_input(body, others)
        keeping = kept.keeping(exchange, principal, ask, body, chain, routes, pinned=pinned)
        variants: dict[str, Variant] = {}
        if chain:
            body, own = await kept.expanded(room, body, chain, routes)
            variants = {name: (each.body, each.span_of("model")) for name, each in own.items()}
            look = partial(peek, exchange.endpoint.dialect, body)
            ask = await asyncio.to_thread(look) if len(body.body) > SLOW_IN_THREAD_BYTES else look()
        size = max(len(sent) for sent in (body.body, *(each for each, _ in variants.values())))
        plan = Plan(ask, body.body, routes, inquiry, size, keeping=keeping, variants=variants)
        if not references:
            self._recall.keep(key, plan)
        return plan

    async def bring_along(
        self,
        kept: KeptTurns,
        exchange: Exchange,
        principal: Principal,
        document: JSONObject,
        references: list[Reference],
    ) -> tuple[JSONObject, list[Reference], Route | None]:
        """What a create would do with kept turns, for what leaves no record: the body that brings them along, what else
        is to be looked up, and where it goes, None where nothing was kept of what it names. Raises GatewayError.
        """
        previous, model = document.get_str(PREVIOUS), document.get_str("model")
        room = kept.open_room(exchange)
        chain, others = await kept.chain_of(room, principal, previous, references, self.holder_of)
        if not chain:
            if model is not None and any(each.told for each in others):
                others = kept.to_be_found(self.routes_of(principal, model), others)
            return document, others, None
        routes = (kept.last_route(chain),) if model is None else self._serving(exchange, principal, model)
        routes = kept.narrowed(routes, peek_other("responses", document), document, chain)
        others = kept.to_be_found(routes, others)
        own_model = [] if model is None else self.fine_tuned.references(principal, model)
        routes = await self._at_holder(routes, principal, [*others, *own_model])
        route = self._routing.only(routes)
        grown, _ = await kept.expanded(room, document, chain, (route,))
        return grown, [], route

    def pool_of(self, route: Route) -> UpstreamPool:
        """The upstream that a route leads to."""
        return self._pools[route.upstream]

    async def _plan_form(self, exchange: Exchange, principal: Principal, body: bytes) -> Plan:
        form = await parse_multipart(exchange, body)
        ask = peek_other(exchange.endpoint.family, form)
        try:
            references = [*references_of_path(exchange), *references_of_fields(form.texts())]
            references += self.fine_tuned.references(principal, ask.model)
            routes = await self._routes(exchange, principal, ask, references)
        except GatewayError as error:
            error.explanation["model"] = quoted(ask.model)
            raise
        files_bytes = sum(field.end - field.start for field in form.fields if field.is_file)
        size = len(body) - files_bytes + files_bytes // FILE_BYTES_PER_BYTE
        return Plan(ask, body, routes, self._inquirer.passed_by(exchange), size, is_form=True)

    async def _routes(
        self, exchange: Exchange, principal: Principal, ask: Peek, references: list[Reference]
    ) -> tuple[Route, ...]:
        """Where the model is served, for this principal; what is stored pins the upstream that has it."""
        return await self._at_holder(self._serving(exchange, principal, ask.model), principal, references)

    def _serving(self, exchange: Exchange, principal: Principal, model: str) -> tuple[Route, ...]:
        routes = self.routes_of(principal, model)
        if exchange.endpoint.family == "responses":
            routes = tuple(r for r in routes if self._pools[r.upstream].settings.responses == "native")
            if not routes:
                raise ModelNotFound(
                    f"The upstream of {quoted(model)!r} has no /v1/responses. Use /v1/chat/completions.",
                    param="model",
                )
        elif exchange.endpoint.family == "realtime":
            # Where none has them the client is told so.
            routes = tuple(r for r in routes if self._pools[r.upstream].has_sockets) or routes
        return routes

    async def _at_holder(
        self, routes: tuple[Route, ...], principal: Principal, references: list[Reference]
    ) -> tuple[Route, ...]:
        pinned = await self.holder_of(principal, references)
        if pinned is not None:
            routes = tuple(route for route in routes if route.upstream == pinned)
            if not routes:
                raise InvalidRequest(
                    f"What {references[0].param} names is stored at the upstream {pinned!r}, which does not serve"
                    " this model.",
                    param=references[0].param,
                )
        return routes

    def routes_of(self, principal: Principal, model: str) -> tuple[Route, ...]:
        """Where a model is served. Raises ModelNotFound, ModelNotAllowed."""
        routes = self._catalog.resolve(model)
        if principal.models is not None and not matches_any(principal.models, model):
            raise ModelNotAllowed(f"This key may not use the model {quoted(model)!r}.", param="model")
        return routes

    def check_nested_models(self, principal: Principal, document: JSONObject) -> list[Reference]:
        """The models that a body names somewhere within, as graders do: each must be one that the key may use. Returns
        which of them must be the team's own. Raises ModelNotFound, ModelNotAllowed.
        """
        own: list[Reference] = []
        for model in models_within(document):
            self.routes_of(principal, model)
            own += self.fine_tuned.references(principal, model)
        return own

    @property
    def has_sockets(self) -> bool:
        """Whether any upstream has WebSockets."""
        return any(pool.has_sockets for pool in self._pools.values())

    async def socket_routes(
        self, principal: Principal, ask: Peek, references: list[Reference], pool: UpstreamPool | None
    ) -> tuple[Route, ...]:
        """Where a create may go that came over a WebSocket; ``pool`` is where the connection leads already. Raises
        GatewayError.
        """
        routes = tuple(r for r in self.routes_of(principal, ask.model) if self._pools[r.upstream].has_sockets)
        if not routes:
            raise ModelNotFound(
                f"The upstream of {quoted(ask.model)!r} has no WebSocket here; use HTTP.", param="model"
            )
        own_model = self.fine_tuned.references(principal, ask.model)
        pinned = await self.holder_of(principal, [*references, *own_model])
        fit = [r for r in routes if r.upstream == (pinned or r.upstream) and pool in {None, self._pools[r.upstream]}]
        if not fit:
            raise InvalidRequest(
                "This connection leads to another upstream than the one that serves this model or holds what is named."
                " Open another connection.",
                param="model",
            )
        return tuple(fit)

    def references_in(self, document: JSONObject) -> list[Reference]:
        """What a frame of a Responses WebSocket names."""
        return find_references("responses", document)

    # -- what is stored -------------------------------------------------------------------------

    async def holder_of(self, principal: Principal, references: list[Reference], *, shared: bool = True) -> str | None:
        """The upstream that holds what is referred to; None where nothing is. Raises StoredObjectNotFound,
        InvalidRequest, LedgerUnavailable.
        """
        if not references:
            return None
        pinned = await self._ownership.holder_of(principal.team_id, references, self._public if shared else None)
        if pinned is not None and pinned not in self._pools:
            param = references[0].param
            raise StoredObjectNotFound(
                f"What {param} names is stored at the upstream {pinned!r}, which this gateway does not use any more.",
                param=param,
            )
        return pinned

    async def pool_for(
        self, exchange: Exchange, principal: Principal, references: list[Reference], model: str | None
    ) -> tuple[UpstreamPool, Route | None]:
        """Which upstream a request goes to that leaves no record, and as what its model is known there: the one that
        holds what it names, else one that serves the model, else the one that ``x-headgate-upstream`` or the
        configuration names. Raises GatewayError.
        """
        # What every team may name is nobody's to change.
        reads = exchange.method in {"GET", "HEAD"} or exchange.path.endswith("/search") or not exchange.ids
        for kind, object_id in () if reads else exchange.ids:
            # Also where an answer has named it, as if it were made for the team.
            if object_id in self._public:
                raise StoredObjectNotFound.of(f"{kind}_id", object_id)
        own_model = [] if model is None else self.fine_tuned.references(principal, model)
        pinned = await self.holder_of(principal, [*references, *own_model], shared=reads)
        if model is not None:
            routes = self._serving(exchange, principal, model)
            of_pinned = tuple(route for route in routes if pinned in {None, route.upstream})
            if of_pinned:
                chosen = self._routing.only(of_pinned)
                return self._pools[chosen.upstream], chosen
        if pinned is not None:
            return self._pools[pinned], None
        asked = find(exchange.headers, b"x-headgate-upstream")
        name = self._default_upstream if asked is None else asked.decode("latin-1")
        if name is None or name not in self._pools:
            raise InvalidRequest(
                "No upstream is configured for this request."
                if asked is None
                else f"There is no upstream {quoted(name or '')!r}.",
            )
        return self._pools[name], None


def references_of_path(exchange: Exchange) -> list[Reference]:
    """The objects that path and query name."""
    named = [Reference(object_id, f"{kind}_id") for kind, object_id in exchange.ids]
    return named + references_of_query(exchange.query) if exchange.query else named


async def parse(body: bytes) -> JSONObject:
    """Strict JSON; a large body that the cheap proof does not cover is parsed off the event loop."""
    document = parse_object_fast(body)
    if document is not None:
        return document
    if len(body) > SLOW_IN_THREAD_BYTES:
        return await asyncio.to_thread(parse_object_slow, body)
    return parse_object_slow(body)


async def parse_multipart(exchange: Exchange, body: bytes) -> Form:
    """A form, strictly read. Raises InvalidRequest."""
    content_type = find(exchange.headers, b"content-type") or b""
    if len(body) > SLOW_IN_THREAD_BYTES:
        return await asyncio.to_thread(parse_form, body, content_type)
    return parse_form(body, content_type)


def with_model(body: bytes, span: tuple[int, int], name: str, model: str) -> bytes:
    """A JSON body that calls ``model`` by the upstream's ``name`` for it, at its place."""
    start, end = span
    if name == model or start == end:
        return body
    return body[:start] + msgspec.json.encode(name) + body[end:]


def named_model(body: bytes, model: str) -> bytes:
    """A JSON body that has members, but names no model, with one."""
    at = body.index(b"{") + 1
    return body[:at] + b'"model":' + msgspec.json.encode(model) + b"," + body[at:]
