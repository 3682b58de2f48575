"""A lock file: held by one process, let go by the kernel the moment that process dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FileLock:
    """An exclusive ``flock``. The descriptor is close-on-exec; a child that is forked without exec would
    keep the lock alive after its parent, so nothing forks while one is held. The file is never removed:
    two processes could then each hold a lock on a file of the same name.
    """

    __slots__ = ("_fd", "path")

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd: int | None = fd

    def __repr__(self) -> str:
        return f"FileLock({str(self.path)!r}, {'released' if self._fd is None else 'held'})"

    @classmethod
    def take(cls, path: Path) -> FileLock | None:
        """The lock on ``path``, or None where another process holds it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        return cls(path, fd)

    def release(self) -> None:
        """Lets go; a second call does nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
