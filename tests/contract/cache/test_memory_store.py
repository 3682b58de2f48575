"""What the store in memory holds, and what it lets go."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from app.cache.entry import JSON_FORM, STREAM_FORM, Entry, Look
from app.cache.memory import OVERHEAD_BYTES, SWEPT_AT_ONCE, MemoryStore, size_of
from tests.contract.cache.harness import START_MS, TestClock, address, entry

SIZE = size_of(entry(bytes(1000)))


@pytest.fixture
def store(clock: TestClock) -> MemoryStore:
    """There is room for ten entries of a thousand bytes."""
    return MemoryStore(clock, 10 * SIZE)


def fill(store: MemoryStore, count: int, first: int = 0, **fields: int) -> None:
    for number in range(first, first + count):
        store.keep(address(number), entry(bytes(1000), **fields))


async def found(store: MemoryStore, *numbers: int) -> list[int]:
    return [number for number in numbers if (await store.look(address(number))).entry is not None]


def test_an_entry_counts_with_its_body_its_headers_and_a_flat_rate() -> None:
    bare = size_of(entry(b"", headers=[], usage_raw=None))
    assert bare == OVERHEAD_BYTES
    assert size_of(entry(bytes(500), headers=[], usage_raw=None)) == bare + 500
    assert size_of(entry(b"", headers=[(b"n", b"v" * 99)], usage_raw=None)) > bare + 100
    assert size_of(entry(b"", headers=[], usage_raw="u" * 40, tool_usage="t" * 2)) == bare + 42


async def test_the_one_that_was_used_longest_ago_goes_first(store: MemoryStore) -> None:
    fill(store, 10)
    assert (store.entries, store.bytes) == (10, 10 * SIZE)
    assert await found(store, 0, 3) == [0, 3]
    assert (await store.look(address(5, STREAM_FORM), also=JSON_FORM)).entry is not None
    fill(store, 7, first=10)
    assert (store.entries, store.bytes) == (10, 10 * SIZE)
    assert await found(store, *range(17)) == [0, 3, 5, *range(10, 17)]


async def test_entries_are_the_very_ones(store: MemoryStore) -> None:
    store.keep(address(), kept := entry())
    assert (await store.look(address())).entry is kept


async def test_a_large_one_takes_the_room_of_several(store: MemoryStore) -> None:
    fill(store, 10)
    store.keep(address(10), entry(bytes(1000 + 2 * SIZE)))
    assert await found(store, *range(11)) == [*range(3, 11)]
    assert store.bytes <= 10 * SIZE


async def test_one_that_is_larger_than_all_room_is_not_kept_and_costs_nobody_else(store: MemoryStore) -> None:
    fill(store, 10)
    store.keep(address(3), entry(bytes(10 * SIZE)), token="a")
    assert await found(store, *range(10)) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert (store.entries, store.bytes) == (9, 9 * SIZE)
    assert await store.look(address(3), token="b") == Look(holder="b")


@pytest.mark.parametrize("derived", [None, entry(bytes(10 * SIZE))], ids=["none", "too large"])
async def test_a_derived_one_that_is_not_kept_takes_an_earlier_one_away(
    store: MemoryStore, derived: Entry | None
) -> None:
    fill(store, 5)
    store.keep(address(3, STREAM_FORM), entry(bytes(1000)))
    store.keep(address(3), entry(bytes(1000)), derived=(address(3, STREAM_FORM), derived))
    assert await store.look(address(3, STREAM_FORM)) == Look()
    assert await found(store, *range(5)) == [0, 1, 2, 3, 4]
    assert (store.entries, store.bytes) == (5, 5 * SIZE)


async def test_asking_for_the_lease_only_is_no_use_of_an_entry(store: MemoryStore) -> None:
    fill(store, 10)
    assert await store.look(address(0), token="a", lease_only=True) == Look(holder="a")
    fill(store, 1, first=10)
    assert await found(store, *range(11)) == [*range(1, 11)]


async def test_replacing_one_counts_it_once(store: MemoryStore) -> None:
    for _ in range(100):
        fill(store, 3)
    assert (store.entries, store.bytes) == (3, 3 * SIZE)


async def test_less_room_takes_effect_at_once(store: MemoryStore) -> None:
    fill(store, 10)
    store.resize(4 * SIZE)
    assert (store.entries, store.bytes) == (4, 4 * SIZE)
    assert await found(store, *range(10)) == [6, 7, 8, 9]
    store.resize(20 * SIZE)
    fill(store, 30)
    assert store.entries == 20
    store.resize(0)
    assert (store.entries, store.bytes) == (0, 0)
    fill(store, 1)
    assert (store.entries, store.bytes) == (0, 0)


async def test_an_entry_that_is_met_past_its_time_is_dropped(store: MemoryStore, clock: TestClock) -> None:
    store.keep(address(1), entry(ttl_ms=1000), derived=(address(1, STREAM_FORM), entry()))
    clock.advance(1000)
    assert (await store.look(address(1), also=STREAM_FORM)).form == STREAM_FORM
    assert store.entries == 1


async def test_what_is_past_its_time_and_never_met_goes_too(store: MemoryStore, clock: TestClock) -> None:
    fill(store, 3, ttl_ms=5000)
    fill(store, 4, first=3, ttl_ms=1000)
    fill(store, 3, first=7, ttl_ms=60_000)
    clock.advance(5000)
    await store.look(address(99))
    assert (store.entries, store.bytes) == (3, 3 * SIZE)
    clock.advance(55_000)
    store.keep(address(99), entry(expires_at_ms=0))
    assert (store.entries, store.bytes) == (0, 0)


async def test_one_step_does_not_sweep_for_long(clock: TestClock) -> None:
    store = MemoryStore(clock, 10_000 * SIZE)
    fill(store, 1000, ttl_ms=1000)
    clock.advance(1000)
    await store.look(address(5000))
    assert store.entries == 1000 - SWEPT_AT_ONCE
    fill(store, 200, first=2000)
    assert store.entries == 200


async def test_what_was_kept_anew_outlives_its_first_stamp(store: MemoryStore, clock: TestClock) -> None:
    fill(store, 2, ttl_ms=1000)
    fill(store, 1, ttl_ms=60_000)
    clock.advance(1000)
    await store.look(address(99))
    assert await found(store, 0, 1) == [0]


async def test_stamps_of_what_is_gone_do_not_pile_up(store: MemoryStore) -> None:
    for _ in range(20):
        fill(store, 500)
    assert len(store._expiries) < 1100


async def test_leases_do_not_pile_up(store: MemoryStore, clock: TestClock) -> None:
    for number in range(1000):
        await store.look(address(number), token="a")
        clock.advance(10)
    assert len(store._leases) <= 150


async def test_closing_lets_everything_go(store: MemoryStore) -> None:
    fill(store, 5)
    await store.look(address(99), token="a")
    await store.close()
    assert (store.entries, store.bytes) == (0, 0)
    assert await store.look(address(99), token="b") == Look(holder="b")


def test_it_says_what_it_holds(store: MemoryStore) -> None:
    fill(store, 2)
    assert repr(store) == f"MemoryStore(2 entries, {2 * SIZE} of {10 * SIZE} bytes, 0 leases)"


@pytest.mark.parametrize("seed", range(5))
async def test_the_count_is_the_sum_of_what_is_there(clock: TestClock, seed: int) -> None:
    source = random.Random(seed)
    store = MemoryStore(clock, 30 * SIZE)
    for _ in range(3000):
        dice = source.random()
        where = address(source.randrange(60), source.choice((JSON_FORM, STREAM_FORM)))
        kept = entry(
            bytes(source.randrange(3000)), expires_at_ms=clock.now_ms() + source.choice((-1, 500, 5000, 90_000))
        )
        if dice < 0.5:
            other = address(source.randrange(60))
            derived = (other, None) if dice < 0.05 else (other, kept)
            store.keep(where, kept, derived=derived if dice < 0.1 else None)
        elif dice < 0.9:
            await store.look(where, also=STREAM_FORM, token="a", lease_only=dice < 0.6)
        elif dice < 0.98:
            clock.advance(source.randrange(2000))
        else:
            store.resize(source.randrange(1, 40) * SIZE)
        assert store.bytes == sum(map(size_of, store._entries.values())) <= store._bytes_max
        assert store.entries == len(store._entries)
    clock.advance(100_000)
    for _ in range(60):
        await store.look(address(999))
    assert (store.entries, store.bytes, store._expiries) == (0, 0, [])


async def test_the_estimate_is_not_below_what_entries_take(clock: TestClock) -> None:
    """Each with text of its own, as if nothing were shared between two answers."""
    store = MemoryStore(clock, 2**40)
    tracemalloc.start()
    try:
        for n in range(2000):
            name = f"name-{n}"
            store.keep(
                address(n, f"{STREAM_FORM}.{n:032x}"),
                entry(
                    bytes(1000 + n),
                    headers=[(bytes(f"{name}-{i}", "ascii"), bytes(f"{name}-{i}-value", "ascii")) for i in range(8)],
                    expires_at_ms=START_MS + 3_600_000 + n,
                    response_id=f"resp_{n:050}",
                    usage_raw=f"{n:500}",
                    **dict.fromkeys(("team_id", "upstream"), name + "x"),
                    **{field: f"{field}-{name}" for field in ("model_requested", "model", "model_served")},
                ),
            )
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < store.bytes < 1.5 * taken
