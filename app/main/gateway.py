"""The composition root: ``open_gateway`` names every part.

It brings the parts up in the order in which they need one another, and takes them down in reverse,
settling everything on the way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from app.accounting.accounts import Shared
from app.accounting.alone import Alone
from app.auth.authenticator import Authenticator
from app.auth.ownership import Ownership
from app.cache.cache import ResponseCache
from app.core.clock import Clock, SystemClock
from app.edge.endpoints import ON_BY_DEFAULT, match_in_batch
from app.edge.peers import Peers
from app.edge.plane import Gateway as GatewayApp
from app.ledger.journal import Journal
from app.ledger.refusals import RefusalLog
from app.ledger.slots import Slot, take_slot
from app.ledger.space import Space
from app.ledger.writer import LedgerWriter
from app.main.alerts import open_alerts
from app.main.awaiting import Awaiting
from app.main.books import Books
from app.main.cache import open_cache
from app.main.control import control_plane
from app.main.data_dir import hold_data_dir
from app.main.first_run import FirstRun, make_first_run
from app.main.folding import Folding
from app.main.hot_state import open_hot_state
from app.main.ledger import open_ledger
from app.main.live import open_live
from app.main.prices import SetPrices
from app.main.state import State, open_state
from app.main.states import States
from app.main.switch import Switch, compiled
from app.main.upstreams import Upstreams
from app.metering.estimates import Estimates
from app.pipeline import Desk, Drains, Parts
from app.pipeline.background import Background
from app.settings import Configuration, Environment
from app.store.database import Database
from app.store.migrate import upgrade
from app.telemetry.live import LiveFeed
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics
from app.telemetry.shared import SUFFIX
from app.telemetry.watchdog import Watchdog
from app.upstream.watch import Sweep

JOURNAL = "journal"
CIRCUIT = {"closed": 0.0, "half-open": 1.0, "open": 2.0}


class Prepared(msgspec.Struct, frozen=True):
    """What a supervisor has done once for all its workers: the data dir is held, the schema is there."""

    metrics_dir: Path
    simulator_socket: Path


class Gateway:
    """One running gateway: its application, and what stands behind it."""

    def __init__(
        self, *, app: GatewayApp, switch: Switch, metrics: Metrics, log: LogWriter, first_run: FirstRun | None
    ) -> None:
        self.app = app
        self.switch = switch
        self.metrics = metrics
        self.log = log
        self.first_run = first_run

    def __repr__(self) -> str:
        return f"Gateway(draining={self.app.draining}, in_flight={self.in_flight})"

    @property
    def in_flight(self) -> int:
        """Requests being served."""
        return self.switch.pipeline.in_flight


@asynccontextmanager
async def open_gateway(
    configuration: Configuration,
    environment: Environment,
    *,
    base_url: str,
    log: LogWriter,
    prepared: Prepared | None = None,
    on_full_disk: Callable[[Space], Awaitable[None]],
) -> AsyncIterator[Gateway]:
    """Everything up and ready to serve; on the way out everything is settled and closed.

    ``on_full_disk`` is called where there is no room to start, and returns when there is.

    Raises DataDirTaken, ConfigurationError, StoreError: nothing is left running then.
    """
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        metrics = Metrics()
        states = States(metrics, log)
        data_dir = environment.data_dir.absolute()
        if prepared is None:
            stack.enter_context(hold_data_dir(data_dir))
        space = Space(data_dir, ballast_bytes=environment.ballast_bytes)
        if space.check(gives_up=False) is not None:
            await on_full_disk(space)
        if environment.redis and environment.database.startswith("sqlite"):
            log.warning("redis_without_postgresql", reason="limits are shared, the ledger is not")

        database = await Database.open(environment.database)
        stack.push_async_callback(database.close)
        first_run = None
        if prepared is None:
            await upgrade(database)
            first_run = await make_first_run(database, data_dir, base_url, clock.now_ms())

        slot = _take_slot(stack, data_dir, metrics, prepared)
        accounts, owners = await open_hot_state(stack, environment, database, slot, log, states)
        journal, writer = await open_ledger(stack, database, slot, space, accounts, metrics, log, states)
        await accounts.start()
        refusals = RefusalLog(database, clock)
        refusals.start()
        stack.push_async_callback(refusals.close)

        peers = Peers(configuration.server.trusted_proxies)
        cache = await open_cache(stack, environment, configuration, database, metrics, log, states)
        set_prices = SetPrices(log)
        upstreams = Upstreams(data_dir, prepared.simulator_socket if prepared is not None else None)
        stack.push_async_callback(upstreams.close)
        authenticator = await _open_people(
            stack, database, clock, peers, accounts, states, cache, set_prices, upstreams
        )

        # The app is there by the time that anybody looks.
        live = await open_live(stack, environment, database, slot, lambda: app.draining)
        ownership = Ownership(database, owners)
        pools, off = await upstreams.open(configuration, {})
        catalog, prices = compiled(configuration, pools, off, set_prices.overrides)
        _start_folding(stack, database, journal, clock, log, slot)
        sweep = _start_sweep(stack)

        background = Background(clock, log, lambda: switch.pools)
        books = Books(journal, writer, ownership)
        state = await open_state(
            stack, environment, configuration, database, clock, metrics, log, lambda: switch.configuration
        )
        parts = Parts(
            configuration=configuration,
            authenticator=authenticator,
            ownership=ownership,
            catalog=catalog,
            pools=pools,
            refusals=refusals,
            prices=prices,
            estimates=Estimates(),
            journal=journal,
            desk=Desk(clock, books, accounts, metrics, log, Drains(), live.board, background, state.turns),
            sweep=sweep,
            cache=cache,
            default_families=ON_BY_DEFAULT,
            match_in_batch=match_in_batch,
        )
        switch = _open_switch(stack, parts, upstreams, off, set_prices, state)
        _start_background(stack, background, Awaiting(database, clock, journal, writer, log, lambda: switch.parts))
        alerts = open_alerts(stack, database, switch, metrics, log)
        app = GatewayApp(
            switch.pipeline,
            control_plane(
                environment, switch, database=database, peers=peers, accounts=accounts, live=live, alerts=alerts
            ),
            settings=configuration.server,
            peers=peers,
            readiness=lambda: _failing(app, states, accounts),
            clock=clock,
            metrics=metrics,
            log=log,
        )
        switch.connect(app)
        _watch(metrics, switch, journal, writer, space, _start_watchdog(stack, log))
        _watch_more(metrics, live, background)
        yield Gateway(app=app, switch=switch, metrics=metrics, log=log, first_run=first_run)


async def _open_people(
    stack: AsyncExitStack,
    database: Database,
    clock: Clock,
    peers: Peers,
    accounts: Shared | Alone,
    states: States,
    cache: ResponseCache,
    set_prices: SetPrices,
    upstreams: Upstreams,
) -> Authenticator:
    authenticator = Authenticator(
        database,
        clock,
        on_state=states.reporter("ledger_reads"),
        on_cache_clears=cache.clears.take,
        on_prices=set_prices.take,
        on_pauses=upstreams.pause,
        is_trusted_proxy=peers.is_trusted,
    )
    await authenticator.start()
    stack.push_async_callback(authenticator.close)
    if isinstance(accounts, Shared):
        accounts.know_teams(authenticator.team_ids)
    return authenticator


def _watch_more(metrics: Metrics, live: LiveFeed, background: Background) -> None:
    metrics.watch("headgate_live_viewers", "Who watches the live feed.", lambda: live.viewers)
    metrics.watch(
        "headgate_background_responses", "Responses that go on after their answer.", lambda: background.running
    )


def _start_watchdog(stack: AsyncExitStack, log: LogWriter) -> Watchdog:
    watchdog = Watchdog(log)
    watchdog.start()
    stack.callback(watchdog.close)
    return watchdog


def _start_background(stack: AsyncExitStack, background: Background, awaiting: Awaiting) -> None:
    """What is still to be known when the gateway ends is handed on, before journal and ledger are closed."""
    background.start()
    stack.push_async_callback(background.close)
    awaiting.start()
    stack.push_async_callback(awaiting.close)


def _open_switch(
    stack: AsyncExitStack, parts: Parts, upstreams: Upstreams, off: frozenset[str], set_prices: SetPrices, state: State
) -> Switch:
    switch = Switch(parts, upstreams, off, set_prices, state.make_ready)
    stack.push_async_callback(switch.close)
    set_prices.follow(switch.put_prices_in_force)
    stack.push_async_callback(set_prices.close)
    return switch


def _start_sweep(stack: AsyncExitStack) -> Sweep:
    sweep = Sweep()
    sweep.start()
    stack.push_async_callback(sweep.close)
    return sweep


def _start_folding(
    stack: AsyncExitStack, database: Database, journal: Journal, clock: Clock, log: LogWriter, slot: Slot
) -> None:
    folding = Folding(database, clock, log, folds=slot.number == 0, behind_s=lambda: journal.oldest_pending_s)
    folding.start()
    stack.push_async_callback(folding.close)


def _take_slot(stack: AsyncExitStack, data_dir: Path, metrics: Metrics, prepared: Prepared | None) -> Slot:
    """The worker's place in the data dir: its journal, and where there are others the file of its metrics."""
    slot = take_slot(data_dir / JOURNAL)
    stack.callback(slot.release)
    if prepared is not None:
        shared = metrics.share(prepared.metrics_dir / f"slot-{slot.number}{SUFFIX}", SystemClock())
        shared.start()
        stack.callback(shared.close)
    return slot


