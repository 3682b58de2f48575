"""An admitted request, from its reservation to its record: every end of it goes through here, once.

``settle`` decides how it ended, writes the journal and gives back what was reserved; it is called before
the last bytes go to the client, so that the client's next request finds its lease free. ``land`` hands
the record to the ledger and tells metrics and log. Neither waits for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from app.accounting.holdings import Progress
from app.core.exchange import Exchange
from app.core.identity import Principal
from app.core.ids import FIRST_ID, OBJECT_ID
from app.core.records import Attempt, Outcome, OwnedObject, Record
from app.ledger.lines import SeenLine, encode_payload
from app.limits.limiter import Outcome as Settlement
from app.metering.meter import Meter
from app.metering.tokens import Reading
from app.pipeline.admission import Admitted
from app.pipeline.desk import Desk
from app.pipeline.report import own_s_of, report
from app.pipeline.routing import Passed
from app.state.draft import Draft
from app.telemetry.live import Sighting

SAID = frozenset(("completed", "incomplete"))
"""How an answer ends that can be gone on from."""
RANK_EXACT, RANK_ESTIMATE = 2, 1


FALLBACKS_TOLD_MAX = 8
"""A decision has to fit into 2 KiB."""

OnSettled: TypeAlias = Callable[[Record, Outcome], None]


class Flight:
    """One admitted request. The witness of its relay, and the only one that closes its meter."""

    __slots__ = (
        "_desk",
        "_drain_bytes_end",
        "_drains",
        "_exchange",
        "_landed",
        "_owns",
        "_principal",
        "admitted",
        "answered_s",
        "asker_gone",
        "cancel_on_disconnect",
        "client_gone",
        "draft",
        "drain_tokens_max",
        "fallbacks",
        "first_byte_s",
        "meter",
        "on_named",
        "on_own_failure",
        "on_settled",
        "record",
        "sent_s",
    )

    def __init__(
        self,
        desk: Desk,
        exchange: Exchange,
        principal: Principal,
        meter: Meter,
        admitted: Admitted,
        *,
        owns: bool,
        cancel_on_disconnect: bool,
        drain_tokens_max: int | None,
    ) -> None:
        """``owns``: the response is stored upstream and belongs to the team from now on.

        ``drain_tokens_max``: how much output a stream may still produce once its client has left.

        Where others wait for the answer, ``on_settled`` is told of the record and of how the answer itself ended,
        and ``on_own_failure`` that the call fails for a reason that is not theirs.
        """
        self.meter = meter
        self.record: Record | None = None
        self.client_gone = False
        self.asker_gone = False
        self.on_settled: OnSettled | None = None
        self.on_own_failure: Callable[[], None] | None = None
        self.on_named: Callable[[list[str]], None] | None = None
        """Is told of ids that the answer names."""
        self.draft: Draft | None = None
        """What is to be kept of the answer, where the upstream keeps nothing."""
        self.cancel_on_disconnect = cancel_on_disconnect
        self.drain_tokens_max = drain_tokens_max
        self.fallbacks: list[Passed] = []
        """The targets that were passed over or tried in vain, as far as another was called instead."""
        self.sent_s: float | None = None
        self.answered_s: float | None = None
        self.first_byte_s: float | None = None
        self._desk = desk
        self._exchange = exchange
        self._principal = principal
        self.admitted = admitted
        self._owns = owns
        self._landed = False
        self._drains = False
        self._drain_bytes_end = 0

    def __repr__(self) -> str:
        return f"Flight(request_id={self._exchange.request_id!r}, settled={self.record is not None})"

    # -- what happens on the way --------------------------------------------------------------

    def sends(self) -> None:
        """The call upstream is about to be made."""
        self.sent_s = self._desk.clock.monotonic_s()

    def answers(self) -> None:
        """The upstream's answer is here: its whole body, or a stream's head."""
        self.answered_s = self._desk.clock.monotonic_s()

    def first_byte(self) -> None:
        """The client is about to get its first byte."""
        if self.first_byte_s is None:
            self.first_byte_s = self._desk.clock.monotonic_s()
            self.meter.first_byte_ms = self._desk.clock.now_ms()

    def retries(self, attempt: Attempt) -> None:
        """The last attempt is known to be unbilled; another follows."""
        self.meter.retry(attempt)
        self._desk.metrics.retries.labels(attempt.upstream).inc()
        line = self._desk.books.attempt(self._exchange.request_id, attempt)
        self._desk.accounts.go_on(self.admitted.grant.claim, line)

    def falls_back(self, passed: Sequence[Passed]) -> None:
        """Another target is called instead of these."""
        self.fallbacks += passed
        for each in passed:
            self._desk.metrics.fallbacks.labels(each.upstream, each.reason).inc()

    # -- witness of the relay -----------------------------------------------------------------

    def saw_event(self, data: bytes) -> None:
        reading = self.meter.reading
        if self.first_byte_s is None:
            self.first_byte()
        reading.see_event(data)
        if reading.stream_error and reading.response_id is not None and self.meter.opening.background:
            # What fails is the stream: the response goes on, and what becomes of it is asked for.
            reading.doubt_error()
        if self.draft is not None:
            self.draft.see_event(data)
        self._own_all()
        if self.record is None:
            if reading.terminal is not None:
                self.settle(reading.terminal)
            elif reading.done:
                self.settle("completed" if reading.has_ended_some else "failed")
        elif reading.suspect and not self.record.suspect:
            self.record = msgspec.structs.replace(self.record, suspect=True)

    def saw_beginning(self, first: bytes) -> None:
        found = FIRST_ID.match(first)
        if self._owns and found is not None:
            self._own_these([("", found[1].decode())])

    def saw_json(self, body: bytes) -> bool:
        reading = self.meter.reading
        if not reading.see_json(body):
            return False
        if self.draft is not None:
            self.draft.see_json(body)
        if self.runs_on:
            # It is only queued: what is here of it says nothing of what it will be.
            self._own_all()
            return True
        # All of the answer was seen: without usage, its size bounds what was produced.
        self.meter.body_seen = True
        reading.finished = True
        if reading.usage is None:
            reading.output_bytes = len(body)
        self._own_all()
        return True

    def saw_error(self, body: bytes) -> None:
        """An error of the upstream's own: its code, and its usage if it tells any."""
        self.meter.reading.see_json(body)

    def came_to_its_end(self, *, delimited: bool) -> bool:
        """Whether a stream whose body ended is whole. A Responses stream says so itself, by its last event; of
        another, the end of the body says it, if the upstream delimited it.
        """
        reading = self.meter.reading
        if reading.terminal is not None or reading.finished or reading.done or reading.stream_error:
            return True
        is_responses = self.meter.opening.endpoint == "responses" and reading.response_id is not None
        return delimited and not is_responses

    def missed_some(self) -> None:
        self.meter.body_seen = False

    def saw_last(self) -> None:
        if self.record is None and not self.runs_on:
            reading = self.meter.reading
            whole = reading.finished or reading.terminal is not None or not self.meter.opening.stream
            self.settle(reading.terminal or ("completed" if whole else "failed"))

    def may_drain_on(self) -> bool:
        return self.drain_tokens_max is None or self.meter.reading.output_bytes <= self._drain_bytes_end

    def client_left(self, phase: str, *, is_stream: bool) -> bool:
        self.client_gone = True
        if self.record is not None:
            return False
        desk = self._desk
        desk.metrics.disconnects.labels(phase).inc()
        if self.runs_on:
            # It goes on without anybody who listens.
            return is_stream
        if not is_stream:
            return False
        if self.cancel_on_disconnect or not desk.drains.begin(self._principal.key_id):
            return True
        self._drains = True
        if self.drain_tokens_max is not None:
            # Four bytes of text a token: the budget is money, and what is seen is text.
            self._drain_bytes_end = self.meter.reading.output_bytes + 4 * self.drain_tokens_max
        return False

    def asker_left(self) -> None:
        """Its own client has gone; others still wait for the answer."""
        self.asker_gone = True
        self._desk.metrics.disconnects.labels("shared").inc()

    # -- the end ------------------------------------------------------------------------------

    def settle(
        self, outcome: Outcome, *, void: bool = False, error_code: str | None = None, awaited: bool = False
    ) -> Record:
        """Decide how the request ended; only the first call counts."""
        if self.record is not None:
            return self.record
        desk = self._desk
        of_answer = outcome
        if (self.client_gone or self.asker_gone) and outcome != "interrupted" and not self.meter.opening.background:
            outcome = "disconnected"
        payload = b""
        if self.fallbacks:
            self._note_fallbacks()
        try:
            record = self.meter.close(
                desk.clock.now_ms(), outcome, void=void, error_code=error_code, own_us=self._own_us(), awaited=awaited
            )
            self.record = record
            payload = desk.books.close(record)
        finally:
            # Whatever goes wrong here, a lease that is kept for ever would lock its key out.
            self._give_back(payload)
        if self.on_settled is not None:
            self.on_settled(record, of_answer)
        return record

    def _note_fallbacks(self) -> None:
        opening = self.meter.opening
        told = [list(each) for each in self.fallbacks[:FALLBACKS_TOLD_MAX]]
        self.meter.opening = msgspec.structs.replace(opening, decision={**opening.decision, "fallback": told})

    def _own_us(self) -> int | None:
        """What the gateway itself has taken, as far as that is known: a body is about to be passed on."""
        first_byte_s = self.first_byte_s if self.first_byte_s is not None else self._desk.clock.monotonic_s()
        own_s = own_s_of(self._exchange.started_s, self, stream=self.meter.opening.stream, first_byte_s=first_byte_s)
        return None if own_s is None else max(round(own_s * 1_000_000), 0)

    def _give_back(self, payload: bytes) -> None:
        """What was reserved; only the first outcome counts."""
        accounts, record, grant = self._desk.accounts, self.record, self.admitted.grant
        if record is None:
            # Nobody can say what it cost: as much as was reserved for it.
            outcome = Settlement(RANK_ESTIMATE, grant.claim.bound_nanousd, grant.claim.tokens)
        else:
            last = record.entries[-1]
            is_void = last.kind == "void"
            outcome = Settlement(
                rank=RANK_ESTIMATE if last.kind == "estimate" else RANK_EXACT,
                nanousd=last.cost_nanousd or 0,
                tokens=0 if is_void else self.meter.limit_tokens(grant.claim.tokens),
                record=payload,
            )
        accounts.settle(grant.claim, outcome)
        if self.admitted.upstream_grant is not None:
            accounts.settle(self.admitted.upstream_grant.claim, outcome)

    def progress(self) -> Progress:
        """What has been seen of it so far, for whoever has to write its row if this process dies."""
        return Progress(*self.meter.at_least())

    def sighting(self) -> Sighting:
        """How it stands, for whoever watches."""
        meter = self.meter
        return Sighting(
            principal=self._principal,
            opening=meter.opening,
            upstream=meter.attempt.upstream,
            is_streaming=self.first_byte_s is not None,
            output_tokens=meter.output_tokens_so_far,
        )

    def land(self, *, was_sent: bool) -> None:
        """The exchange is over: hand the record on. What was never settled was interrupted, and is void where
        nothing was sent.
        """
        if self._landed or (self.runs_on and self._desk.background.take(self)):
            return
        self._landed = True
        if self._drains:
            self._desk.drains.end(self._principal.key_id)
        if self.draft is not None:
            self.draft.close()
        if self.runs_on:
            # Nobody here can wait for it any more: whoever lives asks later.
            self.meter.body_seen = False
            self.settle("interrupted", error_code="gateway_shutdown", awaited=True)
        record = self.settle("interrupted", void=not was_sent, error_code="internal_error")
        if self.draft is not None and self._is_lost(self.draft, record):
            self._desk.turns.lost()
        self._desk.books.submit(record)
        report(self._desk, self._principal, record, self._exchange.started_s, self)

    def _is_lost(self, draft: Draft, record: Record) -> bool:
        """Whether there was an answer to keep, which was not kept: also one that was too large to be read."""
        if draft.was_kept or not draft.is_of_upstream:
            return False
        return self.meter.reading.terminal in SAID or record.outcome in SAID

    # -- what goes on after its answer -----------------------------------------------------------

    @property
    def runs_on(self) -> bool:
        """Whether the response goes on upstream, whoever listens, and has not come to its end."""
        if not self.meter.opening.background or self.record is not None:
            return False
        reading = self.meter.reading
        return reading.response_id is not None and reading.terminal is None

    @property
    def place(self) -> tuple[str, str]:
        """The upstream, and the response's id there."""
        return self.meter.attempt.upstream, self.meter.reading.response_id or ""

    def come_to_its_end(self, reading: Reading) -> None:
        """What it has come to is known."""
        self.meter.reading = reading
        reading.finished = True
        # Without usage nothing of it was seen that would bound what it cost.
        self.meter.body_seen = reading.usage is not None
        self._own_all()
        self.settle(reading.terminal or "failed")
        self.land(was_sent=True)

    def give_up(self, error_code: str, *, awaited: bool) -> None:
        """Nobody here will know: it is billed at its bound. ``awaited``: somebody is to ask later."""
        self.meter.body_seen = False
        self.settle("interrupted" if awaited else "failed", error_code=error_code, awaited=awaited)
        self.land(was_sent=True)

    # -- whose it is ------------------------------------------------------------------------------

    def _own_all(self) -> None:
        """What the answer has named so far is the team's, before the client knows it."""
        found = self.meter.reading.take_objects()
        if found and self.on_named is not None:
            self.on_named([object_id for _, object_id in found])
        # Of what is not stored only that is kept which is stored apart from it, such as a container.
        made = [each for each in found if self._owns or each[0] not in {"", "item"}]
        if made:
            self._own_these(made)

    def _own_these(self, made: Sequence[tuple[str, str]]) -> None:
        """The upstream has made them for this call: nobody can have had them before."""
        owned = [each for kind, object_id in made if (each := self._owned(kind, object_id)) is not None]
        if not owned:
            return
        self._desk.books.seen(owned)
        if self.meter.opening.background and owned[0].kind == "response":
            # Whoever has to write its row must know what to ask for.
            self._desk.accounts.go_on(self.admitted.grant.claim, encode_payload(SeenLine(owned[0])))

    def _owned(self, kind: str, object_id: str) -> OwnedObject | None:
        """``kind`` is "" for the answer itself. None for what no team can name again."""
        endpoint = self._exchange.endpoint
        if OBJECT_ID.match(object_id) is None or (kind == "item" and endpoint.learns != kind):
            return None
        if not kind and self.draft is not None and self.draft.is_of_upstream:
            # Nothing is stored there by this id: what is kept is kept here.
            return None
        return OwnedObject(
            object_id=object_id,
            upstream=self.meter.attempt.upstream,
            team_id=self._principal.team_id,
            kind=kind or endpoint.creates or "response",
            request_id=self._exchange.request_id,
            created_at_ms=self._desk.clock.now_ms(),
        )
