"""Several workers behind one listener: as one gateway to its clients, whoever of them dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import psutil
import pytest

from tests.fakes.fleet import Fleet, Stores, is_alive, wait_for
from tests.fakes.gateway import SIMULATED, RunningGateway

STREAMED = {"model": "sim-large", "stream": True}


@pytest.fixture(scope="module")
def stores():
    stores = Stores()
    stores.start()
    yield stores
    stores.close()


@pytest.fixture(scope="module")
def steady(tmp_path_factory, stores):
    """Two workers that no test ends."""
    with Fleet(tmp_path_factory.mktemp("steady"), stores) as fleet:
        yield fleet


class Stream(threading.Thread):
    """A stream that is read to its end, on a connection of its own."""

    def __init__(self, fleet: Fleet, text: str) -> None:
        super().__init__(daemon=True)
        self.begun = threading.Event()
        self.received = ""
        self.error: Exception | None = None
        self._fleet = fleet
        self._body = {**STREAMED, "input": text}
        self.start()

    def run(self) -> None:
        url, headers = f"{self._fleet.base_url}/responses", self._fleet.headers
        try:
            with httpx.stream("POST", url, json=self._body, headers=headers, timeout=60) as answer:
                for text in answer.iter_text():
                    self.received += text
                    self.begun.set()
        except httpx.HTTPError as error:
            self.error = error
        self.begun.set()

    @property
    def whole(self) -> bool:
        return self.error is None and "event: response.completed" in self.received


def begun(fleet: Fleet, count: int, text: str = "[[sim: tokens=40 pace_ms=50]] hi") -> list[Stream]:
    streams = [Stream(fleet, text) for _ in range(count)]
    for stream in streams:
        assert stream.begun.wait(30)
    return streams


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["HEADGATE_REDIS_URL", "HEADGATE_DATABASE_URL"])
def test_several_workers_without_what_they_share_are_refused_with_a_sentence(tmp_path, named):
    gateway = RunningGateway(tmp_path)
    refused = gateway.command(
        "serve", "--workers", "4", "--port", "0", "--data-dir", str(gateway.data_dir), check=False
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("headgate: 4 workers need ") and named in refused.stderr
    assert refused.stderr.count("\n") == 1 and not gateway.data_dir.exists()


def test_a_worker_that_cannot_start_ends_it_with_its_one_sentence(tmp_path, stores):
    fleet = Fleet(tmp_path, stores, 3)
    fleet.environment["HEADGATE_REDIS_URL"] = "ftp://nowhere"
    refused = fleet.command("serve", "--workers", "3", "--config", str(fleet.config), "--port", "0", check=False)
    assert refused.returncode == 1
    sentences = [line for line in refused.stderr.splitlines() if not line.startswith("{")]
    assert len(sentences) == 1
    assert sentences[0].startswith("headgate: HEADGATE_REDIS_URL: ")
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if str(fleet.data_dir) in " ".join(one.info["cmdline"] or [])
    ]


def test_a_second_gateway_on_the_data_dir_is_refused(steady):
    refused = steady.command("serve", "--workers", "2", "--config", str(steady.config), "--port", "0", check=False)
    assert (refused.returncode, refused.stderr.count("another gateway runs on")) == (1, 1)
    assert steady.ask().status_code == 200


# -- as one -----------------------------------------------------------------------------------


def test_workers_serve_as_one_gateway(tmp_path, stores):
    with Fleet(tmp_path, stores) as fleet:
        assert len(fleet.workers) == 2 and len(fleet.children) == 3, "the simulator is a process beside them"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: fleet.ask(), range(40)))
        assert {answer.status_code for answer in answers} == {200}
        served = {line["process"] for line in fleet.lines("request")}
        assert served == {"worker-0", "worker-1"}
        wait_for(lambda: fleet.total() == 40)
        # Whoever answers: the sums of all, no older than two seconds, and never less than before.
        shown = [fleet.requests_metric() for _ in range(10)]
        assert shown == sorted(shown)
        wait_for(lambda: fleet.requests_metric() == 40)
        assert {fleet.requests_metric() for _ in range(10)} == {40.0}
        told = fleet.metrics()
        assert told["headgate_worker_restarts_total"] == 0
        assert len([name for name in told if name.startswith("headgate_build_info")]) == 1
        assert told["headgate_in_flight"] == 0
        assert fleet.check_ledger()["ok"]
        assert httpx.get(f"{fleet.url}/readyz").json() == {"status": "ready", "failing": []}
        assert {path.name for path in (fleet.data_dir / "journal").iterdir()} >= {"slot-0", "slot-1"}
        assert fleet.stop() == 0
    assert not list((fleet.data_dir / "journal").rglob("*.log"))
    assert not (fleet.data_dir / "simulator.sock").exists()
    # Three processes write one log: each line is whole and names its own.
    names = {json.loads(line)["process"] for line in fleet.log_path.read_text().splitlines()}
    assert names == {"supervisor", "worker-0", "worker-1"}


def test_limits_hold_over_all_workers(steady):
    made = steady.json("keys", "create", "--team", "default", "--name", "l", "--requests-per-minute", "5")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: steady.ask(key=made["key"]).status_code, range(20)))
    assert sorted(answers) == [200] * 5 + [429] * 15


def test_connections_are_spread_evenly_also_in_a_burst_and_when_they_stay(steady):
    connections = []
    try:
        connections += [socket.create_connection(("127.0.0.1", steady.port)) for _ in range(60)]
        counts = wait_for(lambda: _connections(steady, 60))
        assert abs(counts[0] - counts[1]) <= 4, counts
        # One that comes at a time, to workers that have nothing to do.
        for _ in range(10):
            time.sleep(0.03)
            connections.append(socket.create_connection(("127.0.0.1", steady.port)))
        counts = wait_for(lambda: _connections(steady, 70))
        assert abs(counts[0] - counts[1]) <= 4, counts
    finally:
        for connection in connections:
            connection.close()


def _connections(fleet: Fleet, total: int) -> list[int]:
    counts = [
        sum(
            one.status == psutil.CONN_ESTABLISHED and one.laddr.port == fleet.port
            for one in psutil.Process(pid).net_connections("tcp")
        )
        for pid in fleet.workers.values()
    ]
    return counts if sum(counts) == total else []


# -- who dies ---------------------------------------------------------------------------------


def test_a_killed_worker_is_brought_back_and_what_it_served_is_settled(tmp_path, stores):
    with Fleet(tmp_path, stores) as fleet:
        for _ in range(10):
            fleet.ask()
        streams = begun(fleet, 8)
        before = fleet.requests_metric()
        name, victim = "worker-0", fleet.workers["worker-0"]
        os.kill(victim, signal.SIGKILL)
        assert fleet.ask().status_code == 200, "the others go on"
        wait_for(lambda: fleet.workers[name] != victim)
        for stream in streams:
            stream.join(30)
        cut = [stream for stream in streams if not stream.whole]
        assert 0 < len(cut) < 8, "those of the other worker are whole"
        wait_for(lambda: fleet.total() == 19)
        told = fleet.metrics()
        assert told["headgate_worker_restarts_total"] == 1
        assert fleet.requests_metric() >= before, "counters never go back"
        (died,) = fleet.lines("worker_died")
        assert (died["worker"], died["pid"], died["ended"]) == (0, victim, "signal SIGKILL")
        rows = fleet.usage("model")
        assert sum(row["estimated"] for row in rows) == len(cut)
        assert fleet.check_ledger()["ok"]
        # The new one counts on from where the old one was.
        for _ in range(6):
            fleet.ask()
        wait_for(lambda: fleet.requests_metric() >= before + 6)


def test_orphans_are_settled_also_when_nobody_brings_the_worker_back(tmp_path, stores):
    with Fleet(tmp_path, stores) as fleet:
        streams = begun(fleet, 6, "[[sim: tokens=400 pace_ms=50]] hi")
        fleet.process.send_signal(signal.SIGSTOP)
        try:
            os.kill(fleet.workers["worker-1"], signal.SIGKILL)
            recovered = wait_for(lambda: fleet.lines("journal_recovered"))
            (line,) = recovered
            assert line["process"] == "worker-0" and 0 < line["interrupted"] < 6
            wait_for(lambda: fleet.total() == line["interrupted"])
        finally:
            fleet.process.send_signal(signal.SIGCONT)
        wait_for(lambda: len(fleet.lines("worker_started")) == 3)
        fleet.process.send_signal(signal.SIGINT)
        fleet.process.send_signal(signal.SIGINT)
        assert fleet.process.wait(60) == 0
        assert fleet.total() == len(streams)
        assert fleet.check_ledger()["ok"]


def test_workers_whose_supervisor_is_killed_drain_and_leave_the_port(tmp_path, stores):
    with Fleet(tmp_path, stores) as fleet:
        children = fleet.children
        (stream,) = begun(fleet, 1, "[[sim: tokens=60 pace_ms=50]] hi")
        fleet.kill()
        stream.join(30)
        assert stream.whole, "what runs runs to its end"
        wait_for(lambda: not any(is_alive(child.pid) for child in children))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", fleet.port))
        assert len(fleet.lines("supervisor_gone")) == 2
        assert fleet.total() == 1
        fleet.start()
        assert fleet.ask().status_code == 200


def test_a_simulator_that_dies_is_brought_back(steady):
    assert steady.ask().status_code == 200
    (simulator,) = [child for child in steady.children if child.pid not in steady.workers.values()]
    simulator.kill()
    wait_for(lambda: steady.lines("simulator_died"))
    wait_for(lambda: steady.ask().status_code == 200)


# -- signals ----------------------------------------------------------------------------------


def test_a_drain_is_one_of_all_workers(tmp_path, stores):
    config = SIMULATED.replace("drain_delay_s: 0", "drain_delay_s: 6")
    with Fleet(tmp_path, stores, 2, config) as fleet:
        streams = begun(fleet, 6)
        fleet.process.send_signal(signal.SIGTERM)
        # One after the other they hear of it.
        wait_for(lambda: {httpx.get(f"{fleet.url}/readyz").status_code for _ in range(8)} == {503})
        for _ in range(4):
            ready = httpx.get(f"{fleet.url}/readyz")
            assert (ready.status_code, ready.json()["failing"]) == (503, ["draining"])
            assert ready.headers["connection"] == "close"
        assert fleet.ask().status_code == 200, "still accepting during the delay"
        for stream in streams:
            stream.join(30)
        assert all(stream.whole for stream in streams)
        assert fleet.process.wait(60) == 0
        assert fleet.total() == 7
        assert fleet.lines("worker_died") == []


def test_a_second_interrupt_cuts_and_all_of_it_is_settled(tmp_path, stores):
    with Fleet(tmp_path, stores) as fleet:
        streams = begun(fleet, 4, "[[sim: tokens=4000 pace_ms=50]] hi")
        fleet.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert fleet.process.poll() is None
        fleet.process.send_signal(signal.SIGINT)
        assert fleet.process.wait(60) == 0
        for stream in streams:
            stream.join(30)
            assert not stream.whole
        assert fleet.total() == 4
        assert not list((fleet.data_dir / "journal").rglob("*.log"))


@pytest.mark.long
def test_a_worker_that_does_not_end_is_killed_when_the_drain_is_over(tmp_path, stores):
    config = SIMULATED.replace("drain_delay_s: 0", "drain_delay_s: 0, drain_s_max: 1")
    with Fleet(tmp_path, stores, 2, config) as fleet:
        stuck = fleet.workers["worker-1"]
        os.kill(stuck, signal.SIGSTOP)
        began = time.monotonic()
        fleet.process.send_signal(signal.SIGTERM)
        assert fleet.process.wait(60) == 1
        assert 15 < time.monotonic() - began < 30
        assert [line["worker"] for line in fleet.lines("worker_killed")] == [1]
        assert not is_alive(stuck)


def test_a_reload_is_one_of_all_workers_and_a_wrong_file_is_told_once(tmp_path, stores):
    with Fleet(tmp_path, stores) as fleet:
        named = SIMULATED.replace("models:", "models:\n  - {name: fresh, upstream: simulator, model: sim-mini}")
        fleet.config.write_text(named)
        fleet.process.send_signal(signal.SIGHUP)
        wait_for(lambda: fleet.lines("configuration_reloaded"))
        for _ in range(8):
            listed = httpx.get(f"{fleet.base_url}/models", headers=fleet.headers).json()["data"]
            assert "fresh" in {model["id"] for model in listed}
        fleet.config.write_text("models: [{name: x, upstream: nobody}]\n")
        (refused,) = wait_for(lambda: fleet.lines("configuration_refused"))
        assert (refused["process"], "no upstream named 'nobody'" in refused["reason"]) == ("supervisor", True)
        # With that file on the disk a worker comes back all the same, with what is in force.
        victim = fleet.workers["worker-0"]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: fleet.workers["worker-0"] != victim)
        for _ in range(8):
            listed = httpx.get(f"{fleet.base_url}/models", headers=fleet.headers).json()["data"]
            assert "fresh" in {model["id"] for model in listed}
        # The supervisor's counters are on the page two seconds later at most.
        wait_for(lambda: fleet.metrics().get('headgate_configuration_reloads_total{result="refused"}') == 1)
        assert fleet.metrics()['headgate_configuration_reloads_total{result="reloaded"}'] == 1


def test_the_simulator_is_started_when_a_new_file_names_it(tmp_path, stores):
    config = 'upstreams: {u: {base_url: "http://127.0.0.1:9/v1"}}\nmodels: [{match: "*", upstream: u}]\n'
    config += "server: {drain_delay_s: 0}\n"
    with Fleet(tmp_path, stores, 2, config) as fleet:
        assert len(fleet.children) == 2
        assert fleet.ask().status_code == 502
        fleet.config.write_text(SIMULATED)
        fleet.process.send_signal(signal.SIGHUP)
        wait_for(lambda: fleet.lines("configuration_reloaded"))
        assert [fleet.ask().status_code for _ in range(4)] == [200] * 4
        assert len(fleet.children) == 3


def test_workers_serve_tls(tmp_path, stores):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not here")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    made = (openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2")
    subprocess.run((*made, *names), check=True, capture_output=True)
    with Fleet(tmp_path, stores, 2, SIMULATED, "--tls-cert", str(cert), "--tls-key", str(key)) as fleet:
        context = ssl.create_default_context(cafile=str(cert))
        url = f"https://127.0.0.1:{fleet.port}/v1/responses"
        body = {"model": "sim-large", "input": "[[sim: tokens=2]] hi"}
        with ExitStack() as stack:
            for _ in range(6):
                client = stack.enter_context(httpx.Client(verify=context, headers=fleet.headers, timeout=30))
                assert client.post(url, json=body).status_code == 200
            counts = wait_for(lambda: _connections(fleet, 6))
            assert abs(counts[0] - counts[1]) <= 2, counts
        with socket.create_connection(("127.0.0.1", fleet.port)) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            plain.settimeout(30)
            assert b"200 OK" not in plain.recv(1000)
        assert httpx.get(f"https://127.0.0.1:{fleet.port}/healthz", verify=context).status_code == 200


def test_the_processes_behind_it_are_not_among_the_commands():
    shown = subprocess.run([sys.executable, "-m", "app", "--help"], capture_output=True, text=True, check=True).stdout
    assert "serve" in shown and "serve-worker" not in shown and "serve-simulator" not in shown
