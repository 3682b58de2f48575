"""How long requests took, by the quarter of an hour, team and upstream: counts in buckets of powers of a root of two.

A bucket is 2^(1/4) wide, 19 %, and inside of it times are taken as evenly spread: a percentile is told within a few
hundredths of what it was. A request that waited for nobody
upstream (a hit, one that failed before it was sent) has no time of its own here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
from sqlalchemy import cast, func, literal, select

from app.store import tables
from app.store.tables import INT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.core.records import Record
    from app.store.steps import Values

Measure: TypeAlias = Literal["first_byte", "overhead"]

BUCKETS_PER_DOUBLING = 4


class Timing(msgspec.Struct, frozen=True):
    """Of one step of time (``start_ms``), and of one upstream where it was asked by upstream. Percentiles are in
    milliseconds, None where nothing was measured. ``first_byte`` is from a request's arrival to the first byte of
    its answer, ``overhead`` the gateway's own part of it.
    """

    start_ms: int
    upstream: str | None
    first_byte_requests: int
    first_byte_p50_ms: float | None
    first_byte_p95_ms: float | None
    overhead_requests: int
    overhead_p50_ms: float | None
    overhead_p95_ms: float | None


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
    connection: AsyncConnection,
    start_ms: int,
    end_ms: int,
    *,
    step_ms: int,
    only_team_ids: Sequence[str] = (),
    by: Literal["none", "upstream"] = "none",
) -> list[Timing]:
    """Timings of requests admitted from ``start_ms`` up to, not including, ``end_ms``, in steps of ``step_ms`` from
    ``start_ms`` on (all three whole quarters of an hour), by step and upstream. A step without any is not there.
    """
    there = tables.timings.c
    step = literal(step_ms, INT, literal_execute=True)
    start = literal(start_ms, INT, literal_execute=True)
    number = cast((there.quarter_ms - start - (there.quarter_ms - start) % step) / step, INT)
    upstreams = [there.upstream] if by == "upstream" else []
    groups = [number, *upstreams, there.measure, there.bucket]
    asked = (
        select(*groups, cast(func.sum(there.requests), INT))
        .where(there.quarter_ms >= start_ms, there.quarter_ms < end_ms)
        .group_by(*groups)
    )
    if only_team_ids:
        asked = asked.where(there.team_id.in_(only_team_ids))
    found: dict[tuple[int, str | None], dict[str, dict[int, int]]] = {}
    for row in await connection.execute(asked):
        place = (row[0], row[1] if upstreams else None)
        measures = found.setdefault(place, {"first_byte": {}, "overhead": {}})
        measures[row[-3]][row[-2]] = row[-1]
    return [
        _timing(start_ms + place[0] * step_ms, place[1], found[place])
        for place in sorted(found, key=lambda place: (place[0], place[1] or ""))
    ]


def _timing(start_ms: int, upstream: str | None, measures: dict[str, dict[int, int]]) -> Timing:
    first_byte, overhead = measures["first_byte"], measures["overhead"]
    return Timing(
        start_ms=start_ms,
        upstream=upstream,
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