def _failing(app: GatewayApp, states: States, accounts: Shared | Alone) -> list[str]:
    """What keeps new requests out. The ledger may be away: the journal keeps what it is owed. So may Redis, once
    it has been there: requests that no strict limit binds go on, and no other replica could do more.
    """
    failing = ["draining"] if app.draining else []
    if states.is_down("journal"):
        failing.append("journal")
    if isinstance(accounts, Shared) and not (accounts.has_opened and states.has_been_up("redis")):
        failing.append("limits")
    return failing


def _watch(
    metrics: Metrics, switch: Switch, journal: Journal, writer: LedgerWriter, space: Space, watchdog: Watchdog
) -> None:
    metrics.watch("headgate_in_flight", "Requests being served.", lambda: switch.pipeline.in_flight)
    metrics.watch("headgate_streams_open", "Event streams being passed on.", lambda: switch.streams_open)
    metrics.watch(
        "headgate_journal_records",
        "Requests that run, and records on their way to the ledger.",
        lambda: journal.records_pending,
    )
    metrics.watch(
        "headgate_journal_oldest_seconds",
        "Age of the oldest of them.",
        lambda: journal.oldest_pending_s,
        over_workers="max",
    )
    metrics.watch(
        "headgate_ledger_lag_seconds",
        "How long ago the oldest request ended whose record is not in the ledger.",
        lambda: writer.lag_s,
        over_workers="max",
    )
    metrics.watch(
        "headgate_disk_free_bytes",
        "Room on the disk of the data dir.",
        lambda: space.last_free_bytes,
        over_workers="min",
    )
    metrics.watch(
        "headgate_upstream_up",
        "0 after a connection to the upstream could not be made, until one could.",
        lambda: [(name, float(pool.reachable)) for name, pool in switch.pools.items()],
        label="upstream",
        over_workers="min",
    )
    metrics.watch(
        "headgate_upstream_circuit",
        "Whether the upstream is left alone because it fails: 0 no, 1 it is being tried, 2 yes.",
        lambda: [(name, CIRCUIT[pool.breaker.state]) for name, pool in switch.pools.items()],
        label="upstream",
        over_workers="max",
    )
    metrics.watch(
        "headgate_upstream_resting",
        "1 while it is passed over because it asked to be called later, be it with one model.",
        lambda: [(name, float(pool.breaker.rests)) for name, pool in switch.pools.items()],
        label="upstream",
        over_workers="max",
    )
    metrics.watch(
        "headgate_upstream_paused",
        "1 while an administrator has it paused.",
        lambda: [(name, float(pool.breaker.is_paused)) for name, pool in switch.pools.items()],
        label="upstream",
        over_workers="max",
    )
    metrics.watch(
        "headgate_loop_lag_seconds",
        "The longest that the event loop was late in the last half minute.",
        lambda: watchdog.lag_s,
        over_workers="max",
    )
