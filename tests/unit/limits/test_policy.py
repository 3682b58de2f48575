from __future__ import annotations

import pytest

from app.core.identity import LimitSettings, Principal
from app.limits.limiter import MAXIMUM_MAX, Limit
from app.limits.policy import bind

NONE = LimitSettings()


def principal(key: LimitSettings = NONE, team: LimitSettings = NONE) -> Principal:
    return Principal("team_1", "search", "key_1", "ci", "secret_1", key, team)


def test_nothing_set_is_no_limit() -> None:
    assert bind(principal(), NONE, NONE) == ()


def test_the_limits_of_the_key_come_before_those_of_the_team() -> None:
    everything = LimitSettings(10, 2000, 3)
    assert bind(principal(everything, LimitSettings(100, None, 30)), NONE, NONE) == (
        Limit("key", "key_1", "requests_per_minute", "requests", 10, 60_000),
        Limit("key", "key_1", "tokens_per_minute", "tokens", 2000, 60_000),
        Limit("key", "key_1", "concurrency", "concurrency", 3, 0),
        Limit("team", "team_1", "requests_per_minute", "requests", 100, 60_000),
        Limit("team", "team_1", "concurrency", "concurrency", 30, 0),
    )


def test_what_is_set_overrides_the_default_one_by_one() -> None:
    bound = bind(
        principal(LimitSettings(requests_per_minute=900), LimitSettings(concurrency=0)),
        LimitSettings(requests_per_minute=60, tokens_per_minute=1000),
        LimitSettings(concurrency=5, tokens_per_minute=7),
    )
    assert [(limit.scope, limit.name, limit.maximum) for limit in bound] == [
        ("key", "requests_per_minute", 900),
        ("key", "tokens_per_minute", 1000),
        ("team", "tokens_per_minute", 7),
        ("team", "concurrency", 0),
    ]


def test_it_is_computed_once_for_a_principal_and_again_for_changed_defaults() -> None:
    one, changed = principal(LimitSettings(5)), principal(LimitSettings(6))
    assert bind(one, NONE, NONE) is bind(one, LimitSettings(), LimitSettings())
    assert bind(changed, NONE, NONE)[0].maximum == 6
    assert len(bind(one, NONE, LimitSettings(concurrency=1))) == 2


def test_a_maximum_beyond_what_can_be_counted_is_lowered() -> None:
    assert bind(principal(LimitSettings(tokens_per_minute=10**30)), NONE, NONE)[0].maximum == MAXIMUM_MAX


def test_a_negative_maximum_is_a_mistake_of_whoever_set_it() -> None:
    with pytest.raises(ValueError, match="negative"):
        bind(principal(LimitSettings(requests_per_minute=-1)), NONE, NONE)
