"""Which limits bind a request, where each is counted, and that it costs nothing where nothing is narrow."""

from __future__ import annotations

import timeit

import pytest

from app.core.identity import LimitRule, Principal
from app.limits.limiter import MAXIMUM_MAX, Limit
from app.limits.policy import OTHER_VALUES, TAG_VALUES_PER_TEAM_MAX, Policy, upstream_limits
from app.settings import LimitValues, UpstreamLimits

NO_TAGS: dict[str, str] = {}


def principal(
    key: tuple[LimitRule, ...] = (), team: tuple[LimitRule, ...] = (), key_id: str = "key_1", team_id: str = "team_1"
) -> Principal:
    return Principal(team_id, "search", key_id, "ci", "secret_1", key, team)


def rule(kind="requests", maximum=1, window="minute", rule_id="r1", **more) -> LimitRule:
    return LimitRule(rule_id, kind, maximum, window, **more)


def told(limits: tuple[Limit, ...]):
    return [(limit.scope, limit.scope_id, limit.name, limit.maximum, limit.counter) for limit in limits]


def test_nothing_set_is_no_limit() -> None:
    assert Policy().bind(principal(), "gpt-4o", NO_TAGS) == ()


def test_the_limits_of_the_key_come_before_those_of_the_team() -> None:
    who = principal(
        (rule(maximum=10), rule("tokens", 2000, "hour", "r2"), rule("concurrency", 3, "", "r3")),
        (rule("requests", 100, "day", "r4"), rule("money", 5, "month", "r5", time_zone="Asia/Tokyo", bound="estimate")),
    )
    assert Policy().bind(who, "gpt-4o", NO_TAGS) == (
        Limit(
            scope="key",
            scope_id="key_1",
            name="requests_per_minute",
            kind="requests",
            maximum=10,
            counter="r1",
            window_ms=60_000,
            window="minute",
        ),
        Limit(
            scope="key",
            scope_id="key_1",
            name="tokens_per_hour",
            kind="tokens",
            maximum=2000,
            counter="r2",
            window_ms=3_600_000,
            window="hour",
        ),
        Limit(scope="key", scope_id="key_1", name="concurrency", kind="concurrency", maximum=3, counter="r3"),
        Limit(
            scope="team",
            scope_id="team_1",
            name="requests_per_day",
            kind="requests",
            maximum=100,
            counter="r4",
            window_ms=86_400_000,
            window="day",
        ),
        Limit(
            scope="team",
            scope_id="team_1",
            name="budget_usd_per_month",
            kind="money",
            maximum=5,
            counter="r5",
            window="month",
            time_zone="Asia/Tokyo",
            bound="estimate",
        ),
    )


def test_what_is_set_overrides_the_default_of_its_kind_and_window() -> None:
    policy = Policy(
        LimitValues(requests_per_minute=60, tokens_per_minute=1000, budget_usd=5, budget_window="day").rules("key"),
        LimitValues(concurrency=5, tokens_per_minute=7).rules("team"),
    )
    who = principal((rule(maximum=900), rule("money", 8, "month", "r2")), (rule("concurrency", 0, "", "r3"),))
    assert told(policy.bind(who, "m", NO_TAGS)) == [
        ("key", "key_1", "requests_per_minute", 900, "r1"),
        ("key", "key_1", "budget_usd_per_month", 8, "r2"),
        ("key", "key_1", "tokens_per_minute", 1000, "default.key.tokens_per_minute:key_1"),
        ("key", "key_1", "budget_usd_per_day", 5 * 10**9, "default.key.budget_usd_per_day.UTC:key_1"),
        ("team", "team_1", "concurrency", 0, "r3"),
        ("team", "team_1", "tokens_per_minute", 7, "default.team.tokens_per_minute:team_1"),
    ]


def test_a_narrow_rule_comes_on_top_of_the_default() -> None:
    policy = Policy(LimitValues(requests_per_minute=60).rules("key"))
    bound = policy.bind(principal((rule(model="gpt-*"),)), "gpt-4o", NO_TAGS)
    assert [limit.maximum for limit in bound] == [60, 1]


def test_a_default_is_counted_for_each_key_and_each_team() -> None:
    policy = Policy(
        LimitValues(budget_usd=1, budget_window="month").rules("key"),
        LimitValues(budget_usd=2, budget_window="month").rules("team"),
    )
    one = policy.bind(principal(), "m", NO_TAGS)
    other = policy.bind(principal(key_id="key_2"), "m", NO_TAGS)
    assert {limit.counter for limit in one} & {limit.counter for limit in other} == {
        "default.team.budget_usd_per_month.UTC:team_1"
    }
    assert len({limit.counter for limit in (*one, *other)}) == 3


def test_a_rule_for_a_model_counts_what_its_pattern_matches() -> None:
    who = principal((rule("tokens", 5, "day", "r1", model="gpt-4*"),), (rule("tokens", 9, "day", "r2", model="gpt-?"),))
    policy = Policy()
    assert told(policy.bind(who, "gpt-4o", NO_TAGS)) == [("key_model", "key_1/gpt-4*", "tokens_per_day", 5, "r1")]
    assert told(policy.bind(who, "gpt-5", NO_TAGS)) == [("team_model", "team_1/gpt-?", "tokens_per_day", 9, "r2")]
    assert len(policy.bind(who, "gpt-4", NO_TAGS)) == 2
    assert policy.bind(who, "o4-mini", NO_TAGS) == ()
    assert policy.bind(who, "my-gpt-4o", NO_TAGS) == ()


