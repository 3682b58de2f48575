"""Which upstreams are paused: on every gateway on the ledger, until somebody resumes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import delete, insert, select

from app.store.rows import next_change
from app.store.tables import pauses

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class Pause(msgspec.Struct, frozen=True):
    """An upstream that is paused: since when, in milliseconds since 1970 UTC, and by whom."""

    upstream: str
    at_ms: int
    actor_name: str


async def set_paused(
    connection: AsyncConnection, upstream: str, *, is_paused: bool, actor_name: str, now_ms: int
) -> Pause | None:
    """Pauses or resumes; what it was before. Nothing changes where it is so already."""
    change = await next_change(connection)
    before = {pause.upstream: pause for pause in await list_pauses(connection)}.get(upstream)
    if (before is not None) is is_paused:
        return before
    # A row stays when it is resumed: the feed has to tell of it.
    await connection.execute(delete(pauses).where(pauses.c.upstream == upstream))
    row = {"upstream": upstream, "at_ms": now_ms, "actor_name": actor_name}
    await connection.execute(insert(pauses).values(**row, is_paused=int(is_paused), changed=change))
    return before


async def list_pauses(connection: AsyncConnection) -> list[Pause]:
    """Those that are in force, by the upstream's name."""
    asked = select(pauses).where(pauses.c.is_paused == 1).order_by(pauses.c.upstream)
    rows = (await connection.execute(asked)).mappings()
    return [Pause(row["upstream"], row["at_ms"], row["actor_name"]) for row in rows]


async def have_pauses_changed(connection: AsyncConnection, change: int) -> bool:
    """Whether an upstream was paused or resumed after number ``change``."""
    asked = select(pauses.c.upstream).where(pauses.c.changed > change).limit(1)
    return (await connection.execute(asked)).first() is not None
