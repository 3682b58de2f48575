"""Turns from the moment that a client has their id until their time is over, on both databases."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from app.core.errors import InvalidRequest, LedgerUnavailable, Overloaded, PreviousResponseNotFound
from app.main import check_canary, open_seal
from app.main.state import LEASE, remove_old
from app.settings import ConfigurationError, Environment
from app.state import chains as chaining
from app.state import turns as turning
from app.state.chains import Chains
from app.state.room import Room
from app.state.sealing import Seal, new_key
from app.state.turn import Keeping
from app.state.turns import Turns
from app.store.database import Database
from app.store.errors import DatabaseUnavailable
from app.store.leases import take_lease

DAY = 86_400_000
KEY = new_key()


class Clock:
    def __init__(self):
        self.now = 10 * DAY

    def now_ms(self):
        self.now += 1
        return self.now

    def monotonic_s(self):
        return time.monotonic()


def room():
    return Room(lambda _size: None)


class Site:
    """One process's turns, and what they were told of."""

    def __init__(self, database, key=KEY, ttl_days=1, body_bytes_max=10_000):
        self.told = []
        self.clock = Clock()
        self.turns = Turns(database, self.clock, on_kept=lambda *told: self.told.append(told), gather_s=0.01)
        self.turns.open(Seal(key))
        self.chains = Chains(
            self.turns, {"u": ttl_days}, body_bytes_max=body_bytes_max, held_bytes_max=10 * body_bytes_max
        )

    def keep(self, response_id, text="hi", *, after=None, team="t", upstream="u"):
        keeping = Keeping(
            team,
            b'{"role":"user","content":"%b"}' % text.encode(),
            frozenset({"u"}),
            "",
            after and after.turn_id,
            after and after.chain_id,
        )
        draft = self.turns.begin(keeping, lambda: upstream)
        draft.see_json(b'{"id":"%b","status":"completed","output":[]}' % response_id.encode())
        assert draft.was_kept
        return self.turns.in_memory(team, response_id)[0]

    async def find(self, team, response_id):
        return await self.chains.find(team, response_id, self.clock.now_ms(), room())

    async def one(self, team, response_id):
        return await self.chains.one(team, response_id, self.clock.now, room())

    async def wait_for(self, team, response_id):
        return await self.chains.wait_for(team, response_id, lambda: self.find(team, response_id))

    async def written(self):
        async with asyncio.timeout(30):
            await self.turns._idle.wait()

    async def texts(self, response_id, team="t"):
        found = await self.find(team, response_id)
        return None if found is None else [turn.content.input.split(b'"')[7].decode() for turn in found]


@asynccontextmanager
async def site_on(database, **more):
    site = Site(database, **more)
    yield site
    await site.turns.close()


@pytest.fixture
async def site(database):
    async with site_on(database) as site:
        yield site


async def test_a_turn_is_there_at_once_and_after_it_was_written(site):
    one = site.keep("resp_1", "one")
    two = site.keep("resp_2", "two", after=one)
    assert await site.texts("resp_2") == ["one", "two"]
    assert site.turns.waiting == 2
    await site.written()
    assert (site.turns.waiting, site.turns._held_bytes) == (0, 0)
    assert await site.texts("resp_2") == ["one", "two"]
    # In memory and in the database at once.
    site.keep("resp_3", "three", after=two)
    assert site.turns.waiting == 1
    assert await site.texts("resp_3") == ["one", "two", "three"]
    assert sum(turns for result, turns in site.told if result == "kept") == 2


async def test_a_restart_finds_what_was_kept(database, database_url):
    async with site_on(database) as before:
        before.keep("resp_1", "one")
    other = await Database.open(database_url)
    async with site_on(other) as after:
        assert await after.texts("resp_1") == ["one"]
    await other.close()


async def test_foreign_and_unknown_are_one(site):
    site.keep("resp_1", "one")
    for _ in range(2):
        assert await site.texts("resp_1", team="other") is None
        assert await site.texts("resp_unknown", team="other") is None
        assert await site.one("other", "resp_1") is None
        await site.written()


