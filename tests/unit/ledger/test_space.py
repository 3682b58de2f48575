"""The ballast: given up while the disk is full, taken back when there is room for it and for more."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from app.ledger.space import BALLAST, Space

KIB = 1024
BALLAST_BYTES = 64 * KIB
LOW = BALLAST_BYTES // 4


@pytest.fixture
def disk(tmp_path):
    """A folder on a disk whose free room a test sets; the ballast's own bytes count, as on a real one."""

    class Disk:
        directory = tmp_path
        room = 1024 * KIB

        def free(self, _directory):
            path = tmp_path / BALLAST
            return self.room - (path.stat().st_size if path.exists() else 0)

        def space(self):
            return Space(tmp_path, ballast_bytes=BALLAST_BYTES, free_bytes=self.free)

    return Disk()


def size_of(disk):
    return (disk.directory / BALLAST).stat().st_size


def test_the_ballast_is_taken_first_and_its_blocks_are_really_there(disk):
    space = disk.space()
    assert space.check() is None and not space.short
    status = (disk.directory / BALLAST).stat()
    assert (status.st_size, status.st_blocks * 512 >= BALLAST_BYTES) == (BALLAST_BYTES, True)
    assert status.st_mode & 0o777 == 0o600


def test_a_full_disk_gives_the_ballast_up_and_stays_closed_until_there_is_room_for_both(disk):
    space = disk.space()
    space.check()
    disk.room = BALLAST_BYTES + LOW
    assert space.check() is None, "exactly enough"
    assert space.last_free_bytes == LOW
    disk.room -= 1
    assert space.check() == f"{LOW - 1} bytes are free"
    assert (space.short, size_of(disk)) == (True, 0)
    needed = BALLAST_BYTES + 2 * LOW
    assert space.check() == f"{disk.room} bytes are free, {needed} are needed", "what it freed is not for new work"
    disk.room = needed - 1
    assert space.check() is not None
    disk.room = needed
    assert space.check() is None
    assert (space.short, size_of(disk)) == (False, BALLAST_BYTES)


def test_who_only_looks_leaves_the_ballast_alone(disk):
    space = disk.space()
    space.check()
    disk.room = BALLAST_BYTES
    assert space.check(gives_up=False) is not None
    assert size_of(disk) == BALLAST_BYTES


def test_processes_that_share_it_see_the_same(disk):
    first, second = disk.space(), disk.space()
    assert first.check() is None and second.check() is None
    disk.room = BALLAST_BYTES
    assert first.check() is not None
    assert second.check() is not None, "the ballast is gone: what is free is not for new work"
    disk.room = 1024 * KIB
    assert second.check() is None
    assert first.check() is None


def test_one_that_is_being_made_by_another_process_is_waited_for(disk):
    (disk.directory / BALLAST).touch()
    hold = "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print(1, flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", hold, disk.directory / BALLAST], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        assert disk.space().check() is not None
        assert size_of(disk) == 0
    finally:
        other.communicate()
    assert disk.space().check() is None


def test_where_the_blocks_cannot_be_had_it_is_a_full_disk(disk, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.ledger.space.os.posix_fallocate", refuse)
    assert disk.space().check() is not None
    assert size_of(disk) == 0
    monkeypatch.undo()
    monkeypatch.setattr("app.ledger.space.os.open", refuse)
    assert disk.space().check() is not None


def test_threads_may_ask_at_the_same_time(disk):
    spaces = [disk.space() for _ in range(4)]
    found = []
    threads = [threading.Thread(target=lambda one=one: found.extend(one.check() for _ in range(50))) for one in spaces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 200 and found[-1] is None
    assert size_of(disk) == BALLAST_BYTES


def test_a_real_disk_is_asked(tmp_path):
    space = Space(tmp_path, ballast_bytes=BALLAST_BYTES)
    assert space.check() is None
    enormous = os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize * 2
    full = Space(tmp_path / "..", ballast_bytes=enormous)
    assert full.check() is not None and "short=True" in repr(full)
    assert not (tmp_path / ".." / BALLAST).exists()
