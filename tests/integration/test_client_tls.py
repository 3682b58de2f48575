"""The upstream client over TLS, on both event loops: what a certificate must be, and how a connection ends."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from app.upstream.client import ConnectionBroken, NotConnected
from tests.integration.test_client_sockets import (
    CHUNKED,
    EMPTY,
    OK,
    Peer,
    always,
    body_of,
    client_to,
    echo,
    get,
    on_both_loops,
    open_files,
    served,
    settled,
)

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="the openssl binary, which makes the certificates, is not here")


class Certificates:
    """An authority of its own, and what it signs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run("req", "-x509", *self._key("ca"), "-out", "ca.pem", "-days", "2", "-subj", "/CN=Test authority")

    def _run(self, *arguments: str) -> None:
        subprocess.run([OPENSSL, *arguments], cwd=self._folder, check=True, capture_output=True)

    def _key(self, name: str) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"]

    def signed(self, name: str, *, names: str, days: int = 2) -> ssl.SSLContext:
        """A server's context with a certificate that the authority signed."""
        (self._folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
        self._run("req", *self._key(name), "-out", f"{name}.csr", "-subj", f"/CN={name}")
        self._run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", str(days), "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )
        return self._server(name)

    def self_signed(self) -> ssl.SSLContext:
        more = ("-addext", "subjectAltName=IP:127.0.0.1", "-subj", "/CN=self")
        self._run("req", "-x509", *self._key("self"), "-out", "self.pem", "-days", "2", *more)
        return self._server("self")

    def _server(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        return context

    def trusting(self) -> ssl.SSLContext:
        """A client's context as this client is given one, with the authority among the trusted."""
        context = ssl.create_default_context()
        context.load_verify_locations(self._folder / "ca.pem")
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def good(certificates) -> ssl.SSLContext:
    return certificates.signed("good", names="IP:127.0.0.1,DNS:localhost")


@on_both_loops
async def test_a_good_certificate(certificates, good):
    async with served(echo, ssl=good) as (port, peers):
        client = client_to(port, tls=certificates.trusting())
        for size in (0, 1, 1000, 70_000, 1_000_000):
            answer = await client.request(b"POST", b"/x", [], b"x" * size)
            assert await body_of(answer) == b"x" * size
        assert len(peers) == 1
        assert (client.in_use, client.idle) == (0, 1)
        await client.close()
        await settled(peers[0].reader.at_eof)


@on_both_loops
async def test_the_name_is_asked_for_and_checked(certificates, good):
    asked = []
    good.sni_callback = lambda _, name, __: asked.append(name)
    async with served(always(EMPTY), ssl=good) as (port, _):
        client = client_to(port, tls=certificates.trusting(), host="localhost")
        assert await get(client) == (200, b"")
        assert asked == ["localhost"]
        await client.close()
    good.sni_callback = None


@pytest.mark.parametrize("kind", ["expired", "wrong host", "self-signed", "old protocol", "no TLS"])
@on_both_loops
async def test_a_bad_certificate_is_never_talked_to(certificates, kind):
    if kind == "expired":
        context = certificates.signed("expired", names="IP:127.0.0.1", days=-1)
    elif kind == "wrong host":
        context = certificates.signed("other", names="DNS:other.example,IP:127.0.0.2")
    elif kind == "self-signed":
        context = certificates.self_signed()
    elif kind == "old protocol":
        context = certificates.signed("old", names="IP:127.0.0.1")
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1
    else:
        context = None
    async with served(echo, ssl=context) as (port, peers):
        client = client_to(port, tls=certificates.trusting(), connect_timeout_s=1.0)
        with pytest.raises(NotConnected) as caught:
            await get(client)
        assert isinstance(caught.value.__cause__, OSError)
        assert (client.in_use, client.idle) == (0, 0)
        await asyncio.sleep(0.05)
        assert [peer.requests for peer in peers] in ([], [[]])
        await client.close()


@on_both_loops
async def test_a_handshake_that_never_ends(certificates):
    async def play(peer: Peer) -> None:
        await asyncio.sleep(30)

    async with served(play) as (port, _):
        client = client_to(port, tls=certificates.trusting(), connect_timeout_s=0.2)
        with pytest.raises(NotConnected):
            await get(client)
        assert client.in_use == 0
        tasks = [asyncio.ensure_future(get(client)) for _ in range(20)]
        await asyncio.sleep(0.05)
        before = open_files()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert client.in_use == 0
        await settled(lambda: open_files() <= before - 20)
        await client.close()


@on_both_loops
async def test_chunks_over_tls(certificates, good):
    data = CHUNKED + b"3;e\r\nabc\r\n" * 1000 + b"0\r\nt: 1\r\n\r\n"
    async with served(always(data), ssl=good) as (port, peers):
        client = client_to(port, tls=certificates.trusting())
        for _ in range(3):
            assert await get(client) == (200, b"abc" * 1000)
        assert len(peers) == 1
        await client.close()


@on_both_loops
async def test_a_body_that_a_proper_end_of_tls_ends(certificates, good):
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"\r\nabc")
        peer.writer.close()
        await asyncio.sleep(0.5)

    async with served(play, ssl=good) as (port, _):
        client = client_to(port, tls=certificates.trusting())
        assert await get(client) == (200, b"abc")
        assert (client.in_use, client.idle) == (0, 0)
        await client.close()


@on_both_loops
async def test_a_body_that_ends_without_tls_saying_so_is_broken(certificates, good):
    """Anyone on the way can end a TCP connection: only TLS's own end tells that the body was whole."""

    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"\r\nabc")
        await asyncio.sleep(0.05)
        peer.writer.transport.abort()

    async with served(play, ssl=good) as (port, _):
        client = client_to(port, tls=certificates.trusting())
        answer = await client.request(b"GET", b"/x", [], None)
        assert await answer.read_any() == b"abc"
        with pytest.raises(ConnectionBroken):
            await answer.read_any()
        assert client.in_use == 0
        await client.close()


@on_both_loops
async def test_an_idle_connection_that_ends(certificates, good):
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(EMPTY)

    async with served(play, ssl=good) as (port, _):
        client = client_to(port, tls=certificates.trusting())
        await get(client)
        await settled(lambda: client.idle == 0)
        await client.close()


@on_both_loops
async def test_a_slow_reader_over_tls(certificates, good):
    total = 32 * 1024 * 1024

    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"content-length: %d\r\n\r\n" % total)
        for _ in range(total // 65_536):
            await peer.send(bytes(65_536))
        await peer.reader.read()

    async with served(play, ssl=good) as (port, _):
        client = client_to(port, tls=certificates.trusting())
        answer = await client.request(b"GET", b"/x", [], None)
        await asyncio.sleep(0.3)
        assert sum(map(len, answer.parts)) < 1024 * 1024
        assert len(await body_of(answer)) == total
        assert client.idle == 1
        await client.close()


@on_both_loops
async def test_cancels_over_tls(certificates, good):
    async def play(peer: Peer) -> None:
        while b"/hang" not in await peer.request():
            await peer.send(EMPTY)
        await peer.reader.read()

    async with served(play, ssl=good) as (port, _):
        client = client_to(port, tls=certificates.trusting(), connections_max=50)
        for _ in range(10):
            tasks = [asyncio.ensure_future(get(client, b"/hang")) for _ in range(30)]
            await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert client.in_use == 0
        for _ in range(20):
            assert await get(client) == (200, b"")
        await client.close()
