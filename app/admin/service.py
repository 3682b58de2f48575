"""How the service does: what failed, how long the first byte takes, how long we do, and who of the upstreams is well.

An upstream is ``paused`` where an administrator has it so, ``down`` where the last try to connect failed, ``degraded``
where 3 % or more of at least 20 requests failed in the last quarter of an hour and what runs of the next, ``off`` where
it has no key. Whether it can be reached is what this process has seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.forecast import share_percent
from app.admin.wire import InForce
from app.core.clock import QUARTER_MS, quarter_of
from app.settings import UpstreamSettings
from app.store.explanations import iso_time
from app.store.pauses import Pause, list_pauses
from app.store.timings import Timing, timings
from app.store.usage import UsageFilter, usage

HOUR_MS = 3_600_000
HOURS = 24
HOURS_MAX = 168
DEGRADED_PERCENT = 3.0
DEGRADED_REQUESTS = 20
EVERYBODY = UsageFilter()
LOOKED_BACK_QUARTERS = 16
"""How far back the beginning of a bad time is looked for."""

State: TypeAlias = Literal["healthy", "degraded", "down", "paused", "off"]


class Health(msgspec.Struct, frozen=True):
    """How an upstream is. ``since_ms`` is when it ceased to be well or was paused, None where it is well or that is not
    known; ``recent_percent`` is what failed in the last quarter of an hour.
    """

    state: State
    since_ms: int | None
    recent_percent: float | None
    pause: Pause | None = None


class Counts(msgspec.Struct):
    requests: int = 0
    failed: int = 0

    def add(self, requests: int, failed: int) -> None:
        self.requests += requests
        self.failed += failed

    @property
    def is_bad(self) -> bool:
        return self.requests >= DEGRADED_REQUESTS and 100 * self.failed >= DEGRADED_PERCENT * self.requests


class Hours(msgspec.Struct, frozen=True):
    """Whole hours of UTC, the last of which runs."""

    start_ms: int
    end_ms: int
    count: int

    @classmethod
    def until(cls, now_ms: int, count: int) -> Hours:
        last_ms = now_ms - now_ms % HOUR_MS
        return cls(last_ms - (count - 1) * HOUR_MS, last_ms + HOUR_MS, count)

    def starts(self) -> range:
        return range(self.start_ms, self.end_ms, HOUR_MS)


async def health_of(connection: AsyncConnection, in_force: InForce, now_ms: int) -> dict[str, Health]:
    """Of every upstream of the configuration, by name."""
    recent = await _recent(connection, quarter_of(now_ms) - QUARTER_MS, quarter_of(now_ms) + QUARTER_MS)
    paused = {pause.upstream: pause for pause in await list_pauses(connection)}
    found = {}
    for name in in_force.configuration.upstreams:
        counts = recent.get(name, Counts())
        pool = in_force.pools.get(name)
        percent = share_percent(counts.failed, counts.requests)
        if pool is None:
            found[name] = Health("off", None, percent)
        elif (pause := paused.get(name)) is not None:
            found[name] = Health("paused", pause.at_ms, percent, pause)
        elif not pool.reachable:
            found[name] = Health("down", pool.unreachable_since_ms, percent)
        elif counts.is_bad:
            found[name] = Health("degraded", await _bad_since(connection, name, now_ms), percent)
        else:
            found[name] = Health("healthy", None, percent)
    return found


async def _recent(
    connection: AsyncConnection, start_ms: int, end_ms: int, only: UsageFilter = EVERYBODY
) -> dict[str, Counts]:
    report = await usage(connection, ("upstream",), start_ms, end_ms, only=only)
    return {row.group["upstream"]: Counts(row.requests, row.failed) for row in report.rows}


async def _bad_since(connection: AsyncConnection, name: str, now_ms: int) -> int:
    """The first quarter of those, one after the other up to now, of which each was bad; the one that runs may have few
    requests, and the one before it counts where any failed in it.
    """
    since_ms = quarter_of(now_ms)
    only = UsageFilter(upstreams=(name,))
    if not (await _recent(connection, since_ms - QUARTER_MS, since_ms, only)).get(name, Counts()).failed:
        return since_ms
    since_ms -= QUARTER_MS
    for _ in range(LOOKED_BACK_QUARTERS):
        found = await _recent(connection, since_ms - QUARTER_MS, since_ms, only)
        if not found.get(name, Counts()).is_bad:
            break
        since_ms -= QUARTER_MS
    return since_ms


# -- the service ------------------------------------------------------------------------------


async def service_data(
    connection: AsyncConnection, in_force: InForce, now_ms: int, *, hours: int = HOURS, team_ids: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Over the last ``hours``, of all teams or of these: then only the upstreams that they used."""
    span = Hours.until(now_ms, hours)
    by_upstream = await _hourly(connection, span, team_ids)
    total: dict[int, Counts] = defaultdict(Counts)
    for steps in by_upstream.values():
        for at_ms, counts in steps.items():
            total[at_ms].add(counts.requests, counts.failed)
    timed = await timings(connection, span.start_ms, span.end_ms, step_ms=HOUR_MS, only_team_ids=team_ids)
    whole, upstreams = timed.whole(), timed.by_upstream()
    health = await health_of(connection, in_force, now_ms)
    shown = [name for name in health if not team_ids or name in by_upstream]
    return {
        "failed_percent": _failed_percent(total),
        "first_byte_p95_ms": whole.first_byte_p95_ms,
        "overhead_p95_ms": whole.overhead_p95_ms,
        "series": _series(span, total, timed.by_step()),
        "upstreams": [
            {
                "name": name,
                "state": health[name].state,
                "since": iso_time(health[name].since_ms),
                "failed_percent": _failed_percent(by_upstream.get(name, {})),
                "first_byte_p95_ms": upstreams[name].first_byte_p95_ms if name in upstreams else None,
                "series": _series(span, by_upstream.get(name, {}), {}),
            }
            for name in shown
        ],
    }


