from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from app.admin.attention import (
    BudgetNear,
    KeyExpiring,
    Unpriced,
    UpstreamUnwell,
    attention,
    day_text,
    dollars,
    time_text,
)

BERLIN = ZoneInfo("Europe/Berlin")
NOW_MS = round(datetime(2026, 11, 24, 15, 40, tzinfo=UTC).timestamp() * 1000)
THURSDAY_MS = round(datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp() * 1000)
END_MS = round(datetime(2026, 11, 30, 23, tzinfo=UTC).timestamp() * 1000)

NEAR = BudgetNear("b 1", "support", 92.1, 158_630_000_000, False, THURSDAY_MS, END_MS)
SPENT = msgspec.structs.replace(NEAR, id="b2", name="research", is_exhausted=True, spent_percent=101.0)
DEGRADED = UpstreamUnwell("azure-eu", "degraded", NOW_MS - 22 * 60_000, 3.8)
DOWN = UpstreamUnwell("gpu-1", "down", NOW_MS - 60_000)
PAUSED = UpstreamUnwell("azure-us", "paused", NOW_MS - 60_000, paused_by="mara@acme.example")
KEY = KeyExpiring("k1", "ci-agents", "platform", THURSDAY_MS)
NOTHING = Unpriced(0, ())
SOME = Unpriced(12, ("qwen3-coder",))


def told(budgets=(), upstreams=(), unpriced=NOTHING, keys=(), reader="admin"):
    return attention(budgets, upstreams, unpriced, keys, reader=reader, zone=BERLIN, now_ms=NOW_MS)


def test_all_is_well():
    assert told() == []
    assert told([msgspec.structs.replace(NEAR, spent_percent=89.9)]) == []


def test_the_three_of_the_picture():
    first, second, third = told([NEAR], [DEGRADED], SOME)
    assert (first.level, first.title) == ("bad", "support is at 92% of its budget")
    assert first.detail == "$158.63 left, gone by Thu 26 Nov"
    assert (first.verb, first.href) == ("Open budget", "/console/budgets?open=b%201")
    assert (second.level, second.title) == ("warn", "azure-eu is degraded")
    assert second.detail == "3.8% failed for 22 min"
    assert (second.verb, second.href) == ("Open upstream", "/console/upstreams?open=azure-eu")
    assert (third.level, third.title) == ("unpriced", "12 requests have no price")
    assert third.detail == "qwen3-coder, not in any total here"
    assert (third.verb, third.href) == ("Set a price", "/console/prices")


def test_at_most_three_worst_first():
    items = told([NEAR, SPENT], [DEGRADED, DOWN], SOME, [KEY])
    assert [item.title for item in items] == [
        "research has spent its budget",
        "gpu-1 is down",
        "support is at 92% of its budget",
    ]
    assert items[0].detail == "Calls are refused until Tue 1 Dec"
    assert items[1].detail == "Cannot be connected to since 16:39"


def test_a_paused_upstream_comes_after_one_that_is_degraded():
    first, second = told(upstreams=[PAUSED, DEGRADED])
    assert first.title == "azure-eu is degraded"
    assert (second.level, second.title) == ("warn", "azure-us is paused")
    assert second.detail == "Nothing new is sent there since 16:39, by mara@acme.example"
    assert (second.verb, second.href) == ("Open upstream", "/console/upstreams?open=azure-us")
    (both,) = told(upstreams=[PAUSED, msgspec.structs.replace(PAUSED, name="azure-eu")])
    assert both.title == "azure-us and 1 more are paused"


def test_of_one_kind_there_is_one():
    others = [msgspec.structs.replace(NEAR, id=f"o{each}", name=f"o{each}", spent_percent=91.0) for each in range(3)]
    (item,) = told([*others, NEAR])
    assert item.title == "support and 3 more are at more than 90% of their budgets"
    assert (item.verb, item.href) == ("Open budgets", "/console/budgets")


def test_keys_about_to_expire():
    (item,) = told(keys=[KEY])
    assert (item.title, item.detail) == ("ci-agents expires soon", "Of team platform, on Thu 26 Nov")
    assert item.href == "/console/keys?open=k1"
    (item,) = told(keys=[msgspec.structs.replace(KEY, name="later", expires_at_ms=END_MS), KEY])
    assert item.title == "ci-agents and 1 more expire soon"


@pytest.mark.parametrize(
    ("reader", "verb"), [("admin", "Set a price"), ("viewer", "Open prices"), ("lead", "Open models")]
)
def test_nobody_is_led_where_they_may_not(reader, verb):
    (item,) = told(unpriced=Unpriced(1, ("a", "b", "c")), reader=reader)
    assert item.verb == verb
    assert item.title == "1 request has no price"
    assert item.detail == "a, b and 1 more, not in any total here"


def test_texts():
    assert dollars(1_841_370_000_000) == "$1,841.37"
    assert dollars(0) == "$0.00"
    assert dollars(3_100_000) == "under $0.01"
    assert day_text(END_MS, BERLIN) == "Tue 1 Dec"
    assert time_text(NOW_MS - 86_400_000, BERLIN, NOW_MS) == "Mon 23 Nov, 16:40"
