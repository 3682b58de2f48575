"""Tests that run side by side, but for those that need the machine to themselves.

Each test holds a lock that all share; one that is marked ``quiet``, because it measures time, holds it alone. Whoever
waits to be alone is passed by nobody: all take the first lock on their way to the second.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


class Turns:
    """The locks of one run, which all its processes have in common."""

    def __init__(self, folder: Path) -> None:
        self._door = (folder / "door").open("w")
        self._room = (folder / "room").open("w")

    @contextlib.contextmanager
    def taken(self, *, alone: bool) -> Iterator[None]:
        fcntl.flock(self._door, fcntl.LOCK_EX)
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)


class SideBySide:
    """A plugin: lets tests of several processes take turns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turns = Turns(folder)

    def pytest_unconfigure(self) -> None:
        """The first that ends removes the names; the files are there for whoever has them open."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[object]:
        with self._turns.taken(alone=item.get_closest_marker("quiet") is not None):
            return (yield)


def folder_of(run_id: str) -> Path:
    """Where the locks of a run lie."""
    folder = Path(tempfile.gettempdir()) / f"headgate-tests-{os.getuid()}-{run_id}"
    folder.mkdir(exist_ok=True)
    return folder
