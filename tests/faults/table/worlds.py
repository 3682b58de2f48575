"""What rows are held against: gateways that run, with all that stands around them. Each is started once."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.auth.keys import mint
from app.cli.commands import app
from tests.e2e.test_disk import BALLAST_BYTES, DISK_BYTES
from tests.fakes.fleet import Fleet, Stores, wait_for
from tests.fakes.gateway import RunningGateway
from tests.fakes.people import Key, People, rule, url_of
from tests.fakes.postgres import PostgresServer
from tests.fakes.proxy import ChaosProxy
from tests.fakes.upstream import PlayedUpstream
from tests.fakes.valkey import ValkeyServer
from tests.faults.table.asking import WAYS
from tests.faults.table.clocks import with_a_clock
from tests.faults.table.names import NameServer, under_it
from tests.faults.table.plays import play_with
from tests.faults.table.rows import Ask, Told

RECOVERS_S_MAX = 30.0
HEALTH_S_MAX = 0.05
HEALTH_TRIES = 20
EVENTS = frozenset(
    "dependency_down dependency_up upstream_auth_failed redis_script_refused worker_died journal_recovered"
    " ledger_row_refused ledger_not_drained reservation_unreadable".split()
)
"""What a row has to tell of, if it happens."""

PRICES = 'prices: [{model: "paid", input_per_mtok_usd: 0, output_per_mtok_usd: 1000}]\n'
PAID_NANOUSD = 7_000_000
"""What an answer of the model ``paid`` costs: seven tokens."""
STRACE = ("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync", "-e")
FAILING_SYNCS = "inject=fdatasync:error=EIO:when=12..30"


class Servers:
    """What all worlds share."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self._gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self.upstream = stack.enter_context(PlayedUpstream(play_with(lambda user: self._gates[user].is_set())))
        self.pool = stack.enter_context(ThreadPoolExecutor(8))
        self._postgres: PostgresServer | None = None

    def let_go(self, user: str) -> None:
        self._gates[user].set()

    @property
    def postgres(self) -> PostgresServer:
        if self._postgres is None:
            self._postgres = PostgresServer()
            self.stack.callback(self._postgres.remove)
            self._postgres.start()
        return self._postgres

    def new_database(self) -> str:
        return asyncio.run(self.postgres.create_database())


