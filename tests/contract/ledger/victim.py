"""A worker that is killed: it journals at random, and tells what was done once it is done.

``python -m tests.contract.ledger.victim DIRECTORY SEED [DATABASE_URL]``; with a database it also brings
its records there, as a gateway does.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from app.core.clock import SystemClock
from app.core.ids import new_request_id
from app.ledger.journal import Journal
from app.ledger.slots import take_slot
from app.ledger.writer import LedgerWriter
from app.store.database import Database
from tests.contract.store.samples import NOON_MS, attempt_of, entry_of, opened, opening_of, owned_of, record_of


def tell(*words: str) -> None:
    os.write(1, " ".join(words).encode() + b"\n")


class Victim:
    def __init__(self, root: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.slot = take_slot(root)
        self.journal = Journal(self.slot, SystemClock(), segment_bytes_max=20_000, sync_interval_s=0.005)
        self.running: dict[str, int] = {}
        self.writer: LedgerWriter | None = None

    def step(self) -> None:
        """One line, of any kind, of any request."""
        step = self.chance.random()
        if step < 0.4 or not self.running:
            request_id = new_request_id(NOON_MS)
            self.journal.open(*opened(opening_of(request_id)))
            self.running[request_id] = 1
            tell("open", request_id)
            return
        request_id = self.chance.choice(list(self.running))
        if step < 0.5:
            self.running[request_id] += 1
            self.journal.attempt(request_id, attempt_of(self.running[request_id]), "connect")
            tell("attempt", request_id, str(self.running[request_id]))
        elif step < 0.65:
            owned = owned_of(request_id)
            self.journal.seen(owned)
            tell("seen", request_id)
            if self.writer is not None:
                self.writer.remember(owned)
        else:
            number = self.running.pop(request_id)
            voids = [entry_of(request_id, n, kind="void", cost_nanousd=0) for n in range(1, number)]
            record = record_of(request_id, attempts=number, entries=(*voids, entry_of(request_id, number)))
            tell("closing", request_id)
            self.journal.close(record)
            tell("close", request_id)
            if self.writer is not None:
                self.writer.submit(record)

    async def live_with(self, url: str) -> None:
        database = await Database.open(url)
        self.writer = LedgerWriter(
            database,
            self.journal,
            SystemClock(),
            queue_items_max=30,
            batch_items_max=20,
            flush_interval_s=0.002,
            on_written=lambda _records, new: tell("written", str(new)),
        )
        self.writer.start()
        tell("slot", str(self.slot.number))
        while True:
            for _ in range(self.chance.randrange(30)):
                self.step()
            await asyncio.sleep(0.001)

    def live(self) -> None:
        tell("slot", str(self.slot.number))
        while True:
            self.step()


if __name__ == "__main__":
    victim = Victim(Path(sys.argv[1]), int(sys.argv[2]))
    if len(sys.argv) > 3:
        asyncio.run(victim.live_with(sys.argv[3]))
    victim.live()
