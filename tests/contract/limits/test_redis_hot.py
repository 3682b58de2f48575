"""What only the shared store has to promise: its keys, what expires and what does not, tokens, posts."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

import pytest

from app.core.records import BudgetWindow
from app.limits.hot import (
    Answer,
    Beat,
    Beaten,
    BudgetValue,
    Confirm,
    Confirmed,
    Done,
    Granted,
    InSQL,
    Known,
    Lost,
    OpenTag,
    Reserve,
    Restore,
    Seed,
    Seen,
    Settle,
    StandIn,
    StoreAway,
    TakeOver,
    Void,
)
from app.limits.limiter import MAXIMUM_MAX, Claim, MoneyWindow, Outcome
from app.limits.redis import SCRIPTS, RedisHot
from app.store.redis import RedisClient, RedisReplyError
from tests.contract.limits.harness import (
    BUDGET,
    FOREVER_MS,
    LIGHT,
    TEAM,
    UNBOUND,
    Driver,
    TestClock,
    claim,
    concurrency,
    connected,
    eventually,
    money,
    requests,
    tokens,
)
from tests.fakes.valkey import ValkeyServer

TWO_DAYS_MS = 2 * 86_400_000
CODE = sorted(SCRIPTS.rglob("*.lua"))


@pytest.fixture
async def store(shared_server: ValkeyServer) -> AsyncIterator[Driver]:
    """A store with one team, whose budget is known."""
    driver, client = await connected(shared_server, TestClock())
    await driver.open()
    await driver.seed(0, 1)
    yield driver
    assert client.posts_dropped == 0
    await client.close()


def a_call(*, bound: int = 100) -> Claim:
    return claim(requests(10), tokens(1000), concurrency(5), money(1000), tokens=50, bound=bound)


def server_of(store: Driver) -> ValkeyServer:
    assert store.server is not None
    return store.server


def hashed(store: Driver, key: str) -> dict[bytes, bytes]:
    fields = server_of(store).execute("HGETALL", key)
    return dict(zip(fields[::2], fields[1::2], strict=True))


# -- keys and their expiry ----------------------------------------------------------------------


async def test_all_keys_are_in_the_tags_slot_whatever_clients_put_into_counters(store: Driver) -> None:
    hostile = "key{x}:\r\n\x00é}"
    budget = BudgetWindow("budget_1:{y} ü", 7)
    limits = (requests(5, key=hostile), concurrency(2, key=hostile), money(10, budget=budget))
    call = claim(*limits, bound=3, request_id="one", windows=(MoneyWindow(budget, FOREVER_MS),))
    await store.seed(1, 1, budget)
    await store.grant(call)
    assert sorted(server_of(store).execute("KEYS", "*")) == sorted(
        key.encode()
        for key in (
            "hg:{team_1}:epoch",
            "hg:{team_1}:due",
            "hg:{team_1}:r:one",
            f"hg:{{team_1}}:l:{hostile}.requests",
            f"hg:{{team_1}}:l:{hostile}.concurrency",
            "hg:{team_1}:b:budget_1:{y} ü:7",
            "hg:{team_1}:b:budget_1:0",
        )
    )
    await store.settle(call, nanousd=2)
    assert await store.confirm(call, 2, 2, BudgetValue(budget, 3, 2)) == ()
    assert await store.left(10, budget) == 7


async def test_what_expires_and_what_never_does(store: Driver) -> None:
    server = server_of(store)
    call, light = a_call(), claim(requests(5, window_ms=3_600_000), tag=LIGHT)
    for each in (call, light):
        await store.grant(each)
    await store.do(Void(void := a_call()))

    def lives_ms(key: str, tag: str = TEAM) -> int:
        left_ms: int = server.execute("PTTL", f"hg:{{{tag}}}:{key}")
        return left_ms

    for key in ("epoch", "due", f"r:{call.request_id}", "b:budget_1:0"):
        assert lives_ms(key) == -1, key
    assert 61_000 < lives_ms("l:key_1.requests") <= 62_000
    assert 14_000 < lives_ms("l:key_1.concurrency") <= 15_000
    assert 59_000 < lives_ms(f"r:{void.request_id}") <= 60_000
    assert 3_650_000 < lives_ms(f"r:{light.request_id}", LIGHT) <= 3_660_000
    await store.settle(call, nanousd=70)
    assert lives_ms(f"r:{call.request_id}") == -1
    assert lives_ms("b:budget_1:0") == -1
    assert server.execute("EXISTS", "hg:{team_1}:l:key_1.concurrency") == 0
    await store.confirm(call, 2, 70, BudgetValue(BUDGET, 70, 2))
    assert 59_000 < lives_ms(f"r:{call.request_id}") <= 60_000
    assert TWO_DAYS_MS - 1000 < lives_ms("b:budget_1:0") <= TWO_DAYS_MS


@pytest.mark.parametrize("counts", ["reserve", "settle", "restore", "stand in", "settle what is gone", "new epoch"])
async def test_a_budget_that_counts_anything_does_not_expire(store: Driver, counts: str) -> None:
    """Else a policy that evicts what expires would take away what is held, and the next value would miss it."""
    server = server_of(store)
    call, key = a_call(), "hg:{team_1}:b:budget_1:0"
    assert server.execute("PTTL", key) > 0
    if counts == "reserve":
        await store.grant(call)
    elif counts == "restore":
        await store.do(Restore(call, "1"))
    elif counts == "stand in":
        await store.do(StandIn(TEAM, "1", "gateway-2", BUDGET, 5))
    elif counts == "settle":
        await store.settle(call, nanousd=1)
    elif counts == "new epoch":
        await store.grant(call)
        await store.open("2")
        await store.seed(0, 1)
        assert server.execute("PTTL", key) > 0
        store.clock.advance(15_000)
        assert isinstance(await store.take_over(call), Known)
    else:
        await store.settle(call, nanousd=1, rank=1)
        await store.confirm(call, 1, 1, BudgetValue(BUDGET, 1, 2))
        assert server.execute("PTTL", key) > 0
        await store.settle(call, nanousd=2)
    assert server.execute("PTTL", key) == -1
    await store.settle(call, nanousd=2)
    await store.confirm(call, 2, 2, BudgetValue(BUDGET, 2, 3))
    await store.do(StandIn(TEAM, store.epoch, "gateway-2", BUDGET, 0))
    assert server.execute("PTTL", key) > 0


async def test_what_comes_back_from_a_tombstone_does_not_expire_with_it(store: Driver) -> None:
    gone, settled, restored = a_call(), a_call(), a_call()
    await store.settle(gone, nanousd=1, rank=1)
    await store.confirm(gone, 1, 1)
    for call in (settled, restored):
        await store.do(Void(call))
    for call in (gone, settled):
        assert await store.settle(call, nanousd=5) == Done()
    assert await store.do(Restore(restored, "1")) == Done()
    for call in (gone, settled, restored):
        assert server_of(store).execute("PTTL", f"hg:{{team_1}}:r:{call.request_id}") == -1
        known = await store.look(call)
        assert known is not None
        assert known.owner == "gateway-1"
        assert known.record or known.opening == call.opening


async def test_a_call_that_is_taken_anew_keeps_nothing_of_before(store: Driver) -> None:
    call = a_call()
    await store.grant(call)
    await store.do(Beat(TEAM, "1", (Seen(call, 7, 90),)))
    await store.open("2")
    await store.seed(0, 1)
    await store.grant(call)
    known = await store.look(call)
    assert known is not None
    assert (known.epoch, known.output_tokens, known.lower_nanousd) == (2, 0, 0)


@pytest.mark.parametrize("since", [0, 100])
async def test_an_evicted_window_is_never_negative(store: Driver, since: int) -> None:
    limit = tokens(1000)
    call = await store.take(limit, tokens=900)
    server_of(store).execute("DEL", "hg:{team_1}:l:key_1.tokens")
    await store.take(limit, tokens=since)
    await store.settle(call, tokens=0)
    assert await store.remaining(limit) == 1000


async def test_a_voided_call_lets_its_budget_rest_again(store: Driver) -> None:
    first, second = a_call(), a_call()
    for call in (first, second):
        await store.grant(call)
    key = "hg:{team_1}:b:budget_1:0"
    await store.do(Void(first))
    assert server_of(store).execute("PTTL", key) == -1
    await store.do(Void(second))
    assert server_of(store).execute("PTTL", key) > 0


async def test_nothing_is_left_behind(store: Driver) -> None:
    """At rest a tag has its epoch, its budgets, and what forgets itself within a minute."""
    for tag in (TEAM, LIGHT):
        for _ in range(50):
            limits = (requests(100), concurrency(100)) + ((money(10**6),) if tag == TEAM else ())
            call = claim(*limits, bound=5, tag=tag)
            await store.grant(call)
            await store.settle(call, nanousd=3)
            if tag == TEAM:
                await store.confirm(call, 2, 3)
    server = server_of(store)
    endless = {key for key in server.execute("KEYS", "*") if server.execute("PTTL", key) == -1}
    assert endless == {b"hg:{team_1}:epoch"}


async def test_a_window_holds_no_more_than_its_slots(store: Driver) -> None:
    limit = tokens(10**9)
    for _ in range(300):
        await store.settle(await store.take(limit, tokens=7), tokens=5)
        store.clock.advance(1000)
    held = hashed(store, "hg:{team_1}:l:key_1.tokens")
    total, first, last = (int(held.pop(name)) for name in (b"total", b"first", b"last"))
    assert len(held) == 61
    assert (last - first, total) == (60, 61 * 5)


async def test_a_reservation_is_small(store: Driver) -> None:
    call = a_call()
    await store.grant(call)
    key = f"hg:{{team_1}}:r:{call.request_id}"
    assert set(hashed(store, key)) == {b"h", b"w", b"o"}
    assert server_of(store).execute("MEMORY", "USAGE", key) < 400
    await store.settle(call, nanousd=70)
    assert set(hashed(store, key)) == {b"h", b"w", b"o", b"k"}
    await store.confirm(call, 2, 70)
    assert set(hashed(store, key)) == {b"h"}


async def test_numbers_are_written_without_an_exponent(store: Driver) -> None:
    await store.seed(MAXIMUM_MAX - 10**15, 2)
    limits = (tokens(10**15), concurrency(500), money(UNBOUND))
    calls = []
    for _ in range(200):
        calls.append(claim(*limits, tokens=10**12, bound=10**12))
        await store.grant(calls[-1])
        store.clock.advance(50)
    await store.settle(calls[0], tokens=10**12, nanousd=10**14)  # a difference of nothing
    await store.do(StandIn(TEAM, "1", "gateway-2", BUDGET, 10**14))
    server = server_of(store)
    numbers = list(hashed(store, "hg:{team_1}:l:key_1.tokens").values())
    numbers += hashed(store, "hg:{team_1}:b:budget_1:0").values()
    for key in ("l:key_1.concurrency", "due"):
        numbers += server.execute("ZRANGE", f"hg:{{team_1}}:{key}", 0, -1, "WITHSCORES")[1::2]
    for call in calls:
        numbers += re.split(b"[ ,]", server.execute("HGET", f"hg:{{team_1}}:r:{call.request_id}", "h"))[1:]
    assert all(number.isdigit() or number == b"-" for number in numbers)
    assert str(200 * 10**12).encode() in numbers
    assert await store.left(UNBOUND) == 10**15 - 199 * 10**12 - 2 * 10**14


# -- scripts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.stem)
def test_scripts_make_up_no_key_and_say_what_they_take(path) -> None:
    source = path.read_text(encoding="utf-8")
    lines = [line.partition("--")[0] for line in source.splitlines()]
    assert not any("hg:" in line for line in lines)
    assert all(len(line) <= 120 for line in source.splitlines())
    if path.parent == SCRIPTS:
        assert source.startswith("#!lua")
        for told in ("-- KEYS[1]", "-- ARGV[1]", "-- Example: EVALSHA sha", "-- Answers {"):
            assert told in source
        assert re.search(r"^(local \w+ = .*\n)*assert\(", source, re.MULTILINE)


@pytest.mark.parametrize("script", sorted(path.stem for path in SCRIPTS.glob("*.lua")))
async def test_a_wrong_shape_is_refused_and_changes_nothing(store: Driver, script: str) -> None:
    hot = store.hot
    assert isinstance(hot, RedisHot)
    loaded = {each.name: each for each, _ in hot._writers.values()}
    server = server_of(store)
    before = server.execute("DBSIZE")
    for keys, arguments in (([], []), (["hg:{team_1}:epoch"], ["1"] * 7), (["hg:{team_1}:x"] * 4, ["1"] * 3)):
        with pytest.raises(RedisReplyError, match="argument"):
            await hot._client.call(loaded[script], keys, arguments)
    assert server.execute("DBSIZE") == before


async def test_a_narrow_user_is_enough(shared_server: ValkeyServer) -> None:
    """What an operator has to allow: the keys ``hg:*``, the client's commands, and these."""
    used = {name for path in CODE for name in re.findall(r"redis\.call\('(\w+)'", path.read_text(encoding="utf-8"))}
    assert used == {
        *("GET", "SET", "DEL", "PERSIST", "PEXPIRE", "TIME"),
        *("HGET", "HMGET", "HGETALL", "HSET", "HINCRBY", "HDEL"),
        *("ZADD", "ZREM", "ZSCORE", "ZCARD", "ZCOUNT", "ZRANGEBYSCORE", "ZREMRANGEBYSCORE"),
    }
    if not shared_server.owned:
        pytest.skip("an external server keeps its users")
    client_needs = "+auth +client +evalsha +info +ping +role +script +select"
    rights = f"~hg:* -@all {client_needs} {' '.join(f'+{name.lower()}' for name in sorted(used))}"
    shared_server.execute("ACL", "SETUSER", "narrow", "on", ">pw", *rights.split())
    client = RedisClient(shared_server.url.replace("unix://", "unix://narrow:pw@"))
    await client.start()
    store = Driver(RedisHot(client, TestClock()), TestClock(), shared_server)
    await store.open()
    await store.seed(0, 1)
    call, silent = a_call(), a_call()
    for each in (call, silent):
        await store.grant(each)
    await store.do(Beat(TEAM, "1", (Seen(call),)))
    await store.settle(call, nanousd=5)
    assert await store.confirm(call, 2, 5, BudgetValue(BUDGET, 5, 2)) == ()
    await store.do(Void(silent))
    assert await store.due() == ()
    assert await store.left(1000) == 995
    await client.close()
    shared_server.execute("ACL", "DELUSER", "narrow")


