"""Budgets as a client meets them, through the door, embedded and shared: spent exactly, held while calls run, by
whom, for what and until when.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from app.core.calendar import window_of
from app.core.ids import new_request_id
from app.store.batch import write_batch
from app.store.database import Database
from tests.contract.store.samples import entry_of, record_of
from tests.e2e.doors import FORMS, TOKEN_NANOUSD, Door, opened_door, outcome
from tests.fakes.fleet import wait_for
from tests.fakes.people import Key, now_ms, rule, zone_at

WINDOWS = ("day", "week", "month", "total")
HOUR_MS = 3_600_000
PASSED = (200, None)
SPENT = (429, "insufficient_quota")
HELD = (429, "rate_limit_exceeded")
UNPRICED = (402, "unpriced_model")
SEARCHING = {"model": "gpt-4.1", "tools": [{"type": "web_search"}], "most": 10}


@pytest.fixture(scope="module", params=FORMS)
def door(request, tmp_path_factory):
    with opened_door(tmp_path_factory.mktemp("door"), request.param) as door:
        yield door


NOON = zone_at(12)
"""No test meets the end of a day by accident."""


def budget(cents_of_a_dime: int, window: str = "total", **more):
    """So many output tokens of the model ``paid``."""
    zone = {} if window == "total" else {"time_zone": NOON}
    return rule("money", cents_of_a_dime * TOKEN_NANOUSD, window, **{**zone, **more})


def spend(door: Door, key: Key, tokens: int, **ask) -> tuple[int, str | None]:
    return outcome(door.ask(key, use=(1, tokens), most=tokens, **ask))


def counted(door: Door, name: str) -> float:
    return door.gateway.metrics().get(name, 0.0)


def moment(at_ms: int, form: str) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime(form)


# -- windows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
def test_a_budget_is_spent_to_the_cent_and_says_whose_how_much_and_until_when(door, window):
    key = door.people.key(budget(10, window))
    name = "budget_usd_total" if window == "total" else f"budget_usd_per_{window}"
    limited = f'headgate_limited_total{{limit="{name}",scope="key"}}'
    before = counted(door, limited), len(door.upstream.requests)
    assert [spend(door, key, tokens) for tokens in (4, 3, 4, 3, 1)] == [PASSED, PASSED, SPENT, PASSED, SPENT]
    assert (counted(door, limited), len(door.upstream.requests)) == (before[0] + 2, before[1] + 3)
    told = door.ask(key)
    ends_ms = window_of(window, NOON, now_ms())[1]
    until = "" if window == "total" else f" until {moment(ends_ms, '%Y-%m-%dT%H:%M:%S.000Z')}"
    per = "in total" if window == "total" else f"per {window} ({NOON})"
    assert told.json()["error"] == {
        "message": f"Budget spent: key {key.id} has a budget of $0.01 {per}; $0 is left{until}, and this request can"
        f" cost more ({name}).",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }
    assert told.headers["x-should-retry"] == "false"
    assert "retry-after" not in told.headers and "retry-after-ms" not in told.headers
    (row,) = door.limits(key)
    assert (row["limit"], row["maximum"], row["spent_usd"], row["remaining_usd"]) == (name, "0.01", "0.01", "0")
    assert row["window_ends_at"] == (None if window == "total" else moment(ends_ms, "%Y-%m-%dT%H:%M:%SZ"))


def test_a_day_begins_at_midnight_of_the_budgets_time_zone(door):
    """What was spent three hours ago was spent yesterday where it is one o'clock, and today where it is noon."""
    young = zone_at(1)
    key = door.people.key()
    at_ms = now_ms() - 3 * HOUR_MS
    request_id = new_request_id(at_ms)
    made = record_of(
        request_id,
        at_ms=at_ms,
        team_id=key.team_id,
        key_id=key.id,
        entries=(entry_of(request_id, cost_nanousd=8 * TOKEN_NANOUSD),),
    )

    async def bill() -> None:
        database = await Database.open(door.people.url)
        await write_batch(database, [made])
        await database.close()

    asyncio.run(bill())
    for zone, status, spent in ((young, 404, "0"), (NOON, 429, "0.008")):
        added = door.json(
            *("limits", "add", "--key", key.id, "--budget-usd", "0.01", "--window", "day", "--time-zone", zone)
        )
        assert added["spent_usd"] == spent
        # What the upstream refuses costs nothing, so that it tells what is left and takes nothing of it.
        wait_for(lambda: door.ask(key, most=11, status=404).status_code == 429)
        assert door.ask(key, most=3, status=404).status_code == status
        door.command("limits", "remove", added["id"])
        wait_for(lambda: door.ask(key, most=11, status=404).status_code == 404)


