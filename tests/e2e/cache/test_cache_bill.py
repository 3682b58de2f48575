"""What a repeated answer leaves on the bill, and which limits it counts for."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.cache.sites import Site, body_of, cost_nanousd, soon, told_in_the_file, word
from tests.e2e.cache.wire import CHAT, RESPONSES, Told, Visit
from tests.fakes.people import Key, rule

USED = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens", "usage_raw")
SAME = (*USED, "response_id", "model_served", "service_tier", "upstream", "model", "status")
NOTHING = {"cost_nanousd": 0, "price_source": "cache", "kind": "charge", "attempts": 0}
KINDS = [
    ("embedded", RESPONSES, False),
    ("embedded", CHAT, True),
    ("shared", RESPONSES, True),
    ("shared", CHAT, False),
]


def joined(site: Site, key: Key, text: str, count: int = 3, **more: Any) -> list[Told]:
    """So many at once."""
    return site.ask_at_once(*[(key, body_of(f"[[sim: first_ms=200]] {text}", **more))] * count)


def totals(site: Site, key: Key, by: str = "team") -> dict[str, Any]:
    site.settled()
    team = site.people.name_of_team(key.team_id)
    (row,) = [row for row in site.json("usage", "--by", by) if row["team"] == team]
    return row


# -- what it costs ----------------------------------------------------------------------------


@pytest.mark.parametrize(("site", "path", "stream"), KINDS, indirect=["site"])
def test_a_hit_costs_nothing_and_repeats_the_usage(site, key, path, stream):
    """Reasoning, cached input and all."""
    text = f"[[sim: cached=5 reasoning=4 tokens=9]] Tell me of {word()} and of other things."
    more = {"stream_options": {"include_usage": True}} if path == CHAT and stream else {}
    with site.calls() as calls:
        told = [site.ask(key, text, path=path, stream=stream, model="o4-mini", **more) for _ in range(2)]
    (call,) = calls
    paid, spared = site.bill(key, 2)
    assert (paid["cache"], spared["cache"]) == ("miss", "hit")
    assert paid["cost_nanousd"] == cost_nanousd(call) > 0
    assert (paid["saved_nanousd"], spared["saved_nanousd"]) == (0, paid["cost_nanousd"])
    assert {name: spared[name] for name in NOTHING} == NOTHING
    assert {name: spared[name] for name in SAME} == {name: paid[name] for name in SAME}
    assert [spared[name] for name in ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")] == [
        call.usage.input_tokens,
        call.usage.cached_tokens,
        call.usage.output_tokens,
        call.usage.reasoning_tokens,
    ]
    assert min(call.usage.cached_tokens, call.usage.reasoning_tokens) > 0
    assert paid["attempts"] == 1
    assert [row["request_id"] for row in (paid, spared)] == [one.request_id for one in told]
    assert told[1].headers.get("x-headgate-cost-usd") == (None if stream else "0")
    row = totals(site, key)
    assert (row["requests"], float(row["cost_usd"])) == (2, call_usd := cost_nanousd(call) / 1e9)
    assert float(row["saved_usd"]) == call_usd
    assert row["output_tokens"] == 2 * call.usage.output_tokens


@pytest.mark.parametrize(("site", "stream"), [("embedded", True), ("shared", False)], indirect=["site"])
def test_those_who_joined_cost_nothing_and_repeat_the_usage(site, key, stream):
    with site.calls() as calls:
        told = joined(site, key, f"Tell me of {word()}.", stream=stream)
    (call,) = calls
    rows = site.bill(key, 3)
    assert {row["request_id"] for row in rows} == {one.request_id for one in told}
    assert Counter(row["cache"] for row in rows) == {"miss": 1, "joined": 2}
    (paid,) = [row for row in rows if row["cache"] == "miss"]
    assert paid["cost_nanousd"] == cost_nanousd(call)
    for spared in (row for row in rows if row["cache"] == "joined"):
        assert {name: spared[name] for name in NOTHING} == NOTHING
        assert {name: spared[name] for name in SAME} == {name: paid[name] for name in SAME}
        assert spared["saved_nanousd"] == paid["cost_nanousd"]
    assert float(totals(site, key)["saved_usd"]) == 2 * cost_nanousd(call) / 1e9


def test_an_error_that_was_joined_saved_nothing(site, key):
    with site.calls() as calls:
        told = joined(site, key, f"[[sim: error=400]] {word()}")
    assert [one.status for one in told] == [400] * 3
    assert len(calls) == 1
    assert {one.body for one in told} == {told[0].body}
    rows = site.records(key, 3)
    assert Counter(row["cache"] for row in rows) == {"miss": 1, "joined": 2}
    assert {(row["outcome"], row["saved_nanousd"]) for row in rows} == {("failed", 0)}
    assert float(totals(site, key)["cost_usd"]) == 0


def test_explain_says_that_it_was_answered_from_the_cache(site, key):
    text = f"Tell me of {word()}."
    with site.calls() as calls:
        told = [site.ask(key, text) for _ in range(2)]
    site.settled()
    lines = [" ".join(line.split()) for line in site.command("explain", told[1].request_id).splitlines()]
    assert "answered sim, model sim-large, tier default: completed (200), cache hit" in lines
    assert "It was answered from the cache; nothing was sent upstream." in lines
    assert lines[lines.index("Bill") + 1] == "Nothing was charged."
    assert lines[lines.index("Bill") + 2] == f"The cache saved ${cost_nanousd(calls[0]) / 1e9:.9f}".rstrip("0") + "."
    (third,) = [one for one in joined(site, key, f"Tell me of {word()}.", 2) if one.cache == "joined"]
    site.settled()
    assert "It joined a call that was in flight; nothing more was sent upstream." in site.command(
        "explain", third.request_id
    )
    off = site.ask(key, text, headers={"x-headgate-cache": "off"})
    site.settled()
    assert "The cache was passed by: request." in site.command("explain", off.request_id)


# -- the limits -------------------------------------------------------------------------------


def test_requests_per_minute_counts_hits(site):
    key = site.key(rule("requests", 4, "minute"))
    text = f"Say {word()}."
    told = [site.ask(key, text) for _ in range(6)]
    assert [one.cache for one in told] == ["miss", "hit", "hit", "hit", "bypass", "bypass"]
    assert [one.status for one in told] == [200] * 4 + [429] * 2
    assert told[5].code == "rate_limit_exceeded"
    assert int(told[5].headers["retry-after"]) > 0
    assert len(site.records(key, 4)) == 4


def test_requests_per_minute_counts_those_who_join(site):
    key = site.key(rule("requests", 3, "minute"))
    with site.calls() as calls:
        told = joined(site, key, f"Say {word()}.", 5)
    assert len(calls) == 1
    assert Counter(one.status for one in told) == {200: 3, 429: 2}


def tokens_of(site: Site, told: Told) -> int:
    usage = told.response["usage"]
    return usage["input_tokens"] + usage["output_tokens"]


def test_tokens_per_minute_does_not_count_hits(site, key):
    text = f"[[sim: tokens=60]] Say {word()}."
    used = tokens_of(site, site.ask(key, text))
    limited = site.key(rule("tokens", 2 * used, "minute"), team_id=key.team_id)
    told = [site.ask(limited, text) for _ in range(10)]
    assert [(one.status, one.cache) for one in told] == [(200, "hit")] * 10
    assert "x-ratelimit-remaining-tokens" not in told[-1].headers


def test_tokens_per_minute_counts_hits_where_the_file_says_so(site, key):
    text = f"[[sim: tokens=60]] Say {word()}."
    used = tokens_of(site, site.ask(key, text))
    limited = site.key(rule("tokens", 2 * used + 5, "minute"), team_id=key.team_id)
    with told_in_the_file([site], "{count_tokens: true}"):
        told = [site.ask(limited, text) for _ in range(4)]
        assert [one.status for one in told] == [200, 200, 429, 429]
        assert [one.headers["x-ratelimit-remaining-tokens"] for one in told[:2]] == [str(used + 5), "5"]
    again = site.ask(limited, text)
    assert (again.status, again.cache) == (200, "hit")


def test_concurrency_is_back_after_hits_and_joined_calls(site):
    key = site.key(rule("concurrency", 2))
    text = f"Say {word()}."
    told = [site.ask(key, text, stream=bool(number % 2)) for number in range(20)]
    assert [one.status for one in told] == [200] * 20
    # Two at once take both places, and give them back.
    for _ in range(2):
        both = joined(site, key, f"Say {word()}.", 2)
        assert [one.status for one in both] == [200, 200]
    third = joined(site, key, f"Say {word()}.", 3)
    assert Counter(one.status for one in third) == {200: 2, 429: 1}
    assert next(one for one in third if one.status == 429).code == "rate_limit_exceeded"
    assert [site.ask(key, text).status for _ in range(3)] == [200] * 3


def test_concurrency_is_back_after_one_that_joined_has_left(site):
    key = site.key(rule("concurrency", 2))
    body = body_of(f"[[sim: first_ms=700]] Say {word()}.")

    async def work() -> tuple[Told, Told]:
        first = await Visit.begin(site.port, key.text, body)
        await asyncio.sleep(0.2)
        second = await Visit.begin(site.port, key.text, body)
        await asyncio.sleep(0.1)
        second.leave()
        await asyncio.sleep(0.1)
        third = await (await Visit.begin(site.port, key.text, body)).rest()
        return await first.rest(), third

    with site.calls() as calls:
        told = asyncio.run(work())
    assert [one.status for one in told] == [200, 200]
    assert [one.cache for one in told] == ["miss", "joined"]
    assert len(calls) == 1


def test_a_spent_budget_still_allows_hits(site, key):
    text = f"[[sim: tokens=100]] Say {word()}."
    site.ask(key, text)
    poor = site.key(rule("money", 600_000, "total"), team_id=key.team_id)
    asked = {"max_output_tokens": 10, "headers": {"x-headgate-cache": "off"}}
    paid = 0
    while (told := site.ask(poor, f"[[sim: tokens=10]] {word()}", **asked)).status == 200:
        paid += 1
    assert (told.status, told.code) == (429, "insufficient_quota")
    assert paid > 0
    hits = [site.ask(poor, text, stream=stream) for stream in (False, True)]
    assert [(hit.status, hit.cache) for hit in hits] == [(200, "hit")] * 2
    saved = [row["saved_nanousd"] for row in site.records(poor, paid + len(hits))]
    assert saved == [0] * paid + [saved[-1]] * len(hits)
    assert saved[-1] > 600_000
    refused = site.ask(poor, f"[[sim: tokens=10]] {word()}", **asked)
    assert (refused.status, refused.code) == (429, "insufficient_quota"), "hits have freed nothing"


def test_one_whose_budget_is_spent_waits_for_the_call_of_another(site, key):
    poor = site.key(rule("money", 1_000, "total"), team_id=key.team_id)
    body = body_of(f"[[sim: first_ms=500]] Say {word()}.")

    async def work() -> list[Told]:
        before = site.simulator.log.last_number
        rich = await Visit.begin(site.port, key.text, body)
        await site.called(before)
        return [await visit.rest() for visit in (await Visit.begin(site.port, poor.text, body), rich)]

    told = asyncio.run(work())
    assert [(one.status, one.cache) for one in told] == [(200, "joined"), (200, "miss")]
    assert site.ask(poor, f"Say {word()}.", max_output_tokens=40).status == 429


@pytest.mark.parametrize(
    "rules", [(), (rule("requests", 100, "hour"), rule("concurrency", 2))], ids=["free", "limited"]
)
def test_one_that_may_not_call_is_refused_and_another_of_those_who_wait_calls(site, rules):
    team = site.people.team()
    poor, rich = site.key(rule("money", 1_000, "total"), team_id=team), site.key(*rules, team_id=team)
    rounds = 4
    for number in range(1, rounds + 1):
        body = body_of(f"[[sim: tokens=60 first_ms=200]] Say {word()}.")
        with site.calls() as calls:
            told = site.ask_at_once((poor, body), (rich, body), (rich, body), (poor, body))
        assert [told[at].status for at in (1, 2)] == [200, 200]
        assert len(calls) == 1
        assert {told[at].code for at in (0, 3) if told[at].status != 200} <= {"insufficient_quota"}
        if rules:
            left = min(int(told[at].headers["x-ratelimit-remaining-requests"]) for at in (1, 2))
            assert left == 100 - 2 * number, "each counts once, however often it was tried"
    assert Counter(row["cache"] for row in site.records(rich, 2 * rounds)) == {"miss": rounds, "joined": rounds}


# -- sums -------------------------------------------------------------------------------------


def test_metrics_and_statistics_agree_with_the_ledger(site, key):
    """Of all that was ever done here."""
    model = f"counted-{word()}"
    text = f"Say {word()}."
    for headers in ({}, {}, {}, {"x-headgate-cache": "off"}, {"x-headgate-cache": "refresh"}):
        site.ask(key, text, model=model, headers=headers)
    joined(site, key, f"Say {word()}.", 3, model=model)
    site.settled()
    soon(lambda: site.in_flight() == 0)
    rows = site.records(key, 8)
    by_cache = Counter(row["cache"] for row in rows)
    assert by_cache == {"hit": 2, "miss": 3, "bypass": 1, "joined": 2}
    saved = sum(row["saved_nanousd"] for row in rows)
    assert saved > 0

    team = site.people.name_of_team(key.team_id)
    (stats,) = site.json("cache", "stats", "--team", team)
    assert stats == {
        "team": team,
        "model": model,
        "requests": 8,
        "hits": 2,
        "joined": 2,
        "misses": 3,
        "bypassed": 1,
        "hit_ratio": f"{4 / 7:.3f}",
        "saved_usd": stats["saved_usd"],
    }
    assert float(stats["saved_usd"]) == saved / 1e9
    assert site.json("cache", "stats", "--model", "counted-*", "--team", team) == [stats]
    assert site.json("cache", "stats", "--model", "another-*", "--team", team) == []
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    assert site.json("cache", "stats", "--team", team, "--from", tomorrow, "--to", tomorrow) == []

    metrics = site.metrics()
    everything = site.json("cache", "stats")
    for name, result in (("hits", "hit"), ("joined", "joined"), ("misses", "miss"), ("bypassed", "bypass")):
        assert metrics[f'headgate_cache_total{{result="{result}"}}'] == sum(row[name] for row in everything)
    told = {name: value for name, value in metrics.items() if name.startswith("headgate_saved_usd_total{")}
    assert sum(told.values()) == pytest.approx(sum(float(row["saved_usd"]) for row in everything), abs=1e-9)
    assert sum(value for name, value in told.items() if f'team="{team}"' in name) == pytest.approx(saved / 1e9)
    usage = site.json("usage", "--by", "team")
    assert sum(float(row["saved_usd"]) for row in usage) == pytest.approx(sum(told.values()), abs=1e-9)
    requests = sum(value for name, value in metrics.items() if name.startswith("headgate_requests_total{"))
    assert requests == sum(row["requests"] for row in everything)
    site.check_ledger()
