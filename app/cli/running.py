"""One run of the server: from the bound socket to the last settled request, alone or as one of several workers."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import uvicorn

from app.cli.output import sentence_of
from app.edge.accepting import Adopter, Board, SharedListener
from app.edge.cycle import App
from app.edge.server import HardenedProtocol, ServerLimits, server_config
from app.edge.waiting import wait_for_room
from app.ledger.space import Space
from app.main import DataDirTaken, Gateway, Prepared, open_gateway
from app.settings import Configuration, ConfigurationError, Environment, ServerSettings
from app.store.errors import StoreError
from app.telemetry.logs import LogWriter

CUT_POLL_S = 0.02
CUT_POLLS_MAX = 100
KEPT_S = 5.0
ROOM_POLL_S = 1.0
COLLECTOR_THRESHOLDS = (20_000, 20, 50)


class Certificate(msgspec.Struct, frozen=True):
    """Files, PEM."""

    chain: Path
    key: Path


class Seat(msgspec.Struct, frozen=True):
    """A worker's place among the others."""

    prepared: Prepared
    board: Board
    cell: int


class _Stopped(Exception):
    """Asked to stop before there was anything to drain."""


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the drain is ours."""

    def __init__(self, config: uvicorn.Config, seat: Seat | None) -> None:
        super().__init__(config)
        self._seat = seat

    @property
    def protocol(self) -> type[HardenedProtocol]:
        """What connections are made of."""
        protocol = self.config.http
        if not (isinstance(protocol, type) and issubclass(protocol, HardenedProtocol)):
            raise TypeError("the server was not made by server_config")
        return protocol

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Where several workers have the listener, each takes its share of the connections."""
        if self._seat is None or sockets is None:
            await super().startup(sockets)
            return
        await self.lifespan.startup()
        adopter, seat = self._adopter(), self._seat
        shared = [
            SharedListener(
                listener, adopter, board=seat.board, cell=seat.cell, connections=self.server_state.connections
            )
            for listener in sockets
        ]
        self.servers = shared  # type: ignore[assignment] # what uvicorn asks of them they have
        for one in shared:
            one.start()
        self.started = True

    def _adopter(self) -> Adopter:
        def make_protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg] # as uvicorn makes it
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        return Adopter(make_protocol, self.config.ssl)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Who has connected before the listener closes is served; what the end of the grace has cut has still
        to settle, and to tell its client.
        """
        rest = self._adopter()
        for listener in sockets or ():
            rest.accept_rest(listener)
        await super().shutdown(sockets)
        await rest.wait()
        state = self.server_state
        for _ in range(CUT_POLLS_MAX):
            if not (state.tasks or state.connections):
                break
            await asyncio.sleep(CUT_POLL_S)


class Run:
    """Signals, the drain, and the configuration in force."""

    def __init__(
        self,
        configuration: Configuration,
        environment: Environment,
        listener: socket.socket,
        log: LogWriter,
        *,
        base_url: str,
        certificate: Certificate | None,
        on_ready: Callable[[Gateway], None],
        seat: Seat | None = None,
    ) -> None:
        """``on_ready`` is called once requests are served."""
        self._configuration = configuration
        self._environment = environment
        self._listener = listener
        self._log = log
        self._base_url = base_url
        self._tls = (
            {} if certificate is None else {"ssl_certfile": str(certificate.chain), "ssl_keyfile": str(certificate.key)}
        )
        self._on_ready = on_ready
        self._seat = seat
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self._gateway: Gateway | None = None
        self._server_now: _Server | None = None

    async def run(self) -> None:
        """Until it is told to stop and all is settled. Raises what ``open_gateway`` raises."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, number)
        with suppress(_Stopped):
            async with open_gateway(
                self._configuration,
                self._environment,
                base_url=f"{self._base_url}/v1",
                log=self._log,
                prepared=self._seat.prepared if self._seat is not None else None,
                on_full_disk=self._wait_for_room,
            ) as gateway:
                self._gateway = gateway
                server = self._server_now = self._server(gateway.app, gateway)
                _settle_collector()
                serving = loop.create_task(server.serve(sockets=[self._listener]))
                self._on_ready(gateway)
                stopping = loop.create_task(self._stopping.wait())
                await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                await self._drain(gateway, server)
                # What comes on a connection that was kept is still served, and after a while sent elsewhere.
                await asyncio.wait({serving}, timeout=KEPT_S)
                gateway.app.closed = True
                await serving

    def stop(self, number: int) -> None:
        """What a signal asks for: SIGTERM to drain, SIGINT to drain in a hurry, a second SIGINT to cut."""
        # A person at the keyboard does not wait for a load balancer.
        if number == signal.SIGINT:
            if self._stopping.is_set() and self._server_now is not None:
                # Asked twice: what runs is cut and settled now.
                for task in list(self._server_now.server_state.tasks):
                    task.cancel()
            self._hurried.set()
        self._stopping.set()

    async def reload(self, configuration: Configuration) -> None:
        """Puts ``configuration`` in force. Raises what making its parts raises: nothing has changed then."""
        gateway, server = self._gateway, self._server_now
        if gateway is None or server is None:
            raise RuntimeError("there is no gateway yet")
        await gateway.switch.put_in_force(configuration)
        self._configuration = configuration
        # The class that connections are of: what they read from now on is held against the new limits.
        server.protocol.limits = _server_limits(configuration.server)
        server.config.timeout_graceful_shutdown = _grace_s(configuration.server)

    def _server(self, app: App, gateway: Gateway | None) -> _Server:
        config = server_config(
            app,
            _server_limits(self._configuration.server),
            on_refused=gateway.app.refused if gateway is not None else None,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=_grace_s(self._configuration.server),
            **self._tls,
        )
        return _Server(config, self._seat)

    async def _wait_for_room(self, space: Space) -> None:
        """Answers that it is not ready until the disk has room. Nothing in the data dir is touched meanwhile."""
        self._log.error("disk_full", reason=space.check(gives_up=False))
        server = self._server(wait_for_room, None)
        server.config.timeout_graceful_shutdown = 1
        serving = asyncio.create_task(server.serve(sockets=[self._listener.dup()]))
        try:
            while await asyncio.to_thread(space.check, gives_up=False) is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(ROOM_POLL_S):
                        await self._stopping.wait()
                if self._stopping.is_set():
                    raise _Stopped
        finally:
            server.should_exit = True
            await serving
        self._log.info("disk_has_room")

    async def _drain(self, gateway: Gateway, server: _Server) -> None:
        """Not ready at once, accepting for a little longer, then what runs runs to its end."""
        gateway.app.draining = True
        self._log.info("draining", in_flight=gateway.in_flight)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._configuration.server.drain_delay_s):
                await self._hurried.wait()
        server.should_exit = True


def why_it_ended(error: Exception) -> str:
    """A sentence for whoever started it."""
    if isinstance(error, StoreError | ConfigurationError | DataDirTaken):
        return sentence_of(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror}"
    # A bug: its type and place, since its text may quote a secret.
    trace = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(trace.filename).name}:{trace.lineno}"


def _settle_collector() -> None:
    """Requests leave next to no cycles behind; what start-up has made stays, and need not be walked again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def _grace_s(settings: ServerSettings) -> int:
    return max(1, round(settings.drain_s_max))


def _server_limits(settings: ServerSettings) -> ServerLimits:
    return ServerLimits(
        head_timeout_s=settings.head_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        keepalive_timeout_s=settings.keepalive_timeout_s,
        slow_client_s=settings.slow_client_s,
        body_bytes_max=max(settings.body_bytes_max, settings.upload_bytes_max),
    )
