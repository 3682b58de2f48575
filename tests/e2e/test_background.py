"""Background responses: each is billed once, with what it used, whoever asks for it, and if nobody does."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.fakes.forking import headgate
from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import PlayedUpstream, SeenRequest, Step, chunked, whole
from tests.fakes.valkey import free_ports


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("background")) as gateway:
        yield gateway


@pytest.fixture
def client(gateway):
    with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=30) as client:
        yield client


def begin(client: httpx.Client, steering: str = "", **more: Any) -> httpx.Response:
    text = f"hi [[sim: {steering}]]" if steering else "hi"
    return client.post("/responses", json={"model": "sim-large", "input": text, "background": True, **more})


def record_of(gateway: RunningGateway, response_id: str, wait_s: float = 30) -> dict[str, Any]:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        found = [record for record in gateway.records() if record["response_id"] == response_id]
        if found:
            assert len(found) == 1
            return found[0]
        time.sleep(0.1)
    raise AssertionError("no record")


def exact(record: dict[str, Any], usage: dict[str, Any]) -> None:
    (entry,) = record["entries"]
    assert entry["kind"] == "charge"
    assert (entry["input_tokens"], entry["output_tokens"]) == (usage["input_tokens"], usage["output_tokens"])


def test_nobody_asks(gateway, client):
    made = begin(client)
    assert (made.json()["status"], made.json()["usage"]) == ("queued", None)
    assert "x-headgate-cost-usd" not in made.headers
    record = record_of(gateway, made.json()["id"])
    assert (record["outcome"], record["status"]) == ("completed", 200)
    exact(record, client.get(f"/responses/{made.json()['id']}").json()["usage"])


def test_a_client_asks_first_and_often(gateway, client):
    response_id = begin(client).json()["id"]
    deadline = time.monotonic() + 30
    while (told := client.get(f"/responses/{response_id}").json())["status"] != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    exact(record_of(gateway, response_id), told["usage"])
    before = gateway.usage()
    for _ in range(5):
        client.get(f"/responses/{response_id}")
        client.get(f"/responses/{response_id}?stream=true&starting_after=1")
    time.sleep(1)
    assert gateway.usage() == before


def test_a_stream_that_is_left_and_taken_up_again(gateway, client):
    told = ""
    body = {"model": "sim-large", "input": "hi [[sim: pace_ms=20]]", "background": True, "stream": True}
    with client.stream("POST", "/responses", json=body) as answer:
        for line in answer.iter_lines():
            told += line
            if "response.output_text.delta" in line:
                break
    response_id = told.split('"id":"')[1].split('"')[0]
    with client.stream("GET", f"/responses/{response_id}?stream=true&starting_after=2") as answer:
        events = [line for line in answer.iter_lines() if line.startswith("event: ")]
    assert events[-1] == "event: response.completed"
    record = record_of(gateway, response_id)
    assert record["outcome"] == "completed"
    exact(record, client.get(f"/responses/{response_id}").json()["usage"])


def test_a_failed_one_and_a_cancelled_one(gateway, client):
    failed = begin(client, "fail_after=2 fail_usage=1").json()["id"]
    assert record_of(gateway, failed)["outcome"] == "failed"
    hangs = begin(client, "stall_after=4 stall_s=3600").json()["id"]
    cancelled = client.post(f"/responses/{hangs}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    record = record_of(gateway, hangs)
    assert record["outcome"] == "cancelled"
    # The provider tells no usage of what was cancelled: it is an estimate.
    assert [entry["kind"] for entry in record["entries"]] == ["estimate"]


def test_one_that_is_deleted(gateway, client):
    done = begin(client).json()["id"]
    time.sleep(0.5)
    assert client.delete(f"/responses/{done}").status_code == 200
    assert [entry["kind"] for entry in record_of(gateway, done)["entries"]] == ["charge"]
    runs = begin(client, "stall_after=4 stall_s=3600").json()["id"]
    assert client.delete(f"/responses/{runs}").status_code == 200
    record = record_of(gateway, runs)
    assert (record["error_code"], [entry["kind"] for entry in record["entries"]]) == ("response_gone", ["estimate"])


def test_its_reservation_is_held_while_it_runs(gateway, client):
    team = gateway.json("teams", "create", "--name", "held")["id"]
    key = gateway.json("keys", "create", "--team", team, "--name", "one", "--concurrency", "1")["key"]
    with httpx.Client(base_url=gateway.base_url, headers={"authorization": f"Bearer {key}"}, timeout=30) as own:
        runs = begin(own, "stall_after=4 stall_s=3600").json()["id"]
        refused = begin(own)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert own.post(f"/responses/{runs}/cancel").status_code == 200
        assert begin(own).status_code == 200


@contextmanager
def simulator() -> Iterator[str]:
    """``headgate simulate``, a process of its own; its base URL."""
    (port,) = free_ports(1)
    nowhere = subprocess.DEVNULL
    process = headgate(["simulate", "--port", str(port)], stdout=nowhere, stderr=nowhere, environment=dict(os.environ))
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{port}/v1/models")
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_gateway_dies_and_another_start_finds_out(tmp_path, how):
    # The simulator is a process of its own, so that it outlives the gateway.
    with simulator() as base_url:
        config = f"""
