"""What a WebSocket may hold, how long it may take, and what it leaves where either side fails."""

from __future__ import annotations

import json
import socket as sockets
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.e2e.test_reload import reload
from tests.e2e.test_sockets import create, opened, records_of, until_end
from tests.fakes.gateway import RunningGateway
from tests.fakes.socket_upstream import USED, PlayedSockets
from tests.fakes.upstream import PlayedUpstream, whole

CONFIG = """
upstreams:
  played: {{base_url: "{played}", websocket: native, connections_max: 12, timeouts: {{idle_s: 1.5, first_byte_s: 1.5}}}}
  fragile: {{base_url: "{played}", websocket: native, breaker: {{failures: 3, open_s: 60}}}}
  dead: {{base_url: "http://127.0.0.1:9/v1", websocket: native, breaker: {{failures: 2, open_s: 60}}}}
models:
  - {{match: "gpt-4.1", upstream: played}}
  - {{match: "gpt-4.1-mini", upstream: fragile}}
  - {{match: "gpt-4o", upstream: dead}}
server: {{drain_delay_s: 0, slow_client_s: 1, in_flight_max: 6, body_bytes_max: 65536, body_bytes_in_flight_max: 100000}}
"""


@pytest.fixture(scope="module")
def played():
    with PlayedSockets() as played:
        yield played


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, played):
    config = CONFIG.format(played=played.base_url)
    with RunningGateway(tmp_path_factory.mktemp("socket_bounds"), config) as gateway:
        yield gateway


def ask(how: str, **more: Any) -> str:
    return create(model=more.pop("model", "gpt-4.1"), input=how, **more)


