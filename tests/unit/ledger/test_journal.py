from __future__ import annotations

import contextlib
import errno
import os
import resource
import threading
import time
from pathlib import Path

import pytest

from app.core.clock import SystemClock
from app.core.errors import LedgerUnavailable
from app.core.records import Record
from app.ledger.journal import Journal, read_places
from app.ledger.lines import AttemptLine, CloseLine, OpenLine, SeenLine, read_lines
from app.ledger.segments import Segment
from app.ledger.slots import take_slot
from tests.contract.store.samples import attempt_of, opened, opening_of, owned_of, record_of

FAR_S = 3600.0


class Clock:
    """A clock that a test turns."""

    def __init__(self):
        self.now_s = 100.0

    def now_ms(self):
        return int(self.now_s * 1000)

    def monotonic_s(self):
        return self.now_s


@pytest.fixture
def slot(tmp_path):
    taken = take_slot(tmp_path / "journal")
    yield taken
    taken.release()


@pytest.fixture
def journal_of(slot):
    made = []

    def make(**changes):
        states = []
        given = {"sync_interval_s": FAR_S, "clock": Clock()} | changes
        clock = given.pop("clock")
        journal = Journal(slot, clock, on_state=lambda up, reason: states.append((up, reason)), **given)
        made.append(journal)
        return journal, states

    yield make
    for journal in made:
        journal.stop()


class FailingDisk:
    """Syncs fail while it is ``broken``: the system's own call, not our wrapper of it."""

    def __init__(self, monkeypatch):
        self.broken = False
        self._once = None
        self._real = os.fdatasync
        monkeypatch.setattr("app.ledger.segments.os.fdatasync", self._sync)

    def fail_once(self, path):
        self._once = path.stat().st_ino

    def _sync(self, descriptor):
        once = os.fstat(descriptor).st_ino == self._once
        if once:
            self._once = None
        if self.broken or once:
            raise OSError(errno.EIO, "Input/output error")
        self._real(descriptor)


def lines_of(slot):
    lines = []
    for path in slot.segments():
        # The journal's thread may remove one meanwhile.
        with contextlib.suppress(FileNotFoundError):
            lines += read_lines(path.read_bytes())
    return lines


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_until(holds, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_every_line_is_in_the_file_when_the_call_returns(slot, journal_of):
    journal, _ = journal_of()
    journal.open(*opened(opening_of("r1")))
    journal.attempt("r1", attempt_of(2), "connect")
    journal.seen(owned_of("r1"))
    journal.close(record_of("r1"))
    assert lines_of(slot) == [
        OpenLine(opening_of("r1")),
        AttemptLine("r1", attempt_of(2), "connect"),
        SeenLine(owned_of("r1")),
        CloseLine(record_of("r1")),
    ]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in slot.segments())
    assert "pending=1" in repr(journal)


def test_what_is_pending_is_counted_until_it_is_settled(journal_of):
    clock = Clock()
    journal, _ = journal_of(clock=clock)
    assert (journal.records_pending, journal.oldest_pending_s) == (0, 0.0)
    journal.open(*opened(opening_of("r1")))
    clock.now_s += 5
    journal.open(*opened(opening_of("r2")))
    journal.close(record_of("r1"))
    assert (journal.records_pending, journal.oldest_pending_s) == (2, 5.0)
    journal.settled(["r1", "unknown"])
    assert (journal.records_pending, journal.oldest_pending_s) == (1, 0.0)


def test_a_segment_goes_when_all_in_it_is_settled_and_not_before(slot, journal_of):
    journal, _ = journal_of(segment_bytes_max=1, sync_interval_s=0.002)
    journal.open(*opened(opening_of("r1")))
    journal.open(*opened(opening_of("r2")))
    journal.close(record_of("r1"))
    journal.settled(["r1"])
    wait_until(lambda: OpenLine(opening_of("r1")) not in lines_of(slot))
    assert OpenLine(opening_of("r2")) in lines_of(slot)
    journal.close(record_of("r2"))
    wait_until(lambda: lines_of(slot) == [OpenLine(opening_of("r2")), CloseLine(record_of("r2"))])
    journal.settled(["r2"])
    journal.open(*opened(opening_of("r3")))
    wait_until(lambda: lines_of(slot) == [OpenLine(opening_of("r3"))])


def test_segments_rotate_by_size_and_a_record_over_two_of_them_holds_both(slot, journal_of):
    journal, _ = journal_of(segment_bytes_max=1)
    journal.open(*opened(opening_of("r1")))
    journal.close(record_of("r1"))
    assert len(slot.segments()) == 2
    journal.stop()
    assert len(slot.segments()) == 2


