"""Starting, stopping, and going on while a part is away."""

from __future__ import annotations

import json
import shutil
import signal
import ssl
import subprocess
import threading
import time

import httpx
import pytest

from app.settings.file import PACKAGED
from tests.fakes.fleet import wait_for
from tests.fakes.gateway import SIMULATED, RunningGateway
from tests.fakes.postgres import PostgresServer
from tests.fakes.valkey import ValkeyServer

BODY = {"model": "sim-large", "input": "[[sim: tokens=3]] hi"}


def ask(gateway: RunningGateway, key: str | None = None, timeout: float = 30) -> httpx.Response:
    headers = {"authorization": f"Bearer {key or gateway.key}"}
    return httpx.post(f"{gateway.base_url}/responses", json=BODY, headers=headers, timeout=timeout)


def test_a_drain_lets_streams_end_and_exits_with_zero(tmp_path):
    config = SIMULATED.replace("drain_delay_s: 0", "drain_delay_s: 6")
    with RunningGateway(tmp_path, config) as gateway:
        received = []

        def stream() -> None:
            body = {"model": "sim-large", "input": "[[sim: tokens=40 pace_ms=60]] hi", "stream": True}
            with httpx.stream("POST", f"{gateway.base_url}/responses", json=body, headers=gateway.headers) as answer:
                received.extend(answer.iter_lines())

        thread = threading.Thread(target=stream)
        thread.start()
        wait_for(lambda: received)
        gateway.process.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{gateway.url}/readyz").status_code == 503)
        ready = httpx.get(f"{gateway.url}/readyz")
        assert (ready.status_code, ready.json()["failing"]) == (503, ["draining"])
        assert httpx.get(f"{gateway.url}/healthz").status_code == 200
        assert ask(gateway).status_code == 200, "still accepting during the delay"
        thread.join(30)
        assert "event: response.completed" in received
        assert gateway.process.wait(60) == 0
        assert len(gateway.records()) == 2
        assert not list((gateway.data_dir / "journal").rglob("*.log"))


@pytest.mark.parametrize("how", ["the end of the drain", "a second interrupt"])
def test_what_outlasts_the_drain_is_ended_with_an_event_and_billed(tmp_path, how):
    drain_s_max = 1 if how == "the end of the drain" else 600
    config = SIMULATED.replace("drain_delay_s: 0", f"drain_delay_s: 0, drain_s_max: {drain_s_max}")
    with RunningGateway(tmp_path, config) as gateway:
        body = {"model": "sim-large", "input": "[[sim: tokens=5000 pace_ms=50]] hi", "stream": True}
        received = b""
        with httpx.stream("POST", f"{gateway.base_url}/responses", json=body, headers=gateway.headers) as answer:
            for number, data in enumerate(answer.iter_raw()):
                received += data
                if number == 5:
                    if drain_s_max == 1:
                        gateway.process.send_signal(signal.SIGTERM)
                    else:
                        gateway.process.send_signal(signal.SIGINT)
                        threading.Timer(0.5, gateway.process.send_signal, (signal.SIGINT,)).start()
        events = [json.loads(line[6:]) for line in received.splitlines() if line.startswith(b"data: ")]
        last = events[-1]
        assert (last["type"], last["response"]["id"]) == ("response.failed", events[0]["response"]["id"])
        assert last["response"]["error"]["message"].startswith("gateway_shutdown: ")
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert gateway.process.wait(60) == 0
        (record,) = gateway.records()
        assert (record["outcome"], record["error_code"]) == ("interrupted", "gateway_shutdown")
        assert record["entries"][0]["kind"] == "estimate"
        assert gateway.check_ledger()["ok"]


def test_a_call_that_the_shutdown_cuts_is_not_worth_a_retry(tmp_path):
    config = SIMULATED.replace("drain_delay_s: 0", "drain_delay_s: 0, drain_s_max: 1")
    with RunningGateway(tmp_path, config) as gateway:

        def end() -> None:
            wait_for(lambda: gateway.metrics()["headgate_in_flight"] == 1)
            gateway.process.send_signal(signal.SIGTERM)

        threading.Thread(target=end).start()
        body = {"model": "sim-large", "input": "[[sim: first_ms=60000]] hi"}
        cut = httpx.post(f"{gateway.base_url}/responses", json=body, headers=gateway.headers, timeout=50)
        assert (cut.status_code, cut.json()["error"]["code"]) == (503, "draining")
        assert cut.headers["x-should-retry"] == "false"
        assert "retry-after" not in cut.headers
        assert "may have been billed" in cut.json()["error"]["message"]
        assert gateway.process.wait(60) == 0
    # What the client was told and what the ledger says agree.
    with RunningGateway(tmp_path, config) as gateway:
        record = gateway.records(wait_for=1)[0]
        assert (record["status"], record["error_code"], record["outcome"]) == (503, "gateway_shutdown", "interrupted")


def test_a_wrong_configuration_is_one_sentence_and_no_traceback(tmp_path):
    gateway = RunningGateway(tmp_path, "upstreams: {a: {base_ur: x}}\n")
    with pytest.raises(RuntimeError) as caught:
        gateway.start()
    assert "headgate.yaml:1: upstreams.a.base_ur: there is no such key" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    checked = gateway.command("check", "--config", str(gateway.config), check=False)
    assert checked.returncode == 1


