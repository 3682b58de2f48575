"""The composition root: the only file that names every part.

``Gateway.open`` brings the parts up in the order in which they need one another; ``close`` takes them
down in reverse, settling everything on the way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from app.admin.app import create_control_plane
from app.auth.authenticator import Authenticator
from app.auth.keys import ADMIN_PREFIX, mint
from app.auth.ownership import Ownership
from app.catalog import Catalog
from app.core.clock import SystemClock
from app.core.records import Attempt, OwnedObject, Record
from app.edge.peers import Peers
from app.edge.plane import Gateway as GatewayApp
from app.ledger.journal import Journal
from app.ledger.recovery import recover
from app.ledger.slots import take_slot
from app.ledger.writer import LedgerWriter
from app.limits.limiter import Limiter
from app.limits.memory import MemoryLimiter
from app.limits.redis import RedisLimiter
from app.metering.estimates import Estimates
from app.metering.pricing import PriceBook
from app.pipeline import Desk, Drains, Parts, Pipeline
from app.settings import Configuration, ConfigurationError, Environment
from app.simulator.app import Simulator
from app.simulator.log import ServedLog
from app.simulator.server import running_simulator
from app.store.admin_tokens import create_admin_token
from app.store.database import Database
from app.store.keys import create_key
from app.store.migrate import upgrade
from app.store.redis import RedisClient
from app.store.shared_owners import SharedOwners
from app.store.teams import create_team, list_teams
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics
from app.upstream.pool import UpstreamPool
from app.upstream.watch import Sweep

CLOSE_TIMEOUT_S = 10.0
SERVED_LOG_ENTRIES_MAX = 10_000
SIMULATOR_SOCKET = "simulator.sock"
FIRST_RUN = "first-run.json"
SOCKET_PATH_CHARS_MAX = 100


class DataDirTaken(Exception):
    """Another gateway runs on this data dir."""


class FirstRun(msgspec.Struct, frozen=True):
    """What the first start made: shown once, and kept in a file that only its owner can read."""

    team: str
    key: str
    admin_token: str
    base_url: str

    def __repr__(self) -> str:
        return f"FirstRun(team={self.team!r}, base_url={self.base_url!r})"


class Books:
    """Journal, ledger and owners behind one door, in the order that loses nothing."""

    def __init__(self, journal: Journal, writer: LedgerWriter, ownership: Ownership) -> None:
        self._journal = journal
        self._writer = writer
        self._ownership = ownership

    def attempt(self, request_id: str, attempt: Attempt) -> None:
        self._journal.attempt(request_id, attempt)

    def seen(self, owned: OwnedObject) -> None:
        self._ownership.remember(owned)
        self._journal.seen(owned)
        self._writer.remember(owned)

    def close(self, record: Record) -> None:
        self._journal.close(record)

    def submit(self, record: Record) -> None:
        self._writer.submit(record)


class States:
    """Which dependencies answer: told once for each change, to the log, the metrics and the readiness."""

    def __init__(self, metrics: Metrics, log: LogWriter) -> None:
        self._metrics = metrics
        self._log = log
        self._down: set[str] = set()

    def __repr__(self) -> str:
        return f"States(down={sorted(self._down)})"

    def is_down(self, dependency: str) -> bool:
        return dependency in self._down

    def reporter(self, dependency: str) -> Callable[[bool, str], None]:
        """The callback through which ``dependency`` tells about itself."""
        self._metrics.degraded.labels(dependency).set(0)

        def report(up: bool, reason: str) -> None:  # noqa: FBT001 - the callback's shape
            was_down = dependency in self._down
            self._metrics.degraded.labels(dependency).set(0 if up else 1)
            if up:
                self._down.discard(dependency)
                if was_down:
                    self._log.info("dependency_up", dependency=dependency)
            else:
                self._down.add(dependency)
                self._log.error("dependency_down", dependency=dependency, reason=reason)

        return report


class Gateway:
    """One running gateway: its application, and what stands behind it."""

    def __init__(self, *, app: GatewayApp, pipeline: Pipeline, metrics: Metrics, log: LogWriter) -> None:
        self.app = app
        self.pipeline = pipeline
        self.metrics = metrics
        self.log = log
        self.draining = False
        self.first_run: FirstRun | None = None
        self.notices: list[str] = []

    def __repr__(self) -> str:
        return f"Gateway(draining={self.draining}, in_flight={self.pipeline.in_flight})"


@asynccontextmanager
async def open_gateway(
    configuration: Configuration, environment: Environment, *, base_url: str, log: LogWriter
) -> AsyncIterator[Gateway]:
    """Everything up and ready to serve; on the way out everything is settled and closed.

    Raises DataDirTaken, ConfigurationError, StoreError: nothing is left running then.
    """
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        metrics = Metrics()
        states = States(metrics, log)
        data_dir = environment.data_dir.absolute()
        stack.enter_context(hold_data_dir(data_dir))
        if environment.redis and environment.database.startswith("sqlite"):
            log.warning("redis_without_postgresql", reason="limits are shared, the ledger is not")

        database = await Database.open(environment.database)
        stack.push_async_callback(database.close)
        await upgrade(database)
        first_run = await _first_run(database, data_dir, base_url, clock.now_ms())

        journal, writer = await _open_ledger(stack, database, data_dir, metrics, log, states)

        peers = Peers(configuration.server.trusted_proxies)
        authenticator = Authenticator(
            database,
            clock,
            on_state=states.reporter("ledger_reads"),
            is_trusted_proxy=peers.is_trusted,
        )
        await authenticator.start()
        stack.push_async_callback(authenticator.close)

        limiter, owners = await _open_hot_state(stack, environment, states)
        ownership = Ownership(database, owners)
        pools, off = await _open_upstreams(stack, configuration, data_dir)
        sweep = Sweep()
        sweep.start()
        stack.push_async_callback(sweep.close)

        pipeline = Pipeline(
            Parts(
                configuration=configuration,
                authenticator=authenticator,
                ownership=ownership,
                catalog=Catalog(configuration, off=off),
                pools=pools,
                limiter=limiter,
                prices=PriceBook(configuration.prices, {name: pool.base_url for name, pool in pools.items()}),
                estimates=Estimates(),
                journal=journal,
                desk=Desk(clock, Books(journal, writer, ownership), limiter, metrics, log, Drains()),
                sweep=sweep,
            )
        )
        token = environment.metrics_token
        app = GatewayApp(
            pipeline,
            create_control_plane(
                metrics, host=environment.host, metrics_token=token.get_secret_value() if token else None
            ),
            settings=configuration.server,
            readiness=lambda: _failing(gateway, states),
            clock=clock,
            metrics=metrics,
            log=log,
        )
        gateway = Gateway(app=app, pipeline=pipeline, metrics=metrics, log=log)
        gateway.first_run = first_run
        gateway.notices = [f"the upstream {name!r} is off: it has no key" for name in sorted(off)]
        _watch(metrics, pipeline, journal, pools)
        yield gateway


def _failing(gateway: Gateway, states: States) -> list[str]:
    """What keeps new requests out. The ledger may be away: the journal keeps what it is owed."""
    failing = ["draining"] if gateway.draining else []
    return [*failing, "journal"] if states.is_down("journal") else failing


@contextlib.contextmanager
def hold_data_dir(data_dir: Path) -> Iterator[None]:
    """The data dir, made with mode 0700 and locked for this process. Raises DataDirTaken."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if stat.S_IMODE(data_dir.stat().st_mode) & 0o077 and data_dir.stat().st_uid == os.getuid():
        data_dir.chmod(0o700)
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataDirTaken(f"another gateway runs on {data_dir}") from error
        yield
    finally:
        os.close(descriptor)


