"""``headgate serve --workers N``: one process that starts the others, passes signals on, and brings back the dead.

It binds, holds the data dir, migrates and makes the first run once; it serves nothing itself. Workers are
started with exec. Each has a channel to its supervisor, whose end tells a worker that nobody is left to
wait for: it then drains, so that nothing keeps the port.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress

from prometheus_client import CollectorRegistry, Counter

from app.cli.announcing import announce
from app.cli.channel import Begin
from app.cli.processes import Child
from app.cli.reloading import Reloader
from app.cli.running import Certificate
from app.core.clock import SystemClock
from app.edge.accepting import Board
from app.ledger.space import Space
from app.main import FirstRun, empty_metrics_dir, hold_data_dir, prepare, simulator_socket
from app.settings import Configuration, ConfigurationError, ConfigurationFile, Environment
from app.telemetry.logs import LogWriter
from app.telemetry.shared import SharedMetrics

RESTART_DELAY_MIN_S = 0.1
RESTART_DELAY_MAX_S = 10.0
STEADY_S = 30.0
"""Who has run for as long is brought back at once; else the pause doubles."""
RELOAD_TIMEOUT_S = 10.0
SETTLE_S_MAX = 20.0
"""How long a worker may take for its books after the last of its requests was cut."""
SIMULATOR_START_S_MAX = 30.0
SIMULATOR_RESTART_DELAY_S = 1.0
SIMULATOR_END_S_MAX = 5.0


class CannotStart(Exception):
    """A worker could not; the text is its sentence."""


class Supervisor:
    """The workers of one gateway, and the simulator where an upstream is one."""

    def __init__(
        self,
        configuration: Configuration,
        raw: bytes,
        file: ConfigurationFile,
        environment: Environment,
        listener: socket.socket,
        log: LogWriter,
        *,
        base_url: str,
        certificate: Certificate | None,
    ) -> None:
        self._configuration = configuration
        self._raw = raw
        self._file = file
        self._environment = environment
        self._listener = listener
        self._log = log
        self._base_url = base_url
        self._certificate = certificate
        self._data_dir = environment.data_dir.absolute()
        self._registry = CollectorRegistry()
        self._restarts = Counter("headgate_worker_restarts", "Workers brought back.", registry=self._registry)
        self._reloads = Counter(
            "headgate_configuration_reloads",
            "Changed configurations, by whether they are in force now.",
            ("result",),
            registry=self._registry,
        )
        self._board = Board.create(environment.workers)
        self._workers: dict[int, Child] = {}
        self._keepers: set[asyncio.Task[None]] = set()
        self._simulator: asyncio.Task[None] | None = None
        self._simulator_now: Child | None = None
        self._ready: set[int] = set()
        self._started = asyncio.Event()
        self._simulating = asyncio.Event()
        self._stopping = asyncio.Event()
        self._asked: int | None = None
        self._failure: str | None = None
        self._settled = True
        self._begin = Begin("", "", "", "", "")
        # A pipe that ends when this process and all workers have: for that the simulator waits.
        self._alive: list[int] = []

    def __repr__(self) -> str:
        return f"Supervisor(workers={sorted(self._workers)}, stopping={self._stopping.is_set()})"

    async def run(self) -> int:
        """Until it is told to stop; the exit code. Raises CannotStart, DataDirTaken, StoreError, OSError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        async with AsyncExitStack() as stack:
            stack.callback(self._board.close)
            stack.enter_context(hold_data_dir(self._data_dir))
            # Once, before the workers would try all at the same time. Where there is no room, they wait for it.
            Space(self._data_dir, ballast_bytes=self._environment.ballast_bytes).check(gives_up=False)
            first_run = await prepare(self._environment, f"{self._base_url}/v1")
            metrics_dir = empty_metrics_dir(self._data_dir)
            metrics = SharedMetrics(self._registry, metrics_dir / "supervisor.json", {}, SystemClock())
            metrics.start()
            stack.callback(metrics.close)
            self._begin = Begin(
                configuration=self._raw.decode(),
                path=str(self._file.path),
                base_url=self._base_url,
                metrics_dir=str(metrics_dir),
                simulator_socket=str(simulator_socket(stack, self._data_dir)),
            )
            self._alive = stack.enter_context(_pipe())
            try:
                await self._start()
                if self._started.is_set():
                    await self._serve(first_run)
            finally:
                if not self._stopping.is_set():
                    self._stop(signal.SIGINT)
                await self._end()
        if self._failure is not None:
            raise CannotStart(self._failure)
        return 0 if self._settled else 1

    # -- starting -----------------------------------------------------------------------------

    async def _start(self) -> None:
        """Returns when all serve, or when it is to end again."""
        simulator = asyncio.create_task(self._start_simulator()) if _has_simulator(self._configuration) else None
        for cell in range(self._environment.workers):
            keeper = asyncio.create_task(self._keep(cell), name=f"worker {cell}")
            keeper.add_done_callback(self._kept)
            self._keepers.add(keeper)
        await _first_of(self._started, self._stopping)
        if simulator is not None:
            try:
                await simulator
            except TimeoutError:
                self._fail("the simulator does not answer")

    async def _serve(self, first_run: FirstRun | None) -> None:
        """Until it is told to stop."""
        loop = asyncio.get_running_loop()
        reloader = Reloader(self._file, self._put_in_force, self._log, self._reloads)
        loop.add_signal_handler(signal.SIGHUP, reloader.ask)
        announce(
            self._log,
            self._configuration,
            self._base_url,
            workers=self._environment.workers,
            first_run=first_run,
            data_dir=self._environment.data_dir,
        )
        reloading = loop.create_task(reloader.run())
        await self._stopping.wait()
        reloading.cancel()

    async def _keep(self, cell: int) -> None:
        """One worker's place: whoever dies in it is brought back."""
        delay_s = 0.0
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began_s = loop.time()
            try:
                child = self._workers[cell] = await self._spawn(cell)
            except OSError as error:
                if not self._started.is_set():
                    raise
                # No memory or no process to be had: the others go on meanwhile.
                self._log.error("worker_not_started", worker=cell, reason=error.strerror)
                await self._pause(RESTART_DELAY_MAX_S)
                continue
            if self._asked is not None:
                child.signal(self._asked)
            if await child.started():
                await self._is_ready(cell, child)
            ending = await child.ended()
            self._board.close_cell(cell)
            self._ready.discard(cell)
            del self._workers[cell]
            if self._stopping.is_set():
                self._settled = self._settled and child.is_settled
                return
            if not self._started.is_set():
                self._fail(child.sentence or f"a worker ended with {ending} before it was ready")
                return
            steady = loop.time() - began_s > STEADY_S
            delay_s = RESTART_DELAY_MIN_S if steady else min(max(2 * delay_s, RESTART_DELAY_MIN_S), RESTART_DELAY_MAX_S)
            self._restarts.inc()
            self._log.error(
                "worker_died", worker=cell, pid=child.pid, ended=ending, reason=child.sentence, again_in_s=delay_s
            )
            await self._pause(delay_s)

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        """One that cannot even be made when the gateway starts, or a bug, ends all of it."""
        error = keeper.exception()
        if isinstance(error, OSError):
            self._fail(f"a worker cannot be started: {error.strerror}")
        elif error is not None:
            self._fail(f"{type(error).__name__} in the supervisor")

    async def _spawn(self, cell: int) -> Child:
        listener, board, alive = self._listener.fileno(), self._board.descriptor, self._alive[1]
        arguments = [
            *("serve-worker", "--listener", str(listener), "--board", str(board)),
            *("--workers", str(self._environment.workers), "--number", str(cell)),
        ]
        if self._certificate is not None:
            arguments += ["--tls-cert", str(self._certificate.chain), "--tls-key", str(self._certificate.key)]
        return await Child.start(arguments, (listener, board, alive), self._environ(), self._begin)

    def _environ(self) -> dict[str, str]:
        """What flags have said, as variables."""
        return {
            "HEADGATE_HOST": self._environment.host,
            "HEADGATE_PORT": str(self._environment.port),
            "HEADGATE_DATA_DIR": str(self._data_dir),
        }

    async def _is_ready(self, cell: int, child: Child) -> None:
        self._ready.add(cell)
        if len(self._ready) == self._environment.workers:
            self._started.set()
        if self._asked is not None:
            child.signal(self._asked)
        elif child.begin is not self._begin:
            # The configuration has changed while it started.
            refusal = await self._reload(cell, child)
            if refusal is not None:
                self._log.error("configuration_refused", reason=refusal)

    def _fail(self, sentence: str) -> None:
        """It cannot go on: all of it ends."""
        if self._failure is None:
            self._failure = sentence
        self._stop(signal.SIGINT)

    async def _start_simulator(self) -> None:
        """Returns when it serves, or when all of it is to end. TimeoutError."""
        if self._simulator is None:
            self._simulator = asyncio.create_task(self._keep_simulator(), name="simulator")
            self._simulator.add_done_callback(self._kept)
        async with asyncio.timeout(SIMULATOR_START_S_MAX):
            await _first_of(self._simulating, self._stopping)

    async def _keep_simulator(self) -> None:
        """It ends by itself when no worker is left."""
        while not self._stopping.is_set():
            arguments = ("serve-simulator", "--socket", self._begin.simulator_socket, "--alive", str(self._alive[0]))
            try:
                child = self._simulator_now = await Child.start(arguments, (self._alive[0],), {})
            except OSError as error:
                if not self._started.is_set():
                    raise
                self._log.error("simulator_not_started", reason=error.strerror)
                await self._pause(RESTART_DELAY_MAX_S)
                continue
            if await child.started():
                self._simulating.set()
            ending = await child.ended()
            if self._stopping.is_set():
                return
            if not self._simulating.is_set() and not self._started.is_set():
                self._fail(child.sentence or f"the simulator ended with {ending} before it was ready")
                return
            self._log.error("simulator_died", pid=child.pid, ended=ending, reason=child.sentence)
            await self._pause(SIMULATOR_RESTART_DELAY_S)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    # -- a changed configuration --------------------------------------------------------------

    async def _put_in_force(self, raw: bytes, configuration: Configuration) -> None:
        if not self._simulating.is_set() and _has_simulator(configuration):
            await self._start_simulator()
        self._configuration = configuration
        before = self._begin
        self._begin = Begin(
            configuration=raw.decode(),
            path=before.path,
            base_url=before.base_url,
            metrics_dir=before.metrics_dir,
            simulator_socket=before.simulator_socket,
        )
        refusals = await asyncio.gather(*(self._reload(cell, child) for cell, child in list(self._workers.items())))
        for refusal in refusals:
            if refusal is not None:
                raise ConfigurationError(refusal)

    async def _reload(self, cell: int, child: Child) -> str | None:
        """A worker that starts is told later; one that has died starts with what is in force."""
        if cell not in self._ready:
            return None
        refusal = await child.reload(self._begin, RELOAD_TIMEOUT_S)
        return None if refusal is None else f"worker {cell}: {refusal}"

    # -- ending -------------------------------------------------------------------------------

    def _stop(self, number: int) -> None:
        """SIGTERM and SIGINT mean to every worker what they mean to one alone."""
        self._asked = number
        self._stopping.set()
        # The workers have it too; who stops last closes it.
        self._listener.close()
        for child in self._workers.values():
            child.signal(number)

    async def _end(self) -> None:
        """Waits for the workers, and no longer than a drain may take."""
        server = self._configuration.server
        if self._keepers:
            _, late = await asyncio.wait(
                self._keepers, timeout=server.drain_delay_s + server.drain_s_max + SETTLE_S_MAX
            )
            for cell, child in list(self._workers.items()):
                self._log.error("worker_killed", worker=cell, pid=child.pid)
                child.signal(signal.SIGKILL)
            if late:
                await asyncio.wait(late)
        os.close(self._alive.pop())
        if self._simulator is not None:
            _, late = await asyncio.wait({self._simulator}, timeout=SIMULATOR_END_S_MAX)
            if late and self._simulator_now is not None:
                self._simulator_now.signal(signal.SIGKILL)
                await asyncio.wait(late)


@contextmanager
def _pipe() -> Iterator[list[int]]:
    ends = list(os.pipe())
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


async def _first_of(*events: asyncio.Event) -> None:
    """Waits until one of them is set."""
    waits = {asyncio.create_task(event.wait()) for event in events}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _has_simulator(configuration: Configuration) -> bool:
    return any(upstream.kind == "simulator" for upstream in configuration.upstreams.values())
