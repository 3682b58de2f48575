"""Structured logs: one JSON object (or line of text) an event, written off the event loop.

A bounded queue and one thread stand between the event loop and the descriptor, so that a full pipe
never holds a request; what does not fit is counted and said in the next line that does. Values are
names, ids, numbers and fixed texts: never headers, bodies or keys.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Literal

import msgspec

from app.core.clock import Clock, SystemClock

LINES_MAX = 20_000
SHARED_WRITE_BYTES_MAX = 4096
"""What several processes may write to one pipe without a line of one within a line of another (PIPE_BUF)."""
FLUSH_INTERVAL_S = 0.05
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Level = Literal["debug", "info", "warning", "error"]


class LogWriter:
    """Takes events from any thread and writes them in batches."""

    def __init__(
        self,
        descriptor: int = 2,
        *,
        level: Level = "info",
        style: Literal["json", "text"] = "json",
        clock: Clock | None = None,
        process: str | None = None,
    ) -> None:
        """``process``: the name of one that shares the descriptor with others; each line then has it."""
        self._descriptor = descriptor
        self._fields = {} if process is None else {"process": process}
        self._shared = process is not None
        self._threshold = LEVELS[level]
        self._text = style == "text"
        self._clock = clock or SystemClock()
        self._encoder = msgspec.json.Encoder()
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._second = (-1, "")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"LogWriter(waiting={len(self._lines)}, dropped={self._dropped})"

    def start(self) -> None:
        """Begin to write in the background."""
        self._thread = threading.Thread(target=self._run, name="headgate-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, then stop. Waits two seconds at most: a stuck pipe may keep the rest."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
            self._thread = None
        else:
            self._flush()

    def event(self, level: Level, event: str, **fields: object) -> None:
        """One line; ``fields`` are JSON values."""
        if LEVELS[level] < self._threshold:
            return
        if len(self._lines) >= LINES_MAX:
            self._dropped += 1
            return
        at = self._at()
        fields = {**self._fields, **fields} if self._fields else fields
        if self._text:
            pairs = " ".join(f"{name}={self._encoder.encode(value).decode()}" for name, value in fields.items())
            self._lines.append(f"{at} {level:7} {event} {pairs}\n".encode())
        else:
            line = {"at": at, "level": level, "event": event, **fields}
            self._lines.append(self._encoder.encode(line) + b"\n")

    def _at(self) -> str:
        """Now, as ISO 8601 in UTC; all but the milliseconds is made once a second."""
        second, ms = divmod(self._clock.now_ms(), 1000)
        known = self._second
        if known[0] != second:
            known = (second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
            self._second = known
        return f"{known[1]}.{ms:03d}Z"

    def info(self, event: str, **fields: object) -> None:
        self.event("info", event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        self.event("warning", event, **fields)

    def error(self, event: str, **fields: object) -> None:
        self.event("error", event, **fields)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_INTERVAL_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = self._lines
        if dropped := self._dropped:
            self._dropped -= dropped
            self.event("warning", "log_lines_dropped", lines=dropped)
        count = len(lines)
        if not count:
            return
        waiting = [lines.popleft() for _ in range(count)]
        for batch in _pieces(waiting) if self._shared else (b"".join(waiting),):
            self._write(batch)

    def _write(self, batch: bytes) -> None:
        while batch:
            try:
                batch = batch[os.write(self._descriptor, batch) :]
            except OSError:
                # Nothing is left to tell it to; the requests themselves go on.
                return


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in writes of a size that stays in one piece; a longer line has one of its own."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > SHARED_WRITE_BYTES_MAX:
            yield piece
            piece = b""
        piece += line
    yield piece


class StandardLogHandler(logging.Handler):
    """Lets what libraries say through ``logging`` come out as lines of the same shape.

    Only the message template, the logger and the exception's type are written: arguments (but for
    numbers, and our own loggers') and tracebacks may hold a client's text.
    """

    def __init__(self, writer: LogWriter) -> None:
        super().__init__(level=logging.WARNING)
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        fields: dict[str, object] = {"logger": record.name, "message": _message(record)[:200]}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = record.exc_info[0].__name__
            fields["where"] = _innermost_frame(record)
        self._writer.event(level, "library", **fields)


def _message(record: logging.LogRecord) -> str:
    if record.name.startswith("headgate."):
        return record.getMessage()
    numbers = isinstance(record.args, tuple) and all(isinstance(value, (int, float)) for value in record.args)
    return record.getMessage() if record.args and numbers else str(record.msg)


def _innermost_frame(record: logging.LogRecord) -> str:
    trace = record.exc_info[2] if record.exc_info else None
    place = "?"
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{os.path.basename(code.co_filename)}:{trace.tb_lineno}:{code.co_name}"  # noqa: PTH119 - a name
        trace = trace.tb_next
    return place


def install_standard_logging(writer: LogWriter) -> None:
    """Route the ``logging`` module through ``writer``; nothing is printed beside it."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(StandardLogHandler(writer))
    root.setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
    logging.raiseExceptions = False
    sys.excepthook = _quiet_excepthook(writer)


def _quiet_excepthook(writer: LogWriter):  # type: ignore[no-untyped-def]  # noqa: ANN202 - sys.excepthook's own shape
    def hook(kind, _value, trace) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - as above
        record = logging.LogRecord("headgate", logging.ERROR, "", 0, "uncaught", None, (kind, _value, trace))
        writer.error("uncaught", exception=kind.__name__, where=_innermost_frame(record))

    return hook
