"""What the cache does for a request: an answer that is kept, a call in flight to join, or the call itself.

A hit and a joined request are admitted (requests and concurrency), leave a record that costs nothing and says
what was saved, and call nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import msgspec

from app.auth.running import Running
from app.cache.cache import Lead, ResponseCache, is_event_stream, is_of_request
from app.cache.entry import Entry as Kept
from app.cache.forms import pieces
from app.cache.inquiry import Asked, Inquiry, inquire
from app.cache.sharing import SharedAnswer
from app.cache.telling import common_headers, hit_headers, own_headers
from app.cache.wishes import Policy
from app.catalog import Catalog, Route
from app.core.codec import JSONObject
from app.core.errors import (
    Draining,
    GatewayError,
    Headers,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidAPIKey,
    NotCached,
    render,
)
from app.core.exchange import ClientGone, Connection, Exchange
from app.core.identity import Principal
from app.core.money import NANO_PER_USD
from app.core.peek import Peek
from app.core.records import CacheResult, Outcome, Record
from app.core.tags import tags_of
from app.ledger.journal import Journal
from app.limits.headers import ratelimit_headers
from app.pipeline.admission import Admission, Admitted, SavedQuestion
from app.pipeline.desk import Desk
from app.pipeline.plan import Plan
from app.pipeline.riders import Rider, RiderRevocation, Shared
from app.pipeline.saved import SETTLED, Ending, close, kept_of, land
from app.settings import Configuration
from app.upstream.headers import find
from app.upstream.pool import UpstreamPool

POLICIES_MAX = 4096
REPLAYED_AT_ONCE_BYTES = 64 * 1024
OK = 200

Fly: TypeAlias = Callable[[Exchange, Principal, Plan, Shared | None], Awaitable[Record | None]]


class Saving:
    """The cache's stage of one configuration. ``fly`` makes the call."""

    def __init__(
        self,
        cache: ResponseCache,
        configuration: Configuration,
        catalog: Catalog,
        pools: Mapping[str, UpstreamPool],
        admission: Admission,
        desk: Desk,
        journal: Journal,
        running: Running,
        fly: Fly,
    ) -> None:
        self._cache = cache
        self._settings = configuration.cache
        self._slow_client_s = configuration.server.slow_client_s
        self._catalog = catalog
        self._pools = pools
        self._admission = admission
        self._desk = desk
        self._journal = journal
        self._running = running
        self._fly = fly
        self._policies: dict[str, Policy] = {}

    def __repr__(self) -> str:
        return f"Saving({self._cache!r}, mode={self._settings.mode!r})"

    def inquire(
        self, exchange: Exchange, principal: Principal, ask: Peek, body: JSONObject, routes: tuple[Route, ...]
    ) -> Inquiry:
        """What may be done for the request. Raises InvalidRequest."""
        asked = Asked(
            endpoint=exchange.endpoint,
            query=exchange.query,
            headers=exchange.headers,
            principal=principal,
            ask=ask,
            body=body,
            sources=lambda: self._sources(routes),
        )
        return inquire(
            asked, self._policy_of(ask.model), self._cache.secret, idempotency_ttl_s=self._settings.idempotency_ttl_s
        )

    def _policy_of(self, model: str) -> Policy:
        policy = self._policies.get(model)
        if policy is None:
            if len(self._policies) >= POLICIES_MAX:
                # Names are clients' text: start afresh rather than grow.
                self._policies.clear()
            own = self._catalog.cache_of(model)
            policy = self._policies[model] = Policy(
                mode=None if own is None else own.mode,
                default=self._settings.mode,
                scope=(own and own.scope) or self._settings.scope,
                ttl_s=(own and own.ttl_s) or self._settings.ttl_s,
            )
        return policy

    def _sources(self, routes: tuple[Route, ...]) -> tuple[list[tuple[str, str, str]], frozenset[bytes]]:
        pools = [self._pools[route.upstream] for route in routes]
        places = [(route.upstream, pool.base_url, route.model) for route, pool in zip(routes, pools, strict=True)]
        return places, frozenset().union(*(pool.forwarded for pool in pools))

    # -- the request ----------------------------------------------------------------------------

    async def answer(self, exchange: Exchange, principal: Principal, plan: Plan) -> None:
        """Answer the request, one way or another. What is refused is raised as GatewayError."""
        inquiry = plan.inquiry
        if inquiry.address is None:
            if inquiry.only_if_cached:
                raise NotCached
            await self._fly(exchange, principal, plan, None)
        elif inquiry.shadow:
            await self._measure(exchange, principal, plan)
        elif inquiry.request_digest:
            await self._once(exchange, principal, plan)
        elif inquiry.only_if_cached:
            look = await self._cache.look(inquiry)
            if look.entry is None:
                raise NotCached
            await self._repeat(exchange, principal, plan, look.entry)
        else:
            while not await self._try(exchange, principal, plan):
                # Whoever was to make the call will not: another one is to.
                pass

    async def _try(self, exchange: Exchange, principal: Principal, plan: Plan) -> bool:
        """Whether the request was answered; else it is to be tried again."""
        cache, inquiry = self._cache, plan.inquiry
        lead = cache.lead_of(inquiry)
        if lead is not None:
            return await self._join(exchange, principal, plan, lead)
        token = cache.new_token(inquiry)
        look = await cache.look(inquiry, token)
        if look.entry is not None:
            await self._repeat(exchange, principal, plan, look.entry)
            return True
        lead = cache.lead_of(inquiry)
        if lead is not None:
            # It has begun while the store was asked.
            cache.give_back(inquiry, token, look)
            return await self._join(exchange, principal, plan, lead)
        with cache.leading(inquiry, self._new_answer(exchange), token, look) as lead:
            shared = Shared(lead, exchange, lambda shared: self._keep(exchange, plan, shared))
            lead.entry = await cache.wait_for_others(lead)
            if shared.listener.ended.done():
                # Its client left while it waited. Those who joined ask again.
                raise ClientGone
            if lead.entry is None:
                await self._call(exchange, principal, plan, shared)
                return True
        await self._repeat(exchange, principal, plan, lead.entry)
        return True

    async def _call(self, exchange: Exchange, principal: Principal, plan: Plan, shared: Shared) -> None:
        await self._fly(exchange, principal, plan, shared)
        # A slow client is still being told what the call brought.
        shared.answer.close()
        await shared.listener.ended

    def _new_answer(self, exchange: Exchange) -> SharedAnswer:
        request_id = exchange.request_id
        return self._cache.new_answer(
            self._settings.entry_bytes_max,
            self._slow_client_s,
            lambda headers: common_headers(headers, request_id),
        )

    def _keep(self, exchange: Exchange, plan: Plan, shared: Shared) -> None:
        """The whole answer has come, and nobody has the last of it."""
        record, answer = shared.lead.record, shared.answer
        if record is None or answer.status != OK or shared.lead.outcome not in SETTLED:
            return
        inquiry = plan.inquiry
        kept = kept_of(record, change=shared.lead.change, ttl_s=inquiry.ttl_s, request_digest=inquiry.request_digest)
        headers = [header for header in answer.headers if header[0] != b"x-headgate-upstream"]
        whole = msgspec.structs.replace(kept, status=answer.status, headers=headers, body=answer.body)
        self._cache.keep(shared.lead, exchange.endpoint.family, whole)

    # -- what is kept ---------------------------------------------------------------------------

    async def _repeat(self, exchange: Exchange, principal: Principal, plan: Plan, kept: Kept, detail: str = "") -> None:
        """Answer with what is kept."""
        admitted = await self._admit(exchange, principal, plan, "hit", detail or "hit", kept)
        desk, connection = self._desk, exchange.connection
        try:
            self._journal.check()
            plan.take_body()
            exchange.forget_body()
            first_byte_at_ms = desk.clock.now_ms()
            outcome: Outcome = "disconnected" if connection.disconnected else "completed"
            record = close(desk, admitted, Ending(outcome, kept.status, None, first_byte_at_ms, kept))
        except BaseException:
            self._admission.give_back(admitted)
            raise
        try:
            own = own_headers(kept.headers, exchange.request_id, ratelimit_headers(admitted.grant.standings))
            own.append((b"x-headgate-upstream", kept.upstream.encode()))
            own += hit_headers(self._cache.ttl_left_s(kept), self._cache.age_s(kept), detail)
            if is_event_stream(kept.headers):
                await self._replay(connection, kept, own)
            else:
                own.append((b"x-headgate-cost-usd", b"0"))
                connection.respond(kept.status, own, kept.body)
        finally:
            land(desk, exchange, principal, record)

    async def _replay(self, connection: Connection, kept: Kept, headers: Headers) -> None:
        """The stream as it came, an event to each chunk."""
        connection.start(kept.status, headers)
        batch: list[bytes] = []
        size = 0
        for piece in pieces(kept.body):
            batch.append(piece)
            size += len(piece)
            if size >= REPLAYED_AT_ONCE_BYTES:
                connection.write_all(batch)
                batch, size = [], 0
                if connection.write_paused and not await connection.drained(self._slow_client_s):
                    connection.abort()
                    return
        connection.write_all(batch)
        connection.finish()

    async def _admit(
        self, exchange: Exchange, principal: Principal, plan: Plan, did: CacheResult, reason: str, kept: Kept | None
    ) -> Admitted:
        route = plan.routes[0]
        return await self._admission.admit_saved(
            SavedQuestion(
                exchange=exchange,
                principal=principal,
                ask=plan.ask,
                upstream=route.upstream if kept is None else kept.upstream,
                model=route.model if kept is None else kept.model,
                tokens=0 if kept is None else kept.usage.tokens,
                tags=tags_of(find(exchange.headers, b"x-headgate-tags")),
                cache=did,
                cache_reason=reason,
            )
        )

    # -- a call in flight -----------------------------------------------------------------------

    async def _join(self, exchange: Exchange, principal: Principal, plan: Plan, lead: Lead) -> bool:
        """Whether the call that is in flight answered the request."""
        rider = Rider(self._desk, self._journal, exchange, principal, lead)
        listener = lead.shared.join(exchange.connection, rider)
        try:
            rider.admitted = await self._admit(exchange, principal, plan, "joined", "joined", None)
            self._journal.check()
        except BaseException:
            listener.drop("refused")
            if rider.admitted is not None:
                self._admission.give_back(rider.admitted)
            raise
        secret_id = principal.secret_id
        revocation = RiderRevocation(listener)
        if not self._running.enter(secret_id, revocation):
            listener.drop("revoked")
        try:
            listener.begin()
            how = await listener.ended
        except asyncio.CancelledError:
            # The end of the shutdown's grace.
            listener.drop("cancelled")
            rider.end("interrupted", "gateway_shutdown")
            rider.land()
            _give_up(exchange, Draining())
            raise
        finally:
            self._running.leave(secret_id, revocation)
        if how == "revoked" and listener.has_started:
            rider.end("interrupted", "key_revoked")
            exchange.connection.abort()
        elif how in {"abandoned", "refused", "revoked"}:
            # Nothing was told, and nothing is written down.
            self._admission.give_back(rider.admitted)
            if how == "revoked":
                raise InvalidAPIKey(should_retry=False)
            if listener.refusal is not None:
                raise listener.refusal
            return await self._after(exchange, principal, plan, lead)
        rider.land()
        return True

    async def _after(self, exchange: Exchange, principal: Principal, plan: Plan, lead: Lead) -> bool:
        """The call that was waited for is not made; perhaps because its answer was found."""
        if lead.entry is None or not self._cache.may_tell(lead.entry, plan.inquiry):
            return False
        await self._repeat(exchange, principal, plan, lead.entry)
        return True

    # -- other ways -----------------------------------------------------------------------------

    async def _once(self, exchange: Exchange, principal: Principal, plan: Plan) -> None:
        """A request with an Idempotency-Key: carried out once, and its answer repeated to whoever asks again."""
        cache, inquiry = self._cache, plan.inquiry
        token = cache.new_token(inquiry)
        look = await cache.look(inquiry, token)
        if look.entry is not None:
            if look.entry.request_digest != inquiry.request_digest:
                raise IdempotencyKeyReused
            await self._repeat(exchange, principal, plan, look.entry, "idempotency key")
            return
        if look.holder not in {"", token}:
            raise IdempotencyKeyInUse if is_of_request(look.holder, inquiry) else IdempotencyKeyReused
        with cache.leading(inquiry, self._new_answer(exchange), token, look) as lead:
            shared = Shared(lead, exchange, lambda shared: self._keep(exchange, plan, shared))
            await self._call(exchange, principal, plan, shared)

    async def _measure(self, exchange: Exchange, principal: Principal, plan: Plan) -> None:
        """Mode ``shadow``: the call is made, and what it would have saved is counted afterwards."""
        inquiry = plan.inquiry
        record = await self._fly(exchange, principal, plan, None)
        if record is None or inquiry.address is None or record.status != OK or record.outcome != "completed":
            return
        found = (await self._cache.look(inquiry)).entry
        if found is None:
            kept = kept_of(record, change=self._cache.clears.change, ttl_s=inquiry.ttl_s)
            self._cache.store.keep(inquiry.address, kept)
            return
        mode = "deterministic" if inquiry.nature == "deterministic" else "all"
        metrics = self._desk.metrics
        metrics.shadow_hits.labels(mode).inc()
        metrics.shadow_saved_usd.labels(mode).inc((found.cost_nanousd or 0) / NANO_PER_USD)


def _give_up(exchange: Exchange, error: GatewayError) -> None:
    if exchange.connection.response_started:
        exchange.connection.abort()
    else:
        exchange.connection.respond(*render(error, exchange.request_id))
