"""Kept turns in SQL: written in batches, found with all that came before them, removed a chain at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import and_, case, delete, func, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.store.tables import turns

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

CHAINS_REMOVED_MAX = 100


class TurnRow(msgspec.Struct, frozen=True):
    """One turn as it is written."""

    turn_id: str
    team_id: str
    response_id: str
    upstream: str
    previous_id: str | None
    chain_id: str
    replay_bytes: int
    payload: bytes
    created_at_ms: int


class TurnFound(msgspec.Struct, frozen=True):
    """One turn without its content. ``sealed_bytes`` is None where it was deleted."""

    turn_id: str
    response_id: str
    upstream: str
    previous_id: str | None
    chain_id: str
    replay_bytes: int
    created_at_ms: int
    last_at_ms: int | None
    sealed_bytes: int | None


_COLUMNS = tuple(turns.c[name] for name in TurnFound.__struct_fields__ if name != "sealed_bytes")
_SEALED = func.length(turns.c.payload).label("sealed_bytes")


async def keep_turns(connection: AsyncConnection, rows: Sequence[TurnRow]) -> None:
    """Keeps new turns; those that were kept already stay as they are. A chain is as young as its last turn."""
    inserting = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    last: dict[str, int] = {}
    for row in rows:
        last[row.chain_id] = max(last.get(row.chain_id, 0), row.created_at_ms)
    values = [
        {**msgspec.structs.asdict(row), "last_at_ms": row.created_at_ms if row.turn_id == row.chain_id else None}
        for row in sorted(rows, key=lambda row: row.turn_id)
    ]
    await connection.execute(inserting(turns).on_conflict_do_nothing(), values)
    for chain_id, at_ms in sorted(last.items()):
        first = turns.c.turn_id == chain_id
        given = case((turns.c.last_at_ms < at_ms, at_ms), else_=turns.c.last_at_ms)
        done = await connection.execute(update(turns).where(first).values(last_at_ms=given))
        if not done.rowcount:
            # The chain was removed meanwhile: what is left of it must be found when its own time is over.
            await connection.execute(update(turns).where(turns.c.chain_id == chain_id).values(last_at_ms=at_ms))


async def newest_of(connection: AsyncConnection, team_id: str, response_id: str) -> TurnFound | None:
    """The team's newest turn with this id, also where it was deleted."""
    named = (turns.c.team_id == team_id) & (turns.c.response_id == response_id)
    newest = select(*_COLUMNS, _SEALED).where(named).order_by(turns.c.created_at_ms.desc(), turns.c.turn_id.desc())
    row = (await connection.execute(newest.limit(1))).mappings().first()
    return None if row is None else TurnFound(**row)


async def chain_to(connection: AsyncConnection, team_id: str, turn_id: str, turns_max: int) -> list[TurnFound]:
    """A turn and those before it, the newest first: at most ``turns_max`` of them and one more."""
    here = select(*_COLUMNS, _SEALED, literal(0).label("depth")).where(
        turns.c.turn_id == turn_id, turns.c.team_id == team_id
    )
    walk = here.cte("walk", recursive=True)
    before = (
        select(*_COLUMNS, _SEALED, (walk.c.depth + 1).label("depth"))
        .join(walk, turns.c.turn_id == walk.c.previous_id)
        .where(turns.c.team_id == team_id, walk.c.depth < turns_max)
    )
    walk = walk.union_all(before)
    columns = [walk.c[name] for name in TurnFound.__struct_fields__]
    found = await connection.execute(select(*columns).order_by(walk.c.depth))
    return [TurnFound(**row) for row in found.mappings()]


async def last_of(connection: AsyncConnection, chain_id: str) -> tuple[str, int] | None:
    """The upstream at which a chain began, and when its last turn was added."""
    asked = select(turns.c.upstream, turns.c.last_at_ms).where(turns.c.turn_id == chain_id)
    row = (await connection.execute(asked)).first()
    return None if row is None or row.last_at_ms is None else (row.upstream, row.last_at_ms)