upstreams:
  provider: {{base_url: "{base_url}"}}
models: [{{match: "*", upstream: provider}}]
server: {{drain_delay_s: 0}}
"""
        gateway = RunningGateway(tmp_path / "gateway", config).start()
        with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=30) as client:
            response_id = begin(client, "queue_ms=3000").json()["id"]
            time.sleep(0.5)
            getattr(gateway, how)()
        gateway.start()
        try:
            record = record_of(gateway, response_id)
            assert record["outcome"] == "interrupted"
            assert record["entries"][0]["kind"] == "estimate"
            deadline = time.monotonic() + 30
            while len(record["entries"]) < 2 and time.monotonic() < deadline:
                time.sleep(0.2)
                record = record_of(gateway, response_id)
            kinds = [entry["kind"] for entry in record["entries"]]
            assert kinds == ["estimate", "adjust"]
            with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=30) as client:
                usage = client.get(f"/responses/{response_id}").json()["usage"]
            assert sum(entry["output_tokens"] for entry in record["entries"]) == usage["output_tokens"]
            assert gateway.check_ledger()["ok"]
        finally:
            gateway.stop()


USED = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}


class OddProvider:
    """Begins responses that are named after their input, and tells of each what it is told to by that name."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.numbers = itertools.count()

    def play(self, seen: SeenRequest) -> list[Step]:
        if seen.method == "POST":
            text = json.loads(seen.body)["input"]
            response = {"id": f"resp_{text}_{next(self.numbers)}", "object": "response", "status": "queued"}
            if text != "streamed":
                return whole(json.dumps(response).encode())
            events = [
                {"type": "response.created", "response": response},
                {"type": "error", "code": "server_error", "message": "this stream broke", "param": None},
            ]
            return chunked([b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events])
        response_id = seen.target.rpartition("/")[2]
        name = response_id.split("_")[1]
        if seen.method == "DELETE":
            return whole(json.dumps({"id": response_id, "object": "response", "deleted": True}).encode())
        self.asked[response_id] += 1
        if name == "hanging":
            return ["hang"]
        if name == "lost" or (name == "late" and self.asked[response_id] <= 2):
            body = b'{"error":{"message":"no such response","type":"invalid_request_error"}}'
            return [
                b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                + body
            ]
        told = {"id": response_id, "object": "response", "status": "completed", "model": "gpt-4.1", "usage": USED}
        return whole(json.dumps(told).encode())


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A gateway with two upstreams that play; models are theirs by their names."""
    provider = OddProvider()
    with PlayedUpstream(provider.play) as slow, PlayedUpstream(provider.play) as quick:
        config = f"""
upstreams:
  slow: {{base_url: "{slow.base_url}"}}
  quick: {{base_url: "{quick.base_url}"}}
models: [{{match: "gpt-4.1", upstream: quick}}, {{match: "*", upstream: slow}}]
server: {{drain_delay_s: 0}}
"""
        gateway = RunningGateway(tmp_path_factory.mktemp("odd"), config).start()
        with httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=30) as client:
            yield gateway, client, provider
        if gateway.process.poll() is None:
            gateway.stop()


def begun(client: httpx.Client, name: str, model: str = "gpt-4.1") -> str:
    answer = client.post("/responses", json={"model": model, "input": name, "background": True})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def test_an_error_of_its_stream_does_not_end_it(odd):
    gateway, client, _ = odd
    body = {"model": "gpt-4.1", "input": "streamed", "background": True, "stream": True}
    told = client.post("/responses", json=body).text
    assert told.count("event: error") == 1
    record = record_of(gateway, told.split('"id": "')[1].split('"')[0])
    assert (record["outcome"], record["error_code"]) == ("completed", None)
    exact(record, USED)


def test_one_that_is_not_found_yet_is_asked_for_again(odd):
    gateway, client, provider = odd
    late, lost = begun(client, "late"), begun(client, "lost")
    exact(record_of(gateway, late), USED)
    record = record_of(gateway, lost)
    assert (record["error_code"], record["entries"][0]["kind"]) == ("response_gone", "estimate")
    assert (provider.asked[late], provider.asked[lost]) == (3, 3)


def test_one_slow_upstream_holds_up_no_other_and_no_delete(odd):
    gateway, client, provider = odd
    hanging = [begun(client, "hanging", "gpt-4o") for _ in range(9)]
    deadline = time.monotonic() + 30
    while len([one for one in hanging if provider.asked[one]]) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    exact(record_of(gateway, begun(client, "plain"), 5), USED)
    began = time.monotonic()
    assert client.delete(f"/responses/{hanging[-1]}").status_code == 200
    assert time.monotonic() - began < 25
    # The next start asks for what this one leaves, and one upstream's silence is not another's.
    left = [begun(client, "plain") for _ in range(2)]
    gateway.kill()
    gateway.start()
    for response_id in left:
        deadline = time.monotonic() + 30
        while len(record_of(gateway, response_id)["entries"]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
