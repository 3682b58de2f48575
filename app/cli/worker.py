"""The processes that ``headgate serve --workers N`` starts; nobody types these commands."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from app.cli.channel import Begin, Channel, Failed, Ready, Reload, Reloaded, receive_blocking
from app.cli.running import Certificate, Run, Seat, why_it_ended
from app.edge.accepting import Board
from app.main import Gateway, Prepared, new_simulator
from app.settings import ConfigurationError, Environment, parse_configuration
from app.simulator.server import running_simulator
from app.telemetry.logs import LogWriter, install_standard_logging

Inherited = Annotated[int, typer.Option(help="A descriptor.")]
Number = Annotated[int, typer.Option()]


def serve_worker(
    channel: Inherited,
    listener: Inherited,
    board: Inherited,
    workers: Number,
    number: Number,
    tls_cert: Annotated[Path | None, typer.Option()] = None,
    tls_key: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """One worker. It inherits a channel to its supervisor, the listener and the board."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end = socket.socket(fileno=channel)
    begin = receive_blocking(end)
    if not isinstance(begin, Begin):
        raise typer.Exit(1)
    environment = Environment.read()
    log = LogWriter(level=environment.log_level, style=environment.log_format, process=f"worker-{number}")
    install_standard_logging(log)
    log.start()
    work = _Work(
        begin,
        environment,
        log,
        listener=socket.socket(fileno=listener),
        seat=Seat(
            Prepared(metrics_dir=Path(begin.metrics_dir), simulator_socket=Path(begin.simulator_socket)),
            Board(board, workers),
            number,
        ),
        certificate=None if tls_cert is None or tls_key is None else Certificate(tls_cert, tls_key),
    )
    try:
        code = uvloop.run(work.run(end))
    finally:
        log.close()
    raise typer.Exit(code)


def serve_simulator(
    channel: Inherited, alive: Inherited, socket_path: Annotated[Path, typer.Option("--socket")]
) -> None:
    """The simulator of several workers. It ends when the last of them has: signals are not its own."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    environment = Environment.read()
    log = LogWriter(level=environment.log_level, style=environment.log_format, process="simulator")
    install_standard_logging(log)
    log.start()
    try:
        uvloop.run(_simulate(socket.socket(fileno=channel), alive, socket_path))
    finally:
        log.close()


async def _simulate(end: socket.socket, alive: int, path: Path) -> None:
    loop = asyncio.get_running_loop()
    alone = asyncio.Event()
    # Nobody writes to it: what can be read of it is its end.
    loop.add_reader(alive, alone.set)
    channel = await Channel.open(end)
    async with running_simulator(new_simulator(), uds=path):
        channel.send(Ready())
        await alone.wait()
    loop.remove_reader(alive)
    channel.close()


class _Work:
    """A worker's run, and what its supervisor tells it."""

    def __init__(
        self,
        begin: Begin,
        environment: Environment,
        log: LogWriter,
        *,
        listener: socket.socket,
        seat: Seat,
        certificate: Certificate | None,
    ) -> None:
        self._path = Path(begin.path)
        self._log = log
        self._cell = seat.cell
        self._channel: Channel | None = None
        self._run = Run(
            parse_configuration(begin.configuration.encode(), self._path),
            environment,
            listener,
            log,
            base_url=begin.base_url,
            certificate=certificate,
            on_ready=self._tell_ready,
            seat=seat,
        )

    async def run(self, end: socket.socket) -> int:
        """The exit code; why it is not 0 is told to the supervisor, who tells the world."""
        channel = self._channel = await Channel.open(end)
        listening = asyncio.create_task(self._listen(channel))
        try:
            await self._run.run()
        except Exception as error:  # noqa: BLE001 - also a bug is told in a sentence, by its type and place
            channel.send(Failed(why_it_ended(error)))
            return 1
        finally:
            listening.cancel()
            channel.close()
            await channel.closed()
        return 0

    def _tell_ready(self, _gateway: Gateway) -> None:
        self._log.info("worker_started", pid=os.getpid())
        if self._channel is not None:
            self._channel.send(Ready())

    async def _listen(self, channel: Channel) -> None:
        while (message := await channel.receive()) is not None:
            if isinstance(message, Reload):
                channel.send(Reloaded(await self._reload(message.configuration)))
        self._log.error("supervisor_gone")
        self._run.stop(signal.SIGTERM)

    async def _reload(self, text: str) -> str | None:
        try:
            configuration = await asyncio.to_thread(parse_configuration, text.encode(), self._path)
            await self._run.reload(configuration)
        except ConfigurationError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, what runs goes on
            return f"{type(error).__name__} while it was put in force"
        return None