async def payloads_of(connection: AsyncConnection, turn_ids: Sequence[str]) -> dict[str, bytes]:
    """The encrypted contents, of those that are still there."""
    asked = select(turns.c.turn_id, turns.c.payload).where(turns.c.turn_id.in_(turn_ids), turns.c.payload.is_not(None))
    return {row.turn_id: row.payload for row in await connection.execute(asked)}


async def empty_turn(connection: AsyncConnection, team_id: str, turn_id: str) -> None:
    """Deletes what a turn holds. Its row stays, so that an older turn of the same id does not come back."""
    await connection.execute(
        update(turns).where(turns.c.turn_id == turn_id, turns.c.team_id == team_id).values(payload=None)
    )


def _is_over(now_ms: int, ttl_ms: Mapping[str, int], ttl_ms_default: int) -> ColumnElement[bool]:
    """Whether the last turn of a chain is too old, of the row that says when it was added."""
    shortest_ms = min((*ttl_ms.values(), ttl_ms_default))
    period: Any = literal(ttl_ms_default)
    if ttl_ms:
        period = case(*((turns.c.upstream == name, value) for name, value in ttl_ms.items()), else_=ttl_ms_default)
    return and_(turns.c.last_at_ms <= now_ms - shortest_ms, turns.c.last_at_ms + period <= now_ms)


async def are_expired(connection: AsyncConnection, now_ms: int, ttl_ms: Mapping[str, int], ttl_ms_default: int) -> bool:
    """Whether any is to be removed: most of the time there is none, and nobody need write for that."""
    asked = select(turns.c.turn_id).where(_is_over(now_ms, ttl_ms, ttl_ms_default)).limit(1)
    return (await connection.execute(asked)).first() is not None


async def remove_expired(
    connection: AsyncConnection, now_ms: int, ttl_ms: Mapping[str, int], ttl_ms_default: int, *, limit: int
) -> int:
    """Removes up to ``limit`` turns of chains whose last turn is too old, the first of each chain last."""
    over = _is_over(now_ms, ttl_ms, ttl_ms_default)
    chains = (await connection.execute(select(turns.c.chain_id).where(over).limit(CHAINS_REMOVED_MAX))).scalars().all()
    if not chains:
        return 0
    of_chains = select(turns.c.turn_id).where(turns.c.chain_id.in_(chains))
    in_order = of_chains.order_by(turns.c.last_at_ms.is_not(None), turns.c.turn_id).limit(limit)
    gone = (await connection.execute(in_order)).scalars().all()
    # One that was added to meanwhile is not too old any more.
    still = (turns.c.last_at_ms.is_(None)) | over
    return (await connection.execute(delete(turns).where(turns.c.turn_id.in_(gone), still))).rowcount


async def sealed_after(connection: AsyncConnection, turn_id: str, limit: int) -> list[tuple[str, bytes]]:
    """Turns that hold something, by their ids, behind one: for who goes through all of them."""
    asked = select(turns.c.turn_id, turns.c.payload).where(turns.c.turn_id > turn_id, turns.c.payload.is_not(None))
    found = await connection.execute(asked.order_by(turns.c.turn_id).limit(limit))
    return [(row.turn_id, row.payload) for row in found]


async def reseal(connection: AsyncConnection, turn_id: str, payload: bytes) -> None:
    """The same content under another key; what was deleted meanwhile stays so."""
    await connection.execute(
        update(turns).where(turns.c.turn_id == turn_id, turns.c.payload.is_not(None)).values(payload=payload)
    )


async def remove_all(connection: AsyncConnection, limit: int) -> int:
    """Removes up to ``limit`` turns, of whichever chains; how many."""
    some = (await connection.execute(select(turns.c.turn_id).limit(limit))).scalars().all()
    return (await connection.execute(delete(turns).where(turns.c.turn_id.in_(some)))).rowcount if some else 0
