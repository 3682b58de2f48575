"""A disk that fills: new work is refused before anything is sent, what runs is settled, and all of it comes back.

The disk is a small one of its own, in memory; to make it takes a right that a container may not have.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.fakes.fleet import wait_for
from tests.fakes.gateway import SIMULATED, RunningGateway
from tests.fakes.upstream import PlayedUpstream, config_for, whole

MIB = 2**20
DISK_BYTES = 24 * MIB
BALLAST_BYTES = 4 * MIB
ANSWER = json.dumps({"id": "resp_1", "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}}).encode()


@pytest.fixture
def disk(tmp_path):
    """A small disk, mounted for the test."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def gateway_on(disk: Path, tmp_path: Path, config: str = SIMULATED) -> RunningGateway:
    gateway = RunningGateway(tmp_path, config, HEADGATE_BALLAST_BYTES=str(BALLAST_BYTES))
    gateway.data_dir = disk / "data"
    return gateway


def free_bytes(disk: Path) -> int:
    space = os.statvfs(disk)
    return space.f_bavail * space.f_frsize


def fill(disk: Path) -> Path:
    """Somebody else's file, which takes all the room that there is; not what is freed afterwards."""
    path = disk / "somebody-elses"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free_bytes(disk))
    return path


def ballast(gateway: RunningGateway) -> int:
    return (gateway.data_dir / "ballast").stat().st_size


def ask(gateway: RunningGateway, text: str = "[[sim: tokens=2]] hi") -> httpx.Response:
    body = {"model": "sim-mini", "input": text}
    return httpx.post(f"{gateway.base_url}/responses", json=body, headers=gateway.headers, timeout=30)


def ready(gateway: RunningGateway) -> tuple[int, list[str]]:
    answer = httpx.get(f"{gateway.url}/readyz")
    return answer.status_code, answer.json()["failing"]


def test_a_full_disk_refuses_before_anything_is_sent_and_comes_back_by_itself(disk, tmp_path):
    with (
        PlayedUpstream(lambda _: whole(ANSWER)) as upstream,
        gateway_on(disk, tmp_path, config_for(upstream.base_url)) as gateway,
    ):
        assert ask(gateway).status_code == 200
        assert ballast(gateway) == BALLAST_BYTES
        filler = fill(disk)
        wait_for(lambda: ballast(gateway) == 0)
        for _ in range(3):
            refused = ask(gateway)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
            assert "retry-after" in refused.headers
        assert len(upstream.requests) == 1, "nothing was sent"
        assert ready(gateway) == (503, ["journal"])
        assert httpx.get(f"{gateway.url}/healthz").status_code == 200
        assert gateway.metrics()['headgate_degraded{dependency="journal"}'] == 1
        filler.unlink()
        wait_for(lambda: ask(gateway).status_code == 200)
        assert ballast(gateway) == BALLAST_BYTES
        assert ready(gateway) == (200, [])
        assert len(gateway.records(wait_for=2)) == 2
        told = [line["event"] for line in gateway.log() if line.get("dependency") == "journal"]
        assert told == ["dependency_down", "dependency_up"]
        assert gateway.check_ledger()["ok"]


def test_what_runs_on_a_full_disk_is_settled_from_the_ballast(disk, tmp_path):
    release = threading.Event()

    def play(_):
        while not release.is_set():
            yield 0.02
        yield from whole(ANSWER)

    with (
        PlayedUpstream(play) as upstream,
        gateway_on(disk, tmp_path, config_for(upstream.base_url)) as gateway,
    ):
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(ask(gateway))) for _ in range(20)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(upstream.requests) == 20)
        fill(disk)
        wait_for(lambda: ready(gateway)[0] == 503)
        assert ask(gateway).status_code == 503
        release.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200] * 20
        records = gateway.records(wait_for=20)
        assert [record["entries"][0]["kind"] for record in records] == ["charge"] * 20, "settled while it is full"
        wait_for(lambda: gateway.metrics()["headgate_journal_records"] == 0)
        assert gateway.stop() == 0
        assert not list((gateway.data_dir / "journal").rglob("*.log"))


def test_a_start_on_a_full_disk_waits_and_leaves_the_journal_untouched(disk, tmp_path):
    gateway = gateway_on(disk, tmp_path)
    gateway.start()
    headers = gateway.headers
    body = {"model": "sim-mini", "input": "[[sim: first_ms=20000]] hi"}

    def ask_in_vain() -> None:
        with suppress(httpx.HTTPError):
            httpx.post(f"{gateway.base_url}/responses", json=body, headers=headers, timeout=30)

    threading.Thread(target=ask_in_vain).start()
    wait_for(lambda: gateway.metrics()["headgate_in_flight"] == 1)
    gateway.kill()
    left = {path: path.read_bytes() for path in (gateway.data_dir / "journal").rglob("*.log")}
    assert any(left.values())
    filler = fill(disk)
    begun = threading.Thread(target=gateway.start)
    begun.start()
    try:
        wait_for(lambda: [line for line in gateway.log() if line["event"] == "disk_full"])
        wait_for(lambda: _answers(gateway))
        assert ready(gateway) == (503, ["disk"])
        assert httpx.get(f"{gateway.url}/healthz").status_code == 200
        refused = httpx.post(f"{gateway.base_url}/responses", json=body, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
        assert "x-headgate-request-id" in refused.headers
        time.sleep(1.5)
        assert ready(gateway) == (503, ["disk"])
        assert {path: path.read_bytes() for path in (gateway.data_dir / "journal").rglob("*.log")} == left
        assert ballast(gateway) == BALLAST_BYTES
        filler.unlink()
        begun.join(60)
        assert ready(gateway) == (200, [])
        assert ask(gateway).status_code == 200
        records = gateway.records(wait_for=2)
        assert sorted(record["outcome"] for record in records) == ["completed", "interrupted"]
    finally:
        begun.join(60)
        gateway.stop()


def _answers(gateway: RunningGateway) -> bool:
    try:
        return httpx.get(f"{gateway.url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_who_waits_for_room_can_be_stopped(disk, tmp_path):
    gateway = gateway_on(disk, tmp_path)
    with gateway:
        pass
    filler = fill(disk)

    def start_in_vain() -> None:
        with suppress(RuntimeError):
            gateway.start()

    begun = threading.Thread(target=start_in_vain)
    begun.start()
    wait_for(lambda: [line for line in gateway.log() if line["event"] == "disk_full"])
    wait_for(lambda: _answers(gateway))
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(60) == 0
    begun.join(60)
    assert not begun.is_alive()
    filler.unlink()


def test_the_log_of_the_database_is_cut_when_there_is_little_room(disk, tmp_path):
    with gateway_on(disk, tmp_path) as gateway:
        for _ in range(30):
            ask(gateway)
        log = gateway.data_dir / "headgate.db-wal"
        gateway.records(wait_for=30)
        assert log.stat().st_size > 100_000
        filler = fill(disk)
        wait_for(lambda: ready(gateway)[0] == 503)
        wait_for(lambda: log.stat().st_size == 0)
        filler.unlink()
        wait_for(lambda: ask(gateway).status_code == 200)
        assert gateway.check_ledger()["ok"]