def test_a_rule_for_a_tag_with_a_value_counts_that_value() -> None:
    who = principal((), (rule(tag_name="env", tag_value="prod"),))
    policy = Policy()
    assert told(policy.bind(who, "m", {"env": "prod", "x": "y"})) == [
        ("tag", "env=prod", "requests_per_minute", 1, "r1")
    ]
    for tags in (NO_TAGS, {"env": "test"}, {"ENV": "prod"}, {"x": "prod"}):
        assert policy.bind(who, "m", tags) == ()


def test_a_rule_for_a_tag_without_a_value_counts_each_value_on_its_own() -> None:
    who = principal((), (rule("money", 5, "day", tag_name="project"),))
    policy = Policy()
    bound = [policy.bind(who, "m", {"project": value}) for value in ("a", "b:c", "a")]
    assert [told(limits) for limits in bound] == [
        [("tag", f"project={value}", "budget_usd_per_day", 5, f"r1:{value}")] for value in ("a", "b:c", "a")
    ]
    assert policy.bind(who, "m", NO_TAGS) == ()


def test_a_rule_for_a_model_and_a_tag_needs_both() -> None:
    who = principal((rule(model="gpt-*", tag_name="env"),))
    policy = Policy()
    assert [limit.counter for limit in policy.bind(who, "gpt-4o", {"env": "x"})] == ["r1:x"]
    assert policy.bind(who, "gpt-4o", NO_TAGS) == policy.bind(who, "o3", {"env": "x"}) == ()


def test_values_that_clients_make_up_share_one_counter_beyond_a_number() -> None:
    """Else each would be a counter in Redis and a row in the ledger."""
    team = (rule(tag_name="project"), rule("tokens", 1, "day", "r2", tag_name="project"))
    policy = Policy()
    counters = {
        limit.counter
        for number in range(TAG_VALUES_PER_TEAM_MAX + 500)
        for limit in policy.bind(principal((), team), "m", {"project": f"p{number}"})
    }
    assert len(counters) == 2 * (TAG_VALUES_PER_TEAM_MAX + 1)
    assert {f"r1:{OTHER_VALUES}", f"r2:{OTHER_VALUES}"} < counters
    # Those that were known go on as before, and another team has its own.
    assert policy.bind(principal((), team), "m", {"project": "p7"})[0].counter == "r1:p7"
    assert policy.bind(principal((), team, team_id="team_2"), "m", {"project": "new"})[0].counter == "r1:new"


def test_it_is_computed_once_for_a_principal_and_again_for_a_changed_one() -> None:
    policy = Policy(LimitValues(concurrency=3).rules("key"))
    one, changed = principal((rule(maximum=5),)), principal((rule(maximum=6),))
    assert policy.bind(one, "a", NO_TAGS) is policy.bind(one, "b", {"env": "x"})
    assert policy.bind(changed, "a", NO_TAGS)[0].maximum == 6
    # A raised limit is counted where the old one was.
    assert policy.bind(changed, "a", NO_TAGS)[0].counter == policy.bind(one, "a", NO_TAGS)[0].counter


def test_without_narrow_rules_binding_is_a_look_up() -> None:
    """The common case costs well under a microsecond; five leave room for a slow machine."""
    rules = tuple(rule(kind, 5, "day", f"r{kind}") for kind in ("requests", "tokens", "money"))
    policy, who = Policy(rules, rules), principal(rules, rules)
    assert min(timeit.repeat(lambda: policy.bind(who, "gpt-4o", NO_TAGS), number=1000, repeat=5)) / 1000 < 5e-6


def test_what_a_rule_says_about_its_store_and_its_mode_is_passed_on() -> None:
    who = principal((rule(policy="protective", mode="observe"), rule("money", 1, "total", "r2", bound="estimate")))
    first, second = Policy().bind(who, "m", NO_TAGS)
    assert (first.policy, first.mode, second.policy, second.mode) == ("protective", "observe", "strict", "enforce")
    assert (second.name, second.bound, second.window) == ("budget_usd_total", "estimate", "total")


def test_a_maximum_beyond_what_can_be_counted_is_lowered() -> None:
    assert Policy().bind(principal((rule("tokens", 10**30),)), "m", NO_TAGS)[0].maximum == MAXIMUM_MAX


def test_a_negative_maximum_is_a_mistake_of_whoever_set_it() -> None:
    with pytest.raises(ValueError, match="negative"):
        Policy().bind(principal((rule(maximum=-1),)), "m", NO_TAGS)


def test_the_limits_of_an_upstream_are_its_own() -> None:
    limits = upstream_limits("gpu", UpstreamLimits(requests_per_minute=60, concurrency=8))
    assert [(each.scope, each.scope_id, each.name, each.maximum, each.window_ms, each.policy) for each in limits] == [
        ("upstream", "gpu", "requests_per_minute", 60, 60_000, "protective"),
        ("upstream", "gpu", "concurrency", 8, 0, "protective"),
    ]
    assert len({each.counter for each in limits}) == 2
    assert upstream_limits("gpu", UpstreamLimits()) == ()
    strict = upstream_limits("gpu", UpstreamLimits(tokens_per_minute=1, policy="strict", mode="observe"))
    assert [(each.name, each.policy, each.mode) for each in strict] == [("tokens_per_minute", "strict", "observe")]
