"""What the store in Redis makes of its server: whose values it believes, and what it sends."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.cache import redis
from app.cache.entry import JSON_FORM, STREAM_FORM, Look
from app.cache.packing import pack
from app.cache.redis import BODY_BYTES_MAX, LEASE_MS, RedisStore
from app.core.clock import SystemClock
from app.store.redis import RedisClient
from tests.contract.cache.harness import (
    HOUR_MS,
    SECRET,
    START_MS,
    TestClock,
    address,
    connected,
    entry,
    eventually,
    key,
)
from tests.fakes.valkey import ValkeyServer

WHERE = address(1)
OTHER_FORM = address(1, STREAM_FORM)
LEASE = f"{key(WHERE)}:lease"


async def kept(store: RedisStore, *places: object) -> None:
    """An entry at each of the places, and the server has it."""
    for where in places or (WHERE,):
        store.keep(where, entry())
        assert (await store.look(where)).entry is not None


# -- keys and times -----------------------------------------------------------------------------


async def test_keys_have_the_digest_as_their_hash_tag(store: RedisStore, shared_server: ValkeyServer) -> None:
    await store.look(WHERE, token="a")
    assert shared_server.execute("KEYS", "*") == [LEASE.encode()]
    await kept(store)
    digest = "0" * 63 + "1"
    assert sorted(shared_server.execute("KEYS", "*")) == [
        b"hg:cache:{%s}:json" % digest.encode(),
        b"hg:cache:{%s}:json:lease" % digest.encode(),
    ]


async def test_the_server_forgets_what_is_over(store: RedisStore, shared_server: ValkeyServer) -> None:
    derived = (OTHER_FORM, entry(ttl_ms=2 * HOUR_MS))
    store.keep(WHERE, entry(), derived=derived)
    await store.look(WHERE)
    assert HOUR_MS - 1000 < shared_server.execute("PTTL", key(WHERE)) <= HOUR_MS
    assert 2 * HOUR_MS - 1000 < shared_server.execute("PTTL", key(OTHER_FORM)) <= 2 * HOUR_MS
    store.keep(WHERE, entry(expires_at_ms=START_MS - HOUR_MS))
    await asyncio.sleep(0.01)
    assert shared_server.execute("EXISTS", key(WHERE)) == 0


async def test_a_lease_ends_by_the_servers_clock(store: RedisStore, shared_server: ValkeyServer) -> None:
    await store.look(WHERE, token="a")
    assert LEASE_MS - 500 < shared_server.execute("PTTL", LEASE) <= LEASE_MS
    shared_server.execute("PEXPIRE", LEASE, 50)
    store.renew(WHERE, "b")
    await store.look(WHERE)
    assert shared_server.execute("PTTL", LEASE) <= 50
    store.renew(WHERE, "a")
    await store.look(WHERE)
    assert LEASE_MS - 500 < shared_server.execute("PTTL", LEASE) <= LEASE_MS
    shared_server.execute("PEXPIRE", LEASE, 1)
    await asyncio.sleep(0.01)
    assert await store.look(WHERE, token="b") == Look(holder="b")


async def test_a_lease_that_lapsed_is_put_back_for_as_long_as_any(
    store: RedisStore, shared_server: ValkeyServer
) -> None:
    await store.look(WHERE, token="a")
    shared_server.flush()
    store.renew(WHERE, "a")
    assert await store.look(WHERE) == Look()
    assert shared_server.execute("GET", LEASE) == b"a"
    assert LEASE_MS - 500 < shared_server.execute("PTTL", LEASE) <= LEASE_MS
    store.renew(WHERE, "b")
    assert await store.look(WHERE, token="c", lease_only=True) == Look(holder="a")


async def test_the_lease_only_reads_no_value(store: RedisStore, shared_server: ValkeyServer) -> None:
    shared_server.execute("SET", key(WHERE), "broken")
    shared_server.execute("CONFIG", "RESETSTAT")
    assert await store.look(WHERE, also=STREAM_FORM, token="a", lease_only=True) == Look(holder="a")
    assert await store.look(WHERE, also=STREAM_FORM, lease_only=True) == Look()
    told = shared_server.execute("INFO", "commandstats").decode()
    assert "cmdstat_get:calls=1," in told
    assert "cmdstat_evalsha:calls=1," in told
    assert store.corrupt == 0
    waiting = asyncio.create_task(store.look(address(2), token="a", lease_only=True))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await store.look(address(2), token="b") == Look(holder="b")


async def test_a_stamp_counts_whatever_the_server_keeps(
    store: RedisStore, shared_server: ValkeyServer, clock: TestClock
) -> None:
    store.keep(WHERE, entry(ttl_ms=60_000))
    await store.look(WHERE)
    shared_server.execute("PERSIST", key(WHERE))
    clock.advance(60_000)
    assert await store.look(WHERE) == Look()
    assert await store.look(WHERE, token="a") == Look(holder="a")
    assert store.corrupt == 0  # it is ours, and was


async def test_another_process_finds_it_and_waits_for_the_same_lease(
    store: RedisStore, shared_server: ValkeyServer, clock: TestClock
) -> None:
    other, client = await connected(shared_server, clock)
    assert await store.look(WHERE, token="a") == Look(holder="a")
    assert await other.look(WHERE, token="b") == Look(holder="a")
    store.keep(WHERE, told := entry(), token="a")
    await store.look(WHERE)
    assert await other.look(WHERE, token="b") == Look(told, JSON_FORM)
    await other.close()
    await client.close()


async def test_what_was_kept_is_seen_by_the_very_next_look(store: RedisStore) -> None:
    for number in range(300):
        told = entry(b"%d" % number * (number * 50))
        store.keep(WHERE, told, token="a")
        assert await store.look(WHERE) == Look(told, JSON_FORM)


async def test_a_look_that_is_given_up_leaves_no_lease_behind(store: RedisStore, shared_server: ValkeyServer) -> None:
    waiting = asyncio.create_task(store.look(WHERE, token="a"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await store.look(WHERE)
    assert shared_server.execute("EXISTS", LEASE) == 0
    assert await store.look(WHERE, token="b") == Look(holder="b")


# -- values that are not ours -------------------------------------------------------------------


async def test_a_value_copied_to_another_address_is_not_there(store: RedisStore, shared_server: ValkeyServer) -> None:
    elsewhere = address(2)
    await kept(store, WHERE)
    for place in (elsewhere, OTHER_FORM):
        shared_server.execute("COPY", key(WHERE), key(place))
        assert await store.look(place) == Look()
        assert await store.look(place, token="a") == Look(holder="a")
        assert await store.look(place, token="b") == Look(holder="a")
    assert store.corrupt == 6
    assert (await store.look(WHERE)).entry == entry()
    store.keep(elsewhere, told := entry(b"its own"), token="a")
    assert await store.look(elsewhere) == Look(told, JSON_FORM)
    assert store.corrupt == 6


async def test_a_broken_value_does_not_hide_the_other_form(store: RedisStore, shared_server: ValkeyServer) -> None:
    await kept(store, OTHER_FORM)
    shared_server.execute("SET", key(WHERE), "broken")
    assert await store.look(WHERE, also=STREAM_FORM) == Look(entry(), STREAM_FORM)
    assert await store.look(WHERE, also=STREAM_FORM, token="a") == Look(entry(), STREAM_FORM)
    assert shared_server.execute("EXISTS", LEASE) == 0
    shared_server.execute("SET", key(OTHER_FORM), "broken")
    assert await store.look(WHERE, also=STREAM_FORM) == Look()
    assert await store.look(WHERE, also=STREAM_FORM, token="a") == Look(holder="a")
    assert store.corrupt == 6


@pytest.mark.parametrize("size", [10, 8000])
async def test_a_flipped_byte_anywhere_is_a_miss(store: RedisStore, shared_server: ValkeyServer, size: int) -> None:
    told = entry(b"a" * size)
    value = pack(told, WHERE, SECRET)
    for at in range(len(value)):
        broken = value[:at] + bytes([value[at] ^ 0x20]) + value[at + 1 :]
        await store._client.command("", "SET", key(WHERE), broken)
        assert await store.look(WHERE, token="a") == Look(holder="a")
    assert store.corrupt == len(value)
    await store._client.command("", "SET", key(WHERE), value)
    assert await store.look(WHERE) == Look(told, JSON_FORM)


async def test_a_value_cut_short_anywhere_is_a_miss(store: RedisStore) -> None:
    value = pack(entry(), WHERE, SECRET)
    for length in range(len(value)):
        await store._client.command("", "SET", key(WHERE), value[:length])
        assert await store.look(WHERE) == Look()
    assert store.corrupt == len(value)


async def test_a_store_with_another_secret_finds_nothing(
    store: RedisStore, shared_server: ValkeyServer, clock: TestClock
) -> None:
    await kept(store)
    other, client = await connected(shared_server, clock, bytes(32))
    assert await other.look(WHERE) == Look()
    assert other.corrupt == 1
    await client.close()


@pytest.mark.parametrize("mended_by", ["look", "renew"])
@pytest.mark.parametrize("command", [("LPUSH", "x"), ("SADD", "x"), ("HSET", "x", "y"), ("XADD", "*", "x", "y")])
async def test_a_key_of_another_type_is_a_miss_and_is_mended(
    store: RedisStore, shared_server: ValkeyServer, command: tuple[str, ...], mended_by: str
) -> None:
    name, *words = command
    for place in (key(WHERE), key(OTHER_FORM), LEASE):
        shared_server.execute(name, place, *words)
    assert await store.look(WHERE, also=STREAM_FORM) == Look()
    assert store.corrupt == 2
    store.release(WHERE, "a")
    assert shared_server.execute("TYPE", LEASE) != b"string"
    if mended_by == "renew":
        store.renew(WHERE, "a")
    else:
        assert await store.look(WHERE, also=STREAM_FORM, token="a") == Look(holder="a")
    assert await store.look(WHERE, also=STREAM_FORM, token="b") == Look(holder="a")
    store.keep(WHERE, told := entry(), token="a", derived=(OTHER_FORM, derived := entry(b"derived")))
    assert await store.look(WHERE, also=STREAM_FORM) == Look(told, JSON_FORM)
    assert await store.look(OTHER_FORM) == Look(derived, STREAM_FORM)
    shared_server.execute("DEL", key(OTHER_FORM))
    shared_server.execute(name, key(OTHER_FORM), *words)
    store.keep(WHERE, told, derived=(OTHER_FORM, None))
    assert await store.look(OTHER_FORM, token="b") == Look(holder="b")
    assert shared_server.execute("EXISTS", key(OTHER_FORM)) == 0
    assert store.lost == 0


# -- what is too much ---------------------------------------------------------------------------


async def test_what_is_too_large_is_not_kept_and_its_lease_is_given_back(store: RedisStore) -> None:
    await store.look(WHERE, token="a")
    store.keep(WHERE, entry(bytes(BODY_BYTES_MAX + 1)), token="a")
    assert await store.look(WHERE, token="b") == Look(holder="b")
    assert store.lost == 1
    store.keep(WHERE, large := entry(bytes(BODY_BYTES_MAX)))
    assert await store.look(WHERE) == Look(large, JSON_FORM)


async def test_a_derived_one_that_is_too_large_takes_an_earlier_one_away(
    store: RedisStore, shared_server: ValkeyServer
) -> None:
    await kept(store, WHERE, OTHER_FORM)
    await store.look(WHERE, token="b", lease_only=True)
    store.keep(WHERE, told := entry(b"2"), token="b", derived=(OTHER_FORM, entry(bytes(BODY_BYTES_MAX + 1))))
    assert await store.look(OTHER_FORM) == Look()
    assert await store.look(WHERE) == Look(told, JSON_FORM)
    assert shared_server.execute("KEYS", "*") == [key(WHERE).encode()]
    store.keep(WHERE, entry(b"3"), derived=(OTHER_FORM, large := entry(bytes(BODY_BYTES_MAX))))
    assert await store.look(OTHER_FORM) == Look(large, STREAM_FORM)


async def test_a_derived_one_that_the_server_refuses_takes_an_earlier_one_away(
    store: RedisStore, client: RedisClient
) -> None:
    await kept(store, WHERE, OTHER_FORM)
    values = [pack(entry(b"2"), WHERE, SECRET), HOUR_MS, b"", 0]  # no time to live
    assert await client.call(redis.KEEP, [key(WHERE), LEASE, key(OTHER_FORM)], ["", *values]) == b"OK"
    assert await store.look(WHERE) == Look(entry(b"2"), JSON_FORM)
    assert await store.look(OTHER_FORM) == Look()


async def test_the_other_form_is_as_it_was_where_the_answer_is_not_kept(
    store: RedisStore, shared_server: ValkeyServer
) -> None:
    """Refused by the server, or by us: then nothing newer is there."""
    await kept(store, WHERE, OTHER_FORM)
    derived = [None, entry(b"2"), entry(bytes(BODY_BYTES_MAX + 1))]
    for told in derived:
        store.keep(WHERE, entry(bytes(BODY_BYTES_MAX + 1)), derived=(OTHER_FORM, told))
        assert await store.look(OTHER_FORM) == Look(entry(), STREAM_FORM)
    shared_server.execute("CONFIG", "SET", "maxmemory", 1)
    try:
        for told in derived:
            await store.look(WHERE, token="a", lease_only=True)
            store.keep(WHERE, entry(b"2"), token="a", derived=(OTHER_FORM, told))
            assert await store.look(OTHER_FORM) == Look(entry(), STREAM_FORM)
            assert await store.look(WHERE) == Look(entry(), JSON_FORM)
        assert await store.look(WHERE, token="b", lease_only=True) == Look(holder="b")
    finally:
        shared_server.execute("CONFIG", "SET", "maxmemory", 0)
    assert store.lost == 6


async def test_only_so_much_is_on_its_way(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "UNANSWERED_BYTES_MAX", 10_000)
    for number in range(30):
        store.keep(address(number), entry())
    looks = [await store.look(address(number)) for number in range(30)]
    there = sum(look.entry is not None for look in looks)
    assert 10 <= there < 20
    assert store.lost == 30 - there
    assert store._unanswered_bytes == 0
    assert not store._unanswered
    await kept(store)


async def test_a_full_server_loses_the_entry_and_nothing_else(store: RedisStore, shared_server: ValkeyServer) -> None:
    await kept(store, WHERE)
    elsewhere, third = address(2), address(3)
    await store.look(elsewhere, token="a")
    shared_server.execute("CONFIG", "SET", "maxmemory", 1)
    try:
        assert (await store.look(WHERE, token="a")).entry == entry()
        assert await store.look(third, token="a") == Look(holder="a")  # who is at work is known all the same
        assert await store.look(third, token="b") == Look(holder="a")
        store.renew(third, "a")
        store.keep(elsewhere, entry(), token="a", derived=(address(2, STREAM_FORM), entry()))
        assert await store.look(elsewhere, token="b") == Look(holder="b")
        store.release(third, "a")
        store.renew(third, "b")  # so is who puts a lapsed one back
        assert await store.look(third, token="a") == Look(holder="b")
        assert await store.look(address(2, STREAM_FORM)) == Look()
        assert (store.lost, store.corrupt) == (1, 0)
    finally:
        shared_server.execute("CONFIG", "SET", "maxmemory", 0)
    await kept(store, elsewhere)


def test_room_is_a_share_of_what_the_server_may_use() -> None:
    def told(used: object, maximum: object) -> float:
        return redis.room_bytes(f"# Memory\r\nused_memory:{used}\r\nx:1:2\r\nmaxmemory:{maximum}\r\n".encode())

    assert told(100, 1000) == 700
    assert told(900, 1000) == -100
    assert told(900, 0) == told("many", 1000) == redis.room_bytes(b"") == redis.room_bytes(None) == float("inf")


async def test_entries_leave_room_for_the_limits(
    client: RedisClient, shared_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that keep as much as they can, and a server that may hold 12 MB more."""
    monkeypatch.setattr(redis, "ROOM_EVERY_S", 0.05)
    clock = SystemClock()
    stores = [RedisStore(client, clock, SECRET) for _ in range(2)]
    used = memory(shared_server, "used_memory")
    maximum = (used + 12_000_000) * 10 // 8
    shared_server.execute("CONFIG", "SET", "maxmemory", maximum)
    try:
        for store in stores:
            store.start()
        await asyncio.sleep(0.02)
        expires_at_ms = clock.now_ms() + HOUR_MS
        for number in range(1500):
            noise = number.to_bytes(4, "big") * 1024
            for at, store in enumerate(stores):
                store.keep(address(2 * number + at), entry(noise[::7] * 40, expires_at_ms=expires_at_ms, headers=[]))
                store.keep(address(2 * number + at, STREAM_FORM), entry(bytes(3900), expires_at_ms=expires_at_ms))
            await stores[0].look(WHERE)
            assert shared_server.execute("SET", "limit", "x" * 100) == b"OK"
        assert memory(shared_server, "used_memory") < 0.9 * maximum
        assert all(store.lost > 0 for store in stores)
        # Leases go on.
        assert await stores[0].look(address(10**6), token="a") == Look(holder="a")
        stores[0].keep(address(10**6), entry(expires_at_ms=expires_at_ms), token="a")
        assert await stores[0].look(address(10**6), token="b") == Look(holder="b")
        shared_server.flush()
        for store in stores:
            await eventually(lambda store=store: store._guard.has_room(""))
            store.keep(WHERE, entry(expires_at_ms=expires_at_ms))
            assert (await store.look(WHERE)).entry is not None
    finally:
        shared_server.execute("CONFIG", "SET", "maxmemory", 0)
        for store in stores:
            await store.close()