def test_a_certificate_that_is_not_there_is_named_before_anything_starts(tmp_path):
    gateway = RunningGateway(tmp_path, SIMULATED, "--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.pem")
    with pytest.raises(RuntimeError, match=r"/nowhere\.pem: there is no such file"):
        gateway.start()


def test_a_report_of_a_ledger_that_is_not_there_says_so(tmp_path):
    gateway = RunningGateway(tmp_path)
    said = gateway.command("usage", "--data-dir", str(tmp_path / "typo"), check=False)
    assert (said.returncode, said.stdout) == (1, "")
    assert "no ledger" in said.stderr
    assert not (tmp_path / "typo").exists()


def test_a_port_in_use_is_one_sentence(tmp_path):
    with RunningGateway(tmp_path / "a") as first:
        second = RunningGateway(tmp_path / "b")
        second.port = first.port
        with pytest.raises(RuntimeError, match="cannot listen"):
            second.start()


def test_redis_that_dies_or_hangs_never_holds_a_request(tmp_path):
    with ValkeyServer() as redis, RunningGateway(tmp_path, HEADGATE_REDIS_URL=redis.url) as gateway:
        if not redis.owned:
            pytest.skip("HEADGATE_TEST_REDIS_URL names a server that is not ours to stop")
        limited = gateway.json("keys", "create", "--team", "default", "--name", "l", "--requests-per-minute", "1000")[
            "key"
        ]
        assert ask(gateway, limited).status_code == 200
        redis.freeze()
        started = time.monotonic()
        answers = [ask(gateway, limited) for _ in range(5)]
        assert time.monotonic() - started < 20
        assert {answer.json()["error"]["code"] for answer in answers} == {"limits_unavailable"}
        assert all("retry-after" in answer.headers for answer in answers)
        assert ask(gateway).status_code == 200, "a key without limits goes on"
        assert gateway.metrics()['headgate_degraded{dependency="redis"}'] == 1
        assert httpx.get(f"{gateway.url}/readyz").status_code == 200
        redis.resume()
        deadline = time.monotonic() + 30
        while ask(gateway, limited).status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert ask(gateway, limited).status_code == 200
        assert gateway.metrics()['headgate_degraded{dependency="redis"}'] == 0
        changes = [line["event"] for line in gateway.log() if line.get("dependency") == "redis"]
        assert changes == ["dependency_down", "dependency_up"]


async def test_a_database_that_is_away_costs_no_record(tmp_path):
    server = PostgresServer()
    server.start()
    try:
        url = await server.create_database()
        with RunningGateway(tmp_path, HEADGATE_DATABASE_URL=url) as gateway:
            assert ask(gateway).status_code == 200
            while gateway.metrics()["headgate_journal_records"]:
                time.sleep(0.1)
            server.stop(immediate=True)
            for _ in range(10):
                assert ask(gateway).status_code == 200
            assert httpx.get(f"{gateway.url}/readyz").status_code == 200
            wait_for(lambda: gateway.metrics()['headgate_degraded{dependency="ledger"}'] == 1)
            assert gateway.metrics()["headgate_journal_records"] == 10
            server.start()
            deadline = time.monotonic() + 30
            while gateway.metrics()["headgate_journal_records"] and time.monotonic() < deadline:
                time.sleep(0.2)
            assert sum(row["requests"] for row in gateway.usage()) == 11
            assert gateway.check_ledger()["ok"]
    finally:
        server.remove()


def test_the_gateway_starts_by_the_default_configuration(tmp_path):
    with RunningGateway(tmp_path, PACKAGED.read_text()) as gateway:
        assert ask(gateway).status_code == 200
        off = httpx.post(f"{gateway.base_url}/responses", json={**BODY, "model": "gpt-4o"}, headers=gateway.headers)
        assert (off.status_code, off.json()["error"]["code"]) == (404, "model_not_found")
        assert "has no key" in off.json()["error"]["message"]
        assert any("openai" in line.get("text", "") for line in gateway.log())
        listed = httpx.get(f"{gateway.base_url}/models", headers=gateway.headers).json()
        assert {"sim-large", "sim-mini"} <= {model["id"] for model in listed["data"]}
        assert json.loads(gateway.command("check", "--config", str(gateway.config), "--json").stdout)["off"] == [
            "openai"
        ]


def test_tls(tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not here")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    made = (
        openssl,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        cert,
        "-days",
        "2",
        *names,
    )
    subprocess.run(made, check=True, capture_output=True)
    with RunningGateway(tmp_path, SIMULATED, "--tls-cert", str(cert), "--tls-key", str(key)) as gateway:
        context = ssl.create_default_context(cafile=str(cert))
        url = f"https://127.0.0.1:{gateway.port}/v1/responses"
        for stream in (False, True):
            answer = httpx.post(url, json={**BODY, "stream": stream}, headers=gateway.headers, verify=context)
            assert answer.status_code == 200
        assert gateway.first_run["base_url"].startswith("https://")
