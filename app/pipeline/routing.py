"""Which target of a model is called, and which one after it: those that are fit, by priority and weight.

A target is fit unless its upstream is paused or its breaker is open. One whose upstream asked for a rest is passed over
where there is another, and called where there is none: it may say better than anybody how long it takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import msgspec

from app.catalog import Route
from app.catalog.catalog import choose
from app.core.errors import CircuitOpen, GatewayError, UpstreamError, UpstreamPaused, quoted
from app.pipeline.admission import Admission, Admitted, Question
from app.telemetry.metrics import Metrics
from app.upstream.breaker import Unfit
from app.upstream.pool import UpstreamPool

RETRY_AFTER_S_MIN = 1

Failure = Literal["unreachable", "busy", "status-503", "rate-limited", "circuit-open", "paused", "limited"]
"""What is known to be unbilled, so that another target may follow. ``limited``: by limits of our own."""
Reason = Unfit | Failure
REASONS: tuple[Reason, ...] = (*get_args(Failure), "resting")


class Passed(NamedTuple):
    """A target that was passed over, or tried in vain: whose, and why."""

    upstream: str
    reason: Reason


class Routing:
    """Chooses among the targets of a request."""

    def __init__(self, pools: Mapping[str, UpstreamPool], metrics: Metrics) -> None:
        self._pools = pools
        self._breakers = {name: pool.breaker for name, pool in pools.items()}
        for name in pools:
            for reason in REASONS:
                metrics.fallbacks.labels(name, reason)

    def __repr__(self) -> str:
        return f"Routing({self._breakers})"

    def first(self, routes: tuple[Route, ...]) -> tuple[Route, Sequence[Passed]]:
        """Where to call, and the targets before it that are not fit. CircuitOpen, UpstreamPaused: none is."""
        unfit: dict[Route, Unfit] = {}
        for route in routes:
            why = self._breakers[route.upstream].unfit(route.model)
            if why is not None:
                unfit[route] = why
        if not unfit:
            return choose(routes) or routes[0], ()
        fit = tuple(route for route in routes if route not in unfit)
        resting = tuple(route for route, why in unfit.items() if why == "resting")
        chosen = choose(fit or resting)
        if chosen is None:
            raise self._none_fit(routes)
        return chosen, [
            Passed(route.upstream, why)
            for route, why in unfit.items()
            if route is not chosen and route.priority <= chosen.priority and (fit or why != "resting")
        ]

    def only(self, routes: tuple[Route, ...]) -> Route:
        """Where to call for what is tried once and reserves nothing: as ``first``, but for one that fails where there
        is no other.
        """
        fit = tuple(route for route in routes if self._breakers[route.upstream].unfit(route.model) is None)
        unpaused = tuple(route for route in routes if not self._breakers[route.upstream].is_paused)
        return choose(fit or unpaused or routes) or routes[0]

    async def admit(
        self, admission: Admission, question: Question, routes: tuple[Route, ...], passed: Sequence[Passed]
    ) -> tuple[Admitted, Route, Sequence[Passed]]:
        """Has the question admitted for its route, or for the next one, where limits that protect the upstream refuse
        it. Raises what ``Admission.admit`` does, of the last one that was asked.
        """
        full: list[Route] = []
        while True:
            route = question.route
            try:
                return await admission.admit(question), route, passed
            except GatewayError as error:
                if error.explanation.get("scope") != "upstream":
                    raise
                full.append(route)
                other = self.next(routes, full, "limited")
                if other is None:
                    raise
            passed = (*passed, Passed(route.upstream, "limited"))
            question = msgspec.structs.replace(question, route=other)

    def next(self, routes: tuple[Route, ...], tried: Sequence[Route], why: Failure) -> Route | None:
        """Where to call after ``tried``, the last of which failed by ``why``; None where no other target is fit."""
        fit, resting = [], []
        for route in routes:
            if route not in tried:
                unfit = self._breakers[route.upstream].unfit(route.model)
                if unfit is None:
                    fit.append(route)
                elif unfit == "resting":
                    resting.append(route)
        if not fit and why == "rate-limited":
            # One that was told to wait does not ask another who said the same.
            return None
        return choose(tuple(fit or resting))

    def asks_usage(self, routes: tuple[Route, ...]) -> bool:
        """Whether any of them leads to an upstream whose chat streams are asked for their usage."""
        return any(self._pools[route.upstream].asks_usage for route in routes)

    def may_repeat(self, route: Route) -> bool:
        """Whether the same target may be called once more."""
        return self._breakers[route.upstream].unfit(route.model) in {None, "resting"}

    def _none_fit(self, routes: tuple[Route, ...]) -> UpstreamError:
        upstreams = {route.upstream for route in routes}
        paused = {name for name in upstreams if self._breakers[name].is_paused}
        failing = upstreams - paused
        error: UpstreamError
        if failing:
            again_s = min(self._breakers[name].opens_again_s for name in failing)
            error = CircuitOpen(retry_after_ms=max(math.ceil(again_s), RETRY_AFTER_S_MIN) * 1000)
        else:
            error = UpstreamPaused()
        error.headers.append((b"x-headgate-upstream", routes[0].upstream.encode()))
        told = {"circuit_open": failing, "paused": paused}
        error.explanation = {name: sorted(map(quoted, those)) for name, those in told.items() if those}
        return error
