"""The processes put together, while somebody in this one looks."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain

from app.telemetry.live.deltas import FLIGHTS_MAX, Count, Delta
from app.telemetry.live.rows import FlightRow, RecordRow

PROCESSES_MAX = 256
HISTORY_MAX = 1000
SILENCE_S_MAX = 6.0
"""A process that has said nothing for as long is dead, or cannot be heard."""

ALL = ("", "")


def place_of_team(team_id: str) -> tuple[str, str]:
    """Where a team is counted."""
    return team_id, ""


def place_of_key(key_id: str) -> tuple[str, str]:
    """Where a key is counted."""
    return "", key_id


class _Source:
    """What one process has in flight."""

    __slots__ = ("counts", "flights", "heard_s", "is_whole", "number", "totals")

    def __init__(self) -> None:
        self.flights: dict[str, FlightRow] = {}
        self.counts: dict[tuple[str, str], int] = {}
        self.totals: dict[tuple[str, str], int] = {}
        self.number = 0
        self.heard_s = 0.0
        self.is_whole = False
        """Whether it has told all that there is once."""

    def take(self, delta: Delta) -> None:
        for row in delta.started:
            if len(self.flights) < FLIGHTS_MAX:
                self.flights[row.request_id] = row
        for step in delta.steps:
            known = self.flights.get(step.request_id)
            if known is not None:
                known.state, known.output_tokens = step.state, step.output_tokens
        for request_id in delta.ended:
            self.flights.pop(request_id, None)


class Scene:
    """``finished`` are numbered: the last one in it has the number ``ended``. ``in_flight`` and ``skipped`` (how many
    have ended without being in ``finished``) are counted for all, for each team and for each key. ``version`` changes
    where a process is heard for the first time, with its history.
    """

    def __init__(self) -> None:
        self.finished: deque[RecordRow] = deque(maxlen=HISTORY_MAX)
        self.ended = 0
        self.in_flight: Counter[tuple[str, str]] = Counter()
        self.skipped: Counter[tuple[str, str]] = Counter()
        self.version = 0
        self._sources: dict[str, _Source] = {}

    def __repr__(self) -> str:
        return f"Scene(processes={self.processes}, in_flight={self.in_flight[ALL]}, ended={self.ended})"

    @property
    def processes(self) -> int:
        """How many are heard, and have told all that they have."""
        return sum(source.is_whole for source in self._sources.values())

    def flights(self) -> Iterator[FlightRow]:
        """The rows of those in flight, each process's oldest first."""
        return chain.from_iterable(source.flights.values() for source in self._sources.values())

    def take(self, delta: Delta, now_s: float) -> bool:
        """What a process tells; False where something before it was missed: all of it has to be told again."""
        source = self._sources.get(delta.process)
        if delta.over:
            self._forget(delta.process)
            return True
        if source is None:
            if len(self._sources) >= PROCESSES_MAX:
                return True
            source = self._sources[delta.process] = _Source()
        is_gapless = delta.whole or delta.number == source.number + 1
        source.number, source.heard_s = delta.number, now_s
        if delta.whole:
            self._begin_again(source, delta)
        source.take(delta)
        for count in delta.counts:
            self._count(source, count)
        self.finished.extend(delta.finished)
        self.ended += len(delta.finished)
        self._skip(source, delta)
        source.is_whole = source.is_whole or delta.whole
        return is_gapless

    def expire(self, now_s: float) -> None:
        """Forget the processes that are silent."""
        for process in [name for name, one in self._sources.items() if now_s - one.heard_s > SILENCE_S_MAX]:
            self._forget(process)

    def _begin_again(self, source: _Source, delta: Delta) -> None:
        if not source.is_whole:
            # From before it was heard; those that came since are there already.
            known = {row.request_id for row in chain(self.finished, delta.finished)}
            older = [row for row in delta.recent if row.request_id not in known]
            merged = sorted(chain(self.finished, older), key=lambda row: row.ended_at)
            self.finished = deque(merged, maxlen=HISTORY_MAX)
            self.version += 1
        self._uncount(source)
        source.flights.clear()

    def _forget(self, process: str) -> None:
        source = self._sources.pop(process, None)
        if source is not None:
            self._uncount(source)

    def _uncount(self, source: _Source) -> None:
        for (team_id, key_id), number in source.counts.items():
            _add(self.in_flight, Count(team_id, key_id, number), -number)
        source.counts.clear()

    def _skip(self, source: _Source, delta: Delta) -> None:
        """Count those that ended without a row here, be it that there was none or that it was lost."""
        rows = Counter((row.team.id, row.key.id) for row in delta.finished)
        for total in delta.totals:
            pair = (total.team_id, total.key_id)
            before = source.totals.get(pair, 0)
            source.totals[pair] = total.number
            if source.is_whole:
                # Less than before: it has begun to look again.
                new = total.number - (before if before <= total.number else 0)
                _add(self.skipped, total, max(0, new - rows[pair]))

    def _count(self, source: _Source, count: Count) -> None:
        pair = (count.team_id, count.key_id)
        _add(self.in_flight, count, count.number - source.counts.get(pair, 0))
        if count.number:
            source.counts[pair] = count.number
        else:
            source.counts.pop(pair, None)


def _add(counter: Counter[tuple[str, str]], count: Count, difference: int) -> None:
    for place in {ALL, place_of_team(count.team_id), place_of_key(count.key_id)}:
        counter[place] += difference
        if not counter[place]:
            del counter[place]
