"""What the cache does for a request: an answer that is kept, a call in flight to join, or the call itself.

A hit and a joined request are admitted (requests and concurrency), leave a record that costs nothing and says
what was saved, and call nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec

from app.auth.running import Running
from app.cache.cache import Lead, ResponseCache, is_event_stream, is_of_request
from app.cache.entry import Entry as Kept
from app.cache.forms import pieces
from app.cache.inquiry import Inquiry
from app.cache.leases import LOOK_EVERY_S
from app.cache.redis import BODY_BYTES_MAX
from app.cache.sharing import SharedAnswer
from app.cache.telling import JOINED_HEADERS, common_headers, hit_headers, own_headers
from app.core.errors import (
    Draining,
    GatewayError,
    Headers,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InternalError,
    InvalidAPIKey,
    NotCached,
    binds_key,
    copied,
    render,
)
from app.core.exchange import ClientGone, Connection, Exchange
from app.core.identity import Principal
from app.core.ids import new_request_id
from app.core.money import NANO_PER_USD
from app.core.records import CacheResult, Outcome, Record
from app.core.tags import tags_of
from app.ledger.journal import Journal
from app.limits.headers import ratelimit_headers
from app.metering.bounds import ask_of
from app.pipeline.admission import Admission, Admitted, SavedQuestion
from app.pipeline.desk import Desk
from app.pipeline.plan import Plan
from app.pipeline.riders import ReplayRevocation, Rider, RiderRevocation, Shared
from app.pipeline.saved import SETTLED, Ending, Replayed, as_hit, close, kept_of, land
from app.settings import Configuration
from app.upstream.headers import find

REPLAYED_AT_ONCE_BYTES = 64 * 1024
OK = 200
OF_THE_CALL = frozenset((b"x-headgate-upstream", b"x-headgate-fallback"))
"""Headers that say by whom an answer was given: of one that is kept, its record tells."""

Fly: TypeAlias = Callable[[Exchange, Principal, Plan, Shared | None], Awaitable[Record | None]]


class Saving:
    """The cache's stage of one configuration. ``fly`` makes the call."""

    def __init__(
        self,
        cache: ResponseCache,
        configuration: Configuration,
        admission: Admission,
        desk: Desk,
        journal: Journal,
        running: Running,
        fly: Fly,
    ) -> None:
        self._cache = cache
        self._settings = configuration.cache
        self._slow_client_s = configuration.server.slow_client_s
        self._admission = admission
        self._desk = desk
        self._journal = journal
        self._running = running
        self._fly = fly

    def __repr__(self) -> str:
        return f"Saving({self._cache!r}, mode={self._settings.mode!r})"

    # -- the request ----------------------------------------------------------------------------

    async def answer(self, exchange: Exchange, principal: Principal, plan: Plan) -> None:
        """Answer the request, one way or another. What is refused is raised as GatewayError."""
        inquiry = plan.inquiry
        if inquiry.only_if_cached and (inquiry.address is None or inquiry.shadow):
            raise NotCached
        if inquiry.address is None:
            await self._fly(exchange, principal, plan, None)
        elif inquiry.shadow:
            await self._measure(exchange, principal, plan)
        elif inquiry.request_digest:
            await self._once(exchange, principal, plan)
        elif inquiry.only_if_cached:
            look = await self._cache.look(inquiry)
            if look.entry is None:
                raise NotCached
            seat = Seat()
            try:
                await self._repeat(exchange, principal, plan, look.entry, seat)
            finally:
                self._leave(seat)
        else:
            seat = Seat()
            try:
                while not await self._try(exchange, principal, plan, seat):
                    # Whoever was to make the call will not: another one is to.
                    pass
            finally:
                self._leave(seat)

    async def _try(self, exchange: Exchange, principal: Principal, plan: Plan, seat: Seat) -> bool:
        """Whether the request was answered; else it is to be tried again."""
        cache, inquiry = self._cache, plan.inquiry
        lead = cache.lead_of(inquiry)
        if lead is not None:
            return await self._join(exchange, principal, plan, lead, seat)
        token = cache.new_token(inquiry)
        look = await cache.look(inquiry, token)
        if look.entry is not None:
            await self._repeat(exchange, principal, plan, look.entry, seat)
            return True
        lead = cache.lead_of(inquiry)
        if lead is not None:
            # It has begun while the store was asked.
            cache.give_back(inquiry, token, look)
            return await self._join(exchange, principal, plan, lead, seat)
        with cache.leading(inquiry, self._new_answer(exchange, seat), token, look) as lead:
            shared = self._shared(lead, exchange, plan)
            lead.entry = await self._wait(shared, principal)
            if lead.entry is None:
                await self._call(exchange, principal, plan, shared)
                return True
        await self._repeat(exchange, principal, plan, lead.entry, seat)
        return True

    async def _wait(self, shared: Shared, principal: Principal) -> Kept | None:
        """For another replica that makes the call. Raises ClientGone, InvalidAPIKey where that comes first."""
        lead, ended = shared.lead, shared.listener.ended
        if lead.holder not in {"", lead.token}:
            revocation = RiderRevocation(shared.listener, lead)
            if not self._running.enter(principal.secret_id, revocation):
                raise InvalidAPIKey(should_retry=False)
            try:
                lead.entry = await self._cache.wait_for_others(lead, ended.done)
            finally:
                self._running.leave(principal.secret_id, revocation)
        if ended.done():
            # Those who joined ask again.
            raise InvalidAPIKey(should_retry=False) if ended.result() == "revoked" else ClientGone
        return lead.entry

    async def _call(self, exchange: Exchange, principal: Principal, plan: Plan, shared: Shared) -> None:
        try:
            await self._fly(exchange, principal, plan, shared)
        except GatewayError as error:
            # What binds this key binds all who wait with it: they need not ask one after the other.
            shared.lead.refusal, shared.lead.refused = copied(error), principal
            raise
        # A slow client is still being told what the call brought.
        shared.answer.close()
        await shared.listener.ended

    def _shared(self, lead: Lead, exchange: Exchange, plan: Plan) -> Shared:
        now_ms = self._desk.clock.now_ms
        return Shared(lead, exchange, now_ms, lambda shared: self._keep(exchange, plan, shared))

    def _leave(self, seat: Seat) -> None:
        """What was reserved for a request that waited is not needed: it was refused, or makes the call itself."""
        admitted, seat.admitted = seat.admitted, None
        if admitted is not None:
            self._admission.give_back(admitted)

    def _new_answer(self, exchange: Exchange, seat: Seat, bytes_max: int | None = None) -> SharedAnswer:
        """A place for the answer of a call that this request makes. Where it has waited for another's, it is another
        request from now on: what was reserved under its id is given back for good, and nobody has been told the id.
        """
        if seat.admitted is not None:
            self._leave(seat)
            exchange.request_id = new_request_id(exchange.received_ms)
        request_id = exchange.request_id
        return self._cache.new_answer(
            self._settings.entry_bytes_max if bytes_max is None else bytes_max,
            self._slow_client_s,
            lambda headers: common_headers(headers, request_id),
        )

    def _keep(self, exchange: Exchange, plan: Plan, shared: Shared) -> None:
        """All of an answer has come, and nobody has the last of it: keep it, if it may be."""
        lead, answer, inquiry = shared.lead, shared.answer, plan.inquiry
        record = lead.record
        if record is not None and answer.status == OK and lead.outcome in SETTLED:
            kept = kept_of(record, change=lead.change, ttl_s=inquiry.ttl_s, request_digest=inquiry.request_digest)
            headers = [header for header in answer.headers if header[0] not in OF_THE_CALL]
            whole = msgspec.structs.replace(kept, status=answer.status, headers=headers, body=answer.body)
            if self._cache.keep(lead, exchange.endpoint.dialect, whole):
                return
        self._cache.let_go(lead)

    # -- what is kept ---------------------------------------------------------------------------

    async def _repeat(
        self, exchange: Exchange, principal: Principal, plan: Plan, kept: Kept, seat: Seat, detail: str = ""
    ) -> None:
        """Answer with what is kept."""
        revocation = ReplayRevocation(exchange.connection)
        if not self._running.enter(principal.secret_id, revocation):
            # Revoked while the body was read, or while it waited.
            raise InvalidAPIKey(should_retry=False)
        try:
            if seat.admitted is None:
                seat.admitted = await self._admit(exchange, principal, plan, "hit", detail or "hit", kept)
            else:
                seat.admitted = as_hit(seat.admitted, detail or "hit")
            if revocation.came:
                raise InvalidAPIKey(should_retry=False)
            await self._tell(exchange, principal, plan, kept, seat, detail)
        finally:
            self._running.leave(principal.secret_id, revocation)

    async def _tell(
        self, exchange: Exchange, principal: Principal, plan: Plan, kept: Kept, seat: Seat, detail: str
    ) -> None:
        desk, connection, admitted = self._desk, exchange.connection, seat.admitted
        if admitted is None:
            raise InternalError
        self._journal.check()
        plan.take_body()
        plan.take_keeping()
        exchange.forget_body()
        first_byte_at_ms = desk.clock.now_ms()
        outcome: Outcome = "disconnected" if connection.disconnected else "completed"
        record = close(desk, admitted, Ending(outcome, kept.status, None, first_byte_at_ms, kept))
        seat.admitted = None
        try:
            own = own_headers(kept.headers, exchange.request_id, ratelimit_headers(admitted.grant.standings))
            own.append((b"x-headgate-upstream", kept.upstream.encode()))
            own += hit_headers(self._cache.ttl_left_s(kept), self._cache.age_s(kept), detail)
            if is_event_stream(kept.headers):
                desk.live.begin(record.request_id, Replayed(principal, admitted.opening, kept.upstream, record))
                await self._replay(connection, kept, own)
            else:
                own.append((b"x-headgate-cost-usd", b"0"))
                connection.respond(kept.status, own, kept.body)
        finally:
            desk.live.leave(record.request_id)
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
                size=ask_of(exchange.endpoint.dialect, plan.ask, plan.size_bytes) if kept is None else None,
                tags=tags_of(find(exchange.headers, b"x-headgate-tags"), principal.tags),
                cache=did,
                cache_reason=reason,
            )
        )

    # -- a call in flight -----------------------------------------------------------------------

    async def _join(self, exchange: Exchange, principal: Principal, plan: Plan, lead: Lead, seat: Seat) -> bool:
        """Whether the call that is in flight answered the request."""
        rider = Rider(self._desk, self._journal, exchange, principal, plan, lead)
        listener = lead.shared.join(exchange.connection, rider)
        secret_id = principal.secret_id
        revocation = RiderRevocation(listener, lead)
        try:
            if seat.admitted is None:
                seat.admitted = await self._admit(exchange, principal, plan, "joined", "joined", None)
            rider.admitted = seat.admitted
            self._journal.check()
        except BaseException:
            listener.drop("refused")
            raise
        live, request_id = self._desk.live, seat.admitted.opening.request_id
        if not self._running.enter(secret_id, revocation):
            listener.drop("revoked")
        try:
            live.begin(request_id, rider)
            listener.begin()
            how = await listener.ended
        except asyncio.CancelledError:
            # The end of the shutdown's grace.
            listener.drop("cancelled")
            rider.end("interrupted", "gateway_shutdown")
            self._land(rider, seat)
            _give_up(exchange, Draining())
            raise
        finally:
            live.leave(request_id)
            self._running.leave(secret_id, revocation)
        if how == "revoked" and listener.has_started:
            rider.end("interrupted", "key_revoked")
        elif how in {"abandoned", "refused", "revoked"}:
            # Nothing was told, and nothing is written down.
            if how == "revoked":
                raise InvalidAPIKey(should_retry=False)
            if listener.refusal is not None:
                raise listener.refusal
            return await self._after(exchange, principal, plan, lead, seat)
        self._land(rider, seat)
        return True

    def _land(self, rider: Rider, seat: Seat) -> None:
        """Its account is closed, and with it what was reserved."""
        seat.admitted = None
        rider.land()

    async def _after(self, exchange: Exchange, principal: Principal, plan: Plan, lead: Lead, seat: Seat) -> bool:
        """The call that was waited for is not made: its answer was found, or it was refused."""
        if lead.entry is not None and self._cache.may_tell(lead.entry, plan.inquiry):
            await self._repeat(exchange, principal, plan, lead.entry, seat)
            return True
        if lead.refusal is not None and lead.refused is principal and binds_key(lead.refusal):
            raise copied(lead.refusal)
        return False

    # -- other ways -----------------------------------------------------------------------------

    async def _once(self, exchange: Exchange, principal: Principal, plan: Plan) -> None:
        """A request with an Idempotency-Key: carried out once, and its answer repeated to whoever asks again."""
        cache, inquiry, seat = self._cache, plan.inquiry, Seat()
        _refuse_another(cache.at_work(inquiry), inquiry)
        token = cache.new_token(inquiry)
        look = await cache.look(inquiry, token)
        if look.holder not in {"", token} and is_of_request(look.holder, inquiry):
            # Another replica has perhaps just told its client the end, and the store is about to hear of it.
            await asyncio.sleep(LOOK_EVERY_S)
            look = await cache.look(inquiry, token)
        if look.entry is not None:
            if look.entry.request_digest != inquiry.request_digest:
                raise IdempotencyKeyReused
            try:
                await self._repeat(exchange, principal, plan, look.entry, seat, "idempotency key")
            finally:
                self._leave(seat)
            return
        if look.holder != token:
            _refuse_another(look.holder, inquiry)
        # Where the store is away: one in this process may have begun meanwhile.
        _refuse_another(cache.at_work(inquiry), inquiry)
        with cache.leading(inquiry, self._new_answer(exchange, seat, BODY_BYTES_MAX), token, look) as lead:
            await self._call(exchange, principal, plan, self._shared(lead, exchange, plan))

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


class Seat:
    """What is reserved for a request that waits for another's call."""

    __slots__ = ("admitted",)

    def __init__(self) -> None:
        self.admitted: Admitted | None = None


def _refuse_another(holder: str, inquiry: Inquiry) -> None:
    """An Idempotency-Key is at work for somebody already."""
    if holder:
        raise IdempotencyKeyInUse if is_of_request(holder, inquiry) else IdempotencyKeyReused


def _give_up(exchange: Exchange, error: GatewayError) -> None:
    if exchange.connection.response_started:
        exchange.connection.abort()
    else:
        error.headers += JOINED_HEADERS
        exchange.connection.respond(*render(error, exchange.request_id))
