"""What people read, for every kind: no figure is missing, no name breaks a line."""

from __future__ import annotations

import msgspec
import pytest

from app.alerts.events import alert_body, alert_object, targets_of, trial_delivery
from app.alerts.kinds import KINDS, first_rules
from app.alerts.words import detail_of, dollars, reason_of, title_of
from tests.unit.alerts.samples import NOW_MS, alert_of

BUDGET = {
    "budget_id": "l1",
    "window": "month",
    "time_zone": "Europe/Berlin",
    "window_from": "2026-10-31T23:00:00.000Z",
    "window_to": "2026-11-30T23:00:00.000Z",
    "maximum_usd": "5000",
    "spent_usd": "4750.5",
    "spent_percent": 95.0,
    "threshold_percent": 95,
    "refused_15_minutes": 0,
    "model": None,
    "tag_name": None,
    "tag_value": None,
    "mode": "enforce",
}
FIGURES = {
    "budget.threshold": BUDGET,
    "spend.velocity": {
        "spent_10_minutes_usd": "18.4",
        "busiest_10_minutes_usd": "2.1",
        "times": 3.0,
        "bar_usd": "6.3",
    },
    "model.unpriced": {"model": "qwen3", "upstream": "gpu", "requests": 2},
    "upstream.down": {
        "upstream": "openai",
        "cause": "unreachable",
        "since": "2026-11-20T11:58:00.000Z",
        "processes": 1,
    },
    "key.expiring": {
        "expires_at": "2026-11-27T12:00:00.000Z",
        "days_left": 7,
        "threshold_days": 7,
        "cause": "key",
    },
}


def alert(kind, **changes):
    given = {
        "kind": kind,
        "figures": FIGURES[kind],
        "team_id": "t1",
        "team_name": "search",
        "rule_name": "Rule",
    }
    if kind in {"spend.velocity", "key.expiring"}:
        given |= {"key_id": "k1", "key_name": "ci-agents"}
    return alert_of(**{**given, **changes})


@pytest.mark.parametrize(
    ("kind", "title", "detail"),
    [
        (
            "budget.threshold",
            "The budget of search is at 95%",
            "$4,750.50 of $5,000.00 is spent this month (Europe/Berlin).",
        ),
        (
            "spend.velocity",
            "ci-agents spends far more than usual",
            "$18.40 in the last ten minutes; the busiest ten of the week before cost $2.10.",
        ),
        (
            "model.unpriced",
            "qwen3 has no price",
            "2 requests to gpu in the last 24 hours cost nobody knows what. Set a price, and reprice.",
        ),
        (
            "upstream.down",
            "openai cannot be reached",
            "No connection to it could be made since 20 Nov 2026, 11:58 UTC.",
        ),
        (
            "key.expiring",
            "The key ci-agents stops working in 7 days",
            "It expires on 27 Nov 2026, 12:00 UTC.",
        ),
    ],
)
def test_every_kind_says_what_is_wrong(kind, title, detail):
    shown = alert(kind)
    assert (title_of(shown), detail_of(shown)) == (title, detail)


@pytest.mark.parametrize(
    ("figures", "title", "detail_has"),
    [
        (
            {"threshold_percent": 100, "spent_percent": 100.0},
            "The budget of search is used up",
            "Requests are refused.",
        ),
        ({"threshold_percent": 100, "refused_15_minutes": 7}, "of search refuses requests", "7 requests of the last"),
        ({"threshold_percent": 100, "spent_percent": 101.2, "mode": "observe"}, "is used up", "counted, not refused"),
        ({"tag_name": "project", "tag_value": "apollo"}, "The budget of search, apollo is at 95%", "$4,750.50"),
        ({"model": "gpt-*", "tag_name": "project"}, "The budget of search, gpt-* is at 95%", "$4,750.50"),
        ({"window": "total"}, "is at 95%", "is spent in total."),
    ],
)
def test_a_budget_says_of_what_it_is(figures, title, detail_has):
    shown = alert("budget.threshold", figures={**BUDGET, **figures})
    assert title in title_of(shown)
    assert detail_has in detail_of(shown)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_over_says_so_and_what_it_was(kind):
    shown = alert(kind, state="resolved", resolved_at_ms=NOW_MS, reason="back_to_normal")
    assert title_of(shown).endswith(": over")
    assert detail_of(shown) == f"It is back to normal. It was: {detail_of(alert(kind))}"


@pytest.mark.parametrize(
    ("kind", "now", "reason"),
    [
        ("budget.threshold", "2026-11-30T22:59:59.999Z", "back_to_normal"),
        ("budget.threshold", "2026-11-30T23:00:00.000Z", "window_ended"),
        ("key.expiring", "2026-11-27T11:59:59.999Z", "extended_or_revoked"),
        ("key.expiring", "2026-11-27T12:00:00.000Z", "expired"),
        ("model.unpriced", "2026-11-27T12:00:00.000Z", "priced"),
        ("upstream.down", "2026-11-27T12:00:00.000Z", "back_to_normal"),
    ],
)
def test_why_it_is_over(kind, now, reason):
    assert reason_of(alert(kind), now) == reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_the_alert_as_the_api_shows_it(kind):
    shown = alert(kind)
    message = msgspec.json.decode(alert_body(shown, NOW_MS))
    assert message == {"type": kind, "timestamp": "2026-11-20T12:00:00.000Z", "data": alert_object(shown)}
    assert message["data"]["team"] == {"id": "t1", "name": "search"}
    assert len(alert_body(shown, NOW_MS)) < 4096


def test_names_cannot_break_a_line_or_grow_without_end():
    shown = alert("key.expiring", key_name="a\r\nBcc: x@example.com\x00" + "y" * 500)
    title = title_of(shown)
    assert title.isprintable()
    assert len(title) < 300


def test_small_amounts_are_shown_whole():
    assert [dollars(usd) for usd in ("0", "0.0031", "0.1", "12.345", "1234567.8")] == [
        "$0",
        "$0.0031",
        "$0.10",
        "$12.35",
        "$1,234,567.80",
    ]


def test_a_test_says_that_it_is_one():
    message = msgspec.json.decode(trial_delivery("ops", NOW_MS).body)
    assert (message["type"], message["data"]["target"]) == ("alert.test", "ops")


def test_who_is_told():
    rule = first_rules(0)[0]
    assert targets_of(rule, ["a", "b"], []) == ["a", "b"]
    assert targets_of(rule, ["a", "b"], ["a"]) == ["b"]
    some = msgspec.structs.replace(rule, targets=("gone", "b"))
    assert targets_of(some, ["a", "b"], []) == ["b"]
    assert targets_of(msgspec.structs.replace(rule, targets=()), ["a"], []) == []
