"""Notices that the configuration file has changed: by its looks every time, by its content when they differ."""

from __future__ import annotations

import hashlib
from pathlib import Path

from app.settings.file import ConfigurationError, read_configuration

Looks = tuple[int, int, int, int]
"""Device, inode, size and time of the last change in nanoseconds: a symlink that is swapped changes them too."""


class ConfigurationFile:
    """The file in force, and what it held when it was last read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._looks: Looks | None = None
        self._digest = b""

    def __repr__(self) -> str:
        return f"ConfigurationFile({str(self.path)!r})"

    def read(self) -> bytes:
        """What it holds now; a later ``changed`` compares with it. Raises ConfigurationError."""
        # The looks first: what is written in between is then seen as one change too many, never as none.
        self._looks = self._look()
        raw = read_configuration(self.path)
        self._digest = _digest_of(raw)
        return raw

    def changed(self) -> bool:
        """Whether it holds something else than when it was last read, or asked about. A file that is away is
        no change: editors replace files, and volumes are swapped.
        """
        looks = self._look()
        if looks is None or looks == self._looks:
            return False
        self._looks = looks
        try:
            digest = _digest_of(read_configuration(self.path))
        except ConfigurationError:
            # Whoever reads it is told why it cannot be read.
            return True
        changed = digest != self._digest
        self._digest = digest
        return changed

    def _look(self) -> Looks | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _digest_of(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()