async def _first_run(database: Database, data_dir: Path, base_url: str, now_ms: int) -> FirstRun | None:
    """On an empty ledger: a team, a key and an admin token, so that a first request works at once."""
    key, token = mint(), mint(ADMIN_PREFIX)
    async with database.transaction() as connection:
        if await list_teams(connection):
            return None
        team = await create_team(connection, name="default", now_ms=now_ms)
        await create_key(
            connection, team_id=team.id, name="default", secret_id=key.id, digest=key.digest, now_ms=now_ms
        )
        await create_admin_token(connection, name="first-run", role="admin", digest=token.digest, now_ms=now_ms)
        made = FirstRun(team=team.name, key=key.text, admin_token=token.text, base_url=base_url)
        # Written before the commit: a key that nobody was shown would be of no use to anybody.
        path = data_dir / FIRST_RUN
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    return made


async def _open_ledger(
    stack: AsyncExitStack, database: Database, data_dir: Path, metrics: Metrics, log: LogWriter, states: States
) -> tuple[Journal, LedgerWriter]:
    """What an earlier process left is in the ledger before anything new is taken."""
    clock = SystemClock()
    root = data_dir / "journal"
    slot = take_slot(root)
    stack.callback(slot.release)

    def on_poison(request_id: str, reason: str) -> None:
        metrics.ledger_writes.labels("poison").inc()
        log.error("ledger_row_refused", request_id=request_id, reason=reason)

    recovered = await recover(root, slot, database, clock, on_poison=on_poison)
    if recovered.segments:
        log.info("journal_recovered", **msgspec.structs.asdict(recovered))

    journal = Journal(slot, clock, on_state=states.reporter("journal"))
    stack.callback(journal.stop)

    def on_written(records: int, new: int) -> None:
        metrics.ledger_writes.labels("written").inc(new)
        metrics.ledger_writes.labels("known").inc(records - new)

    writer = LedgerWriter(
        database, journal, clock, on_state=states.reporter("ledger"), on_written=on_written, on_poison=on_poison
    )
    writer.start()
    stack.push_async_callback(_close_writer, writer, log)
    return journal, writer


