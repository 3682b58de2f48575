"""The call upstream and the way back: which target, whether once more, and what the client is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence

import msgspec

from app.auth.running import Revocable, Running
from app.catalog import Route
from app.core.errors import (
    CircuitOpen,
    CutByShutdown,
    Draining,
    GatewayError,
    Headers,
    InvalidAPIKey,
    UpstreamAuthFailed,
    UpstreamBusy,
    UpstreamError,
    UpstreamInvalidResponse,
    UpstreamOutcomeUnknown,
    UpstreamPaused,
    UpstreamTimeout,
    UpstreamUnreachable,
    render,
)
from app.core.exchange import Exchange
from app.core.money import usd_text
from app.core.records import Attempt, Bound, attempt_id_of
from app.core.splices import Splice, spliced
from app.pipeline.admission import Admission
from app.pipeline.flight import Flight
from app.pipeline.plan import Variant
from app.pipeline.routing import Failure, Passed, Routing
from app.telemetry.logs import LogWriter
from app.upstream.client import Answer
from app.upstream.endings import Cause
from app.upstream.headers import find, toward_client, toward_upstream
from app.upstream.pool import UpstreamPool
from app.upstream.relay import HELD_BODY_BYTES_MAX, Cut, Relay, is_json
from app.upstream.retry import RetryBudget
from app.upstream.retry_after import retry_after_s, sensible
from app.upstream.usage_chunk import UsageFilter

ATTEMPTS_MAX = 3
"""Of one request, each at another target."""
ATTEMPTS_OF_ONE_MAX = 2
"""Where no other target is fit, the same one is called once more."""
REFUSALS: dict[int, Failure] = {429: "rate-limited", 503: "status-503"}
FAILURES: dict[type[UpstreamError], Failure] = {
    UpstreamUnreachable: "unreachable",
    UpstreamBusy: "busy",
    CircuitOpen: "circuit-open",
    UpstreamPaused: "paused",
}
UNSENT = frozenset({"unreachable", "busy", "circuit-open", "paused"})
REST_S_DEFAULT = 1.0
ERROR_BODY_BYTES_MAX = 1024 * 1024
RETRY_DELAY_S = (0.02, 0.1)
EVENT_STREAM = "text/event-stream"


class Cargo(msgspec.Struct):
    """What is sent: the body as it came, until it was sent, and where in it the model's name stands.

    ``bounds`` has the bound of an attempt by route, since routes differ in price. ``cache_headers`` say what the
    cache had to do with it. ``passed`` are targets that were passed over for the first. ``usage_splice`` has a chat
    stream tell its usage. ``revocable`` is who is cut off with the key, where that is not the call itself. ``variants``
    are the bodies of upstreams that are sent another one.
    """

    body: bytes
    model: str
    model_span: tuple[int, int]
    stream: bool
    routes: tuple[Route, ...]
    bounds: Mapping[Route, Bound]
    limit_headers: Headers
    cache_headers: Headers
    passed: Sequence[Passed] = ()
    usage_splice: Splice | None = None
    revocable: Revocable | None = None
    is_form: bool = False
    variants: dict[str, Variant] = {}

    def forget_body(self, exchange: Exchange) -> None:
        """It was sent, or never will be."""
        self.body = b""
        self.variants = {}
        exchange.forget_body()

    def body_for(self, upstream: str, name: str, *, asks_usage: bool) -> bytes:
        """The original bytes; a model that the upstream knows by another ``name`` is replaced at its place, a wish for
        usage put in, and nothing else touched.
        """
        body, (start, end) = self.variants.get(upstream) or (self.body, self.model_span)
        is_alias = name != self.model and start != end
        if not is_alias and not asks_usage:
            return body
        splices = []
        if is_alias:
            written = name.encode() if self.is_form else msgspec.json.encode(name)
            splices.append(Splice(start, end, written))
        if asks_usage and self.usage_splice is not None:
            splices.append(self.usage_splice)
        return spliced(body, splices)


class Carrier:
    """Makes the calls of all requests."""

    def __init__(
        self,
        pools: Mapping[str, UpstreamPool],
        running: Running,
        log: LogWriter,
        routing: Routing,
        admission: Admission,
    ) -> None:
        self._pools = pools
        self._running = running
        self._log = log
        self._routing = routing
        self._admission = admission
        self._budgets = {name: RetryBudget() for name in pools}
        self.streams_open = 0

    def __repr__(self) -> str:
        return f"Carrier(pools={sorted(self._pools)})"

    async def carry(self, flight: Flight, relay: Relay, exchange: Exchange, cargo: Cargo, route: Route) -> None:
        """Call, and hand the answer over; every failure is told to the client and settled here."""
        if relay.client_gone:
            # Gone before anything was sent: there is nothing to bill and nobody to answer.
            flight.settle("disconnected", void=True)
            return
        secret_id = flight.meter.opening.secret_id
        revocable = cargo.revocable or relay
        if not self._running.enter(secret_id, revocable):
            # Revoked while the body was read.
            cargo.forget_body(exchange)
            _fail(flight, relay, exchange, cargo, relay.error_of("key_revoked"))
            return
        try:
            answer, pool = await self._call(flight, relay, exchange, cargo, route)
            cargo.forget_body(exchange)
            await self._hand_over(flight, relay, exchange, cargo, answer, pool)
        except (UpstreamError, InvalidAPIKey) as error:
            cargo.forget_body(exchange)
            _fail(flight, relay, exchange, cargo, error)
        except asyncio.CancelledError:
            # Only the end of the shutdown's grace cancels a request; what was sent may be billed.
            if exchange.connection.response_started:
                _end_of_stream(flight, relay, exchange, "gateway_shutdown")
                raise
            cut = CutByShutdown() if relay.was_sent else Draining()
            cut.headers += cargo.cache_headers
            flight.meter.status = None if flight.client_gone else cut.status
            if not flight.runs_on:
                flight.settle("interrupted", void=not relay.was_sent, error_code="gateway_shutdown")
            exchange.connection.respond(*render(cut, exchange.request_id))
            raise
        finally:
            self._running.leave(secret_id, revocable)

    # -- the call -----------------------------------------------------------------------------

    async def _call(
        self, flight: Flight, relay: Relay, exchange: Exchange, cargo: Cargo, route: Route
    ) -> tuple[Answer, UpstreamPool]:
        self._budgets[route.upstream].earn()
        if cargo.passed:
            flight.falls_back(cargo.passed)
        failure: type[UpstreamError] = UpstreamUnreachable
        tried: list[Route] = []
        while True:
            tried.append(route)
            flight.sends()
            answer: Answer | None = None
            try:
                answer = await self._ask(flight, relay, exchange, cargo, route)
            except (UpstreamUnreachable, UpstreamBusy, UpstreamPaused) as error:
                # Only its kind: the error itself holds this frame, and with it the body, in a cycle.
                failure = type(error)
            if answer is not None and answer.status not in REFUSALS:
                return answer, self._pools[route.upstream]
            # Nothing was billed: a connection that never was, or a refusal before any work.
            why = REFUSALS[answer.status] if answer is not None else FAILURES[failure]
            again = await self._again(flight, relay, cargo, tried, why)
            if again is None:
                if answer is None:
                    raise failure
                return answer, self._pools[route.upstream]
            if answer is not None:
                answer.close()
            if again is not route:
                flight.falls_back([Passed(route.upstream, why)])
            flight.retries(Attempt(flight.meter.attempt.number + 1, again.upstream, again.model, cargo.bounds[again]))
            if again is route:
                await relay.pause(random.uniform(*RETRY_DELAY_S))  # noqa: S311 - jitter
                if relay.client_gone:
                    raise UpstreamUnreachable
            route = again

    async def _ask(self, flight: Flight, relay: Relay, exchange: Exchange, cargo: Cargo, route: Route) -> Answer:
        """One call, of whose outcome the upstream's breaker is told."""
        pool = self._pools[route.upstream]
        breaker = pool.breaker
        unfit = breaker.unfit(route.model)
        if unfit is not None and unfit != "resting":
            # It was fit when it was chosen; meanwhile others have failed, or are the probes, or it was paused.
            raise CircuitOpen if unfit == "circuit-open" else UpstreamPaused
        headers = toward_upstream(exchange.headers, pool.forwarded, flight.meter.opening.team_id)
        headers.append((b"x-client-request-id", flight.meter.attempt_id.encode()))
        asks_usage = cargo.usage_splice is not None and pool.asks_usage
        relay.usage_filter = UsageFilter() if asks_usage else None
        ticket = breaker.begin()
        try:
            answer = await relay.call(
                pool,
                exchange,
                headers=headers,
                body=cargo.body_for(
                    route.upstream, pool.model_in_body(exchange.path, route.model), asks_usage=asks_usage
                ),
                wants_stream=cargo.stream,
                model=route.model,
            )
        except (UpstreamUnreachable, UpstreamOutcomeUnknown, UpstreamTimeout, UpstreamInvalidResponse):
            (breaker.failed if relay.upstream_failed else breaker.forget)(ticket)
            raise
        except BaseException:
            breaker.forget(ticket)
            raise
        (breaker.failed if answer.status >= 500 else breaker.succeeded)(ticket)
        if answer.status in REFUSALS:
            seconds = retry_after_s(answer.headers)
            if answer.status == 429:
                # Limits are a model's; without a word of how long, the next second belongs to others.
                breaker.rest(REST_S_DEFAULT if seconds is None else seconds, route.model)
            elif seconds is not None:
                breaker.rest(seconds)
        return answer

    async def _again(
        self, flight: Flight, relay: Relay, cargo: Cargo, tried: list[Route], why: Failure
    ) -> Route | None:
        """Where to call once more; only what burdens an upstream that has been reached comes out of a budget."""
        if relay.client_gone or len(tried) >= ATTEMPTS_MAX:
            return None
        route = tried[-1]
        full: list[Route] = []
        while (other := self._routing.next(cargo.routes, (*tried, *full), why)) is not None:
            is_free = why in UNSENT and other.upstream != route.upstream
            if not is_free and not full and not self._budgets[route.upstream].spend():
                return None
            if await self._has_room(flight, route, other):
                return other
            full.append(other)
        if full or why == "rate-limited" or len(tried) >= ATTEMPTS_OF_ONE_MAX:
            return None
        if not self._routing.may_repeat(route) or not self._budgets[route.upstream].spend():
            return None
        return route if await self._has_room(flight, route, route) else None

    async def _has_room(self, flight: Flight, route: Route, other: Route) -> bool:
        """Whether the limits that protect the upstream of ``other`` let it be called after ``route``."""
        next_id = attempt_id_of(flight.meter.opening.request_id, flight.meter.attempt.number + 1)
        if other.upstream == route.upstream:
            return await self._admission.may_repeat(next_id, other)
        return await self._admission.may_move(flight.admitted, flight.meter.ask, next_id, other)

    # -- the way back -------------------------------------------------------------------------

    async def _hand_over(
        self,
        flight: Flight,
        relay: Relay,
        exchange: Exchange,
        cargo: Cargo,
        answer: Answer,
        pool: UpstreamPool,
    ) -> None:
        status = answer.status
        flight.meter.status = status
        if status in {401, 403}:
            self._log.error("upstream_auth_failed", upstream=pool.name, status=status)
            flight.meter.status = UpstreamAuthFailed.status
            flight.settle("failed", void=True, error_code=UpstreamAuthFailed.code)
            raise UpstreamAuthFailed
        if (
            answer.content_encoding not in {"", "identity"}
            or not (200 <= status < 300 or status >= 400)
            or status in {204, 205}
        ):
            # An encoding that nobody asked for could unpack to anything; a redirect would take the key along.
            flight.meter.status = UpstreamInvalidResponse.status
            if status >= 300 and _is_unbilled(status):
                flight.settle("failed", void=True, error_code=UpstreamInvalidResponse.code)
            raise UpstreamInvalidResponse
        headers = _headers(flight, exchange, cargo, answer, pool)
        if status >= 400:
            await _hand_error(flight, relay, exchange, answer, pool, headers)
        elif answer.content_type == EVENT_STREAM:
            flight.answers()
            flight.meter.body_seen = True
            self.streams_open += 1
            try:
                cut = await relay.stream(answer, status, headers)
            finally:
                self.streams_open -= 1
            _tell_if_broken(pool, cut)
            _end_of_stream(flight, relay, exchange, cut)
        elif answer.content_type == "text/html":
            raise UpstreamInvalidResponse
        else:
            await _hand_body(flight, relay, exchange, answer, pool, headers)


