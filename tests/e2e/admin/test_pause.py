"""An upstream that an administrator has paused: nothing new goes there, from any gateway, until it is resumed."""

from __future__ import annotations

import json

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.e2e.admin.people import Admin
from tests.e2e.test_fallback import FINE, site
from tests.e2e.test_reload import reload
from tests.fakes.fleet import Stores, wait_for
from tests.fakes.gateway import RunningGateway

BODY = {"model": "sim-large", "input": "hi"}


def state(admin: Admin, name: str = "simulator") -> str:
    return next(each["state"] for each in admin.ask("GET", "/upstreams")["data"] if each["name"] == name)


def attention(admin: Admin) -> list[str]:
    return [item["title"] for item in admin.ask("GET", "/overview?tz=UTC")["attention"]]


def paused_metric(gateway: RunningGateway, name: str = "simulator") -> float:
    return gateway.metrics()[f'headgate_upstream_paused{{upstream="{name}"}}']


def set_paused(gateway: RunningGateway, admin: Admin, verb: str, name: str = "simulator") -> dict:
    """Until the gateway knows."""
    told = admin.ask("POST", f"/upstreams/{name}/{verb}")
    wait_for(lambda: paused_metric(gateway, name) == (verb == "pause"))
    return told


@pytest.fixture
def paused(gateway, admin):
    set_paused(gateway, admin, "pause")
    yield gateway
    set_paused(gateway, admin, "resume")


@pytest.fixture
def client(gateway):
    families = "responses,chat,models,moderations,conversations,files,batches,realtime"
    name = f"all-{len(gateway.json('keys', 'list'))}"
    team = gateway.json("teams", "create", "--name", name)["id"]
    key = gateway.json("keys", "create", "--team", team, "--name", name, "--endpoints", families)["key"]
    with httpx.Client(base_url=gateway.base_url, headers={"authorization": f"Bearer {key}"}, timeout=30) as made:
        yield made


def refused(answer: httpx.Response) -> bool:
    assert answer.status_code == 503, answer.text
    assert answer.headers["x-should-retry"] == "false"
    return answer.json()["error"]["code"] == "upstream_paused"


def test_it_is_told_who_has_paused_it_and_since_when(gateway, admin):
    assert state(admin) == "healthy"
    told = set_paused(gateway, admin, "pause")
    assert told["name"] == "simulator"
    again = admin.ask("POST", "/upstreams/simulator/pause")
    assert again == told, "once more changes nothing"
    row = admin.ask("GET", "/upstreams")["data"][0]
    assert (row["state"], row["paused"], row["since"]) == ("paused", told["paused"], told["paused"]["since"])
    assert admin.ask("GET", "/service")["upstreams"][0]["state"] == "paused"
    assert "simulator is paused" in attention(admin)
    assert set_paused(gateway, admin, "resume") == {"name": "simulator", "paused": None}
    assert admin.ask("POST", "/upstreams/simulator/resume") == {"name": "simulator", "paused": None}
    assert state(admin) == "healthy"
    assert "simulator is paused" not in attention(admin)
    changes = admin.ask("GET", "/audit?object_kind=upstream")["data"][:2]
    assert [each["action"] for each in changes] == ["upstream.resume", "upstream.pause"], "two changes, not four"
    assert changes[1]["after"] == {"paused": told["paused"]}
    assert changes[1]["actor"]["name"] == told["paused"]["by"]
    assert admin.code("POST", "/upstreams/nobody/pause") == (404, "not_found")
    assert admin.code("POST", "/upstreams/nobody/resume") == (404, "not_found")


def test_what_is_new_is_refused_and_leaves_nothing_on_the_bill(paused, client, admin):
    before = len(paused.records())
    answer = client.post("/responses", json=BODY)
    assert refused(answer)
    assert answer.headers["x-headgate-upstream"] == "simulator"
    assert refused(client.post("/responses", json={**BODY, "stream": True}))
    assert refused(client.post("/chat/completions", json={"model": "sim-large", "messages": []}))
    assert refused(client.post("/moderations", json={"input": "hi"}))
    assert refused(client.post("/conversations", json={}))
    assert refused(client.post("/responses/input_tokens", json=BODY))
    assert refused(client.post("/files", files={"file": ("a.jsonl", b"{}")}, data={"purpose": "batch"}))
    assert client.get("/models").status_code == 200
    assert len(paused.records()) == before
    request_id = answer.headers["x-headgate-request-id"]
    told = wait_for(lambda: (found := admin.get(f"/explain/{request_id}")).status_code == 200 and found.json())
    assert (told["kind"], told["code"]) == ("refusal", "upstream_paused")
    assert told["decision"]["paused"] == ["simulator"]


