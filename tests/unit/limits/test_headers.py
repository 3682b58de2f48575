from __future__ import annotations

import pytest

from app.core.errors import InsufficientQuota, RateLimited, render
from app.core.identity import LimitKind
from app.limits.headers import go_duration, ratelimit_headers, refusal_error
from app.limits.limiter import Limit, Refusal, Scope, Standing


def limit(scope: Scope, scope_id: str, name: str, kind: LimitKind, maximum: int, window_ms: int = 0) -> Limit:
    return Limit(
        scope=scope, scope_id=scope_id, name=name, kind=kind, maximum=maximum, counter=name, window_ms=window_ms
    )


REQUESTS = limit("key", "key_1", "requests_per_minute", "requests", 60, 60_000)
TEAM_REQUESTS = limit("team", "team_1", "requests_per_minute", "requests", 600, 60_000)
TOKENS = limit("key", "key_1", "tokens_per_minute", "tokens", 1000, 60_000)
RUNNING = limit("team", "team_1", "concurrency", "concurrency", 3)
BUDGET = Limit(
    scope="key_model",
    scope_id="key_1/gpt-5*",
    name="budget_usd_per_month",
    kind="money",
    maximum=5_000_000_000,
    counter="rule_1",
    window="month",
    time_zone="Europe/Berlin",
)
NOW_MS = 1_800_000_000_000  # 2027-01-15T08:00:00Z


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (4, "4ms"),
        (999, "999ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (1050, "1.05s"),
        (1001, "1.001s"),
        (10_000, "10s"),
        (59_999, "59.999s"),
        (60_000, "1m0s"),
        (61_500, "1m1.5s"),
        (360_000, "6m0s"),
        (3_600_000, "1h0m0s"),
        (3_600_250, "1h0m0.25s"),
        (90_061_000, "25h1m1s"),
    ],
)
def test_durations_are_printed_as_go_does(milliseconds: int, text: str) -> None:
    assert go_duration(milliseconds) == text


def test_no_limits_no_headers() -> None:
    assert ratelimit_headers(()) == []
    assert ratelimit_headers([Standing(RUNNING, 2, 1000)]) == []


def test_the_tightest_limit_of_each_kind_is_told() -> None:
    standings = (
        Standing(REQUESTS, 40, 3000),
        Standing(TOKENS, 900, 60_500),
        Standing(TEAM_REQUESTS, 7, 360_000),
        Standing(RUNNING, 0, 1000),
    )
    assert dict(ratelimit_headers(standings)) == {
        b"x-ratelimit-limit-requests": b"600",
        b"x-ratelimit-remaining-requests": b"7",
        b"x-ratelimit-reset-requests": b"6m0s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"900",
        b"x-ratelimit-reset-tokens": b"1m0.5s",
    }


def test_of_two_that_are_as_tight_the_slower_one_is_told() -> None:
    standings = iter((Standing(REQUESTS, 5, 100), Standing(TEAM_REQUESTS, 5, 200)))
    assert dict(ratelimit_headers(standings))[b"x-ratelimit-reset-requests"] == b"200ms"


def test_a_refusal_names_scope_limit_window_and_reset() -> None:
    error = refusal_error(Refusal(TOKENS, 1200, (Standing(REQUESTS, 5, 100), Standing(TOKENS, 0, 900))), NOW_MS)
    assert type(error) is RateLimited
    assert error.message == (
        "Rate limit reached: key key_1 may use 1000 tokens in any 1m0s (tokens_per_minute). "
        "Try again in 1.2s, at 2027-01-15T08:00:01.200Z."
    )
    status, headers, _ = render(error, "request_1")
    told = dict(headers)
    assert status == 429
    assert told[b"retry-after"] == b"2"
    assert told[b"retry-after-ms"] == b"1200"
    assert told[b"x-ratelimit-remaining-tokens"] == b"0"
    assert told[b"x-ratelimit-remaining-requests"] == b"5"
    assert b"x-should-retry" not in told


def test_a_refusal_of_requests() -> None:
    error = refusal_error(Refusal(TEAM_REQUESTS, 60_000, ()), NOW_MS)
    assert error.message == (
        "Rate limit reached: team team_1 may make 600 requests in any 1m0s (requests_per_minute). "
        "Try again in 1m0s, at 2027-01-15T08:01:00.000Z."
    )


def test_a_refusal_for_concurrency_promises_no_time() -> None:
    error = refusal_error(Refusal(RUNNING, 1000, (Standing(RUNNING, 0, 1000),)), NOW_MS)
    assert type(error) is RateLimited
    assert error.message == (
        "Rate limit reached: team team_1 may have 3 requests running at once (concurrency). "
        "Try again when one has ended, or in 1s."
    )
    assert error.retry_after_ms == 1000


def test_a_request_larger_than_the_limit_is_never_worth_a_retry() -> None:
    error = refusal_error(Refusal(TOKENS, None, (Standing(TOKENS, 1000, 0),)), NOW_MS)
    assert type(error) is InsufficientQuota
    assert error.message == (
        "This request alone is larger than its limit: "
        "key key_1 may use 1000 tokens in any 1m0s (tokens_per_minute). It can never be admitted."
    )
    _, headers, body = render(error, "request_1")
    told = dict(headers)
    assert told[b"x-should-retry"] == b"false"
    assert b"retry-after" not in told
    assert b"retry-after-ms" not in told
    assert b'"insufficient_quota"' in body


def test_a_spent_budget_says_whose_how_much_and_until_when() -> None:
    standing = Standing(BUDGET, 12_500_000, 3_600_000)
    error = refusal_error(Refusal(BUDGET, None, (standing,)), NOW_MS)
    status, headers, _ = render(error, "request_1")
    assert (status, error.code) == (429, "insufficient_quota")
    assert (b"x-should-retry", b"false") in headers
    assert b"retry-after" not in dict(headers)
    assert error.message == (
        "Budget spent: key model key_1/gpt-5* has a budget of $5 per month (Europe/Berlin); $0.0125 is left"
        " until 2027-01-15T09:00:00.000Z, and this request can cost more (budget_usd_per_month)."
    )


@pytest.mark.parametrize("skew_ms", [-30_000, -1, 1, 30_000])
def test_the_end_of_a_budgets_window_is_told_whatever_this_clock_says(skew_ms: int) -> None:
    error = refusal_error(Refusal(BUDGET, None, (Standing(BUDGET, 0, 3_600_000),)), NOW_MS + skew_ms)
    assert "left until 2027-01-15T09:00:00.000Z," in error.message


@pytest.mark.parametrize(("jitter_ms", "seconds"), [(-9000, 1), (0, 2), (3000, 5), (60_000, 5)])
def test_a_budget_that_is_only_held_is_worth_a_short_wait(jitter_ms: int, seconds: int) -> None:
    standing = Standing(BUDGET, 0, 3_600_000)
    error = refusal_error(Refusal(BUDGET, 2000, (standing,), is_held=True), NOW_MS, jitter_ms)
    _, headers, _ = render(error, "request_1")
    assert error.code == "rate_limit_exceeded"
    assert "budget_held" in error.message
    assert dict(headers)[b"retry-after"] == str(seconds).encode()
