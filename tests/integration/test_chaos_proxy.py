"""The proxy that other tests break their networks with does what it says."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from tests.fakes.proxy import BOTH, DOWN, UP, ChaosProxy

TIMEOUT_S = 30.0


class Echo:
    """A server that sends back what it gets, and after the end of that the number of bytes."""

    def __init__(self):
        self.received = b""

    async def __call__(self, reader, writer):
        count = 0
        try:
            while data := await reader.read(65_536):
                self.received += data
                count += len(data)
                writer.write(data)
                await writer.drain()
            writer.write(b"<%d>" % count)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture(params=["tcp", "unix"])
async def echo(request):
    echo = Echo()
    if request.param == "tcp":
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        echo.target = server.sockets[0].getsockname()
    else:
        # Not tmp_path: a unix socket's path has to stay under 108 bytes.
        directory = Path(tempfile.mkdtemp(prefix="hg-proxy-"))
        echo.target = str(directory / "s")
        server = await asyncio.start_unix_server(echo, echo.target)
    yield echo
    server.close()
    if request.param == "unix":
        shutil.rmtree(directory)


@pytest.fixture
async def proxy(echo):
    with ChaosProxy(echo.target) as proxy:
        yield proxy


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, data):
        self.writer.write(data)

    async def read(self, count):
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.readexactly(count)

    async def rest(self):
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.read()


@pytest.fixture
async def connect(proxy):
    clients = []

    async def connect():
        client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.writer.transport.abort()


async def test_bytes_pass_unchanged_and_ends_too(proxy, connect):
    client = await connect()
    sent = os.urandom(3_000_000)
    client.send(sent)
    assert await client.read(len(sent)) == sent
    client.writer.write_eof()
    assert await client.rest() == b"<3000000>"
    async with asyncio.timeout(TIMEOUT_S):
        while proxy.open:
            await asyncio.sleep(0.005)
    assert proxy.accepted == 1


async def test_latency_is_paid_each_way_and_not_by_every_chunk(proxy, connect):
    client = await connect()
    proxy.latency_s = 0.1
    before = time.monotonic()
    for _ in range(50):
        client.send(b"x")
        await asyncio.sleep(0.001)
    await client.read(50)
    assert 0.2 <= time.monotonic() - before < 5, "paid by each they were ten seconds"
    proxy.latency_s = 0.0
    client.send(b"y")
    assert await client.read(1) == b"y"


async def test_bandwidth_is_bounded(proxy, connect):
    client = await connect()
    proxy.bytes_per_s = 1_000_000
    before = time.monotonic()
    client.send(bytes(200_000))
    await client.read(200_000)
    assert 0.15 <= time.monotonic() - before < 20


@pytest.mark.parametrize("direction", [UP, DOWN, BOTH])
async def test_in_a_black_hole_nothing_moves_and_afterwards_all_of_it_does(proxy, connect, echo, direction):
    client = await connect()
    client.send(b"before")
    await client.read(6)
    proxy.stalled = direction
    client.send(b"during")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.15):
            await client.reader.readexactly(1)
    async with asyncio.timeout(TIMEOUT_S):
        while direction == DOWN and len(echo.received) < 12:
            await asyncio.sleep(0.005)
    assert echo.received == (b"beforeduring" if direction == DOWN else b"before")
    # A connection can still be made, and is as mute.
    other = await connect()
    other.send(b"other")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await other.reader.readexactly(1)
    proxy.stalled = None
    assert await client.read(6) == b"during"
    assert await other.read(5) == b"other"


async def test_a_reset_ends_all_connections_and_new_ones_work(proxy, connect):
    clients = [await connect() for _ in range(5)]
    for client in clients:
        client.send(b"x")
        await client.read(1)
    assert await asyncio.to_thread(proxy.reset) == 5
    for client in clients:
        with pytest.raises(ConnectionResetError):
            await client.rest()
    client = await connect()
    client.send(b"x")
    assert await client.read(1) == b"x"
    assert proxy.open == 1


async def test_a_host_on_which_nothing_listens(proxy, connect):
    living = await connect()
    living.send(b"x")
    await living.read(1)
    await asyncio.to_thread(proxy.refuse)
    with pytest.raises(ConnectionRefusedError):
        await connect()
    living.send(b"y")
    assert await living.read(1) == b"y"
    port = proxy.port
    await asyncio.to_thread(proxy.accept)
    assert proxy.port == port
    client = await connect()
    client.send(b"z")
    assert await client.read(1) == b"z"


async def test_a_server_that_is_away_is_a_reset(connect, proxy):
    proxy.target = ("127.0.0.1", 1)
    # It may be faster than the end of connecting.
    with pytest.raises(ConnectionResetError):
        await (await connect()).rest()


@pytest.mark.parametrize("direction", [UP, DOWN])
async def test_a_connection_ends_after_so_many_bytes(proxy, connect, echo, direction):
    proxy.reset_after_bytes = {direction: 10}
    client = await connect()
    client.send(b"0123456789abcdef")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        while await client.read(1):
            pass
    async with asyncio.timeout(TIMEOUT_S):
        while proxy.open or proxy.cut < 1:
            await asyncio.sleep(0.005)
    assert (echo.received, proxy.cut) == (b"0123456789abcdef"[: 10 if direction == UP else 16], 1)
    proxy.reset_after_bytes = {}
    client = await connect()
    client.send(bytes(100))
    await client.read(100)


async def test_half_of_a_connection_can_end(proxy, connect):
    client = await connect()
    client.send(b"abc")
    await client.read(3)
    await asyncio.to_thread(proxy.half_close, UP)
    # The server saw the end, and its answer still comes.
    assert await client.rest() == b"<3>"
    client = await connect()
    client.send(b"abc")
    await client.read(3)
    await asyncio.to_thread(proxy.half_close, DOWN)
    assert await client.rest() == b""


async def test_the_answer_to_one_command_is_lost_and_the_command_is_not(proxy, connect, echo):
    first, second = await connect(), await connect()
    first.send(b"hello")
    await first.read(5)
    proxy.cut_answer_to(b"COMMIT\0")
    second.send(b"BEGIN\0")
    assert await second.read(6) == b"BEGIN\0"
    # In two pieces, as a network may cut it.
    first.send(b"xCOM")
    await first.read(4)
    first.send(b"MIT\0")
    with pytest.raises(ConnectionResetError):
        await first.rest()
    assert (proxy.cut, echo.received[-8:]) == (1, b"xCOMMIT\0")
    # Once.
    second.send(b"COMMIT\0")
    assert await second.read(7) == b"COMMIT\0"
