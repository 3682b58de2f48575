"""Serves the simulator: inside a running event loop, or as a program of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Any

import msgspec
from uvicorn import Config, Server
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from app.simulator.app import Simulator
from app.simulator.channel import TRANSPORT_EXTENSION
from app.simulator.log import ServedLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 4100
START_S_MAX = 10
STOP_S_MAX = 1
"""How long running answers may take once the server is told to stop; then they are cancelled."""
KEEP_ALIVE_S = 75
BACKLOG = 2048
UDS_MODE = 0o600
FRAME_BYTES_MAX = 16 * 1024 * 1024
HANDSHAKE_REFUSAL: dict[str, dict[object, object]] = {"websocket.http.response": {}}


class Listening(msgspec.Struct, frozen=True):
    """Where the simulator accepts connections. Over a unix socket the host in ``base_url`` is a mere name."""

    base_url: str
    host: str | None = None
    port: int | None = None
    uds: str | None = None


class SimulatorProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with the transport in the scope (so that connections can be cut) and no access log."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT_EXTENSION: {"transport": self.transport}}


class SimulatorSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol on the parser of websockets, with the transport in the scope as above."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"] = {**HANDSHAKE_REFUSAL, TRANSPORT_EXTENSION: {"transport": self.transport}}

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            # A refusal is an answer to the handshake: uvicorn would complain that there was none.
            self.handshake_complete = True


class _GuestServer(Server):
    """A server in somebody else's event loop: the signals are not its own, and it says when it has started."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def running_simulator(
    simulator: Simulator, *, uds: Path | None = None, host: str | None = None, port: int | None = None
) -> AsyncIterator[Listening]:
    """Serve ``simulator`` for as long as the context lasts, on a unix socket or on TCP (port 0: any free one).

    Raises OSError if the address cannot be had. Connections are accepted when it yields.
    """
    listener = (
        _bind_unix(uds) if uds is not None else _bind_tcp(host or DEFAULT_HOST, DEFAULT_PORT if port is None else port)
    )
    inode = None if uds is None else uds.stat().st_ino  # noqa: ASYNC240 - one system call on a local directory
    server = _GuestServer(_config(simulator))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(START_S_MAX):
            await server.ready.wait()
        yield _listening(listener, uds)
    finally:
        server.should_exit = True
        await serving
        simulator.stop()
        if server.server_state.tasks:
            # Cancelled by now; they only have their log entries to close.
            await asyncio.wait(server.server_state.tasks, timeout=STOP_S_MAX)
        listener.close()
        if uds is not None:
            _remove_unix(uds, inode)


def run_simulator(
    host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, *, api_key: str | None = None, log_path: Path | None = None
) -> None:
    """Serve a simulator on TCP until SIGINT or SIGTERM. ``log_path``: where its log outlives it. Raises OSError."""
    simulator = Simulator(api_key=api_key, log=ServedLog(path=log_path))
    with asyncio.Runner(loop_factory=_config(simulator).get_loop_factory()) as runner:
        runner.run(_serve_until_signalled(simulator, host, port))


async def _serve_until_signalled(simulator: Simulator, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running_simulator(simulator, host=host, port=port):
        await stop.wait()


def _config(simulator: Simulator) -> Config:
    return Config(
        simulator,
        http=SimulatorProtocol,
        ws=SimulatorSocketProtocol,
        ws_max_size=FRAME_BYTES_MAX,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S_MAX,
        backlog=BACKLOG,
    )


def _bind_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        # Before it listens: nobody else can connect in between.
        path.chmod(UDS_MODE)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_unix(path: Path, inode: int | None) -> None:
    """Removes our own socket; one that another process has put in its place meanwhile stays."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()


def _bind_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def _listening(listener: socket.socket, uds: Path | None) -> Listening:
    if uds is not None:
        return Listening("http://simulator", uds=str(uds))
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return Listening(f"http://{shown}:{port}", host=host, port=port)