def _headers(flight: Flight, exchange: Exchange, cargo: Cargo, answer: Answer, pool: UpstreamPool) -> Headers:
    headers = toward_client(answer.headers, rename_limits=bool(cargo.limit_headers))
    if answer.status in REFUSALS:
        headers = sensible(headers)
    request_id = exchange.request_id.encode()
    headers.append((b"x-headgate-request-id", request_id))
    if find(headers, b"x-request-id") is None:
        headers.append((b"x-request-id", request_id))
    headers.append((b"x-headgate-upstream", pool.name.encode()))
    headers.extend(_fallback_headers(flight))
    headers.extend(cargo.limit_headers)
    headers.extend(cargo.cache_headers)
    return headers


def _fallback_headers(flight: Flight) -> Headers:
    """Why it was not the target that would have been called first."""
    return [(b"x-headgate-fallback", flight.fallbacks[0].reason.encode())] if flight.fallbacks else []


async def _hand_error(
    flight: Flight,
    relay: Relay,
    exchange: Exchange,
    answer: Answer,
    pool: UpstreamPool,
    headers: Headers,
) -> None:
    """An error of the upstream's own passes as it is, but for keys that it may have quoted."""
    body, cut, more = await relay.read(answer, ERROR_BODY_BYTES_MAX)
    flight.answers()
    unbilled = _is_unbilled(answer.status)
    if cut is not None or more:
        error = relay.error_of(cut) if cut in {"upstream_stalled", "key_revoked"} else UpstreamInvalidResponse()
        if unbilled:
            flight.meter.status = error.status
            flight.settle("failed", void=True, error_code=cut if cut == "key_revoked" else error.code)
        raise error
    body = pool.redact(body)
    flight.saw_error(body)
    if not unbilled and flight.meter.reading.usage is None:
        headers = [(name, value) for name, value in headers if name != b"x-should-retry"]
        headers.append((b"x-should-retry", b"false"))
    flight.first_byte()
    flight.settle("failed", void=unbilled, error_code=flight.meter.reading.error_code or f"upstream_{answer.status}")
    exchange.connection.respond(answer.status, headers, body)


