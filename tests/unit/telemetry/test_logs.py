"""Lines of several processes on one pipe: each whole, each with the name of its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from app.telemetry.logs import SHARED_WRITE_BYTES_MAX, LogWriter

WRITE = """
import sys
from app.telemetry.logs import LogWriter
log = LogWriter(1, process=sys.argv[1])
for number in range(3000):
    log.info("request", number=number, text="x" * (number % 700))
log.close()
"""


def test_writes_that_are_shared_are_of_whole_lines_and_stay_in_one_piece(monkeypatch):
    writes = []
    monkeypatch.setattr("app.telemetry.logs.os.write", lambda _fd, data: (writes.append(data), len(data))[1])
    log = LogWriter(process="worker-3")
    for number in range(200):
        log.info("request", number=number, text="x" * 300)
    log.info("long", text="x" * 9000)
    log.close()
    assert all(write.endswith(b"\n") for write in writes)
    assert all(len(write) <= SHARED_WRITE_BYTES_MAX or write.count(b"\n") == 1 for write in writes)
    lines = [json.loads(line) for line in b"".join(writes).splitlines()]
    assert [line["number"] for line in lines[:-1]] == list(range(200))
    assert {line["process"] for line in lines} == {"worker-3"}


def test_alone_a_batch_is_one_write_and_names_no_process(monkeypatch):
    writes = []
    monkeypatch.setattr("app.telemetry.logs.os.write", lambda _fd, data: (writes.append(data), len(data))[1])
    log = LogWriter()
    for _ in range(50):
        log.info("request", text="x" * 300)
    log.close()
    assert len(writes) == 1
    assert "process" not in json.loads(writes[0].splitlines()[0])


def test_lines_of_processes_that_share_a_pipe_are_never_mixed():
    reading, writing = os.pipe()
    processes = [subprocess.Popen([sys.executable, "-c", WRITE, str(number)], stdout=writing) for number in range(3)]
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = [json.loads(line) for line in pipe]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(lines) == 9000
    for process in "012":
        assert [line["number"] for line in lines if line["process"] == process] == list(range(3000))
