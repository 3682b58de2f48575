"""Posts on one server: who made one hears what became of it, once; and the run that it was meant for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.store.redis import RedisClient, RedisReplyError, RedisUnavailable, Script, link
from tests.contract.redis.harness import APPEND, ECHO, FAIL, PlayedServer, Posts, States, eventually, run_id
from tests.fakes.valkey import ValkeyServer


@pytest.fixture
async def refusals() -> list[tuple[str, str]]:
    return []


@pytest.fixture
async def client(server: ValkeyServer, refusals: list[tuple[str, str]]) -> AsyncIterator[RedisClient]:
    client = RedisClient(server.url, on_refused=lambda name, text: refusals.append((name, text)))
    await client.start()
    yield client
    server.restore()
    await client.close()


async def test_an_answered_post_tells_its_reply(client: RedisClient) -> None:
    posts = Posts(client)
    for n in range(20):
        posts.append("list", f"p{n}")
    assert await client.drain(20)
    assert posts.answers == {f"p{n}": n + 1 for n in range(20)}
    assert posts.lost == []


async def test_a_post_over_a_lost_connection_is_told_once(client: RedisClient, server: ValkeyServer) -> None:
    posts = Posts(client)
    server.freeze()
    for n in range(5):
        posts.append("list", f"in flight {n}")
    await eventually(lambda: not client.up)
    for n in range(5):
        posts.append("list", f"kept {n}")
    assert posts.answers == {}
    server.resume()
    await eventually(lambda: client.up)
    assert await client.drain(20)
    assert list(posts.answers) == posts.made
    assert posts.lost == []


async def test_refused_posts_are_lost_and_the_operator_hears_of_the_change_only(
    client: RedisClient, server: ValkeyServer, refusals: list[tuple[str, str]]
) -> None:
    server.execute("SET", "text", "no number")
    posts = Posts(client)
    for n in range(10):
        posts.append("text", f"bad {n}", FAIL)
    posts.append("list", "good")
    assert await client.drain(20)
    assert posts.lost == [f"bad {n}" for n in range(10)]
    assert posts.answers == {"good": 1}
    assert [name for name, _ in refusals] == ["fail"]
    assert "not an integer" in refusals[0][1]
    assert client.posts_dropped == 10
    posts.append("number", "works", FAIL)
    posts.append("text", "bad again", FAIL)
    assert await client.drain(20)
    assert [name for name, _ in refusals] == ["fail", "fail"]
    assert posts.all_told


async def test_posts_to_a_demoted_server_are_kept_until_it_can_be_written(
    client: RedisClient, server: ValkeyServer, refusals: list[tuple[str, str]]
) -> None:
    posts = Posts(client)
    server.execute("REPLICAOF", "127.0.0.1", "1")
    for n in range(3):
        posts.append("list", f"p{n}")
    await eventually(lambda: not client.up)
    assert posts.answers == {}
    server.execute("REPLICAOF", "NO", "ONE")
    assert await client.drain(20)
    assert server.execute("LRANGE", "list", 0, -1) == [b"p0", b"p1", b"p2"]
    assert list(posts.answers) == posts.made
    assert refusals == []
    assert client.posts_dropped == 0


async def test_posts_past_the_bounds_are_told(
    client: RedisClient, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "POSTS_MAX", 3)
    posts = Posts(client)
    server.kill()
    await eventually(lambda: not client.up)
    for n in range(5):
        posts.append("list", f"p{n}")
    assert posts.lost == ["p0", "p1"]
    monkeypatch.setattr(link, "POST_AGE_S_MAX", 0.05)
    # The server stays away: whoever waits for word of a post does not wait for the server.
    await eventually(lambda: posts.lost == ["p0", "p1", "p2", "p3", "p4"])
    assert client.posts_dropped == 5
    server.start()
    await eventually(lambda: client.up)
    assert server.execute("LLEN", "list") == 0


async def test_more_posts_than_can_be_answered_at_once_do_not_wear_the_connection_out(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each portion has the timeout for itself, and calls wait for the last: they are younger."""
    slow = Script("slow", "for i = 1, 40000 do end return redis.call('RPUSH', KEYS[1], ARGV[1])")
    monkeypatch.setattr(link, "POSTS_AT_ONCE", 50)
    states = States()
    client = RedisClient(server.url, on_state=states)
    await client.start()
    server.kill()
    await eventually(lambda: not client.up)
    posts = Posts(client)
    for n in range(3000):
        posts.append("list", str(n), slow)
    server.start()
    await eventually(lambda: len(posts.answers) > 100)
    if not client.up:
        posts.append("list", "younger", slow)
    assert await client.drain(20)
    assert list(posts.answers) == posts.made
    assert list(posts.answers.values()) == [*range(1, len(posts.made) + 1)]
    assert states.ups == [True, False, True]
    assert client.posts_dropped == 0
    await client.close()


