"""Processes of the product without the time that Python takes to import it.

One process, started with the first that is asked for, has imported ``app`` and does nothing but fork: each child gets
arguments, environment and files of its own, and runs the command line as if it had been executed. It has no threads
and no loop, so that a child begins as a fresh process does. What depends on being executed (a wrapper such as ``prlimit``,
variables that the interpreter or the loader reads at its start) is executed.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[2]
START_S = 60.0
_LENGTH = struct.Struct("!I")
_STATUS = struct.Struct("!i")
_READ_AT_START = ("PYTHON", "LD_", "MALLOC_")


class Forked:
    """A process as ``subprocess.Popen`` has them, as far as tests use that."""

    def __init__(self, pid: int, told: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._told = told

    def __repr__(self) -> str:
        return f"Forked(pid={self.pid}, returncode={self.returncode})"

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self._read()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or minus the signal that ended it. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if timeout is not None and not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"pid {self.pid}", timeout)
            self._read()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _read(self) -> None:
        data = self._told.recv(_STATUS.size, socket.MSG_WAITALL)
        self._told.close()
        if len(data) < _STATUS.size:
            raise RuntimeError(f"the forking process has died; what became of {self.pid} is unknown")
        self.returncode = _STATUS.unpack(data)[0]


def headgate(
    arguments: list[str],
    *,
    stdout: int | TextIO | Any,
    stderr: int | TextIO | Any,
    environment: dict[str, str],
    cwd: Path | str | None = None,
) -> Forked | subprocess.Popen[bytes]:
    """Starts ``headgate`` with ``arguments``. Files are descriptors, files or subprocess.DEVNULL."""
    if _needs_execution(environment):
        command = [sys.executable, "-m", "app", *arguments]
        return subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment, cwd=cwd)
    with contextlib.ExitStack() as opened:
        files = [_descriptor(each, opened) for each in (stdout, stderr)]
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.connect(_address())
        what = {"arguments": arguments, "environment": environment, "cwd": os.fspath(cwd or Path.cwd())}
        body = json.dumps(what).encode()
        link.sendmsg([_LENGTH.pack(len(body))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
        link.sendall(body)
        pid = _LENGTH.unpack(link.recv(_LENGTH.size, socket.MSG_WAITALL))[0]
    return Forked(pid, link)


def run_headgate(
    arguments: list[str], *, environment: dict[str, str], cwd: Path | str | None = None, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, as ``subprocess.run(capture_output=True, text=True)`` does."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = headgate(arguments, stdout=out, stderr=err, environment=environment, cwd=cwd)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(["headgate", *arguments], code, *texts)


def _needs_execution(environment: dict[str, str]) -> bool:
    special = {name for name in environment if name.startswith(_READ_AT_START)}
    return any(environment[name] != os.environ.get(name) for name in special)


def _descriptor(file: Any, opened: contextlib.ExitStack) -> int:
    if file == subprocess.DEVNULL:
        file = opened.enter_context(open(os.devnull, "wb"))  # noqa: PTH123, SIM115 - closed with the others
    return file if isinstance(file, int) else file.fileno()


@functools.cache
def _address() -> str:
    """Where the forking process listens; it ends with this one."""
    folder = tempfile.mkdtemp(prefix="hg-fork-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address = os.path.join(folder, "socket")  # noqa: PTH118 - a text is what sockets take
    process = subprocess.Popen([sys.executable, "-m", __name__, address], cwd=ROOT, stdin=subprocess.PIPE)
    atexit.register(process.wait)
    assert process.stdin is not None
    # It ends at the end of its input, also where this process is killed.
    atexit.register(process.stdin.close)
    deadline_s = time.monotonic() + START_S
    while not Path(address).exists():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError("the forking process did not start")
        time.sleep(0.01)
    return address


# -- the forking process -----------------------------------------------------------------------


def _serve(address: str) -> None:
    from app.cli import main  # noqa: F401 - all of it, before anything is forked

    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"{address}.new")
    listener.listen(64)
    os.rename(f"{address}.new", address)  # noqa: PTH104 - only now is there somebody who answers
    links: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener, woken, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        if woken in ready:
            woken.recv(4096)
            _tell_ends(links)
        if listener in ready:
            link, _ = listener.accept()
            _fork(link, links, [listener, woken, wakes])


def _fork(link: socket.socket, links: dict[int, socket.socket], own: list[socket.socket]) -> None:
    files = array.array("i")
    data, ancillary, _, _ = link.recvmsg(_LENGTH.size, socket.CMSG_LEN(2 * files.itemsize), socket.MSG_WAITALL)
    for _, _, packed in ancillary:
        files.frombytes(packed)
    what = json.loads(link.recv(_LENGTH.unpack(data)[0], socket.MSG_WAITALL))
    pid = os.fork()
    if not pid:
        for each in (*own, link, *links.values()):
            each.close()
        _become(what, files)
    for descriptor in files:
        os.close(descriptor)
    links[pid] = link
    link.sendall(_LENGTH.pack(pid))


def _become(what: dict[str, Any], files: array.array[int]) -> None:
    """The child: the command line, and its exit code."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.default_int_handler)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (files[0], 1), (files[1], 2)):
            os.dup2(source, target)
        for descriptor in (null, *files):
            os.close(descriptor)
        os.chdir(what["cwd"])
        os.environ.clear()
        os.environ.update(what["environment"])
        time.tzset()
        sys.argv = ["headgate", *what["arguments"]]
        code = _exit_code_of_main()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _exit_code_of_main() -> int:
    import random
    import traceback

    from app.cli import main

    random.seed()
    try:
        main()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _tell_ends(links: dict[int, socket.socket]) -> None:
    while links:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        link = links.pop(pid, None)
        if link is not None:
            with link, contextlib.suppress(OSError):
                link.sendall(_STATUS.pack(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    _serve(sys.argv[1])
