"""Uploads through the server, the plane and the client, each its own process: memory, back-pressure, broken ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvicorn

from app.core.clock import SystemClock
from app.core.errors import BodyTooLarge, InvalidAPIKey, NotFound
from app.core.exchange import ClientGone, Endpoint, Exchange
from app.edge import plane
from app.edge.endpoints import Match
from app.edge.peers import Peers
from app.edge.server import ServerLimits, server_config
from app.settings import ServerSettings, StreamSettings, Timeouts, UpstreamSettings
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics
from app.upstream.pool import UpstreamPool
from app.upstream.relay import Collection, Relay
from app.upstream.watch import Sweep
from tests.integration.test_http_framing import Reader

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
WHOLE_MAX = MIB
UPLOAD_MAX = 600 * MIB
RSS_GROWTH_MAX = 16 * MIB
BODY_TIMEOUT_S = 1.0
IDLE_S = 1.5
FIRST_BYTE_S = 4.0
"""Longer than a slow upstream takes for what the kernel holds of an upload at its end."""
FORM = b"Content-Type: multipart/form-data; boundary=x"
KEY = b"Authorization: Bearer key"


# The process in the middle.


class Passing:
    """A pipeline that only passes on."""

    def __init__(self, upstream_port: int) -> None:
        self._sweep = Sweep()
        self._collection = Collection()
        self._pool = UpstreamPool(
            "u",
            UpstreamSettings(
                base_url=f"http://127.0.0.1:{upstream_port}/v1",
                timeouts=Timeouts(idle_s=IDLE_S, first_byte_s=FIRST_BYTE_S),
            ),
        )
        self.gateway: Any = None
        self.told: list[str] = []
        self.collected_max = 0

    # What the relay tells its witness.
    def saw_beginning(self, first: bytes) -> None: ...
    def saw_json(self, body: bytes) -> bool:
        self.told.append("json")
        return True

    def missed_some(self) -> None:
        self.told.append("missed")

    def saw_last(self) -> None: ...
    def client_left(self, phase: str, *, is_stream: bool) -> bool:
        return is_stream

    async def serve(self, exchange: Exchange) -> None:
        if exchange.credential is None:
            raise InvalidAPIKey
        if exchange.endpoint.path == "/report":
            report = {"told": self.told, "held": self.gateway._bodies.held, "in_use": self._pool.in_flight}
            exchange.connection.respond(200, [], json.dumps(report).encode())
            return
        if not self._sweep._task:
            self._sweep.start()
        relay = Relay(
            exchange.connection,
            self,
            sweep=self._sweep,
            collection=self._collection,
            policy=StreamSettings(),
            slow_client_s=5,
        )
        try:
            await self._pass(exchange, relay)
        except ClientGone:
            self.told.append("gone")
            raise
        except Exception as error:
            self.told.append(type(error).__name__)
            raise
        finally:
            relay.close()

    async def _pass(self, exchange: Exchange, relay: Relay) -> None:
        body: Any = None
        if exchange.media == "upload":
            body = exchange.open_body()
        elif exchange.media:
            body = await exchange.read_body()
        wants_stream = exchange.query == b"stream"
        answer = await relay.call(self._pool, exchange, headers=[], body=body, wants_stream=wants_stream)
        if exchange.endpoint.method == "GET":
            cut = await relay.pass_on(answer, answer.status, [], b"")
            assert cut is None
            exchange.connection.finish()
            return
        text, cut, _ = await relay.read(answer, MIB)
        assert cut is None
        exchange.connection.respond(answer.status, [], text)


def match(method: str, raw_path: bytes, *, wants_websocket: bool) -> Match:
    assert not wants_websocket
    path = raw_path.decode().removeprefix("/v1")
    if path == "/unknown":
        raise NotFound
    body = "" if method == "GET" else "upload" if path.startswith("/files") else "json"
    return Match(Endpoint("files", method, path, body=body))


def serve(upstream_port: int) -> None:
    """Runs in the child process."""
    plane.match = match
    passing = Passing(upstream_port)
    settings = ServerSettings(body_bytes_max=WHOLE_MAX, upload_bytes_max=UPLOAD_MAX)
    gateway = plane.Gateway(
        passing,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        settings=settings,
        peers=Peers([]),
        readiness=list,  # type: ignore[arg-type]
        clock=SystemClock(),
        metrics=Metrics(),
        log=LogWriter(),
    )
    passing.gateway = gateway
    limits = ServerLimits(body_timeout_s=BODY_TIMEOUT_S, linger_s=0.5, body_bytes_max=UPLOAD_MAX)
    listener = socket.create_server(("127.0.0.1", 0))
    config = server_config(gateway, limits, loop="uvloop", lifespan="off", log_config=None)
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listener])


# The upstream.


class Sink:
    """Takes uploads as their path says: /files, /files/slow, /files/deaf, /files/refuse, /files/die, /files/sleep."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.taken = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        assert self._ready.wait(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0, limit=64 * 1024))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken = 0
        with contextlib.suppress(ConnectionError):
            try:
                await self._answer(reader, writer)
            except asyncio.IncompleteReadError:
                if self.taken:
                    self.ends.append("cut")
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            path = head.split(" ")[1].partition("?")[0].removeprefix("/v1")
            if path == "/files/refuse":
                writer.write(b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno")
                await writer.drain()
                await asyncio.sleep(2)
                return
            if path == "/files/die":
                await reader.readexactly(100_000)
                writer.transport.abort()
                return
            if path == "/files/deaf":
                await asyncio.sleep(5)
                return
            if path.startswith("/download"):
                size = 40 * MIB
                kind = "application/json" if path.endswith("json") else "application/octet-stream"
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\n\r\n".encode())
                for _ in range(size // 65536):
                    writer.write(bytes(65536))
                    await writer.drain()
                continue
            digest = hashlib.sha256()
            length = 0
            async for piece in self._body(reader, head):
                digest.update(piece)
                length += len(piece)
                self.taken = length
                if path == "/files/slow":
                    await asyncio.sleep(0.02)
            self.ends.append("whole")
            if path == "/files/sleep":
                await asyncio.sleep(FIRST_BYTE_S / 2)
            framing = "chunked" if "transfer-encoding: chunked" in head else "length"
            answer = json.dumps({"length": length, "sha256": digest.hexdigest(), "framing": framing}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
            await writer.drain()

    async def _body(self, reader: asyncio.StreamReader, head: str) -> Any:
        if "transfer-encoding: chunked" in head:
            while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
                yield await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
            return
        left = int(head.partition("content-length: ")[2].partition("\r")[0])
        while left:
            piece = await reader.read(min(left, 65536))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece


class Middle:
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        code = f"from tests.integration.test_uploads import serve; serve({sink.port})"
        self.process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def rss(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def report(self) -> Any:
        with self.connect() as client:
            client.sendall(head_of(b"/report", method=b"GET"))
            return Reader(client).answer().json

    def told(self, what: str, within_s: float = 30) -> bool:
        return holds(lambda: self.report()["told"][-1:] == [what], within_s)


def holds(condition: Any, within_s: float = 30) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(scope="module")
def middle() -> Iterator[Middle]:
    running = Middle(Sink())
    yield running
    assert running.report()["held"] == 0
    running.process.terminate()
    assert running.process.wait(30) is not None
    assert running.process.stdout is not None
    running.process.stdout.close()


def head_of(path: bytes, *headers: bytes, method: bytes = b"POST") -> bytes:
    lines = [b"%s /v1%s HTTP/1.1" % (method, path), b"Host: t", FORM, KEY, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def upload(middle: Middle, size: int, path: bytes = b"/files", *, chunked: bool = False) -> tuple[Any, int]:
    """The answer, and by how much the gateway's memory grew meanwhile."""
    block = bytes(range(256)) * 256
    before, peak = middle.rss(), 0
    digest = hashlib.sha256()
    with middle.connect() as client:
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        client.sendall(head_of(path, framing))
        for number in range(size // len(block)):
            digest.update(block)
            client.sendall(b"%x\r\n" % len(block) + block + b"\r\n" if chunked else block)
            if number % 64 == 0:
                peak = max(peak, middle.rss())
        if chunked:
            client.sendall(b"0\r\n\r\n")
        answer = Reader(client).answer()
    peak = max(peak, middle.rss())
    assert answer.json["sha256"] == digest.hexdigest()
    assert answer.json["length"] == size
    return answer, peak - before


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_arrives_whole_in_bounded_memory(middle, chunked):
    upload(middle, MIB, chunked=chunked)
    answer, grown = upload(middle, 64 * MIB, chunked=chunked)
    assert answer.json["framing"] == ("chunked" if chunked else "length")
    assert grown < RSS_GROWTH_MAX


@pytest.mark.long
def test_a_large_upload_arrives_whole_in_bounded_memory(middle):
    upload(middle, MIB)
    _, grown = upload(middle, 512 * MIB)
    assert grown < RSS_GROWTH_MAX


def test_a_slow_upstream_holds_the_client_up_and_nothing_piles_up(middle):
    """Longer than a whole body may take, and than the upstream's idle time: both are for those who stand still."""
    upload(middle, MIB)
    began = time.monotonic()
    _, grown = upload(middle, 8 * MIB, b"/files/slow")
    assert time.monotonic() - began > max(BODY_TIMEOUT_S, IDLE_S)
    assert grown < RSS_GROWTH_MAX


def test_the_time_to_the_answer_begins_with_the_end_of_the_upload(middle):
    with middle.connect() as client:
        client.sendall(head_of(b"/files/sleep", b"Content-Length: 40000"))
        for _ in range(8):
            client.sendall(b"x" * 5_000)
            time.sleep(FIRST_BYTE_S / 12)
        assert Reader(client).answer().status == 200


def test_an_upstream_that_does_not_read_is_given_up(middle):
    with middle.connect() as client:
        client.settimeout(30)
        client.sendall(head_of(b"/files/deaf", b"Content-Length: %d" % (64 * MIB)))
        client.setblocking(False)
        answer = b""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and b"upstream_timeout" not in answer:
            with contextlib.suppress(OSError):
                client.send(b"x" * 65536)
            with contextlib.suppress(OSError):
                answer += client.recv(65536)
            time.sleep(0.002)
    assert answer.startswith(b"HTTP/1.1 504")


@pytest.mark.parametrize("query", [b"", b"?stream"])
@pytest.mark.parametrize("framing", [b"Content-Length: 10000000", b"Transfer-Encoding: chunked"])
def test_a_client_that_leaves_half_way_is_told_apart_and_the_upstream_never_takes_it_for_whole(middle, framing, query):
    before = len(middle.sink.ends)
    with middle.connect() as client:
        client.sendall(head_of(b"/files" + query, framing))
        client.sendall(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
        assert holds(lambda: middle.sink.taken >= 100_000)
    assert middle.told("gone")
    assert holds(lambda: middle.sink.ends[before:] == ["cut"])
    assert middle.report()["in_use"] == 0


def test_a_client_that_leaves_while_the_upstream_does_not_read_is_noticed(middle):
    with middle.connect() as client:
        client.sendall(head_of(b"/files/deaf", b"Content-Length: %d" % (64 * MIB)))
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                client.send(b"x" * 65536)
        time.sleep(0.2)
    assert middle.told("gone", within_s=IDLE_S - 0.4)


def test_a_refusal_comes_before_the_end_of_the_upload(middle):
    with middle.connect() as client:
        client.sendall(head_of(b"/files/refuse", b"Content-Length: %d" % (64 * MIB)) + b"x" * 70_000)
        reader = Reader(client)
        answer = reader.answer()
        assert (answer.status, answer.body, answer.header("connection")) == (403, b"no", "close")
        assert reader.closed()


def test_an_upstream_that_dies_in_the_upload_is_an_unknown_outcome(middle):
    with middle.connect() as client:
        client.sendall(head_of(b"/files/die", b"Content-Length: %d" % (64 * MIB)) + b"x" * 200_000)
        answer = Reader(client).answer()
        assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_outcome_unknown")


# What is refused, and when.


def expecting(path: bytes, *headers: bytes) -> bytes:
    return head_of(path, b"Expect: 100-continue", *headers)


REFUSED = [
    (b"/files", b"Content-Length: %d" % (UPLOAD_MAX + 1), KEY, 413),
    (b"/whole", b"Content-Length: %d" % (WHOLE_MAX + 1), KEY, 413),
    (b"/files", b"Content-Length: 100", b"x-other: 1", 401),
    (b"/whole", b"Content-Length: 100", b"x-other: 1", 401),
    (b"/unknown", b"Content-Length: 100", KEY, 404),
    (b"/files", b"Content-Length: 100\r\nContent-Encoding: gzip", KEY, 415),
]


@pytest.mark.parametrize(("path", "length", "key", "status"), REFUSED)
def test_what_is_not_wanted_is_refused_before_100_continue_and_closes(middle, path, length, key, status):
    kind = FORM if path == b"/files" else b"Content-Type: application/json"
    request = expecting(path, length).replace(KEY, key).replace(FORM, kind)
    with middle.connect() as client:
        reader = Reader(client)
        client.sendall(request)
        answer = reader.answer()
        assert (answer.status, answer.informational, answer.header("connection")) == (status, [], "close")
        assert reader.closed()


def test_an_unwanted_small_body_that_is_on_its_way_leaves_the_connection_in_step(middle):
    refused = head_of(b"/files", b"Content-Length: 5").replace(KEY, b"x-other: 1") + b"hello"
    with middle.connect() as client:
        client.sendall(refused + head_of(b"/files", b"Content-Length: 3") + b"abc")
        reader = Reader(client)
        assert reader.answer().status == 401
        assert reader.answer().json["length"] == 3


@pytest.mark.parametrize("size", [0, 5, 200_000])
def test_a_wanted_upload_is_asked_for_and_the_connection_goes_on(middle, size):
    with middle.connect() as client:
        reader = Reader(client)
        for _ in range(2):
            client.sendall(expecting(b"/files", b"Content-Length: %d" % size))
            if size:
                assert reader.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
                client.sendall(b"x" * size)
            assert reader.answer().json["length"] == size


@pytest.mark.parametrize(("path", "bound"), [(b"/files", UPLOAD_MAX), (b"/whole", WHOLE_MAX)])
def test_a_chunked_body_is_bounded_as_it_comes(middle, path, bound):
    """Of the upload only the chunk's size comes: the server refuses it by the bound for all bodies."""
    request = head_of(path, b"Transfer-Encoding: chunked")
    if path == b"/whole":
        request = request.replace(FORM, b"Content-Type: application/json")
    with middle.connect() as client:
        client.sendall(request + b"%x\r\n" % (bound + 1) + b"x" * (WHOLE_MAX + 1))
        reader = Reader(client)
        answer = reader.answer()
        assert (answer.status, answer.json["error"]["code"]) == (413, BodyTooLarge.code)
        assert reader.closed()


def test_an_upload_that_stands_still_is_refused_and_one_that_trickles_is_too(middle):
    """D2: the window of ten seconds, at its least rate and just under it."""
    quiet = middle.connect()
    quiet.sendall(head_of(b"/files", b"Content-Length: 100000") + b"x" * 30)
    trickle = middle.connect()
    trickle.sendall(head_of(b"/files", b"Content-Length: 100000"))
    steady = middle.connect()
    steady.sendall(head_of(b"/files", b"Content-Length: 26000"))
    began = time.monotonic()
    for _ in range(13):
        trickle.sendall(b"x" * 500)
        steady.sendall(b"x" * 2000)
        time.sleep(0.9)
        if select_readable(quiet) and select_readable(trickle):
            break
    for client in (quiet, trickle):
        answer = Reader(client).answer()
        assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")
    assert 9 < time.monotonic() - began < 30
    while not select_readable(steady):
        steady.sendall(b"x" * 2000)
        time.sleep(0.1)
    assert Reader(steady).answer().status == 200
    for client in (quiet, trickle, steady):
        client.close()


def select_readable(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        client.settimeout(30)


# Downloads.


@pytest.mark.parametrize(("path", "told"), [(b"/download", []), (b"/download/json", ["missed"])])
def test_a_large_download_is_kept_only_where_it_may_be_json(middle, path, told):
    before, peak, size = middle.rss(), 0, 0
    told_before = middle.report()["told"]
    with middle.connect() as client:
        client.sendall(head_of(path, method=b"GET"))
        while size < 40 * MIB:
            size += len(client.recv(1 << 20))
            peak = max(peak, middle.rss())
    assert middle.report()["told"] == told_before + told
    if not told:
        assert peak - before < 8 * MIB