class World:
    """One gateway and those who may ask it, by name."""

    _users = itertools.count(1)

    def __init__(self, servers: Servers, gateway: RunningGateway, people: People | None = None, **parts: Any) -> None:
        """``parts`` are what its rows break."""
        self.parts = parts
        self.servers = servers
        self.gateway = gateway
        self.people = people or People(url_of(gateway))
        self.keys: dict[str, Key] = {"free": self.people.key()}

    def add_limited(self) -> None:
        """Somebody for each way in which a limit may bind."""
        many, much = 10**6, 10**15
        self.keys |= {
            "strict": self.people.key(rule("requests", many, "day")),
            "protective": self.people.key(rule("requests", many, "day", policy="protective")),
            "budget": self.people.key(rule("money", much, "month")),
            "running": self.people.key(rule("concurrency", 10), rule("money", much, "total")),
            "spent": self.people.key(rule("money", PAID_NANOUSD * 3 // 2, "total")),
        }
        for who in ("strict", "protective", "budget", "running"):
            assert self.ask(Ask(who), self.new_user()).status == 200
        self.spend()

    def spend(self) -> None:
        """From now on what is left of a budget is less than another call costs."""
        spends = Ask("spent", model="paid", more={"max_output_tokens": 7})
        told = [self.ask(spends, self.new_user()).code for _ in range(2)]
        assert told == [None, "insufficient_quota"]

    def add_cold(self) -> None:
        """Keys that the gateway knows and whose budgets it has not asked for yet; and one that nobody knows."""
        money = rule("money", 10**15, "day"), rule("money", 10**15, "day", policy="protective")
        self.keys |= {"cold": self.people.key(money[0]), "cold, protective": self.people.key(money[1])}
        for who in ("cold", "cold, protective"):
            self.client.get("/v1/models", headers=self.keys[who].headers).raise_for_status()
        self.keys["unknown"] = Key("", "", mint().text)

    @property
    def client(self) -> httpx.Client:
        if not hasattr(self, "_client"):
            self._client = self.servers.stack.enter_context(httpx.Client(base_url=self.gateway.url, timeout=10))
        return self._client

    # -- clients --------------------------------------------------------------------------------

    def new_user(self) -> str:
        return f"user-{next(self._users)}"

    def ask(self, ask: Ask, user: str) -> Told:
        asked = {"messages": [{"role": "user", "content": "hi"}]} if ask.family == "chat" else {"input": "hi"}
        body = {"model": ask.model, **asked, "stream": ask.stream, "user": user, **ask.more}
        address = (self.url_for(ask), self.keys[ask.who].text, {**body, "metadata": {"play": ask.play}})
        return WAYS[ask.how](address, ask)

    def url_for(self, ask: Ask) -> str:
        assert not ask.at_other, "there is only one gateway here"
        return self.gateway.url

    def begin(self, ask: Ask, user: str) -> Future[Told]:
        """One that runs; it has reached the upstream."""
        before = len(self.servers.upstream.requests)
        told = self.servers.pool.submit(self.ask, ask, user)
        wait_for(lambda: len(self.servers.upstream.requests) > before or told.done())
        return told

    # -- what is to be seen ---------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        return self.gateway.metrics()

    def position(self) -> int:
        return len(self.gateway.log_path.read_bytes())

    def told_since(self, position: int) -> list[str]:
        """The events of the log that rows tell of, with the dependency that each is about."""
        lines = [json.loads(line) for line in self.gateway.log_path.read_bytes()[position:].splitlines()]
        return [f"{line['event']} {line.get('dependency', '')}".strip() for line in lines if line["event"] in EVENTS]

    def check_health(self, failing: tuple[str, ...]) -> None:
        """Alive and ready are answered within 50 ms, whatever hangs; a busy machine may be late now and then."""
        status = 503 if failing else 200
        fastest_s = 9.0
        for _ in range(HEALTH_TRIES):
            began_s = time.monotonic()
            assert self.client.get("/healthz").status_code == 200
            middle_s = time.monotonic()
            answer = self.client.get("/readyz")
            assert (answer.status_code, tuple(answer.json()["failing"])) == (status, failing)
            fastest_s = min(fastest_s, max(middle_s - began_s, time.monotonic() - middle_s))
            if fastest_s < HEALTH_S_MAX:
                return
        raise AssertionError(f"the faster of {HEALTH_TRIES} took {fastest_s:.3f} s")

    def is_well(self) -> bool:
        """Everything answers, and nothing is owed to the ledger."""
        metrics = self.metrics()
        away = [name for name, value in metrics.items() if name.startswith("headgate_degraded{") and value]
        return (
            not away
            and metrics["headgate_journal_records"] == 0
            and metrics["headgate_in_flight"] == 0
            and self.client.get("/readyz").status_code == 200
            and all(self.ask(Ask(who), self.new_user()).status == 200 for who in ("free", "strict") if who in self.keys)
        )

    def recover(self) -> None:
        wait_for(self.is_well, RECOVERS_S_MAX)

    def proof(self) -> dict[str, Any]:
        """What ``headgate check --ledger`` says; it runs in this process, which starts faster than one of its own."""
        names = {name: value for name, value in self.gateway.environment.items() if name.startswith("HEADGATE_")}
        data_dir = {"HEADGATE_DATA_DIR": str(self.gateway.data_dir), "HEADGATE_CONFIG": str(self.gateway.config)}
        done = CliRunner().invoke(app, ["check", "--ledger", "--json"], env={**names, **data_dir})
        return json.loads(done.stdout)


class SharedWorld(World):
    """A gateway whose ways to Redis and to PostgreSQL can be broken; ``other`` has ways of its own."""

    def __init__(
        self,
        servers: Servers,
        gateway: RunningGateway,
        people: People,
        valkey: ValkeyServer,
        redis: ChaosProxy,
        sql: ChaosProxy,
    ) -> None:
        super().__init__(servers, gateway, people)
        self.valkey = valkey
        self.redis = redis
        self.sql = sql
        self._other: RunningGateway | None = None

    def url_for(self, ask: Ask) -> str:
        return self.other.url if ask.at_other else self.gateway.url

    @property
    def other(self) -> RunningGateway:
        """A further gateway, around all faults of the first one's network."""
        if self._other is None:
            environment = {"HEADGATE_DATABASE_URL": self.people.url, "HEADGATE_REDIS_URL": self.valkey.url}
            folder = self.gateway.folder / "other"
            self._other = RunningGateway(folder, self.gateway.config.read_text(), **environment)
            self.servers.stack.enter_context(self._other)
            wait_for(lambda: httpx.get(f"{self._other.url}/readyz").status_code == 200)
        return self._other

    @property
    def hot_keys(self) -> str:
        """What the strict key's team has in Redis begins with this."""
        return f"hg:{{{self.keys['strict'].team_id}}}:"


# -- how each is made -------------------------------------------------------------------------


def config_of(upstreams: Mapping[str, str], timeout_s: float, *, kept_s: float = 4, **server: Any) -> str:
    """``upstreams``: base URLs by name; each has the models of its name, the first one all others. ``kept_s``: how
    long a connection to one waits to be used again.
    """
    timeouts = f"timeouts: {{connect_s: 5, first_byte_s: {timeout_s}, idle_s: {timeout_s}}}"
    more = f"{timeouts}, keepalive_timeout_s: {kept_s}"
    lines = [f'  {name}: {{base_url: "{url}", {more}}}' for name, url in upstreams.items()]
    models = [f"  - {{match: {name}, upstream: {name}}}" for name in upstreams]
    first = next(iter(upstreams))
    settings = ", ".join(f"{name}: {value}" for name, value in {"drain_delay_s": 0, **server}.items())
    return "\n".join(
        [
            "upstreams:",
            *lines,
            f"server: {{{settings}}}",
            PRICES,
            "models:",
            *models,
            f'  - {{match: "*", upstream: {first}}}',
            "",
        ]
    )


def embedded(servers: Servers, folder: Path) -> World:
    """In one process, with upstreams of every kind; impatient, so that rows are short."""
    url = servers.upstream.base_url
    oneway = servers.stack.enter_context(ChaosProxy(("127.0.0.1", servers.upstream.port)))
    upstreams = {
        "u0": url,
        "dead": "http://127.0.0.1:1/v1",
        "nameless": "http://no-such-upstream.invalid/v1",
        "oneway": f"http://127.0.0.1:{oneway.port}/v1",
        "tls": url.replace("http:", "https:"),
    }
    server = {"body_bytes_max": 100_000, "head_timeout_s": 1, "body_timeout_s": 1, "slow_client_s": 1}
    config = config_of(upstreams, 1.5, **server)
    targets = "[{upstream: dead, model: gpt-4o, weight: 10000}, {upstream: u0, model: gpt-4o}]"
    config = config.replace("models:\n", f"models:\n  - {{name: fallback, targets: {targets}}}\n")
    return World(servers, servers.stack.enter_context(RunningGateway(folder, config)), oneway=oneway)


def shared(servers: Servers, folder: Path) -> SharedWorld:
    """Over Redis and PostgreSQL, both behind networks that can be broken."""
    valkey = ValkeyServer()
    servers.stack.callback(valkey.close)
    valkey.start()
    direct = servers.new_database()
    redis = servers.stack.enter_context(ChaosProxy(valkey.url.removeprefix("unix://")))
    sql = servers.stack.enter_context(ChaosProxy(servers.postgres.socket_path))
    database = direct.removeprefix("postgresql://postgres@/").partition("?")[0]
    environment = {
        "HEADGATE_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{sql.port}/{database}",
        "HEADGATE_REDIS_URL": f"redis://127.0.0.1:{redis.port}",
    }
    gateway = with_a_clock(RunningGateway(folder, config_of({"u0": servers.upstream.base_url}, 30), **environment))
    servers.stack.enter_context(gateway)
    world = SharedWorld(servers, gateway, People(direct), valkey, redis, sql)
    world.add_limited()
    return world


def alone(servers: Servers, folder: Path) -> World:
    """One process, with limits in its memory and the ledger in PostgreSQL."""
    config = config_of({"u0": servers.upstream.base_url}, 30)
    gateway = RunningGateway(folder, config, HEADGATE_DATABASE_URL=servers.new_database())
    world = World(servers, servers.stack.enter_context(gateway))
    world.add_limited()
    return world


def named(servers: Servers, folder: Path) -> World:
    """Its upstreams have names, and the name service is ours."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a name service takes the rights to bind port 53 and to mount")
    names = servers.stack.enter_context(NameServer())
    prefix = under_it(folder)
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a file cannot be mounted over another one here")
    upstreams = {name: f"http://{name}.test:{servers.upstream.port}/v1" for name in ("known", "wrong", "mute")}
    gateway = RunningGateway(folder, config_of(upstreams, 30, kept_s=0.01))
    gateway.prefix = prefix
    return World(servers, servers.stack.enter_context(gateway), names=names)


def small_disk(servers: Servers, folder: Path) -> World:
    """Its data dir is on a disk of its own, with little room; its ledger is elsewhere."""
    disk = folder / "disk"
    disk.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    servers.stack.callback(subprocess.run, ["umount", "--lazy", disk], check=True)
    ledger = {"HEADGATE_DATABASE_URL": servers.new_database(), "HEADGATE_BALLAST_BYTES": str(BALLAST_BYTES)}
    gateway = RunningGateway(folder, config_of({"u0": servers.upstream.base_url}, 30), **ledger)
    gateway.data_dir = disk / "data"
    return World(servers, servers.stack.enter_context(gateway), disk=disk)


def failing_syncs(servers: Servers, folder: Path) -> World:
    """Its disk takes what is written, and some time after its start fails to sync it for a while."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace to make a call of the kernel's fail")
    config = config_of({"u0": servers.upstream.base_url}, 30)
    gateway = RunningGateway(folder, config, HEADGATE_DATABASE_URL=servers.new_database())
    gateway.prefix = (*STRACE, FAILING_SYNCS)
    return World(servers, servers.stack.enter_context(gateway))


def fleet(servers: Servers, folder: Path) -> World:
    """Two workers."""
    stores = Stores()
    servers.stack.callback(stores.close)
    stores.start()
    gateway = Fleet(folder, stores, 2, config_of({"u0": servers.upstream.base_url}, 30))
    return World(servers, servers.stack.enter_context(gateway))


MAKERS: dict[str, Callable[[Servers, Path], World]] = {
    "embedded": embedded,
    "shared": shared,
    "alone": alone,
    "named": named,
    "small disk": small_disk,
    "failing syncs": failing_syncs,
    "fleet": fleet,
}


class Worlds:
    """Those that were needed so far."""

    def __init__(self, servers: Servers, new_folder: Callable[[], Path]) -> None:
        self._servers = servers
        self._new_folder = new_folder
        self._made: dict[str, World] = {}

    def __getitem__(self, name: str) -> World:
        if name not in self._made:
            self._made[name] = MAKERS[name](self._servers, self._new_folder())
        return self._made[name]

    def values(self) -> Iterator[World]:
        yield from self._made.values()

    def begin_to_stop(self) -> None:
        for world in self.values():
            process = world.gateway.process
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)


@contextmanager
def opened_worlds(new_folder: Callable[[], Path]) -> Iterator[Worlds]:
    with ExitStack() as stack:
        worlds = Worlds(Servers(stack), new_folder)
        try:
            yield worlds
        finally:
            # All of them at once, before each is waited for.
            worlds.begin_to_stop()
