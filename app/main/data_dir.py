"""The data dir: made private, and held by one gateway at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path


class DataDirTaken(Exception):
    """Another gateway runs on this data dir."""


@contextlib.contextmanager
def hold_data_dir(data_dir: Path) -> Iterator[None]:
    """The data dir, made with mode 0700 and locked for this process. Raises DataDirTaken."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if stat.S_IMODE(data_dir.stat().st_mode) & 0o077 and data_dir.stat().st_uid == os.getuid():
        data_dir.chmod(0o700)
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataDirTaken(f"another gateway runs on {data_dir}") from error
        yield
    finally:
        os.close(descriptor)