async def test_ids_that_two_teams_have_and_that_come_again(site):
    first = site.keep("resp_1", "mine")
    site.keep("resp_1", "theirs", team="other")
    site.keep("resp_2", "goes on", after=first)
    site.keep("resp_1", "again")
    for _ in range(2):
        assert await site.texts("resp_1") == ["again"]
        assert await site.texts("resp_1", team="other") == ["theirs"]
        assert await site.texts("resp_2") == ["mine", "goes on"]
        await site.written()


async def test_what_is_deleted_is_gone_and_breaks_what_needs_it(site):
    one = site.keep("resp_1", "one")
    two = site.keep("resp_2", "two", after=one)
    site.keep("resp_3", "three", after=two)
    await site.chains.delete(two)
    assert await site.texts("resp_2") is None
    assert await site.one("t", "resp_2") is None
    with pytest.raises(PreviousResponseNotFound):
        await site.texts("resp_3")
    assert await site.texts("resp_1") == ["one"]
    # One alone needs none before it.
    assert (await site.one("t", "resp_3")).turn_id
    four = site.keep("resp_4", "four", after=two)
    assert four.previous_id == two.turn_id
    with pytest.raises(PreviousResponseNotFound):
        await site.texts("resp_4")


async def test_its_time_is_over_before_it_is_removed(site, database):
    one = site.keep("resp_1", "one")
    await site.written()
    site.clock.now += DAY - 1000
    site.keep("resp_2", "two", after=one)
    await site.written()
    site.clock.now += DAY - 1000
    # As long as its chain is added to, a turn stays.
    assert await site.texts("resp_1") == ["one"]
    site.clock.now += 2000
    assert await site.texts("resp_1") is None
    assert await site.texts("resp_2") is None
    assert await site.one("t", "resp_2") is None
    assert await remove_old(database, site.clock.now, {"u": 1}, "me") == 2
    assert await remove_old(database, site.clock.now, {"u": 1}, "me") == 0


async def test_one_process_removes_for_all(site, database):
    site.keep("resp_1", "one")
    await site.written()
    later = site.clock.now + 2 * DAY
    # While there is nothing to do nobody has it to do.
    assert await remove_old(database, site.clock.now, {"u": 1}, "second") == 0
    async with database.transaction() as connection:
        assert await take_lease(connection, LEASE, "first", 60_000)
    assert await remove_old(database, later, {"u": 1}, "second") == 0
    assert await remove_old(database, later, {"u": 1}, "first") == 1


async def test_a_chain_has_an_end(site, monkeypatch):
    monkeypatch.setattr(chaining, "TURNS_MAX", 3)
    turn = None
    for number in range(3):
        turn = site.keep(f"resp_{number}", after=turn)
    for _ in range(2):
        assert len(await site.texts("resp_2")) == 3
        await site.written()
    turn = site.keep("resp_3", after=turn)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="more than 3 turns") as refused:
            await site.texts("resp_3")
        assert refused.value.param == "previous_response_id"
        await site.written()


async def test_a_chain_that_is_too_large_is_not_read(site, monkeypatch):
    one = site.keep("resp_1", "x" * 6000)
    site.keep("resp_2", "y" * 6000, after=one)
    await site.written()
    monkeypatch.setattr(turning, "payloads_of", None)
    with pytest.raises(InvalidRequest, match="more than 10000 bytes"):
        await site.texts("resp_2")


async def test_there_has_to_be_room_before_a_turn_is_read(site, monkeypatch):
    one = site.keep("resp_1", "x" * 600)
    site.keep("resp_2", "y" * 600, after=one)
    await site.written()
    asked = []

    def hold(size):
        asked.append(size)
        raise Overloaded

    monkeypatch.setattr(turning, "payloads_of", None)
    for ask in (site.chains.find, site.chains.one):
        with pytest.raises(Overloaded):
            await ask("t", "resp_2", site.clock.now, Room(hold))
    assert asked[0] > asked[1] > 600


