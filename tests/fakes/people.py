"""Teams, keys and limits, put straight into a gateway's ledger: what the commands do, without the second that each
takes to start. And what the ledger has of a request, whichever database it is on.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.keys import mint
from app.core.identity import LimitRule
from app.store import limits as stored_limits
from app.store.database import Database
from app.store.keys import create_key, rotate_key
from app.store.limits import LimitChanges
from app.store.tables import entries, records, teams
from app.store.teams import create_team
from tests.fakes.gateway import RunningGateway

T = TypeVar("T")
OVERLAP_MS = 3_600_000
FARTHEST_EAST = 14


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def url_of(gateway: RunningGateway) -> str:
    """Where its ledger is."""
    return gateway.environment.get("HEADGATE_DATABASE_URL") or f"sqlite:///{gateway.data_dir / 'headgate.db'}"


def rule(kind: str, maximum: int, window: str = "", **more: Any) -> LimitRule:
    return LimitRule(id="", kind=kind, maximum=maximum, window=window, **more)  # type: ignore[arg-type]


def zone_at(hour: int) -> str:
    """A time zone in which it is about so late."""
    ahead = (hour - time.gmtime().tm_hour) % 24
    # By the database of time zones "Etc/GMT-3" is three hours ahead of Greenwich.
    return f"Etc/GMT-{ahead}" if ahead <= FARTHEST_EAST else f"Etc/GMT+{24 - ahead}"


@dataclass(frozen=True)
class Key:
    """``limits`` are the ids of its own rules, in the order in which they were given."""

    id: str
    team_id: str
    text: str
    limits: tuple[str, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.text}"}


class People:
    """Those of one ledger. A key is known to every gateway at its first request, with all that binds it."""

    _numbers = itertools.count(1)

    def __init__(self, url: str) -> None:
        self.url = url

    def team(self, *rules: LimitRule) -> str:
        """A new team's id."""

        async def work(connection: AsyncConnection) -> str:
            team = await create_team(connection, name=f"team-{next(self._numbers)}", now_ms=now_ms())
            for each in rules:
                await stored_limits.add_limit(connection, each, team_id=team.id, key_id=None, now_ms=now_ms())
            return team.id

        return self._change(work)

    def key(self, *rules: LimitRule, team_id: str | None = None, models: tuple[str, ...] | None = None) -> Key:
        """A new key, in a team of its own unless one is named."""
        team = self.team() if team_id is None else team_id
        minted = mint()

        async def work(connection: AsyncConnection) -> Key:
            row = await create_key(
                connection,
                team_id=team,
                name=f"key-{next(self._numbers)}",
                secret_id=minted.id,
                digest=minted.digest,
                now_ms=now_ms(),
                models=models,
            )
            made = [
                await stored_limits.add_limit(connection, each, team_id=team, key_id=row.id, now_ms=now_ms())
                for each in rules
            ]
            return Key(row.id, team, minted.text, tuple(each.rule.id for each in made))

        return self._change(work)

    def name_of_team(self, team_id: str) -> str:
        (row,) = self._read(select(teams.c.name).where(teams.c.id == team_id))
        return str(row["name"])

    def rotate(self, key: Key) -> Key:
        """The same key with a further secret."""
        minted = mint()

        async def work(connection: AsyncConnection) -> Key:
            await rotate_key(
                connection,
                key_id=key.id,
                secret_id=minted.id,
                digest=minted.digest,
                now_ms=now_ms(),
                overlap_ms=OVERLAP_MS,
            )
            return Key(key.id, key.team_id, minted.text, key.limits)

        return self._change(work)

    def update(self, limit_id: str, **changes: Any) -> None:
        self._change(lambda connection: stored_limits.update_limit(connection, limit_id, LimitChanges(**changes)))

    def remove(self, limit_id: str) -> None:
        self._change(lambda connection: stored_limits.remove_limit(connection, limit_id))

    def records_of(self, key_id: str) -> list[dict[str, Any]]:
        """The records of a key, oldest first."""
        return self._read(select(records).where(records.c.key_id == key_id).order_by(records.c.request_id))

    def kinds(self, end_user: str) -> list[list[str]]:
        """Of each record of an end user, as ``user`` names it, the kinds of its entries."""
        asked = select(entries.c.request_id, entries.c.kind).join(records, records.c.request_id == entries.c.request_id)
        rows = self._read(asked.where(records.c.end_user == end_user).order_by(entries.c.attempt_id))
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row["request_id"], []).append(row["kind"])
        return list(found.values())

    def _read(self, asked: Any) -> list[dict[str, Any]]:
        async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
            return [dict(row) for row in (await connection.execute(asked)).mappings()]

        return self._change(work)

    def _change(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async def run() -> T:
            database = await Database.open(self.url)
            try:
                async with database.transaction() as connection:
                    return await work(connection)
            finally:
                await database.close()

        return asyncio.run(run())
