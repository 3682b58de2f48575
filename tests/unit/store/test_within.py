"""What waits for a database waits no longer than it is told, also where a statement cannot be ended."""

from __future__ import annotations

import asyncio

import pytest

from app.store.database import Database


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield database
    await database.close()


async def answers(value, after_s=0.0):
    await asyncio.sleep(after_s)
    return value


class Mute:
    """As a driver is whose server does not answer: it is cancelled, and goes on for a while to say so."""

    def __init__(self, error=None):
        self.error = error
        self.may_end = asyncio.Event()
        self.is_over = False

    async def __call__(self):
        try:
            await asyncio.sleep(900)
        except asyncio.CancelledError:
            await self.may_end.wait()
            self.is_over = True
            if self.error is not None:
                raise self.error from None
            raise


async def test_what_answers_in_time_is_told(database):
    assert await database.within(30, answers(5, after_s=0.01)) == 5
    with pytest.raises(ValueError, match="no"):
        await database.within(30, fails())


async def ended(mute):
    mute.may_end.set()
    async with asyncio.timeout(30):
        while not mute.is_over:
            await asyncio.sleep(0.01)


async def fails():
    raise ValueError("no")


@pytest.mark.parametrize("error", [None, OSError("late")])
async def test_who_waits_is_let_go_and_what_was_begun_is_ended(database, error):
    mute = Mute(error)
    with pytest.raises(TimeoutError):
        await database.within(0.05, mute())
    assert not mute.is_over
    await ended(mute)


async def test_who_leaves_ends_what_was_begun(database):
    mute = Mute()
    waiting = asyncio.ensure_future(database.within(900, mute()))
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await ended(mute)