async def _hand_body(
    flight: Flight, relay: Relay, exchange: Exchange, answer: Answer, pool: UpstreamPool, headers: Headers
) -> None:
    body, cut, more = await relay.read(answer, HELD_BODY_BYTES_MAX)
    flight.answers()
    if more:
        flight.first_byte()
        cut = await relay.pass_on(answer, answer.status, headers, body)
        _tell_if_broken(pool, cut)
        _end_of_stream(flight, relay, exchange, cut)
        return
    if cut is not None:
        _tell_if_broken(pool, cut)
        raise relay.error_of(cut)
    if not flight.saw_json(body) and is_json(answer.content_type):
        raise UpstreamInvalidResponse
    flight.first_byte()
    flight.saw_last()
    cost = flight.record.entries[-1].cost_nanousd if flight.record is not None else None
    if cost is not None:
        headers.append((b"x-headgate-cost-usd", usd_text(cost).encode()))
    exchange.connection.respond(answer.status, headers, body)


def _tell_if_broken(pool: UpstreamPool, cut: Cut | None) -> None:
    """The breaker has counted the answer's head as a success."""
    if cut in {"upstream_disconnected", "upstream_stalled"}:
        pool.breaker.broke_off()


def _is_unbilled(status: int) -> bool:
    """Whether a refusal with ``status`` is known to cost nothing; of other server errors nobody can tell."""
    return status < 500 or status == 503


