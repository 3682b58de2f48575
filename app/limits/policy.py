"""Which limits bind a request."""

from __future__ import annotations

from functools import lru_cache

from app.core.identity import LimitSettings, Principal
from app.limits.limiter import MAXIMUM_MAX, Limit, Scope

MINUTE_MS = 60_000
PRINCIPALS_MAX = 8192


@lru_cache(maxsize=PRINCIPALS_MAX)
def bind(principal: Principal, default_key: LimitSettings, default_team: LimitSettings) -> tuple[Limit, ...]:
    """The limits of ``principal``'s key, then of its team; a value set there goes before the default.

    Kept per principal: one is compared by identity, and a changed key or team makes a new one.
    """
    return (
        *_limits("key", principal.key_id, principal.key_limits, default_key),
        *_limits("team", principal.team_id, principal.team_limits, default_team),
    )


def _limits(scope: Scope, scope_id: str, own: LimitSettings, default: LimitSettings) -> list[Limit]:
    limits: list[Limit] = []
    requests = _first_set(own.requests_per_minute, default.requests_per_minute)
    if requests is not None:
        limits.append(Limit(scope, scope_id, "requests_per_minute", "requests", requests, MINUTE_MS))
    tokens = _first_set(own.tokens_per_minute, default.tokens_per_minute)
    if tokens is not None:
        limits.append(Limit(scope, scope_id, "tokens_per_minute", "tokens", tokens, MINUTE_MS))
    concurrency = _first_set(own.concurrency, default.concurrency)
    if concurrency is not None:
        limits.append(Limit(scope, scope_id, "concurrency", "concurrency", concurrency))
    return limits


def _first_set(own: int | None, default: int | None) -> int | None:
    maximum = default if own is None else own
    return None if maximum is None else min(maximum, MAXIMUM_MAX)
