"""Faults that users report of gateways, by the name they are reported under: each must be impossible here."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from openai import OpenAI

from tests.e2e.test_replay import completed, created, event
from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import JSON_HEAD, STREAM_HEAD, PlayedUpstream, chunked, config_for, whole

USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
OK = json.dumps({"id": "resp_1", "model": "gpt-4o", "status": "completed", "usage": USAGE}).encode()
DELTA = event("response.output_text.delta", sequence_number=1, delta="Hello, and a good deal more than that.")
HEAD = STREAM_HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n"
PACE_S = 0.05


def piece(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def error(status: int) -> list:
    body = b'{"error":{"message":"no","type":"t","param":null,"code":"x"}}'
    return whole(body, f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n")


def failed(**more) -> bytes:
    return completed("response.failed", error={"code": "server_error", "message": "Sorry."}, **more)


PLAYS = {
    "stream": chunked([created(), DELTA, completed()]),
    "long": [HEAD + piece(created()), *[PACE_S, piece(DELTA)] * 12, piece(completed()) + b"0\r\n\r\n"],
    "lingering": [HEAD + piece(created()) + piece(DELTA) + piece(completed()), 1.0, b"0\r\n\r\n"],
    "slow json": [0.6, *whole(OK)],
    "failed with usage": chunked([created(), DELTA, failed()]),
    "failed without usage": chunked([created(), DELTA, failed(usage=None)]),
    "silence": ["hang"],
    "500": error(500),
    "502": error(502),
    "529": error(529),
    "lost": ["reset"],
    "lost in the body": [JSON_HEAD.encode() + b"content-length: 500\r\n\r\n{", "close"],
    "closing": [*whole(OK), "close"],
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    def play(seen):
        return PLAYS[json.loads(seen.body)["user"]]

    timeouts = {"timeouts": "{connect_s: 1, first_byte_s: 1, idle_s: 5}"}
    with (
        PlayedUpstream(play) as upstream,
        RunningGateway(tmp_path_factory.mktemp("known"), config_for(upstream.base_url, **timeouts)) as gateway,
    ):
        gateway.upstream = upstream
        yield gateway


def body_of(play: str, **more) -> dict:
    return {"model": "gpt-4o", "input": "hi", "user": play} | more


def ask(gateway: RunningGateway, play: str, key: str | None = None, **more) -> httpx.Response:
    headers = {"authorization": f"Bearer {key or gateway.key}"}
    return httpx.post(f"{gateway.base_url}/responses", json=body_of(play, **more), headers=headers, timeout=20)


def records_of(gateway: RunningGateway, play: str, count: int) -> list[dict]:
    deadline = time.monotonic() + 10
    while True:
        found = [record for record in gateway.records() if record["end_user"] == play]
        if len(found) >= count or time.monotonic() > deadline:
            assert len(found) == count
            return found
        time.sleep(0.05)


def kinds(record: dict) -> list[str]:
    return [entry["kind"] for entry in record["entries"]]


# -- what was streamed ------------------------------------------------------------------------


def test_a_streamed_responses_call_without_a_row(gateway):
    with OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
        assert list(client.responses.create(**body_of("stream"), stream=True))[-1].type == "response.completed"
    (record,) = records_of(gateway, "stream", 1)
    assert (record["outcome"], kinds(record)) == ("completed", ["charge"])
    assert (record["entries"][0]["input_tokens"], record["entries"][0]["output_tokens"]) == (11, 7)


def test_a_disconnect_that_is_free(gateway):
    """The provider bills what it produced, whoever listened: the stream is drained, and charged by its usage."""
    with httpx.stream(
        "POST", f"{gateway.base_url}/responses", json=body_of("long", stream=True), headers=gateway.headers
    ) as answer:
        next(answer.iter_raw())
    (record,) = records_of(gateway, "long", 1)
    assert (record["outcome"], kinds(record)) == ("disconnected", ["charge"])
    assert record["entries"][0]["output_tokens"] == 7
    assert record["entries"][0]["cost_nanousd"] > 0


def test_a_disconnect_right_after_the_last_event_that_counts_as_one(gateway):
    """SDKs close the connection on ``response.completed``, before the body's own end."""
    with OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
        for _ in range(5):
            with client.responses.create(**body_of("lingering"), stream=True) as stream:
                assert next(each for each in stream if each.type == "response.completed")
                stream.response.close()
    records = records_of(gateway, "lingering", 5)
    assert {(record["outcome"], *kinds(record)) for record in records} == {("completed", "charge")}


