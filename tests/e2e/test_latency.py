"""What the gateway adds to the time until the first delta: no Nagle delay, no fixed sleep."""

from __future__ import annotations

import socket
import time

import pytest

from tests.e2e.test_replay import DELTA, completed, created
from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import STREAM_HEAD, PlayedUpstream, config_for

PAIRS = 200
# A neighbour on the machine makes one round's tail long; a delay of our own is in every round.
ROUNDS_MAX = 3
P50_MS_MAX = 2.0
P99_MS_MAX = 10.0


def play(_):
    def chunk(data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)

    yield STREAM_HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n" + chunk(created())
    yield chunk(DELTA)
    yield chunk(completed())
    yield b"0\r\n\r\n"


class Connection:
    """One kept connection; ``ask`` returns the seconds until the first delta had arrived."""

    def __init__(self, port: int, key: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = b'{"model":"gpt-4o","input":"hi","stream":true}'
        self.request = (
            b"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (key.encode(), len(body), body)
        )

    def ask(self) -> float:
        start = time.perf_counter()
        self.sock.sendall(self.request)
        received, first_s = b"", None
        while not received.endswith(b"0\r\n\r\n"):
            received += self.sock.recv(65536)
            if first_s is None and b"output_text.delta" in received:
                first_s = time.perf_counter() - start
        assert first_s is not None
        return first_s


def added_ms(direct: Connection, through: Connection) -> tuple[float, float]:
    """The median and the 99th percentile of what the gateway adds."""
    pairs = [(direct.ask(), through.ask()) for _ in range(PAIRS)]
    added = sorted((via - straight) * 1000 for straight, via in pairs)
    return added[PAIRS // 2], added[int(PAIRS * 0.99)]


@pytest.mark.quiet
def test_the_first_delta_comes_as_soon_as_directly(tmp_path):
    with PlayedUpstream(play) as upstream, RunningGateway(tmp_path, config_for(upstream.base_url)) as gateway:
        direct, through = Connection(upstream.port, "x"), Connection(gateway.port, gateway.key)
        for _ in range(20):
            direct.ask()
            through.ask()
        for _ in range(ROUNDS_MAX):
            p50, p99 = added_ms(direct, through)
            print(f"first delta, added by the gateway: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
            if p50 <= P50_MS_MAX and p99 <= P99_MS_MAX:
                break
        direct.sock.close()
        through.sock.close()
    assert p50 <= P50_MS_MAX
    assert p99 <= P99_MS_MAX


@pytest.mark.quiet
@pytest.mark.parametrize("pieces", [3])
def test_events_pass_one_by_one_as_they_come(tmp_path, pieces):
    """Each event reaches the client before the upstream sends the next."""

    def paced(_):
        head, *rest = play(_)
        yield head
        for data in rest[:1] * pieces:
            yield 0.3
            yield data
        yield from rest[1:]

    with PlayedUpstream(paced) as upstream, RunningGateway(tmp_path, config_for(upstream.base_url)) as gateway:
        connection = Connection(gateway.port, gateway.key)
        start = time.perf_counter()
        connection.sock.sendall(connection.request)
        arrivals, received = [], b""
        while not received.endswith(b"0\r\n\r\n"):
            data = connection.sock.recv(65536)
            received += data
            arrivals += [time.perf_counter() - start] * data.count(b"output_text.delta\n")
        connection.sock.close()
    assert len(arrivals) == pieces
    for number, arrived_s in enumerate(arrivals, 1):
        assert arrived_s == pytest.approx(0.3 * number, abs=0.15)