def test_what_is_stored_can_be_read_and_deleted_and_a_cancel_goes_through(gateway, admin, client):
    stored = client.post("/responses", json=BODY).json()["id"]
    running = client.post("/responses", json={**BODY, "background": True, "input": "[[sim: pace_ms=50 tokens=2000]]"})
    set_paused(gateway, admin, "pause")
    try:
        assert client.get(f"/responses/{stored}").status_code == 200
        assert client.get(f"/responses/{stored}/input_items").status_code == 200
        assert refused(client.post("/responses", json={**BODY, "previous_response_id": stored}))
        assert client.post(f"/responses/{running.json()['id']}/cancel").json()["status"] == "cancelled"
        assert client.delete(f"/responses/{stored}").status_code == 200
    finally:
        set_paused(gateway, admin, "resume")
    assert client.post("/responses", json=BODY).status_code == 200


def test_a_stream_that_runs_comes_to_its_end(gateway, admin, client):
    body = {**BODY, "stream": True, "input": "[[sim: pace_ms=50 tokens=60]] go on"}
    with client.stream("POST", "/responses", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        set_paused(gateway, admin, "pause")
        try:
            assert any(line == "event: response.completed" for line in lines)
        finally:
            set_paused(gateway, admin, "resume")


def test_on_a_socket_the_next_create_is_refused_and_the_socket_stays(gateway, admin, client):
    headers = {"authorization": client.headers["authorization"]}
    url = gateway.base_url.replace("http", "ws")
    create = json.dumps({"type": "response.create", **BODY})

    def until_end(socket):
        while True:
            event = json.loads(socket.recv(timeout=20))
            if event["type"] in {"response.completed", "error"}:
                return event

    with connect(f"{url}/responses", additional_headers=headers) as socket:
        socket.send(create)
        assert until_end(socket)["type"] == "response.completed"
        set_paused(gateway, admin, "pause")
        try:
            socket.send(create)
            assert until_end(socket)["error"]["code"] == "upstream_paused"
            with pytest.raises(InvalidStatus) as caught:
                connect(f"{url}/realtime?model=sim-large", additional_headers=headers)
            assert caught.value.response.status_code == 503
        finally:
            set_paused(gateway, admin, "resume")
        socket.send(create)
        assert until_end(socket)["type"] == "response.completed"


def test_another_target_is_called_instead_and_the_pause_outlives_a_new_configuration(tmp_path):
    with site(tmp_path, {"first": FINE, "second": FINE}) as made, Admin(made.gateway) as admin:
        set_paused(made.gateway, admin, "pause", "first")
        answer = made.ask()
        assert answer.status_code == 200
        assert answer.headers["x-headgate-upstream"] == "second"
        assert answer.headers["x-headgate-fallback"] == "paused"
        assert made.counted("first", "paused") == 1
        reload(made.gateway, made.gateway.config.read_text().replace("first_byte_s: 0.6", "first_byte_s: 0.7"))
        assert made.ask().headers["x-headgate-upstream"] == "second", "the first has another pool now"
        made.gateway.stop()
        made.gateway.start()
        assert made.ask().headers["x-headgate-upstream"] == "second", "a new process knows of it from its ledger"
        set_paused(made.gateway, admin, "resume", "first")
        assert made.ask().headers["x-headgate-upstream"] == "first"
        assert made.calls() == {"first": 1, "second": 3}


def test_every_gateway_on_the_ledger_follows(tmp_path):
    stores = Stores()
    stores.start()
    try:
        shared = stores.new_environment()
        first, second = (RunningGateway(tmp_path / name, **shared) for name in ("first", "second"))
        with first, second, Admin(first) as admin:
            set_paused(second, admin, "pause")
            headers = {"authorization": f"Bearer {first.key}"}
            assert refused(httpx.post(f"{second.base_url}/responses", json=BODY, headers=headers, timeout=30))
            set_paused(second, admin, "resume")
            again = httpx.post(f"{second.base_url}/responses", json=BODY, headers=headers, timeout=30)
            assert again.status_code == 200
    finally:
        stores.close()