async def test_a_close_while_kept_posts_are_sent_tells_of_each(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "POSTS_AT_ONCE", 5)
    client = RedisClient(server.url)
    await client.start()
    server.kill()
    await eventually(lambda: not client.up)
    posts = Posts(client)
    for n in range(500):
        posts.append("list", str(n))
    server.start()
    await eventually(lambda: len(posts.answers) > 5)
    await client.close(drain_s=0)
    assert posts.all_told
    assert len(posts.lost) > 5


async def test_posts_left_over_at_the_close_are_told(server: ValkeyServer) -> None:
    client = RedisClient(server.url)
    await client.start()
    posts = Posts(client)
    server.freeze()
    posts.append("list", "in flight")
    await asyncio.sleep(0.02)
    server.kill()
    await eventually(lambda: not client.up)
    posts.append("list", "kept")
    await client.close(drain_s=0.05)
    assert posts.lost == ["in flight", "kept"]
    posts.append("list", "after the close")
    assert posts.lost == ["in flight", "kept", "after the close"]
    assert client.posts_dropped == 3


async def test_posts_before_the_start_are_sent_after_it_or_told(server: ValkeyServer) -> None:
    client = RedisClient(server.url)
    posts = Posts(client)
    posts.append("list", "early")
    await client.start()
    assert await client.drain(20)
    assert posts.answers == {"early": 1}
    await client.close()

    never_started = RedisClient(server.url)
    posts = Posts(never_started)
    posts.append("list", "early")
    await never_started.close()
    assert posts.lost == ["early"]


async def test_a_callback_that_fails_costs_nobody_else_an_answer(client: RedisClient) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fail(reply: Any) -> None:
        raise LookupError(str(reply))

    client.post(APPEND, ["list"], ["a"], fail)
    answer = client.call(ECHO, [], ["b"])
    assert await answer == b"b"
    assert client.up
    assert [str(context["exception"]) for context in reported] == ["1"]


async def test_the_run_is_known_before_the_first_call_to_it(client: RedisClient, server: ValkeyServer) -> None:
    first = client.run_id_for("any")
    assert first == run_id(server)
    server.kill()
    await eventually(lambda: not client.up)
    assert client.run_id_for("any") is None
    server.start()
    while not client.up:
        assert client.run_id_for("any") is None
        await asyncio.sleep(0)
    second = client.run_id_for("any")
    assert second == run_id(server)
    assert second != first


async def test_a_flush_and_a_new_connection_leave_the_run_as_it_was(client: RedisClient, server: ValkeyServer) -> None:
    first = client.run_id_for("any")
    server.execute("FLUSHALL")
    server.execute("CLIENT", "KILL", "TYPE", "normal")
    await eventually(lambda: not client.up)
    await eventually(lambda: client.up)
    assert client.run_id_for("any") == first


async def test_posts_kept_over_a_restart_carry_the_run_they_were_made_for(
    client: RedisClient, server: ValkeyServer
) -> None:
    """So that a script which was told the run refuses them, whatever else has been forgotten."""
    told: list[Any] = []
    before = client.run_id_for("key")
    assert before is not None
    server.freeze()
    client.post(ECHO, ["key"], [before], told.append)
    await asyncio.sleep(0.02)
    server.kill()
    await eventually(lambda: not client.up)
    server.start()
    assert await client.drain(20)
    assert told == [before.encode()]
    assert client.run_id_for("key") != before


