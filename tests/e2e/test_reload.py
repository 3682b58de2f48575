"""A configuration that changes under a running gateway: wholly or not at all, and what runs is not disturbed."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.fakes.gateway import SIMULATED, RunningGateway
from tests.fakes.upstream import PlayedUpstream, chunked, config_for, whole

ANSWER = json.dumps({"id": "resp_1", "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}}).encode()


def ask(gateway: RunningGateway, model: str = "sim-mini", text: str = "[[sim: tokens=2]] hi") -> httpx.Response:
    body = {"model": model, "input": text}
    return httpx.post(f"{gateway.base_url}/responses", json=body, headers=gateway.headers, timeout=30)


def wait_for(holds: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def events(gateway: RunningGateway, name: str) -> list[dict]:
    return [line for line in gateway.log() if line["event"] == name]


def reload(gateway: RunningGateway, config: str) -> None:
    """Writes the file as an editor does, and asks for it."""
    told = _told(gateway)
    fresh = gateway.config.with_suffix(".new")
    fresh.write_text(config)
    fresh.rename(gateway.config)
    gateway.process.send_signal(signal.SIGHUP)
    wait_for(lambda: _told(gateway) > told)


def _told(gateway: RunningGateway) -> int:
    return gateway.log_path.read_bytes().count(b'"event":"configuration_re')


def aliased(name: str) -> str:
    return SIMULATED.replace("models:", f"models:\n  - {{name: {name}, upstream: simulator, model: sim-mini}}")


def test_a_changed_file_is_in_force_after_a_signal_or_by_itself_and_the_process_stays(tmp_path):
    with RunningGateway(tmp_path, aliased("first")) as gateway:
        pid = gateway.process.pid
        assert ask(gateway, "first").status_code == 200
        names = {
            model["id"] for model in httpx.get(f"{gateway.base_url}/models", headers=gateway.headers).json()["data"]
        }
        assert "first" in names and "second" not in names
        reload(gateway, aliased("second"))
        listed = httpx.get(f"{gateway.base_url}/models", headers=gateway.headers).json()["data"]
        assert "second" in {model["id"] for model in listed}
        gateway.config.write_text(aliased("third"))
        wait_for(lambda: len(events(gateway, "configuration_reloaded")) == 2)
        listed = httpx.get(f"{gateway.base_url}/models", headers=gateway.headers).json()["data"]
        assert {"third"} == {model["id"] for model in listed} & {"first", "second", "third"}
        assert gateway.metrics()['headgate_configuration_reloads_total{result="reloaded"}'] == 2
        assert gateway.process.poll() is None and gateway.process.pid == pid


def test_a_wrong_file_leaves_the_old_one_in_force_and_is_told_once_with_its_line(tmp_path):
    with RunningGateway(tmp_path, aliased("kept")) as gateway:
        reload(gateway, aliased("kept").replace("drain_delay_s: 0", "drain_delay_s: 0, misspelt: 1"))
        time.sleep(2.5)
        (refused,) = events(gateway, "configuration_refused")
        assert "headgate.yaml:" in refused["reason"] and "misspelt: there is no such key" in refused["reason"]
        assert ask(gateway, "kept").status_code == 200
        told = gateway.metrics()
        assert told['headgate_configuration_reloads_total{result="refused"}'] == 1
        assert told['headgate_configuration_reloads_total{result="reloaded"}'] == 0
        for broken in ("models: [", "models: [{name: x, upstream: nobody}]", "\x00", "a: ${SURELY_NOT_SET}"):
            reload(gateway, broken)
        assert len(events(gateway, "configuration_refused")) == 5
        assert ask(gateway, "kept").status_code == 200
        reload(gateway, aliased("mended"))
        assert ask(gateway, "mended").status_code == 200
        assert httpx.get(f"{gateway.url}/readyz").status_code == 200


def test_connections_to_an_upstream_that_stays_the_same_are_kept(tmp_path):
    with PlayedUpstream(lambda _: whole(ANSWER)) as same, PlayedUpstream(lambda _: whole(ANSWER)) as other:
        config = config_for(same.base_url, other.base_url)
        with RunningGateway(tmp_path, config) as gateway:
            assert ask(gateway, "m").status_code == 200
            for number in range(3):
                reload(gateway, config.replace("sk-canary-upstream-1", f"sk-canary-changed-{number}"))
                assert ask(gateway, "m").status_code == 200
            assert (same.connections, len(same.requests)) == (1, 4)
            reload(gateway, config.replace("sk-canary-upstream-0", "sk-canary-rotated"))
            assert ask(gateway, "m").status_code == 200
            assert same.connections == 2
            assert same.requests[-1].headers["authorization"] == "Bearer sk-canary-rotated"
            assert "sk-canary" not in gateway.log_path.read_text()


def test_a_secret_in_a_file_is_read_again_when_asked(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("sk-canary-old\n")
    with PlayedUpstream(lambda _: whole(ANSWER)) as upstream:
        config = config_for(upstream.base_url).replace("sk-canary-upstream-0", f"'file:{secret}'")
        with RunningGateway(tmp_path / "gateway", config) as gateway:
            assert ask(gateway, "m").status_code == 200
            secret.write_text("sk-canary-new\n")
            reload(gateway, config)
            assert ask(gateway, "m").status_code == 200
            assert [seen.headers["authorization"] for seen in upstream.requests] == [
                "Bearer sk-canary-old",
                "Bearer sk-canary-new",
            ]


def test_what_runs_goes_on_with_the_configuration_it_began_with_and_its_upstream_is_closed_afterwards(tmp_path):
    release = threading.Event()
    pieces = [b'data: {"type": "response.output_text.delta", "delta": "x"}\n\n'] * 3
    last = b'data: {"type": "response.completed", "response": {"id": "resp_1", "usage": {"input_tokens": 1,'
    last += b' "output_tokens": 2, "total_tokens": 3}}}\n\n'

    def play(_):
        steps = chunked([*pieces, last])
        yield from steps[:7]
        while not release.is_set():
            yield 0.02
        yield from steps[7:]

    with PlayedUpstream(play) as leaving, RunningGateway(tmp_path, config_for(leaving.base_url)) as gateway:
        body = {"model": "m", "input": "hi", "stream": True}
        with httpx.stream(
            "POST", f"{gateway.base_url}/responses", json=body, headers=gateway.headers, timeout=30
        ) as answer:
            received = answer.iter_raw()
            first = next(received)
            reload(gateway, SIMULATED)
            assert ask(gateway).status_code == 200, "the simulator was named just now"
            told = gateway.metrics()
            assert (told["headgate_in_flight"], told["headgate_streams_open"]) == (1, 1)
            assert {name for name in told if name.startswith("headgate_upstream_up")} == {
                'headgate_upstream_up{upstream="simulator"}'
            }
            time.sleep(1.5)
            release.set()
            assert first + b"".join(received) == b"".join([*pieces, last])
        records = gateway.records(wait_for=2)
        assert sorted(record["outcome"] for record in records) == ["completed", "completed"]
        wait_for(lambda: gateway.metrics()["headgate_streams_open"] == 0)
        assert gateway.metrics()["headgate_in_flight"] == 0


def test_limits_of_the_server_are_those_of_the_new_file(tmp_path):
    with RunningGateway(tmp_path, SIMULATED) as gateway:
        large = "x" * 20_000
        assert ask(gateway, text=large).status_code == 200
        reload(gateway, SIMULATED.replace("drain_delay_s: 0", "drain_delay_s: 0, body_bytes_max: 5000"))
        assert ask(gateway, text=large).status_code == 413
        assert ask(gateway).status_code == 200
        reload(gateway, SIMULATED.replace("drain_delay_s: 0", "drain_delay_s: 0, in_flight_max: 1"))
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: ask(gateway, text="[[sim: first_ms=500]] hi").status_code, range(4)))
        assert sorted(answers) == [200, 503, 503, 503]
        reload(gateway, SIMULATED)
        assert ask(gateway, text=large).status_code == 200


def test_limits_for_every_key_are_those_of_the_new_file(tmp_path):
    with RunningGateway(tmp_path, SIMULATED) as gateway:
        assert [ask(gateway).status_code for _ in range(3)] == [200] * 3
        reload(gateway, SIMULATED + "limits: {key: {requests_per_minute: 1}}\n")
        assert [ask(gateway).status_code for _ in range(3)].count(200) <= 1
        reload(gateway, SIMULATED)
        assert [ask(gateway).status_code for _ in range(3)] == [200] * 3


def test_the_drain_is_that_of_the_new_file(tmp_path):
    with RunningGateway(tmp_path, SIMULATED.replace("drain_delay_s: 0", "drain_delay_s: 60")) as gateway:
        reload(gateway, SIMULATED)
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 10


def test_many_reloads_under_load_cost_no_request(tmp_path):
    """The short form of the next one."""
    reload_under_load(tmp_path, 12)


@pytest.mark.long
def test_200_reloads_under_load_cost_no_request(tmp_path):
    reload_under_load(tmp_path, 200)


def reload_under_load(folder, times: int) -> None:
    with RunningGateway(folder, aliased("a")) as gateway:
        stop = threading.Event()
        seen: list[int] = []

        def work(number: int) -> None:
            with httpx.Client(headers=gateway.headers, timeout=30) as client:
                while not stop.is_set():
                    body = {"model": "sim-mini", "input": "[[sim: tokens=3]] hi", "stream": number % 2 == 0}
                    answer = client.post(f"{gateway.base_url}/responses", json=body)
                    whole_stream = number % 2 or "event: response.completed" in answer.text
                    seen.append(answer.status_code if whole_stream else 0)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for number in range(times):
            reload(gateway, aliased("a" if number % 2 else "b"))
        stop.set()
        for thread in threads:
            thread.join()
        assert set(seen) == {200}
        assert len(seen) > times
        assert len(gateway.records(wait_for=len(seen))) == len(seen)
        assert gateway.metrics()['headgate_configuration_reloads_total{result="reloaded"}'] == times
