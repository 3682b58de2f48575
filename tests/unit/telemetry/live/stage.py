"""A process with requests in flight, as short as a test wants them."""

from __future__ import annotations

from typing import Any

from app.core.identity import Principal
from app.core.records import Opening, Record
from app.telemetry.live.board import LiveBoard, Sighting
from app.telemetry.live.deltas import Delta, Watch
from tests.contract.store.samples import NOON_MS, opening_of, record_of


def principal_of(key: str = "a1", team: str = "a") -> Principal:
    return Principal(f"team-{team}", f"Team {team}", f"key-{key}", f"Key {key}", f"secret-{key}", (), ())


class FakeFlight:
    """Stands as a test says."""

    def __init__(self, principal: Principal, opening: Opening) -> None:
        self.principal = principal
        self.opening = opening
        self.streams = False
        self.tokens = 0

    def sighting(self) -> Sighting:
        return Sighting(self.principal, self.opening, "openai", self.streams, self.tokens)


class Process:
    """Its board, and a watch on it."""

    def __init__(self, name: str = "p1") -> None:
        self.name = name
        self.board = LiveBoard()
        self.watch = Watch(self.board, name, f"host/{name}")
        self.flights: dict[str, FakeFlight] = {}
        self._made = 0

    def begin(self, key: str = "a1", team: str = "a", request_id: str = "") -> str:
        self._made += 1
        principal = principal_of(key, team)
        opening = opening_of(
            request_id or None, at_ms=NOON_MS + self._made, team_id=principal.team_id, key_id=principal.key_id
        )
        flight = self.flights[opening.request_id] = FakeFlight(principal, opening)
        self.board.begin(opening.request_id, flight)
        return opening.request_id

    def end(self, request_id: str, **changes: Any) -> Record:
        flight = self.flights.pop(request_id)
        opening = flight.opening
        record = record_of(
            request_id, at_ms=opening.admitted_at_ms, team_id=opening.team_id, key_id=opening.key_id, **changes
        )
        self.board.leave(request_id)
        self.board.finish(flight.principal, record)
        return record

    def vanish(self, request_id: str) -> None:
        """It leaves without a record."""
        del self.flights[request_id]
        self.board.leave(request_id)

    def serve(self, count: int = 1, key: str = "a1", team: str = "a") -> list[str]:
        """Requests that begin and end at once."""
        ids = [self.begin(key, team) for _ in range(count)]
        for request_id in ids:
            self.end(request_id)
        return ids

    def watch_again(self) -> None:
        """As where somebody begins to look: what has ended until now is history."""
        self.watch = Watch(self.board, self.name, f"host/{self.name}")

    def whole(self) -> Delta:
        return self.watch.whole(self.watch.look())