async def test_other_keys_do_not_read_it(database):
    async with site_on(database) as site:
        site.keep("resp_1", "one")
    async with site_on(database, key=new_key()) as other:
        with pytest.raises(LedgerUnavailable):
            await other.texts("resp_1")


async def test_keys_that_do_not_know_the_canary_are_refused(database):
    await check_canary(database, Seal(KEY))
    await check_canary(database, Seal(f"{new_key()},{KEY}"))
    with pytest.raises(ConfigurationError, match="none of the state keys"):
        await check_canary(database, Seal(new_key()))


async def test_a_start_that_is_refused_leaves_no_key_behind(database, tmp_path):
    given = Environment.read({}, data_dir=tmp_path / "new")
    (tmp_path / "new").mkdir()
    await check_canary(database, Seal(KEY))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="none of the state keys"):
            await open_seal(given, database)
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "new" / "state.key").write_text(KEY)
    await open_seal(given, database)


async def test_the_first_start_makes_a_key(database, tmp_path):
    given = Environment.read({}, data_dir=tmp_path)
    assert (await open_seal(given, database)).knows((await open_seal(given, database)).canary())


async def test_while_the_database_is_away_turns_wait_and_are_written_then(site, monkeypatch):
    real, fails = turning.keep_turns, True

    async def keep(connection, rows):
        if fails:
            raise DatabaseUnavailable("away")
        await real(connection, rows)

    monkeypatch.setattr(turning, "keep_turns", keep)
    site.keep("resp_1", "one")
    await asyncio.sleep(0.3)
    assert site.turns.waiting == 1
    assert await site.texts("resp_1") == ["one"]
    fails = False
    await site.written()
    assert await site.texts("resp_1") == ["one"]
    assert site.told == [("kept", 1)]


async def test_what_the_database_refuses_is_lost_and_stands_before_nothing(site, monkeypatch):
    real = turning.keep_turns

    async def keep(connection, rows):
        if any(row.response_id == "resp_bad" for row in rows):
            raise ValueError("no")
        await real(connection, rows)

    monkeypatch.setattr(turning, "keep_turns", keep)
    site.keep("resp_1", "one")
    site.keep("resp_bad")
    site.keep("resp_2", "two")
    await site.written()
    assert sorted(site.told) == [("kept", 1), ("kept", 1), ("lost", 1)]
    assert site.turns._held_bytes == 0
    assert await site.texts("resp_bad") is None
    assert [await site.texts(name) for name in ("resp_1", "resp_2")] == [["one"], ["two"]]


async def test_what_waits_is_bounded(site, monkeypatch):
    monkeypatch.setattr(turning, "WAITING_TURNS_MAX", 1)
    site.keep("resp_1")
    draft = site.turns.begin(Keeping("t", b"", frozenset({"u"})), lambda: "u")
    draft.see_json(b'{"id":"resp_2","status":"completed"}')
    assert draft.is_over
    assert not draft.was_kept
    monkeypatch.setattr(turning, "HELD_BYTES_MAX", 100)
    await site.written()
    draft = site.turns.begin(Keeping("t", b"x" * 101, frozenset({"u"})), lambda: "u")
    draft.see_event(b"{}")
    assert draft.is_over
    assert site.turns._held_bytes == 0


async def test_a_team_that_takes_all_its_room_takes_none_of_others(site, monkeypatch):
    monkeypatch.setattr(turning, "HELD_OF_TEAM_BYTES_MAX", 1000)
    monkeypatch.setattr(turning, "WAITING_OF_TEAM_MAX", 2)

    def begun(team):
        draft = site.turns.begin(Keeping(team, b"x" * 400, frozenset({"u"})), lambda: "u")
        draft.see_event(b"{}")
        return draft

    drafts = [begun("t") for _ in range(3)]
    assert [draft.is_over for draft in drafts] == [False, False, True]
    other = begun("other")
    assert not other.is_over
    for draft in (*drafts, other):
        draft.close()
    for number in range(2):
        site.keep(f"resp_{number}")
    draft = site.turns.begin(Keeping("t", b"", frozenset({"u"})), lambda: "u")
    draft.see_json(b'{"id":"resp_2","status":"completed"}')
    assert not draft.was_kept
    site.keep("resp_2", team="other")
    await site.written()
    assert (site.turns._held_bytes, site.turns._held_of_team, site.turns._waiting_of_team) == (0, {}, {})


