"""The change feed: how a running gateway follows what was changed about people, and what of the cache was cleared, what
prices were set, and which upstreams were paused.

It keeps a number, reads ``current_change`` often, and where that is higher takes ``rows_since``. Changes
are numbered from one counter row that is updated in the changing transaction, so that they become
visible in the order of their numbers.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.cache import CacheClear, clears_since
from app.store.limits import rules_of_keys, rules_of_teams
from app.store.pauses import have_pauses_changed, list_pauses
from app.store.prices import SetPrice, have_prices_changed, list_prices
from app.store.rows import KeyRow, SecretRow, TeamRow, key_from, secret_from, team_from
from app.store.tables import change_counter, keys, secrets, teams


class Changes(msgspec.Struct, frozen=True):
    """All that changed after some number, up to ``change`` and perhaps a little beyond it.

    A key comes with all of its secrets, keys and teams with all of their limits. Every key's team and every
    secret's key are known: they are here, or came earlier.
    """

    change: int
    teams: list[TeamRow]
    keys: list[KeyRow]
    secrets: list[SecretRow]
    cache_clears: list[CacheClear]
    prices: list[SetPrice] | None = None
    """All that are set, where one of them has changed."""
    paused: frozenset[str] | None = None
    """The upstreams that are paused, where one of them has changed."""


async def current_change(connection: AsyncConnection) -> int:
    """The number of the last change."""
    asked = select(change_counter.c.value).where(change_counter.c.id == 1)
    number: int = (await connection.execute(asked)).scalar_one()
    return number


async def rows_since(connection: AsyncConnection, change: int) -> Changes:
    """What changed after number ``change`` (0: everything there is)."""
    # The number first: what is committed after it comes again next time. Then children before parents,
    # for on PostgreSQL each statement sees more than the one before.
    reached = await current_change(connection)
    asked = (
        select(secrets).join(keys, keys.c.id == secrets.c.key_id).where(keys.c.changed > change).order_by(secrets.c.id)
    )
    secret_rows = [secret_from(row) for row in (await connection.execute(asked)).mappings()]
    key_rows = list((await connection.execute(select(keys).where(keys.c.changed > change))).mappings())
    team_rows = list((await connection.execute(select(teams).where(teams.c.changed > change))).mappings())
    # Limits after their owners, or an owner that changes in between would be here without any.
    of_keys = await rules_of_keys(connection, keys.c.changed > change)
    of_teams = await rules_of_teams(connection, teams.c.changed > change)
    return Changes(
        reached,
        [team_from(row, of_teams.get(row["id"], ())) for row in team_rows],
        [key_from(row, of_keys.get(row["id"], ())) for row in key_rows],
        secret_rows,
        await clears_since(connection, change),
        await list_prices(connection) if await have_prices_changed(connection, change) else None,
        await _paused(connection) if await have_pauses_changed(connection, change) else None,
    )


async def _paused(connection: AsyncConnection) -> frozenset[str]:
    return frozenset(pause.upstream for pause in await list_pauses(connection))


async def find_secret(connection: AsyncConnection, secret_id: str) -> tuple[SecretRow, KeyRow, TeamRow] | None:
    """One secret with its key and team, whatever their state; None where there is none."""
    secret = (await connection.execute(select(secrets).where(secrets.c.id == secret_id))).mappings().one_or_none()
    if secret is None:
        return None
    key = (await connection.execute(select(keys).where(keys.c.id == secret["key_id"]))).mappings().one()
    team = (await connection.execute(select(teams).where(teams.c.id == key["team_id"]))).mappings().one()
    of_keys = await rules_of_keys(connection, keys.c.id == key["id"])
    of_teams = await rules_of_teams(connection, teams.c.id == team["id"])
    return secret_from(secret), key_from(key, of_keys.get(key["id"], ())), team_from(team, of_teams.get(team["id"], ()))
