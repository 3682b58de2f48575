"""What a dead process left in its journal, brought into SQL: at a start before anything new is taken, later
whenever a worker has died.

A closed record goes in as it is. A request that was opened and not closed may have been sent: it is
billed at its bound, as an ``estimate`` that says so. All of it may be done again, whole or in part: what
is in SQL already is left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from app.core.records import Attempt, Entry, Opening, OwnedObject, Record, attempt_id_of
from app.core.usage import Usage
from app.ledger.commit import Hooks, Item, commit
from app.ledger.lines import AttemptLine, CloseLine, Damaged, OpenLine, SeenLine, Torn, read_lines
from app.ledger.slots import DAMAGED_SUFFIX, take_dead_slots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from app.core.clock import Clock
    from app.ledger.commit import AfterWrite, BeforeWrite, OnPoison
    from app.ledger.slots import Slot
    from app.store.database import Database

OnDead: TypeAlias = Callable[[str, int], None]

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
    on_poison: OnPoison = lambda _request_id, _reason: None,
    before_write: BeforeWrite = lambda: None,
    on_written: AfterWrite = lambda _records, _written, _token: None,
    on_dead: OnDead = lambda _process_id, _slot: None,
) -> Recovered:
    """Replays the journals of this slot and of every dead one, and removes them once they are committed.

    To be called after the slot was taken and before its journal is opened. Raises DatabaseUnavailable:
    then nothing was removed, and it may be called again. ``before_write`` and ``on_written`` are told of
    every transaction, as the writer's ``Hooks`` are; ``on_dead(process_id, slot's number)`` of each process
    whose journal is in SQL now.
    """
    report = Recovered()
    hooks = _counting(report, Hooks(before_write, on_written, on_poison))
    await _recover_slot(own, database, clock, report, hooks, on_dead)
    await _recover_dead(root, database, clock, report, hooks, on_dead)
    return report


async def recover_dead(
    root: Path,
    database: Database,
    clock: Clock,
    *,
    on_poison: OnPoison = lambda _request_id, _reason: None,
    before_write: BeforeWrite = lambda: None,
    on_written: AfterWrite = lambda _records, _written, _token: None,
    on_dead: OnDead = lambda _process_id, _slot: None,
) -> Recovered:
    """Replays the journals of workers that have died since. Raises DatabaseUnavailable, as above."""
    report = Recovered()
    hooks = _counting(report, Hooks(before_write, on_written, on_poison))
    await _recover_dead(root, database, clock, report, hooks, on_dead)
    return report


def _counting(report: Recovered, hooks: Hooks) -> Hooks:
    def count_poison(request_id: str, reason: str) -> None:
        report.poisoned += 1
        hooks.on_poison(request_id, reason)

    return Hooks(hooks.before_write, hooks.after_write, count_poison)


async def _recover_dead(
    root: Path,
    database: Database,
    clock: Clock,
    report: Recovered,
    hooks: Hooks,
    on_dead: OnDead,
) -> None:
    dead = await asyncio.to_thread(take_dead_slots, root)
    try:
        for slot in dead:
            await _recover_slot(slot, database, clock, report, hooks, on_dead)
    finally:
        for slot in dead:
            slot.release()


async def _recover_slot(
    slot: Slot,
    database: Database,
    clock: Clock,
    report: Recovered,
    hooks: Hooks,
    on_dead: OnDead,
) -> None:
    paths = await asyncio.to_thread(slot.segments)
    if not paths:
        _tell_dead(slot, on_dead)
        return
    replay = _Replay(paths, report)
    items = replay.items()
    while batch := await asyncio.to_thread(_take, items):
        await commit(database, batch, clock.now_ms(), hooks)
    report.slots += 1
    report.segments += len(paths)
    await asyncio.to_thread(_remove, paths, replay.damaged)
    _tell_dead(slot, on_dead)


def _tell_dead(slot: Slot, on_dead: OnDead) -> None:
    for process_id in slot.processes():
        on_dead(process_id, slot.number)


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
    *,
    lower_nanousd: int | None = None,
    seen_output_tokens: int = 0,
    error_code: str = "gateway_crashed",
) -> Record:
    """The record of a request whose process died: earlier attempts are known to be unbilled, for the last
    one nobody knows whether it was sent, so it costs what it can have cost at most.

    ``lower_nanousd`` and ``seen_output_tokens`` are what the process told of it last: it is at least that.
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
        entries=(*voids, _estimate(opening, last, lower_nanousd, seen_output_tokens)),
        attempts=last.number,
        response_id=created[0].object_id if created else None,
        end_user=opening.end_user,
        tags=opening.tags,
        error_code=error_code,
        cache=opening.cache,
        budgets=opening.budgets,
        awaited=opening.background and bool(created),
        decision={**opening.decision, "sent": "yes" if seen_output_tokens else "unknown"},
    )


def _estimate(opening: Opening, attempt: Attempt, lower_nanousd: int | None, seen_output_tokens: int) -> Entry:
    bound = attempt.bound
    upper = bound.cost_upper_nanousd
    lower = bound.cost_lower_nanousd
    if lower_nanousd is not None and upper is not None:
        # A bound that was only what is likely may be lower than what was seen.
        lower = max(lower or 0, lower_nanousd)
        upper = max(upper, lower)
    return Entry(
        attempt_id=attempt_id_of(opening.request_id, attempt.number),
        kind="estimate",
        upstream=attempt.upstream,
        model=attempt.model,
        usage=bound.usage_upper.at_least(Usage(output_tokens=seen_output_tokens)),
        cost_nanousd=upper,
        cost_lower_nanousd=lower,
        cost_upper_nanousd=upper,
        price_source=bound.price_source,
        price_version=bound.price_version,
        service_tier=bound.service_tier,
    )
