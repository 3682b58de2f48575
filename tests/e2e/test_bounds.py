"""Bounds: what is met with an answer, what passes without being held, and who pays for a slow client."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import ExitStack

import httpx
import psutil
import pytest

from tests.e2e.test_replay import completed, created, event
from tests.fakes.fleet import wait_for
from tests.fakes.gateway import SIMULATED, RunningGateway
from tests.fakes.upstream import STREAM_HEAD, PlayedUpstream, chunked, config_for, whole

USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}


def post(gateway: RunningGateway, **body) -> httpx.Response:
    full = {"model": "gpt-4o", "input": "hi", **body}
    return httpx.post(f"{gateway.base_url}/responses", json=full, headers=gateway.headers, timeout=60)


def test_a_large_json_answer_passes_and_is_billed_exactly(tmp_path):
    answer = {"id": "resp_1", "model": "gpt-4o", "status": "completed", "usage": USAGE, "output": ["x" * 6_000_000]}
    raw = json.dumps(answer).encode()
    with (
        PlayedUpstream(lambda _: whole(raw)) as upstream,
        RunningGateway(tmp_path, config_for(upstream.base_url)) as gateway,
    ):
        got = post(gateway)
        assert got.content == raw
        assert "x-headgate-cost-usd" not in got.headers
        (entry,) = gateway.records(wait_for=1)[0]["entries"]
        assert (entry["kind"], entry["input_tokens"], entry["output_tokens"]) == ("charge", 11, 7)


def test_a_response_that_is_too_large_to_keep_can_be_continued_by_its_team(tmp_path):
    answer = {
        "id": "resp_large",
        "model": "gpt-4o",
        "status": "completed",
        "output": ["x" * 18_000_000],
        "usage": USAGE,
    }
    raw = json.dumps(answer).encode()
    with (
        PlayedUpstream(lambda _: whole(raw)) as upstream,
        RunningGateway(tmp_path, config_for(upstream.base_url)) as gateway,
    ):
        assert post(gateway).content == raw
        assert post(gateway, previous_response_id="resp_large").status_code == 200
        assert post(gateway, previous_response_id="resp_other").status_code == 404
        (entry,) = gateway.records(wait_for=2)[0]["entries"]
        assert entry["kind"] == "estimate"


def test_a_terminal_event_that_is_too_large_to_keep_is_an_estimate_at_the_bound(tmp_path):
    huge = completed(output=["y" * 17_000_000])

    def play(_):
        return chunked([created(), *(huge[at : at + 60_000] for at in range(0, len(huge), 60_000))], pause_s=0)

    with PlayedUpstream(play) as upstream, RunningGateway(tmp_path, config_for(upstream.base_url)) as gateway:
        got = post(gateway, stream=True, max_output_tokens=50)
        assert got.content == created() + huge
        (entry,) = gateway.records(wait_for=1)[0]["entries"]
        assert (entry["kind"], entry["output_tokens"]) == ("estimate", 50)


def test_bodies_are_bounded_each_and_together(tmp_path):
    config = SIMULATED.replace(
        "drain_delay_s: 0", "drain_delay_s: 0, body_bytes_max: 20000, body_bytes_in_flight_max: 30000"
    )
    with RunningGateway(tmp_path, config) as gateway:
        too_large = post(gateway, input="x" * 20_000)
        assert (too_large.status_code, too_large.json()["error"]["code"]) == (413, "body_too_large")

        def unfinished() -> socket.socket:
            sock = socket.create_connection(("127.0.0.1", gateway.port))
            head = f"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
            sock.sendall(
                (head + "content-type: application/json\r\ncontent-length: 18000\r\n\r\n").encode() + b"x" * 17_000
            )
            return sock

        first = unfinished()
        time.sleep(1)
        assert post(gateway).status_code == 200, "there is room for a small one"
        refused = post(gateway, input="x" * 17_000)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert "retry-after" in refused.headers
        first.close()
        wait_for(lambda: post(gateway, input="x" * 17_000).status_code == 200)
        assert len(gateway.records(wait_for=2)) == 2


def test_more_requests_than_may_be_in_flight_are_refused_at_once(tmp_path):
    config = SIMULATED.replace("drain_delay_s: 0", "drain_delay_s: 0, in_flight_max: 3")
    with RunningGateway(tmp_path, config) as gateway:
        threads = [
            threading.Thread(target=post, args=(gateway,), kwargs={"input": "[[sim: first_ms=5000]]"}) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: gateway.metrics()["headgate_in_flight"] == 3)
        refused = post(gateway)
        assert gateway.metrics()["headgate_in_flight"] == 3, "it waited for none of them"
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert httpx.get(f"{gateway.url}/readyz").status_code == 200
        for thread in threads:
            thread.join()
        assert post(gateway).status_code == 200


def test_an_upstream_has_a_bound_of_its_own(tmp_path):
    def play(seen):
        return ["hang"] if b"slow" in seen.body else whole(json.dumps({"id": "resp_1", "usage": USAGE}).encode())

    with PlayedUpstream(play) as slow, PlayedUpstream(play) as quick:
        config = f"""
