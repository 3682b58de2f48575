"""Limits in the configuration file: the defaults of keys and teams, and what an upstream can bear."""

from __future__ import annotations

import pytest

from app.core.identity import LimitRule
from app.core.rules import check_rule
from app.settings import ConfigurationError, load_configuration

UPSTREAM = "upstreams:\n  a:\n    base_url: http://127.0.0.1:1/v1\n"


def load(tmp_path, text):
    path = tmp_path / "headgate.yaml"
    path.write_text(text)
    return load_configuration(path, {})


def test_nothing_is_limited_unless_it_is_said(tmp_path):
    loaded = load(tmp_path, UPSTREAM)
    assert loaded.limits.key_rules == loaded.limits.team_rules == ()
    assert loaded.upstreams["a"].limits.requests_per_minute is None


def test_every_default_becomes_a_rule_with_an_id_that_stays(tmp_path):
    text = """limits:
  key: {requests_per_minute: 1, requests_per_hour: 2, requests_per_day: 3, tokens_per_minute: 4, tokens_per_hour: 5,
        tokens_per_day: 6, concurrency: 7, budget_usd: 8.5, budget_window: month, time_zone: Europe/Berlin,
        policy: protective, mode: observe, bound: estimate}
  team: {concurrency: 9}
"""
    limits = load(tmp_path, text).limits
    assert [(rule.id, rule.kind, rule.window, rule.maximum) for rule in limits.key_rules] == [
        ("default.key.requests_per_minute", "requests", "minute", 1),
        ("default.key.requests_per_hour", "requests", "hour", 2),
        ("default.key.requests_per_day", "requests", "day", 3),
        ("default.key.tokens_per_minute", "tokens", "minute", 4),
        ("default.key.tokens_per_hour", "tokens", "hour", 5),
        ("default.key.tokens_per_day", "tokens", "day", 6),
        ("default.key.concurrency", "concurrency", "", 7),
        ("default.key.budget_usd_per_month.Europe/Berlin", "money", "month", 8_500_000_000),
    ]
    for rule in limits.key_rules:
        check_rule(rule)
        assert (rule.policy, rule.mode, rule.bound) == ("protective", "observe", "estimate")
    assert limits.key_rules[-1].time_zone == "Europe/Berlin"
    assert limits.team_rules == (LimitRule("default.team.concurrency", "concurrency", 9),)
    lowered = load(tmp_path, text.replace("8.5", "0")).limits.key_rules[-1]
    assert (lowered.id, lowered.maximum) == (limits.key_rules[-1].id, 0)


def test_an_upstream_has_limits_of_its_own(tmp_path):
    limits = load(tmp_path, UPSTREAM + "    limits: {tokens_per_minute: 5, mode: observe}\n").upstreams["a"].limits
    assert (limits.tokens_per_minute, limits.concurrency, limits.policy, limits.mode) == (
        *(5, None, "protective", "observe"),
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("limits:\n  key: {requests_per_week: 5}\n", (":2", "limits.key.requests_per_week", "no such key")),
        ("limits:\n  key: {requests_per_hour: 0}\n", (":2", "requests_per_hour", "greater than 0")),
        ("limits:\n  key: {tokens_per_day: 1.5}\n", (":2", "tokens_per_day", "integer")),
        ("limits:\n  team: {budget_usd: 5}\n", (":2", "limits.team", "budget_usd and budget_window together")),
        ("limits:\n  team: {budget_window: day}\n", (":2", "limits.team", "together")),
        ("limits:\n  team: {budget_usd: -1, budget_window: day}\n", (":2", "budget_usd", "greater than or equal to 0")),
        ("limits:\n  team: {budget_usd: 9000001, budget_window: day}\n", (":2", "budget_usd", "9000000")),
        ("limits:\n  team: {budget_usd: 1.0000000001, budget_window: day}\n", (":2", "budget_usd", "decimal places")),
        ("limits:\n  team: {budget_usd: true, budget_window: day}\n", (":2", "budget_usd", "number")),
        ("limits:\n  team: {budget_usd: .inf, budget_window: day}\n", (":2", "budget_usd", "finite")),
        ("limits:\n  team: {budget_usd: 1, budget_window: year}\n", (":2", "budget_window", "'day'")),
        ("limits:\n  team: {time_zone: Mars/Phobos}\n", (":2", "limits.team.time_zone", "no time zone 'Mars/Phobos'")),
        ("limits:\n  team: {policy: lax}\n", (":2", "limits.team.policy", "'strict'")),
        (UPSTREAM + "    limits: {requests_per_hour: 5}\n", (":4", "upstreams.a.limits", "no such key")),
        (UPSTREAM + "    limits: {concurrency: -5}\n", (":4", "upstreams.a.limits.concurrency", "greater than 0")),
    ],
)
def test_a_wrong_limit_is_refused_with_line_key_and_what_was_expected(tmp_path, text, parts):
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    for part in parts:
        assert part in str(caught.value)
