"""What this process does right now, as the data plane tells it.

It pays with one entry of a dict for a request that begins, and with one of a deque for one that ends. All else (rows,
differences, counts) is worked out by whoever looks, while somebody does.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from app.core.identity import Principal
from app.core.records import Opening, Record

FINISHED_KEPT = 200
FINISHED_KEPT_WATCHED = 4096
"""While somebody looks: more than one process ends between two looks."""


class Sighting(NamedTuple):
    """How a request in flight stands. ``output_tokens`` are those that were told, else a guess by the bytes of text
    seen; ``is_streaming``: its first byte has gone to the client.
    """

    principal: Principal
    opening: Opening
    upstream: str
    is_streaming: bool
    output_tokens: int


class Sight(Protocol):
    """A request in flight."""

    def sighting(self) -> Sighting:
        """How it stands; only asked while somebody looks."""
        ...


class LiveBoard:
    """The requests in flight, by request id, oldest first; and those that ended last. Whoever calls ``begin`` calls
    ``leave`` on every way out; as many are there as requests may be in flight.
    """

    __slots__ = ("ended", "finished", "flights")

    def __init__(self) -> None:
        self.flights: dict[str, Sight] = {}
        self.finished: deque[tuple[Principal, Record]] = deque(maxlen=FINISHED_KEPT)
        self.ended = 0
        """How many have ended; the number of the last in ``finished``."""

    def __repr__(self) -> str:
        return f"LiveBoard(in_flight={len(self.flights)}, ended={self.ended})"

    def begin(self, request_id: str, sight: Sight) -> None:
        """It was admitted."""
        self.flights[request_id] = sight

    def leave(self, request_id: str) -> None:
        """It is not in flight any more, whatever became of it."""
        self.flights.pop(request_id, None)

    def finish(self, principal: Principal, record: Record) -> None:
        """It has ended with a record."""
        self.ended += 1
        self.finished.append((principal, record))

    def keep(self, number: int) -> None:
        """So many of those that ended are kept from now on."""
        self.finished = deque(self.finished, maxlen=number)
