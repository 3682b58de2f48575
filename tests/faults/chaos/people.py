"""Who asks: teams and keys under limits that are met in the middle of a run."""

from __future__ import annotations

import random
import time

import msgspec

from app.auth.keys import mint
from app.core.identity import LimitRule
from app.store.database import Database
from app.store.keys import create_key
from app.store.limits import add_limit
from app.store.migrate import upgrade
from app.store.teams import create_team

NANOUSD_PER_CENT = 10_000_000


class Person(msgspec.Struct, frozen=True):
    """A key and what binds it. ``limits`` are its own and its team's; ``closes``: one of them is strict."""

    team_id: str
    team: str
    key_id: str
    name: str
    text: str
    weight: int
    limits: tuple[LimitRule, ...]

    @property
    def is_strict(self) -> bool:
        return any(rule.policy == "strict" and rule.mode == "enforce" for rule in self.limits)


class Team(msgspec.Struct, frozen=True):
    """``keys``: name, how often it asks, its own limits."""

    name: str
    limits: tuple[LimitRule, ...]
    keys: tuple[tuple[str, int, tuple[LimitRule, ...]], ...]


def rule(kind: str, maximum: int, window: str = "", **more: str) -> LimitRule:
    return LimitRule(id="", kind=kind, maximum=maximum, window=window, **more)  # type: ignore[arg-type]


def teams_of(draw: random.Random, time_zone: str) -> tuple[Team, ...]:
    """Budgets are spent, and windows full, some time in the middle."""
    cents = NANOUSD_PER_CENT
    return (
        Team(
            "alpha",
            (rule("money", draw.randint(3 * cents, 12 * cents), "day", time_zone=time_zone),),
            (
                ("free", 4, ()),
                ("spender", 3, (rule("money", draw.randint(cents, 4 * cents), "total"),)),
                ("crowd", 3, (rule("concurrency", draw.randint(2, 4)),)),
            ),
        ),
        Team(
            "beta",
            (rule("tokens", draw.randint(3_000, 12_000), "minute"), rule("concurrency", draw.randint(4, 8))),
            (
                ("steady", 3, (rule("requests", draw.randint(15, 60), "minute"),)),
                ("monthly", 3, (rule("money", draw.randint(2 * cents, 8 * cents), "month"),)),
            ),
        ),
        Team("gamma", (), (("unbound", 3, ()),)),
        Team(
            "delta",
            (
                rule("requests", draw.randint(10, 60), "minute", policy="protective"),
                rule("money", cents // 2, "total", mode="observe"),
            ),
            (("guarded", 2, ()),),
        ),
    )


async def make_people(database_url: str, teams: tuple[Team, ...]) -> list[Person]:
    """All of them, in a new ledger."""
    database = await Database.open(database_url)
    people: list[Person] = []
    now_ms = time.time_ns() // 1_000_000
    try:
        await upgrade(database)
        async with database.transaction() as connection:
            for team in teams:
                row = await create_team(connection, name=team.name, now_ms=now_ms)
                of_team = [
                    (await add_limit(connection, each, team_id=row.id, key_id=None, now_ms=now_ms)).rule
                    for each in team.limits
                ]
                for name, weight, limits in team.keys:
                    minted = mint()
                    key = await create_key(
                        connection,
                        team_id=row.id,
                        name=name,
                        secret_id=minted.id,
                        digest=minted.digest,
                        now_ms=now_ms,
                    )
                    own = [
                        (await add_limit(connection, each, team_id=row.id, key_id=key.id, now_ms=now_ms)).rule
                        for each in limits
                    ]
                    people.append(Person(row.id, team.name, key.id, name, minted.text, weight, (*own, *of_team)))
    finally:
        await database.close()
    return people
