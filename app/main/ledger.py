"""The journal and its way into the ledger: what an earlier process left goes first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from app.accounting.accounts import Shared
from app.accounting.alone import Alone
from app.core.clock import SystemClock
from app.ledger.commit import OnPoison
from app.ledger.journal import Journal
from app.ledger.recovery import Recovered, recover, recover_dead
from app.ledger.slots import Slot, take_again
from app.ledger.space import Space
from app.ledger.writer import LedgerWriter
from app.main.states import States
from app.main.upkeep import Upkeep
from app.store.database import Database
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics

CLOSE_TIMEOUT_S = 10.0


async def open_ledger(
    stack: AsyncExitStack,
    database: Database,
    slot: Slot,
    space: Space,
    accounts: Shared | Alone,
    metrics: Metrics,
    log: LogWriter,
    states: States,
) -> tuple[Journal, LedgerWriter]:
    """What an earlier process left is in the ledger before anything new is taken."""
    clock = SystemClock()
    root = slot.directory.parent

    on_poison, on_written = _tellers(metrics, log)

    def on_dead(process_id: str, number: int) -> None:
        if isinstance(accounts, Shared):
            accounts.retire(process_id, lambda: _forget(root, slot, process_id, number))

    recovered = await recover(
        root,
        slot,
        database,
        clock,
        on_poison=on_poison,
        before_write=accounts.before_write,
        on_written=accounts.after_write,
        on_dead=on_dead,
    )
    if recovered.segments:
        log.info("journal_recovered", **msgspec.structs.asdict(recovered))

    journal = Journal(slot, clock, space=space.check, on_state=states.reporter("journal"))
    stack.callback(journal.stop)

    writer = LedgerWriter(
        database,
        journal,
        clock,
        on_state=states.reporter("ledger"),
        on_written=on_written,
        on_poison=on_poison,
        before_write=accounts.before_write,
        after_write=accounts.after_write,
    )
    if isinstance(accounts, Shared):
        accounts.deliver_to(writer.submit)
    writer.start()
    stack.push_async_callback(_close_writer, writer, log)

    def look_for_dead() -> Awaitable[Recovered]:
        return recover_dead(
            root,
            database,
            clock,
            on_poison=on_poison,
            before_write=accounts.before_write,
            on_written=accounts.after_write,
            on_dead=on_dead,
        )

    upkeep = Upkeep(look_for_dead, database, space, log)
    upkeep.start()
    stack.push_async_callback(upkeep.close)
    return journal, writer


def _tellers(metrics: Metrics, log: LogWriter) -> tuple[OnPoison, Callable[[int, int], None]]:
    """Who counts and logs what becomes of records."""

    def on_poison(request_id: str, reason: str) -> None:
        metrics.ledger_writes.labels("poison").inc()
        log.error("ledger_row_refused", request_id=request_id, reason=reason)

    def on_written(records: int, new: int) -> None:
        metrics.ledger_writes.labels("written").inc(new)
        metrics.ledger_writes.labels("known").inc(records - new)

    return on_poison, on_written


def _forget(root: Path, own: Slot, process_id: str, number: int) -> None:
    """Nothing is held any more for a process that had the slot ``number``. Whoever holds it now may have been
    told of it as well, and forgets it too.
    """
    if number == own.number:
        own.forget_process(process_id)
    elif (slot := take_again(root, number)) is not None:
        slot.forget_process(process_id)
        slot.release()


async def _close_writer(writer: LedgerWriter, log: LogWriter) -> None:
    left = await writer.drain(CLOSE_TIMEOUT_S)
    if left:
        log.error("ledger_not_drained", records=left, kept_in="journal")
    await writer.stop()
