from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.ledger import slots
from app.ledger.slots import take_dead_slots, take_slot

HOLD = "import sys, pathlib; from app.ledger.slots import take_slot; slot = take_slot(pathlib.Path(sys.argv[1])); print(slot.number, flush=True); sys.stdin.read()"


def test_the_lowest_free_slot_is_taken(tmp_path):
    root = tmp_path / "journal"
    held = [take_slot(root) for _ in range(3)]
    assert [slot.number for slot in held] == [0, 1, 2]
    held[1].release()
    held[1].release()
    again = take_slot(root)
    assert (again.number, again.directory) == (1, root / "slot-1")
    assert "held" in repr(again) and "released" in repr(held[1])
    assert (root.stat().st_mode & 0o777, again.directory.stat().st_mode & 0o777) == (0o700, 0o700)
    for slot in (held[0], held[2], again):
        slot.release()


def test_a_slot_is_free_the_moment_its_process_is_killed(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == "0\n"
        mine = take_slot(tmp_path)
        assert mine.number == 1
        (tmp_path / "slot-0" / "000000000001.log").touch()
        assert take_dead_slots(tmp_path) == []
        child.kill()
        child.wait()
        (dead,) = take_dead_slots(tmp_path)
        assert dead.number == 0
        dead.release()
        mine.release()
    finally:
        child.kill()
        child.communicate()


def test_a_child_that_is_started_with_exec_does_not_keep_the_slot(tmp_path):
    slot = take_slot(tmp_path)
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        slot.release()
        again = take_slot(tmp_path)
        assert again.number == 0
        again.release()
    finally:
        child.kill()
        child.wait()


def test_segments_are_listed_in_order_and_numbers_only_go_up(tmp_path):
    slot = take_slot(tmp_path)
    assert (slot.segments(), slot.next_segment_number()) == ([], 1)
    for name in ("000000000010.log", "000000000009.log", "000000000012.damaged", "notes.txt"):
        (slot.directory / name).touch()
    assert [path.name for path in slot.segments()] == ["000000000009.log", "000000000010.log"]
    assert slot.next_segment_number() == 13
    slot.release()


def test_other_folders_are_no_slots(tmp_path):
    for name in ("slot-x", "slot-7", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "000000000001.log").touch()
    dead = take_dead_slots(tmp_path)
    assert [slot.number for slot in dead] == [7]
    dead[0].release()


def test_a_dead_slot_with_nothing_in_it_is_left_for_whoever_starts_next(tmp_path):
    take_slot(tmp_path).release()
    assert take_dead_slots(tmp_path) == []


def test_slots_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(slots, "SLOTS_MAX", 1)
    slot = take_slot(tmp_path)
    with pytest.raises(OSError, match="all 1 slots"):
        take_slot(tmp_path)
    slot.release()


def test_a_lock_that_cannot_be_asked_for_is_an_error_and_leaves_no_descriptor(tmp_path, monkeypatch):
    def refuse(fd, operation):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("app.store.locks.fcntl.flock", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="Input/output"):
        take_slot(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