def test_a_client_that_leaves_before_the_answer_and_is_billed_a_guess(gateway):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.base_url}/responses", json=body_of("slow json"), headers=gateway.headers, timeout=0.2)
    (record,) = records_of(gateway, "slow json", 1)
    assert (record["outcome"], kinds(record)) == ("disconnected", ["charge"])
    assert record["entries"][0]["output_tokens"] == 7


@pytest.mark.parametrize(("play", "kind"), [("failed with usage", "charge"), ("failed without usage", "estimate")])
def test_a_response_that_failed_half_way_and_is_free(gateway, play, kind):
    assert failed(**({} if kind == "charge" else {"usage": None})) in ask(gateway, play, stream=True).content
    (record,) = records_of(gateway, play, 1)
    assert (record["outcome"], record["error_code"], kinds(record)) == ("failed", "server_error", [kind])
    assert record["entries"][0]["output_tokens"] >= 7
    assert record["entries"][0]["cost_nanousd"] > 0


@pytest.mark.parametrize("bound", ["drain_s_max: 0.3", "drain_usd_max: 0.0001"])
def test_a_drain_that_runs_up_a_bill(tmp_path, bound):
    steps = [HEAD + piece(created()), *[PACE_S, piece(DELTA)] * 400]
    with (
        PlayedUpstream(lambda _: steps) as upstream,
        RunningGateway(tmp_path, config_for(upstream.base_url, extra=f"stream: {{{bound}}}\n")) as gateway,
    ):
        began_s = time.monotonic()
        with httpx.stream(
            "POST", f"{gateway.base_url}/responses", json=body_of("x", stream=True), headers=gateway.headers
        ) as answer:
            next(answer.iter_raw())
        (record,) = gateway.records(wait_for=1)
        assert time.monotonic() - began_s < 5
        assert (record["outcome"], record["error_code"], kinds(record)) == (
            "disconnected",
            "drain_over",
            ["estimate"],
        )
        entry = record["entries"][0]
        assert 0 < entry["cost_lower_nanousd"] <= entry["cost_nanousd"] <= entry["cost_upper_nanousd"]
        deadline = time.monotonic() + 3
        while not upstream.lost and time.monotonic() < deadline:
            time.sleep(0.05)
        assert upstream.lost == 1, "the upstream was not told"


# -- billed twice, or for nothing -------------------------------------------------------------


def test_each_poll_of_a_response_that_is_billed(gateway):
    before = len(gateway.records()), len(gateway.upstream.requests)
    for method, path in (("GET", "/responses/resp_1"), ("GET", "/responses"), ("POST", "/responses/resp_1/cancel")):
        polled = httpx.request(method, f"{gateway.base_url}{path}", headers=gateway.headers)
        assert polled.status_code in {404, 405}
    time.sleep(0.5)
    assert (len(gateway.records()), len(gateway.upstream.requests)) == before


@pytest.mark.parametrize(
    ("play", "status"),
    [("500", 500), ("502", 502), ("529", 529), ("silence", 504), ("lost", 502), ("lost in the body", 502)],
)
def test_a_retry_that_is_billed_twice(gateway, play, status):
    """What may have been billed is neither repeated here nor worth repeating to the SDK."""
    before = len(gateway.upstream.requests)
    with OpenAI(base_url=gateway.base_url, api_key=gateway.key) as client:
        answer = None
        try:
            client.responses.create(**body_of(play))
        except Exception as caught:
            answer = caught.response
    assert answer.status_code == status
    assert answer.headers["x-should-retry"] == "false"
    assert len(gateway.upstream.requests) == before + 1
    (record,) = records_of(gateway, play, 1)
    assert (record["attempts"], kinds(record)) == (1, ["estimate"])


