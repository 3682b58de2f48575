"""One file of the journal: lines are added whole or not at all, by one process, once."""

from __future__ import annotations

import errno
import os
from collections import deque
from pathlib import Path

import msgspec

from app.ledger.slots import SEGMENT_SUFFIX


class WrittenLine(msgspec.Struct, frozen=True, gc=False):
    """A line as it stands in a segment; ``again`` marks those that are read again for SQL."""

    request_id: str
    line: bytes
    again: bool
    offset: int


class Segment:
    """An open segment. ``outstanding`` counts the requests with lines in it that are not in SQL yet;
    ``aged`` says that the next one should be taken, ``sealed`` that it must: this one ends in a torn line,
    or could not be synced (``bad``).

    ``unsynced`` has the lines that no sync has covered yet, which is a fifth of a second's worth. One
    thread adds to it, another takes away from its other end.
    """

    __slots__ = ("_fd", "aged", "bad", "opened_at_s", "outstanding", "path", "sealed", "size", "unsynced")

    def __init__(self, path: Path, fd: int, opened_at_s: float) -> None:
        self.path = path
        self._fd = fd
        self.opened_at_s = opened_at_s
        self.size = 0
        self.outstanding = 0
        self.unsynced: deque[WrittenLine] = deque()
        self.aged = False
        self.sealed = False
        self.bad = False

    def __repr__(self) -> str:
        return f"Segment({self.path.name}, {self.size} bytes, {self.outstanding} outstanding)"

    @classmethod
    def create(cls, directory: Path, number: int, now_s: float) -> Segment:
        """A new file, never one that is there."""
        path = directory / f"{number:012d}{SEGMENT_SUFFIX}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return cls(path, os.open(path, flags, 0o600), now_s)

    def append(self, request_id: str, line: bytes, *, again: bool) -> int:
        """Writes ``line`` in one call and returns its offset. OSError: nothing of it is left."""
        offset = self.size
        written = os.write(self._fd, line)
        if written != len(line):
            try:
                os.ftruncate(self._fd, offset)
            except OSError:
                self.sealed = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size = offset + written
        self.unsynced.append(WrittenLine(request_id, line, again, offset))
        return offset

    def sync(self) -> None:
        """Puts what was written on the disk. After an OSError the segment is bad: no later sync brings back
        what this one has lost, so it keeps what it cannot promise in ``unsynced`` and is not synced again.
        """
        # Counted before the call: a line that is written meanwhile may or may not be in it.
        covered = len(self.unsynced)
        try:
            os.fdatasync(self._fd)
        except OSError:
            self.bad = self.sealed = True
            raise
        for _ in range(covered):
            self.unsynced.popleft()

    def take_unsynced(self) -> list[WrittenLine]:
        """The lines that a bad segment may have lost, each once."""
        return [self.unsynced.popleft() for _ in range(len(self.unsynced))]

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        # No later write may reach a descriptor of the same number.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def sync_directory(directory: Path) -> None:
    """Puts the names of new files on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
