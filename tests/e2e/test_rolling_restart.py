"""Two gateways behind a balancer are restarted one after the other, under load: no request is refused, no
stream is cut, and the ledger has each of them once.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.fakes.balancer import Balancer
from tests.fakes.fleet import Stores, wait_for
from tests.fakes.gateway import SIMULATED, RunningGateway

# Longer than a balancer needs to see that a gateway is not ready.
CONFIG = SIMULATED.replace("drain_delay_s: 0", "drain_delay_s: 1.5")


@pytest.fixture
def stores():
    stores = Stores()
    stores.start()
    yield stores
    stores.close()


@pytest.fixture
def replicas(tmp_path, stores):
    environment = stores.new_environment()
    pair = [RunningGateway(tmp_path / name, CONFIG, **environment) for name in ("one", "two")]
    for gateway in pair:
        gateway.start()
    yield pair
    for gateway in pair:
        gateway.stop()


class Load:
    """Requests at a steady rate, and streams of which so many are always open."""

    def __init__(self, url: str, key: str, *, rate: float, streams: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url = f"{url}/v1/responses"
        self._key = key
        self._rate = rate
        self._streams = streams
        self._ends = False

    async def run(self, until: asyncio.Event) -> None:
        """Until the event, and then to the end of what was begun."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        headers = {"authorization": f"Bearer {self._key}"}
        client = httpx.AsyncClient(headers=headers, limits=limits, timeout=60)
        async with client, asyncio.TaskGroup() as group:
            for number in range(self._streams):
                group.create_task(self._keep_streaming(client, number))
            while not until.is_set():
                group.create_task(self._ask(client))
                await asyncio.sleep(1 / self._rate)
            self._ends = True

    async def _ask(self, client: httpx.AsyncClient) -> None:
        try:
            answer = await client.post(self._url, json={"model": "sim-mini", "input": "[[sim: tokens=2]] hi"})
            self.outcomes[f"answer {answer.status_code}"] += 1
        except httpx.HTTPError as error:
            self.outcomes[f"answer {type(error).__name__}"] += 1

    async def _keep_streaming(self, client: httpx.AsyncClient, number: int) -> None:
        await asyncio.sleep(number / self._streams)
        while not self._ends:
            # Two to four seconds each, so that they do not end together.
            body = {"model": "sim-mini", "input": f"[[sim: tokens={10 + number % 10} pace_ms=200]] hi", "stream": True}
            text = ""
            try:
                async with client.stream("POST", self._url, json=body) as answer:
                    async for part in answer.aiter_text():
                        text += part
                whole = "event: response.completed" in text
                self.outcomes["stream whole" if whole else f"stream {answer.status_code} cut"] += 1
            except httpx.HTTPError as error:
                self.outcomes[f"stream {type(error).__name__} after {len(text)} characters"] += 1


async def restart_one_after_the_other(
    replicas: list[RunningGateway], url: str, *, rate: float, streams: int, rounds: int = 1
) -> None:
    load = Load(url, replicas[0].key, rate=rate, streams=streams)
    over = asyncio.Event()
    running = asyncio.create_task(load.run(over))
    await asyncio.sleep(1)
    for _ in range(rounds):
        for gateway in replicas:
            code = await asyncio.to_thread(gateway.stop, 60)
            assert code == 0
            await asyncio.to_thread(gateway.start)
            await asyncio.sleep(1)
    over.set()
    await running
    assert set(load.outcomes) == {"answer 200", "stream whole"}, load.outcomes
    total = sum(load.outcomes.values())
    assert await asyncio.to_thread(wait_for, lambda: _recorded(replicas[0]) == total, 15)
    assert replicas[0].check_ledger()["ok"]
    for gateway in replicas:
        log = gateway.log()
        assert not [line for line in log if line["event"] == "refused"]
        assert len([line for line in log if line["event"] == "request"]) > total / 5, "both have served"


def _recorded(gateway: RunningGateway) -> int:
    return sum(row["requests"] for row in gateway.usage())


async def test_a_rolling_restart_cuts_and_refuses_nothing(replicas):
    with Balancer([gateway.port for gateway in replicas]) as balancer:
        await restart_one_after_the_other(replicas, f"http://127.0.0.1:{balancer.port}", rate=20, streams=15)
        assert balancer.refused == 0


@pytest.mark.long
async def test_rolling_restarts_under_50_requests_a_second_and_100_streams(replicas):
    with Balancer([gateway.port for gateway in replicas]) as balancer:
        url = f"http://127.0.0.1:{balancer.port}"
        await restart_one_after_the_other(replicas, url, rate=50, streams=100, rounds=3)
        assert balancer.refused == 0


@contextmanager
def nginx(folder: Path, replicas: list[RunningGateway]):
    """It asks nobody whether he is ready: a connection that is refused goes to the other one."""
    binary = shutil.which("nginx")
    if binary is None:
        pytest.skip("nginx is not here")
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    servers = "".join(f"server 127.0.0.1:{gateway.port} max_fails=1 fail_timeout=1s; " for gateway in replicas)
    (folder / "nginx.conf").write_text(
        f"""
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream gateways {{ least_conn; {servers} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://gateways; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 60s; proxy_next_upstream error;
    }}
  }}
}}
"""
    )
    process = subprocess.Popen([binary, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
        time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.long
async def test_rolling_restarts_behind_nginx(tmp_path, replicas):
    with nginx(tmp_path / "nginx", replicas) as url:
        await restart_one_after_the_other(replicas, url, rate=50, streams=100)
