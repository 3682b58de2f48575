"""The journal: what was admitted and is not in SQL yet, so that a killed process loses none of it.

Lines are single writes to an append-only file: they survive the process at once and, synced in groups by
a thread, the machine within ``sync_interval_s``. A segment is removed when every request in it is
committed. What cannot be written before anything is sent refuses the request; what cannot be written
afterwards is kept in memory and written as soon as the disk takes it.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, TypeAlias

from app.core.clock import Clock
from app.core.errors import LedgerUnavailable
from app.core.records import Attempt, Opening, OwnedObject, Record
from app.ledger.lines import AttemptLine, CloseLine, OpenLine, SeenLine, decode_line, encode_line
from app.ledger.segments import Segment, sync_directory
from app.ledger.slots import Slot

SEGMENT_BYTES_MAX = 8 * 1024 * 1024
SEGMENT_AGE_MAX_S = 300.0
SYNC_INTERVAL_S = 0.2
FREE_BYTES_MIN = 64 * 1024 * 1024
"""With less than this on the disk nothing new is begun, so that what runs can still be written down."""

LINE_BYTES_MAX = 1024 * 1024

Place: TypeAlias = tuple[Path, int]
"""Where a line is: its segment and offset."""


def free_bytes_of(directory: Path) -> int:
    """What an unprivileged process may still write there."""
    space = os.statvfs(directory)
    return space.f_bavail * space.f_frsize


class _Trace:
    """Where the lines of one request are."""

    __slots__ = ("at_s", "has_record", "places", "segments")

    def __init__(self, at_s: float, *, has_record: bool) -> None:
        self.at_s = at_s
        self.has_record = has_record
        self.segments: list[Segment] = []
        self.places: list[tuple[Segment, int]] = []


class Journal:
    """One worker's journal. Its methods are called from one thread and never wait for the disk's cache.

    ``on_state(writable, reason)`` is called once per change of state, from either thread.
    """

    def __init__(
        self,
        slot: Slot,
        clock: Clock,
        *,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        segment_age_max_s: float = SEGMENT_AGE_MAX_S,
        sync_interval_s: float = SYNC_INTERVAL_S,
        free_bytes_min: int = FREE_BYTES_MIN,
        free_bytes: Callable[[Path], int] = free_bytes_of,
        on_state: Callable[[bool, str], None] = lambda _writable, _reason: None,
    ) -> None:
        self._directory = slot.directory
        self._clock = clock
        self._segment_bytes_max = segment_bytes_max
        self._segment_age_max_s = segment_age_max_s
        self._sync_interval_s = sync_interval_s
        self._free_bytes_min = free_bytes_min
        self._free_bytes = free_bytes
        self._on_state = on_state
        self._numbers = itertools.count(slot.next_segment_number())
        self._pending: dict[str, _Trace] = {}
        self._unwritten: dict[str, list[tuple[bytes, bool]]] = {}
        self._faults: dict[str, str] = {}
        self._closed = False
        self._retired: deque[Segment] = deque()
        self._removable: deque[Segment] = deque()
        # At most one. Either thread takes it out, and a deque gives it to one of them only.
        self._spares: deque[Segment] = deque()
        self._fault_lock = threading.Lock()
        self._current = self._create()
        sync_directory(self._directory)
        self._stopping = threading.Event()
        self._check_space()
        self._thread = threading.Thread(target=self._keep, name="journal", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return (
            f"Journal({str(self._directory)!r}, pending={len(self._pending)},"
            f" unwritten={len(self._unwritten)}, faults={self._faults!r})"
        )

    @property
    def records_pending(self) -> int:
        """Requests that were opened and are not committed: those that run, and those on their way to SQL."""
        return len(self._pending)

    @property
    def oldest_pending_s(self) -> float:
        """The age of the oldest of them."""
        oldest = next(iter(self._pending.values()), None)
        return 0.0 if oldest is None else self._clock.monotonic_s() - oldest.at_s

    @property
    def requests_unwritten(self) -> int:
        """Requests with lines that the disk did not take."""
        return len(self._unwritten)

    def open(self, opening: Opening) -> None:
        """Before anything is sent. Raises LedgerUnavailable where it cannot be written."""
        if self._unwritten:
            self._rewrite()
        if self._closed or self._unwritten:
            raise LedgerUnavailable
        line = encode_line(OpenLine(opening))
        trace = _Trace(self._clock.monotonic_s(), has_record=True)
        try:
            self._append(trace, line, again=False)
        except OSError as error:
            raise LedgerUnavailable from error
        self._pending[opening.request_id] = trace

    def attempt(self, request_id: str, attempt: Attempt, error: str | None = None) -> None:
        """Before a further call, after one that ended in ``error`` and is known to be unbilled."""
        self._put(request_id, encode_line(AttemptLine(request_id, attempt, error)), again=False)

    def seen(self, owned: OwnedObject) -> None:
        """When an object was created upstream; its request need not have been opened."""
        self._put(owned.request_id, encode_line(SeenLine(owned)), again=True)

    def close(self, record: Record) -> None:
        """At the end of a request. What cannot be written is kept, and written when it can be."""
        self._put(record.request_id, encode_line(CloseLine(record)), again=True)
        self._pending[record.request_id].has_record = True

    def settled(self, request_ids: Iterable[str]) -> None:
        """The records of these requests are committed in SQL: their lines are not needed any more."""
        for request_id in request_ids:
            trace = self._pending.pop(request_id, None)
            if trace is None:
                continue
            if self._unwritten:
                self._unwritten.pop(request_id, None)
            for segment in trace.segments:
                segment.outstanding -= 1
                if not segment.outstanding and segment is not self._current:
                    self._removable.append(segment)

    def remembered(self, request_ids: Iterable[str]) -> None:
        """Objects of these requests are committed: that settles those which have no record."""
        self.settled([each for each in request_ids if (trace := self._pending.get(each)) and not trace.has_record])

    def holds(self, request_id: str) -> bool:
        """Whether all that was said of this request is in the file and can be read back."""
        return request_id in self._pending and request_id not in self._unwritten

    def places_of(self, request_id: str) -> list[Place]:
        """Where what a request has said for SQL is: objects, and its record if it is closed."""
        trace = self._pending.get(request_id)
        return [] if trace is None else [(segment.path, offset) for segment, offset in trace.places]

    def stop(self) -> None:
        """Writes and syncs what is left, and removes what is settled. The slot stays held, so that a request
        which ends after this still finds a place, for the next start to read.
        """
        if self._unwritten:
            self._rewrite()
        self._stopping.set()
        self._thread.join()
        self._closed = True
        for segment in (self._current, *self._spares):
            segment.sealed = True
            self._retire(segment)
        self._tidy()

    def _put(self, request_id: str, line: bytes, *, again: bool) -> None:
        """Adds a line after dispatch; ``again`` marks those that are read again for SQL."""
        trace = self._pending.get(request_id)
        if trace is None:
            trace = self._pending[request_id] = _Trace(self._clock.monotonic_s(), has_record=False)
        if self._unwritten:
            self._rewrite()
        try:
            self._append(trace, line, again=again)
        except OSError:
            # Bounded by what is in flight: nothing is opened while there is any of it.
            self._unwritten.setdefault(request_id, []).append((line, again))

    def _rewrite(self) -> None:
        for request_id in list(self._unwritten):
            lines = self._unwritten[request_id]
            trace = self._pending[request_id]
            try:
                while lines:
                    self._append(trace, lines[0][0], again=lines[0][1])
                    del lines[0]
            except OSError:
                return
            del self._unwritten[request_id]

    def _append(self, trace: _Trace, line: bytes, *, again: bool) -> None:
        segment = self._current
        try:
            if segment.sealed or segment.aged or segment.size >= self._segment_bytes_max:
                segment = self._rotate()
            offset = segment.append(line)
        except OSError as error:
            self._set_fault("write", f"{type(error).__name__}: {error.strerror}")
            raise
        if self._faults:
            self._set_fault("write", None)
        if not trace.segments or trace.segments[-1] is not segment:
            trace.segments.append(segment)
            segment.outstanding += 1
        if again:
            trace.places.append((segment, offset))

    def _rotate(self) -> Segment:
        """The next segment, opened before the old one is closed: a descriptor that is closed too early may
        become a socket. Where none can be made, the old one goes on if nothing is wrong with it.
        """
        old = self._current
        try:
            new = self._next()
        except OSError:
            if old.sealed:
                raise
            return old
        self._current = new
        self._retire(old)
        return new

    def _next(self) -> Segment:
        try:
            return self._spares.pop()
        except IndexError:
            return self._create()

    def _retire(self, segment: Segment) -> None:
        self._retired.append(segment)
        if not segment.outstanding:
            self._removable.append(segment)

    def _create(self) -> Segment:
        return Segment.create(self._directory, next(self._numbers), self._clock.monotonic_s())

    def _set_fault(self, part: str, reason: str | None) -> None:
        with self._fault_lock:
            before = bool(self._faults)
            if reason is None:
                self._faults.pop(part, None)
            else:
                self._faults[part] = reason
            # A failed write is tried again by the next request; the others are lifted by the thread.
            self._closed = self._stopping.is_set() or bool(self._faults.keys() - {"write"})
            if before != bool(self._faults):
                self._on_state(before, reason or "")

    def _keep(self) -> None:
        """The thread: all that may wait for the disk."""
        try:
            while not self._stopping.wait(self._sync_interval_s):
                self._tidy()
                self._check_space()
                try:
                    self._prepare_spare()
                except OSError as error:
                    self._set_fault("sync", f"{type(error).__name__}: {error.strerror}")
        finally:
            if not self._stopping.is_set():
                # A bug has ended it: what is not synced any more is not promised any more.
                self._faults["thread"] = "the journal's thread has ended"
                self._closed = True

    def _tidy(self) -> None:
        """Syncs what was written, closes what is full, removes what is settled."""
        try:
            current = self._current
            if current.dirty:
                current.sync()
            while self._retired:
                segment = self._retired[0]
                if segment.dirty:
                    segment.sync()
                self._retired.popleft().close()
            while self._removable:
                self._removable.popleft().path.unlink(missing_ok=True)
        except OSError as error:
            # What a failed sync has lost, no later one brings back: go on in another file, and take nothing
            # new until one of those could be synced.
            self._current.sealed = True
            self._set_fault("sync", f"{type(error).__name__}: {error.strerror}")

    def _prepare_spare(self) -> None:
        """Has the next segment ready, on the disk. After a failed sync that takes a new one, and shows that
        the disk is well again.
        """
        current = self._current
        if current.size and self._clock.monotonic_s() - current.opened_at_s > self._segment_age_max_s:
            current.aged = True
        failed = "sync" in self._faults
        if failed and self._spares:
            self._retire(self._spares.pop())
        if not self._spares:
            spare = self._create()
            spare.sync()
            sync_directory(self._directory)
            self._spares.append(spare)
        if failed:
            self._set_fault("sync", None)

    def _check_space(self) -> None:
        try:
            free = self._free_bytes(self._directory)
        except OSError as error:
            self._set_fault("space", f"{type(error).__name__}: {error.strerror}")
            return
        self._set_fault("space", f"{free} bytes are free" if free < self._free_bytes_min else None)


def read_places(places: Sequence[Place]) -> list[Record | OwnedObject]:
    """Reads records and objects back from where they were written. OSError, ValueError."""
    found: list[Record | OwnedObject] = []
    with ExitStack() as opened:
        files: dict[Path, BinaryIO] = {}
        for path, offset in places:
            file = files.get(path)
            if file is None:
                file = files[path] = opened.enter_context(path.open("rb"))
            file.seek(offset)
            line = decode_line(file.readline(LINE_BYTES_MAX).removesuffix(b"\n"))
            if isinstance(line, CloseLine):
                found.append(line.record)
            elif isinstance(line, SeenLine):
                found.append(line.owned)
    return found
