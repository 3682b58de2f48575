"""How limits are told to a client: ``x-ratelimit-*`` on every answer, and the error of a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

from app.core.errors import Headers, InsufficientQuota, RateLimited
from app.core.money import usd_text
from app.limits.limiter import Limit, Refusal, Standing

QUARTER_MS = 900_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TOLD_KINDS: tuple[Literal["requests", "tokens"], ...] = ("requests", "tokens")
_NAMES = {
    kind: tuple(f"x-ratelimit-{what}-{kind}".encode() for what in ("limit", "remaining", "reset"))
    for kind in TOLD_KINDS
}


def ratelimit_headers(standings: Sequence[Standing]) -> Headers:
    """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` of the tightest limit of each kind.

    The tightest has the least left; of two alike, the one that takes longer to recover.
    """
    headers: Headers = []
    for kind in TOLD_KINDS:
        tightest: Standing | None = None
        for standing in standings:
            limit = standing.limit
            if limit.kind != kind or limit.mode == "observe":
                # Clients that pace themselves would obey a limit that is only observed.
                continue
            if tightest is None or _is_tighter(standing, tightest):
                tightest = standing
        if tightest is None:
            continue
        limit_name, remaining_name, reset_name = _NAMES[kind]
        headers += [
            (limit_name, b"%d" % tightest.limit.maximum),
            (remaining_name, b"%d" % tightest.remaining),
            (reset_name, go_duration(tightest.reset_ms).encode()),
        ]
    return headers


def _is_tighter(one: Standing, other: Standing) -> bool:
    if one.remaining == other.remaining:
        return one.reset_ms > other.reset_ms
    return one.remaining < other.remaining


def refusal_error(refusal: Refusal, now_ms: int, jitter_ms: int = 0) -> RateLimited | InsufficientQuota:
    """The answer to a refused request; it names scope, limit, window and when to come back.

    ``jitter_ms`` is added to a wait for holds, whose end nobody knows.
    """
    limit = refusal.limit
    headers = ratelimit_headers(refusal.standings)
    if limit.kind == "money":
        return _budget_error(refusal, now_ms, jitter_ms, headers)
    if refusal.retry_after_ms is None:
        return InsufficientQuota(
            f"This request alone is larger than its limit: {_described(limit)}. It can never be admitted.",
            headers=headers,
        )
    # The oldest slot is only partly inside the window, so to make room can take a sixtieth more than that.
    wait_ms = refusal.retry_after_ms
    if limit.kind == "concurrency":
        advice = f"Try again when one has ended, or in {go_duration(wait_ms)}."
    else:
        advice = f"Try again in {go_duration(wait_ms)}, at {_moment(now_ms + refusal.retry_after_ms)}."
    return RateLimited(
        f"Rate limit reached: {_described(limit)}. {advice}",
        retry_after_ms=wait_ms,
        headers=headers,
    )


def _budget_error(refusal: Refusal, now_ms: int, jitter_ms: int, headers: Headers) -> RateLimited | InsufficientQuota:
    limit = refusal.limit
    left, reset_ms = 0, 0
    for standing in refusal.standings:
        if standing.limit is limit:
            left, reset_ms = standing.remaining, standing.reset_ms
    window = "in total" if limit.window == "total" else f"per {limit.window} ({limit.time_zone})"
    budget = f"{_owner(limit)} has a budget of ${usd_text(limit.maximum)} {window}"
    if refusal.is_held:
        wait_ms = min(max((refusal.retry_after_ms or 0) + jitter_ms, 1000), 5000)
        return RateLimited(
            f"Budget held: {budget}, of which ${usd_text(left)} is neither spent nor held for requests that are"
            f" running (budget_held). Try again in {go_duration(wait_ms)}, or lower max_output_tokens.",
            retry_after_ms=wait_ms,
            headers=headers,
        )
    until = "" if limit.window == "total" else f" until {_moment(_quarter(now_ms + reset_ms))}"
    return InsufficientQuota(
        f"Budget spent: {budget}; ${usd_text(left)} is left{until}, and this request can cost more ({limit.name}).",
        headers=headers,
    )


def _quarter(at_ms: int) -> int:
    """A window of the calendar ends on a quarter of an hour; by how much this clock differs from the store's, that
    decided, is not to be seen in it.
    """
    return (at_ms + QUARTER_MS // 2) // QUARTER_MS * QUARTER_MS


def _moment(at_ms: int) -> str:
    at = EPOCH + timedelta(milliseconds=at_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=4096)
def go_duration(milliseconds: int) -> str:
    """``milliseconds`` as Go prints a duration: ``0s``, ``4ms``, ``1.5s``, ``6m0s``, ``1h0m0.25s``."""
    if milliseconds <= 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest_ms = divmod(milliseconds, 60_000)
    seconds = f"{rest_ms // 1000}.{rest_ms % 1000:03d}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _described(limit: Limit) -> str:
    """``key key_1 may use 1000 tokens in any 1m0s (tokens_per_minute)``."""
    owner = _owner(limit)
    if limit.kind == "concurrency":
        return f"{owner} may have {limit.maximum} requests running at once ({limit.name})"
    verb = "use" if limit.kind == "tokens" else "make"
    window = go_duration(limit.window_ms)
    return f"{owner} may {verb} {limit.maximum} {limit.kind} in any {window} ({limit.name})"


def _owner(limit: Limit) -> str:
    """``key key_1``, ``tag project=search``, ``key model key_1/gpt-5*``."""
    return f"{limit.scope.replace('_', ' ')} {limit.scope_id}"
