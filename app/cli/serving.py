"""``headgate serve`` and ``headgate simulate``."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from app.cli.announcing import announce
from app.cli.output import fail
from app.cli.reloading import Reloader
from app.cli.running import Certificate, Run, why_it_ended
from app.cli.supervisor import CannotStart, Supervisor
from app.main import Gateway
from app.settings import Configuration, ConfigurationError, ConfigurationFile, Environment, parse_configuration
from app.simulator.server import run_simulator
from app.telemetry.logs import LogWriter, install_standard_logging

BACKLOG = 2048


def serve(
    config: Annotated[Path | None, typer.Option("--config", help="The configuration file.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Where to listen. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option("--port", help="0 takes any free one. [default: 4000]")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes; several need Redis and PostgreSQL. [default: 1]")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="[default: ./data]")] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="A certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM.")] = None,
) -> None:
    """Run the gateway."""
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    # Until there is something to reload; the default would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        environment = Environment.read(config=config, host=host, port=port, workers=workers, data_dir=data_dir)
        environment.check_workers()
        file = ConfigurationFile(environment.config_path)
        raw = file.read()
        configuration = parse_configuration(raw, file.path)
        certificate = _certificate(tls_cert, tls_key)
        listener = _listen(environment.host, environment.port)
    except ConfigurationError as error:
        raise fail(str(error)) from error
    except OSError as error:
        raise fail(f"cannot listen on that address: {error.strerror}") from error
    base_url = _base_url(listener, certificate)
    supervised = environment.workers > 1
    log = LogWriter(
        level=environment.log_level, style=environment.log_format, process="supervisor" if supervised else None
    )
    install_standard_logging(log)
    log.start()
    _raise_descriptor_limit()
    try:
        with listener:
            if supervised:
                supervisor = Supervisor(
                    configuration, raw, file, environment, listener, log, base_url=base_url, certificate=certificate
                )
                # asyncio's own loop: uvloop starts no process in a group of its own.
                code = asyncio.run(supervisor.run())
            else:
                code = 0
                uvloop.run(_alone(configuration, file, environment, listener, log, base_url, certificate))
    except CannotStart as error:
        raise fail(str(error)) from error
    except Exception as error:
        raise fail(why_it_ended(error)) from error
    finally:
        log.close()
    raise typer.Exit(code)


async def _alone(
    configuration: Configuration,
    file: ConfigurationFile,
    environment: Environment,
    listener: socket.socket,
    log: LogWriter,
    base_url: str,
    certificate: Certificate | None,
) -> None:
    """One process, without a supervisor."""
    loop = asyncio.get_running_loop()
    reloading: list[asyncio.Task[None]] = []

    async def put_in_force(_raw: bytes, changed: Configuration) -> None:
        await run.reload(changed)

    def on_ready(gateway: Gateway) -> None:
        reloader = Reloader(file, put_in_force, log, gateway.metrics.reloads)
        loop.add_signal_handler(signal.SIGHUP, reloader.ask)
        reloading.append(loop.create_task(reloader.run()))
        announce(log, configuration, base_url, workers=1, first_run=gateway.first_run, data_dir=environment.data_dir)

    run = Run(configuration, environment, listener, log, base_url=base_url, certificate=certificate, on_ready=on_ready)
    try:
        await run.run()
    finally:
        for task in reloading:
            task.cancel()


def simulate(
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 4100,
    log: Annotated[
        Path | None, typer.Option("--log", metavar="FILE", help="Append what is served and billed, as lines of JSON.")
    ] = None,
) -> None:
    """Run the simulator upstream on its own."""
    print(f"simulator on http://{host}:{port}/v1", file=sys.stderr)
    try:
        run_simulator(host, port, log_path=log)
    except OSError as error:
        raise fail(f"the simulator cannot be started: {error.strerror}") from error


def _certificate(tls_cert: Path | None, tls_key: Path | None) -> Certificate | None:
    """Checked before anything is started. Raises ConfigurationError."""
    if tls_cert is None or tls_key is None:
        return None
    for path in (tls_cert, tls_key):
        if not path.is_file():
            raise ConfigurationError(f"{path}: there is no such file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls_cert, tls_key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(f"{tls_cert}, {tls_key}: not a certificate and its key") from error
    return Certificate(tls_cert, tls_key)


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _base_url(listener: socket.socket, certificate: Certificate | None) -> str:
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - a comparison
        host = "127.0.0.1"
    scheme = "http" if certificate is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _raise_descriptor_limit() -> None:
    """A stream takes two descriptors; the usual soft limit of 1,024 is for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
