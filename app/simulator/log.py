"""What was served and billed: the truth that a gateway's ledger is compared with."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ServedOutcome = Literal["running", "completed", "incomplete", "failed", "disconnected", "cut", "refused", "cancelled"]

ENTRIES_MAX = 200_000


class BilledUsage(msgspec.Struct, gc=False):
    """What was really used, whatever the client was told: tokens, or seconds of sound and film."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    seconds: int = 0


class Served(msgspec.Struct, gc=False):
    """One attempt. Entered when its body has been read, completed while it is answered.

    ``number`` rises by one per attempt. ``status`` is 0 and ``ended_ms`` None until there is one.
    """

    number: int
    attempt_id: str
    endpoint: str
    started_ms: int
    usage: BilledUsage
    model: str = ""
    stream: bool = False
    response_id: str | None = None
    service_tier: str | None = None
    status: int = 0
    ended_ms: int | None = None
    billed: bool = False
    outcome: ServedOutcome = "running"
    error_code: str | None = None
    written_events: int = 0

    def close(self, outcome: ServedOutcome, ended_ms: int) -> None:
        """The first end counts: what happens to bytes that were handed over changes nothing."""
        if self.ended_ms is None:
            self.outcome = outcome
            self.ended_ms = ended_ms


class ServedLog:
    """The last ``entries_max`` attempts.

    With a ``path`` every change of an entry is appended there as well, as a line of JSON that the end of the
    process cannot take away: the last line with a number is its entry. OSError where it cannot be opened.
    """

    def __init__(self, *, entries_max: int = ENTRIES_MAX, path: Path | None = None) -> None:
        self._entries: deque[Served] = deque(maxlen=entries_max)
        self._last_number = 0
        self.entries_max = entries_max
        self._file: int | None = None
        if path is not None:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def open(self, attempt_id: str, endpoint: str, started_ms: int) -> Served:
        """Enter one attempt."""
        self._last_number += 1
        served = Served(self._last_number, attempt_id, endpoint, started_ms, BilledUsage())
        self._entries.append(served)
        self.note(served)
        return served

    def note(self, served: Served) -> None:
        """Put down how the entry stands, before anything of it is told."""
        if self._file is not None:
            os.write(self._file, msgspec.json.encode(served) + b"\n")

    def find(self, *, since: int = 0, wanted_id: str | None = None) -> list[Served]:
        """Entries with a number above ``since``, of one attempt or response id if one is given."""
        return [
            entry
            for entry in self._after(since)
            if wanted_id is None or wanted_id in (entry.attempt_id, entry.response_id)
        ]

    def clear(self) -> None:
        """Forget every entry; numbers go on rising."""
        self._entries.clear()

    @property
    def last_number(self) -> int:
        return self._last_number

    def _after(self, since: int) -> Iterator[Served]:
        entries = self._entries
        if not entries or since < entries[0].number:
            return iter(entries)
        # Numbers have no gaps, so the place of the first wanted entry is known.
        return (entries[index] for index in range(since - entries[0].number + 1, len(entries)))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Served]:
        return iter(self._entries)

    def __repr__(self) -> str:
        return f"ServedLog(entries={len(self._entries)}/{self.entries_max}, last_number={self._last_number})"