def _end_of_stream(flight: Flight, relay: Relay, exchange: Exchange, cut: Cut | Cause | None) -> None:
    """After a cut without a terminal event the client must not see a clean end."""
    if cut is None or flight.record is not None:
        exchange.connection.finish()
        return
    if flight.runs_on:
        # The response goes on, and can be asked for: to say that it failed would be wrong, and an end too.
        exchange.connection.abort()
        return
    # By whom: the upstream failed, or the gateway interrupted it.
    record = flight.settle("interrupted" if cut in {"gateway_shutdown", "key_revoked"} else "failed", error_code=cut)
    if cut != "drain_over":
        relay.cut_short(cut, record.ended_at_ms)


def _fail(flight: Flight, relay: Relay, exchange: Exchange, cargo: Cargo, error: GatewayError) -> None:
    """No usable answer, and nothing has gone to the client yet."""
    flight.meter.status = None if flight.client_gone else error.status
    flight.first_byte()
    if isinstance(error, InvalidAPIKey):
        if flight.on_own_failure is not None:
            flight.on_own_failure()
        flight.settle("interrupted", void=not relay.was_sent, error_code="key_revoked")
    else:
        flight.settle("failed", void=isinstance(error, UpstreamUnreachable | UpstreamBusy), error_code=error.code)
    error.headers.append((b"x-headgate-upstream", flight.meter.attempt.upstream.encode()))
    error.headers.extend(_fallback_headers(flight))
    error.headers.extend(cargo.limit_headers)
    error.headers.extend(cargo.cache_headers)
    exchange.connection.respond(*render(error, exchange.request_id))
