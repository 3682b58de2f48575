"""What HTTP asks of a proxy: answers without a body, parts of a body, and headers that are for one hop alone."""

from __future__ import annotations

import socket

import pytest

from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import PlayedUpstream, config_for, whole

CONTENT = "/v1/files/file_public/content"
BINARY = "content-type: application/octet-stream\r\n"


@pytest.fixture(scope="module")
def upstream():
    with PlayedUpstream(lambda _: []) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, upstream):
    forwarded = {"forward_headers": "[range, if-none-match]", "shared_objects": "[file_public]"}
    with RunningGateway(tmp_path_factory.mktemp("proxy"), config_for(upstream.base_url, **forwarded)) as running:
        running.json("teams", "create", "--name", "files", "--endpoints", "files,responses")
        running.bot = running.json("keys", "create", "--team", "files", "--name", "bot")["key"]
        yield running


def ask(gateway, method: str, *lines: str, path: str = CONTENT, body: bytes = b"") -> tuple[int, list[str], bytes]:
    """Over a bare socket: what is on the wire counts."""
    head = [f"{method} {path} HTTP/1.1", "host: x", "connection: close", f"authorization: Bearer {gateway.bot}", *lines]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as client:
        client.sendall("\r\n".join([*head, "", ""]).encode() + body)
        received = b""
        while data := client.recv(65536):
            received += data
    told, _, rest = received.partition(b"\r\n\r\n")
    status, *headers = told.decode().split("\r\n")
    return int(status.split()[1]), headers, rest


def lengths(headers: list[str]) -> list[str]:
    return [line for line in headers if line.startswith(("content-length:", "transfer-encoding:"))]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("content-length: 99\r\n", ["content-length: 99"]),
        ("transfer-encoding: chunked\r\n", []),
        ("connection: close\r\n", []),
    ],
)
def test_a_head_tells_the_length_that_a_get_has_or_none(gateway, upstream, told, expected):
    upstream.play = lambda _: [f"HTTP/1.1 200 OK\r\n{BINARY}{told}\r\n".encode(), "close"]
    status, headers, body = ask(gateway, "HEAD")
    assert (status, lengths(headers), body) == (200, expected, b"")
    assert upstream.requests[-1].method == "HEAD"


def test_what_has_not_changed_is_not_brought_again(gateway, upstream):
    upstream.play = lambda _: [b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\n\r\n']
    status, headers, body = ask(gateway, "GET", 'if-none-match: "a"')
    assert upstream.requests[-1].headers["if-none-match"] == '"a"'
    assert (status, lengths(headers), body) == (304, [], b"")
    assert 'etag: "a"' in headers


def test_parts_of_a_file_pass(gateway, upstream):
    upstream.play = lambda _: whole(b"abcd", f"HTTP/1.1 206 Partial\r\n{BINARY}content-range: bytes 0-3/9\r\n")
    status, headers, body = ask(gateway, "GET", "range: bytes=0-3")
    assert upstream.requests[-1].headers["range"] == "bytes=0-3"
    assert (status, body) == (206, b"abcd")
    assert "content-range: bytes 0-3/9" in headers
    upstream.play = lambda _: whole(b"", "HTTP/1.1 416 No\r\ncontent-range: bytes */9\r\n")
    status, headers, _ = ask(gateway, "GET", "range: bytes=20-")
    assert status == 416
    assert "content-range: bytes */9" in headers


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_does_not_pass(gateway, upstream, status):
    upstream.play = lambda _: [f"HTTP/1.1 {status} X\r\nlocation: http://x/\r\ncontent-length: 0\r\n\r\n".encode()]
    told, headers, _ = ask(gateway, "GET")
    assert told == 502
    assert not [line for line in headers if line.startswith("location:")]


ONE_HOP = (
    "connection: keep-alive, X-Hop\r\nconnection: x-later",
    "x-hop: 1",
    "x-later: 1",
    "keep-alive: timeout=5",
    "te: x",
)
OF_THE_ORIGIN = (
    "strict-transport-security: max-age=31536000; includeSubDomains; preload",
    'clear-site-data: "*"',
    'nel: {"report_to":"x"}',
    "report-to: {}",
    'reporting-endpoints: x="https://x"',
    'alt-svc: h3=":443"',
    "set-cookie: a=1",
    "set-cookie: b=2",
)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", CONTENT, b""), ("POST", "/v1/responses", b'{"model":"gpt-4o","input":"hi"}')],
)
def test_what_is_for_one_hop_or_for_the_origin_stays_here(gateway, upstream, method, path, body):
    """The origin that the client sees is the gateway's, and its console's."""
    kind = "content-type: application/json"
    lines = [kind, *ONE_HOP, *OF_THE_ORIGIN, "x-twice: 1", "x-twice: 2", 'etag: "a"']
    upstream.play = lambda _: whole(b'{"id":"resp_1"}', "\r\n".join(["HTTP/1.1 200 OK", *lines, ""]))
    status, headers, _ = ask(gateway, method, kind, f"content-length: {len(body)}", path=path, body=body)
    assert status == 200
    assert [line for line in headers if line.startswith("x-twice:")] == ["x-twice: 1", "x-twice: 2"]
    assert 'etag: "a"' in headers
    names = {line.partition(":")[0] for line in headers}
    stays = {line.partition(":")[0] for line in [*ONE_HOP, *OF_THE_ORIGIN]} - {"connection"}
    assert not names & stays
    assert [line for line in headers if line.startswith("connection:")] == ["connection: close"]
