"""A call that leaves no record: a retrieval, a poll, a list, a delete, an upload. Its answer passes as it came, and
what it makes known as the team's is written down before the client sees it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from app.auth.references import objects_of_answer
from app.core.exchange import Exchange
from app.core.identity import Principal
from app.core.ids import FIRST_ID, OBJECT_ID
from app.core.records import OwnedObject
from app.metering.tokens import Reading
from app.pipeline.desk import Desk

OWNED_AT_ONCE_MAX = 10_000
"""Of one answer: a page has a hundred, a batch's file none."""

OnReading = Callable[[Reading], None]


class Errand:
    """The witness of the relay for such a call. ``on_reading`` is told of a response as it is read on the way."""

    def __init__(
        self, desk: Desk, exchange: Exchange, principal: Principal, upstream: str, on_reading: OnReading | None
    ) -> None:
        self.status: int | None = None
        self.client_gone = False
        self._desk = desk
        self._exchange = exchange
        self._principal = principal
        self._upstream = upstream
        self._on_reading = on_reading
        is_response = any(kind == "response" for kind, _ in exchange.ids)
        self._reading = Reading() if is_response and exchange.method != "DELETE" else None

    def __repr__(self) -> str:
        return f"Errand({self._exchange!r}, status={self.status})"

    # -- witness of the relay -------------------------------------------------------------------

    def saw_event(self, data: bytes) -> None:
        if self._reading is not None:
            self._reading.see_event(data)
            self._saw_response(self._reading)

    def saw_beginning(self, first: bytes) -> None:
        found = FIRST_ID.match(first)
        if found is not None and self._exchange.endpoint.creates:
            self._made(found[1].decode())

    def saw_json(self, body: bytes) -> bool:
        try:
            answer = msgspec.json.decode(body)
        except (ValueError, RecursionError):
            return False
        for kind, object_id in itertools.islice(self._owned(answer), OWNED_AT_ONCE_MAX):
            self._named(kind, object_id)
        if self._reading is not None and self._reading.see_json(body):
            self._saw_response(self._reading)
        return True

    def _saw_response(self, reading: Reading) -> None:
        for kind, object_id in reading.take_objects():
            # Its own id is the one that was asked for.
            if kind:
                self._named(kind, object_id)
        if self._on_reading is not None and reading.terminal is not None:
            self._on_reading(reading)
            self._on_reading = None

    def came_to_its_end(self, *, delimited: bool) -> bool:
        return delimited

    def missed_some(self) -> None:
        """What was not read has no part in anything."""

    def saw_last(self) -> None:
        """Nothing has to be settled."""

    def may_drain_on(self) -> bool:
        return False

    def client_left(self, phase: str, *, is_stream: bool) -> bool:
        self.client_gone = True
        self._desk.metrics.disconnects.labels(phase).inc()
        return is_stream

    # -- whose it is ----------------------------------------------------------------------------

    def _owned(self, answer: Any) -> Iterator[tuple[str, str]]:
        """What an answer makes known as the team's, each with its kind; what was made is told at once."""
        endpoint = self._exchange.endpoint
        if not endpoint.known or self._exchange.method == "DELETE" or not isinstance(answer, dict):
            return
        own_id = answer.get("id")
        if endpoint.creates and isinstance(own_id, str):
            self._made(own_id)
        rows = answer.get("data") if endpoint.learns else None
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and isinstance(row.get("id"), str):
                yield endpoint.learns, row["id"]
        yield from objects_of_answer(answer, endpoint.family)

    def _made(self, object_id: str) -> None:
        """From now on it is the team's."""
        if OBJECT_ID.match(object_id) is not None:
            self._desk.books.seen([self._object(self._exchange.endpoint.creates, object_id)])

    def _named(self, kind: str, object_id: str) -> None:
        if OBJECT_ID.match(object_id) is not None:
            self._desk.books.named(self._object(kind, object_id))

    def _object(self, kind: str, object_id: str) -> OwnedObject:
        return OwnedObject(
            object_id=object_id,
            upstream=self._upstream,
            team_id=self._principal.team_id,
            kind=kind,
            request_id=self._exchange.request_id,
            created_at_ms=self._desk.clock.now_ms(),
        )
