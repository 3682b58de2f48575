"""The hot state: limits, budgets and recent owners, in memory or in Redis."""

from __future__ import annotations

import platform
from contextlib import AsyncExitStack

from app.accounting.accounts import Shared
from app.accounting.alone import Alone
from app.core.clock import SystemClock
from app.core.ids import random_base62
from app.ledger.slots import Slot
from app.limits.redis import RedisHot
from app.main.states import States
from app.settings import ConfigurationError, Environment
from app.store.database import Database
from app.store.redis import connect
from app.store.shared_owners import SharedOwners
from app.store.sole import SoleWriter
from app.telemetry.logs import LogWriter

PROCESS_ID_CHARS = 16


async def open_hot_state(
    stack: AsyncExitStack, environment: Environment, database: Database, slot: Slot, log: LogWriter, states: States
) -> tuple[Shared | Alone, SharedOwners | None]:
    """Limits and budgets in memory, or in Redis where there is a URL; not started yet."""
    clock = SystemClock()
    if environment.redis is None:
        sole = SoleWriter(database, states.reporter("sole_writer"))
        stack.push_async_callback(sole.close)
        alone = Alone(clock, database, lambda: sole.is_held)
        await sole.start(alone.read_again)
        return alone, None

    def on_refused(script: str, reason: str) -> None:
        log.error("redis_script_refused", script=script, reason=reason)

    try:
        client = connect(environment.redis, on_state=states.reporter("redis"), on_refused=on_refused)
    except ValueError as error:
        raise ConfigurationError(f"HEADGATE_REDIS_URL: {error}") from error
    await client.start()
    stack.push_async_callback(client.close)
    process_id = random_base62(PROCESS_ID_CHARS)
    accounts = Shared(
        process_id,
        RedisHot(client),
        database,
        clock,
        node=platform.node()[:64],
        slot=slot.number,
        on_state=states.reporter("limits"),
        on_unreadable=lambda request_id: log.error("reservation_unreadable", request_id=request_id),
    )
    slot.note_process(process_id)
    # After the ledger's writer has written its last: what that has committed is confirmed here.
    stack.push_async_callback(accounts.close)
    return accounts, SharedOwners(client)
