"""Which upstreams a process cannot connect to, told to the others: a row only while that is so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.now import NowMs
from app.store.tables import INT, upstream_sights


class UpstreamSight(NamedTuple):
    """An upstream that cannot be connected to: since when the first of ``processes`` saw it, by their clocks."""

    upstream: str
    down_since_ms: int
    processes: int


async def note_sights(connection: AsyncConnection, process_id: str, down: Mapping[str, int]) -> None:
    """All that a process cannot connect to now, each with since when."""
    others = delete(upstream_sights).where(
        upstream_sights.c.process_id == process_id, upstream_sights.c.upstream.not_in(sorted(down))
    )
    await connection.execute(others)
    inserting = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    for upstream, since_ms in sorted(down.items()):
        given = inserting(upstream_sights).values(
            process_id=process_id, upstream=upstream, down_since_ms=since_ms, seen_at_ms=NowMs()
        )
        newer = {"down_since_ms": given.excluded.down_since_ms, "seen_at_ms": given.excluded.seen_at_ms}
        await connection.execute(given.on_conflict_do_update(index_elements=["process_id", "upstream"], set_=newer))


async def find_sights(connection: AsyncConnection, within_ms: int) -> list[UpstreamSight]:
    """What was told within that time: a process that is gone tells nothing more."""
    seen = upstream_sights.c
    asked = select(seen.upstream, func.min(seen.down_since_ms, type_=INT), func.count(type_=INT))
    fresh = asked.where(seen.seen_at_ms >= NowMs() - within_ms).group_by(seen.upstream).order_by(seen.upstream)
    return [UpstreamSight(*row) for row in await connection.execute(fresh)]


async def forget_sights(connection: AsyncConnection, older_than_ms: int) -> None:
    await connection.execute(delete(upstream_sights).where(upstream_sights.c.seen_at_ms < NowMs() - older_than_ms))
