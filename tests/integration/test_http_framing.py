"""The hardened server over raw sockets: the attacks of the threat battery, and what must go on working."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvicorn

from app.edge.server import ServerLimits, server_config

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-hg-canary"
MIB = 1024 * 1024

HEAD_TIMEOUT_S = 0.75
BODY_TIMEOUT_S = 1.0
KEEPALIVE_TIMEOUT_S = 1.5


def about(expected_s: float, took_s: float) -> bool:
    """The server's clock starts a little before the client's, and a busy machine looks late."""
    return expected_s - 0.3 <= took_s < expected_s + 10


LIMITS = ServerLimits(
    head_timeout_s=HEAD_TIMEOUT_S,
    body_timeout_s=BODY_TIMEOUT_S,
    keepalive_timeout_s=KEEPALIVE_TIMEOUT_S,
    slow_client_s=1.0,
    linger_s=0.5,
    body_bytes_max=MIB,
    connections_max=60,
)


# The server, in a process of its own so that its memory can be measured.


class Recorder:
    """An application that tells what reached it, by plain calls and by ASGI's."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.refused: list[str] = []
        self.lost: list[str] = []
        self.switched: list[str] = []
        self.pending_max = 0
        self.is_let_go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("only http is expected")
        path = scope["path"]
        connection = scope["headgate.connection"]
        if path == "/report":
            report = {key: list(value) for key, value in vars(self).items() if isinstance(value, list)}
            connection.respond(200, [], json.dumps({**report, "pending_max": self.pending_max}).encode())
            return
        self.seen.append(path)
        connection.on_disconnect(lambda: self.lost.append(path))
        action = path.split("/")[1]
        await getattr(self, action, self.echo)(scope, receive, send, connection)

    async def echo(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        body = await read(receive)
        if body is None:
            return
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        answer = {
            "path": scope["path"],
            "raw_path": scope["raw_path"].decode(),
            "query": scope["query_string"].decode(),
            "version": scope["http_version"],
            "length": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "headers": headers,
        }
        connection.respond(200, [(b"content-type", b"application/json")], json.dumps(answer).encode())

    async def asgi(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        await read(receive)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Plain", b"yes")]})
        for part in (b"one ", b"", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    async def late(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await self.is_let_go.wait()
        self.is_let_go.clear()
        await send({"type": "http.response.body", "body": b"done"})

    async def letgo(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        """Whoever waits for its body gets it."""
        self.is_let_go.set()
        connection.respond(204, [])

    async def chunks(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.start(200, [(b"content-type", b"text/event-stream")], b"data: 1\n\n")
        await asyncio.sleep(0.01)
        connection.write(b"data: 2\n\n")
        connection.finish(b"data: 3\n\n")

    async def noread(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.respond(403, [], b"no")

    async def large(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.start(200, [], b"x" * (8 * MIB))
        connection.finish()

    async def empty(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.respond(204, [])

    async def upgrade(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.respond(426, [(b"upgrade", b"HTTP/1.1"), (b"connection", b"upgrade")], b"{}")

    async def split(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.respond(200, [(b"x-echo", b"a\r\nset-cookie: x")], b"no")

    async def fails(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.route = "/fails"
        raise ValueError(SECRET)

    async def forgets(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        return

    async def breaks(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.start(200, [], b"half")
        raise ValueError(SECRET)

    async def aborts(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.start(200, [], b"half")
        await asyncio.sleep(0.05)
        connection.abort()

    async def short(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.start(200, [(b"content-length", b"10")], b"half")
        connection.finish()

    async def waits(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        await read(receive)
        for _ in range(3000):
            if connection.disconnected:
                break
            await asyncio.sleep(0.01)

    async def switches(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        await asyncio.sleep(0.3)
        stream = connection.switch([(b"upgrade", b"websocket"), (b"connection", b"upgrade")])
        async with asyncio.timeout(0.5):
            while await stream.read():
                pass
        self.switched.append(scope["path"])

    async def starts(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.start(200, [])
        await read(receive)

    async def flood(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.start(200, [])
        while not connection.disconnected:
            connection.write(b"x" * 16384)
            self.pending_max = max(self.pending_max, connection.bytes_pending)
            await asyncio.sleep(0)
            if connection.write_paused and not await connection.drained(30):
                break

    async def slowly(self, scope: Any, receive: Any, send: Any, connection: Any) -> None:
        connection.start(200, [])
        for _ in range(10):
            connection.write(b"tick")
            await asyncio.sleep(0.1)
        connection.finish()


async def read(receive: Any) -> bytes | None:
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


def serve(loop: str) -> None:
    """Runs in the child process."""
    recorder = Recorder()
    listener = socket.create_server(("127.0.0.1", 0))
    config = server_config(
        recorder,
        LIMITS,
        on_refused=lambda error, _: recorder.refused.append(error.code),
        loop=loop,
        lifespan="off",
        log_config=None,
    )
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listener])


@dataclass
class Server:
    port: int
    process: subprocess.Popen[bytes]

    def rss(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def ask(self, payload: bytes, count: int = 1) -> list[Answer]:
        with self.connect() as client:
            client.sendall(payload)
            reader = Reader(client)
            return [reader.answer() for _ in range(count)]

    def client_ports(self) -> set[int]:
        """The far ends of the connections that the server has open."""
        return {link.raddr.port for link in psutil.Process(self.process.pid).net_connections("tcp") if link.raddr}

    def report(self) -> Any:
        return json.loads(self.ask(b"GET /report HTTP/1.1\r\nHost: t\r\n\r\n")[0].body)


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool = True
    informational: list[int] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reader:
    """A strict client's half: reads one answer after another."""

    def __init__(self, client: socket.socket, *, head_only: bool = False) -> None:
        self.client = client
        self.buffer = b""
        self.head_only = head_only

    def more(self) -> bool:
        try:
            data = self.client.recv(65536)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            if not self.more():
                raise EOFError(self.buffer)
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self.more():
                raise EOFError(self.buffer)
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def rest(self) -> bytes:
        while self.more():
            pass
        found, self.buffer = self.buffer, b""
        return found

    def answer(self) -> Answer:
        informational = []
        while True:
            first, *lines = self.until(b"\r\n\r\n").decode("ascii").split("\r\n")
            version, status, *_ = first.split(" ")
            assert version == "HTTP/1.1"
            if status[0] != "1":
                break
            informational.append(int(status))
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        answer = Answer(int(status), headers, b"", informational=informational)
        if self.head_only or answer.status in (204, 304):
            return answer
        try:
            if (length := answer.header("content-length")) is not None:
                answer.body = self.exactly(int(length))
            elif answer.header("transfer-encoding") == "chunked":
                while size := int(self.until(b"\r\n"), 16):
                    answer.body += self.exactly(size)
                    assert self.exactly(2) == b"\r\n"
                assert self.exactly(2) == b"\r\n"
            else:
                answer.body = self.rest()
        except EOFError:
            answer.whole = False
        return answer

    def closed(self) -> bool:
        return self.rest() == b""


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def any_server(request) -> Iterator[Server]:
    yield from start(request.param)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield from start("uvloop")


def start(loop: str) -> Iterator[Server]:
    code = f"from tests.integration.test_http_framing import serve; serve({loop!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    running = Server(port, process)
    for _ in range(1500):
        with contextlib.suppress(OSError), running.connect():
            break
        time.sleep(0.02)
    try:
        running.report()
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert SECRET.encode() not in errors
    assert b"Traceback" not in errors
    assert b"Unsupported upgrade" not in errors


def wait_until(holds: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return bool(holds())


def assert_refused(answer: Answer, *, status: int | tuple[int, ...], code: str | None = None) -> None:
    assert answer.status in ((status,) if isinstance(status, int) else status)
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert code is None or error["code"] == code
    assert error["message"]
    assert error["type"] == "invalid_request_error"
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.header("x-headgate-request-id") or "")
    assert answer.header("content-type") == "application/json"
    assert answer.header("connection") == "close"
    assert answer.header("server") is None


SMUGGLED = b"GET /SMUGGLED HTTP/1.1\r\nHost: t\r\n\r\n"


def post(*headers: bytes, body: bytes = b"", path: bytes = b"/case") -> bytes:
    return b"\r\n".join([b"POST " + path + b" HTTP/1.1", b"Host: t", *headers, b"", body])


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


def get(*headers: bytes, line: bytes = b"GET /case HTTP/1.1", host: bytes = b"Host: t\r\n") -> bytes:
    return line + b"\r\n" + host + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


REFUSED = [
    ("H1 CL.TE", post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    ("H2 TE.CL", post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"0\r\n\r\n"), 400),
    ("H3 vertical tab", post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), 400),
    ("H3 xchunked", post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 400),
    ("H3 chunked, identity", post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"), 400),
    ("H3 identity, chunked", post(b"Transfer-Encoding: identity, chunked", body=b"0\r\n\r\n"), 400),
    ("H3 chunked, chunked", post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 400),
    ("H3 identity", post(b"Transfer-Encoding: identity", body=b"0\r\n\r\n"), 400),
    ("H3 gzip", post(b"Transfer-Encoding: gzip", body=b"0\r\n\r\n"), 400),
    ("H3 quoted", post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"), 400),
    ("H3 empty", post(b"Transfer-Encoding:", body=b"0\r\n\r\n"), 400),
    ("H3 two", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    ("H3 two differ", post(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    ("H3 space before colon", post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"), 400),
    ("H3 in HTTP/1.0", get(b"Transfer-Encoding: chunked", line=b"POST /case HTTP/1.0") + b"0\r\n\r\n", 400),
    ("H4 two differ", post(b"Content-Length: 0", b"Content-Length: 5"), 400),
    ("H4 two equal", post(b"Content-Length: 0", b"Content-Length: 0"), 400),
    ("H4 +2", post(b"Content-Length: +2", body=b"{}"), 400),
    ("H4 0x2", post(b"Content-Length: 0x2", body=b"{}"), 400),
    ("H4 -1", post(b"Content-Length: -1"), 400),
    ("H4 2, 2", post(b"Content-Length: 2, 2", body=b"{}"), 400),
    ("H4 2 2", post(b"Content-Length: 2 2", body=b"{}"), 400),
    ("H4 23 digits", post(b"Content-Length: " + b"9" * 23), 400),
    ("H4 padded", post(b"Content-Length: " + b"0" * 22 + b"2", body=b"{}"), 400),
    ("H4 empty", post(b"Content-Length:"), 400),
    ("H5 bare LF", b"GET /case HTTP/1.1\nHost: t\n\n", 400),
    ("H5 one bare LF", b"GET /case HTTP/1.1\r\nHost: t\nX: y\r\n\r\n", 400),
    ("H5 bare CR", b"GET /case HTTP/1.1\r\nHost: t\rX: y\r\n\r\n", 400),
    ("H5 obs-fold", b"GET /case HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n", 400),
    ("H5 obs-fold tab", b"GET /case HTTP/1.1\r\nHost: t\r\nX: a\r\n\tb\r\n\r\n", 400),
    ("H5 first field folded", b"GET /case HTTP/1.1\r\n Host: t\r\nHost: t\r\n\r\n", 400),
    ("H6 size 0x2", chunked(b"0x2\r\n{}\r\n0\r\n\r\n"), 400),
    ("H6 size -2", chunked(b"-2\r\n{}\r\n0\r\n\r\n"), 400),
    ("H6 size +2", chunked(b"+2\r\n{}\r\n0\r\n\r\n"), 400),
    ("H6 size empty", chunked(b"\r\n{}\r\n0\r\n\r\n"), 400),
    ("H6 size spaced", chunked(b"2 \r\n{}\r\n0\r\n\r\n"), 400),
    ("H6 overflow", chunked(b"1" + b"0" * 16 + b"2\r\n{}\r\n0\r\n\r\n"), 400),
    ("H6 2^64-1", chunked(b"f" * 16 + b"\r\n{}\r\n0\r\n\r\n"), 400),
    ("H6 bad terminator", chunked(b"2\r\n{}XX0\r\n\r\n"), 400),
    ("H6 LF terminator", chunked(b"2\r\n{}\n0\r\n\r\n"), 400),
    ("H6 LF after size", chunked(b"2\n{}\r\n0\r\n\r\n"), 400),
    ("H6 LF in extension", chunked(b"2;a\nb\r\n{}\r\n0\r\n\r\n"), 400),
    ("H6 NUL in extension", chunked(b"2;\x00\r\n{}\r\n0\r\n\r\n"), 400),
    ("H6 5 KB extension", chunked(b"2;" + b"a" * 5000 + b"\r\n{}\r\n0\r\n\r\n"), 400),
    ("H6 many extensions", chunked((b"1;" + b"a" * 100 + b"\r\n{\r\n") * 400), 400),
    ("H6 one-byte chunks", chunked(b"1\r\n{\r\n" * 6000), 400),
    ("H7 bad trailer", chunked(b"0\r\nX Y: 1\r\n\r\n"), 400),
    ("H8 no Host", get(host=b""), 400),
    ("H8 two Hosts", get(b"Host: u"), 400),
    ("H8 same Host twice", get(b"Host: t"), 400),
    ("H8 Host x/#@evil", get(host=b"Host: x/#@evil\r\n"), 400),
    ("H8 Host with user", get(host=b"Host: a@evil\r\n"), 400),
    ("H8 Host with space", get(host=b"Host: a b\r\n"), 400),
    ("H8 empty Host", get(host=b"Host:\r\n"), 400),
    ("H9 HTTP/0.9", b"GET /case\r\n", 400),
    ("H9 HTTP/0.9 with head", b"GET /case\r\nHost: t\r\n\r\n", 400),
    ("H9 said 0.9", get(line=b"GET /case HTTP/0.9"), 400),
    ("H9 HTTP/1.2", get(line=b"GET /case HTTP/1.2"), 400),
    ("H9 HTTP/3.0", get(line=b"GET /case HTTP/3.0"), 400),
    ("H9 http/1.1", get(line=b"GET /case http/1.1"), 400),
    ("H9 two spaces", get(line=b"GET  /case HTTP/1.1"), 400),
    ("H9 tab", get(line=b"GET\t/case HTTP/1.1"), 400),
    ("H9 trailing space", get(line=b"GET /case HTTP/1.1 "), 400),
    ("H10 absolute-form", get(line=b"GET http://evil.example/case HTTP/1.1"), 400),
    ("H10 absolute-form, own host", get(line=b"GET http://t/case HTTP/1.1"), 400),
    ("H10 authority-form", get(line=b"GET evil.example:80 HTTP/1.1"), 400),
    ("H10 asterisk-form", get(line=b"OPTIONS * HTTP/1.1"), 400),
    ("H10 fragment", get(line=b"GET /case#x HTTP/1.1"), 400),
    ("H11 101 headers", get(*[b"X-%d: 1" % number for number in range(100)]), 431),
    ("H11 5,000 headers", get(*[b"X-%d: 1" % number for number in range(5000)]), 431),
    ("H11 33 KB header", get(b"X: " + b"a" * 33_000), 431),
    ("H11 33 KB name", get(b"X" * 33_000 + b": a"), 431),
    ("H11 33 KB headers", get(*[b"X: " + b"a" * 3300] * 10), 431),
    ("H11 17 KB target", get(line=b"GET /case?" + b"a" * 17_000 + b" HTTP/1.1"), 414),
    ("H11 200 KB target", get(line=b"GET /case?" + b"a" * 200_000 + b" HTTP/1.1"), 414),
    ("H12 NUL", get(b"X: a\x00b"), 400),
    ("H12 0x01", get(b"X: a\x01b"), 400),
    ("H12 DEL", get(b"X: a\x7fb"), 400),
    ("H12 0xFF", get(b"X: a\xffb"), 400),
    ("H12 UTF-8", get("X: ü".encode()), 400),
    ("H12 0xFF in name", get(b"X\xff: a"), 400),
    ("H12 space in name", get(b"X Y: a"), 400),
    ("H12 no name", get(b": a"), 400),
    ("H12 no colon", get(b"X"), 400),
    ("H12 0xFF in target", get(line=b"GET /case\xff HTTP/1.1"), 400),
    ("H12 NUL in target", get(line=b"GET /case\x00 HTTP/1.1"), 400),
    ("H14 HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("H15 Expect on too large", post(b"Expect: 100-continue", b"Content-Length: 2147483648"), 413),
    ("H15 too large", post(b"Content-Length: 2147483648"), 413),
    ("H16 TRACE", get(line=b"TRACE /case HTTP/1.1"), 405),
    ("H16 CONNECT", get(line=b"CONNECT evil.example:443 HTTP/1.1"), 405),
    ("H16 lower case", get(line=b"post /case HTTP/1.1"), 405),
    ("H16 unknown", get(line=b"BREW /case HTTP/1.1"), 405),
    ("H16 PROPFIND", get(line=b"PROPFIND /case HTTP/1.1"), 405),
    ("H20 two Authorizations", get(b"Authorization: Bearer a", b"Authorization: Bearer b"), 400),
    ("H20 two x-api-keys", get(b"x-api-key: a", b"X-API-Key: a"), 400),
    ("H20 two content types", get(b"Content-Type: a/b", b"content-type: c/d"), 400),
    ("J9 chunked beyond the limit", chunked(b"%x\r\n" % (MIB + 1)), 413),
    ("TLS on the plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("garbage", b"\x00\xff\r\n\r\n", 400),
]
CODES = {400: "invalid_request", 405: "method_not_allowed", 413: "body_too_large", 414: "uri_too_long"}


@pytest.mark.parametrize(("payload", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_an_attack_is_refused_and_nothing_behind_it_is_read(server, payload, status):
    before = server.report()
    with server.connect() as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(payload + SMUGGLED)
        reader = Reader(client)
        answer = reader.answer()
        assert_refused(answer, status=status, code=CODES.get(status, "headers_too_large"))
        assert answer.informational == []
        assert reader.closed()
    after = server.report()
    assert "/SMUGGLED" not in after["seen"]
    # A bad chunk is seen after the head: the application may have begun, but never had a whole body.
    assert after["seen"][len(before["seen"]) :] in ([], ["/case"])
    assert after["refused"][len(before["refused"]) :] == [answer.json["error"]["code"]]


ALLOWED = [
    ("H10 path of an absolute form", get(line=b"GET //evil.example/case HTTP/1.1")),
    ("H13 Connection names a header", get(b"Connection: Authorization, X-Team", b"Authorization: Bearer a")),
    ("H14 h2c", get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")),
    ("H18 overrides", get(b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /admin", b"X-Rewrite-URL: /admin")),
    ("IPv6 host", get(host=b"Host: [::1]:4000\r\n")),
    ("container name as host", get(host=b"Host: head_gate:4000\r\n")),
    ("empty value", get(b"X-Empty:", b"X-Next: 1")),
    ("100 headers", get(*[b"X-%d: 1" % number for number in range(99)])),
    ("31 KB of headers", get(*[b"X: " + b"a" * 3090] * 10)),
    ("15 KB target", get(line=b"GET /case?" + b"a" * 15_000 + b" HTTP/1.1")),
    ("line break before the request", b"\r\n" + get()),
    ("no Host in HTTP/1.0", get(line=b"GET /case HTTP/1.0", host=b"")),
]


@pytest.mark.parametrize("payload", [row[1] for row in ALLOWED], ids=[row[0] for row in ALLOWED])
def test_a_strange_but_lawful_request_is_served_by_its_path(server, payload):
    (answer,) = server.ask(payload)
    assert answer.status == 200
    assert answer.json["path"] in ("/case", "//evil.example/case")


def test_an_upgrade_with_a_body_keeps_its_body(server):
    answers = server.ask(
        post(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED) + get(),
        count=2,
    )
    assert answers[0].json["length"] == len(SMUGGLED)
    assert answers[1].json["path"] == "/case"
    assert "/SMUGGLED" not in server.report()["seen"]


def test_a_websocket_handshake_reaches_the_application_as_a_request(server):
    handshake = get(
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        line=b"GET /upgrade HTTP/1.1",
    )
    answers = server.ask(handshake * 2, count=2)
    assert [answer.status for answer in answers] == [426, 426]
    assert answers[0].header("connection") == "upgrade"


def test_trailers_are_not_headers(server):
    trailers = b"X-Evil: 1\r\nAuthorization: Bearer evil\r\nX-Forwarded-For: 1.1.1.1\r\nContent-Length: 5\r\n"
    answers = server.ask(chunked(b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n") + get(), count=2)
    names = {name for name, _ in answers[0].json["headers"]}
    assert names == {"host", "transfer-encoding"}
    assert answers[0].json["length"] == 2
    assert answers[1].status == 200


def test_names_with_underscores_are_dropped_and_values_stripped(server):
    (answer,) = server.ask(get(b"x_api_key: evil", b"X-Api-Key:  good\t ", b"Content_Length: 5"))
    assert answer.json["headers"] == [["host", "t"], ["x-api-key", "good"]]


def test_forwarded_headers_do_not_change_the_client(server):
    (answer,) = server.ask(get(b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https"))
    assert answer.status == 200


def grown(server: Server, send: Any) -> tuple[int, Answer | None]:
    """How much the server's memory grew at most while ``send`` fed it, and what it answered."""
    before = server.rss()
    most = before
    with server.connect() as client:
        reader = Reader(client)
        try:
            for piece in send:
                client.sendall(piece)
                most = max(most, server.rss())
                if select.select([client], [], [], 0)[0] and not reader.more():
                    break
        except ConnectionError:
            pass
        with contextlib.suppress(EOFError):
            answer = reader.answer()
            return max(most, server.rss()) - before, answer
    return max(most, server.rss()) - before, None


def test_a_head_of_200_mb_costs_no_memory(server):
    grown(server, iter([b"GET /case HTTP/1.1\r\nHost: t\r\nX: ", b"a" * MIB]))
    growth, answer = grown(server, (b"GET /c HTTP/1.1\r\nX: " if not n else b"a" * MIB for n in range(200)))
    assert growth <= MIB
    assert answer is not None
    assert_refused(answer, status=431)


def test_a_chunk_extension_of_1_mb_costs_no_memory(server):
    grown(server, iter([chunked(b"2;a=" + b"a" * 60_000)]))
    growth, answer = grown(server, (chunked(b"2;a=") if not n else b"a" * 65536 for n in range(16)))
    assert growth <= MIB
    assert answer is not None
    assert_refused(answer, status=400)


def test_line_breaks_before_a_request_cost_nothing(server):
    growth, answer = grown(server, (b"\r\n" * 100_000 for _ in range(20)))
    assert growth <= MIB
    assert answer is not None
    assert_refused(answer, status=400)


def test_1000_pipelined_requests_are_served_in_order_with_flat_memory(server):
    requests = [get(line=b"GET /pipelined/%d HTTP/1.1" % number) for number in range(1000)]
    server.ask(b"".join(requests[:50]), count=50)
    before = server.rss()
    answers = server.ask(b"".join(requests), count=1000)
    assert [answer.json["path"] for answer in answers] == [f"/pipelined/{number}" for number in range(1000)]
    assert server.rss() - before <= MIB


def test_pipelined_requests_past_the_cap_wait_in_the_clients_socket(server):
    before = server.rss()
    with server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        client.sendall(get(line=b"GET /waits HTTP/1.1"))
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            for _ in range(1000):
                client.sendall(get() * 1000)
        assert server.rss() - before <= MIB


# Time.


def test_a_silent_connection_is_answered_408_and_closed(server):
    with server.connect() as client:
        started = time.monotonic()
        reader = Reader(client)
        assert_refused(reader.answer(), status=408, code="request_timeout")
        assert reader.closed()
        assert about(HEAD_TIMEOUT_S, time.monotonic() - started)


@pytest.mark.parametrize("kept", [False, True])
def test_a_slow_head_is_answered_408_at_an_absolute_deadline(server, kept):
    with server.connect() as client:
        reader = Reader(client)
        if kept:
            client.sendall(get())
            reader.answer()
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in get(b"X: " + b"a" * 100):
                client.sendall(bytes([byte]))
                if select.select([client], [], [], 0.1)[0]:
                    break
        assert_refused(reader.answer(), status=408, code="request_timeout")
        assert reader.closed()
        assert about(HEAD_TIMEOUT_S, time.monotonic() - started)


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_a_slow_body_is_answered_408_at_an_absolute_deadline(server, framing):
    drip = b"1\r\n{\r\n" if b"chunked" in framing else b"{"
    with server.connect() as client:
        client.sendall(post(framing, path=b"/slow"))
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while not select.select([client], [], [], 0.1)[0]:
                client.sendall(drip)
        reader = Reader(client)
        assert_refused(reader.answer(), status=408, code="request_timeout")
        assert reader.closed()
        assert about(BODY_TIMEOUT_S, time.monotonic() - started)
    assert "/slow" in server.report()["lost"]


def test_a_slow_body_after_the_response_began_is_cut_off(server):
    with server.connect() as client:
        client.sendall(post(b"Content-Length: 100", path=b"/starts"))
        answer = Reader(client).answer()
    assert answer.status == 200
    assert not answer.whole


def test_an_idle_connection_is_closed_without_a_word(server):
    with server.connect() as client:
        client.sendall(get())
        reader = Reader(client)
        reader.answer()
        started = time.monotonic()
        assert reader.closed()
        assert about(KEEPALIVE_TIMEOUT_S, time.monotonic() - started)


def test_slow_readers_are_bounded_and_then_cut_off(server):
    before = server.rss()
    clients = []
    for _ in range(10):
        client = server.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(get(line=b"GET /flood HTTP/1.1"))
        clients.append(client)
    time.sleep(0.6)
    assert server.rss() - before <= 10 * 320 * 1024
    assert server.report()["pending_max"] <= 64 * 1024 + 32 * 1024
    assert wait_until(lambda: server.report()["lost"].count("/flood") >= 10, 30)
    assert server.report()["lost"].count("/flood") == 10
    for client in clients:
        client.close()


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("line", [b"GET /large HTTP/1.1", b"GET /large HTTP/1.0", b"GET /flood HTTP/1.1"])
def test_a_client_that_never_reads_is_let_go(server, line, half_closed):
    with server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(get(line=line))
        time.sleep(0.2)
        if half_closed:
            client.shutdown(socket.SHUT_WR)
        port = client.getsockname()[1]
        assert wait_until(lambda: port not in server.client_ports(), 30)
        if b"1.0" in line:
            with pytest.raises(ConnectionResetError):
                while client.recv(65536):
                    pass


def test_more_connections_than_allowed_are_turned_away(server):
    clients = [server.connect() for _ in range(LIMITS.connections_max)]
    try:
        time.sleep(0.1)
        with server.connect() as client:
            answer = Reader(client).answer()
            assert answer.status == 503
            assert answer.json["error"]["code"] == "overloaded"
            assert answer.header("retry-after")
    finally:
        for client in clients:
            client.close()
    assert wait_until(lambda: len(server.client_ports()) < LIMITS.connections_max, 30)
    assert server.ask(get())[0].status == 200


# What must work, on both event loops.


def test_a_connection_is_kept(any_server):
    with any_server.connect() as client:
        reader = Reader(client)
        for number in range(3):
            client.sendall(post(b"Content-Length: 5", body=b"hello", path=b"/kept/%d" % number))
            answer = reader.answer()
            assert answer.status == 200
            assert answer.json["path"] == f"/kept/{number}"
            assert answer.header("connection") is None
            assert answer.header("date")
            assert answer.header("server") is None


def test_a_request_may_come_byte_by_byte(any_server):
    body = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n"
    with any_server.connect() as client:
        reader = Reader(client)
        for byte in chunked(body) + post(b"Content-Length: 2", body=b"{}"):
            client.sendall(bytes([byte]))
        assert reader.answer().json["sha256"] == hashlib.sha256(b"hello!").hexdigest()
        assert reader.answer().json["length"] == 2


@pytest.mark.parametrize("sizes", [[1], [1, 2, 3], [65536] * 15])
def test_a_chunked_body_arrives_whole(any_server, sizes):
    body = b"".join(b"%x\r\n" % size + b"z" * size + b"\r\n" for size in sizes) + b"0\r\n\r\n"
    answers = any_server.ask(chunked(body) + get(), count=2)
    assert answers[0].json["sha256"] == hashlib.sha256(b"z" * sum(sizes)).hexdigest()
    assert answers[1].status == 200


def test_a_large_body_arrives_whole(any_server):
    body = bytes(range(256)) * 4000
    answers = any_server.ask(post(b"Content-Length: %d" % len(body), body=body) + get(), count=2)
    assert answers[0].json["sha256"] == hashlib.sha256(body).hexdigest()
    assert answers[1].status == 200


def test_pipelined_answers_come_in_order(any_server):
    answers = any_server.ask(
        b"".join(post(b"Content-Length: 1", body=b"x", path=b"/in-order/%d" % number) for number in range(20)),
        count=20,
    )
    assert [answer.json["path"] for answer in answers] == [f"/in-order/{number}" for number in range(20)]


def test_the_body_is_asked_for_with_100_continue(any_server):
    with any_server.connect() as client:
        reader = Reader(client)
        client.sendall(post(b"Expect: 100-continue", b"Content-Length: 5"))
        assert reader.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        client.sendall(b"hello")
        assert reader.answer().json["length"] == 5


def test_a_refusal_comes_instead_of_100_continue(any_server):
    with any_server.connect() as client:
        reader = Reader(client)
        client.sendall(post(b"Expect: 100-continue", b"Content-Length: 5", path=b"/noread"))
        answer = reader.answer()
        assert (answer.status, answer.informational) == (403, [])
        assert answer.header("connection") == "close"
        assert reader.closed()


def test_a_small_unread_body_is_read_away_and_a_large_one_closes(any_server):
    small = post(b"Content-Length: 5", body=b"hello", path=b"/noread")
    assert [answer.status for answer in any_server.ask(small * 2, count=2)] == [403, 403]
    with any_server.connect() as client:
        reader = Reader(client)
        client.sendall(post(b"Content-Length: 1000000", path=b"/noread"))
        answer = reader.answer()
        assert (answer.status, answer.body) == (403, b"no")
        assert answer.header("connection") == "close"
        with contextlib.suppress(ConnectionError):
            client.sendall(b"x" * 1_000_000)
        assert reader.closed()


@pytest.mark.parametrize("path", [b"/chunks", b"/case", b"/asgi"])
def test_head_has_the_head_and_no_body(any_server, path):
    with any_server.connect() as client:
        reader = Reader(client, head_only=True)
        for _ in range(2):
            client.sendall(get(line=b"HEAD " + path + b" HTTP/1.1"))
            answer = reader.answer()
            assert answer.status == 200
            assert reader.buffer == b""
        client.sendall(get(line=b"HEAD /case HTTP/1.1"))
        assert int(reader.answer().header("content-length") or 0) > 100


@pytest.mark.parametrize(("path", "body"), [(b"/chunks", b"data: 1\n\ndata: 2\n\ndata: 3\n\n"), (b"/asgi", b"one two")])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_stream_is_chunked_or_for_http_1_0_ended_by_the_close(any_server, path, body, version):
    with any_server.connect() as client:
        client.sendall(get(line=b"GET " + path + b" HTTP/" + version))
        reader = Reader(client)
        answer = reader.answer()
        assert answer.whole
        assert answer.body == body
        assert answer.header("transfer-encoding") == ("chunked" if version == b"1.1" else None)
        assert answer.header("connection") == (None if version == b"1.1" else "close")


def test_the_head_of_an_asgi_answer_does_not_wait_for_its_body(any_server):
    with any_server.connect() as client:
        client.sendall(get(line=b"GET /late HTTP/1.1"))
        reader = Reader(client)
        reader.until(b"\r\n\r\n")
        assert reader.buffer == b""
        any_server.ask(get(line=b"GET /letgo HTTP/1.1"))
        assert reader.exactly(4) == b"done"


def test_an_answer_without_a_body_has_no_length(any_server):
    answers = any_server.ask(get(line=b"GET /empty HTTP/1.1") * 2, count=2)
    assert [(answer.status, answer.header("content-length")) for answer in answers] == [(204, None)] * 2


@pytest.mark.parametrize("path", [b"/fails", b"/forgets", b"/split"])
def test_a_bug_is_answered_in_the_apis_shape(any_server, path):
    answers = any_server.ask(get(line=b"GET " + path + b" HTTP/1.1") + get(), count=2)
    assert answers[0].status == 500
    assert answers[0].json["error"]["code"] == "internal_error"
    assert SECRET.encode() not in answers[0].body
    assert answers[0].header("x-headgate-request-id")
    assert answers[1].status == 200


@pytest.mark.parametrize("path", [b"/breaks", b"/aborts", b"/short"])
def test_a_broken_answer_never_looks_whole(any_server, path):
    (answer,) = any_server.ask(get(line=b"GET " + path + b" HTTP/1.1"))
    assert not answer.whole


@pytest.mark.parametrize("path", [b"/breaks", b"/aborts"])
def test_a_broken_answer_to_http_1_0_is_a_reset(any_server, path):
    with any_server.connect() as client:
        client.sendall(get(line=b"GET " + path + b" HTTP/1.0"))
        with pytest.raises(ConnectionResetError):
            while client.recv(65536):
                pass


def test_a_client_that_left_before_its_protocol_was_switched_is_known_to_have_gone(any_server):
    with any_server.connect() as client:
        client.sendall(get(line=b"GET /switches/left HTTP/1.1"))
        time.sleep(0.1)
    deadline = time.monotonic() + 30
    while "/switches/left" not in any_server.report()["switched"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_the_application_learns_that_the_client_has_gone(any_server, how):
    path = f"/waits/{how}"
    client = any_server.connect()
    client.sendall(get(line=f"GET {path} HTTP/1.1".encode()))
    assert wait_until(lambda: path in any_server.report()["seen"], 30)
    if how == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.close()
    assert wait_until(lambda: path in any_server.report()["lost"], 30)
    assert any_server.report()["lost"].count(path) == 1


def test_a_body_cut_off_by_a_disconnect_is_never_whole(any_server):
    client = any_server.connect()
    client.sendall(post(b"Content-Length: 10", body=b"half", path=b"/cut"))
    assert wait_until(lambda: "/cut" in any_server.report()["seen"], 30)
    client.close()
    assert wait_until(lambda: "/cut" in any_server.report()["lost"], 30)
    report = any_server.report()
    assert report["seen"].count("/cut") == report["lost"].count("/cut") == 1


def test_a_graceful_shutdown_lets_answers_finish():
    running = start("uvloop")
    server = next(running)
    with server.connect() as client, server.connect() as idle:
        idle.sendall(get())
        Reader(idle).answer()
        client.sendall(get(line=b"GET /slowly HTTP/1.1"))
        assert wait_until(lambda: "/slowly" in server.report()["seen"], 30)
        server.process.send_signal(signal.SIGTERM)
        assert Reader(idle).closed()
        reader = Reader(client)
        answer = reader.answer()
        assert answer.whole
        assert answer.body == b"tick" * 10
        assert reader.closed()
    assert server.process.wait(timeout=30) == -signal.SIGTERM
    running.close()
