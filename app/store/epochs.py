"""Epochs: the lives of what Redis holds, numbered in SQL, so that a store that was lost is known as such.

An epoch is ``warming`` until its leader has brought back all that counts, then ``open``. All of it is one row,
changed by comparing and setting: of several processes that see the same loss one moves it on, and the others
read what it did. Leases end by the database's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from sqlalchemy import case, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.store.now import NowMs
from app.store.tables import INT, epoch, tag_epochs

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

EpochState = Literal["open", "warming"]


class EpochRow(msgspec.Struct, frozen=True):
    """``leader`` is a process id, or None; ``leader_left_ms`` what is left of its lease, 0 where it is over."""

    number: int
    state: EpochState
    leader: str | None
    leader_left_ms: int


async def read_epoch(connection: AsyncConnection) -> EpochRow:
    left_ms = epoch.c.leader_until_ms - NowMs()
    left = case((left_ms > 0, left_ms), else_=0)
    row = (await connection.execute(select(epoch.c.number, epoch.c.state, epoch.c.leader, left))).one()
    return EpochRow(*row)


async def advance_epoch(
    connection: AsyncConnection, from_number: int, leader: str, lease_ms: int, *, beyond: int = 0
) -> EpochRow:
    """Begins the epoch after ``from_number`` (and after ``beyond``), led by ``leader``; where it is over
    already, what there is.
    """
    return await _change(
        connection,
        (epoch.c.number == from_number,),
        number=max(from_number, beyond) + 1,
        state="warming",
        leader=leader,
        leader_until_ms=NowMs() + lease_ms,
    )


async def take_lead(connection: AsyncConnection, number: int, leader: str, lease_ms: int) -> EpochRow:
    """Makes ``leader`` lead epoch ``number``, or go on leading it, unless another's lease is not over."""
    free = or_(epoch.c.leader.is_(None), epoch.c.leader == leader, epoch.c.leader_until_ms <= NowMs())
    return await _change(
        connection, (epoch.c.number == number, free), leader=leader, leader_until_ms=NowMs() + lease_ms
    )


async def open_epoch(connection: AsyncConnection, number: int, leader: str) -> EpochRow:
    """Opens epoch ``number``, if it is warming and ``leader`` still leads it."""
    mine = (epoch.c.number == number, epoch.c.leader == leader, epoch.c.state == "warming")
    return await _change(connection, mine, state="open", opened_at_ms=NowMs())


async def force_epoch(connection: AsyncConnection) -> EpochRow:
    """Begins a new epoch that nobody leads yet: after a restore, since versions of budgets have gone back.

    What Redis holds may be of later epochs than the backup knows of. None begins more often than once a
    second, so the seconds since 1970 are later than all of them.
    """
    # Whole numbers: floor() is not in every SQLite.
    now_s = NowMs() // 1000
    later = case((epoch.c.number + 1 > now_s, epoch.c.number + 1), else_=now_s)
    return await _change(connection, (), number=later, state="warming", leader=None, leader_until_ms=0)


async def _change(connection: AsyncConnection, where: tuple[ColumnElement[bool], ...], **values: object) -> EpochRow:
    await connection.execute(update(epoch).where(epoch.c.id == 1, *where).values(**values))
    return await read_epoch(connection)


async def insert_tag(connection: AsyncConnection, tag: str, number: int) -> tuple[bool, int]:
    """Notes that hash tag ``tag`` is used in epoch ``number``.

    Returns whether this is the first use of it, and how many milliseconds ago that was.
    """
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    given = insert(tag_epochs).values(tag=tag, epoch=number, at_ms=NowMs())
    newer = {"epoch": given.excluded.epoch, "at_ms": given.excluded.at_ms}
    upsert = given.on_conflict_do_update(
        index_elements=["tag"], set_=newer, where=tag_epochs.c.epoch < given.excluded.epoch
    )
    found = await connection.execute(upsert.returning(tag_epochs.c.tag))
    if found.first() is not None:
        return True, 0
    age_ms = (NowMs() - tag_epochs.c.at_ms).cast(INT)
    aged: int = (await connection.execute(select(age_ms).where(tag_epochs.c.tag == tag))).scalar_one()
    return False, max(aged, 0)


async def list_tags(connection: AsyncConnection) -> tuple[str, ...]:
    """Every hash tag that was ever used."""
    return tuple((await connection.execute(select(tag_epochs.c.tag).order_by(tag_epochs.c.tag))).scalars())
