"""How long requests took, by the quarter of an hour, team and upstream: counts in buckets of powers of a root of two.

A bucket is 2^(1/4) wide, 19 %, and inside of it times are taken as evenly spread: a percentile is told within a few
hundredths of what it was. A request that waited for nobody
upstream (a hit, one that failed before it was sent) has no time of its own here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import msgspec
from sqlalchemy import cast, func, literal, select

from app.store import tables
from app.store.tables import INT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.core.records import Record
    from app.store.steps import Values

Measure: TypeAlias = Literal["first_byte", "overhead"]
Row: TypeAlias = "tuple[int, str, Measure, int, int]"
"""The first millisecond of a step, an upstream, what was measured, the bucket, and how many requests."""
P = TypeVar("P", int, str)

BUCKETS_PER_DOUBLING = 4


class Timing(msgspec.Struct, frozen=True):
    """Percentiles are in milliseconds, None where nothing was measured. ``first_byte`` is from a request's arrival to
    the first byte of its answer, ``overhead`` the gateway's own part of it.
    """

    first_byte_requests: int
    first_byte_p50_ms: float | None
    first_byte_p95_ms: float | None
    overhead_requests: int
    overhead_p50_ms: float | None
    overhead_p95_ms: float | None


class Timings:
    """What was measured, in steps of time and by upstream: read once, told in any sum."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = list(rows)

    def __repr__(self) -> str:
        return f"Timings(rows={len(self._rows)})"

    def whole(self) -> Timing:
        """Of everything."""
        return _timing(self._rows)

    def by_step(self) -> dict[int, Timing]:
        """By the first millisecond of a step; those without any are not there."""
        return self._by(lambda row: row[0])

    def by_upstream(self) -> dict[str, Timing]:
        """By the name of an upstream."""
        return self._by(lambda row: row[1])

    def _by(self, part: Callable[[Row], P]) -> dict[P, Timing]:
        parts: dict[P, list[Row]] = defaultdict(list)
        for row in self._rows:
            parts[part(row)].append(row)
        return {each: _timing(rows) for each, rows in sorted(parts.items())}


def bucket_of(us: int) -> int:
    """The bucket of a time in microseconds."""
    return math.floor(math.log2(us) * BUCKETS_PER_DOUBLING) if us > 1 else 0


def timing_rows(records: Iterable[Record]) -> list[Values]:
    """What new records add to ``timings``, in the order of its key."""
    counts: dict[tuple[int, str, str, str, int], int] = defaultdict(int)
    for record in records:
        if record.cache in {"hit", "joined"}:
            continue
        place = (record.quarter_ms, record.team_id, record.upstream)
        if record.first_byte_at_ms is not None:
            took_us = max(record.first_byte_at_ms - record.admitted_at_ms, 0) * 1000
            counts[*place, "first_byte", bucket_of(took_us)] += 1
        if record.own_us is not None:
            counts[*place, "overhead", bucket_of(record.own_us)] += 1
    return [(*key, counts[key]) for key in sorted(counts)]


async def timings(
    connection: AsyncConnection, start_ms: int, end_ms: int, *, step_ms: int, only_team_ids: Sequence[str] = ()
) -> Timings:
    """Timings of requests admitted from ``start_ms`` up to, not including, ``end_ms``, in steps of ``step_ms`` from
    ``start_ms`` on (all three whole quarters of an hour).
    """
    there = tables.timings.c
    step = literal(step_ms, INT, literal_execute=True)
    start = literal(start_ms, INT, literal_execute=True)
    at_ms = cast(there.quarter_ms - (there.quarter_ms - start) % step, INT)
    groups = [at_ms, there.upstream, there.measure, there.bucket]
    asked = (
        select(*groups, cast(func.sum(there.requests), INT))
        .where(there.quarter_ms >= start_ms, there.quarter_ms < end_ms)
        .group_by(*groups)
    )
    if only_team_ids:
        asked = asked.where(there.team_id.in_(only_team_ids))
    return Timings(tuple(row) for row in await connection.execute(asked))


def _timing(rows: Iterable[Row]) -> Timing:
    first_byte: dict[int, int] = defaultdict(int)
    overhead: dict[int, int] = defaultdict(int)
    for _, _, measure, bucket, requests in rows:
        (first_byte if measure == "first_byte" else overhead)[bucket] += requests
    return Timing(
        first_byte_requests=sum(first_byte.values()),
        first_byte_p50_ms=percentile_ms(first_byte, 0.5),
        first_byte_p95_ms=percentile_ms(first_byte, 0.95),
        overhead_requests=sum(overhead.values()),
        overhead_p50_ms=percentile_ms(overhead, 0.5),
        overhead_p95_ms=percentile_ms(overhead, 0.95),
    )


def percentile_ms(buckets: dict[int, int], share: float) -> float | None:
    """The time below which ``share`` of them were. None where there are none."""
    rank = sum(buckets.values()) * share
    seen = 0
    for bucket in sorted(buckets):
        if seen + buckets[bucket] >= rank:
            inside = (rank - seen) / buckets[bucket]
            took_us: float = 2 ** ((bucket + inside) / BUCKETS_PER_DOUBLING)
            return round(took_us / 1000, 3)
        seen += buckets[bucket]
    return None