async def test_what_is_sent_counts_before_the_server_is_asked_again(
    store: RedisStore, shared_server: ValkeyServer
) -> None:
    used = memory(shared_server, "used_memory")
    shared_server.execute("CONFIG", "SET", "maxmemory", (used + 300_000) * 10 // 8)
    try:
        store.start()
        await eventually(lambda: store._guard._node("").room_bytes < 1_000_000)
        for number in range(1000):
            store.keep(address(number), entry(bytes(1000)))
        assert 100 < 1000 - store.lost < 300
    finally:
        shared_server.execute("CONFIG", "SET", "maxmemory", 0)


def memory(server: ValkeyServer, name: str) -> int:
    lines = server.execute("INFO", "memory").decode().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).partition(":")[2])


async def test_a_store_says_how_it_is(store: RedisStore) -> None:
    await kept(store)
    assert "unanswered 0, corrupt 0, lost 0" in repr(store)
    assert SECRET.hex() not in repr(store)
    assert repr(SECRET) not in repr(store)


async def test_closing_waits_for_what_was_sent(
    client: RedisClient, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "CLOSE_S", 60)
    store = RedisStore(client, clock, SECRET)
    store.start()
    for number in range(50):
        store.keep(address(number), entry())
    began = time.monotonic()
    await store.close()
    assert time.monotonic() - began < 20
    assert not store._unanswered
    assert (await store.look(address(49))).entry is not None