upstreams:
  slow: {{base_url: "{slow.base_url}", connections_max: 2, timeouts: {{first_byte_s: 4}}}}
  quick: {{base_url: "{quick.base_url}"}}
models: [{{match: "slow*", upstream: slow}}, {{match: "*", upstream: quick}}]
server: {{drain_delay_s: 0}}
"""
        with RunningGateway(tmp_path, config) as gateway:
            answers = []
            threads = [threading.Thread(target=lambda: answers.append(post(gateway, model="slow"))) for _ in range(4)]
            for thread in threads:
                thread.start()
            wait_for(lambda: len(answers) == 2)
            assert post(gateway, model="quick").status_code == 200
            for thread in threads:
                thread.join()
            codes = sorted(answer.json()["error"]["code"] for answer in answers)
            assert codes == ["overloaded", "overloaded", "upstream_timeout", "upstream_timeout"]
            kinds = sorted(record["entries"][-1]["kind"] for record in gateway.records(wait_for=5))
            assert kinds == ["charge", "estimate", "estimate", "void", "void"]


def test_slow_readers_cost_little_memory_and_are_cut(tmp_path):
    block = event("response.output_text.delta", delta="z" * 30_000)

    def play(seen):
        if b'"stream"' not in seen.body:
            yield from whole(json.dumps({"id": "resp_1", "usage": USAGE}).encode())
            return
        yield STREAM_HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n"
        yield b"%x\r\n%s\r\n" % (len(created()), created())
        for _ in range(1500):
            yield b"%x\r\n%s\r\n" % (len(block), block)

    config_extra = "stream: {on_disconnect: cancel}\n"
    with PlayedUpstream(play) as upstream:
        config = config_for(upstream.base_url, extra=config_extra).replace(
            "drain_delay_s: 0", "drain_delay_s: 0, slow_client_s: 2"
        )
        with RunningGateway(tmp_path, config) as gateway, ExitStack() as stack:
            post(gateway)
            process = psutil.Process(gateway.process.pid)
            before = process.memory_info().rss
            body = json.dumps({"model": "gpt-4o", "input": "hi", "stream": True}).encode()
            for _ in range(60):
                sock = stack.enter_context(socket.socket())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(("127.0.0.1", gateway.port))
                head = f"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
                sock.sendall(
                    (head + f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n").encode() + body
                )
            time.sleep(1.5)
            assert (process.memory_info().rss - before) / 60 < 320 * 1024
            records = gateway.records(wait_for=61)
            assert [record["outcome"] for record in records[1:]] == ["disconnected"] * 60
            assert gateway.metrics()["headgate_in_flight"] == 0


@pytest.mark.parametrize("policy", ["drain", "cancel"])
def test_a_stream_without_its_client_is_drained_or_cancelled_by_policy(tmp_path, policy):
    with RunningGateway(tmp_path, SIMULATED + f"stream: {{on_disconnect: {policy}}}\n") as gateway:
        body = {"model": "sim-mini", "input": "[[sim: tokens=30 pace_ms=30]] hi", "stream": True}
        with httpx.stream("POST", f"{gateway.base_url}/responses", json=body, headers=gateway.headers) as answer:
            next(answer.iter_raw())
        (record,) = gateway.records(wait_for=1)
        assert record["outcome"] == "disconnected"
        assert record["entries"][0]["kind"] == ("charge" if policy == "drain" else "estimate")
        assert gateway.metrics()['headgate_disconnects_total{phase="stream"}'] == 1


def test_an_answer_that_is_no_stream_is_finished_without_its_client(tmp_path):
    with RunningGateway(tmp_path, SIMULATED + "stream: {on_disconnect: cancel}\n") as gateway:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{gateway.base_url}/responses",
                json={"model": "sim-mini", "input": "[[sim: first_ms=3000]] hi"},
                headers=gateway.headers,
                timeout=httpx.Timeout(30, read=1),
            )
        (record,) = gateway.records(wait_for=1)
        assert (record["outcome"], record["entries"][0]["kind"]) == ("disconnected", "charge")
