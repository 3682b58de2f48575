"""Slots: each worker writes its journal in a folder of its own, the lowest that nobody holds.

The folder is held by a lock that the kernel lets go when its process dies, so that whoever starts next
knows at once which journals are left behind. It is taken before anything in it is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from app.store.locks import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS_MAX = 1024
SEGMENT_SUFFIX = ".log"
DAMAGED_SUFFIX = ".damaged"

PROCESSES = "processes"

_PREFIX = "slot-"


class Slot:
    """A held slot. Its number also names what else belongs to the worker."""

    __slots__ = ("_lock", "directory", "number")

    def __init__(self, number: int, directory: Path, lock: FileLock) -> None:
        self.number = number
        self.directory = directory
        self._lock = lock

    def __repr__(self) -> str:
        return f"Slot({self.number}, {self._lock!r})"

    def release(self) -> None:
        """Lets go, as the end of the process does."""
        self._lock.release()

    def segments(self) -> list[Path]:
        """The segments in it, oldest first."""
        return sorted(self.directory.glob(f"*{SEGMENT_SUFFIX}"))

    def processes(self) -> list[str]:
        """The ids of processes that have held the slot, and of which others may still hold something for them."""
        return _read_processes(self.directory / PROCESSES)

    def note_process(self, process_id: str) -> None:
        """Say that this process holds the slot now."""
        _write_processes(self.directory / PROCESSES, [*self.processes(), process_id])

    def forget_process(self, process_id: str) -> None:
        """Nothing is held for it any more."""
        _write_processes(self.directory / PROCESSES, [each for each in self.processes() if each != process_id])

    def next_segment_number(self) -> int:
        """Higher than that of anything that was ever kept here."""
        numbers = [path.name.partition(".")[0] for path in self.directory.iterdir()]
        return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)


def take_slot(root: Path) -> Slot:
    """The lowest slot under ``root`` (``DIR/journal``) that no process holds."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(SLOTS_MAX):
        slot = _take(root, number)
        if slot is not None:
            return slot
    raise OSError(f"all {SLOTS_MAX} slots in {root} are held")


def take_dead_slots(root: Path) -> list[Slot]:
    """Every other slot whose process has died and left something; the caller releases them.

    An empty one is left alone: a worker that starts just now may be about to take it.
    """
    return [slot for number in _left(root) if (slot := _take(root, number)) is not None]


def take_again(root: Path, number: int) -> Slot | None:
    """The slot of this number, if nobody holds it."""
    return _take(root, number)


def _read_processes(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []


def _write_processes(path: Path, process_ids: list[str]) -> None:
    if not process_ids:
        path.unlink(missing_ok=True)
        return
    written = path.with_suffix(".new")
    written.write_text("\n".join(process_ids) + "\n", encoding="ascii")
    written.replace(path)


def _take(root: Path, number: int) -> Slot | None:
    directory = root / f"{_PREFIX}{number}"
    directory.mkdir(mode=0o700, exist_ok=True)
    # A lock of one's own process counts as held too: flock belongs to the open file.
    lock = FileLock.take(directory / "lock")
    return None if lock is None else Slot(number, directory, lock)


def _left(root: Path) -> Iterator[int]:
    for path in sorted(root.glob(f"{_PREFIX}*")):
        number = path.name.removeprefix(_PREFIX)
        has_left = any(path.glob(f"*{SEGMENT_SUFFIX}")) or (path / PROCESSES).exists()
        if number.isdecimal() and has_left:
            yield int(number)