# -- whose, and for what ----------------------------------------------------------------------


def test_a_teams_budget_is_spent_by_all_of_its_keys(door):
    team = door.people.team(budget(10))
    one, other = door.people.key(team_id=team), door.people.key(budget(4), team_id=team)
    assert spend(door, one, 5) == PASSED
    assert [spend(door, other, tokens) for tokens in (3, 2, 1)] == [PASSED, SPENT, PASSED]
    assert "key " + other.id in door.ask(other).json()["error"]["message"]
    assert [spend(door, one, tokens) for tokens in (2, 1)] == [SPENT, PASSED]
    assert f"team {team} has a budget of $0.01 in total" in door.ask(one).json()["error"]["message"]


def test_a_budget_for_a_model_is_spent_by_that_model_only(door):
    key = door.people.key(budget(5, "month", model="paid-*"))
    asked = [("paid-a", 3), ("paid", 9), ("paid-b", 3), ("paid-b", 2), ("paid-a", 1), ("paid", 9)]
    assert [spend(door, key, tokens, model=model) for model, tokens in asked] == [
        *(PASSED, PASSED, SPENT, PASSED, SPENT, PASSED)
    ]
    assert f"key model {key.id}/paid-* has a budget" in door.ask(key, model="paid-a").json()["error"]["message"]


def test_a_budget_for_a_tag_is_spent_by_each_value_on_its_own(door):
    key = door.people.key(budget(5, "week", tag_name="project"), budget(6, "day", tag_name="env", tag_value="prod"))
    asked = ["project=a", "project=b", "project=a", None, "env=dev", "env=prod", "env=prod,project=c", "project=b"]
    told = [spend(door, key, 4, tags=each) for each in asked]
    assert told == [PASSED, PASSED, SPENT, PASSED, PASSED, PASSED, SPENT, SPENT]
    message = door.ask(key, most=9, tags="project=b").json()["error"]["message"]
    assert "tag project=b has a budget of $0.005 per week" in message
    rows = {(row["tag"], row["spent_usd"], row["remaining_usd"]) for row in door.limits(key)}
    assert rows == {
        ("project=a", "0.004", "0.001"),
        ("project=b", "0.004", "0.001"),
        ("env=prod", "0.004", "0.002"),
    }


# -- holds ------------------------------------------------------------------------------------


def test_only_holds_in_the_way_are_worth_a_retry(door):
    key = door.people.key(budget(10))
    limited = 'headgate_limited_total{limit="budget_held",scope="key"}'
    before = counted(door, limited)
    with door.running(key, most=8, use=(1, 2)) as first:
        told = door.ask(key, most=3)
        assert outcome(told) == HELD
        assert 1 <= int(told.headers["retry-after"]) <= 5
        assert 1000 <= int(told.headers["retry-after-ms"]) <= 5000
        assert "x-should-retry" not in told.headers
        assert told.json()["error"]["message"].startswith(
            f"Budget held: key {key.id} has a budget of $0.01 in total, of which $0.002 is neither spent nor held"
        )
        assert spend(door, key, 2) == PASSED, "what is left may be used"
    assert first.result().headers["x-headgate-cost-usd"] == "0.002"
    assert counted(door, limited) == before + 1
    assert [spend(door, key, tokens) for tokens in (7, 6)] == [SPENT, PASSED], "what was not used is free again"


