"""``headgate explain``: which limits were checked for a request, and what they said; admitted, interrupted, refused."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.e2e.doors import FORMS, Door, opened_door, outcome
from tests.fakes.fleet import wait_for
from tests.fakes.people import Key, rule

PROTECTED = {"narrow": "{concurrency: 9}"}
TEN_CENTS = 100_000_000


@pytest.fixture(scope="module", params=FORMS)
def door(request, tmp_path_factory):
    with opened_door(tmp_path_factory.mktemp("door"), request.param, limited=PROTECTED) as door:
        yield door


@pytest.fixture(scope="module")
def key(door) -> Key:
    team = door.people.team(rule("requests", 1000, "day"))
    return door.people.key(
        rule("requests", 100, "hour"),
        rule("concurrency", 1),
        rule("money", TEN_CENTS, "month", tag_name="project"),
        rule("tokens", 1, "day", mode="observe"),
        team_id=team,
    )


def explained(door: Door, request_id: str) -> tuple[list[str], dict]:
    """The lines of the text, each with single spaces, and what the JSON says was decided."""
    text = door.command("explain", request_id)
    return [" ".join(line.split()) for line in text.splitlines()], door.json("explain", request_id)["decision"]


def test_an_admitted_request(door, key):
    answer = door.ask(key, most=20, use=(3, 5), tags="project=a")
    door.settled()
    lines, decision = explained(door, answer.headers["x-headgate-request-id"])
    assert lines[lines.index("Limits, as they were checked") + 1 :][:6] == [
        "of limit at most left",
        "key requests_per_hour 100 99",
        "key tokens_per_day 1 0",
        "key concurrency 1 0",
        "team requests_per_day 1,000 999",
        "tag budget_usd_per_month $0.10 $0.08",
    ]
    assert "observed tokens_per_day" in lines
    assert lines[lines.index("Money") + 1 :] == ["held while it ran $0.02", "came to $0.005 25.0% of it"]
    assert decision["reserved_nanousd"] == 20_000_000
    assert ["tag", "budget_usd_per_month", TEN_CENTS, TEN_CENTS - 20_000_000] in decision["limits"]


def test_a_request_under_limits_of_its_upstream(door, key):
    answer = door.ask(key, model="narrow", use=(3, 5))
    door.settled()
    lines, _ = explained(door, answer.headers["x-headgate-request-id"])
    assert "upstream concurrency 9 8" in lines
    assert "key requests_per_hour 100 98" in lines


def test_a_refused_request(door, key):
    with door.running(key, model="free"):
        refused = door.ask(key)
    request_id = refused.headers["x-headgate-request-id"]
    wait_for(lambda: request_id in door.command("explain", "--team", key.team_id, "--refusals"))
    lines, decision = explained(door, request_id)
    assert "answer 429 rate_limit_exceeded" in lines
    at = lines.index("Refused by")
    assert lines[at + 1 : at + 3] == [f"limit concurrency of key {key.id}", "at most 1"]
    assert lines[at + 3] == "needed 1"
    assert lines[at + 4].startswith("again after 1 s, at ")
    checked = lines[lines.index("Limits, as they were checked") + 2 :]
    assert {line.rsplit(" ", 2)[0] for line in checked[:4]} == {
        *("key requests_per_hour", "key tokens_per_day", "key concurrency", "team requests_per_day"),
    }
    assert lines[-1] == "Nothing was sent and nothing was charged."
    assert (decision["limit"], decision["scope_id"], decision["maximum"]) == ("concurrency", key.id, 1)


def test_a_request_that_a_spent_budget_refused(door, key):
    refused = door.ask(key, most=101, tags="project=b")
    request_id = refused.headers["x-headgate-request-id"]
    wait_for(lambda: request_id in door.command("explain", "--team", key.team_id, "--refusals"))
    lines, _ = explained(door, request_id)
    at = lines.index("Refused by")
    assert lines[at + 1 : at + 5] == [
        "limit budget_usd_per_month of tag project=b",
        "at most $0.10",
        "needed $0.101",
        "again waiting does not help: the request alone is larger than the limit",
    ]
    assert "tag budget_usd_per_month $0.10 $0.10" in lines


def test_an_interrupted_request(door, key):
    """Its process was killed while it ran: what its limits had said was written down before it was sent."""
    with door.running(key, most=20, tags="project=c") as running:
        door.gateway.kill()
        assert running.exception(10) is not None
        door.gateway.start()

        def rows() -> list[dict]:
            return [row for row in door.people.records_of(key.id) if row["outcome"] == "interrupted"]

        wait_for(rows, 20)
    (row,) = rows()
    lines, decision = explained(door, row["request_id"])
    assert any("interrupted (no answer, gateway_crashed)" in line for line in lines)
    assert "tag budget_usd_per_month $0.10 $0.08" in lines
    assert "key concurrency 1 0" in lines
    assert "team requests_per_day 1,000" in " ".join(lines)
    assert decision["sent"] == "unknown"
    assert any(line.startswith("Why an estimate: ") for line in lines)
    assert "held while it ran $0.02" in lines
    assert json.loads(row["decision"]) == decision


def test_a_budget_that_is_spent_is_free_again_when_its_next_window_begins(door):
    key = door.people.key(rule("money", 2_000_000, "day"))
    assert door.ask(key, use=(0, 2), most=2).status_code == 200
    refused = door.ask(key)
    request_id = refused.headers["x-headgate-request-id"]
    wait_for(lambda: request_id in door.command("explain", "--team", key.team_id, "--refusals"))
    lines, decision = explained(door, request_id)
    again = next(line for line in lines if line.startswith("again "))
    assert again.startswith("again when the next window begins, at ")
    assert "00:00:0" in again or "23:59:59" in again
    assert (decision["needed"], decision["maximum"]) == (1_000_000, 2_000_000)


def test_a_clients_own_text_is_not_kept_with_a_refusal(door):
    key = door.people.key()
    body = '{"model":"paid","input":"hi","my own words":1,"my own words":2}'
    headers = {**key.headers, "content-type": "application/json"}
    refused = httpx.post(f"{door.base_url}/responses", content=body, headers=headers)
    assert outcome(refused) == (400, "ambiguous_json")
    request_id = refused.headers["x-headgate-request-id"]
    wait_for(lambda: request_id in door.command("explain", "--team", key.team_id, "--refusals"))
    assert "my own words" not in door.command("explain", request_id)
    assert explained(door, request_id)[1] == {"endpoint": "responses"}


@pytest.mark.parametrize(
    ("model", "body", "status", "code"),
    [
        ("paid-not", {}, 403, "model_not_allowed"),
        ("unpriced", {}, 402, "unpriced_model"),
        ("paid", {"max_output_tokens": "many"}, 400, "invalid_request"),
        ("paid", {"previous_response_id": "resp_unknown"}, 404, "previous_response_not_found"),
    ],
)
def test_every_refusal_of_a_known_key_is_kept(door, model, body, status, code):
    key = door.people.key(rule("money", 2_000_000, "day"), models=("paid", "unpriced"))
    refused = door.ask(key, model=model, **body, most=None)
    assert outcome(refused) == (status, code)
    request_id = refused.headers["x-headgate-request-id"]
    wait_for(lambda: request_id in door.command("explain", "--team", key.team_id, "--refusals"))
    lines, decision = explained(door, request_id)
    assert f"answer {status} {code}" in lines
    assert decision["endpoint"] == "responses"
    if status != 400:
        assert decision["model"] == model
