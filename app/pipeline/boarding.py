"""From a plan to an open request: where it goes, what is reserved for it, and its line in the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from app.catalog import Route
from app.core.errors import GatewayError, Overloaded, quoted
from app.core.exchange import Exchange
from app.core.identity import Principal
from app.core.money import UNITS_PER_PRICE, nanousd_from_usd
from app.core.records import Bound, CacheResult
from app.core.tags import tags_of
from app.ledger.journal import Journal
from app.metering.bounds import ask_of
from app.metering.estimates import Ask, Estimates
from app.metering.meter import Meter
from app.metering.pricing import PriceBook
from app.pipeline.admission import Admission, Admitted, Question
from app.pipeline.desk import Desk
from app.pipeline.flight import Flight
from app.pipeline.plan import Plan
from app.pipeline.routing import Passed, Routing
from app.settings import StreamSettings
from app.upstream.headers import find


class Boarded(msgspec.Struct, frozen=True):
    """An open request: who closes it, where it goes first, and which targets were passed over for that."""

    flight: Flight
    admitted: Admitted
    route: Route
    passed: Sequence[Passed]
    bounds: Mapping[Route, Bound]


class Boarding:
    """For one configuration."""

    def __init__(
        self,
        desk: Desk,
        admission: Admission,
        routing: Routing,
        journal: Journal,
        prices: PriceBook,
        estimates: Estimates,
        policy: StreamSettings,
    ) -> None:
        self._desk = desk
        self._admission = admission
        self._routing = routing
        self._journal = journal
        self._prices = prices
        self._estimates = estimates
        self._policy = policy
        self._drain_nanousd_max = nanousd_from_usd(policy.drain_usd_max)

    def __repr__(self) -> str:
        return f"Boarding({self._admission!r})"

    async def board(self, exchange: Exchange, principal: Principal, plan: Plan, did: CacheResult) -> Boarded:
        """Reserve, and write down that it begins. ``did`` is what the cache did. Raises GatewayError; from then on
        every way out leads through the flight's ``land``.
        """
        ask, routes = plan.ask, plan.routes
        size = ask_of(exchange.endpoint.dialect, ask, plan.size_bytes)
        try:
            if ask.background and self._desk.background.is_full:
                raise Overloaded("The gateway waits for as many background responses as it may.")
            route, passed = self._routing.first(routes)
            bounds = {candidate: self._admission.bound(exchange, ask, size, candidate) for candidate in routes}
            tags = tags_of(find(exchange.headers, b"x-headgate-tags"), principal.tags)
            question = Question(exchange, principal, ask, size, route, bounds, tags, did, plan.inquiry.reason or "miss")
            admitted, route, passed = await self._routing.admit(self._admission, question, routes, passed)
        except GatewayError as error:
            error.explanation = {"model": quoted(ask.model), **error.explanation}
            raise
        try:
            flight = self._flight(exchange, principal, plan, size, admitted)
            self._journal.open(exchange.request_id, admitted.payload)
        except BaseException:
            self._admission.give_back(admitted)
            raise
        keeping = plan.take_keeping()
        if keeping is not None:
            flight.draft = self._desk.turns.begin(keeping, lambda: flight.meter.attempt.upstream)
        if ask.stream:
            self._desk.accounts.watch(exchange.request_id, flight.progress)
        return Boarded(flight, admitted, route, passed, bounds)

    def _flight(self, exchange: Exchange, principal: Principal, plan: Plan, size: Ask, admitted: Admitted) -> Flight:
        """The tally of an admitted request, and the one who will close it."""
        meter = Meter(admitted.opening, size, prices=self._prices, estimates=self._estimates, reasons=plan.ask.reasons)
        return Flight(
            self._desk,
            exchange,
            principal,
            meter,
            admitted,
            owns=plan.ask.stores,
            cancel_on_disconnect=self._policy.on_disconnect == "cancel",
            drain_tokens_max=self._drain_tokens_max(meter, size),
        )

    def _drain_tokens_max(self, meter: Meter, size: Ask) -> int | None:
        """How many output tokens the drain budget buys; None where they have no price."""
        price = meter.price()
        if price is None:
            return None
        rate = price.rates_for(size.body_bytes).output
        return None if not rate else self._drain_nanousd_max * UNITS_PER_PRICE // rate
