"""A response under way on a WebSocket, from its create to its record, and the ids that a connection has made."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from math import inf

from app.core.errors import GatewayError, UpgradeRequired, UpstreamAuthFailed, UpstreamBusy
from app.core.exchange import Exchange
from app.core.records import Outcome
from app.pipeline.carriage import REST_S_DEFAULT
from app.pipeline.desk import Desk
from app.pipeline.flight import Flight
from app.pipeline.load import Load
from app.pipeline.socket_events import SocketEvent
from app.upstream.breaker import Call

OWN_MAX = 10_000
RATE_LIMITED = 429


class Aloft:
    """One of them; each stream of a connection has one at a time. ``land`` is its end, whichever way it came."""

    __slots__ = ("_call", "_desk", "_has_landed", "_load", "deadline_s", "exchange", "flight", "is_disturbed")

    def __init__(self, desk: Desk, load: Load, flight: Flight, exchange: Exchange, call: Call) -> None:
        """It is counted in ``load`` already. ``call`` is what its upstream's breaker is told by."""
        self.flight = flight
        self.exchange = exchange
        self.deadline_s = inf
        """When the upstream is given up that has said nothing of it, of the loop's clock."""
        self.is_disturbed = False
        """Whether something else was sent since it began: an error may then be about that."""
        self._desk = desk
        self._has_landed = False
        self._load = load
        self._call = call

    def __repr__(self) -> str:
        return f"Aloft({self.flight!r})"

    def begins(self) -> None:
        """It is sent."""
        self.flight.sends()
        self.flight.meter.status = 200
        self._desk.live.begin(self.exchange.request_id, self.flight)

    def answers(self, *, well: bool = True) -> None:
        """The upstream has said something; not ``well``: that it has failed itself."""
        if well:
            self._call.answered()
        else:
            self._call.failed()

    def refused(self, event: SocketEvent) -> None:
        """The upstream has refused it before it began."""
        status = event.refusal_status
        self.answers(well=status is not None and status < 500)
        if status == RATE_LIMITED:
            self._call.rest(REST_S_DEFAULT, self.flight.meter.attempt.model)
        self.flight.meter.status = status
        is_void = status is not None and (status < 500 or status == 503)
        self.flight.settle("failed", void=is_void, error_code=_code_of(event))

    def doubted(self, event: SocketEvent) -> None:
        """An error has come that is about this response, or about a frame that was sent for one before it: what this
        one costs nobody knows.
        """
        self.answers()
        self.flight.meter.body_seen = False
        self.flight.settle("failed", error_code=_code_of(event))

    def not_connected(self, error: GatewayError) -> None:
        """There is no upstream to send it to: nothing was sent."""
        if isinstance(error, (UpgradeRequired, UpstreamAuthFailed)):
            self._call.answered()
        elif not isinstance(error, UpstreamBusy):
            self._call.failed()
        self.flight.meter.status = error.status
        try:
            self.flight.settle("failed", void=True, error_code=error.code)
        finally:
            self.land(was_sent=False)

    def left(self) -> None:
        """Its client has gone before it was sent."""
        self.flight.client_gone = True
        try:
            self.flight.settle("failed", void=True)
        finally:
            self.land(was_sent=False)

    def end(self, outcome: Outcome, cause: str, *, upstream_failed: bool = False) -> None:
        """It has not come to its own end."""
        if upstream_failed:
            self._call.failed()
        try:
            self.flight.settle(outcome, error_code=cause)
        finally:
            self.land(was_sent=True)

    def land(self, *, was_sent: bool) -> None:
        """Its record is handed on, and what it held is given back."""
        if self._has_landed:
            return
        self._has_landed = True
        self._call.forget()
        self._load.leave()
        self._desk.live.leave(self.exchange.request_id)
        self.flight.land(was_sent=was_sent)


def _code_of(event: SocketEvent) -> str:
    code = event.error.code if event.error is not None else event.code
    return code if isinstance(code, str) else "upstream_error"


class OwnIds:
    """Ids of a connection's own responses and items, which may be stored nowhere else; the oldest are forgotten."""

    def __init__(self, ids_max: int = OWN_MAX) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._ids_max = ids_max

    def __repr__(self) -> str:
        return f"OwnIds({len(self._ids)}/{self._ids_max})"

    def __contains__(self, object_id: str) -> bool:
        if object_id not in self._ids:
            return False
        self._ids.move_to_end(object_id)
        return True

    def learn(self, object_ids: Iterable[str]) -> None:
        for object_id in object_ids:
            self._ids[object_id] = None
            self._ids.move_to_end(object_id)
        while len(self._ids) > self._ids_max:
            self._ids.popitem(last=False)
