"""What all of a world's gateways share."""

from __future__ import annotations

from app.core.identity import LimitWindow
from app.limits.limiter import Limit

LIMIT_NANOUSD = 1000
TEAMS = ("red", "blue")
CONCURRENCY = 6
MIDNIGHT_MS = 1_700_006_400_000
"""A midnight of UTC, from which moments are told."""

WINDOW_MS = 3_000
REQUESTS = 14


def limits_of(team: str, window: LimitWindow, *, counts_requests: bool) -> tuple[Limit, ...]:
    """A budget, a concurrency, and in some worlds a window of requests: shorter than real ones, to be full often."""
    limits = [
        Limit(
            scope="team",
            scope_id=team,
            name="budget_usd",
            kind="money",
            maximum=LIMIT_NANOUSD,
            counter=f"{team}-budget",
            window=window,
        ),
        Limit(
            scope="team",
            scope_id=team,
            name="concurrency",
            kind="concurrency",
            maximum=CONCURRENCY,
            counter="concurrency",
        ),
    ]
    if counts_requests:
        limits.append(
            Limit(
                scope="team",
                scope_id=team,
                name="requests",
                kind="requests",
                maximum=REQUESTS,
                counter="requests",
                window_ms=WINDOW_MS,
            )
        )
    return tuple(limits)
