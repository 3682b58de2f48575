"""The journal: what was admitted and is not in SQL yet, so that a killed process loses none of it.

Lines are single writes to an append-only file: they survive the process at once and, synced in groups by
a thread, the machine within ``sync_interval_s``. A segment is removed when every request in it is
committed. What cannot be written before anything is sent refuses the request; what cannot be written
afterwards is kept in memory and written as soon as the disk takes it. Lines that a failed sync may have
lost are written once more, to another segment.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, TypeAlias

from app.core.clock import Clock
from app.core.errors import LedgerUnavailable
from app.core.records import Attempt, OwnedObject, Record
from app.ledger.lines import AttemptLine, CloseLine, SeenLine, decode_line, encode_line, encode_payload, framed
from app.ledger.segments import Segment, WrittenLine, sync_directory
from app.ledger.slots import Slot

SEGMENT_BYTES_MAX = 8 * 1024 * 1024
SEGMENT_AGE_MAX_S = 300.0
SYNC_INTERVAL_S = 0.2
SYNC_LATE_MAX_S = 30.0
"""With a disk that hangs for longer nothing new is taken: what is not synced would only pile up."""

LINE_BYTES_MAX = 1024 * 1024

Place: TypeAlias = tuple[Path, int]
"""Where a line is: its segment and offset."""


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

    ``space()`` tells why the disk has no room for new work, or None; it is asked by the journal's thread.
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
        space: Callable[[], str | None] = lambda: None,
        on_state: Callable[[bool, str], None] = lambda _writable, _reason: None,
    ) -> None:
        self._directory = slot.directory
        self._clock = clock
        self._segment_bytes_max = segment_bytes_max
        self._segment_age_max_s = segment_age_max_s
        self._sync_interval_s = sync_interval_s
        self._space = space
        self._on_state = on_state
        self._numbers = itertools.count(slot.next_segment_number())
        self._pending: dict[str, _Trace] = {}
        self._unwritten: dict[str, list[tuple[bytes, bool]]] = {}
        self._faults: dict[str, str] = {}
        self._closed = False
        self._retired: deque[Segment] = deque()
        self._removable: deque[Segment] = deque()
        # What failed syncs may have lost, and where it was written once more.
        self._lost: list[tuple[Segment, WrittenLine]] = []
        self._rescued: deque[tuple[Segment, list[tuple[Segment, WrittenLine, int]]]] = deque()
        # At most one. Either thread takes it out, and a deque gives it to one of them only.
        self._spares: deque[Segment] = deque()
        self._synced_at_s = clock.monotonic_s()
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

    def open(self, request_id: str, payload: bytes) -> None:
        """Before anything is sent: ``payload`` is an encoded OpenLine. Raises LedgerUnavailable where it cannot
        be written.
        """
        now_s = self.check()
        line = framed(payload)
        trace = _Trace(now_s, has_record=True)
        try:
            self._append(request_id, trace, line, again=False)
        except OSError as error:
            raise LedgerUnavailable from error
        self._pending[request_id] = trace

    def check(self) -> float:
        """Whether a request may be taken that will only be closed, as it is answered at once: raises
        LedgerUnavailable where what it leaves could not be written. Returns now, of the monotonic clock.
        """
        if self._unwritten:
            self._rewrite()
        if self._closed or self._unwritten:
            raise LedgerUnavailable
        now_s = self._clock.monotonic_s()
        if now_s - self._synced_at_s > self._sync_interval_s + SYNC_LATE_MAX_S:
            self._set_fault("late", "the disk hangs")
            raise LedgerUnavailable
        return now_s

    def attempt(self, request_id: str, attempt: Attempt, error: str | None = None) -> bytes:
        """Before a further call, after one that ended in ``error`` and is known to be unbilled. Returns the line's
        payload.
        """
        payload = encode_payload(AttemptLine(request_id, attempt, error))
        self._put(request_id, framed(payload), again=False)
        return payload

    def seen(self, owned: OwnedObject) -> None:
        """When an object was created upstream; its request need not have been opened."""
        self._put(owned.request_id, encode_line(SeenLine(owned)), again=True)

    def close(self, record: Record) -> bytes:
        """At the end of a request. What cannot be written is kept, and written when it can be. Returns the
        line's payload.
        """
        payload = encode_payload(CloseLine(record))
        self._put(record.request_id, framed(payload), again=True)
        self._pending[record.request_id].has_record = True
        return payload

    def settled(self, request_ids: Iterable[str]) -> None:
        """The records of these requests are committed in SQL: their lines are not needed any more."""
        if self._rescued:
            self._absorb()
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
        # Where even that fails, what may be lost is in a file whose end nobody knows: the next start reads it.
        with suppress(OSError):
            self._rescue()
        self._absorb()
        self._remove()

    def _put(self, request_id: str, line: bytes, *, again: bool) -> None:
        """Adds a line after dispatch; ``again`` marks those that are read again for SQL."""
        trace = self._pending.get(request_id)
        if trace is None:
            trace = self._pending[request_id] = _Trace(self._clock.monotonic_s(), has_record=False)
        if self._unwritten:
            self._rewrite()
        try:
            self._append(request_id, trace, line, again=again)
        except OSError:
            # Bounded by what is in flight: nothing is opened while there is any of it.
            self._unwritten.setdefault(request_id, []).append((line, again))

    def _rewrite(self) -> None:
        for request_id in list(self._unwritten):
            lines = self._unwritten[request_id]
            trace = self._pending[request_id]
            try:
                while lines:
                    self._append(request_id, trace, lines[0][0], again=lines[0][1])
                    del lines[0]
            except OSError:
                return
            del self._unwritten[request_id]

    def _append(self, request_id: str, trace: _Trace, line: bytes, *, again: bool) -> None:
        if self._rescued:
            self._absorb()
        segment = self._current
        try:
            if segment.sealed or segment.aged or segment.size >= self._segment_bytes_max:
                segment = self._rotate()
            offset = segment.append(request_id, line, again=again)
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

    def _absorb(self) -> None:
        """Takes note of where the thread has written lines once more."""
        while self._rescued:
            segment, moved = self._rescued.popleft()
            places = {(before, line.offset): (segment, offset) for before, line, offset in moved}
            for request_id in {line.request_id for _, line, _ in moved}:
                trace = self._pending.get(request_id)
                if trace is not None:
                    trace.places = [places.get(place, place) for place in trace.places]
                    trace.segments.append(segment)
                    segment.outstanding += 1
            if not segment.outstanding:
                self._removable.append(segment)

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
                self._synced_at_s = self._clock.monotonic_s()
                self._set_fault("late", None)
                self._check_space()
                try:
                    self._rescue()
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
        self._sync(self._current)
        while self._retired:
            self._sync(self._retired[0])
            self._retired.popleft().close()
        self._remove()

    def _sync(self, segment: Segment) -> None:
        if segment.unsynced and not segment.bad:
            try:
                segment.sync()
            except OSError as error:
                # Go on in another file, and take nothing new until one of those could be synced.
                self._set_fault("sync", f"{type(error).__name__}: {error.strerror}")
        if segment.bad:
            self._lost += [(segment, line) for line in segment.take_unsynced()]

    def _remove(self) -> None:
        try:
            while self._removable:
                self._removable.popleft().path.unlink(missing_ok=True)
        except OSError as error:
            self._set_fault("sync", f"{type(error).__name__}: {error.strerror}")

    def _rescue(self) -> None:
        """Writes what failed syncs may have lost to a segment of its own, whole and synced. OSError: it is
        still here, and tried again.
        """
        if not self._lost:
            return
        segment = self._create()
        try:
            moved = [
                (before, line, segment.append(line.request_id, line.line, again=line.again))
                for before, line in self._lost
            ]
            segment.sync()
            sync_directory(self._directory)
        except OSError:
            segment.path.unlink(missing_ok=True)
            raise
        finally:
            segment.close()
        self._lost.clear()
        self._rescued.append((segment, moved))

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
            try:
                spare.sync()
                sync_directory(self._directory)
            except OSError:
                spare.close()
                spare.path.unlink(missing_ok=True)
                raise
            self._spares.append(spare)
        if failed:
            self._set_fault("sync", None)

    def _check_space(self) -> None:
        try:
            reason = self._space()
        except OSError as error:
            reason = f"{type(error).__name__}: {error.strerror}"
        self._set_fault("space", reason)


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