async def test_foreign_data_under_a_key_fails_alone_and_changes_nothing(store: Driver) -> None:
    server = server_of(store)
    bad = "hg:{team_1}:l:key_bad.requests"
    server.execute("SET", bad, "garbage")
    call = claim(tokens(100), money(1000), requests(5, key="key_bad"), tokens=60, bound=40)
    with pytest.raises(StoreAway) as caught:
        await store.reserve(call)
    assert caught.value.sent
    assert (await store.remaining(tokens(100)), await store.left(1000)) == (100, 1000)
    assert await store.look(call) is None
    server.execute("DEL", bad)
    await store.grant(call)
    server.execute("SET", bad, "garbage")
    server.execute("DEL", "hg:{team_1}:b:budget_1:0")
    server.execute("SET", "hg:{team_1}:b:budget_1:0", "garbage")
    for command in (Settle(call, "1", Outcome(2, 5, 5)), Void(call), TakeOver(TEAM, "1", call.request_id, (BUDGET,))):
        store.clock.advance(15_000)
        with pytest.raises(StoreAway):
            await store.do(command)
    known = await store.look(call)
    assert known is not None
    assert known.state == "open"


async def test_a_full_server_refuses_new_work_and_lets_running_work_end(shared_server: ValkeyServer) -> None:
    if not shared_server.owned:
        pytest.skip("an external server keeps its memory")
    store, client = await connected(shared_server, TestClock())
    await store.open()
    await store.seed(0, 1)
    call, silent = a_call(), a_call()
    for each in (call, silent):
        await store.grant(each)
    shared_server.execute("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(StoreAway):
            await store.reserve(a_call())
        assert await store.do(Beat(TEAM, "1", (Seen(call, 1, 2),))) == Beaten()
        assert await store.settle(call, tokens=10, nanousd=30) == Done()
        assert await store.confirm(call, 2, 30, BudgetValue(BUDGET, 30, 2)) == ()
        store.clock.advance(15_000)
        assert await store.due() == (silent.request_id,)
        assert isinstance(await store.take_over(silent), Known)
    finally:
        shared_server.execute("CONFIG", "SET", "maxmemory", 0)
    assert await store.left(1000) == 870
    await client.close()


async def test_the_servers_clock_decides(shared_server: ValkeyServer) -> None:
    client = RedisClient(shared_server.url)
    await client.start()
    hot = RedisHot(client)
    await hot.do(OpenTag(TEAM, "1"))
    call = claim(requests(1), concurrency(5))
    granted = await hot.do(Reserve(call, "1"))
    assert isinstance(granted, Granted)
    now_ms = time.time_ns() // 1_000_000
    assert abs(granted.admitted_at_ms - now_ms) < 5000
    refused = await hot.do(Reserve(claim(requests(1)), "1"))
    assert 59_000 < getattr(refused, "retry_after_ms", 0) <= 61_000
    assert await hot.do(Beat(TEAM, "1", (Seen(call),))) == Beaten()
    for key in ("due", "l:key_1.concurrency"):
        until_ms = int(shared_server.execute("ZSCORE", f"hg:{{team_1}}:{key}", call.request_id))
        assert abs(until_ms - 15_000 - now_ms) < 5000
    await client.close()


# -- tokens -------------------------------------------------------------------------------------


async def test_the_epoch_is_kept_with_the_run_of_the_server(store: Driver) -> None:
    server = server_of(store)
    run_id = re.search(r"run_id:(\w+)", server.execute("INFO", "server").decode())
    assert run_id is not None
    token = f"1:{run_id[1]}".encode()
    assert server.execute("GET", "hg:{team_1}:epoch") == token
    assert server.execute("EXISTS", f"hg:{{{LIGHT}}}:epoch") == 0
    hot = store.hot
    assert isinstance(hot, RedisHot)
    server.execute("SET", "hg:{team_1}:epoch", "1:another-run")
    assert await hot.do(Reserve(a_call(), "1")) == Lost("1:another-run")
    assert await hot.do(OpenTag(TEAM, "1")) == Lost("1:another-run")  # it is not this epoch's: another has to begin
    assert await hot.do(OpenTag(TEAM, "2")) == Done()


async def test_a_restarted_server_is_another_one_though_it_kept_its_data(server: ValkeyServer) -> None:
    """What it had written down last is not all that it was told: the epoch is over."""
    store, client = await connected(server, TestClock())
    await store.open()
    kept = server.execute("GET", "hg:{team_1}:epoch")
    server.stop()
    await eventually(lambda: not client.up)
    server.start()
    server.execute("SET", "hg:{team_1}:epoch", kept)
    await eventually(lambda: client.up)
    assert await store.reserve(a_call()) == Lost("1")
    assert await store.do(OpenTag(TEAM, "1")) == Lost("1")
    assert await store.do(OpenTag(TEAM, "2")) == Done()
    await client.close()


# -- posts --------------------------------------------------------------------------------------


async def test_posts_are_carried_out_in_order_and_answered(store: Driver) -> None:
    hot, call = store.hot, a_call()
    assert isinstance(hot, RedisHot)
    answers: list[Answer] = []
    reserving = asyncio.create_task(hot.do(Reserve(call, "1")))
    await asyncio.sleep(0)
    hot.post(Settle(call, "1", Outcome(2, 30, 20)), answers.append)
    hot.post(Settle(call, "1", Outcome(2, 30, 20)), answers.append)
    hot.post(Beat(TEAM, "1", (Seen(a_call()),)), answers.append)
    row = InSQL(call.request_id, 2, 30, (BUDGET,))
    hot.post(Confirm(TEAM, "1", (row,), (BudgetValue(BUDGET, 30, 2),)), answers.append)
    hot.post(Void(call), answers.append)
    hot.post(Settle(call, "7", Outcome(2, 30, 20)), answers.append)
    hot.post(Seed(TEAM, "1", ()))
    assert isinstance(await reserving, Granted)
    assert await hot._client.drain(20)
    assert [type(answer) for answer in answers] == [Done, Done, Beaten, Confirmed, Done, Lost]
    assert answers[:2] == [Done(), Done(changed=False)]
    assert await store.left(1000) == 970


async def test_a_post_that_the_server_refuses_is_lost_and_told(shared_server: ValkeyServer) -> None:
    client = RedisClient(shared_server.url)
    await client.start()
    hot = RedisHot(client)
    await hot.do(OpenTag(TEAM, "1"))
    call = a_call()
    shared_server.execute("SET", f"hg:{{team_1}}:r:{call.request_id}", "garbage")
    told: list[str] = []
    hot.post(Settle(call, "1", Outcome(2, 1, 1)), lambda answer: told.append(str(answer)), lambda: told.append("lost"))
    assert await client.drain(20)
    assert told == ["lost"]
    assert client.posts_dropped == 1
    await client.close()


async def test_a_post_before_there_ever_was_a_connection_is_lost_at_once(server: ValkeyServer) -> None:
    server.stop()
    client = RedisClient(server.url)
    await client.start()
    hot = RedisHot(client)
    told: list[str] = []
    hot.post(Settle(a_call(), "1", Outcome(2, 1, 1)), None, lambda: told.append("lost"))
    hot.post(Settle(a_call(), "1", Outcome(2, 1, 1)))
    assert told == ["lost"]
    with pytest.raises(StoreAway) as caught:
        await hot.do(Reserve(a_call(), "1"))
    assert not caught.value.sent
    # What needs no epoch is kept for the connection.
    answers: list[Answer] = []
    call = claim(requests(1), tag=LIGHT)
    hot.post(Void(call), answers.append)
    server.start()
    await eventually(lambda: bool(answers))
    assert answers == [Done(changed=False)]
    await client.close()


async def test_what_was_posted_while_the_server_was_away_finds_its_epoch(server: ValkeyServer) -> None:
    """A broken connection is no loss: the same run goes on, and so does the epoch."""
    store, client = await connected(server, TestClock())
    await store.open()
    await store.seed(0, 1)
    hot, call = store.hot, a_call()
    assert isinstance(hot, RedisHot)
    await store.grant(call)
    server.freeze()
    with pytest.raises(StoreAway) as caught:
        await store.reserve(a_call(bound=1))
    assert caught.value.sent
    assert not client.up
    answers: list[Answer] = []
    hot.post(Settle(call, "1", Outcome(2, 30, 20)), answers.append)
    server.resume()
    await eventually(lambda: bool(answers))
    assert answers == [Done()]
    assert await store.left(1000) == 969  # and of the reserve that nobody voided, one
    await client.close()


async def test_the_printed_state_tells_how_it_is(store: Driver) -> None:
    await store.grant(a_call())
    assert "up" in repr(store.hot)
    assert "plans=1" in repr(store.hot)