async def _close_writer(writer: LedgerWriter, log: LogWriter) -> None:
    left = await writer.drain(CLOSE_TIMEOUT_S)
    if left:
        log.error("ledger_not_drained", records=left, kept_in="journal")
    await writer.stop()


async def _open_hot_state(
    stack: AsyncExitStack, environment: Environment, states: States
) -> tuple[Limiter, SharedOwners | None]:
    """Limits in memory, or in Redis where there is a URL."""
    if environment.redis is None:
        return MemoryLimiter(), None
    try:
        client = RedisClient(environment.redis, on_state=states.reporter("redis"))
    except ValueError as error:
        raise ConfigurationError(f"HEADGATE_REDIS_URL: {error}") from error
    await client.start()
    stack.push_async_callback(client.close)
    limiter = RedisLimiter(client)
    await limiter.start()
    stack.push_async_callback(limiter.close)
    return limiter, SharedOwners(client)


async def _open_upstreams(
    stack: AsyncExitStack, configuration: Configuration, data_dir: Path
) -> tuple[dict[str, UpstreamPool], frozenset[str]]:
    """The pools of all upstreams that can be used, the names of those that cannot; starts the simulator."""
    upstreams = configuration.upstreams
    off = frozenset(name for name, upstream in upstreams.items() if upstream.is_off)
    simulator_socket: Path | None = None
    if any(upstream.kind == "simulator" for upstream in upstreams.values()):
        simulator_socket = await _open_simulator(stack, data_dir)
    pools: dict[str, UpstreamPool] = {}
    for name, upstream in upstreams.items():
        if name not in off:
            pool = pools[name] = UpstreamPool(name, upstream, simulator_socket=simulator_socket)
            stack.push_async_callback(pool.close)
    return pools, off


async def _open_simulator(stack: AsyncExitStack, data_dir: Path) -> Path:
    path = data_dir / SIMULATOR_SOCKET
    if len(str(path)) > SOCKET_PATH_CHARS_MAX:
        # A socket's path has little room; a private folder of its own has a short one.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headgate-"))
        path = Path(folder) / SIMULATOR_SOCKET
    simulator = Simulator(log=ServedLog(entries_max=SERVED_LOG_ENTRIES_MAX))
    await stack.enter_async_context(running_simulator(simulator, uds=path))
    return path


def _watch(metrics: Metrics, pipeline: Pipeline, journal: Journal, pools: Mapping[str, UpstreamPool]) -> None:
    metrics.watch("headgate_in_flight", "Requests being served.", lambda: pipeline.in_flight)
    metrics.watch("headgate_streams_open", "Event streams being passed on.", lambda: pipeline.streams_open)
    metrics.watch("headgate_journal_records", "Records not yet in the ledger.", lambda: journal.records_pending)
    metrics.watch("headgate_journal_oldest_seconds", "Age of the oldest of them.", lambda: journal.oldest_pending_s)
    metrics.watch(
        "headgate_upstream_up",
        "0 after a connection to the upstream could not be made, until one could.",
        lambda: [(name, float(pool.reachable)) for name, pool in pools.items()],
        label="upstream",
    )
