"""A gateway of several workers, over a real PostgreSQL and a real Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from tests.fakes.gateway import SIMULATED, RunningGateway
from tests.fakes.postgres import shared_server
from tests.fakes.valkey import ValkeyServer

LEDGERS_MAX = 64


class Stores:
    """What gateways share: databases of a PostgreSQL and of a Valkey, a pair of them for each ledger."""

    def __init__(self) -> None:
        self.valkey = ValkeyServer(None, "--databases", str(LEDGERS_MAX))
        self._postgres = shared_server()
        self._databases: list[str] = []

    def start(self) -> None:
        self.valkey.start()

    def new_environment(self) -> dict[str, str]:
        """The variables of a gateway with an empty ledger and an empty hot state."""
        self.valkey.flush()
        redis = f"{self.valkey.url}?db={len(self._databases)}"
        self._databases.append(asyncio.run(self._postgres.create_database()))
        return {"HEADGATE_DATABASE_URL": self._databases[-1], "HEADGATE_REDIS_URL": redis}

    def close(self) -> None:
        for database in self._databases:
            asyncio.run(self._postgres.drop_database(database))
        self.valkey.close()


class Fleet(RunningGateway):
    """``headgate serve --workers N``."""

    def __init__(self, folder: Path, stores: Stores, workers: int = 2, config: str = SIMULATED, *more: str) -> None:
        super().__init__(folder, config, "--workers", str(workers), *more, **stores.new_environment())
        self.size = workers

    def start(self) -> Self:
        told = len(self.lines("worker_started")) if self.log_path.exists() else 0
        super().start()
        # Each process writes its own lines, a moment after it has said them.
        wait_for(lambda: len(self.lines("worker_started")) >= told + self.size)
        return self

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == event]

    @property
    def workers(self) -> dict[str, int]:
        """The process ids of the workers that have started last, by their name."""
        return {line["process"]: line["pid"] for line in self.lines("worker_started")}

    @property
    def children(self) -> list[psutil.Process]:
        """Every process that the supervisor has started and that is alive."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def requests_metric(self) -> float:
        return sum(value for name, value in self.metrics().items() if name.startswith("headgate_requests_total{"))

    def ask(self, text: str = "[[sim: tokens=3]] hi", key: str | None = None) -> httpx.Response:
        """One request on a connection of its own."""
        headers = {"authorization": f"Bearer {key or self.key}"}
        body = {"model": "sim-large", "input": text}
        return httpx.post(f"{self.base_url}/responses", json=body, headers=headers, timeout=30)

    def total(self, column: str = "requests") -> int:
        return sum(row[column] for row in self.usage())


def wait_for(holds: Callable[[], Any], timeout_s: float = 30) -> Any:
    """What ``holds`` returned when it was true."""
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
    return found


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
