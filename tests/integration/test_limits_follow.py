"""A limit that is set in the ledger binds in a gateway that follows it, within a second and without a new key."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.auth.authenticator import Authenticator
from app.auth.keys import mint
from app.core.clock import SystemClock
from app.core.identity import LimitRule
from app.limits.policy import Policy
from app.settings import LimitValues
from app.store.database import Database
from app.store.keys import create_key, rotate_key
from app.store.limits import LimitChanges, PlainLimit, add_limit, remove_limit, update_limit
from app.store.teams import TeamChanges, create_team, update_team
from tests.contract.store.databases import database, database_url, kind

__all__ = ["database", "database_url", "kind"]

FOLLOWED_S = 30.0


class Gateway:
    """What a gateway has between a key and its limits; ``ledger`` is the database as a command opens it."""

    def __init__(self, authenticator: Authenticator, ledger: Database) -> None:
        self.authenticator = authenticator
        self.ledger = ledger
        self.policy = Policy(LimitValues(requests_per_minute=100).rules("key"))

    async def limits(self, key: str, model: str = "gpt-4o", **tags: str) -> dict[str, int]:
        principal = await self.authenticator.authenticate(key, "")
        return {limit.counter: limit.maximum for limit in self.policy.bind(principal, model, tags)}

    async def follows(self, key: str, wanted: dict[str, int], model: str = "gpt-4o", **tags: str) -> None:
        until = time.monotonic() + FOLLOWED_S
        while (found := await self.limits(key, model, **tags)) != wanted and time.monotonic() < until:
            await asyncio.sleep(0.02)
        assert found == wanted


@pytest.fixture
async def gateway(database, database_url):
    authenticator = Authenticator(database, SystemClock(), on_state=lambda *_: None)
    await authenticator.start()
    ledger = await Database.open(database_url)
    yield Gateway(authenticator, ledger)
    await ledger.close()
    await authenticator.close()


async def test_what_is_set_changed_and_removed_is_followed(gateway):
    minted = mint()
    async with gateway.ledger.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        key = await create_key(
            connection, team_id=team.id, name="k", secret_id=minted.id, digest=minted.digest, now_ms=1
        )
    default = {f"default.key.requests_per_minute:{key.id}": 100}
    assert await gateway.limits(minted.text) == default

    async with gateway.ledger.transaction() as connection:
        rule = LimitRule("", "tokens", 5, "day", model="gpt-4*", tag_name="env")
        added = await add_limit(connection, rule, team_id=team.id, key_id=key.id, now_ms=2)
    await gateway.follows(minted.text, {**default, f"{added.rule.id}:x": 5}, env="x")
    assert await gateway.limits(minted.text, "o3", env="x") == await gateway.limits(minted.text) == default

    async with gateway.ledger.transaction() as connection:
        await update_limit(connection, added.rule.id, LimitChanges(maximum=7))
        limits = (PlainLimit("money", "month", 9), PlainLimit("requests", "minute", 3))
        (requests, budget) = (await update_team(connection, team.id, TeamChanges(limits=limits), now_ms=3)).limits
    followed = {**default, requests.id: 3, budget.id: 9}
    await gateway.follows(minted.text, {**followed, f"{added.rule.id}:x": 7}, env="x")

    async with gateway.ledger.transaction() as connection:
        await remove_limit(connection, added.rule.id)
    await gateway.follows(minted.text, followed, env="x")


async def test_a_rotated_key_goes_on_under_the_same_limits(gateway):
    first, second = mint(), mint()
    async with gateway.ledger.transaction() as connection:
        team = await create_team(connection, name="search", now_ms=1)
        key = await create_key(
            connection,
            team_id=team.id,
            name="k",
            secret_id=first.id,
            digest=first.digest,
            now_ms=1,
            limits=[PlainLimit("money", "day", 5), PlainLimit("requests", "minute", 8)],
        )
    before = await gateway.limits(first.text)
    async with gateway.ledger.transaction() as connection:
        await rotate_key(
            connection, key_id=key.id, secret_id=second.id, digest=second.digest, now_ms=2, overlap_ms=10**15
        )
    assert await gateway.limits(second.text) == await gateway.limits(first.text) == before
    assert sorted(before.values()) == [5, 8]
    assert set(before) == {rule.id for rule in key.limits}
