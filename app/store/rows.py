"""Teams, keys, their secrets and their limits as they come out of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import update

from app.core.identity import CacheMode, LimitRule
from app.store.tables import change_counter

if TYPE_CHECKING:
    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection


class TeamRow(msgspec.Struct, frozen=True):
    """``endpoints`` are the families that its keys have; None: those that are on by default."""

    id: str
    name: str
    limits: tuple[LimitRule, ...]
    created_at_ms: int
    changed: int
    endpoints: tuple[str, ...] | None = None


class KeyRow(msgspec.Struct, frozen=True):
    """``models`` are None where everything is allowed, ``endpoints`` where it has its team's, ``cache_mode`` where
    none is set.

    ``owner`` is who answers for it, ``tags`` are labels that its requests have too.
    """

    id: str
    team_id: str
    name: str
    limits: tuple[LimitRule, ...]
    models: tuple[str, ...] | None
    endpoints: tuple[str, ...] | None
    cache_mode: CacheMode | None
    expires_at_ms: int | None
    revoked_at_ms: int | None
    created_at_ms: int
    changed: int
    owner: str | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)


class SecretRow(msgspec.Struct, frozen=True):
    """One of a key's secrets; ``id`` is the public id in its text, ``digest`` the SHA-256 of all of it."""

    id: str
    key_id: str
    digest: bytes
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None


class LimitRow(msgspec.Struct, frozen=True):
    """A rule with whom it binds: the team, or one key of it.

    ``warn_percents``: of a budget, at how many percent of it people are told, rising.
    """

    rule: LimitRule
    team_id: str
    key_id: str | None
    created_at_ms: int
    warn_percents: tuple[int, ...] = ()


def team_from(row: RowMapping, limits: tuple[LimitRule, ...]) -> TeamRow:
    return TeamRow(
        id=row["id"],
        name=row["name"],
        limits=limits,
        created_at_ms=row["created_at_ms"],
        changed=row["changed"],
        endpoints=_patterns_from(row["endpoints"]),
    )


def key_from(row: RowMapping, limits: tuple[LimitRule, ...]) -> KeyRow:
    return KeyRow(
        id=row["id"],
        team_id=row["team_id"],
        name=row["name"],
        limits=limits,
        models=_patterns_from(row["models"]),
        endpoints=_patterns_from(row["endpoints"]),
        cache_mode=row["cache_mode"],
        expires_at_ms=row["expires_at_ms"],
        revoked_at_ms=row["revoked_at_ms"],
        created_at_ms=row["created_at_ms"],
        changed=row["changed"],
        owner=row["owner"],
        tags=msgspec.json.decode(row["tags"], type=dict[str, str]),
    )


def secret_from(row: RowMapping) -> SecretRow:
    return SecretRow(
        id=row["id"],
        key_id=row["key_id"],
        digest=bytes(row["digest"]),
        created_at_ms=row["created_at_ms"],
        expires_at_ms=row["expires_at_ms"],
        revoked_at_ms=row["revoked_at_ms"],
    )


def rule_from(row: RowMapping) -> LimitRule:
    return LimitRule(**{name: row[name] for name in LimitRule.__struct_fields__})


def limit_from(row: RowMapping) -> LimitRow:
    warn_percents = msgspec.json.decode(row["warn_percents"], type=tuple[int, ...])
    return LimitRow(rule_from(row), row["team_id"], row["key_id"], row["created_at_ms"], warn_percents)


def patterns_text(patterns: tuple[str, ...] | None) -> str | None:
    """JSON text of ``models`` or ``endpoints``."""
    return None if patterns is None else json_text(patterns)


def json_text(value: object) -> str:
    """``value`` as a column of JSON holds it."""
    return msgspec.json.encode(value).decode()


def columns_of(changes: msgspec.Struct) -> dict[str, Any]:
    """What ``changes`` sets, by column."""
    given = msgspec.structs.asdict(changes)
    return {name: value for name, value in given.items() if value is not msgspec.UNSET}


async def next_change(connection: AsyncConnection) -> int:
    """The number of this transaction's change. Until it ends, every other one that changes people waits
    here, so what is read after this is still true when it is written.
    """
    advanced = (
        update(change_counter)
        .where(change_counter.c.id == 1)
        .values(value=change_counter.c.value + 1)
        .returning(change_counter.c.value)
    )
    number: int = (await connection.execute(advanced)).scalar_one()
    return number


def _patterns_from(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else msgspec.json.decode(text, type=tuple[str, ...])
