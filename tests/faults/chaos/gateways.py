"""A gateway as its host runs it: started again whenever it has ended, until it is told to stay down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.fakes.forking import Forked, headgate
from tests.faults.chaos.servers import PORTS, environment_of

START_S_MAX = 40.0
STOP_S_MAX = 40.0
RESTART_S = 0.3
MIB = 2**20

STRACE = (
    *("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"),
    *("-e", "trace=fdatasync,fsync", "-e"),
)


class Gateway:
    """``folder`` is its disk: with ``disk_mib`` a file system of its own, of that size. ``lives`` counts its
    processes; ``tracer`` goes before its command.
    """

    def __init__(self, name: str, folder: Path, config: Path, *, disk_mib: int = 0, **environment: str) -> None:
        self.name = name
        self.folder = folder
        self.data_dir = folder / "disk" / "data"
        self.config = config
        self.environment = environment_of(**environment)
        self.port = PORTS.take()
        self.log_path = folder / "log.jsonl"
        self.tracer: tuple[str, ...] = ()
        self.lives = 0
        self.frozen_until_s = 0.0
        self.ended: list[int] = []
        self._disk_mib = disk_mib
        self._pid = 0
        self._process: Forked | subprocess.Popen[bytes] | None = None
        self._supervision: asyncio.Task[None] | None = None
        (folder / "disk").mkdir(parents=True)
        if disk_mib:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk_mib}m", "tmpfs", folder / "disk"], check=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # -- life and death -------------------------------------------------------------------------

    def start(self) -> None:
        """From now on it is kept up."""
        if self._supervision is None:
            self._supervision = asyncio.create_task(self._keep_up())

    async def _keep_up(self) -> None:
        while True:
            self._spawn()
            process = self._process
            assert process is not None
            while process.poll() is None:
                await asyncio.sleep(0.02)
            self.ended.append(process.returncode)
            await asyncio.sleep(RESTART_S)

    def _spawn(self) -> None:
        self.lives += 1
        arguments = ["serve", "--config", str(self.config), "--port", str(self.port), "--data-dir", str(self.data_dir)]
        nowhere = subprocess.DEVNULL
        with self.log_path.open("ab") as log:
            log.write(b'{"event": "chaos: started", "life": %d}\n' % self.lives)
            if self.tracer:
                command = [*self.tracer, sys.executable, "-m", "app", *arguments]
                self._process = subprocess.Popen(command, stdout=nowhere, stderr=log, env=self.environment)
            else:
                self._process = headgate(arguments, stdout=nowhere, stderr=log, environment=self.environment)
        self._pid = self._process.pid

    async def ready(self) -> None:
        """Until it serves."""
        deadline_s = time.monotonic() + START_S_MAX
        async with httpx.AsyncClient() as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.url}/readyz", timeout=2)).status_code == 200:
                        return
                assert time.monotonic() < deadline_s, f"{self.name} did not come up:\n{self.log_tail()}"
                await asyncio.sleep(0.05)

    async def _stay_down(self) -> None:
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.gather(self._supervision, return_exceptions=True)
            self._supervision = None

    async def kill(self) -> None:
        """kill -9, and stay down."""
        await self._stay_down()
        self._signal(signal.SIGKILL)
        if self._process is not None:
            await asyncio.to_thread(self._process.wait, STOP_S_MAX)

    async def stop(self) -> int:
        """SIGTERM, and stay down; returns its exit code."""
        await self._stay_down()
        self.resume()
        self._signal(signal.SIGTERM)
        assert self._process is not None
        try:
            return await asyncio.to_thread(self._process.wait, STOP_S_MAX)
        except subprocess.TimeoutExpired:
            await self.kill()
            return -signal.SIGKILL

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.is_up:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def lose_disk(self) -> None:
        shutil.rmtree(self.data_dir, ignore_errors=True)

    async def remove(self) -> None:
        self.resume()
        await self.kill()
        if self._disk_mib:
            subprocess.run(["umount", "-l", self.folder / "disk"], check=False)

    # -- its disk -------------------------------------------------------------------------------

    def fill_disk(self) -> None:
        """Until nothing more fits."""
        with (self.folder / "disk" / "filler").open("ab", buffering=0) as filler:
            for size in (MIB, 4096, 1):
                with contextlib.suppress(OSError):
                    while filler.write(b"\0" * size):
                        pass

    def empty_disk(self) -> None:
        (self.folder / "disk" / "filler").unlink(missing_ok=True)

    # -- what it says ---------------------------------------------------------------------------

    async def metrics(self, client: httpx.AsyncClient) -> dict[str, float]:
        text = (await client.get(f"{self.url}/metrics", timeout=5)).raise_for_status().text
        lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def log_tail(self) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-15:])
