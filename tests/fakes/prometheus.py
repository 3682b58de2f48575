"""A real Prometheus for tests, on loopback, with data of its own; and promtool. Debian's package ``prometheus`` has both.

``HEADGATE_TEST_PROMETHEUS`` names a folder with the two binaries, where they are not on the path.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

START_S_MAX = 60.0
STOP_S_MAX = 30.0
ANSWER_S_MAX = 30.0

# A test run that is killed cannot stop its server; where util-linux is there, the kernel does it.
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()

Sample = tuple[dict[str, str], float]


def binary(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``; skips the test where there is none."""
    folder = os.environ.get("HEADGATE_TEST_PROMETHEUS")
    found = shutil.which(name, path=folder)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian's package prometheus has it)")
    return found


def promtool(*arguments: str | Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """What it says and how it ends; it is told nothing of the environment."""
    command = [binary("promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)


class QueryFailed(Exception):
    """Prometheus does not take the expression; the text is what it says."""


class PrometheusServer:
    """Started with ``with``; ``configuration`` is the text of prometheus.yml."""

    def __init__(self, folder: Path, configuration: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._configuration = folder / "prometheus.yml"
        self._configuration.write_text(configuration)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._client = httpx.Client(timeout=ANSWER_S_MAX)

    def __enter__(self) -> Self:
        program = binary("prometheus")
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *_DIES_WITH_US,
                    program,
                    f"--config.file={self._configuration}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_S_MAX
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"prometheus did not start:\n{self.log}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def _is_ready(self) -> bool:
        try:
            return self._client.get(f"{self.url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """``data`` of an answer of its API. Raises QueryFailed."""
        answer = self._client.post(f"{self.url}/api/v1/{path}", data=parameters)
        told = answer.json()
        if told["status"] != "success":
            raise QueryFailed(told["error"])
        return told["data"]

    def read(self, path: str) -> Any:
        """As ``ask``, for what is only read."""
        return self._client.get(f"{self.url}/api/v1/{path}").raise_for_status().json()["data"]

    def query(self, expression: str) -> list[Sample]:
        """The samples that there are now. Raises QueryFailed."""
        data = self.ask("query", {"query": expression})
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(row["metric"], float(row["value"][1])) for row in data["result"]]

    def query_range(self, expression: str, span_s: float, step_s: float) -> list[Sample]:
        """The last sample of each series within a span that ends now. Raises QueryFailed."""
        now_s = time.time()
        span = {"start": str(now_s - span_s), "end": str(now_s), "step": str(step_s)}
        data = self.ask("query_range", {"query": expression, **span})
        return [(row["metric"], float(row["values"][-1][1])) for row in data["result"]]

    def value(self, expression: str) -> float:
        """Of an expression that is one number."""
        ((_, number),) = self.query(expression)
        return number


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port
