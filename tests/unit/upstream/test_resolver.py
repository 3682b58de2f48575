"""Names of upstreams while the name service fails, hangs or changes its mind; the lookup belongs to the test."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from app.upstream import resolver as module
from app.upstream.client import Client, NotConnected
from app.upstream.resolver import LOOKUPS_MAX, Resolver
from tests.fakes.upstream import PlayedUpstream, whole

FIRST = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]
SECOND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.2", 443))]
NO_SUCH_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class NameService:
    """Answers with what is set: addresses, an error, or (None) not at all until ``release``."""

    def __init__(self, answer=FIRST) -> None:
        self.answer = answer
        self.asked = 0
        self.hanging = asyncio.Event()

    async def lookup(self, host: str, port: int):
        assert (host, port) == ("api.invalid", 443)
        self.asked += 1
        await asyncio.sleep(0)
        answer = self.answer
        if answer is None:
            await self.hanging.wait()
            answer = SECOND
        if isinstance(answer, Exception):
            raise answer
        return answer

    def resolver(self, lookup_s_max: float = 0.05) -> Resolver:
        return Resolver("api.invalid", 443, lookup=self.lookup, lookup_s_max=lookup_s_max)


async def test_each_connection_asks_anew():
    names = NameService()
    resolver = names.resolver()
    assert await resolver.addresses() == FIRST
    names.answer = SECOND
    assert await resolver.addresses() == SECOND
    assert (names.asked, resolver.failures) == (2, 0)


async def test_those_who_ask_at_the_same_time_share_an_answer():
    names = NameService()
    resolver = names.resolver()
    assert await asyncio.gather(*(resolver.addresses() for _ in range(50))) == [FIRST] * 50
    assert names.asked == 1


@pytest.mark.parametrize("trouble", [NO_SUCH_NAME, [], None], ids=["error", "nothing", "silence"])
async def test_the_last_good_addresses_serve_while_the_name_service_does_not(trouble):
    names = NameService()
    resolver = names.resolver()
    await resolver.addresses()
    names.answer = trouble
    began_s = time.monotonic()
    assert await resolver.addresses() == FIRST
    assert await resolver.addresses() == FIRST
    assert time.monotonic() - began_s < 20
    assert resolver.failures == 2
    names.answer = SECOND
    names.hanging.set()
    await asyncio.sleep(0.01)
    assert await resolver.addresses() == SECOND
    resolver.close()


async def test_after_ten_minutes_the_last_good_addresses_are_good_no_more(monkeypatch):
    names = NameService()
    resolver = names.resolver()
    await resolver.addresses()
    names.answer = NO_SUCH_NAME
    monkeypatch.setattr(module, "GOOD_FOR_S", 600.0)
    resolver._good_s -= 599
    assert await resolver.addresses() == FIRST
    resolver._good_s -= 2
    with pytest.raises(socket.gaierror):
        await resolver.addresses()


@pytest.mark.parametrize(("trouble", "error"), [(NO_SUCH_NAME, socket.gaierror), ([], OSError), (None, TimeoutError)])
async def test_a_name_that_was_never_known_is_an_error_in_time(trouble, error):
    resolver = NameService(trouble).resolver()
    began_s = time.monotonic()
    with pytest.raises(error):
        await resolver.addresses()
    assert time.monotonic() - began_s < 20
    resolver.close()


async def never_waits(*_args, **_options):
    raise AssertionError


async def test_lookups_that_hang_are_bounded_and_not_waited_for_again(monkeypatch):
    names = NameService(None)
    resolver = names.resolver()
    for _ in range(10):
        with pytest.raises(TimeoutError):
            await resolver.addresses()
    with monkeypatch.context() as patch, pytest.raises(TimeoutError):
        patch.setattr(asyncio, "wait", never_waits)
        await resolver.addresses()
    assert names.asked == LOOKUPS_MAX
    # A late answer is an answer.
    names.hanging.set()
    await asyncio.sleep(0.01)
    names.answer = NO_SUCH_NAME
    assert await resolver.addresses() == SECOND


async def test_whoever_gives_up_waiting_leaves_the_lookup_to_the_others():
    names = NameService(None)
    resolver = names.resolver(lookup_s_max=5)
    first, second = (asyncio.ensure_future(resolver.addresses()) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    names.hanging.set()
    assert await second == SECOND
    assert names.asked == 1


@pytest.mark.parametrize("literal", ["127.0.0.1", "::1"])
async def test_nobody_is_asked_for_an_address(literal):
    async def lookup(_host, _port):
        raise AssertionError

    (found,) = await Resolver(literal, 443, lookup=lookup).addresses()
    assert found[4][:2] == (literal, 443)


async def test_a_client_connects_to_the_last_good_address():
    """Over real sockets: the name is gone, the upstream is not."""
    with PlayedUpstream(lambda _: [*whole(b"{}"), "close"]) as upstream:
        known = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", upstream.port))]
        answers = [known, NO_SUCH_NAME, known, None]

        async def lookup(_host, _port):
            answer = answers.pop(0)
            if answer is None:
                await asyncio.sleep(60)
            if isinstance(answer, Exception):
                raise answer
            return answer

        def client() -> Client:
            return Client(
                host="api.invalid",
                port=upstream.port,
                tls=None,
                base_path="/v1",
                connect_timeout_s=1,
                keepalive_timeout_s=4,
                connections_max=10,
                lookup=lookup,
            )

        one = client()
        for _ in range(4):
            answer = await one.request(b"GET", b"/x", [], None)
            assert await answer.read_any() == b"{}"
            answer.close()
            # The upstream hangs up without having said so: a request that crosses that would be lost.
            while one.idle:
                await asyncio.sleep(0.001)
        await one.close()
        assert [request.headers["host"] for request in upstream.requests] == [f"api.invalid:{upstream.port}"] * 4

        answers[:] = [NO_SUCH_NAME]
        other = client()
        with pytest.raises(NotConnected, match="gaierror"):
            await other.request(b"GET", b"/x", [], None)
        await other.close()
