"""``headgate serve`` and ``headgate simulate``."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import ssl
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
import uvloop

from app import __version__
from app.cli.output import fail, sentence_of
from app.edge.server import ServerLimits, server_config
from app.main import DataDirTaken, FirstRun, Gateway, open_gateway
from app.settings import Configuration, ConfigurationError, Environment, ServerSettings, load_configuration
from app.simulator.server import run_simulator
from app.store.errors import StoreError
from app.telemetry.logs import LogWriter, install_standard_logging

BACKLOG = 2048
COLLECTOR_THRESHOLDS = (20_000, 20, 50)


def serve(
    config: Annotated[Path | None, typer.Option("--config", help="The configuration file.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Where to listen. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option("--port", help="0 takes any free one. [default: 4000]")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="[default: ./data]")] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="A certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM.")] = None,
) -> None:
    """Run the gateway."""
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    try:
        environment = Environment.read(config=config, host=host, port=port, data_dir=data_dir)
        configuration = load_configuration(environment.config_path)
        _check_certificate(tls_cert, tls_key)
        listener = _listen(environment.host, environment.port)
    except ConfigurationError as error:
        raise fail(str(error)) from error
    except OSError as error:
        raise fail(f"cannot listen on that address: {error.strerror}") from error
    log = LogWriter(level=environment.log_level, style=environment.log_format)
    install_standard_logging(log)
    log.start()
    _raise_descriptor_limit()
    try:
        with listener:
            uvloop.run(_Serving(configuration, environment, listener, log, tls_cert, tls_key).run())
    except (StoreError, ConfigurationError, DataDirTaken) as error:
        raise fail(sentence_of(error)) from error
    except OSError as error:
        raise fail(f"{error.filename or 'the system'}: {error.strerror}") from error
    except Exception as error:
        # A bug: its type and place, since its text may quote a secret.
        trace = traceback.extract_tb(error.__traceback__)[-1]
        raise fail(f"{type(error).__name__} at {Path(trace.filename).name}:{trace.lineno}") from error
    finally:
        log.close()


def simulate(
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 4100,
) -> None:
    """Run the simulator upstream on its own."""
    print(f"simulator on http://{host}:{port}/v1", file=sys.stderr)
    run_simulator(host, port)


def _check_certificate(tls_cert: Path | None, tls_key: Path | None) -> None:
    """Before anything is started. Raises ConfigurationError."""
    if tls_cert is None or tls_key is None:
        return
    for path in (tls_cert, tls_key):
        if not path.is_file():
            raise ConfigurationError(f"{path}: there is no such file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls_cert, tls_key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(f"{tls_cert}, {tls_key}: not a certificate and its key") from error


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


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the drain is ours."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Serving:
    """One run of the server, from the bound socket to the last settled request."""

    def __init__(
        self,
        configuration: Configuration,
        environment: Environment,
        listener: socket.socket,
        log: LogWriter,
        tls_cert: Path | None,
        tls_key: Path | None,
    ) -> None:
        self._configuration = configuration
        self._environment = environment
        self._listener = listener
        self._log = log
        self._tls = {} if tls_cert is None else {"ssl_certfile": str(tls_cert), "ssl_keyfile": str(tls_key)}
        self._stopping = asyncio.Event()
        self._server_now: _Server | None = None
        self._hurried = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        base_url = self._base_url()
        async with open_gateway(
            self._configuration, self._environment, base_url=f"{base_url}/v1", log=self._log
        ) as gateway:
            server = self._server_now = self._server(gateway)
            _settle_collector()
            serving = loop.create_task(server.serve(sockets=[self._listener]))
            self._announce(gateway, base_url)
            stopping = loop.create_task(self._stopping.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await self._drain(gateway, server)
            await serving

    def _server(self, gateway: Gateway) -> _Server:
        settings = self._configuration.server
        config = server_config(
            gateway.app,
            _server_limits(settings),
            on_refused=gateway.app.refused,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=max(1, round(settings.drain_s_max)),
            **self._tls,
        )
        return _Server(config)

    async def _drain(self, gateway: Gateway, server: _Server) -> None:
        """Not ready at once, accepting for a little longer, then what runs runs to its end."""
        gateway.draining = True
        self._log.info("draining", in_flight=gateway.pipeline.in_flight)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._configuration.server.drain_delay_s):
                await self._hurried.wait()
        gateway.app.closed = True
        server.should_exit = True

    def _stop(self, number: int) -> None:
        # A person at the keyboard does not wait for a load balancer.
        if number == signal.SIGINT:
            if self._stopping.is_set() and self._server_now is not None:
                # Asked twice: what runs is cut and settled now.
                for task in list(self._server_now.server_state.tasks):
                    task.cancel()
            self._hurried.set()
        self._stopping.set()

    def _base_url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        if host in {"0.0.0.0", "::"}:  # noqa: S104 - a comparison
            host = "127.0.0.1"
        scheme = "https" if self._tls else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def _announce(self, gateway: Gateway, base_url: str) -> None:
        self._log.info("started", version=__version__, url=base_url, pid=os.getpid())
        for notice in gateway.notices:
            self._log.warning("notice", text=notice)
        if sys.stdout.isatty():
            print(f"headgate {__version__} on {base_url}")
            for notice in gateway.notices:
                print(f"  note: {notice}")
            if gateway.first_run is not None:
                print(welcome(gateway.first_run, self._environment.data_dir))
            sys.stdout.flush()


def _raise_descriptor_limit() -> None:
    """A stream takes two descriptors; the usual soft limit of 1,024 is for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _settle_collector() -> None:
    """Requests leave next to no cycles behind; what start-up has made stays, and need not be walked again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def welcome(made: FirstRun, data_dir: Path) -> str:
    """What the first start shows, once; it works as pasted."""
    return f"""
A team, a key and an admin token were made. They are in {data_dir / "first-run.json"}, and not shown again:

  key          {made.key}
  admin token  {made.admin_token}

Try it:

  curl -N {made.base_url}/responses \\
    -H "Authorization: Bearer {made.key}" -H "Content-Type: application/json" \\
    -d '{{"model": "sim-large", "input": "Say hello.", "stream": true}}'

or, from Python (pip install openai):

  from openai import OpenAI
  client = OpenAI(base_url="{made.base_url}", api_key="{made.key}")
  for event in client.responses.create(model="sim-large", input="Say hello.", stream=True):
      if event.type == "response.output_text.delta":
          print(event.delta, end="", flush=True)

Then: headgate usage{"" if data_dir == Path("data") else f" --data-dir {data_dir}"}
"""


def _server_limits(settings: ServerSettings) -> ServerLimits:
    return ServerLimits(
        head_timeout_s=settings.head_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        keepalive_timeout_s=settings.keepalive_timeout_s,
        slow_client_s=settings.slow_client_s,
        body_bytes_max=settings.body_bytes_max,
    )
