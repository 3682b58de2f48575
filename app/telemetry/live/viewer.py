"""What one who looks is told: at most so many events a second, and after each burst the truth again.

A viewer keeps no queue. It compares what it has told with how things stand: whoever takes long to read it misses what
was between, and is told how much that was.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TypeAlias

import msgspec

from app.telemetry.live.rows import FlightRow, RecordRow
from app.telemetry.live.scene import ALL, Scene, place_of_key, place_of_team

TICK_S = 0.2
EVENTS_PER_TICK = 8
"""At most 50 events a second: six ticks may fall into one."""
STARTED_RESERVED = 2
"""Of those, however much has ended."""
PENDING_MAX = 40
TOLD_MAX = 400
SNAPSHOT_FLIGHTS_MAX = 200
SNAPSHOT_FINISHED_MAX = 200
SNAPSHOT_EVERY_S = 1.0
NUMBERS_EVERY_S = 1.0
NUMBERS_S_MAX = 10.0
"""They are told so often though nothing has changed: who hears nothing knows that it is cut off."""

Event: TypeAlias = tuple[str, dict[str, object] | RecordRow | FlightRow]
"""Its name and its data."""


class Scope(msgspec.Struct, frozen=True):
    """What a viewer may see, or wants to: some teams, one key, or (neither) all. ``is_own``: it is told nothing of the
    gateway's own processes.
    """

    teams: frozenset[str] | None = None
    key_id: str | None = None
    is_own: bool = False

    def sees(self, row: FlightRow | RecordRow) -> bool:
        if self.key_id is not None:
            return row.key.id == self.key_id
        return self.teams is None or row.team.id in self.teams

    @property
    def places(self) -> list[tuple[str, str]]:
        """Where it is counted."""
        if self.key_id is not None:
            return [place_of_key(self.key_id)]
        return [ALL] if self.teams is None else [place_of_team(team_id) for team_id in self.teams]


class Viewer:
    """One who looks at ``scene``. ``snapshot`` first, then ``tick`` every ``TICK_S``, no sooner."""

    def __init__(self, scene: Scene, scope: Scope) -> None:
        self._scene = scene
        self.scope = scope
        self._places = scope.places
        # What was told of each in flight; those told of last come last.
        self._told: dict[str, tuple[str, int]] = {}
        self._pending: deque[RecordRow] = deque()
        self._seen = 0
        self._skipped = 0
        self._dropped = 0
        self._version = 0
        self._numbers: dict[str, object] = {}
        self._snapshot_at_s = 0.0
        self._numbers_at_s = 0.0
        self._dropped_at_s = 0.0

    def __repr__(self) -> str:
        return f"Viewer({self.scope!r}, told={len(self._told)}, dropped={self._dropped})"

    def snapshot(self, now_s: float, *, degraded: bool = False) -> list[Event]:
        """How things stand: those in flight, oldest first, and those that ended, newest first."""
        scene, sees = self._scene, self.scope.sees
        flights = sorted((row for row in scene.flights() if sees(row)), key=_started)[:SNAPSHOT_FLIGHTS_MAX]
        finished = list(islice(filter(sees, reversed(scene.finished)), SNAPSHOT_FINISHED_MAX))
        self._told = {row.request_id: _standing(row) for row in flights}
        self._pending.clear()
        self._seen, self._skipped, self._version = scene.ended, self._skipped_total(), scene.version
        self._snapshot_at_s = now_s
        self._numbers = {}
        events: list[Event] = [("snapshot", {"in_flight": [self._shown(row) for row in flights], "finished": finished})]
        return events + self._tell_numbers(now_s, degraded=degraded)

    def tick(self, now_s: float, *, degraded: bool = False) -> list[Event]:
        """What has changed since the last one. ``degraded``: other processes cannot be heard."""
        scene = self._scene
        if scene.version != self._version:
            due = now_s - self._snapshot_at_s >= SNAPSHOT_EVERY_S
            return self.snapshot(now_s, degraded=degraded) if due else []
        self._collect()
        flights = {row.request_id: row for row in scene.flights() if self.scope.sees(row)}
        events = self._tell_numbers(now_s, degraded=degraded) + self._tell_dropped(now_s)
        coming = {row.request_id for row in self._pending}
        gone = [request_id for request_id in self._told if request_id not in flights and request_id not in coming]
        if gone:
            for request_id in gone:
                del self._told[request_id]
            events.append(("ended", {"request_ids": gone}))
        new = [row for request_id, row in flights.items() if request_id not in self._told]
        self._tell_finished(events, EVENTS_PER_TICK - min(STARTED_RESERVED, len(new)))
        self._tell_started(events, new)
        self._tell_progress(events, flights)
        return events

    # -- the parts of a tick --------------------------------------------------------------------

    def _collect(self) -> None:
        """What has ended since the last tick waits for its turn; for how long is bounded."""
        scene, pending = self._scene, self._pending
        new = scene.ended - self._seen
        self._seen = scene.ended
        kept = min(new, len(scene.finished))
        if new > kept and self.scope.places == [ALL]:
            # Nobody can tell any more whose they were.
            self._dropped += new - kept
        pending.extend(filter(self.scope.sees, islice(scene.finished, len(scene.finished) - kept, None)))
        while len(pending) > PENDING_MAX:
            pending.popleft()
            self._dropped += 1
        skipped = self._skipped_total()
        self._dropped += skipped - self._skipped
        self._skipped = skipped

    def _tell_numbers(self, now_s: float, *, degraded: bool) -> list[Event]:
        numbers: dict[str, object] = {
            "in_flight": sum(self._scene.in_flight[place] for place in self._places),
            "degraded": degraded,
        }
        if not self.scope.is_own:
            numbers["processes"] = self._scene.processes
        since_s = now_s - self._numbers_at_s
        if numbers == self._numbers and since_s < NUMBERS_S_MAX:
            return []
        if degraded == self._numbers.get("degraded") and since_s < NUMBERS_EVERY_S:
            return []
        self._numbers, self._numbers_at_s = numbers, now_s
        return [("count", numbers)]

    def _tell_dropped(self, now_s: float) -> list[Event]:
        if not self._dropped or now_s - self._dropped_at_s < NUMBERS_EVERY_S:
            return []
        dropped, self._dropped, self._dropped_at_s = self._dropped, 0, now_s
        return [("dropped", {"events": dropped})]

    def _tell_finished(self, events: list[Event], events_max: int) -> None:
        while self._pending and len(events) < events_max:
            row = self._pending.popleft()
            self._told.pop(row.request_id, None)
            events.append(("finished", row))

    def _tell_started(self, events: list[Event], new: list[FlightRow]) -> None:
        for row in new:
            if len(events) >= EVENTS_PER_TICK or len(self._told) >= TOLD_MAX:
                return
            self._told[row.request_id] = _standing(row)
            events.append(("started", self._shown(row)))

    def _tell_progress(self, events: list[Event], flights: dict[str, FlightRow]) -> None:
        changed = []
        for request_id, told in self._told.items():
            row = flights.get(request_id)
            if row is not None and told != _standing(row):
                changed.append(row)
                if len(changed) + len(events) >= EVENTS_PER_TICK:
                    break
        for row in changed[: max(0, EVENTS_PER_TICK - len(events))]:
            # To the end: everybody's turn comes.
            del self._told[row.request_id]
            self._told[row.request_id] = _standing(row)
            step: dict[str, object] = {
                "request_id": row.request_id,
                "state": row.state,
                "output_tokens": row.output_tokens,
            }
            events.append(("progress", step))

    # -- what it may see ------------------------------------------------------------------------

    def _shown(self, row: FlightRow) -> FlightRow:
        return msgspec.structs.replace(row, worker=None) if self.scope.is_own else row

    def _skipped_total(self) -> int:
        return sum(self._scene.skipped[place] for place in self._places)


def _started(row: FlightRow) -> str:
    return row.started_at


def _standing(row: FlightRow) -> tuple[str, int]:
    return row.state, row.output_tokens