def test_a_connection_that_was_closed_meanwhile_and_counts_as_an_attempt(gateway):
    """The upstream closes each connection after its answer; the next request finds out before it writes anything."""
    for _ in range(10):
        assert ask(gateway, "closing").status_code == 200
        time.sleep(0.02)
    records = records_of(gateway, "closing", 10)
    assert {(record["attempts"], *kinds(record)) for record in records} == {(1, "charge")}
    seen = [request for request in gateway.upstream.requests if b"closing" in request.body]
    assert [request.headers["x-client-request-id"] for request in seen] == [
        record["entries"][0]["attempt_id"] for record in records
    ]


def test_a_call_that_was_never_sent_and_is_billed(tmp_path):
    """An upstream that does not speak TLS where it should, and one whose name nobody knows."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def no_tls() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.close()

        thread = threading.Thread(target=no_tls, daemon=True)
        thread.start()
        urls = (f"https://127.0.0.1:{port}/v1", "http://no-such-upstream.invalid/v1")
        config = config_for(*urls).replace("models:", "models:\n  - {match: 'nameless', upstream: u1}")
        with RunningGateway(tmp_path, config) as gateway:
            for model in ("gpt-4o", "nameless"):
                answer = ask(gateway, "x", model=model)
                assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
            for record in gateway.records(wait_for=2):
                assert set(kinds(record)) == {"void"}
                assert sum(entry["cost_nanousd"] for entry in record["entries"]) == 0
        thread.join(5)


# -- limits -----------------------------------------------------------------------------------


def test_a_concurrency_counter_that_leaks_on_timeouts(gateway):
    made = gateway.json("keys", "create", "--team", "default", "--name", "three", "--concurrency", "3")

    def give_up(number: int) -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{gateway.base_url}/responses",
                json=body_of("long" if number % 2 else "silence", stream=bool(number % 2), metadata={"leak": "x"}),
                headers={"authorization": f"Bearer {made['key']}"},
                timeout=httpx.Timeout(5, read=0.02),
            ).raise_for_status()

    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(give_up, range(3)))
        deadline = time.monotonic() + 10
        while gateway.metrics()["headgate_in_flight"] and time.monotonic() < deadline:
            time.sleep(0.05)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: ask(gateway, "slow json", made["key"], metadata={"leak": "y"}), range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3


@pytest.mark.parametrize("limit", ["tokens-per-minute", "concurrency"])
def test_a_429_without_retry_after(simulated, limit):
    maximum = "3000" if limit == "tokens-per-minute" else "1"
    made = simulated.json("keys", "create", "--team", "default", "--name", f"l-{limit}", f"--{limit}", maximum)
    headers = {"authorization": f"Bearer {made['key']}"}
    body = {"model": "sim-large", "input": "[[sim: first_ms=700]] hi", "max_output_tokens": 2000}
    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(lambda _: httpx.post(f"{simulated.base_url}/responses", json=body, headers=headers), range(2))
        )
    answers.sort(key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [200, 429]
    refused = answers[1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(refused.headers["retry-after-ms"]) <= 60_000
    assert 0 < int(refused.headers["retry-after"]) <= 60


def test_a_drained_stream_that_no_longer_counts_as_concurrent(gateway):
    made = gateway.json("keys", "create", "--team", "default", "--name", "single", "--concurrency", "1")
    headers = {"authorization": f"Bearer {made['key']}"}
    with httpx.stream(
        "POST", f"{gateway.base_url}/responses", json=body_of("long", stream=True), headers=headers
    ) as answer:
        next(answer.iter_raw())
    assert ask(gateway, "drained", made["key"]).json()["error"]["code"] == "rate_limit_exceeded"
    deadline = time.monotonic() + 5
    while gateway.metrics()["headgate_in_flight"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ask(gateway, "slow json", made["key"]).status_code == 200


def test_nothing_is_left_over(gateway):
    """Run last."""
    assert gateway.metrics()["headgate_in_flight"] == 0
    assert gateway.check_ledger()["ok"]
