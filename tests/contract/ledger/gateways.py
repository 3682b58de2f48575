"""A journal and a writer as a gateway has them."""

from __future__ import annotations

from app.core.clock import SystemClock
from app.ledger.journal import Journal
from app.ledger.slots import take_slot
from app.ledger.writer import LedgerWriter
from app.store.proof import prove
from app.store.usage import usage
from tests.contract.store.samples import NOON_MS, opened, opening_of


class Gateway:
    """A journal and a writer as a gateway has them, and what they told."""

    def __init__(self, root, database, **changes):
        self.slot = take_slot(root)
        self.database = database
        self.journal = Journal(self.slot, SystemClock(), segment_bytes_max=50_000, sync_interval_s=0.01)
        self.states = []
        self.written = []
        self.poisoned = []
        given = {"flush_interval_s": 0.01, "retry_delay_max_s": 0.1} | changes
        self.writer = LedgerWriter(
            database,
            self.journal,
            SystemClock(),
            on_state=lambda up, reason: self.states.append((up, reason)),
            on_written=lambda records, new: self.written.append((records, new)),
            on_poison=lambda request_id, reason: self.poisoned.append(request_id),
            **given,
        )
        self.writer.start()

    def serve(self, record, owned=None):
        self.journal.open(*opened(opening_of(record.request_id)))
        if owned is not None:
            self.journal.seen(owned)
            self.writer.remember(owned)
        self.journal.close(record)
        self.writer.submit(record)

    async def end(self):
        await self.writer.stop()
        self.journal.stop()
        self.slot.release()


async def totals(database):
    async with database.read() as connection:
        proof = await prove(connection)
        rows = (await usage(connection, (), 0, 2 * NOON_MS)).rows
    assert proof.holds
    return proof, rows[0] if rows else None
