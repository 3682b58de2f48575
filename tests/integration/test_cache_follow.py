"""What is said about the cache in the ledger holds in a gateway that follows it, within a second."""

from __future__ import annotations

import asyncio
import time

from app.auth.authenticator import Authenticator
from app.auth.keys import mint
from app.core.clock import SystemClock
from app.store.cache import CacheClear, clear_cache
from app.store.database import Database
from app.store.keys import KeyChanges, create_key, update_key
from app.store.teams import create_team
from tests.contract.store.databases import database, database_url, kind

__all__ = ["database", "database_url", "kind"]

FOLLOWED_S = 30.0


async def test_a_mode_and_clearings_are_followed(database, database_url):
    told: list[CacheClear] = []
    reached: list[int] = []

    def take(clears, change):
        told.extend(clears)
        reached.append(change)

    minted = mint()
    ledger = await Database.open(database_url)
    async with ledger.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        key = await create_key(
            connection, team_id=team.id, name="k", secret_id=minted.id, digest=minted.digest, now_ms=1, cache_mode="off"
        )
        before = await clear_cache(connection, team_id=None, model=None, now_ms=1)
    authenticator = Authenticator(database, SystemClock(), on_state=lambda *_: None, on_cache_clears=take)
    await authenticator.start()
    assert (await authenticator.authenticate(minted.text, "")).cache == "off"
    assert (told, reached) == ([before], [before.change])

    async with ledger.transaction() as connection:
        after = await clear_cache(connection, team_id=team.id, model="gpt-*", now_ms=2)
        changed = await update_key(connection, key.id, KeyChanges(cache_mode="all"), now_ms=2)
    until = time.monotonic() + FOLLOWED_S
    while reached[-1] < changed.changed and time.monotonic() < until:
        await asyncio.sleep(0.02)
    assert (told, reached) == ([before, after], [before.change, changed.changed])
    assert (await authenticator.authenticate(minted.text, "")).cache == "all"
    await ledger.close()
    await authenticator.close()
