"""What is known of one request: a record with its entries and corrections, or a refusal."""

from __future__ import annotations

import msgspec
import pytest

from app.cli.explanation import explanation_text
from app.core.ids import new_request_id
from app.core.usage import Usage
from app.store.batch import write_batch
from app.store.explanations import ESTIMATED_BECAUSE, RecordExplained, data_of, explain, explain_refusals
from app.store.proof import prove
from app.store.refusals import RefusalRow, keep_refusals
from app.store.teams import create_team
from tests.contract.store.samples import NOON_MS, entry_of, record_of

DECISION = {
    "limits": [
        ["key", "requests_per_minute", 600, 597],
        ["team", "budget_usd_per_month", 5_000_000_000, 4_210_000_000],
    ],
    "reserved_nanousd": 244_000,
    "observed": ["tokens_per_day"],
    "later": {"poll_ms": 1500, "tried": [["a", 1], ["b", 2]], "until_ms": NOON_MS, "off": False, "none": None},
}
NO_PRICE = {"cost_nanousd": None, "price_source": None, "price_version": None}


async def explained(database, request_id):
    async with database.read() as connection:
        return await explain(connection, request_id)


def estimate_of(request_id, number=1):
    return entry_of(
        request_id,
        number,
        kind="estimate",
        usage=Usage(input_tokens=400, output_tokens=1024),
        cost_nanousd=1_798_400,
        cost_lower_nanousd=20_000,
        cost_upper_nanousd=1_798_400,
    )


async def test_attempts_come_in_order_each_with_its_corrections(database):
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
    request_id = new_request_id(1)
    voids = [
        entry_of(request_id, number, kind="void", usage=Usage(), cost_nanousd=0, upstream="azure")
        for number in range(1, 11)
    ]
    given = {"team_id": team.id, "attempts": 11, "decision": DECISION}
    crashed = {"outcome": "interrupted", "error_code": "gateway_crashed"}
    await write_batch(
        database, [record_of(request_id, entries=(*voids, estimate_of(request_id, 11)), **given, **crashed)]
    )
    found = await explained(database, request_id)
    assert isinstance(found, RecordExplained)
    assert (found.names.team, found.names.key) == ("search", None)
    assert [each.attempt_id.rpartition(".")[2] for each in found.attempts] == [str(number) for number in range(1, 12)]
    last = found.attempts[-1]
    assert (last.estimated, last.why_estimate) == (True, ESTIMATED_BECAUSE["gateway_crashed"])
    text = explanation_text(found)
    assert "It cost between $0.00002 and $0.0017984." in text

    await write_batch(database, [record_of(request_id, entries=(entry_of(request_id, 11),), **given)])
    found = await explained(database, request_id)
    last = found.attempts[-1]
    assert [entry.reason for entry in last.entries] == ["", "exact"]
    assert (last.estimated, last.cost_nanousd, last.usage["input_tokens"]) == (False, 61_000, 100)
    text = explanation_text(found)
    assert "It cost between" not in text
    assert "Its exact outcome came later." in text
    assert "25.0% of it" in text


async def test_a_decision_is_told_whatever_is_in_it(database):
    record = record_of(decision=DECISION)
    await write_batch(database, [record])
    text = explanation_text(await explained(database, record.request_id))
    for part in ("$4.21", "tokens_per_day", "1.5 s", "a 1", "b 2", "2026-11-20 12:00:00.000 UTC", "no", "–"):
        assert part in text
    odd = record_of(decision={"limits": [["key"], "x", {"a": 1}], "reserved_nanousd": "much", "limit": [[]]})
    await write_batch(database, [odd])
    assert odd.request_id in explanation_text(await explained(database, odd.request_id))


async def test_what_has_no_price_is_not_free(database):
    request_id = new_request_id(1)
    await write_batch(database, [record_of(request_id, entries=(entry_of(request_id, **NO_PRICE),))])
    found = await explained(database, request_id)
    assert found.attempts[0].cost_nanousd is None
    text = explanation_text(found)
    assert "unpriced" in text
    assert "headgate reprice" in text
    assert data_of(found)["cost_usd"] is None


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"error_code": "upstream_timeout", "outcome": "failed"}, "no answer in time"),
        ({"error_code": "gateway_lost", "outcome": "interrupted"}, "was lost"),
        ({"suspect": True}, "cannot be true"),
        ({"outcome": "disconnected"}, "Its client left"),
        ({"outcome": "failed", "error_code": "upstream_500"}, "did not tell whether"),
        ({"outcome": "completed"}, "without telling its usage"),
    ],
)
async def test_an_estimate_says_why(database, changes, part):
    request_id = new_request_id(1)
    await write_batch(database, [record_of(request_id, entries=(estimate_of(request_id),), **changes)])
    found = await explained(database, request_id)
    assert part in found.attempts[0].why_estimate
    assert part in explanation_text(found)