def test_segments_rotate_by_age(slot, journal_of):
    clock = Clock()
    journal, _ = journal_of(clock=clock, segment_age_max_s=10.0, sync_interval_s=0.002)
    journal.open(*opened(opening_of("r1")))
    first = slot.segments()[0]
    size = first.stat().st_size
    clock.now_s += 11
    wait_until(lambda: journal._current.aged)
    journal.open(*opened(opening_of("r2")))
    assert first.stat().st_size == size


def test_an_old_segment_is_never_added_to(slot, journal_of):
    journal, _ = journal_of()
    journal.open(*opened(opening_of("r1")))
    journal.stop()
    before = {path: path.read_bytes() for path in slot.segments()}
    assert len(before) == 1
    journal, _ = journal_of()
    journal.open(*opened(opening_of("r2")))
    assert {path: path.read_bytes() for path in slot.segments()[:1]} == before
    assert len(slot.segments()) == 2


def test_a_stop_removes_what_is_settled_and_refuses_what_comes_after(slot, journal_of):
    journal, states = journal_of()
    journal.open(*opened(opening_of("r1")))
    journal.close(record_of("r1"))
    journal.settled(["r1"])
    journal.stop()
    assert slot.segments() == []
    with pytest.raises(LedgerUnavailable):
        journal.open(*opened(opening_of("r2")))
    journal.close(record_of("r3"))
    assert lines_of(slot) == [CloseLine(record_of("r3"))]
    with pytest.raises(LedgerUnavailable):
        journal.open(*opened(opening_of("r4")))
    assert states == [], "a stop is nobody's alarm"


def test_the_thread_syncs_what_was_written_and_only_then(journal_of, monkeypatch):
    synced = []
    real = Segment.sync
    monkeypatch.setattr(Segment, "sync", lambda self: (synced.append(self.path.name), real(self)))
    journal, _ = journal_of(sync_interval_s=0.002)
    wait_until(lambda: synced)
    assert set(synced) == {"000000000002.log"}, "the spare segment, before it is needed"
    journal.open(*opened(opening_of("r1")))
    wait_until(lambda: "000000000001.log" in synced)
    count = len(synced)
    time.sleep(0.03)
    assert len(synced) == count


