"""Room on the disk: a ballast file that is given up when the disk fills, so that what runs can be written down.

All workers of a data dir share one ballast and one rule, and need not speak with one another for it: each
looks at the disk and at the file. While the ballast is there, a little free room is enough to take new
work. Where even that is gone the ballast is given up and nothing new is taken, until the disk has room for
both again.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Callable
from pathlib import Path

BALLAST = "ballast"
BALLAST_BYTES = 64 * 1024 * 1024


def free_bytes_of(directory: Path) -> int:
    """What an unprivileged process may still write there."""
    space = os.statvfs(directory)
    return space.f_bavail * space.f_frsize


class Space:
    """The room in ``directory``. ``check`` may be called from any thread, by any process."""

    def __init__(
        self,
        directory: Path,
        *,
        ballast_bytes: int = BALLAST_BYTES,
        free_bytes: Callable[[Path], int] = free_bytes_of,
    ) -> None:
        self._directory = directory
        self._path = directory / BALLAST
        self._ballast_bytes = ballast_bytes
        self._low_bytes = ballast_bytes // 4
        self._free_bytes = free_bytes
        self.short = False
        """What the last ``check`` found."""
        self.last_free_bytes = math.nan
        """What was free when it looked."""

    def __repr__(self) -> str:
        return f"Space({str(self._directory)!r}, ballast={self._ballast_bytes}, short={self.short})"

    def check(self, *, gives_up: bool = True) -> str | None:
        """Why nothing new may be taken, or None. Gives the ballast up (where ``gives_up``) or takes it back.
        Raises OSError where the disk cannot be asked.
        """
        reason = self._check(gives_up=gives_up)
        self.short = reason is not None
        return reason

    def _check(self, *, gives_up: bool) -> str | None:
        free = self._free_bytes(self._directory)
        self.last_free_bytes = free
        if self._held():
            if free >= self._low_bytes:
                return None
            if gives_up:
                os.truncate(self._path, 0)
            return f"{free} bytes are free"
        # Twice the mark, so that it is not given up again at once.
        needed = self._ballast_bytes + 2 * self._low_bytes
        if free >= needed and self._take():
            return None
        return f"{free} bytes are free, {needed} are needed"

    def _held(self) -> bool:
        try:
            return self._path.stat().st_size >= self._ballast_bytes
        except FileNotFoundError:
            return False

    def _take(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            # One worker at a time: another's file, half made, would look like a full disk.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(descriptor, 0, self._ballast_bytes)
        except BlockingIOError:
            return False
        except OSError:
            os.ftruncate(descriptor, 0)
            return False
        finally:
            os.close(descriptor)
        return True
