"""What answers name is the team's that the ledger has it for: whichever process saw it, the first stays."""

from __future__ import annotations

import asyncio

import pytest

from app.auth.ownership import Ownership
from app.auth.references import Reference
from app.core.errors import LedgerUnavailable, StoredObjectNotFound
from app.core.records import OwnedObject
from app.store.objects import remember


def owned(object_id: str, team_id: str, kind: str = "named") -> OwnedObject:
    return OwnedObject(object_id, "openai", team_id, kind, "r", 1)


async def write(database, *rows: OwnedObject) -> None:
    async with database.transaction() as connection:
        await remember(connection, rows)


async def is_of(ownership: Ownership, team_id: str, object_id: str) -> bool:
    try:
        return await ownership.holder_of(team_id, [Reference(object_id, "file_id")]) == "openai"
    except StoredObjectNotFound:
        return False


def a_second_look_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that whoever waits for one is not answered."""
    monkeypatch.setattr("app.auth.ownership.CLAIM_LOOKS_S", (0.0, 900.0))
    monkeypatch.setattr("app.auth.ownership.LOOKUP_S_MAX", 30)


async def test_another_process_cannot_be_told_that_it_is_anothers(database):
    await write(database, owned("file_1", "mine"))
    elsewhere = Ownership(database)
    echoed = owned("file_1", "theirs")
    assert elsewhere.claim(echoed)
    await write(database, echoed)
    assert not await is_of(elsewhere, "theirs", "file_1")
    assert await is_of(elsewhere, "mine", "file_1")


async def test_it_is_waited_for_until_the_ledger_has_it(database):
    ownership = Ownership(database)
    named = owned("file_1", "mine")
    assert ownership.claim(named)
    assert not ownership.claim(named)
    asking = asyncio.create_task(is_of(ownership, "mine", "file_1"))
    await asyncio.sleep(0.05)
    assert not asking.done()
    await write(database, named)
    assert await asking
    assert not await is_of(ownership, "theirs", "file_1")


async def test_what_the_ledger_does_not_get_is_no_ones_yet(database, monkeypatch):
    ownership = Ownership(database)
    ownership.claim(owned("file_1", "mine"))
    with pytest.raises(LedgerUnavailable):
        await is_of(ownership, "mine", "file_1")
    # Others wait for nothing.
    a_second_look_is_late(monkeypatch)
    async with asyncio.timeout(30):
        assert not await is_of(ownership, "theirs", "file_1")


async def test_what_was_named_long_ago_is_not_waited_for(database, monkeypatch):
    """It was there, and another process has deleted it; or the ledger would not take it."""
    ownership = Ownership(database)
    ownership.claim(owned("file_1", "mine"))
    monkeypatch.setattr("app.auth.ownership.CLAIM_S_MAX", 0.0)
    a_second_look_is_late(monkeypatch)
    async with asyncio.timeout(30):
        assert not await is_of(ownership, "mine", "file_1")


async def test_what_was_made_here_is_not_claimed_by_anyone(database):
    ownership = Ownership(database)
    assert ownership.remember([owned("resp_1", "mine", "response")])
    assert not ownership.claim(owned("resp_1", "theirs"))
    assert await is_of(ownership, "mine", "resp_1")
    assert not await is_of(ownership, "theirs", "resp_1")


async def test_what_is_forgotten_is_not_waited_for(database, monkeypatch):
    ownership = Ownership(database)
    named = owned("file_1", "mine")
    ownership.claim(named)
    await write(database, named)
    await ownership.forget("mine", ["file_1"])
    a_second_look_is_late(monkeypatch)
    async with asyncio.timeout(30):
        assert not await is_of(ownership, "mine", "file_1")


async def test_those_of_a_team(database):
    await write(database, owned("ft:a", "mine", "model"), owned("ft:b", "theirs", "model"))
    assert await Ownership(database).those_of("mine", ["ft:a", "ft:b", "ft:c"]) == {"ft:a"}