async def test_refusals_are_explained_newest_first(database):
    async with database.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
    spent = {"limit": "budget_usd_per_month", "scope": "team", "scope_id": "x", "maximum": 5_000_000_000}
    rows = [
        RefusalRow("a", team.id, "k", NOON_MS, 429, "insufficient_quota", {**spent, "retry_after_ms": None}),
        RefusalRow("b", team.id, "k", NOON_MS + 1, 429, "rate_limit_exceeded", {**spent, "retry_after_ms": 2500}),
        RefusalRow("c", team.id, "k", NOON_MS + 2, 402, "unpriced_model", {"model": "m"}),
    ]
    await keep_refusals(database, rows, NOON_MS)
    async with database.read() as connection:
        found = await explain_refusals(connection, team.id)
    assert [each.refusal.request_id for each in found] == ["c", "b", "a"]
    texts = [explanation_text(each) for each in found]
    assert "waiting does not help" in texts[2]
    assert "at most  $5.00" in texts[1]
    assert "after 2.5 s, at 2026-11-20 12:00:02.501 UTC" in texts[1]
    assert "Refused by" not in texts[0]
    assert data_of(found[2])["team"] == "search"


async def test_a_record_goes_before_a_refusal_and_nothing_is_none(database):
    record = record_of()
    await keep_refusals(database, [RefusalRow(record.request_id, "t", "k", NOON_MS, 429, "c")], NOON_MS)
    assert data_of(await explained(database, record.request_id))["kind"] == "refusal"
    await write_batch(database, [record])
    data = data_of(await explained(database, record.request_id))
    assert data["kind"] == "record"
    assert msgspec.json.decode(msgspec.json.encode(data)) == data
    assert await explained(database, "unknown") is None


def cached_of(request_id, cache, **changes):
    """What a request leaves for which nothing was sent upstream."""
    entry = entry_of(request_id, 0, usage=Usage(), cost_nanousd=0)
    return record_of(request_id, cache=cache, attempts=0, entries=(entry,), saved_nanousd=61_000, **changes)


@pytest.mark.parametrize(
    ("cache", "decision", "sentence"),
    [
        ("hit", {}, "It was answered from the cache; nothing was sent upstream."),
        ("hit", {"cache": "hit"}, "It was answered from the cache; nothing was sent upstream."),
        (
            "hit",
            {"cache": "idempotency key"},
            "It was answered from the cache: idempotency key; nothing was sent upstream.",
        ),
        ("joined", {"cache": "joined"}, "It joined a call that was in flight; nothing more was sent upstream."),
    ],
)
async def test_what_was_answered_from_the_cache_has_no_attempt(database, cache, decision, sentence):
    request_id = new_request_id(1)
    await write_batch(database, [cached_of(request_id, cache, decision=decision)])
    found = await explained(database, request_id)
    assert (found.attempts, found.about_cache) == ((), sentence)
    text = explanation_text(found)
    lines = text.splitlines()
    assert sentence in lines
    assert lines[lines.index("Bill") + 1 :] == ["  Nothing was charged.", "  The cache saved $0.000061."]
    assert "charge, openai" not in text
    assert "Decided" not in text
    data = data_of(found)
    assert (data["attempts"], data["about_cache"], data["cost_usd"]) == ([], sentence, "0")
    assert (data["cache"], data["decision"], data["saved_usd"]) == (cache, decision, "0.000061")
    async with database.read() as connection:
        assert (await prove(connection)).holds


async def test_the_limits_of_what_was_answered_from_the_cache_are_told(database):
    request_id = new_request_id(1)
    decision = {"cache": "hit", "limits": [["key", "requests_per_minute", 600, 597]]}
    await write_batch(database, [cached_of(request_id, "hit", decision=decision)])
    lines = explanation_text(await explained(database, request_id)).splitlines()
    assert lines.index("It was answered from the cache; nothing was sent upstream.") < lines.index("Bill")
    assert any(line.split() == ["key", "requests_per_minute", "600", "597"] for line in lines)


@pytest.mark.parametrize(
    ("cache", "told", "sentence"),
    [
        ("bypass", "temperature", "The cache was passed by: temperature."),
        ("bypass", "sto\x1b[31mre", "The cache was passed by: sto�[31mre."),
        ("miss", "miss", "The cache held no answer to it."),
        ("miss", "refresh", "The cache held no answer to it: refresh."),
        ("bypass", None, None),
        ("bypass", ["odd"], None),
    ],
)
async def test_why_the_cache_was_passed_by(database, cache, told, sentence):
    request_id = new_request_id(1)
    decision = {"observed": ["tokens_per_day"]} | ({} if told is None else {"cache": told})
    await write_batch(database, [record_of(request_id, cache=cache, decision=decision)])
    found = await explained(database, request_id)
    assert len(found.attempts) == 1
    text = explanation_text(found)
    assert "The cache " not in text if sentence is None else sentence in text.splitlines()
    decided = text.partition("Decided\n")[2].partition("\n\n")[0]
    assert "observed" in decided
    assert ("cache" in decided) == isinstance(told, list)
    assert data_of(found)["decision"] == decision
