"""The client of one server: one write per turn, no foreign answers, no waiting for the dead."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from app.store.redis import RedisClient, RedisError, RedisReplyError, RedisUnavailable, Script, link
from tests.contract.redis.harness import APPEND, ECHO, FAIL, States, certificate, eventually, needs_tls
from tests.fakes.valkey import DEBIAN_REDIS_SERVER, ValkeyServer

SPIN = Script("spin", "local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + 1 end return n")


@pytest.fixture
async def client(server: ValkeyServer) -> AsyncIterator[RedisClient]:
    client = RedisClient(server.url)
    await client.start()
    yield client
    server.restore()
    await client.close()


@pytest.fixture
async def patient(server: ValkeyServer) -> AsyncIterator[RedisClient]:
    """One whose calls do not time out while a test runs, however busy the machine is."""
    client = RedisClient(server.url, timeout_s=60)
    await client.start()
    yield client
    server.restore()
    await client.close()


async def test_a_thousand_calls_with_cancelled_callers_get_no_foreign_answers(patient: RedisClient) -> None:
    source = random.Random(3)
    answers: dict[int, object] = {}

    async def caller(number: int) -> None:
        for _ in range(source.randrange(3)):
            await asyncio.sleep(0)
        for turn in range(5):
            word = f"{number}.{turn}".encode()
            answers[number] = answer = await patient.call(ECHO, [], [word])
            assert answer == word

    callers = [asyncio.create_task(caller(number)) for number in range(1000)]
    cancelled = source.sample(callers, 400)
    for task in cancelled:
        if source.random() < 0.1:
            await asyncio.sleep(0)
        task.cancel()
    done = await asyncio.gather(*callers, return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in done)
    assert sum(outcome is None for outcome in done) >= 600
    assert "in flight 0" in repr(patient)


async def test_a_refused_command_fails_alone(client: RedisClient, server: ValkeyServer) -> None:
    server.execute("SET", "text", "not a number")
    calls = [client.call(FAIL, ["text"], []) if n % 3 == 0 else client.call(ECHO, [], [n]) for n in range(30)]
    done = await asyncio.gather(*calls, return_exceptions=True)
    for n, outcome in enumerate(done):
        if n % 3 == 0:
            assert isinstance(outcome, RedisReplyError)
            assert "not an integer" in str(outcome)
        else:
            assert outcome == str(n).encode()
    assert client.up


async def test_calls_and_posts_are_executed_in_their_order(client: RedisClient, server: ValkeyServer) -> None:
    for n in range(50):
        client.post(APPEND, ["list"], [n])
        assert await client.call(APPEND, ["list"], [f"call {n}"]) == 2 * n + 2
    for n in range(50):  # a script that the server does not know yet does not let others pass
        fresh = Script("fresh", f"redis.call('RPUSH', KEYS[1], ARGV[1]) return {n}")
        client.post(fresh, ["other"], ["first"])
        assert await client.call(APPEND, ["other"], ["second"]) == 2
        server.execute("DEL", "other")


async def test_one_turn_is_one_write(client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    await client.call(ECHO, [], ["warm"])
    transport = client._link._connection._transport  # type: ignore[union-attr]
    writes: list[int] = []

    class Counting:
        def write(self, data: bytes) -> None:
            writes.append(len(data))
            transport.write(data)

        def abort(self) -> None:
            transport.abort()

    monkeypatch.setattr(client._link._connection, "_transport", Counting())
    await asyncio.gather(*(client.call(ECHO, [], [n]) for n in range(64)))
    assert len(writes) == 1


async def test_a_flushed_script_is_loaded_once_for_all(client: RedisClient, server: ValkeyServer) -> None:
    await client.call(ECHO, [], ["warm"])
    server.execute("SCRIPT", "FLUSH")
    server.execute("CONFIG", "RESETSTAT")
    assert await asyncio.gather(*(client.call(ECHO, [], [n]) for n in range(200))) == [
        str(n).encode() for n in range(200)
    ]
    stats = server.execute("INFO", "commandstats").decode()
    assert "cmdstat_script|load:calls=1," in stats


async def test_a_script_that_does_not_compile_is_the_callers_error(client: RedisClient) -> None:
    for _ in range(2):
        with pytest.raises(RedisReplyError, match="NOSCRIPT"):
            await client.call(Script("broken", "this is not Lua"), [], [])
    assert await client.call(ECHO, [], ["fine"]) == b"fine"
    gc.collect()  # an answer that nobody looked at would be reported here


async def test_a_lost_connection_is_told_to_everyone_at_once(patient: RedisClient, server: ValkeyServer) -> None:
    client = patient
    server.freeze()
    calls = [client.call(ECHO, [], [n]) for n in range(200)]
    await asyncio.sleep(0.02)
    began = time.monotonic()
    server.kill()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - began < 20
    assert all(isinstance(outcome, RedisUnavailable) and outcome.sent for outcome in done)
    with pytest.raises(RedisUnavailable) as caught:
        await client.call(ECHO, [], ["down"])
    assert not caught.value.sent
    server.start()
    await eventually(lambda: client.up)
    assert await client.call(ECHO, [], ["back"]) == b"back"


async def test_a_frozen_server_times_out_then_fails_fast_until_it_answers(server: ValkeyServer) -> None:
    states = States()
    client = RedisClient(server.url, on_state=states)
    await client.start()
    server.freeze()
    began = time.monotonic()
    done = await asyncio.gather(*(client.call(ECHO, [], [n]) for n in range(1000)), return_exceptions=True)
    assert 0.28 < time.monotonic() - began < 5
    assert all(isinstance(outcome, RedisUnavailable) for outcome in done)
    began = time.monotonic()
    for _ in range(1000):
        with pytest.raises(RedisUnavailable):
            client.call(ECHO, [], ["down"])
    assert time.monotonic() - began < 20  # a thousand timeouts are five minutes
    await asyncio.sleep(0.5)  # a connection to a frozen server can be made: only an answer counts
    assert not client.up
    assert states.ups == [True, False]
    server.resume()
    await eventually(lambda: client.up)
    assert states.ups == [True, False, True]
    assert await client.call(ECHO, [], ["back"]) == b"back"
    await client.close()


async def test_a_server_that_freezes_while_idle_is_noticed_by_the_probe(server: ValkeyServer) -> None:
    client = RedisClient(server.url)
    await client.start()
    server.freeze()
    await eventually(lambda: not client.up)
    server.resume()
    await client.close()


async def test_an_answer_after_its_timeout_is_nobodys(server: ValkeyServer) -> None:
    client = RedisClient(server.url, timeout_s=0.05)
    await client.start()
    with pytest.raises(RedisUnavailable):
        await client.call(SPIN, [], [20_000_000])
    for n in range(20):
        await eventually(lambda: client.up)
        try:
            assert await client.call(ECHO, [], [n]) == str(n).encode()
        except RedisUnavailable:
            continue
    deadline = time.monotonic() + 30
    while True:
        await eventually(lambda: client.up)
        with contextlib.suppress(RedisUnavailable):
            assert await client.call(ECHO, [], ["mine"]) == b"mine"
            break
        assert time.monotonic() < deadline
    await client.close()


async def test_a_loop_that_stood_still_is_not_the_servers_fault(client: RedisClient) -> None:
    for turns_before_it in range(4):
        call = client.call(ECHO, [], ["slow loop"])
        for _ in range(turns_before_it):
            await asyncio.sleep(0)
        time.sleep(0.4)
        assert await call == b"slow loop"


async def test_posts_survive_a_lost_connection_in_their_order(client: RedisClient, server: ValkeyServer) -> None:
    server.freeze()
    for n in range(5):
        client.post(APPEND, ["list"], [n])
    await eventually(lambda: not client.up)
    for n in range(5, 10):
        client.post(APPEND, ["list"], [n])
    server.resume()
    await eventually(lambda: client.up)
    assert await client.drain(20)
    # The first five were in the frozen server's socket too: sent twice, never lost, never out of order.
    expected = [str(n).encode() for n in range(10)]
    listed = server.execute("LRANGE", "list", 0, -1)
    assert [*dict.fromkeys(listed)] == expected
    assert client.posts_dropped == 0


async def test_posts_that_were_in_flight_go_before_those_made_since(client: RedisClient, server: ValkeyServer) -> None:
    server.freeze()
    for n in range(5):
        client.post(APPEND, ["list"], [n])
    await asyncio.sleep(0.02)
    server.kill()
    while client.up:
        await asyncio.sleep(0)
    for n in range(5, 10):
        client.post(APPEND, ["list"], [n])
    server.start()
    await eventually(lambda: client.up)
    assert await client.drain(20)
    assert server.execute("LRANGE", "list", 0, -1) == [str(n).encode() for n in range(10)]


async def test_posts_beyond_the_bound_are_dropped_oldest_first(
    client: RedisClient, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "POSTS_MAX", 10)
    server.kill()
    await eventually(lambda: not client.up)
    for n in range(25):
        client.post(APPEND, ["list"], [n])
    assert client.posts_dropped == 15
    assert "posts kept 10" in repr(client)
    server.start()
    await eventually(lambda: client.up)
    assert await client.drain(20)
    assert server.execute("LRANGE", "list", 0, -1) == [str(n).encode() for n in range(15, 25)]


async def test_posts_that_grew_old_are_dropped(
    client: RedisClient, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "POST_AGE_S_MAX", 0.05)
    server.kill()
    await eventually(lambda: not client.up)
    client.post(APPEND, ["list"], ["old"])
    await asyncio.sleep(0.1)
    server.start()
    await eventually(lambda: client.up)
    assert await client.drain(20)
    assert server.execute("LLEN", "list") == 0
    assert client.posts_dropped == 1


async def test_a_refused_post_is_counted_and_not_repeated(client: RedisClient, server: ValkeyServer) -> None:
    server.execute("SET", "text", "not a number")
    client.post(FAIL, ["text"], [])
    assert await client.drain(20)
    assert client.posts_dropped == 1


async def test_too_many_in_flight_are_refused(
    patient: RedisClient, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = patient
    monkeypatch.setattr(link, "IN_FLIGHT_MAX", 20)
    await client.call(ECHO, [], ["warm"])
    server.freeze()
    calls = [client.call(ECHO, [], [n]) for n in range(20)]
    with pytest.raises(RedisUnavailable, match="in flight") as caught:
        client.call(ECHO, [], ["one more"])
    assert not caught.value.sent
    client.post(ECHO, [], ["dropped"])
    assert client.posts_dropped == 1
    server.resume()
    assert await asyncio.gather(*calls) == [str(n).encode() for n in range(20)]


async def test_a_demoted_server_is_down_until_it_can_be_written_again(
    client: RedisClient, server: ValkeyServer
) -> None:
    server.execute("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(RedisReplyError, match="READONLY"):
        await client.call(APPEND, ["list"], ["x"])
    assert not client.up
    await asyncio.sleep(0.3)
    assert not client.up
    assert "replica" in repr(client)
    server.execute("REPLICAOF", "NO", "ONE")
    await eventually(lambda: client.up)
    assert await client.call(APPEND, ["list"], ["x"]) == 1


async def test_a_url_with_a_database_and_a_password() -> None:
    with ValkeyServer(None, "--requirepass", "s3cret/word") as plain:
        if not plain.owned:
            pytest.skip("needs a server of its own")
        path = plain.url.removeprefix("unix://")
        states = States()
        client = RedisClient(f"unix://:s3cret%2Fword@{path}?db=3", on_state=states)
        await client.start()
        assert await client.call(APPEND, ["list"], ["x"]) == 1
        assert "keys=1" in plain.execute("INFO", "keyspace").decode()
        assert "db3" in plain.execute("INFO", "keyspace").decode()
        assert b"name=headgate" in plain.execute("CLIENT", "LIST")
        for url, reason in (
            (f"unix://:wr0ng@{path}", "WRONGPASS"),
            (f"unix://nobody:wr0ng@{path}", "WRONGPASS"),
            (f"unix://{path}", "NOAUTH"),
        ):
            refused = RedisClient(url, on_state=states)
            await refused.start()
            assert not refused.up
            assert reason in repr(refused)
            assert states.seen[-1][0] is False
            await refused.close()
        printed = repr(client) + repr(states.seen)
        assert "s3cret" not in printed
        assert "wr0ng" not in printed
        await client.close()


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol"), (b"+PONG\r\n" * 9, "nobody asked"), (b"", "closed")],
)
async def test_what_is_no_redis_is_down(greeting: bytes, reason: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(greeting)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    client = RedisClient(f"redis://127.0.0.1:{port}/0")
    await client.start()
    assert not client.up
    assert reason in repr(client)
    with pytest.raises(RedisUnavailable):
        client.call(ECHO, [], ["x"])
    await client.close()
    listening.close()
    await listening.wait_closed()


async def test_nobody_listens() -> None:
    states = States()
    client = RedisClient("redis://127.0.0.1:1", on_state=states)
    with pytest.raises(RedisUnavailable, match="not started"):
        client.call(ECHO, [], ["x"])
    await client.start()
    await asyncio.sleep(0.2)
    assert states.ups == [False]
    assert repr(client).startswith("RedisClient(redis://127.0.0.1:1/0, down: ")
    began = time.monotonic()
    await client.close(drain_s=60)
    assert time.monotonic() - began < 20  # nothing is kept, so nothing is waited for
    await client.close()


@pytest.mark.parametrize("url", ["redis://a..b/0", "unix:///no/such/socket", "unix:///%00"])
async def test_a_place_that_cannot_be_is_down(url: str) -> None:
    client = RedisClient(url)
    await client.start()
    assert not client.up
    await client.close()


async def test_after_close_nothing_is_taken(server: ValkeyServer) -> None:
    client = RedisClient(server.url)
    await client.start()
    server.freeze()
    waiting = client.call(ECHO, [], ["x"])
    await client.close()
    with pytest.raises(RedisUnavailable, match="closed"):
        await waiting
    with pytest.raises(RedisUnavailable, match="closed"):
        client.call(ECHO, [], ["x"])
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


def test_the_same_on_uvloop(own_server: ValkeyServer) -> None:
    async def scenario() -> None:
        client = RedisClient(own_server.url)
        await client.start()
        assert await asyncio.gather(*(client.call(ECHO, [], [n]) for n in range(500))) == [
            str(n).encode() for n in range(500)
        ]
        own_server.freeze()
        calls = [client.call(ECHO, [], [n]) for n in range(20)]
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, RedisUnavailable) for outcome in done)
        own_server.kill()
        own_server.start()
        await eventually(lambda: client.up)
        call = client.call(ECHO, [], ["slow loop"])
        time.sleep(0.4)
        assert await call == b"slow loop"
        await client.close()

    uvloop.run(scenario())


async def test_tls(tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> None:
    needs_tls()
    key, chain = certificate(tmp_path)
    port = unused_tcp_port_factory()
    options = ["--tls-port", str(port), "--tls-cert-file", chain, "--tls-key-file", key]
    with ValkeyServer(DEBIAN_REDIS_SERVER, *options, "--tls-auth-clients", "no"):
        trusting = RedisClient(f"rediss://localhost:{port}/0?ssl_ca_certs={chain}")
        await trusting.start()
        assert trusting.up, trusting
        assert await trusting.call(ECHO, [], ["x" * 100_000]) == b"x" * 100_000
        await trusting.close()
        doubting = RedisClient(f"rediss://localhost:{port}/0")
        await doubting.start()
        assert "certificate" in repr(doubting)
        await doubting.close()


def test_every_error_of_the_client_is_one_kind() -> None:
    assert issubclass(RedisUnavailable, RedisError)
    assert issubclass(RedisReplyError, RedisError)