def wait_for(holds: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def type_of(socket: ClientConnection) -> str:
    return json.loads(socket.recv(timeout=30))["type"]


def closed_by(socket: ClientConnection) -> int | None:
    """The code that the gateway closes with, once all was read."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            socket.recv(timeout=30)
    return None if closed.value.rcvd is None else closed.value.rcvd.code


def idle(gateway: RunningGateway) -> bool:
    return gateway.metrics()["headgate_in_flight"] == 0


def test_creates_count_among_all_that_is_in_flight(gateway):
    wait_for(lambda: idle(gateway))
    with ExitStack() as stack:
        one, other = (stack.enter_context(opened(gateway)) for _ in range(2))
        for number in range(6):
            (one, other)[number % 2].send(ask("ticks", stream_id=str(number)))
        wait_for(lambda: gateway.metrics()["headgate_in_flight"] == 6)
        other.send(ask("plain", stream_id="more"))
        while (event := json.loads(other.recv(timeout=30)))["type"] != "error":
            pass
        assert (event["status"], event["error"]["code"]) == (503, "overloaded")
        answer = httpx.get(f"{gateway.base_url}/models", headers=gateway.headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
    wait_for(lambda: idle(gateway))


def completed(socket: ClientConnection) -> None:
    """A first create goes through, once upstream sockets from before have closed."""
    deadline = time.monotonic() + 30
    while True:
        socket.send(ask("plain"))
        if until_end(socket)[-1]["type"] == "response.completed":
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_sockets_count_among_an_upstreams_connections(gateway):
    wait_for(lambda: idle(gateway))
    with ExitStack() as stack:
        for _ in range(6):
            completed(stack.enter_context(opened(gateway)))
        last = stack.enter_context(opened(gateway))
        # Half of them: calls have the rest.
        last.send(ask("plain", user="the last"))
        (error,) = until_end(last)
        assert (error["status"], error["error"]["code"]) == (503, "overloaded")
        (record,) = records_of(gateway, "the last", 1)
        assert (record["error_code"], record["entries"][0]["kind"]) == ("overloaded", "void")
    # They are given back with their sockets.
    with opened(gateway) as socket:
        completed(socket)


def test_a_message_is_bounded_and_counts_in_the_body_budget(gateway):
    with opened(gateway) as socket:
        socket.send("x" * 65_537)
        assert closed_by(socket) == 1009
    with ExitStack() as stack:
        holders = [stack.enter_context(opened(gateway)) for _ in range(2)]
        for holder in holders:
            # The beginning of a message whose end does not come.
            holder.socket.sendall(b"\x81\xfe\xf0\x00\0\0\0\0" + b"x" * 45_000)
        time.sleep(0.3)
        third = stack.enter_context(opened(gateway))
        third.send("x" * 30_000)
        assert closed_by(third) == 1013
        body = json.dumps({"model": "gpt-4.1", "input": "x" * 30_000})
        headers = {**gateway.headers, "content-type": "application/json"}
        assert httpx.post(f"{gateway.base_url}/responses", content=body, headers=headers).status_code == 503
        for holder in holders:
            holder.socket.close()
    with opened(gateway) as socket:
        wait_for(lambda: httpx.post(f"{gateway.base_url}/responses", content=body, headers=headers).status_code != 503)
        socket.send("x" * 30_000)
        assert until_end(socket)[-1]["error"]["code"] == "invalid_json"


def test_frames_that_are_refused_end_the_connection_and_what_is_told_arrives(gateway):
    with opened(gateway) as socket:
        for _ in range(99):
            socket.send("junk")
        socket.send(ask("plain"))
        told = [until_end(socket)[-1]["type"] for _ in range(100)]
        assert told == ["error"] * 99 + ["response.completed"]
        for _ in range(20_000):
            try:
                socket.send("junk")
            except ConnectionClosed:
                break
        assert closed_by(socket) == 1008


def test_a_client_that_reads_nothing_is_not_read_and_cut_off(gateway):
    request = (
        f"GET /v1/responses HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {gateway.key}\r\nConnection: upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with sockets.socket() as raw:
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        raw.settimeout(30)
        raw.connect(("127.0.0.1", gateway.port))
        raw.sendall(request.encode())
        ping = b"\x89\xfd" + bytes(4) + bytes(125)
        sent, began = 0, time.monotonic()
        with pytest.raises(ConnectionError):
            while sent < 2**30:
                sent += raw.send(ping * 1000)
        assert sent < 32 * 2**20
        assert time.monotonic() - began < 30


def test_a_client_that_reads_nothing_is_billed_for_what_was_made(gateway):
    wait_for(lambda: idle(gateway))
    with opened(gateway, close_timeout=0.1) as socket:
        # Sixteen messages are taken off the connection by the library, and no more.
        socket.send(ask("flood", user="slow"))
        (record,) = records_of(gateway, "slow", 1)
    assert record["outcome"] == "disconnected"
    (entry,) = record["entries"]
    assert (entry["kind"], entry["output_tokens"]) == ("charge", USED["output_tokens"])


def test_each_response_has_a_deadline_of_its_own(gateway):
    with opened(gateway) as socket:
        socket.send(ask("ticks", stream_id="lively"))
        socket.send(ask("hold", stream_id="stalls", user="stalls"))
        events = []
        while not events or events[-1]["type"] != "error":
            events.append(json.loads(socket.recv(timeout=30)))
        assert (events[-1]["stream_id"], events[-1]["error"]["code"]) == ("stalls", "upstream_timeout")
        # Before the lively one has ended.
        assert until_end(socket)[-1]["type"] == "response.completed"
        assert closed_by(socket) == 1011
    (record,) = records_of(gateway, "stalls", 1)
    assert (record["error_code"], record["entries"][0]["kind"]) == ("upstream_stalled", "estimate")


def test_a_response_is_known_where_the_upstream_knows_no_streams(gateway):
    with opened(gateway) as socket:
        socket.send(ask("unnamed", stream_id="mine", user="unnamed"))
        assert until_end(socket)[-1]["type"] == "response.completed"
        (record,) = records_of(gateway, "unnamed", 1)
    (entry,) = record["entries"]
    assert (record["outcome"], entry["kind"]) == ("completed", "charge")
    assert entry["output_tokens"] == USED["output_tokens"]


def test_a_create_that_waits_for_its_turn_holds_up_no_ping_and_goes_with_its_client(gateway, played):
    with opened(gateway) as socket:
        socket.send(ask("ticks", user="runs"))
        socket.send(ask("plain", user="waits"))
        assert type_of(socket) == "response.created"
        assert socket.ping().wait(30)
    (record,) = records_of(gateway, "runs", 1)
    assert (record["outcome"], record["entries"][0]["kind"]) == ("disconnected", "charge")
    assert not [each for each in played.creates if each.get("user") == "waits"]


def test_a_close_without_a_status_is_passed_on_as_one(gateway):
    with opened(gateway) as socket:
        socket.send(ask("bye"))
        assert closed_by(socket) == 1005


def refusals_of(gateway: RunningGateway, code: str) -> int:
    with sqlite3.connect(f"file:{gateway.data_dir / 'headgate.db'}?mode=ro", uri=True) as database:
        (count,) = database.execute("SELECT count(*) FROM refusals WHERE code = ?", (code,)).fetchone()
    database.close()
    return count


def test_what_cannot_be_connected_to_leaves_a_record_and_opens_its_breaker(gateway):
    with opened(gateway) as socket:
        codes = []
        for _ in range(3):
            socket.send(ask("plain", model="gpt-4o", user="unreachable"))
            codes.append(until_end(socket)[-1]["error"]["code"])
    assert codes == ["upstream_unreachable"] * 3
    records = records_of(gateway, "unreachable", 2)
    # The third was not tried: it is a refusal, and the only one.
    assert [record["entries"][0]["kind"] for record in records] == ["void"] * 2
    wait_for(lambda: refusals_of(gateway, "upstream_unreachable") > 0)
    assert refusals_of(gateway, "upstream_unreachable") == 1


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (["reset"], "upstream_unreachable", "Nothing was sent, nothing is billed"),
        (whole(b"{}", "HTTP/1.1 500 X\r\n"), "upstream_unreachable", "Nothing was sent, nothing is billed"),
        (whole(b"{}", "HTTP/1.1 503 X\r\n"), "upstream_unreachable", "Nothing was sent, nothing is billed"),
        (whole(b"{}", "HTTP/1.1 429 X\r\n"), "overloaded", "The upstream takes no further WebSocket now"),
        (whole(b"{}"), "upstream_invalid_response", "not valid"),
    ],
    ids=["cut", "500", "503", "429", "200"],
)
def test_a_handshake_that_fails_costs_nothing_and_the_client_is_told_so(tmp_path, answer, code, said):
    with PlayedUpstream(lambda _: answer) as upstream:
        config = f"""
upstreams: {{a: {{base_url: "{upstream.base_url}", websocket: native}}}}
models: [{{match: "*", upstream: a}}]
server: {{drain_delay_s: 0}}
"""
        with RunningGateway(tmp_path, config) as gateway, opened(gateway) as socket:
            socket.send(ask("plain"))
            (event,) = until_end(socket)
            assert event["error"]["code"] == code
            assert said in event["error"]["message"]
            (record,) = gateway.records(wait_for=1)
            assert (record["error_code"], record["entries"][0]["kind"]) == (code, "void")


def test_an_upstream_that_dies_opens_its_breaker(gateway, played):
    before = played.connections
    for how in ("abort", "abort", "abort"):
        with opened(gateway) as socket:
            socket.send(ask(how, model="gpt-4.1-mini"))
            closed_by(socket)
    with opened(gateway) as socket:
        socket.send(ask("plain", model="gpt-4.1-mini"))
        assert until_end(socket)[-1]["error"]["code"] == "upstream_unreachable"
    assert played.connections == before + 3


def test_a_create_goes_by_the_configuration_that_is_in_force(gateway, played):
    config = CONFIG.format(played=played.base_url)
    with opened(gateway) as socket:
        socket.send(ask("plain"))
        assert until_end(socket)[-1]["type"] == "response.completed"
        reload(gateway, config.replace('- {match: "gpt-4.1", ', '- {match: "gpt-4.1-nano", '))
        socket.send(ask("plain"))
        assert until_end(socket)[-1]["error"]["code"] == "model_not_found"
        socket.send(ask("plain", model="gpt-4.1-nano"))
        assert until_end(socket)[-1]["type"] == "response.completed"
        # Where the upstream itself has changed, the connection with it is over.
        reload(gateway, config.replace("connections_max: 12", "connections_max: 13"))
        assert closed_by(socket) == 1012
