"""Who listens to a shared answer: the request that makes the call, and those that joined it."""

from __future__ import annotations

from collections.abc import Callable

from app.auth.running import Revocable
from app.cache.cache import Lead
from app.cache.listening import Listener
from app.cache.telling import JOINED_HEADERS, miss_headers, own_headers
from app.core.errors import Headers, InternalError, InvalidAPIKey, render
from app.core.exchange import Connection, Exchange
from app.core.identity import Principal
from app.core.records import Outcome, Record
from app.ledger.journal import Journal
from app.ledger.lines import OpenLine, encode_payload
from app.limits.headers import ratelimit_headers
from app.pipeline.admission import Admitted
from app.pipeline.desk import Desk
from app.pipeline.flight import Flight
from app.pipeline.plan import Plan
from app.pipeline.saved import SETTLED, Ending, close, kept_of, land
from app.telemetry.live import Sighting
from app.upstream.relay import Relay


class Shared:
    """A call whose answer is kept, or that others may join, as its own request sees it. A rider itself."""

    def __init__(
        self, lead: Lead, exchange: Exchange, now_ms: Callable[[], int], on_whole: Callable[[Shared], None]
    ) -> None:
        self.lead = lead
        self._now_ms = now_ms
        self.answer = lead.shared
        self._exchange = exchange
        self._connection = exchange.connection
        self._flight: Flight | None = None
        lead.shared.on_whole = lambda _answer: on_whole(self)
        self.listener = lead.shared.join(exchange.connection, self)
        self.listener.begin()

    def __repr__(self) -> str:
        return f"Shared({self.answer!r})"

    def board(self, flight: Flight, relay: Relay) -> Revocable:
        """The call is about to be made. Returns who is to be told where the key is revoked."""
        self._flight = flight
        flight.on_settled = self._settled
        flight.on_own_failure = lambda: self.answer.abandon_others(self.listener)
        self.lead.ending = lambda: relay.ending("key_revoked", self._now_ms())
        if self.listener.ended.done() and self.answer.listeners:
            # Its client left while it was admitted.
            flight.asker_left()
        # Whoever writes to the client now writes to all of them.
        self._exchange.connection = self.answer
        return _Revocation(self, relay, self._connection, self._exchange.request_id)

    def _settled(self, record: Record, outcome: Outcome) -> None:
        self.lead.record = record
        self.lead.outcome = outcome
        self.answer.settled()

    # -- as a rider -----------------------------------------------------------------------------

    def headers_for(self, shared: Headers, *, stream: bool) -> Headers:  # noqa: ARG002 - its own are there
        return self.answer.first_headers

    def settle(self) -> None:
        """Its account is the call's."""

    def left(self) -> None:
        if self._flight is not None and self.answer.listeners > 1:
            self._flight.asker_left()


class _Revocation:
    """The key of the request that made a call is revoked: the call goes on for those of other keys."""

    def __init__(self, shared: Shared, relay: Relay, connection: Connection, request_id: str) -> None:
        self._shared = shared
        self._relay = relay
        self._connection = connection
        self._request_id = request_id

    def revoke(self) -> None:
        answer, listener = self._shared.answer, self._shared.listener
        has_left = listener.ended.done()
        if answer.listeners <= (0 if has_left else 1):
            self._cut()
        elif not has_left:
            # Perhaps the others are about to be cut off as well: then there is nobody left whom the call is for.
            answer.on_disconnect(self._cut)
            self._shared.left()
            listener.revoke(self._shared.lead.ending())
            if not listener.has_started:
                error = InvalidAPIKey(should_retry=False, headers=miss_headers(""))
                self._connection.respond(*render(error, self._request_id))

    def _cut(self) -> None:
        """Nobody else is there, and nobody may come in time to be cut off with it."""
        self._shared.answer.shut()
        self._relay.revoke()


class Rider:
    """A request that joined the call of another: its own head, its own account."""

    def __init__(
        self, desk: Desk, journal: Journal, exchange: Exchange, principal: Principal, plan: Plan, lead: Lead
    ) -> None:
        self.admitted: Admitted | None = None
        self.record: Record | None = None
        self._desk = desk
        self._journal = journal
        self._exchange = exchange
        self._principal = principal
        self._lead = lead
        self._plan = plan
        self._first_byte_at_ms: int | None = None

    def __repr__(self) -> str:
        return f"Rider(request_id={self._exchange.request_id!r}, settled={self.record is not None})"

    def headers_for(self, shared: Headers, *, stream: bool) -> Headers:
        """Raises LedgerUnavailable: it is not told anything that could not be written down."""
        admitted = self.admitted
        if admitted is None:
            raise InternalError
        opening = admitted.opening
        self._journal.open(opening.request_id, encode_payload(OpenLine(opening)))
        self._first_byte_at_ms = self._desk.clock.now_ms()
        # It will not have to make the call itself.
        self._plan.take_body()
        self._plan.take_keeping()
        self._exchange.forget_body()
        limit_headers = ratelimit_headers(admitted.grant.standings)
        headers = own_headers(shared, opening.request_id, limit_headers) + JOINED_HEADERS
        if not stream and self._lead.shared.status < 400:
            headers.append((b"x-headgate-cost-usd", b"0"))
        return headers

    def settle(self) -> None:
        """The answer has come to its end, or is about to."""
        call, outcome = self._lead.record, self._lead.outcome
        if call is None:
            self.end("failed")
            return
        repeated = kept_of(call, change=0, ttl_s=0) if outcome in SETTLED else None
        self._close(Ending(outcome, self._lead.shared.status, call.error_code, self._first_byte_at_ms, repeated))

    def left(self) -> None:
        self.end("disconnected")

    def end(self, outcome: Outcome, error_code: str | None = None) -> None:
        """It ends before the answer did."""
        status = self._lead.shared.status if self._first_byte_at_ms is not None else None
        self._close(Ending(outcome, status, error_code, self._first_byte_at_ms))

    def sighting(self) -> Sighting:
        """How it stands, for whoever watches; what is produced is the call's."""
        admitted = self.admitted
        if admitted is None:
            raise InternalError
        return Sighting(
            self._principal, admitted.opening, admitted.opening.attempt.upstream, self._first_byte_at_ms is not None, 0
        )

    def land(self) -> None:
        """It is over: its record goes into the ledger."""
        if self.record is None:
            self.end("disconnected")
        if self.record is not None:
            land(self._desk, self._exchange, self._principal, self.record)

    def _close(self, ending: Ending) -> None:
        if self.record is None and self.admitted is not None:
            self.record = close(self._desk, self.admitted, ending)


class RiderRevocation:
    """The key of one who waits is revoked: it is cut off, and nobody else."""

    def __init__(self, listener: Listener, lead: Lead) -> None:
        self._listener = listener
        self._lead = lead

    def revoke(self) -> None:
        self._listener.revoke(self._lead.ending())


class ReplayRevocation:
    """The key is revoked while a kept answer is told to it."""

    def __init__(self, connection: Connection) -> None:
        self.came = False
        self._connection = connection

    def revoke(self) -> None:
        self.came = True
        if self._connection.response_started:
            self._connection.abort()
