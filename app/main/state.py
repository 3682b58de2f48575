"""Turns that are kept for upstreams that keep nothing: their keys, and the end of their time."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from app.core.clock import Clock
from app.main.rounds import Rounds
from app.settings import Configuration, ConfigurationError, Environment
from app.state.chains import DAY_MS, TTL_DAYS_DEFAULT, periods_ms
from app.state.sealing import KeysInvalid, Seal, new_key
from app.state.turns import Turns
from app.store.database import Database
from app.store.leases import take_lease
from app.store.meta import STATE_CANARY_FACT, fact_or, find_fact
from app.store.turns import are_expired, remove_expired
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics

KEY_FILE = "state.key"
KEYS_MISSED = (
    "none of the state keys (HEADGATE_STATE_KEYS, or state.key in the data dir) is the one that this ledger's"
    " kept turns were encrypted with: give the old one too, behind the new one. If it is lost, so are they:"
    " headgate state reset removes them"
)
REMOVE_EVERY_S = 60.0
REMOVED_AT_ONCE = 500
ROUND_BATCHES_MAX = 200
LEASE = "state"
LEASE_MS = 180_000


def read_seal(environment: Environment, *, makes_key: bool = True) -> Seal:
    """With the keys that the environment gives, on SQLite else with one in the data dir, which is made where there is
    none. ``makes_key`` False: the ledger has turns of another key, so that a new one would only be in the way. Raises
    ConfigurationError, OSError.
    """
    given, name = environment.state, "HEADGATE_STATE_KEYS"
    if given is None:
        if not environment.database.startswith("sqlite"):
            raise ConfigurationError(
                "state: gateway of an upstream needs HEADGATE_STATE_KEYS (or HEADGATE_STATE_KEYS_FILE) where the ledger"
                " is on PostgreSQL: what the gateway keeps is encrypted, and all its processes need the same keys."
                " Make one with: headgate state new-key"
            )
        path = environment.data_dir.absolute() / KEY_FILE
        name = str(path)
        if not path.exists():
            if not makes_key:
                raise ConfigurationError(KEYS_MISSED)
            _make_key(path)
        given = path.read_text(encoding="ascii", errors="replace")
    try:
        return Seal(given)
    except KeysInvalid as error:
        raise ConfigurationError(f"{name}: {error}") from error


def _make_key(path: Path) -> None:
    """Whole or not at all; of two that make one the first counts."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(new_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(partial)
    finally:
        partial.unlink(missing_ok=True)


async def check_canary(database: Database, seal: Seal) -> None:
    """Whether the keys are those that the ledger's turns were encrypted with. Raises ConfigurationError, StoreError."""
    async with database.transaction() as connection:
        canary = await fact_or(connection, STATE_CANARY_FACT, seal.canary())
    if not seal.knows(canary):
        raise ConfigurationError(KEYS_MISSED)


async def open_seal(environment: Environment, database: Database) -> Seal:
    """With the keys that the ledger's turns were encrypted with. Raises ConfigurationError, StoreError, OSError."""
    async with database.read() as connection:
        is_first = await find_fact(connection, STATE_CANARY_FACT) is None
    seal = read_seal(environment, makes_key=is_first)
    await check_canary(database, seal)
    return seal


class State:
    """Of one process."""

    def __init__(self, environment: Environment, database: Database, turns: Turns) -> None:
        self._environment = environment
        self._database = database
        self.turns = turns

    def __repr__(self) -> str:
        return f"State({self.turns!r})"

    async def make_ready(self, configuration: Configuration) -> None:
        """Keys, where an upstream needs them. Raises ConfigurationError, StoreError, OSError."""
        if self.turns.is_open or not ttl_days_of(configuration):
            return
        self.turns.open(await open_seal(self._environment, self._database))


def ttl_days_of(configuration: Configuration) -> dict[str, int]:
    """For how long turns are kept, by the upstreams that keep none."""
    return {
        name: upstream.state_ttl_days
        for name, upstream in configuration.upstreams.items()
        if upstream.state == "gateway"
    }


async def open_state(
    stack: AsyncExitStack,
    environment: Environment,
    configuration: Configuration,
    database: Database,
    clock: Clock,
    metrics: Metrics,
    log: LogWriter,
    in_force: Callable[[], Configuration],
) -> State:
    """Raises ConfigurationError, StoreError, OSError."""

    def on_kept(result: str, turns: int) -> None:
        metrics.turns.labels(result).inc(turns)
        if result == "lost":
            log.error("state_turns_lost", turns=turns)

    turns = Turns(database, clock, on_kept=on_kept)
    stack.push_async_callback(turns.close)
    state = State(environment, database, turns)
    await state.make_ready(configuration)
    metrics.watch("headgate_state_turns_waiting", "Turns on their way to the database.", lambda: turns.waiting)
    holder = secrets.token_hex(8)

    async def remove() -> None:
        await remove_old(database, clock.now_ms(), ttl_days_of(in_force()), holder)

    rounds = Rounds("state", remove, log, interval_s=REMOVE_EVERY_S)
    rounds.start()
    stack.push_async_callback(rounds.close)
    return state


async def remove_old(database: Database, now_ms: int, ttl_days: dict[str, int], holder: str) -> int:
    """Removes chains whose time is over, if no other process does so; how many turns went. Raises DatabaseUnavailable.

    Also where no upstream is set to be kept for any more: then by the period that is the default.
    """
    periods, usual_ms, removed = periods_ms(ttl_days), TTL_DAYS_DEFAULT * DAY_MS, 0
    async with database.read() as connection:
        if not await are_expired(connection, now_ms, periods, usual_ms):
            return 0
    for _ in range(ROUND_BATCHES_MAX):
        async with database.transaction() as connection:
            if not await take_lease(connection, LEASE, holder, LEASE_MS):
                return removed
            gone = await remove_expired(connection, now_ms, periods, usual_ms, limit=REMOVED_AT_ONCE)
        removed += gone
        if not gone:
            break
    return removed
