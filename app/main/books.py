"""Journal, ledger and owners behind one door."""

from __future__ import annotations

from collections.abc import Sequence

from app.auth.ownership import Ownership
from app.core.records import Attempt, OwnedObject, Record
from app.ledger.journal import Journal
from app.ledger.writer import LedgerWriter


class Books:
    """Journal, ledger and owners behind one door, in the order that loses nothing."""

    def __init__(self, journal: Journal, writer: LedgerWriter, ownership: Ownership) -> None:
        self._journal = journal
        self._writer = writer
        self._ownership = ownership

    def attempt(self, request_id: str, attempt: Attempt) -> bytes:
        return self._journal.attempt(request_id, attempt)

    def seen(self, owned: Sequence[OwnedObject]) -> None:
        """A team's call has made them."""
        for each in self._ownership.remember(owned):
            self._write_down(each)

    def named(self, owned: OwnedObject) -> None:
        """An answer to a team has named it."""
        if self._ownership.claim(owned):
            self._write_down(owned)
            # Who asks for it waits until the ledger has it.
            self._writer.hurry()

    def _write_down(self, owned: OwnedObject) -> None:
        self._journal.seen(owned)
        self._writer.remember(owned)

    def close(self, record: Record) -> bytes:
        return self._journal.close(record)

    def submit(self, record: Record) -> None:
        self._writer.submit(record)
