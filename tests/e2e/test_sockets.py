"""Responses over WebSockets, by the SDK and by hand: a connection is a conversation, each create on it a request."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from openai import OpenAI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.fakes.gateway import RunningGateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("sockets")) as gateway:
        yield gateway


def opened(gateway: RunningGateway, key: str | None = None, path: str = "/responses", **more: Any) -> ClientConnection:
    headers = {"authorization": f"Bearer {key or gateway.key}"}
    url = f"ws://127.0.0.1:{gateway.port}/v1{path}"
    return connect(url, additional_headers=more.pop("headers", headers), **more)


def create(**more: Any) -> str:
    return json.dumps({"type": "response.create", "model": "sim-large", "input": "hi", **more})


def until_end(socket: ClientConnection) -> list[dict[str, Any]]:
    events = []
    while True:
        events.append(json.loads(socket.recv(timeout=50)))
        if events[-1]["type"] in {"response.completed", "response.failed", "response.incomplete", "error"}:
            return events


# The SDK's own way of opening a connection is deprecated by the library that it uses.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_sdk_speaks_it(gateway):
    client = OpenAI(base_url=gateway.base_url, api_key=gateway.key)
    before = len(gateway.records())
    with client.responses.connect() as connection:
        connection.response.create(model="sim-large", input="hi")
        types = []
        for event in connection:
            types.append(event.type)
            if event.type == "response.completed":
                used = event.response.usage
                break
        connection.response.create(model="sim-large", input="more", previous_response_id=event.response.id)
        for event in connection:
            if event.type == "response.completed":
                break
    assert types[0] == "response.created"
    first, second = gateway.records(before + 2)[before:]
    assert (first["stream"], first["endpoint"], first["outcome"], first["status"]) == (1, "responses", "completed", 200)
    (entry,) = first["entries"]
    assert (entry["kind"], entry["input_tokens"], entry["output_tokens"]) == (
        "charge",
        used.input_tokens,
        used.output_tokens,
    )
    assert second["entries"][0]["kind"] == "charge"
    assert second["entries"][0]["cost_nanousd"] > 0


def test_frames_are_the_upstreams(gateway):
    with opened(gateway) as socket:
        socket.send(create())
        over_socket = until_end(socket)
    streamed = httpx.post(
        f"{gateway.base_url}/responses",
        json={"model": "sim-large", "input": "hi", "stream": True},
        headers=gateway.headers,
    )
    over_http = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in over_socket] == [event["type"] for event in over_http]
    assert [event["sequence_number"] for event in over_socket] == [event["sequence_number"] for event in over_http]


def test_what_is_not_stored_is_there_on_its_connection_only(gateway):
    with opened(gateway) as socket:
        socket.send(create(store=False))
        made = until_end(socket)[-1]["response"]["id"]
        socket.send(create(store=False, previous_response_id=made))
        assert until_end(socket)[-1]["type"] == "response.completed"
        with opened(gateway) as other:
            other.send(create(previous_response_id=made))
            (error,) = until_end(other)
            assert (error["status"], error["error"]["param"]) == (404, "previous_response_id")


def test_no_other_frame_makes_a_create_free(gateway):
    """A frame that the upstream would refuse, sent behind a create, is refused here; the create is billed."""
    with opened(gateway) as socket:
        socket.send(create(input="hi [[sim: pace_ms=10 tokens=30]]", user="not free"))
        socket.send(json.dumps({"type": "nonsense.event"}))
        socket.send("{}")
        events = []
        while not events or events[-1]["type"] != "response.completed":
            events.append(json.loads(socket.recv(timeout=50)))
    assert [event["status"] for event in events if event["type"] == "error"] == [400, 400]
    (record,) = records_of(gateway, "not free", 1)
    assert (record["outcome"], record["entries"][0]["kind"]) == ("completed", "charge")


def records_of(gateway: RunningGateway, end_user: str, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 30
    while len(found := [row for row in gateway.records() if row["end_user"] == end_user]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_an_error_about_another_streams_create_makes_none_free(gateway):
    """The upstream refuses the second one, and does not say that it is about that."""
    with opened(gateway) as socket:
        socket.send(create(input="[[sim: tokens=60 pace_ms=10]] dear", user="dear"))
        socket.send(create(stream_id="b", max_output_tokens=16, temperature="hot"))
        events = until_end(socket)
        if events[-1]["type"] == "error":
            events = until_end(socket)
        used = events[-1]["response"]["usage"]
    (dear,) = records_of(gateway, "dear", 1)
    assert (dear["outcome"], dear["entries"][0]["kind"]) == ("completed", "charge")
    assert dear["entries"][0]["output_tokens"] == used["output_tokens"] >= 60


def test_creates_of_one_stream_take_turns(gateway):
    with opened(gateway) as socket:
        for _ in range(3):
            socket.send(create(user="takes turns"))
        for _ in range(3):
            assert until_end(socket)[-1]["type"] == "response.completed"
    records = records_of(gateway, "takes turns", 3)
    assert [record["entries"][0]["kind"] for record in records] == ["charge"] * 3


def test_another_teams_response_is_unknown(gateway):
    team = gateway.json("teams", "create", "--name", "theirs")["id"]
    theirs = gateway.json("keys", "create", "--team", team, "--name", "k")["key"]
    with opened(gateway) as mine, opened(gateway, theirs) as other:
        mine.send(create())
        foreign = until_end(mine)[-1]["response"]["id"]
        told = []
        for object_id in (foreign, foreign[:-4] + "0000"):
            other.send(create(previous_response_id=object_id))
            (error,) = until_end(other)
            del error["request_id"]
            told.append(json.dumps(error).replace(object_id, "ID"))
            assert error["error"]["code"] == "previous_response_not_found"
        assert told[0] == told[1]
        # Nothing was said upstream; the connection goes on.
        other.send(create())
        assert until_end(other)[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ("nonsense", 400, "invalid_json"),
        ('{"type":"response.create","model":"a","model":"b"}', 400, "ambiguous_json"),
        (json.dumps({"type": "response.create", "input": "hi"}), 400, "invalid_request"),
        (create(model="no-such\u0000model"), 404, "model_not_found"),
        (json.dumps({"type": "response.steer", "input": "x"}), 400, "invalid_request"),
        (create(temperature=9), 400, None),
    ],
)
def test_a_bad_frame_is_told_and_the_connection_goes_on(gateway, sent, status, code):
    with opened(gateway) as socket:
        socket.send(sent)
        (error,) = until_end(socket)
        assert (error["type"], error["status"]) == ("error", status)
        assert set(error["error"]) >= {"message", "type", "param", "code"}
        assert code in {None, error["error"]["code"]}
        socket.send(create())
        assert until_end(socket)[-1]["type"] == "response.completed"


def test_limits_hold_inside_of_a_connection(gateway):
    team = gateway.json("teams", "create", "--name", "limited")["id"]
    key = gateway.json("keys", "create", "--team", team, "--name", "k", "--requests-per-minute", "2")["key"]
    with opened(gateway, key) as socket:
        for _ in range(2):
            socket.send(create())
            assert until_end(socket)[-1]["type"] == "response.completed"
        socket.send(create())
        (error,) = until_end(socket)
        assert (error["status"], error["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(error["headers"]["retry-after-ms"]) > 0


def test_a_revoked_key_is_cut_off(gateway):
    made = gateway.json("keys", "create", "--team", "default", "--name", "short-lived")
    with opened(gateway, made["key"]) as socket:
        socket.send(create(input="hi [[sim: stall_after=8 stall_s=60 tokens=20]]"))
        while json.loads(socket.recv(timeout=30))["type"] != "response.output_text.delta":
            pass
        began = time.monotonic()
        gateway.command("keys", "revoke", made["id"], "--now")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                last = json.loads(socket.recv(timeout=50))
        assert (last["type"], last["error"]["code"]) == ("error", "invalid_api_key")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert time.monotonic() - began < 50
    deadline = time.monotonic() + 30
    while not [row for row in gateway.records() if row["error_code"] == "key_revoked"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("how", ["query", "none", "wrong"])
def test_a_handshake_without_a_key_is_refused(gateway, how):
    headers = {"wrong": {"authorization": "Bearer sk-wrong"}}.get(how, {})
    path = "/responses?api_key=" + gateway.key if how == "query" else "/responses"
    with pytest.raises(InvalidStatus) as refused:
        opened(gateway, path=path, headers=headers)
    assert refused.value.response.status_code == 401


def test_the_key_may_come_as_a_subprotocol(gateway):
    offered = ["realtime", f"openai-insecure-api-key.{gateway.key}"]
    with opened(gateway, headers={}, subprotocols=offered) as socket:
        assert socket.subprotocol == "realtime"
        socket.send(create())
        assert until_end(socket)[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("version", "connection", "status"),
    [
        ("1.1", "keep-alive, UPGRADE", 101),
        ("1.0", "upgrade", 405),
        ("1.1", "keep-alive", 405),
        ("1.1", "x-upgrade", 405),
    ],
)
def test_only_where_it_is_asked_for_the_protocol_is_switched(gateway, version, connection, status):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as raw:
        lines = [
            f"GET /v1/responses HTTP/{version}",
            "Host: t",
            f"Authorization: Bearer {gateway.key}",
            f"Connection: {connection}",
            "Upgrade: WebSocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ]
        raw.sendall("\r\n".join([*lines, "", ""]).encode())
        assert raw.recv(4096).split()[1] == b"%d" % status


def test_an_upstream_without_them_has_426(tmp_path):
    config = """