async def test_a_batch_that_is_never_written_in_time_is_tried_in_parts(site, monkeypatch):
    real, tried = turning.keep_turns, []

    async def keep(connection, rows):
        tried.append(len(rows))
        if len(rows) > 2 or any(row.response_id == "resp_3" for row in rows):
            await asyncio.sleep(10)
        await real(connection, rows)

    monkeypatch.setattr(turning, "keep_turns", keep)
    monkeypatch.setattr(turning, "WRITE_S_MAX", 0.1)
    monkeypatch.setattr(turning, "RETRY_DELAY_MIN_S", 0.001)
    monkeypatch.setattr(turning, "RETRY_DELAY_MAX_S", 0.001)
    for number in range(8):
        site.keep(f"resp_{number}")
    await site.written()
    assert tried[:7] == [8, 8, 8, 4, 4, 4, 2]
    told = [sum(turns for result, turns in site.told if result == kind) for kind in ("kept", "lost")]
    assert told == [7, 1]
    assert await site.texts("resp_3") is None
    assert await site.texts("resp_7") == ["hi"]


async def test_while_the_database_is_mute_nothing_is_lost(site, monkeypatch):
    real, is_mute, looks = Database.transaction, True, []

    @asynccontextmanager
    async def transaction(database):
        if is_mute:
            looks.append(1)
            await asyncio.sleep(10)
        async with real(database) as connection:
            yield connection

    monkeypatch.setattr(Database, "transaction", transaction)
    for name in ("WRITE_S_MAX", "LOOKUP_S_MAX", "RETRY_DELAY_MIN_S", "RETRY_DELAY_MAX_S"):
        monkeypatch.setattr(turning, name, 0.02)
    site.keep("resp_1")
    async with asyncio.timeout(30):
        while len(looks) < 3 * turning.TIMEOUTS_MAX:
            await asyncio.sleep(0.01)
    assert (site.turns.waiting, site.told) == (1, [])
    is_mute = False
    monkeypatch.setattr(turning, "WRITE_S_MAX", 5)
    monkeypatch.setattr(turning, "LOOKUP_S_MAX", 5)
    await site.written()
    assert site.told == [("kept", 1)]


async def test_a_turn_of_another_process_is_waited_for(kind, database, database_url, monkeypatch):
    others = await Database.open(database_url)
    async with site_on(database) as here, site_on(others) as there:
        begun = time.monotonic()
        assert await here.wait_for("t", "resp_unknown") is None
        waited_s = time.monotonic() - begun
        if kind == "sqlite":
            # There is no other.
            assert waited_s < sum(chaining.LATE_PAUSES_S)
        else:
            assert 1.9 < waited_s < 20
            monkeypatch.setattr(chaining, "LATE_PAUSES_S", (0.1,) * 300)
            waiting = asyncio.create_task(here.wait_for("t", "resp_1"))
            await asyncio.sleep(0.2)
            there.keep("resp_1", "one")
            assert [turn.response_id for turn in await waiting] == ["resp_1"]
            monkeypatch.setattr(chaining, "LATE_MAX", 0)
            begun = time.monotonic()
            assert await here.wait_for("t", "resp_unknown") is None
            assert time.monotonic() - begun < 20
    await others.close()


async def test_a_shutdown_writes_what_waits(database):
    async with site_on(database) as site:
        site.turns._gather_s = 60
        site.keep("resp_1", "one")
    async with site_on(database) as after:
        assert await after.texts("resp_1") == ["one"]
