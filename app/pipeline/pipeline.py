"""The life of a request, in order. Each stage takes values and returns values; this file passes them on."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from app.auth.authenticator import Authenticator
from app.auth.ownership import Ownership
from app.cache.cache import ResponseCache
from app.catalog import Catalog
from app.core.errors import (
    AmbiguousJSON,
    EndpointNotAllowed,
    GatewayError,
    NotFound,
    Unavailable,
)
from app.core.exchange import Exchange
from app.core.families import EVERYTHING
from app.core.identity import Principal
from app.core.records import Record
from app.ledger.journal import Journal
from app.ledger.refusals import RefusalLog
from app.limits.headers import ratelimit_headers
from app.limits.policy import Policy, upstream_limits
from app.metering.estimates import Estimates
from app.metering.pricing import PriceBook
from app.pipeline.admission import Admission
from app.pipeline.batch_input import Match
from app.pipeline.boarding import Boarding
from app.pipeline.carriage import Cargo, Carrier
from app.pipeline.desk import Desk
from app.pipeline.inquiring import Inquirer
from app.pipeline.kept_turns import open_kept_turns
from app.pipeline.load import Load
from app.pipeline.models import ModelList
from app.pipeline.own_lists import OwnLists
from app.pipeline.passing import Passing
from app.pipeline.plan import Plan
from app.pipeline.planning import Planner
from app.pipeline.recall import Recall
from app.pipeline.riders import Shared
from app.pipeline.routing import Routing
from app.pipeline.saving import Saving
from app.pipeline.sockets import Accept, Sockets
from app.pipeline.stages import Stages
from app.settings import Configuration
from app.store.refusals import RefusalRow
from app.upstream.pool import UpstreamPool
from app.upstream.relay import Relay
from app.upstream.watch import Sweep


class Parts(msgspec.Struct, frozen=True):
    """What the stages work with; made and closed by the composition root."""

    configuration: Configuration
    authenticator: Authenticator
    ownership: Ownership
    catalog: Catalog
    pools: dict[str, UpstreamPool]
    refusals: RefusalLog
    prices: PriceBook
    estimates: Estimates
    journal: Journal
    desk: Desk
    sweep: Sweep
    cache: ResponseCache
    default_families: frozenset[str]
    """What a key may use that was given no families."""
    match_in_batch: Match
    """What a line of a batch asks for."""


class Pipeline:
    """Serves the data plane. Refusals are raised as GatewayError; an admitted request is always answered here."""

    def __init__(self, parts: Parts, before: Pipeline | None = None) -> None:
        """``before``: the one whose place it takes; both count together what they hold."""
        self._parts = parts
        running = parts.authenticator.running
        self._load: Load = Load() if before is None else before._load  # noqa: SLF001 - its own class
        limits = parts.configuration.limits
        self._admission = Admission(
            parts.desk.accounts,
            Policy(limits.key_rules, limits.team_rules, self._load.tag_values),
            {name: upstream_limits(name, pool.settings.limits) for name, pool in parts.pools.items()},
            parts.prices,
            parts.estimates,
            parts.desk.metrics,
            blocks_unpriced=parts.configuration.on_unpriced == "block",
            keeps_unlimited=parts.configuration.durability == "shared",
            counts_saved_tokens=parts.configuration.cache.count_tokens,
        )
        self._routing = Routing(parts.pools, parts.desk.metrics)
        self._planner = Planner(
            parts.ownership,
            parts.catalog,
            parts.pools,
            Inquirer(parts.cache.secret, parts.configuration.cache, parts.catalog, parts.pools),
            Recall(frozenset().union(*(pool.forwarded for pool in parts.pools.values()))),
            self._routing,
            parts.configuration.default_upstream_of(parts.pools),
            open_kept_turns(
                parts.desk.turns, parts.pools, parts.configuration.server, parts.desk.clock, parts.ownership
            ),
        )
        self._passing = Passing(
            self._planner,
            ModelList(parts.catalog, parts.pools, parts.desk.clock, self._planner.fine_tuned),
            OwnLists(parts.ownership, parts.pools),
            parts.desk,
            running,
            sweep=parts.sweep,
            collection=self._load.collection,
            configuration=parts.configuration,
            match_in_batch=parts.match_in_batch,
            allows=self._allows,
        )
        self._boarding = Boarding(
            parts.desk,
            self._admission,
            self._routing,
            parts.journal,
            parts.prices,
            parts.estimates,
            parts.configuration.stream,
        )
        self._saving = Saving(
            parts.cache,
            parts.configuration,
            self._admission,
            parts.desk,
            parts.journal,
            running,
            self._fly,
        )
        self.sockets = Sockets(self._socket_stages(), running)
        self._carrier = Carrier(parts.pools, running, parts.desk.log, self._routing, self._admission)
        self._serving = 0

    def __repr__(self) -> str:
        return f"Pipeline(serving={self._serving}, in_flight={self.in_flight})"

    @property
    def in_flight(self) -> int:
        """Requests being served, from their authentication to their end, also by pipelines before this one."""
        return self._load.in_flight

    @property
    def serving(self) -> int:
        """Those that this one serves."""
        return self._serving

    @property
    def streams_open(self) -> int:
        """Event streams that an upstream is sending."""
        return self._carrier.streams_open

    def _socket_stages(self) -> Stages:
        parts = self._parts
        return Stages(
            self._planner,
            self._boarding,
            parts.desk,
            parts.configuration,
            self._load,
            parts.pools,
            principal_of=parts.authenticator.of_secret,
            check=self._check_endpoint,
            on_refused=self._refused_on_socket,
        )

    async def serve_socket(
        self, exchange: Exchange, accept: Accept, is_draining: Callable[[], bool], current: Callable[[], Pipeline]
    ) -> None:
        """One WebSocket, from its handshake to its end. ``accept`` switches the protocol; what is refused before that
        is raised as GatewayError. ``current`` tells the pipeline that is in force, which each create goes through.
        """
        principal = await self._parts.authenticator.authenticate(exchange.credential, exchange.peer)
        self._check_endpoint(principal, exchange)
        self._serving += 1
        try:
            if exchange.endpoint.family == "responses":
                await self.sockets.serve(exchange, principal, accept, is_draining, lambda: current().sockets.stages)
            else:

                def check() -> None:
                    current().sockets.stages.principal_now(principal.secret_id, exchange)

                await self._passing.serve_socket(exchange, principal, accept, is_draining, check)
        finally:
            self._serving -= 1

    async def serve(self, exchange: Exchange) -> None:
        """One request, from its head to its record."""
        principal = await self._parts.authenticator.authenticate(exchange.credential, exchange.peer)
        self._load.enter(self._parts.configuration.server.in_flight_max)
        self._serving += 1
        try:
            self._check_endpoint(principal, exchange)
            if not exchange.endpoint.metered:
                await self._passing.serve(exchange, principal)
                return
            plan = await self._planner.plan(exchange, principal)
            await self._saving.answer(exchange, principal, plan)
        except GatewayError as error:
            # Of those that are not about the request there would be too many.
            if not isinstance(error, Unavailable):
                self._note(exchange, principal, error)
            raise
        finally:
            # What has made the request grow, where it was never sent.
            exchange.forget_body()
            self._load.leave()
            self._serving -= 1

    def _note(self, exchange: Exchange, principal: Principal, error: GatewayError) -> None:
        """A refusal is kept for a day, for whoever asks why."""
        # The name of a member that occurs twice is the client's own text.
        told = {} if error.param is None or isinstance(error, AmbiguousJSON) else {"param": error.param}
        self._parts.refusals.add(
            RefusalRow(
                request_id=exchange.request_id,
                team_id=principal.team_id,
                key_id=principal.key_id,
                at_ms=exchange.received_ms,
                status=error.status,
                code=error.code,
                decision={"endpoint": exchange.endpoint.family, **told, **error.explanation},
            )
        )

    def _refused_on_socket(self, exchange: Exchange, principal: Principal, error: GatewayError) -> None:
        self._parts.desk.metrics.refused.labels(error.code).inc()
        if not isinstance(error, Unavailable):
            self._note(exchange, principal, error)

    def _allows(self, principal: Principal, family: str) -> bool:
        """Whether the key was given a family, or has it without."""
        allowed = self._parts.default_families if principal.endpoints is None else principal.endpoints
        return family in allowed or EVERYTHING in allowed

    def _check_endpoint(self, principal: Principal, exchange: Exchange) -> None:
        """Whether the key was given the family, and may spend so. Raises EndpointNotAllowed, UnpricedModel, and
        NotFound for a path in no table.
        """
        family = exchange.endpoint.family
        if self._allows(principal, family):
            is_unknown = not exchange.endpoint.known and exchange.method not in {"GET", "HEAD"}
            if exchange.endpoint.unbilled or is_unknown:
                self._admission.check_unbilled(principal)
            return
        if not exchange.endpoint.known:
            raise NotFound("There is no such endpoint.")
        raise EndpointNotAllowed(f"This key may not use the endpoint {family}.")

    async def _fly(self, exchange: Exchange, principal: Principal, plan: Plan, shared: Shared | None) -> Record | None:
        """From the reservation on, every way out leads through ``land``. ``shared``: others wait for the answer,
        or it is kept. Returns what it left on the bill.
        """
        parts = self._parts
        boarded = await self._boarding.board(exchange, principal, plan, "bypass" if shared is None else "miss")
        flight, admitted = boarded.flight, boarded.admitted
        ask = plan.ask
        variants = plan.take_variants()
        cargo = Cargo(
            plan.take_body(),
            ask.model,
            ask.model_span,
            ask.stream,
            plan.routes,
            boarded.bounds,
            ratelimit_headers(admitted.grant.standings),
            plan.cache_headers,
            boarded.passed,
            plan.usage_splice,
            is_form=plan.is_form,
            variants=variants,
        )
        relay = Relay(
            exchange.connection if shared is None else shared.answer,
            flight,
            sweep=parts.sweep,
            collection=self._load.collection,
            policy=parts.configuration.stream,
            slow_client_s=parts.configuration.server.slow_client_s,
        )
        if shared is not None:
            cargo.revocable = shared.board(flight, relay)
        live, request_id = parts.desk.live, admitted.opening.request_id
        live.begin(request_id, flight)
        try:
            await self._carrier.carry(flight, relay, exchange, cargo, boarded.route)
        finally:
            live.leave(request_id)
            relay.close()
            flight.land(was_sent=relay.was_sent)
        return flight.record
