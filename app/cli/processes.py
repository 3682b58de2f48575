"""A process that a supervisor has started, and what it says."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import app
from app.cli.channel import Begin, Channel, Failed, Ready, Reload, Reloaded

PACKAGE_PARENT = Path(app.__file__).parents[1]


class Child:
    """Started with exec, so that it inherits no lock; its end is told by its channel and by the system."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel, begin: Begin | None) -> None:
        loop = asyncio.get_running_loop()
        self.pid = process.pid
        self.begin = begin
        self.sentence: str | None = None
        """Why it could not go on, if it has said so."""
        self._process = process
        self._channel = channel
        self._started: asyncio.Future[None] = loop.create_future()
        self._reloaded: asyncio.Future[str | None] | None = None
        self._reading = asyncio.create_task(self._read(), name=f"channel of {process.pid}")

    def __repr__(self) -> str:
        return f"Child(pid={self.pid}, exit={self._process.returncode})"

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        descriptors: Sequence[int],
        environ: Mapping[str, str],
        begin: Begin | None = None,
    ) -> Self:
        """``descriptors`` are inherited under their numbers. OSError where it cannot be started."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                # The package that runs here, whatever the current folder has of that name.
                *(sys.executable, "-P", "-m", "app", *arguments, "--channel", str(theirs.fileno())),
                pass_fds=(*descriptors, theirs.fileno()),
                env={**os.environ, **environ, "PYTHONPATH": _search_path()},
                stdin=asyncio.subprocess.DEVNULL,
                # A terminal's Ctrl-C is for the supervisor alone, which passes it on.
                process_group=0,
            )
        child = cls(process, await Channel.open(ours), begin)
        if begin is not None:
            child._channel.send(begin)
        return child

    async def started(self) -> bool:
        """Waits until it serves (True), or cannot (False)."""
        waits: set[asyncio.Future[None]] = {self._started, self._reading}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return self._started.done()

    async def ended(self) -> str:
        """Waits for its end; how it ended."""
        code = await self._process.wait()
        await self._reading
        self._channel.close()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    @property
    def is_settled(self) -> bool:
        """Whether it has ended in order, or before it had begun."""
        code = self._process.returncode
        return code == 0 or (code in {-signal.SIGTERM, -signal.SIGINT} and not self._started.done())

    def signal(self, number: int) -> None:
        """To one that does not serve yet SIGINT is SIGTERM: in the middle of its imports it would be a traceback."""
        if number == signal.SIGINT and not self._started.done():
            number = signal.SIGTERM
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def reload(self, begin: Begin, timeout_s: float) -> str | None:
        """Puts the configuration of ``begin`` in force there; why it is not, or None (also where it has died)."""
        self.begin = begin
        self._reloaded = asyncio.get_running_loop().create_future()
        self._channel.send(Reload(begin.configuration))
        waits: set[asyncio.Future[Any]] = {self._reloaded, self._reading}
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self._reloaded.done():
            return self._reloaded.result()
        return None if self._reading.done() else "it does not answer"

    async def _read(self) -> None:
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, Ready) and not self._started.done():
                self._started.set_result(None)
            elif isinstance(message, Failed):
                self.sentence = message.sentence
            elif isinstance(message, Reloaded) and self._reloaded is not None and not self._reloaded.done():
                self._reloaded.set_result(message.refusal)


def _search_path() -> str:
    rest = os.environ.get("PYTHONPATH")
    return str(PACKAGE_PARENT) if not rest else f"{PACKAGE_PARENT}{os.pathsep}{rest}"
