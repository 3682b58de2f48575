"""What a limit may say, and the ids under which the file's own budgets are found again."""

from __future__ import annotations

import msgspec
import pytest

from app.core.identity import WINDOWS_OF_KIND, LimitRule
from app.core.rules import (
    BUDGET_NANOUSD_MAX,
    COUNT_MAX,
    DefaultBudget,
    check_rule,
    default_budget_of,
    default_id,
    in_order,
    is_plain,
    limit_name,
)

BUDGET = LimitRule("r", "money", 5, "month")


@pytest.mark.parametrize(
    "rule",
    [
        LimitRule("r", "requests", 1, "minute"),
        LimitRule("r", "tokens", COUNT_MAX, "day"),
        LimitRule("r", "concurrency", 0),
        LimitRule("r", "money", 0, "total"),
        LimitRule("r", "money", BUDGET_NANOUSD_MAX, "week", time_zone="America/St_Johns"),
        LimitRule("r", "tokens", 1, "hour", model="gpt-*", tag_name="env", tag_value="a b:c/d@e"),
    ],
)
def test_what_can_be_counted_is_accepted(rule):
    check_rule(rule)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"window": "minute"}, "money is per day, week, month, total"),
        ({"window": ""}, "money is per"),
        ({"kind": "tokens", "window": "month"}, "tokens is per minute, hour, day"),
        ({"kind": "concurrency"}, "concurrency has no window"),
        ({"maximum": -1}, "between 0 and"),
        ({"maximum": BUDGET_NANOUSD_MAX + 1}, r"between 0 and \$9000000"),
        ({"kind": "requests", "window": "day", "maximum": COUNT_MAX + 1}, "between 0 and"),
        ({"time_zone": "Mars/Phobos"}, "no time zone 'Mars/Phobos'"),
        ({"model": ""}, "pattern"),
        ({"model": "x" * 257}, "pattern"),
        ({"model": "a\nb"}, "printable"),
        ({"tag_value": "search"}, "needs its name"),
        ({"tag_name": "a b"}, "x-headgate-tags"),
        ({"tag_name": "ü"}, "x-headgate-tags"),
        ({"tag_name": "日"}, "x-headgate-tags"),
        ({"tag_name": ""}, "x-headgate-tags"),
        ({"tag_name": "env", "tag_value": "a,b=c"}, "x-headgate-tags"),
        ({"tag_name": "env", "tag_value": ""}, "x-headgate-tags"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(changes, reason):
    with pytest.raises(ValueError, match=reason):
        check_rule(msgspec.structs.replace(BUDGET, **changes))


def test_the_largest_budget_is_exact_in_doubles():
    assert int(float(BUDGET_NANOUSD_MAX)) + 1 == int(float(BUDGET_NANOUSD_MAX + 1))


def test_limits_are_called_as_the_command_line_calls_them():
    names = [limit_name(kind, window) for kind, windows in WINDOWS_OF_KIND.items() for window in windows]
    assert names == [
        "requests_per_minute",
        "requests_per_hour",
        "requests_per_day",
        "tokens_per_minute",
        "tokens_per_hour",
        "tokens_per_day",
        "concurrency",
        "budget_usd_per_day",
        "budget_usd_per_week",
        "budget_usd_per_month",
        "budget_usd_total",
    ]


def test_rules_are_listed_by_kind_and_window_and_the_plain_before_the_narrow():
    rules = [
        LimitRule("a", "money", 1, "total"),
        LimitRule("b", "money", 1, "day"),
        LimitRule("c", "requests", 1, "day", model="gpt-*"),
        LimitRule("d", "requests", 1, "day"),
        LimitRule("e", "concurrency", 1),
        LimitRule("f", "requests", 1, "minute", tag_name="env"),
    ]
    assert [rule.id for rule in in_order(rules)] == list("fdceba")
    assert [rule.id for rule in in_order(rules) if is_plain(rule)] == list("deba")


@pytest.mark.parametrize("owner", ["key", "team"])
@pytest.mark.parametrize("window", WINDOWS_OF_KIND["money"])
@pytest.mark.parametrize("zone", ["UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_a_default_budget_is_known_by_its_id(owner, window, zone):
    budget_id = f"{default_id(owner, 'money', window, zone)}:abcDEF0123"
    assert default_budget_of(budget_id) == DefaultBudget(owner, "abcDEF0123", window, zone)


@pytest.mark.parametrize(
    "budget_id",
    [
        "abcDEF012345",
        "abcDEF012345:search",
        "default.key.tokens_per_day:k",
        "default.key.budget_usd_per_year.UTC:k",
        "",
    ],
)
def test_other_ids_are_not_taken_for_one(budget_id):
    assert default_budget_of(budget_id) is None


def test_the_id_of_a_default_does_not_depend_on_its_maximum_but_on_its_window():
    assert default_id("key", "requests", "minute", "UTC") == "default.key.requests_per_minute"
    assert len({default_id("key", "money", window, "UTC") for window in WINDOWS_OF_KIND["money"]}) == 4
    assert default_id("key", "money", "day", "UTC") != default_id("key", "money", "day", "Asia/Tokyo")