def test_waits_for_holds_are_spread(door):
    """Those who wait for the same holds do not come back at the same moment."""
    key = door.people.key(budget(10))
    with door.running(key, most=10):
        waits = {int(door.ask(key).headers["retry-after-ms"]) for _ in range(8)}
    assert len(waits) > 4


def test_a_client_without_a_maximum_does_not_pin_the_budget(door):
    """It is held at the model's own longest answer while it runs, and no longer."""
    longest = 131_072
    key = door.people.key(budget(longest + 5))
    for _ in range(3):
        assert outcome(door.ask(key, most=None, use=(1, 1))) == PASSED
    with door.running(key, most=None, use=(1, 1)):
        told = door.ask(key, most=10)
        assert (outcome(told), "budget_held" in told.json()["error"]["message"]) == (HELD, True)
    assert spend(door, key, longest) == PASSED
    assert spend(door, key, 2) == SPENT


@pytest.mark.parametrize("bound", ["maximum", "estimate"])
def test_a_budget_holds_the_most_or_what_is_likely(door, bound):
    """The estimate of a first call is 1,024 tokens of output, whatever the model could say."""
    key = door.people.key(budget(2500, bound=bound))
    if bound == "maximum":
        told = door.ask(key, most=None)
        assert (outcome(told), "can cost more" in told.json()["error"]["message"]) == (SPENT, True)
        return
    with door.running(key, most=None, use=(1, 2000)), door.running(key, most=None, use=(1, 700)):
        assert outcome(door.ask(key, most=None)) == HELD
    (row,) = door.limits(key)
    assert (row["spent_usd"], row["remaining_usd"]) == ("2.7", "0"), "it may be exceeded by what runs"
    assert spend(door, key, 1) == SPENT


def test_what_is_unknown_counts_at_its_bound(door):
    """An upstream that fails after it has worked may bill: until that is known it is as if it had."""
    key = door.people.key(budget(10))
    assert door.ask(key, most=7, status=500).status_code == 500
    assert door.ask(key, most=7, status=400).status_code == SPENT[0]
    assert door.ask(key, most=3, status=400).status_code == 400
    assert spend(door, key, 3) == PASSED, "a refusal of the upstream's costs nothing"


# -- what costs nothing, and what nobody can price --------------------------------------------


def test_a_free_model_goes_on_under_a_spent_budget(door):
    key = door.people.key(budget(3))
    assert [spend(door, key, 3), spend(door, key, 1)] == [PASSED, SPENT]
    assert [spend(door, key, 500, model="free") for _ in range(3)] == [PASSED] * 3
    assert door.ask(key, model="free").headers["x-headgate-cost-usd"] == "0"


def test_a_model_without_a_price_is_refused_under_a_budget_only(door):
    key, free = door.people.key(budget(5)), door.people.key()
    refused = 'headgate_refused_total{code="unpriced_model"}'
    before = counted(door, refused)
    told = door.ask(key, model="nameless")
    assert outcome(told) == UNPRICED
    assert (told.json()["error"]["param"], told.headers["x-should-retry"]) == ("model", "false")
    assert f"key {key.id} has a budget" in told.json()["error"]["message"]
    assert counted(door, refused) == before + 1
    passed = door.ask(free, model="nameless", use=(7, 9))
    assert (outcome(passed), "x-headgate-cost-usd" in passed.headers) == (PASSED, False)
    observed = door.people.key(budget(5, mode="observe"))
    assert outcome(door.ask(observed, model="nameless")) == PASSED
    door.settled()
    rows = {row["team"]: row["unpriced"] for row in door.json("usage", "--by", "team")}
    assert [rows[door.people.name_of_team(each.team_id)] for each in (free, observed)] == [1, 1]
    assert sum(
        value for name, value in door.gateway.metrics().items() if name.startswith("headgate_unpriced_requests_total{")
    ) == sum(rows.values())