async def _hourly(connection: AsyncConnection, span: Hours, team_ids: tuple[str, ...]) -> dict[str, dict[int, Counts]]:
    only = UsageFilter(team_ids=team_ids)
    report = await usage(connection, ("upstream", "hour"), span.start_ms, span.end_ms, only=only)
    found: dict[str, dict[int, Counts]] = defaultdict(dict)
    for row in report.rows:
        at_ms = round(datetime.fromisoformat(row.group["hour"]).timestamp() * 1000)
        found[row.group["upstream"]][at_ms] = Counts(row.requests, row.failed)
    return found


def _failed_percent(steps: Mapping[int, Counts]) -> float | None:
    return share_percent(sum(each.failed for each in steps.values()), sum(each.requests for each in steps.values()))


def _series(span: Hours, counts: Mapping[int, Counts], timed: Mapping[int, Timing]) -> list[dict[str, Any]]:
    """One for each hour, oldest first; those without requests too."""
    series = []
    for at_ms in span.starts():
        each, timing = counts.get(at_ms, Counts()), timed.get(at_ms)
        series.append(
            {
                "at": iso_time(at_ms),
                "requests": each.requests,
                "failed_percent": share_percent(each.failed, each.requests),
                "first_byte_p95_ms": None if timing is None else timing.first_byte_p95_ms,
                "overhead_p95_ms": None if timing is None else timing.overhead_p95_ms,
            }
        )
    return series


# -- upstreams --------------------------------------------------------------------------------


async def upstreams_data(connection: AsyncConnection, in_force: InForce, now_ms: int) -> list[dict[str, Any]]:
    """Every upstream of the configuration, in its order, with its last day."""
    span = Hours.until(now_ms, HOURS)
    hourly = await _hourly(connection, span, ())
    timed = (await timings(connection, span.start_ms, span.end_ms, step_ms=span.count * HOUR_MS)).by_upstream()
    health = await health_of(connection, in_force, now_ms)
    found = []
    for name, settings in in_force.configuration.upstreams.items():
        pool = in_force.pools.get(name)
        hours = hourly.get(name, {})
        found.append(
            {
                "name": name,
                "kind": settings.kind,
                "host": host_of(settings),
                "state": health[name].state,
                "since": iso_time(health[name].since_ms),
                "paused": paused_data(health[name].pause),
                "circuit": "closed" if pool is None else pool.breaker.state,
                "resting": pool is not None and pool.breaker.rests,
                "in_flight": 0 if pool is None else pool.in_flight,
                "failed_percent": _failed_percent(hours),
                "recent_failed_percent": health[name].recent_percent,
                "first_byte_p95_ms": timed[name].first_byte_p95_ms if name in timed else None,
                "hours": [
                    {"requests": each.requests, "failed": each.failed}
                    for each in (hours.get(at_ms, Counts()) for at_ms in span.starts())
                ],
                "models": models_of(in_force, name),
            }
        )
    return found


def paused_data(pause: Pause | None) -> dict[str, Any] | None:
    return None if pause is None else {"since": iso_time(pause.at_ms), "by": pause.actor_name}


def host_of(settings: UpstreamSettings) -> str:
    """Where it is, without a path; the built-in one is in this process."""
    return "built in" if settings.base_url is None else urlsplit(settings.base_url).netloc


def models_of(in_force: InForce, name: str) -> list[str]:
    """The names and patterns of the configuration that lead there, in its order."""
    rules = in_force.configuration.models
    return [
        rule.name or rule.match or "" for rule in rules if any(target.upstream == name for target in rule.all_targets)
    ]
