"""The ways to an upstream, over real sockets: a private authority, certificates of the client's own, proxies."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from contextlib import asynccontextmanager

import pytest

from app.core.errors import UpstreamOutcomeUnknown, UpstreamUnreachable
from app.settings import UpstreamSettings
from app.upstream.pool import UpstreamPool
from tests.fakes.http_proxy import HTTPProxy
from tests.integration.test_client_sockets import body_of, echo, on_both_loops, served
from tests.integration.test_client_tls import Certificates

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the openssl binary, which makes the certificates, is not here"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def certificates(folder) -> Certificates:
    made = Certificates(folder)
    made.signed("server", names="IP:127.0.0.1,DNS:localhost")
    made.signed("client", names="DNS:gateway")
    made.self_signed()
    return made


def context(folder, name: str = "server", *, asks: bool = False) -> ssl.SSLContext:
    """A server's. ``asks``: it wants the client's certificate, signed by the authority."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    if asks:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(folder / "ca.pem")
    return made


def tls(folder, **more: str) -> dict[str, str]:
    return {"ca_file": str(folder / "ca.pem"), **{name: str(folder / file) for name, file in more.items()}}


@asynccontextmanager
async def pool_to(port: int, *, scheme: str = "https", **settings):
    pool = UpstreamPool(
        "u",
        UpstreamSettings(base_url=f"{scheme}://127.0.0.1:{port}/v1", timeouts={"connect_s": 2}, **settings),
    )
    try:
        yield pool
    finally:
        await pool.close()


async def post(pool: UpstreamPool, body: bytes = b"abc", query: bytes = b"") -> bytes:
    return await body_of(await pool.send("POST", "/x", query, [], body))


OURS = {"client_cert_file": "client.pem", "client_key_file": "client.key"}


@on_both_loops
async def test_an_authority_of_ones_own(certificates, folder):
    async with served(echo, ssl=context(folder)) as (port, _):
        async with pool_to(port, tls=tls(folder)) as pool:
            assert await post(pool) == b"abc"
            assert await pool.can_connect()
        async with pool_to(port) as pool:
            # The system's authorities are believed where none is named, and only then.
            with pytest.raises(UpstreamUnreachable):
                await post(pool)
            assert not await pool.can_connect()


@on_both_loops
async def test_a_client_shows_its_certificate(certificates, folder):
    async with served(echo, ssl=context(folder, asks=True)) as (port, peers):
        async with pool_to(port, tls=tls(folder, **OURS)) as pool:
            assert await post(pool) == b"abc"
            shown = peers[0].writer.get_extra_info("peercert")
            assert (("commonName", "client"),) in shown["subject"]
        async with pool_to(port, tls=tls(folder)) as pool:
            # TLS 1.3 tells after the handshake that a certificate is missing.
            with pytest.raises((UpstreamUnreachable, UpstreamOutcomeUnknown)):
                await post(pool)
        assert sum(len(peer.requests) for peer in peers) == 1


@pytest.mark.parametrize("fault", ["wrong host", "self-signed", "expired", "plain"])
@on_both_loops
async def test_a_bad_certificate_is_refused_and_nothing_is_said_in_plain(certificates, folder, fault):
    if fault == "wrong host":
        certificates.signed("wrong", names="DNS:localhost")
        server = context(folder, "wrong")
    elif fault == "self-signed":
        server = context(folder, "self")
    elif fault == "expired":
        certificates.signed("late", names="IP:127.0.0.1", days=-1)
        server = context(folder, "late")
    else:
        server = None
    async with served(echo, ssl=server) as (port, peers), pool_to(port, tls=tls(folder)) as pool:
        with pytest.raises(UpstreamUnreachable):
            await post(pool)
        await asyncio.sleep(0.05)
        assert not any(peer.requests for peer in peers)
        assert not pool.reachable


# -- proxies ----------------------------------------------------------------------------------


@on_both_loops
async def test_an_upstream_with_tls_is_reached_through_a_tunnel(certificates, folder):
    async with HTTPProxy() as proxy, served(echo, ssl=context(folder, asks=True)) as (port, peers):
        async with pool_to(port, proxy=proxy.url, tls=tls(folder, **OURS), api_key="sk-canary") as pool:
            for size in (1, 70_000, 1_000_000):
                assert await post(pool, b"x" * size) == b"x" * size
        assert proxy.lines == [f"CONNECT 127.0.0.1:{port} HTTP/1.1"]
        assert "sk-canary" not in "".join(proxy.heads)
        assert b"authorization: Bearer sk-canary" in peers[0].requests[0]


