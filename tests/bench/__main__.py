"""Measures the gateway with everything on, beside nginx in the same run, and prints a table.

CPU is user and system time of the gateway's process tree. The gateway has one core, load and upstream the
other, where there are two. The best of several runs counts: CPU per request moves little with noise.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.fakes.valkey import ValkeyServer

ROOT = Path(__file__).parents[2]
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
CONFIG = """
upstreams:
  bench: {{base_url: "http://127.0.0.1:{upstream}/v1", api_key: sk-bench}}
models:
  - {{match: "*", upstream: bench}}
limits:
  key: {{requests_per_minute: 100000000, tokens_per_minute: 1000000000000, concurrency: 100000}}
  team: {{requests_per_minute: 100000000}}
server: {{in_flight_max: 5000, drain_delay_s: 0}}
"""
NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream bench {{ server 127.0.0.1:{upstream}; keepalive 256; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 1000000;
    location / {{
      proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def cpu_of(process: psutil.Process) -> float:
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def rss_of(process: psutil.Process) -> int:
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


class Bench:
    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        cores = sorted(os.sched_getaffinity(0))
        self.server_cores, self.other_cores = {cores[0]}, {cores[-1]}
        self.errors = stack.enter_context((self.folder / "stderr.log").open("ab"))
        self.upstream = free_port()
        self.start([sys.executable, "-m", "tests.bench.upstream", str(self.upstream)], self.other_cores)
        wait_for(self.upstream)

    def start(self, command: list[str], cores: set[int], **environment: str) -> psutil.Process:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=self.errors
        )
        os.sched_setaffinity(process.pid, cores)
        self.stack.callback(process.wait, 30)
        self.stack.callback(process.terminate)
        return psutil.Process(process.pid)

    def gateway(self, *, with_redis: bool = True) -> tuple[psutil.Process, int, str]:
        port = free_port()
        config = self.folder / "headgate.yaml"
        config.write_text(CONFIG.format(upstream=self.upstream))
        environment = {}
        if with_redis:
            redis = self.stack.enter_context(ValkeyServer())
            os.sched_setaffinity(redis.pid, self.other_cores)
            environment["HEADGATE_REDIS_URL"] = redis.url
        data = self.folder / ("data" if with_redis else "data-memory")
        process = self.start(
            [
                sys.executable,
                "-m",
                "app",
                "serve",
                "--config",
                str(config),
                "--port",
                str(port),
                "--data-dir",
                str(data),
            ],
            self.server_cores,
            **environment,
        )
        for _ in range(200):
            if (data / "first-run.json").exists():
                break
            time.sleep(0.05)
        time.sleep(0.5)
        return process, port, json.loads((data / "first-run.json").read_text())["key"]

    def nginx(self) -> tuple[psutil.Process, int, str] | None:
        binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
        if binary is None:
            return None
        port = free_port()
        config = self.folder / "nginx.conf"
        config.write_text(NGINX.format(folder=self.folder, upstream=self.upstream, port=port))
        process = self.start([binary, "-p", str(self.folder), "-c", str(config)], self.server_cores)
        wait_for(port)
        return process, port, "none"

    def load(self, port: int, key: str, **plan) -> dict:
        arguments = json.dumps({"port": port, "key": key, "stream": False, "text": "Hello. ", **plan})
        command = [sys.executable, "-m", "tests.bench.load", arguments]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            os.sched_setaffinity(process.pid, self.other_cores)
            out, _ = process.communicate(timeout=300)
        if process.returncode:
            raise SystemExit("the load failed")
        return json.loads(out.splitlines()[-1])

    def cpu_us(self, server: psutil.Process, port: int, key: str, per: int = 1, **plan) -> tuple[float, dict]:
        best, seen = float("inf"), {}
        for _ in range(RUNS):
            before = cpu_of(server)
            result = self.load(port, key, **plan)
            time.sleep(0.5)  # what is written behind the answers belongs to them
            cost = (cpu_of(server) - before) / (result["requests"] * per) * 1e6
            if cost < best:
                best, seen = cost, result
        return best, seen

    def memory_kb(self, server: psutil.Process, port: int, key: str, streams: int = 1000) -> float:
        arguments = json.dumps(
            {"port": port, "key": key, "stream": True, "text": "idle=1", "connections": streams, "hold_s": 4}
        )
        before = rss_of(server)
        command = [sys.executable, "-m", "tests.bench.load", arguments]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(2.5)
            used = rss_of(server) - before
            process.communicate(timeout=60)
        return used / streams / 1024


def measure(bench: Bench, server: psutil.Process, port: int, key: str) -> dict[str, float]:
    bench.load(port, key, connections=64, requests=3000, size=850)
    figures: dict[str, float] = {}
    cost, seen = bench.cpu_us(server, port, key, connections=64, requests=12_000, size=850)
    figures["CPU per JSON request, µs"] = cost
    figures["JSON requests per second"] = seen["requests"] / seen["took_s"]
    figures["JSON p50, ms"] = seen["p50_ms"]
    figures["JSON p99, ms"] = seen["p99_ms"]
    _, seen = bench.cpu_us(server, port, key, connections=1, requests=2000, size=850)
    figures["one connection: p50, ms"] = seen["p50_ms"]
    paced, _ = bench.cpu_us(server, port, key, per=200, stream=True, text="pace=0020", connections=100, requests=200)
    figures["CPU per paced event, µs"] = paced
    burst, _ = bench.cpu_us(server, port, key, per=200, stream=True, text="now", connections=100, requests=2000)
    figures["CPU per event all at once, µs"] = burst
    figures["memory per open stream, KB"] = bench.memory_kb(server, port, key)
    return figures


def measure_cache(bench: Bench, server: psutil.Process, port: int, key: str, store: str) -> dict[str, float]:
    """A hit beside a miss, which is looked for, called and kept."""
    figures: dict[str, float] = {}
    for cached in ("miss", "hit"):
        bench.load(port, key, connections=64, requests=2000, size=850, cached=cached)
        cost, _ = bench.cpu_us(server, port, key, connections=64, requests=12_000, size=850, cached=cached)
        figures[f"cache in {store}: CPU per {cached}, µs"] = cost
    return figures


def main() -> None:
    with ExitStack() as stack:
        bench = Bench(stack)
        redis = bench.gateway()
        gateway = measure(bench, *redis)
        gateway |= measure_cache(bench, *redis, "Redis")
        gateway |= measure_cache(bench, *bench.gateway(with_redis=False), "memory")
        other = bench.nginx()
        nginx = measure(bench, *other) if other is not None else None
    print(f"{'':34}{'headgate':>10}{'nginx':>10}{'times':>8}")
    for name, value in gateway.items():
        if nginx is None:
            beside = f"{'not here':>10}"
        else:
            beside = f"{nginx[name]:10.1f}{value / nginx[name]:8.1f}" if name in nginx else ""
        print(f"{name:34}{value:10.1f}{beside}")


if __name__ == "__main__":
    main()
