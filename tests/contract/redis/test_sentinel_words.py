"""What becomes of a sentinel's word: played sentinels say what real ones say only at the worst moments."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.store.redis import RedisUnavailable, SentinelAddress, connect, parse_url
from app.store.redis.sentinel import SentinelLocator
from tests.contract.redis.harness import ECHO, PlayedServer, certificate, needs_tls
from tests.fakes.valkey import DEBIAN_REDIS_SERVER, ValkeyServer, free_ports


class PlayedSentinel(PlayedServer):
    """Names ``master`` with ``epoch``, and ``others`` as the sentinels beside it."""

    def __init__(self) -> None:
        super().__init__(self._say)
        self.master: tuple[str, int] = ("10.0.0.1", 1)
        self.epoch = 0
        self.others: list[tuple[str, int]] = []

    def _say(self, words: list[str]) -> Any:
        host, port = self.master
        if words[1] == "GET-MASTER-ADDR-BY-NAME":
            return [host, str(port)]
        if words[1] == "MASTER":
            return ["name", "gate", "config-epoch", str(self.epoch)]
        return [["name", "x", "ip", host, "port", str(port)] for host, port in self.others]


@pytest.fixture
async def pair() -> AsyncIterator[tuple[PlayedSentinel, PlayedSentinel]]:
    first, second = PlayedSentinel(), PlayedSentinel()
    await first.start()
    await second.start()
    yield first, second
    await first.stop()
    await second.stop()


@pytest.fixture
async def locator(pair: tuple[PlayedSentinel, PlayedSentinel]) -> AsyncIterator[SentinelLocator]:
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in pair)
    address = parse_url(f"redis+sentinel://{hosts}/gate")
    assert isinstance(address, SentinelAddress)
    locator = SentinelLocator(address)
    yield locator
    locator.close()
    await asyncio.sleep(0)


async def test_old_news_is_not_followed(locator: SentinelLocator, pair: tuple[PlayedSentinel, PlayedSentinel]) -> None:
    first, second = pair
    first.master, first.epoch = ("10.0.0.2", 2), 5
    second.master, second.epoch = ("10.0.0.1", 1), 4
    for _ in range(4):  # whoever is asked first
        assert (await locator.locate()).host == "10.0.0.2"


async def test_sentinels_that_were_set_up_anew_are_believed(
    locator: SentinelLocator, pair: tuple[PlayedSentinel, PlayedSentinel]
) -> None:
    first, second = pair
    first.epoch = second.epoch = 7
    await locator.locate()
    first.master, first.epoch = ("10.0.0.3", 3), 1
    second.epoch = 0
    for _ in range(3):
        assert (await locator.locate()).host == "10.0.0.3"


async def test_a_failover_is_objected_to_and_old_news_is_not(
    locator: SentinelLocator, pair: tuple[PlayedSentinel, PlayedSentinel]
) -> None:
    first, second = pair
    first.epoch = second.epoch = 3
    here = await locator.locate()
    assert await locator.objection(here) is None
    first.master, first.epoch = ("10.0.0.9", 9), 2
    assert await locator.objection(here) is None
    first.epoch = 4
    assert await locator.objection(here) == "the sentinels name 10.0.0.9:9 as the master now"
    assert first.connections == 1  # asked again and again over the same one
    second.master, second.epoch = first.master, first.epoch
    assert (await locator.locate()).host == "10.0.0.9"


async def test_a_sentinel_that_is_gone_is_no_objection_and_the_next_is_asked(
    locator: SentinelLocator, pair: tuple[PlayedSentinel, PlayedSentinel]
) -> None:
    first, second = pair
    here = await locator.locate()
    await first.stop()
    second.master, second.epoch = ("10.0.0.9", 9), 1
    objections = [await locator.objection(here) for _ in range(3)]
    assert objections[0] is None
    assert "10.0.0.9:9" in str(objections[1:])


async def test_sentinels_are_learnt_up_to_a_bound(
    locator: SentinelLocator, pair: tuple[PlayedSentinel, PlayedSentinel]
) -> None:
    first, second = pair
    first.others = [("127.0.0.1", 1), *((f"10.9.9.{n}", 26379) for n in range(100))]
    await locator.locate()
    assert len(locator._sentinels) == 32
    assert ("127.0.0.1", second.port) in locator._sentinels


async def test_what_is_no_sentinels_word_is_an_error(
    locator: SentinelLocator, pair: tuple[PlayedSentinel, PlayedSentinel]
) -> None:
    for sentinel in pair:
        sentinel.master = ("10.0.0.1", "port")  # type: ignore[assignment]
    with pytest.raises(RedisUnavailable, match="no sentinel names the master"):
        await locator.locate()


async def test_tls_goes_for_sentinels_and_master(tmp_path: Path) -> None:
    needs_tls()
    key, chain = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain, key)
    sentinel = PlayedSentinel()
    await sentinel.start(tls)
    [port] = free_ports(1)
    options = ["--tls-port", str(port), "--tls-cert-file", chain, "--tls-key-file", key, "--tls-auth-clients", "no"]
    with ValkeyServer(DEBIAN_REDIS_SERVER, *options):
        sentinel.master = ("localhost", port)
        client = connect(f"rediss+sentinel://localhost:{sentinel.port}/gate?ssl_ca_certs={chain}")
        await client.start()
        assert client.up, client
        assert await client.call(ECHO, ["key"], ["x"]) == b"x"
        await client.close()
        doubting = connect(f"rediss+sentinel://localhost:{sentinel.port}/gate")
        await doubting.start()
        assert "certificate" in repr(doubting)
        await doubting.close()
    await sentinel.stop()