upstreams:
  gpu: {base_url: "http://127.0.0.1:9/v1"}
models: [{match: "*", upstream: gpu}]
server: {drain_delay_s: 0}
"""
    with RunningGateway(tmp_path, config) as gateway:
        with pytest.raises(InvalidStatus) as refused:
            opened(gateway)
        assert refused.value.response.status_code == 426
        assert json.loads(refused.value.response.body)["error"]["code"] == "upgrade_required"


def test_a_client_that_leaves_is_billed_for_what_was_made(gateway):
    with opened(gateway) as socket:
        socket.send(create(input="hi [[sim: pace_ms=10 tokens=40]]", user="leaves"))
        while json.loads(socket.recv(timeout=30))["type"] != "response.output_text.delta":
            pass
    (record,) = records_of(gateway, "leaves", 1)
    assert record["outcome"] == "disconnected"
    assert record["entries"][0]["output_tokens"] > 0


def test_an_upstream_that_dies_is_told(gateway):
    with opened(gateway) as socket:
        socket.send(create(input="hi [[sim: cut_after=4]]", user="cut"))
        with pytest.raises(ConnectionClosed):
            while True:
                last = json.loads(socket.recv(timeout=50))
    assert (last["type"], last["error"]["code"]) == ("error", "upstream_outcome_unknown")
    (record,) = records_of(gateway, "cut", 1)
    assert (record["outcome"], record["error_code"]) == ("failed", "upstream_disconnected")
    assert record["entries"][0]["kind"] == "estimate"


def test_a_prewarm_and_many_at_once(gateway):
    with opened(gateway) as socket:
        socket.send(create(generate=False, input="made ready", user="prewarms"))
        ended = until_end(socket)[-1]
        assert ended["type"] == "response.completed"
    (record,) = records_of(gateway, "prewarms", 1)
    (entry,) = record["entries"]
    used = ended["response"]["usage"]
    assert (entry["kind"], entry["input_tokens"], entry["output_tokens"]) == ("charge", used["input_tokens"], 0)
    with ExitStack() as stack:
        sockets = [stack.enter_context(opened(gateway)) for _ in range(17)]
        for socket in sockets:
            socket.send(create())
        for socket in sockets:
            assert until_end(socket)[-1]["type"] == "response.completed"


def test_a_fragmented_create_and_a_ping(gateway):
    with opened(gateway) as socket:
        text = create()
        socket.send([text[:10], text[10:30], text[30:]])
        assert until_end(socket)[-1]["type"] == "response.completed"
        assert socket.ping().wait(30)


def test_a_drain_lets_what_runs_end(tmp_path):
    with RunningGateway(tmp_path) as gateway:
        with opened(gateway) as socket, opened(gateway) as idle:
            socket.send(create(input="hi [[sim: pace_ms=50 tokens=40]]"))
            while json.loads(socket.recv(timeout=30))["type"] != "response.output_text.delta":
                pass
            gateway.process.terminate()
            assert until_end(socket)[-1]["type"] == "response.completed"
            with pytest.raises(ConnectionClosed) as closed:
                idle.recv(timeout=30)
            assert closed.value.rcvd.code == 1001
        assert gateway.process.wait(60) == 0


def test_realtime_is_passed_on_as_it_is(gateway):
    key = gateway.json("keys", "create", "--team", "default", "--name", "rt", "--endpoints", "realtime")["key"]
    with pytest.raises(InvalidStatus) as refused:
        opened(gateway, path="/realtime?model=sim-large")
    assert refused.value.response.status_code == 403
    with opened(gateway, key, path="/realtime?model=sim-large") as socket:
        assert json.loads(socket.recv(timeout=30))["type"] == "session.created"
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        socket.send(json.dumps({"type": "response.create"}))
        while (event := json.loads(socket.recv(timeout=30)))["type"] != "response.done":
            pass
        assert event["response"]["status"] == "completed"


def ended(socket: ClientConnection) -> tuple[list[dict[str, Any]], int, str]:
    """What is told until the gateway closes, and how it does."""
    told = []
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            told.append(json.loads(socket.recv(timeout=30)))
    assert closed.value.rcvd is not None
    return told, closed.value.rcvd.code, closed.value.rcvd.reason


@pytest.mark.parametrize("how", ["revoked", "expired", "without the family"])
def test_realtime_ends_with_its_key(gateway, how):
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 4))
    expires = ["--expires", soon] if how == "expired" else []
    arguments = ["--team", "default", "--name", f"rt {how}", "--endpoints", "realtime", *expires]
    made = gateway.json("keys", "create", *arguments)
    with opened(gateway, made["key"], path="/realtime?model=sim-large") as socket:
        if how == "revoked":
            gateway.command("keys", "revoke", made["id"])
        if how == "without the family":
            gateway.command("keys", "update", made["id"], "--endpoints", "responses")
        _, code, reason = ended(socket)
    assert (code, reason) == (1008, "endpoint_not_allowed" if how == "without the family" else "invalid_api_key")


def test_an_idle_connection_ends_with_its_key(gateway):
    made = gateway.json("keys", "create", "--team", "default", "--name", "idle-ends")
    with opened(gateway, made["key"]) as socket:
        socket.send(create())
        assert until_end(socket)[-1]["type"] == "response.completed"
        gateway.command("keys", "revoke", made["id"])
        told, code, reason = ended(socket)
    assert [event["error"]["code"] for event in told] == ["invalid_api_key"]
    assert (code, reason) == (1008, "invalid_api_key")


def test_what_runs_on_a_connection_ends_before_its_key_ends_it(gateway):
    made = gateway.json("keys", "create", "--team", "default", "--name", "runs-on")
    with opened(gateway, made["key"]) as socket:
        socket.send(create(input="hi [[sim: pace_ms=100 tokens=40]]"))
        while json.loads(socket.recv(timeout=30))["type"] != "response.output_text.delta":
            pass
        gateway.command("keys", "revoke", made["id"])
        told, code, _ = ended(socket)
    assert [event["type"] for event in told if "delta" not in event["type"]][-2:] == ["response.completed", "error"]
    assert code == 1008


def test_realtime_goes_to_a_target_that_has_sockets(tmp_path):
    config = """
upstreams:
  plain: {base_url: "http://127.0.0.1:1/v1"}
  sim: {kind: simulator}
models:
  - name: sim-large
    targets: [{upstream: plain, model: sim-large, weight: 9}, {upstream: sim, model: sim-large}]
server: {drain_delay_s: 0}
"""
    with RunningGateway(tmp_path, config) as gateway:
        key = gateway.json("keys", "create", "--team", "default", "--name", "rt", "--endpoints", "realtime")["key"]
        for _ in range(3):
            with opened(gateway, key, path="/realtime?model=sim-large") as socket:
                assert json.loads(socket.recv(timeout=10))["type"] == "session.created"
