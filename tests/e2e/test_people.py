"""Keys, teams and limits as people use them: by the command line, with running servers that follow."""

from __future__ import annotations

import json
import stat
import time
from datetime import datetime

import httpx
import openai
import pytest
from openai import OpenAI

from tests.fakes.fleet import wait_for
from tests.fakes.gateway import SIMULATED, RunningGateway
from tests.fakes.postgres import shared_server
from tests.fakes.valkey import ValkeyServer

BODY = {"model": "sim-large", "input": "hi"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("people")) as gateway:
        yield gateway


def ask(gateway: RunningGateway, key: str, **more) -> httpx.Response:
    return httpx.post(
        f"{gateway.base_url}/responses", json={**BODY, **more}, headers={"authorization": f"Bearer {key}"}, timeout=30
    )


def test_the_first_run_leaves_what_a_first_request_needs(gateway):
    made = gateway.first_run
    assert set(made) == {"team", "key", "admin_token", "base_url"}
    assert made["base_url"] == gateway.base_url
    assert stat.S_IMODE((gateway.data_dir / "first-run.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(gateway.data_dir.stat().st_mode) == 0o700
    assert ask(gateway, made["key"]).status_code == 200


def test_a_second_gateway_on_the_data_dir_is_refused(gateway):
    refused = gateway.command("serve", "--config", str(gateway.config), "--port", "0", check=False)
    assert refused.returncode == 1
    assert "another gateway" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.quiet
def test_a_new_key_works_at_once_and_a_revoked_one_stops_within_a_second(gateway):
    made = gateway.json("keys", "create", "--team", "default", "--name", "short-lived")
    assert set(made) >= {"id", "key"}
    assert ask(gateway, made["key"]).status_code == 200
    gateway.command("keys", "revoke", made["id"])
    deadline = time.monotonic() + 1
    while (answer := ask(gateway, made["key"])).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert answer.status_code == 401
    assert gateway.json("keys", "show", made["id"])["state"] == "revoked"


@pytest.mark.quiet
def test_a_rotated_key_is_the_same_key_with_another_secret(gateway):
    made = gateway.json("keys", "create", "--team", "default", "--name", "turning")
    second = gateway.json("keys", "rotate", "turning")
    assert (second["id"], second["name"]) == (made["id"], "turning")
    assert second["key"].startswith(f"sk-hg-{second['secret_id']}-")
    assert [ask(gateway, each["key"]).status_code for each in (made, second)] == [200, 200]
    shown = gateway.json("keys", "show", second["secret_id"])
    old, new = shown["secrets"]
    assert (old["id"], old["state"], new["id"], new["expires_at"]) == (made["id"], "active", second["secret_id"], None)
    runs_out_s = datetime.fromisoformat(old["expires_at"]).timestamp() - time.time()
    assert 86_300 < runs_out_s <= 86_400

    third = gateway.json("keys", "rotate", made["id"], "--overlap", "0")
    deadline = time.monotonic() + 1
    while any(ask(gateway, each["key"]).status_code == 200 for each in (made, second)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [ask(gateway, each["key"]).status_code for each in (made, second, third)] == [401, 401, 200]
    text = gateway.command("keys", "show", made["id"]).stdout
    assert [text.count(f"({state}") for state in ("expired", "active")] == [2, 1]
    assert not any(each["key"] in text for each in (made, second, third))

    # The last of them may still be on its way to the ledger.
    wait_for(lambda: sum(row["requests"] for row in gateway.usage("key") if "turning" in row.values()) >= 3)

    assert gateway.command("keys", "rotate", made["id"], "--overlap", "soon", check=False).returncode == 2
    gateway.command("keys", "revoke", made["id"])
    refused = gateway.command("keys", "rotate", made["id"], check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "is revoked" in refused.stderr


def test_every_bad_key_has_the_same_answer(gateway):
    revoked = gateway.json("keys", "create", "--team", "default", "--name", "r")
    gateway.command("keys", "revoke", revoked["id"])
    expired = gateway.json("keys", "create", "--team", "default", "--name", "e", "--expires", "1m")
    gateway.command("keys", "update", expired["id"], "--expires", "2099-01-01")
    good = expired["key"]
    wait_for(lambda: ask(gateway, revoked["key"]).status_code == 401)
    bad = [revoked["key"], "sk-hg-garbage", good[:-1] + ("0" if good[-1] != "0" else "1"), "' OR '1'='1", "x" * 600]
    bad.append(gateway.first_run["admin_token"])
    answers = [ask(gateway, key) for key in bad] + [httpx.post(f"{gateway.base_url}/responses", json=BODY)]
    bodies = {answer.text for answer in answers}
    names = {frozenset(answer.headers) for answer in answers}
    assert {answer.status_code for answer in answers} == {401}
    assert len(bodies) == len(names) == 1
    assert ask(gateway, good).status_code == 200


def test_a_key_is_accepted_in_three_headers_and_never_in_the_query(gateway):
    for name, value in (
        ("x-api-key", gateway.key),
        ("api-key", gateway.key),
        ("Authorization", f"bearer {gateway.key}"),
    ):
        assert httpx.post(f"{gateway.base_url}/responses", json=BODY, headers={name: value}).status_code == 200
    assert httpx.post(f"{gateway.base_url}/responses?api_key={gateway.key}", json=BODY).status_code == 401


@pytest.mark.parametrize("prefix", ["/v1", "/openai/v1", ""])
def test_the_api_answers_under_each_prefix(gateway, prefix):
    assert httpx.post(f"{gateway.url}{prefix}/responses", json=BODY, headers=gateway.headers).status_code == 200
    assert httpx.get(f"{gateway.url}{prefix}/models", headers=gateway.headers).status_code == 200


def test_a_key_can_be_held_to_models_and_endpoints(gateway):
    made = gateway.json(
        "keys",
        "create",
        "--team",
        "default",
        "--name",
        "narrow",
        "--models",
        "sim-m*,gpt-4o",
        "--endpoints",
        "responses,models",
    )
    assert ask(gateway, made["key"], model="sim-mini").status_code == 200
    refused = ask(gateway, made["key"], model="sim-large")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    headers = {"authorization": f"Bearer {made['key']}"}
    chat = httpx.post(
        f"{gateway.base_url}/chat/completions", json={"model": "sim-mini", "messages": []}, headers=headers
    )
    assert (chat.status_code, chat.json()["error"]["code"]) == (403, "endpoint_not_allowed")
    listed = httpx.get(f"{gateway.base_url}/models", headers=headers).json()["data"]
    assert [model["id"] for model in listed] == ["sim-mini"]
    gateway.command("keys", "update", made["id"], "--models", "all")
    wait_for(lambda: ask(gateway, made["key"], model="sim-large").status_code == 200)


def test_teams_and_keys_are_listed_and_changed(gateway):
    team = gateway.json("teams", "create", "--name", "search", "--requests-per-minute", "100")
    key = gateway.json("keys", "create", "--team", "search", "--name", "ci", "--concurrency", "5", "--expires", "30d")
    assert gateway.json("keys", "list", "--team", "search")[0]["id"] == key["id"]
    assert "key" not in gateway.json("keys", "show", "ci", "--team", "search")
    gateway.command("teams", "update", "search", "--name", "find", "--requests-per-minute", "none")
    (row,) = [row for row in gateway.json("teams", "list") if row["id"] == team["id"]]
    assert (row["name"], row["requests_per_minute"]) == ("find", None)
    again = gateway.command("teams", "create", "--name", "find", check=False)
    assert (again.returncode, again.stdout) == (1, "")
    assert "already" in again.stderr
    assert gateway.command("keys", "create", "--team", "nobody", "--name", "x", check=False).returncode == 1
    assert gateway.command("keys", "create", "--team", "find", check=False).returncode == 2
    for wrong in (("--concurrency", "0"), ("--expires", "yesterday"), ("--endpoints", "file"), ("--name", "")):
        assert gateway.command("keys", "create", "--team", "find", "--name", "y", *wrong, check=False).returncode == 2


def test_previous_response_id_belongs_to_its_team(gateway):
    other = gateway.json("teams", "create", "--name", "other")
    key = gateway.json("keys", "create", "--team", other["id"], "--name", "k")["key"]
    first = ask(gateway, gateway.key).json()["id"]
    assert ask(gateway, gateway.key, previous_response_id=first).status_code == 200
    foreign = ask(gateway, key, previous_response_id=first)
    unknown = ask(gateway, key, previous_response_id=first[:-2] + "zz")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json()["error"]["param"] == "previous_response_id"
    assert foreign.text.replace(first, "ID") == unknown.text.replace(first[:-2] + "zz", "ID")


@pytest.mark.parametrize(
    "more",
    [
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1"}},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"id": "msg_1"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
        {"input": [{"type": "image_generation_call", "id": "ig_1", "status": "completed"}]},
        {"input": [{"type": "reasoning", "id": "rs_1"}]},
        {"input": [{"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}]},
        {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
        {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}}]},
    ],
)
def test_other_stored_objects_are_not_found(gateway, more):
    answer = ask(gateway, gateway.key, **more)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_a_clients_own_words_are_not_taken_for_references(gateway):
    schema = {"type": "object", "properties": {"file_id": {"type": "string"}, "container": {"type": "string"}}}
    tool = {"type": "function", "name": "f", "parameters": schema}
    text = 'Look at {"file_id": "file-1"} and {"type": "item_reference"}.'
    assert ask(gateway, gateway.key, tools=[tool], input=text, metadata={"file_id": "x"}).status_code == 200


def test_paths_that_are_not_in_the_table_are_not_found(gateway):
    for path in (
        "/v1/organization/usage",
        "/v1/organization/usage",
        "/v1/projects",
        "/v1/api_keys",
        "/v1/realtime/client_secrets",
        "/v1/responses/",
        "/v1",
        "/v1/../metrics",
        "/v1/%2e%2e/metrics",
        "/v1//responses",
        "/v1/responses;x",
        "/V1/responses",
        "/v1/responses/%2e%2e",
        "/v1/responses/..%2fadmin",
        "/v1/responses/resp_1/cancel/x",
    ):
        raw = httpx.URL(gateway.url).copy_with(raw_path=path.encode())
        answer = httpx.post(raw, json=BODY, headers=gateway.headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
    wrong = httpx.get(f"{gateway.base_url}/responses", headers=gateway.headers)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "OPTIONS, POST")
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-key": "x", "sec-websocket-version": "13"}
    assert httpx.get(f"{gateway.base_url}/responses", headers={**gateway.headers, **upgrade}).status_code == 400


def test_prompts_and_keys_are_in_no_log_metric_or_file(gateway):
    canary = "canary-prompt-7f3a"
    for stream in (False, True):
        assert ask(gateway, gateway.key, input=canary, stream=stream).status_code == 200
    # The name of a model that was refused is kept in the ledger, to explain it, and told nowhere else.
    named = "canary-model-91c2"
    ask(gateway, gateway.key, input=canary, model=f"bad\x00{named}")
    gateway.records(wait_for=2)
    secret = gateway.key.rpartition("-")[2]
    texts = [gateway.log_path.read_bytes(), httpx.get(f"{gateway.url}/metrics").content]
    assert not any(named.encode() in text for text in texts)
    texts += [
        path.read_bytes() for path in gateway.data_dir.rglob("*") if path.is_file() and path.name != "first-run.json"
    ]
    for text in texts:
        assert canary.encode() not in text
        assert secret.encode() not in text


# -- limits, alone and shared -----------------------------------------------------------------


def limits_hold(gateways: list[RunningGateway]) -> None:
    first = gateways[0]
    made = first.json(
        "keys",
        "create",
        "--team",
        "default",
        "--name",
        "five",
        "--requests-per-minute",
        "5",
        "--tokens-per-minute",
        "1000000",
    )
    answers = [ask(gateways[number % len(gateways)], made["key"]) for number in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    remaining = [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers[:5]]
    assert remaining == [4, 3, 2, 1, 0]
    assert answers[0].headers["x-ratelimit-limit-tokens"] == "1000000"
    refused = answers[-1]
    error = refused.json()["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert "requests_per_minute" in error["message"]
    assert "key" in error["message"]
    assert 0 < int(refused.headers["retry-after"]) <= 61
    assert int(refused.headers["retry-after-ms"]) <= 61_000
    large = first.json("keys", "create", "--team", "default", "--name", "tiny", "--tokens-per-minute", "10")
    never = ask(first, large["key"])
    assert (never.status_code, never.json()["error"]["code"]) == (429, "insufficient_quota")
    assert never.headers["x-should-retry"] == "false"
    assert "retry-after" not in never.headers


def test_limits_hold_in_memory(gateway):
    limits_hold([gateway])
    metrics = gateway.metrics()
    assert metrics['headgate_limited_total{limit="requests_per_minute",scope="key"}'] == 2
    assert metrics['headgate_refused_total{code="rate_limit_exceeded"}'] == 2


async def test_limits_owners_and_revocation_hold_across_replicas(tmp_path):
    with ValkeyServer() as redis:
        shared = {"HEADGATE_DATABASE_URL": await shared_server().create_database(), "HEADGATE_REDIS_URL": redis.url}
        first = RunningGateway(tmp_path / "a", SIMULATED, **shared)
        second = RunningGateway(tmp_path / "b", SIMULATED, **shared)
        with first, second:
            limits_hold([first, second])
            made = first.json("keys", "create", "--team", "default", "--name", "both")
            assert ask(second, made["key"]).status_code == 200
            owned = ask(first, made["key"]).json()["id"]
            # The other replica's simulator does not have it, but its owner is known there at once.
            assert ask(second, made["key"], previous_response_id=owned).status_code != 404
            first.command("keys", "revoke", made["id"])
            headers = {"authorization": f"Bearer {made['key']}"}
            wait_for(lambda: httpx.get(f"{second.base_url}/models", headers=headers).status_code == 401)
            wait_for(lambda: sum(row["requests"] for row in first.usage()) == 8)
            assert first.check_ledger()["ok"]


def test_concurrency_one_serves_a_thousand_requests_back_to_back(gateway):
    made = gateway.json("keys", "create", "--team", "default", "--name", "single", "--concurrency", "1")
    with OpenAI(base_url=gateway.base_url, api_key=made["key"], max_retries=0) as client:
        for number in range(1000):
            if number % 2:
                client.responses.create(model="sim-large", input="[[sim: tokens=3]] hi")
                continue
            for event in client.responses.create(model="sim-large", input="[[sim: tokens=3]] hi", stream=True):
                if event.type == "response.completed":
                    break
    with OpenAI(base_url=gateway.base_url, api_key=made["key"], max_retries=0) as client:
        held = client.responses.create(model="sim-large", input="[[sim: tokens=50 pace_ms=50]] hi", stream=True)
        next(iter(held))
        with pytest.raises(openai.RateLimitError, match="concurrency"):
            client.responses.create(model="sim-large", input="hi")
        held.close()


def test_metrics_are_closed_beyond_loopback(tmp_path):
    with RunningGateway(tmp_path, SIMULATED, "--host", "0.0.0.0", HEADGATE_METRICS_TOKEN="m-token") as gateway:
        assert httpx.get(f"{gateway.url}/metrics").status_code == 401
        assert httpx.get(f"{gateway.url}/metrics", headers={"authorization": "Bearer m-token"}).status_code == 200
        assert httpx.get(f"{gateway.url}/healthz").status_code == 200
        assert json.loads(httpx.get(f"{gateway.url}/nowhere").text)["error"]["code"] == "not_found"


async def test_of_two_gateways_without_redis_on_one_ledger_only_one_decides_strict_limits(tmp_path):
    """Each would count budgets for itself, and both together would pass them. Whoever has none goes on."""
    for name, ledger in (("p", await shared_server().create_database()), ("s", f"sqlite:///{tmp_path / 'ledger.db'}")):
        first = RunningGateway(tmp_path / f"{name}1", SIMULATED, HEADGATE_DATABASE_URL=ledger)
        second = RunningGateway(tmp_path / f"{name}2", SIMULATED, HEADGATE_DATABASE_URL=ledger)
        with first, second:
            options = ("--budget-usd", "5", "--budget-window", "month")
            made = first.json("keys", "create", "--team", "default", "--name", "spends", *options)
            assert [ask(each, first.key).status_code for each in (first, second)] == [200, 200]
            assert ask(first, made["key"]).status_code == 200
            refused = ask(second, made["key"])
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "limits_unavailable")
            assert second.metrics()['headgate_degraded{dependency="sole_writer"}'] == 1
            (told,) = [line for line in second.log() if line.get("dependency") == "sole_writer"]
            assert "another gateway without a Redis runs on this ledger" in told["reason"]
            first.kill()
            # The other one takes over by itself.
            deadline = time.monotonic() + 30
            while ask(second, made["key"]).status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert second.metrics()['headgate_degraded{dependency="sole_writer"}'] == 0
    backup = str(tmp_path / "b.gz")
    with RunningGateway(tmp_path / "s1", SIMULATED, HEADGATE_DATABASE_URL=ledger) as gateway:
        gateway.command("backup", backup)
        elsewhere = RunningGateway(tmp_path / "s4", SIMULATED, HEADGATE_DATABASE_URL=ledger)
        refused = elsewhere.command("restore", backup, "--replace", check=False)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "stop it, and restore then" in " ".join(refused.stderr.split())


def test_an_expiry_beyond_all_dates_is_refused_and_nothing_is_made(gateway):
    for wrong in ("999999w", "9999-12-31T23:59:59-12:00"):
        made = gateway.command("keys", "create", "--team", "default", "--name", "far", "--expires", wrong, check=False)
        assert (made.returncode, made.stdout) == (2, "")
        assert "after the year 9999" in " ".join(made.stderr.replace("│", " ").split())
    assert "far" not in gateway.command("keys", "list").stdout


def test_usage_is_grouped_by_one_period_and_each_group_once(gateway):
    twice = gateway.command("usage", "--by", "hour,day", check=False)
    assert (twice.returncode, twice.stdout) == (2, "")
    assert "at most one of hour, day, week, month" in " ".join(twice.stderr.replace("│", " ").split())
    assert gateway.command("usage", "--by", "team,team").stdout == gateway.command("usage", "--by", "team").stdout