def test_a_tool_that_nothing_bounds_is_refused_under_a_hard_budget(door):
    key = door.people.key(budget(100_000))
    told = door.ask(key, **SEARCHING)
    assert outcome(told) == (400, "invalid_request")
    assert "max_tool_calls" in told.json()["error"]["message"]
    assert outcome(door.ask(key, **SEARCHING, max_tool_calls=2)) == PASSED
    assert outcome(door.ask(door.people.key(budget(100_000, bound="estimate")), **SEARCHING)) == PASSED
    assert outcome(door.ask(door.people.key(), **SEARCHING)) == PASSED


# -- changes ----------------------------------------------------------------------------------


def test_an_observed_budget_is_counted_and_refuses_nothing(door):
    key = door.people.key(budget(5, mode="observe"))
    names = [f'headgate_{each}_total{{limit="budget_usd_total",scope="key"}}' for each in ("would_limit", "limited")]
    before = [counted(door, name) for name in names]
    assert [spend(door, key, 4) for _ in range(3)] == [PASSED] * 3
    assert [counted(door, name) - was for name, was in zip(names, before, strict=True)] == [2, 0]
    (row,) = door.limits(key)
    assert (row["mode"], row["spent_usd"], row["remaining_usd"]) == ("observe", "0.012", "0")
    door.people.update(row["id"], mode="enforce")
    wait_for(lambda: spend(door, key, 1) == SPENT)


def test_a_budget_that_is_lowered_below_what_is_spent_and_raised_again(door):
    key = door.people.key(budget(10))
    assert spend(door, key, 6) == PASSED
    door.command("limits", "update", key.limits[0], "--budget-usd", "0.004")
    wait_for(lambda: spend(door, key, 1) == SPENT)
    (lowered,) = door.limits(key)
    assert lowered["remaining_usd"] == "0"
    door.command("limits", "update", key.limits[0], "--budget-usd", "0.02")
    wait_for(lambda: spend(door, key, 1) == PASSED)
    (raised,) = door.limits(key)
    assert (raised["id"], raised["maximum"]) == (key.limits[0], "0.02")
    before = round(float(lowered["spent_usd"]) * 1000)
    assert round(float(raised["spent_usd"]) * 1000) == before + 1
    assert [spend(door, key, 20 - before), spend(door, key, 19 - before)] == [SPENT, PASSED]


def test_a_key_that_is_rotated_has_spent_what_it_has_spent(door):
    key = door.people.key(budget(5, "month"))
    assert spend(door, key, 4) == PASSED
    rotated = door.json("keys", "rotate", key.id)
    second = Key(key.id, key.team_id, rotated["key"], key.limits)
    assert [spend(door, second, 2), spend(door, key, 2), spend(door, second, 1)] == [SPENT, SPENT, PASSED]
    assert (door.limits(key)[0]["id"], door.limits(key)[0]["spent_usd"]) == (key.limits[0], "0.005")


def test_many_at_once_never_spend_more_than_there_is(door):
    key = door.people.key(budget(20))
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: spend(door, key, 3), range(24)))
    # Those that met a hold might have fitted later; none may be one too many.
    assert 1 <= told.count(PASSED) <= 6
    assert set(told) <= {PASSED, SPENT, HELD}
    (row,) = door.limits(key)
    assert row["spent_usd"] == f"{told.count(PASSED) * 0.003:.3f}"


def test_a_gateway_that_starts_again_knows_what_was_spent(door):
    key = door.people.key(budget(10, "month"))
    assert spend(door, key, 6) == PASSED
    # What an answer came to is written down right behind it.
    wait_for(lambda: door.gateway.metrics()["headgate_in_flight"] == 0)
    door.gateway.kill()
    door.gateway.start()
    wait_for(lambda: spend(door, key, 1, model="free") == PASSED)
    # What was settled in the last moment counts as held until the ledger's word for it is in.
    assert spend(door, key, 5) in {SPENT, HELD}
    wait_for(lambda: spend(door, key, 5) == SPENT)
    assert spend(door, key, 4) == PASSED


def test_nothing_is_left_over(door):
    """Run last: what SQL has is what limits go by."""
    door.settled()
    assert door.gateway.metrics()["headgate_in_flight"] == 0
    proof = door.json("check", "--ledger")
    assert proof["ok"], proof
