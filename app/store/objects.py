"""Who owns what was created upstream: one shared upstream key makes all of it readable there by anyone."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.records import OwnedObject
from app.store.tables import objects


async def remember(connection: AsyncConnection, rows: Sequence[OwnedObject]) -> None:
    """Keeps new owners; an object that has one keeps it."""
    if not rows:
        return
    inserting = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    ordered = sorted(rows, key=lambda owned: (owned.object_id, owned.upstream))
    await connection.execute(
        inserting(objects).on_conflict_do_nothing(), [msgspec.structs.asdict(owned) for owned in ordered]
    )


async def owner_of(connection: AsyncConnection, object_id: str) -> list[OwnedObject]:
    """Every upstream's object with this id, by upstream: ids are unique within one only."""
    asked = select(objects).where(objects.c.object_id == object_id).order_by(objects.c.upstream)
    return [OwnedObject(**row) for row in (await connection.execute(asked)).mappings()]
