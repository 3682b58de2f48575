"""A real gateway: ``headgate serve`` in a process of its own, with a data dir of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx

from tests.fakes.forking import Forked, headgate, run_headgate

START_S = 60.0
SIMULATED = """
upstreams:
  simulator: {kind: simulator}
models:
  - {match: "*", upstream: simulator}
server: {drain_delay_s: 0}
"""

STARTED = re.compile(rb'\bstarted\b.*\burl"?[:=]"[^"]*:(\d+)"')
"""A line of JSON or of text."""


class RunningGateway:
    """Started with ``with``; everything a person would do with it, by its commands and addresses."""

    def __init__(self, folder: Path, config: str = SIMULATED, *arguments: str, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data_dir = folder / "data"
        self.config = folder / "headgate.yaml"
        self.config.write_text(config)
        self.arguments = arguments
        # The ballast of a real gateway would fill the disk of a test run.
        self.environment = {"HEADGATE_BALLAST_BYTES": str(2**20), **os.environ, **environment}
        # Compiled once, imported by every command after the first.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.environment.pop("OPENAI_API_KEY", None)
        self.log_path = folder / "log.jsonl"
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self.prefix: tuple[str, ...] = ()
        """What its command is run by; has to become the gateway's own process."""
        self.port = 0

    def start(self) -> Self:
        arguments = ["serve", "--config", str(self.config), "--data-dir", str(self.data_dir)]
        arguments += ["--port", str(self.port), *self.arguments]
        with self.log_path.open("ab") as log:
            begun = log.tell()
            if self.prefix:
                command = [*self.prefix, sys.executable, "-m", "app", *arguments]
                self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=self.environment)
            else:
                self.process = headgate(arguments, stdout=subprocess.DEVNULL, stderr=log, environment=self.environment)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            for line in self.log_path.read_bytes()[begun:].splitlines():
                if (found := STARTED.search(line)) is not None:
                    self.port = int(found[1])
                    return self
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        if self.process.poll() is None:
            # Nobody else would end it.
            self.kill()
        raise RuntimeError(f"the gateway did not start:\n{self.log_path.read_text()}")

    def stop(self, timeout_s: float = 60) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def first_run(self) -> dict[str, str]:
        return json.loads((self.data_dir / "first-run.json").read_text())

    @property
    def key(self) -> str:
        return self.first_run["key"]

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A ``headgate`` command on this gateway's ledger."""
        environment = {**self.environment, "HEADGATE_DATA_DIR": str(self.data_dir)}
        done = run_headgate(list(arguments), environment=environment)
        if check:
            done.check_returncode()
        return done

    def json(self, *arguments: str) -> Any:
        """The JSON that a command prints."""
        return json.loads(self.command(*arguments, "--json").stdout)

    def usage(self, by: str = "model") -> list[dict[str, Any]]:
        return self.json("usage", "--by", by)

    def check_ledger(self) -> dict[str, Any]:
        return self.json("check", "--ledger")

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels, as they stand on the page."""
        text = httpx.get(f"{self.url}/metrics").raise_for_status().text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def records(self, wait_for: int | None = None) -> list[dict[str, Any]]:
        """The rows of the ledger, each with its entries, oldest first; SQLite only."""
        import sqlite3

        deadline = time.monotonic() + 30
        while True:
            with sqlite3.connect(f"file:{self.data_dir / 'headgate.db'}?mode=ro", uri=True) as database:
                database.row_factory = sqlite3.Row
                records = [dict(row) for row in database.execute("SELECT * FROM records ORDER BY request_id")]
                entries = [dict(row) for row in database.execute("SELECT * FROM entries ORDER BY attempt_id")]
            database.close()
            if wait_for is None or len(records) >= wait_for or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        for record in records:
            record["entries"] = [entry for entry in entries if entry["request_id"] == record["request_id"]]
        return records
