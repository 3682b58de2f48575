"""The parts that every request reports to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from app.accounting.accounts import Accounts
from app.core.clock import Clock
from app.core.records import Attempt, OwnedObject, Record
from app.pipeline.background import Background
from app.state.turns import Turns
from app.telemetry.live import LiveBoard
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics


class Books(Protocol):
    """Where requests are written down. Synchronous, and never lost: see the ledger."""

    def attempt(self, request_id: str, attempt: Attempt) -> bytes:
        """A further attempt follows one that was void: into the journal; what stands there."""

    def seen(self, owned: Sequence[OwnedObject]) -> None:
        """A request created these objects upstream; their owner is known before the client knows the ids."""

    def named(self, owned: OwnedObject) -> None:
        """An answer has named an object: it is the team's, unless the ledger knows it as another's."""

    def close(self, record: Record) -> bytes:
        """The request has ended: into the journal; what stands there."""

    def submit(self, record: Record) -> None:
        """Nothing about it changes any more: into the ledger."""


class Drains:
    """How many streams without a client each key has running upstream."""

    PER_KEY_MAX = 20

    def __init__(self) -> None:
        self._running: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"Drains(running={sum(self._running.values())})"

    def begin(self, key_id: str) -> bool:
        """Whether one more may run; each begun one must be ended."""
        running = self._running.get(key_id, 0)
        if running >= self.PER_KEY_MAX:
            return False
        self._running[key_id] = running + 1
        return True

    def end(self, key_id: str) -> None:
        running = self._running.get(key_id, 0) - 1
        if running > 0:
            self._running[key_id] = running
        else:
            self._running.pop(key_id, None)


class Desk(msgspec.Struct, frozen=True):
    """The parts that every flight reports to."""

    clock: Clock
    books: Books
    accounts: Accounts
    metrics: Metrics
    log: LogWriter
    drains: Drains
    live: LiveBoard
    background: Background
    turns: Turns