@pytest.fixture
def full_disk(slot):
    """Lets files of this process grow no further than ``spare`` bytes beyond what the journal has."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(spare):
        size = slot.segments()[0].stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + spare, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("spare", [0, 1, 150])
def test_on_a_full_disk_nothing_is_opened_and_no_line_is_torn(slot, journal_of, full_disk, spare):
    journal, states = journal_of()
    journal.open(*opened(opening_of("r1")))
    size = slot.segments()[0].stat().st_size
    full_disk(spare)
    for number in range(3):
        with pytest.raises(LedgerUnavailable):
            journal.open(*opened(opening_of(f"x{number}")))
    assert slot.segments()[0].stat().st_size == size
    assert len(states) == 1 and states[0][0] is False
    full_disk(1 << 20)
    journal.open(*opened(opening_of("r2")))
    assert states[1:] == [(True, "")]
    assert [line.opening.request_id for line in lines_of(slot)] == ["r1", "r2"]
    assert journal.records_pending == 2


def test_what_ends_on_a_full_disk_is_kept_and_written_when_there_is_room(slot, journal_of, full_disk):
    journal, _ = journal_of()
    for request_id in ("r1", "r2"):
        journal.open(*opened(opening_of(request_id)))
    full_disk(1)
    journal.attempt("r1", attempt_of(2))
    journal.seen(owned_of("r1"))
    journal.close(record_of("r1"))
    journal.close(record_of("r2"))
    assert journal.requests_unwritten == 2
    assert not journal.holds("r1")
    with pytest.raises(LedgerUnavailable):
        journal.open(*opened(opening_of("r3")))
    # SQL had room: what is committed need not be written any more.
    journal.settled(["r2"])
    full_disk(1 << 20)
    journal.open(*opened(opening_of("r4")))
    assert journal.requests_unwritten == 0
    assert lines_of(slot)[2:] == [
        AttemptLine("r1", attempt_of(2)),
        SeenLine(owned_of("r1")),
        CloseLine(record_of("r1")),
        OpenLine(opening_of("r4")),
    ]
    assert journal.holds("r1")
    assert read_places(journal.places_of("r1")) == [owned_of("r1"), record_of("r1")]


def test_nothing_is_written_behind_a_line_that_could_not_be_cut_back(slot, journal_of, full_disk, monkeypatch):
    journal, _ = journal_of()
    journal.open(*opened(opening_of("r1")))

    def refuse(fd, length):
        raise OSError(errno.EIO, "Input/output error")

    full_disk(20)
    monkeypatch.setattr("app.ledger.segments.os.ftruncate", refuse)
    with pytest.raises(LedgerUnavailable):
        journal.open(*opened(opening_of("r2")))
    torn = slot.segments()[0].stat().st_size
    full_disk(1 << 20)
    monkeypatch.undo()
    journal.open(*opened(opening_of("r3")))
    assert slot.segments()[0].stat().st_size == torn
    assert [line.opening.request_id for line in lines_of(slot) if isinstance(line, OpenLine)] == ["r1", "r3"]


def test_little_space_refuses_new_work_and_lets_what_runs_end(slot, journal_of):
    short = [None]
    journal, states = journal_of(sync_interval_s=0.002, space=lambda: short[0])
    journal.open(*opened(opening_of("r1")))
    short[0] = "999 bytes are free"
    wait_until(lambda: states)
    with pytest.raises(LedgerUnavailable):
        journal.open(*opened(opening_of("r2")))
    journal.close(record_of("r1"))
    assert isinstance(lines_of(slot)[-1], CloseLine)
    short[0] = None
    wait_until(lambda: len(states) == 2)
    journal.open(*opened(opening_of("r3")))
    assert states == [(False, "999 bytes are free"), (True, "")]


def test_a_start_on_a_full_disk_refuses_from_the_first_request(journal_of):
    journal, states = journal_of(space=lambda: "0 bytes are free")
    with pytest.raises(LedgerUnavailable):
        journal.open(*opened(opening_of("r1")))
    assert states == [(False, "0 bytes are free")]


def test_space_that_cannot_be_asked_for_is_no_space(journal_of):
    def refuse():
        raise OSError(errno.EIO, "Input/output error")

    _, states = journal_of(space=refuse)
    assert states == [(False, "OSError: Input/output error")]


def test_after_a_failed_sync_nothing_is_taken_until_another_file_was_synced(slot, journal_of, monkeypatch):
    disk = FailingDisk(monkeypatch)
    journal, states = journal_of(sync_interval_s=0.002)
    journal.open(*opened(opening_of("r1")))
    first = journal._current
    wait_until(lambda: not first.unsynced)
    disk.broken = True
    journal.close(record_of("r1"))
    wait_until(lambda: states)
    with pytest.raises(LedgerUnavailable):
        journal.open(*opened(opening_of("r2")))
    before = descriptors()
    time.sleep(0.02)
    assert states == [(False, "OSError: Input/output error")]
    assert descriptors() <= before + 1 and len(slot.segments()) <= 3, "nothing piles up while it fails"
    disk.broken = False
    wait_until(lambda: len(states) == 2)
    journal.open(*opened(opening_of("r3")))
    assert journal._current is not first
    assert OpenLine(opening_of("r1")) in list(read_lines(first.path.read_bytes()))


def test_what_a_failed_sync_may_have_lost_is_written_once_more_and_what_was_safe_is_not(slot, journal_of, monkeypatch):
    disk = FailingDisk(monkeypatch)
    journal, states = journal_of(sync_interval_s=0.002)
    journal.open(*opened(opening_of("safe")))
    first = journal._current
    wait_until(lambda: not first.unsynced)
    disk.broken = True
    # In one turn of the thread or in several: all of it is uncertain.
    journal.seen(owned_of("safe"))
    wait_until(lambda: states)
    journal.attempt("safe", attempt_of(2))
    journal.close(record_of("late"))
    disk.broken = False
    wait_until(lambda: len(states) == 2)
    # The medium has lost what it could not sync.
    first.path.write_bytes(first.path.read_bytes().split(b"\n", 1)[0] + b"\n")
    journal.open(*opened(opening_of("next")))
    wait_until(lambda: len({type(line) for line in lines_of(slot)}) == 4)
    lines = lines_of(slot)
    assert lines.count(OpenLine(opening_of("safe"))) == 1
    for line in (SeenLine(owned_of("safe")), AttemptLine("safe", attempt_of(2)), CloseLine(record_of("late"))):
        assert line in lines
    assert read_places([*journal.places_of("safe"), *journal.places_of("late")]) == [
        owned_of("safe"),
        record_of("late"),
    ], "what waits on the disk for SQL is read where it is safe"
    journal.settled(["safe", "late", "next"])
    journal.stop()
    assert slot.segments() == []


def test_what_was_lost_is_written_once_more_also_at_the_very_end(slot, journal_of, monkeypatch):
    disk = FailingDisk(monkeypatch)
    journal, _ = journal_of()
    journal.open(*opened(opening_of("r1")))
    first = journal._current
    disk.fail_once(first.path)
    journal.stop()
    assert OpenLine(opening_of("r1")) in [
        line for path in slot.segments() if path != first.path for line in read_lines(path.read_bytes())
    ]


def test_a_disk_that_hangs_takes_nothing_new(journal_of, monkeypatch):
    clock, hangs = Clock(), threading.Event()
    journal, states = journal_of(clock=clock, sync_interval_s=0.002)
    monkeypatch.setattr("app.ledger.segments.os.fdatasync", lambda _fd: hangs.wait(10))
    journal.open(*opened(opening_of("r1")))
    time.sleep(0.02)
    clock.now_s += 29
    journal.open(*opened(opening_of("r2")))
    clock.now_s += 3
    with pytest.raises(LedgerUnavailable):
        journal.open(*opened(opening_of("r3")))
    journal.close(record_of("r1"))
    hangs.set()
    wait_until(lambda: len(states) == 2)
    assert states == [(False, "the disk hangs"), (True, "")]
    journal.open(*opened(opening_of("r4")))


def test_where_no_new_segment_can_be_made_the_old_one_goes_on(slot, journal_of, monkeypatch):
    journal, _ = journal_of(segment_bytes_max=1)
    journal.open(*opened(opening_of("r1")))

    def refuse(directory, number, now_s):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Segment, "create", refuse)
    journal.open(*opened(opening_of("r2")))
    assert len(slot.segments()) == 1
    assert len(lines_of(slot)) == 2
    journal._current.sealed = True
    with pytest.raises(LedgerUnavailable):
        journal.open(*opened(opening_of("r3")))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_without_its_thread_nothing_is_taken(journal_of):
    def fail():
        raise ZeroDivisionError

    journal, _ = journal_of(sync_interval_s=0.002)
    journal._space = fail
    wait_until(lambda: not journal._thread.is_alive())
    with pytest.raises(LedgerUnavailable):
        journal.open(*opened(opening_of("r1")))


def test_an_object_without_a_request_is_settled_by_itself(slot, journal_of):
    journal, _ = journal_of()
    journal.seen(owned_of("file_upload", "file_1"))
    journal.open(*opened(opening_of("r1")))
    journal.seen(owned_of("r1"))
    journal.close(record_of("r2"))
    journal.seen(owned_of("r2"))
    assert journal.records_pending == 3
    journal.remembered(["file_upload", "r1", "r2", "unknown"])
    assert journal.records_pending == 2


def test_objects_and_records_are_read_back_from_many_segments(journal_of):
    journal, _ = journal_of(segment_bytes_max=700)
    places = []
    for number in range(20):
        request_id = f"r{number}"
        journal.open(*opened(opening_of(request_id)))
        journal.seen(owned_of(request_id))
        journal.close(record_of(request_id))
        places += journal.places_of(request_id)
    found = read_places(places)
    assert [item.request_id for item in found] == [f"r{number}" for number in range(20) for _ in range(2)]
    assert [type(item) is Record for item in found] == [False, True] * 20
    assert journal.places_of("unknown") == []


def test_a_damaged_place_is_an_error(slot, journal_of):
    journal, _ = journal_of()
    journal.close(record_of("r1"))
    ((path, offset),) = journal.places_of("r1")
    data = bytearray(path.read_bytes())
    data[offset + 50] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        read_places([(path, offset)])


def test_no_descriptor_is_left_open(slot, tmp_path):
    before = descriptors()
    journal = Journal(slot, SystemClock(), segment_bytes_max=500, sync_interval_s=0.002)
    for number in range(50):
        journal.open(*opened(opening_of(f"r{number}")))
    wait_until(lambda: descriptors() <= before + 4)
    journal.stop()
    assert descriptors() == before


def test_a_line_that_utf8_cannot_hold_is_written_all_the_same(slot, journal_of):
    journal, _ = journal_of()
    journal.open(*opened(opening_of("r1", end_user="\ud800")))
    journal.close(record_of("r1", end_user="\ud800"))
    assert len(lines_of(slot)) == 2
