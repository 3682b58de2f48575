"""The processes behind the gateways: the simulator as upstream, Valkey and PostgreSQL. Each can die and come back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Literal

import hiredis

from tests.fakes.forking import Forked, headgate
from tests.fakes.postgres import PostgresServer
from tests.fakes.valkey import ValkeyServer

START_S_MAX = 30.0
STOP_S_MAX = 10.0

Persistence = Literal["none", "rdb", "aof", "aof-always"]
PERSISTENCE_OPTIONS: dict[Persistence, tuple[str, ...]] = {
    "none": ("--loglevel", "warning"),
    "rdb": ("--save", "1 1"),
    "aof": ("--appendonly", "yes", "--appendfsync", "everysec"),
    "aof-always": ("--appendonly", "yes", "--appendfsync", "always"),
}


def environment_of(**values: str) -> dict[str, str]:
    """What a process of the product is started with."""
    environment = {**os.environ, **values}
    # Compiled once, imported by every process after the first.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment.pop("OPENAI_API_KEY", None)
    return environment


class Ports:
    """Ports below those that the system gives to connections, in turn, so that no two of us have the same."""

    FIRST, LAST = 15_000, 32_000

    def __init__(self) -> None:
        self._next = random.randrange(self.FIRST, self.LAST)

    def take(self) -> int:
        while True:
            self._next = self._next + 1 if self._next < self.LAST else self.FIRST
            try:
                with socket.create_server(("127.0.0.1", self._next)):
                    return self._next
            except OSError:
                continue


PORTS = Ports()


class Upstream:
    """The simulator. Each life of it writes a log of its own, which outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = PORTS.take()
        self.lives = 0
        self.process: Forked | subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def logs(self) -> list[Path]:
        return [self.folder / f"served-{life}.jsonl" for life in range(1, self.lives + 1)]

    async def start(self) -> None:
        self.lives += 1
        with (self.folder / "upstream.log").open("ab") as log:
            self.process = headgate(
                ["simulate", "--port", str(self.port), "--log", str(self.logs[-1])],
                stdout=subprocess.DEVNULL,
                stderr=log,
                environment=environment_of(),
            )
        deadline_s = time.monotonic() + START_S_MAX
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline_s, "the simulator did not start"
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return

    def kill(self) -> None:
        _end(self.process)


class HotServer:
    """Valkey; what it keeps over a restart is its persistence's affair."""

    def __init__(self, persistence: Persistence) -> None:
        self.persistence = persistence
        self._server = ValkeyServer(None, *PERSISTENCE_OPTIONS[persistence])

    @property
    def socket_path(self) -> str:
        return self._server.url.removeprefix("unix://")

    @property
    def keeps_data(self) -> bool:
        """Whether a kill -9 loses nothing that was answered."""
        return self.persistence == "aof-always"

    def start(self) -> None:
        """Returns when it answers, which is after it has loaded what it kept."""
        deadline_s = time.monotonic() + START_S_MAX
        try:
            self._server.start()
        except hiredis.ReplyError:
            while not self._answers():
                assert time.monotonic() < deadline_s, "valkey does not come up"
                time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            return self._server.execute("PING") == b"PONG"
        except hiredis.ReplyError:
            return False

    def kill(self) -> None:
        self._server.kill()

    def freeze(self) -> None:
        self._server.freeze()

    def restore(self) -> None:
        self._server.restore()

    def execute(self, *command: str | int) -> object:
        return self._server.execute(*command)

    def close(self) -> None:
        self._server.close()


class Ledger:
    """PostgreSQL, and the database of one run on it."""

    def __init__(self, server: PostgresServer, url: str) -> None:
        self.server = server
        self.url = url

    @property
    def name(self) -> str:
        return self.url.removeprefix("postgresql://postgres@/").partition("?")[0]

    @property
    def socket_path(self) -> str:
        return f"{self.server._directory}/.s.PGSQL.5432"

    async def stop_at_once(self) -> None:
        await asyncio.to_thread(lambda: self.server.stop(immediate=True))

    async def start(self) -> None:
        if not self.server.running:
            await asyncio.to_thread(self.server.start)


def _end(process: Forked | subprocess.Popen[bytes] | None) -> None:
    """kill -9, and wait for it."""
    if process is not None and process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait(STOP_S_MAX)
