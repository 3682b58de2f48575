"""Epochs are moved on by one of many, by the database's clock."""

from __future__ import annotations

import asyncio
import time

from sqlalchemy import select

from app.store.epochs import (
    EpochRow,
    advance_epoch,
    force_epoch,
    insert_tag,
    list_tags,
    open_epoch,
    read_epoch,
    take_lead,
)
from app.store.now import NowMs


async def act(database, act_of, *values, **named):
    async with database.transaction() as connection:
        return await act_of(connection, *values, **named)


async def test_the_database_has_a_clock(database):
    before = time.time_ns() // 1_000_000
    async with database.read() as connection:
        now_ms = (await connection.execute(select(NowMs()))).scalar_one()
    # One machine: the two differ by a rounding.
    assert before - 2 <= now_ms <= time.time_ns() // 1_000_000 + 2


async def test_the_first_epoch_is_open_and_led_by_nobody(database):
    assert await act(database, read_epoch) == EpochRow(1, "open", None, 0)


async def test_one_of_many_begins_the_next_epoch(database):
    rows = await asyncio.gather(*[act(database, advance_epoch, 1, f"p{number}", 60_000) for number in range(8)])
    leaders = {row.leader for row in rows}
    assert len(leaders) == 1
    assert {(row.number, row.state) for row in rows} == {(2, "warming")}
    assert all(0 < row.leader_left_ms <= 60_000 for row in rows)
    # What somebody saw earlier moves nothing.
    assert (await act(database, advance_epoch, 1, "late", 60_000)).leader in leaders
    assert (await act(database, advance_epoch, 2, "next", 60_000)).number == 3


async def test_a_leader_keeps_its_lead_until_its_lease_is_over(database):
    await act(database, advance_epoch, 1, "a", 60_000)
    assert (await act(database, take_lead, 2, "b", 60_000)).leader == "a"
    renewed = await act(database, take_lead, 2, "a", 300)
    assert (renewed.leader, 0 < renewed.leader_left_ms <= 300) == ("a", True)
    async with asyncio.timeout(30):
        while (row := await act(database, take_lead, 2, "b", 60_000)).leader == "a":
            await asyncio.sleep(0.02)
    assert (row.leader, row.state) == ("b", "warming")
    # Neither the old leader nor an old number changes anything by now.
    assert (await act(database, open_epoch, 2, "a")).state == "warming"
    assert (await act(database, take_lead, 1, "c", 60_000)).leader == "b"
    assert (await act(database, open_epoch, 1, "b")).state == "warming"
    assert (await act(database, open_epoch, 2, "b")).state == "open"
    assert (await act(database, read_epoch)).number == 2


async def test_an_expired_lease_has_nothing_left(database):
    await act(database, advance_epoch, 1, "a", 0)
    await asyncio.sleep(0.005)
    assert await act(database, read_epoch) == EpochRow(2, "warming", "a", 0)


async def test_only_one_takes_a_lead_that_is_free(database):
    number = (await act(database, force_epoch)).number
    rows = await asyncio.gather(*[act(database, take_lead, number, f"p{each}", 60_000) for each in range(8)])
    assert len({row.leader for row in rows}) == 1
    assert None not in {row.leader for row in rows}


async def test_after_a_restore_there_is_a_new_epoch_that_nobody_leads(database):
    """Redis may hold later epochs than the backup knows of: the new one is later than any of them."""
    await act(database, advance_epoch, 1, "a", 60_000)
    await act(database, open_epoch, 2, "a")
    before_s = int(time.time())
    forced = await act(database, force_epoch)
    assert before_s <= forced.number <= time.time() + 1
    assert (forced.state, forced.leader, forced.leader_left_ms) == ("warming", None, 0)
    assert (await act(database, open_epoch, forced.number, "a")).state == "warming"
    # Twice within a second, and with a clock that is behind.
    assert (await act(database, force_epoch)).number > forced.number
    await act(database, advance_epoch, (await act(database, read_epoch)).number, "a", 1, beyond=2**40)
    assert await act(database, force_epoch) == EpochRow(2**40 + 2, "warming", None, 0)


async def test_a_hash_tag_is_first_used_once_in_an_epoch(database):
    assert await act(database, insert_tag, "team1", 1) == (True, 0)
    await asyncio.sleep(0.03)
    known, age_ms = await act(database, insert_tag, "team1", 1)
    assert not known
    assert 20 <= age_ms < 5_000
    assert await act(database, insert_tag, "up:openai", 1) == (True, 0)
    assert await act(database, insert_tag, "team1", 2) == (True, 0)
    # Somebody who has not heard of the new epoch.
    assert (await act(database, insert_tag, "team1", 1))[0] is False
    first = await asyncio.gather(*[act(database, insert_tag, "team2", 5) for _ in range(8)])
    assert [inserted for inserted, _ in first].count(True) == 1
    assert await act(database, list_tags) == ("team1", "team2", "up:openai")
