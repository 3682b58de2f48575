"""What a dead process left in its journal, brought into SQL; run before anything new is taken.

A closed record goes in as it is. A request that was opened and not closed may have been sent: it is
billed at its bound, as an ``estimate`` that says so. All of it may be done again, whole or in part: what
is in SQL already is left alone.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from app.core.records import Attempt, Entry, Opening, OwnedObject, Record, attempt_id_of
from app.core.usage import Usage
from app.ledger.commit import Item, commit
from app.ledger.lines import AttemptLine, CloseLine, Damaged, OpenLine, SeenLine, Torn, read_lines
from app.ledger.slots import DAMAGED_SUFFIX, take_dead_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from app.core.clock import Clock
    from app.ledger.slots import Slot
    from app.store.database import Database

BATCH_ITEMS_MAX = 2000


class Recovered(msgspec.Struct):
    """What was found. ``torn`` counts segments that end in an unfinished line; ``damaged`` those with
    unreadable lines in the middle, which are kept beside the journal under another name.
    """

    slots: int = 0
    segments: int = 0
    closed: int = 0
    interrupted: int = 0
    objects: int = 0
    torn: int = 0
    damaged: int = 0
    damaged_lines: int = 0
    poisoned: int = 0


async def recover(
    root: Path,
    own: Slot,
    database: Database,
    clock: Clock,
    *,
    on_poison: Callable[[str, str], None] = lambda _request_id, _reason: None,
) -> Recovered:
    """Replays the journals of this slot and of every dead one, and removes them once they are committed.

    To be called after the slot was taken and before its journal is opened. Raises DatabaseUnavailable:
    then nothing was removed, and it may be called again.
    """
    report = Recovered()

    def count_poison(request_id: str, reason: str) -> None:
        report.poisoned += 1
        on_poison(request_id, reason)

    dead = await asyncio.to_thread(take_dead_slots, root)
    try:
        for slot in (own, *dead):
            await _recover_slot(slot, database, clock, report, count_poison)
    finally:
        for slot in dead:
            slot.release()
    return report


async def _recover_slot(
    slot: Slot,
    database: Database,
    clock: Clock,
    report: Recovered,
    on_poison: Callable[[str, str], None],
) -> None:
    paths = await asyncio.to_thread(slot.segments)
    if not paths:
        return
    replay = _Replay(paths, report)
    items = replay.items()
    while batch := await asyncio.to_thread(_take, items):
        await commit(database, batch, clock.now_ms(), on_poison)
    report.slots += 1
    report.segments += len(paths)
    await asyncio.to_thread(_remove, paths, replay.damaged)


def _take(items: Iterator[Item]) -> list[Item]:
    return list(islice(items, BATCH_ITEMS_MAX))


def _remove(paths: Sequence[Path], damaged: set[Path]) -> None:
    for path in paths:
        if path in damaged:
            path.rename(path.with_suffix(DAMAGED_SUFFIX))
        else:
            path.unlink()


class _Left:
    """A request without its end, as far as its lines tell."""

    __slots__ = ("attempts", "objects", "opening")

    def __init__(self) -> None:
        self.opening: Opening | None = None
        self.attempts: list[AttemptLine] = []
        self.objects: list[OwnedObject] = []


class _Replay:
    """Reads the segments of one slot, holding no more than what is open."""

    def __init__(self, paths: Sequence[Path], report: Recovered) -> None:
        self._paths = paths
        self._report = report
        self._left: dict[str, _Left] = {}
        self._closed: set[str] = set()
        self.damaged: set[Path] = set()

    def items(self) -> Iterator[Item]:
        """Objects and closed records as they come, then what was interrupted."""
        for path in self._paths:
            for line in read_lines(path.read_bytes()):
                if isinstance(line, Torn):
                    self._report.torn += 1
                elif isinstance(line, Damaged):
                    self.damaged.add(path)
                    self._report.damaged_lines += 1
                elif isinstance(line, CloseLine):
                    self._closed.add(line.record.request_id)
                    self._left.pop(line.record.request_id, None)
                    self._report.closed += 1
                    yield line.record
                else:
                    yield from self._opened(line)
        self._report.damaged += len(self.damaged)
        ended_at_ms = max((path.stat().st_mtime_ns for path in self._paths), default=0) // 1_000_000
        for left in self._left.values():
            if left.opening is not None:
                self._report.interrupted += 1
                yield interrupted_record(left.opening, left.attempts, left.objects, ended_at_ms)

    def _opened(self, line: OpenLine | AttemptLine | SeenLine) -> Iterator[OwnedObject]:
        if isinstance(line, OpenLine):
            request_id = line.opening.request_id
        elif isinstance(line, AttemptLine):
            request_id = line.request_id
        else:
            request_id = line.owned.request_id
            self._report.objects += 1
            yield line.owned
        # A line that had to wait for the disk may stand behind the end of its request.
        if request_id in self._closed:
            return
        left = self._left.setdefault(request_id, _Left())
        if isinstance(line, OpenLine):
            left.opening = line.opening
        elif isinstance(line, AttemptLine):
            left.attempts.append(line)
        else:
            left.objects.append(line.owned)


def interrupted_record(
    opening: Opening,
    further: Sequence[AttemptLine],
    objects: Sequence[OwnedObject],
    ended_at_ms: int,
) -> Record:
    """The record of a request whose process died: earlier attempts are known to be unbilled, for the last
    one nobody knows whether it was sent, so it costs what it can have cost at most.
    """
    numbered = {attempt.number: attempt for attempt in (opening.attempt, *(line.attempt for line in further))}
    attempts = [numbered[number] for number in sorted(numbered)]
    last = attempts[-1]
    voids = [
        Entry(
            attempt_id=attempt_id_of(opening.request_id, attempt.number),
            kind="void",
            upstream=attempt.upstream,
            model=attempt.model,
        )
        for attempt in attempts[:-1]
    ]
    # The first object of the kind that a create returns, else whatever was made.
    created = sorted(objects, key=lambda owned: owned.kind != "response")
    return Record(
        request_id=opening.request_id,
        admitted_at_ms=opening.admitted_at_ms,
        quarter_ms=opening.quarter_ms,
        ended_at_ms=max(ended_at_ms, opening.admitted_at_ms),
        team_id=opening.team_id,
        key_id=opening.key_id,
        secret_id=opening.secret_id,
        endpoint=opening.endpoint,
        stream=opening.stream,
        model_requested=opening.model_requested,
        upstream=last.upstream,
        model=last.model,
        outcome="interrupted",
        entries=(*voids, _estimate(opening, last)),
        attempts=last.number,
        response_id=created[0].object_id if created else None,
        end_user=opening.end_user,
        tags=opening.tags,
        error_code="gateway_crashed",
        cache=opening.cache,
        decision={**opening.decision, "sent": "unknown"},
    )


def _estimate(opening: Opening, attempt: Attempt) -> Entry:
    bound = attempt.bound
    return Entry(
        attempt_id=attempt_id_of(opening.request_id, attempt.number),
        kind="estimate",
        upstream=attempt.upstream,
        model=attempt.model,
        usage=Usage(input_tokens=bound.input_tokens_upper, output_tokens=bound.output_tokens_upper),
        cost_nanousd=bound.cost_upper_nanousd,
        cost_lower_nanousd=bound.cost_lower_nanousd,
        cost_upper_nanousd=bound.cost_upper_nanousd,
        price_source=bound.price_source,
        price_version=bound.price_version,
    )