@on_both_loops
async def test_the_certificate_of_the_upstream_is_checked_through_a_tunnel_too(certificates, folder):
    async with HTTPProxy() as proxy, served(echo, ssl=context(folder, "self")) as (port, peers):
        async with pool_to(port, proxy=proxy.url, tls=tls(folder)) as pool:
            with pytest.raises(UpstreamUnreachable):
                await post(pool)
        assert not any(peer.requests for peer in peers)


@on_both_loops
async def test_one_without_tls_is_asked_in_absolute_form(certificates):
    wants = "Basic dTpwdw=="
    async with HTTPProxy(wants=wants) as proxy, served(echo) as (port, peers):
        settings = {"url": proxy.url, "user": "u", "password": "pw"}
        async with pool_to(port, scheme="http", proxy=settings) as pool:
            assert await post(pool, query=b"a=b") == b"abc"
            assert await post(pool, b"") == b""
        assert proxy.lines[0] == f"POST http://127.0.0.1:{port}/v1/x?a=b HTTP/1.1"
        assert peers[0].requests[0].startswith(b"POST /v1/x?a=b HTTP/1.1\r\n")
        assert b"host: 127.0.0.1:%d\r\n" % port in peers[0].requests[0]


@on_both_loops
async def test_a_proxy_that_wants_credentials_is_not_taken_for_the_upstream(certificates):
    async with HTTPProxy(wants="Basic dTpwdw==") as proxy, served(echo) as (port, peers):
        async with pool_to(port, scheme="http", proxy=proxy.url) as pool:
            with pytest.raises(UpstreamUnreachable):
                await post(pool)
            assert not pool.reachable
            assert pool.in_flight == 0
        assert not peers


@on_both_loops
async def test_a_proxy_wants_credentials(certificates, folder):
    wants = "Basic dTpwdw=="
    async with HTTPProxy(wants=wants) as proxy, served(echo, ssl=context(folder)) as (port, peers):
        settings = {"url": proxy.url, "user": "u", "password": "pw"}
        async with pool_to(port, proxy=settings, tls=tls(folder)) as pool:
            assert await post(pool) == b"abc"
        # They are the proxy's alone.
        assert b"dTpwdw==" not in peers[0].requests[0]
        for wrong in ({"url": proxy.url}, {**settings, "password": "no"}):
            async with pool_to(port, proxy=wrong, tls=tls(folder)) as pool:
                with pytest.raises(UpstreamUnreachable) as caught:
                    await post(pool)
                assert "pw" not in f"{caught.value!r} {caught.value.__cause__!r} {pool!r}"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"x" * 20_000,
        b"HTTP/1.1 200 OK\r\n",
    ],
)
@on_both_loops
async def test_a_proxy_that_makes_no_tunnel(certificates, folder, answer):
    async with HTTPProxy(answer=answer) as proxy, served(echo, ssl=context(folder)) as (port, peers):
        async with pool_to(port, proxy=proxy.url, tls=tls(folder)) as pool:
            began = asyncio.get_running_loop().time()
            with pytest.raises(UpstreamUnreachable):
                await post(pool)
            assert asyncio.get_running_loop().time() - began < 20
            assert pool.in_flight == 0
        assert not peers


@on_both_loops
async def test_without_a_word_of_it_the_environment_changes_nothing(certificates, monkeypatch):
    async with HTTPProxy() as proxy, served(echo) as (port, _):
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with pool_to(port, scheme="http") as pool:
            assert await post(pool) == b"abc"
        assert proxy.heads == []
        async with pool_to(port, scheme="http", proxy="environment") as pool:
            assert await post(pool) == b"abc"
        assert len(proxy.heads) == 1
        monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
        async with pool_to(port, scheme="http", proxy="environment") as pool:
            assert await post(pool) == b"abc"
        assert len(proxy.heads) == 1


@on_both_loops
async def test_a_proxy_that_is_away(certificates, folder):
    async with served(echo, ssl=context(folder)) as (port, peers):
        async with pool_to(port, proxy="http://127.0.0.1:1", tls=tls(folder)) as pool:
            with pytest.raises(UpstreamUnreachable):
                await post(pool)
        assert not peers
