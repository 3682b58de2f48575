"""What has changed in one process since it was last looked at.

A delta is bounded whatever the traffic: so many requests in flight are shown by row (the oldest), so many of those that
ended (the newest of each key), and the others by number.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice

import msgspec

from app.telemetry.live.board import LiveBoard
from app.telemetry.live.rows import FlightRow, RecordRow, State, flight_row, record_row, state_of

FLIGHTS_MAX = 200
FINISHED_MAX = 100
FINISHED_OF_KEY_MAX = 40
"""Of one look: nobody is told more of them by the next."""
RECENT_MAX = 200
TOKENS_EVERY = 5
"""Looks: how often a growing answer is told of."""


class Step(msgspec.Struct, array_like=True, frozen=True):
    """A request in flight stands differently now."""

    request_id: str
    state: State
    output_tokens: int


class Count(msgspec.Struct, array_like=True, frozen=True):
    """A number of requests of one key; without ids, of some that nobody can tell any more."""

    team_id: str
    key_id: str
    number: int


class Delta(msgspec.Struct, omit_defaults=True):
    """What has changed in ``process`` since its delta before, whose number was one less.

    ``whole``: it is all that there is, and what was known before is void; ``over``: nothing follows. ``counts`` are
    the numbers in flight of the keys for which they have changed; ``totals`` how many of a key have ended since the
    first look, with a row or without, so that a delta that is lost takes none out of the count. ``recent`` are rows
    of those that ended earlier, oldest first.
    """

    process: str
    number: int
    whole: bool = False
    over: bool = False
    started: list[FlightRow] = msgspec.field(default_factory=list)
    steps: list[Step] = msgspec.field(default_factory=list)
    ended: list[str] = msgspec.field(default_factory=list)
    finished: list[RecordRow] = msgspec.field(default_factory=list)
    totals: list[Count] = msgspec.field(default_factory=list)
    counts: list[Count] = msgspec.field(default_factory=list)
    recent: list[RecordRow] = msgspec.field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has changed."""
        return not (self.started or self.steps or self.ended or self.totals or self.counts)


class Watch:
    """Looks at a board again and again. What ended before the first look is only in ``recent``."""

    def __init__(self, board: LiveBoard, process: str, worker: str) -> None:
        self._board = board
        self._process = process
        self._worker = worker
        self._rows: dict[str, FlightRow] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._totals: Counter[tuple[str, str]] = Counter()
        self._ended = board.ended
        self._number = 0

    def __repr__(self) -> str:
        return f"Watch({self._board!r}, number={self._number})"

    def look(self) -> Delta:
        """What has changed since the last look."""
        self._number += 1
        delta = Delta(self._process, self._number)
        self._look_at_flights(delta)
        self._look_at_finished(delta)
        return delta

    def whole(self, delta: Delta) -> Delta:
        """All that there is, in place of ``delta``, which was just made."""
        newest = list(islice(reversed(self._board.finished), RECENT_MAX))
        return Delta(
            process=delta.process,
            number=delta.number,
            whole=True,
            started=list(self._rows.values()),
            finished=delta.finished,
            totals=_listed(self._totals),
            counts=_listed(self._counts),
            recent=[record_row(principal, record) for principal, record in reversed(newest)],
        )

    def _look_at_flights(self, delta: Delta) -> None:
        flights, rows = self._board.flights, self._rows
        delta.ended = [request_id for request_id in rows if request_id not in flights]
        for request_id in delta.ended:
            del rows[request_id]
        tells_tokens = delta.number % TOKENS_EVERY == 0
        counts: Counter[tuple[str, str]] = Counter()
        for request_id, sight in flights.items():
            sighting = sight.sighting()
            counts[sighting.principal.team_id, sighting.principal.key_id] += 1
            row = rows.get(request_id)
            if row is None:
                if len(rows) < FLIGHTS_MAX:
                    row = rows[request_id] = flight_row(sighting, self._worker)
                    delta.started.append(row)
                continue
            state = state_of(sighting)
            row.upstream = sighting.upstream
            if state != row.state or (tells_tokens and sighting.output_tokens != row.output_tokens):
                row.state, row.output_tokens = state, sighting.output_tokens
                delta.steps.append(Step(request_id, state, row.output_tokens))
        before = self._counts
        changed = {pair: counts[pair] for pair in counts.keys() | before.keys() if counts[pair] != before.get(pair, 0)}
        delta.counts = _listed(changed)
        self._counts = dict(counts)

    def _look_at_finished(self, delta: Delta) -> None:
        board = self._board
        new = board.ended - self._ended
        self._ended = board.ended
        newest = list(islice(reversed(board.finished), new))
        shown: Counter[str] = Counter()
        ended: Counter[tuple[str, str]] = Counter()
        for principal, record in newest:
            ended[record.team_id, record.key_id] += 1
            if shown[record.key_id] < FINISHED_OF_KEY_MAX and len(delta.finished) < FINISHED_MAX:
                shown[record.key_id] += 1
                delta.finished.append(record_row(principal, record))
        delta.finished.reverse()
        if new > len(newest):
            ended["", ""] = new - len(newest)
        self._totals.update(ended)
        delta.totals = _listed({pair: self._totals[pair] for pair in ended})


def _listed(counts: dict[tuple[str, str], int]) -> list[Count]:
    return [Count(team_id, key_id, number) for (team_id, key_id), number in counts.items()]