async def test_a_server_that_does_not_tell_its_run_is_not_used(server: ValkeyServer) -> None:
    server.execute("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "-info")
    client = RedisClient(server.url.replace("unix://", "unix://narrow:pw@"))
    await client.start()
    assert not client.up
    assert "NOPERM" in repr(client)
    server.execute("ACL", "SETUSER", "narrow", "+info", "-role", "-client")
    await eventually(lambda: client.up)
    server.execute("ACL", "DELUSER", "narrow")
    await client.close()


async def test_a_user_needs_no_more_than_the_operations_manual_says(server: ValkeyServer) -> None:
    rights = "~hg:* -@all +auth +client +evalsha +info +ping +role +script +select +rpush +llen"
    server.execute("ACL", "SETUSER", "narrow", "on", ">pw", *rights.split())
    client = RedisClient(server.url.replace("unix://", "unix://narrow:pw@") + "?db=1")
    await client.start()
    assert await client.call(APPEND, ["hg:{a}:list"], ["x"]) == 1
    with pytest.raises(RedisReplyError):
        await client.call(APPEND, ["other"], ["x"])
    await client.close()
    server.execute("ACL", "DELUSER", "narrow")
    server.execute("FLUSHALL")


async def test_ordinary_commands(client: RedisClient, server: ValkeyServer) -> None:
    server.execute("ZADD", "due", "1", "a", "2", "b", "3", "c")
    assert await client.command("due", "ZRANGEBYSCORE", "due", 2, "+inf", "LIMIT", 0, 10) == [b"b", b"c"]
    with pytest.raises(RedisReplyError, match="WRONGTYPE"):
        await client.command("due", "GET", "due")
    server.freeze()
    began = time.monotonic()
    with pytest.raises(RedisUnavailable):
        await client.command("due", "ZCARD", "due")
    assert 0.28 < time.monotonic() - began < 5
    with pytest.raises(RedisUnavailable) as caught:
        client.command("due", "ZCARD", "due")
    assert not caught.value.sent


async def test_a_url_of_a_sentinel_says_what_is_wrong() -> None:
    """Nothing is posted to something that is no store."""
    sentinel = PlayedServer(lambda words: ["sentinel", []] if words == ["ROLE"] else "OK")
    await sentinel.start()
    client = RedisClient(f"redis://127.0.0.1:{sentinel.port}")
    await client.start()
    assert "redis+sentinel://" in repr(client)
    await client.close()
    await sentinel.stop()


async def test_a_script_that_nobody_knows_any_more_is_loaded_for_posts_too(
    client: RedisClient, server: ValkeyServer
) -> None:
    posts = Posts(client)
    posts.append("list", "first", Script("own", "redis.call('SET', KEYS[1], ARGV[1]) return 'done'"))
    assert await client.drain(20)
    server.execute("SCRIPT", "FLUSH")
    posts.append("list", "second", Script("own", "redis.call('SET', KEYS[1], ARGV[1]) return 'done'"))
    assert await client.drain(20)
    assert posts.answers == {"first": b"done", "second": b"done"}


@pytest.mark.parametrize("at_once", [True, False])
async def test_what_leaves_at_once_is_there_before_the_loop_goes_on(
    client: RedisClient, server: ValkeyServer, at_once: bool
) -> None:
    script = Script(f"set_{at_once}", "return redis.call('SET', KEYS[1], ARGV[1])", at_once=at_once)
    await client.call(script, ["warm"], ["up"])
    client.post(script, ["told"], ["yes"])
    until_s = time.monotonic() + (5 if at_once else 0.2)
    while (found := server.execute("GET", "told")) is None and time.monotonic() < until_s:
        time.sleep(0.001)
    assert (found == b"yes") is at_once
    assert await client.drain(20)
    assert server.execute("GET", "told") == b"yes"
