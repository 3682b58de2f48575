"""Who owns what was created upstream: one shared upstream key makes all of it readable there by anyone."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, literal, select, tuple_
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


async def owned_by(connection: AsyncConnection, team_id: str, object_ids: Sequence[str]) -> list[OwnedObject]:
    """Those of ``object_ids`` that are the team's, at whichever upstreams."""
    asked = select(objects).where(objects.c.team_id == team_id, objects.c.object_id.in_(object_ids))
    return [OwnedObject(**row) for row in (await connection.execute(asked)).mappings()]


async def upstreams_of(connection: AsyncConnection, object_ids: Sequence[str]) -> dict[str, set[str]]:
    """At which upstreams each of ``object_ids`` has an owner, whoever that is."""
    asked = select(objects.c.object_id, objects.c.upstream).where(objects.c.object_id.in_(object_ids))
    found: dict[str, set[str]] = {object_id: set() for object_id in object_ids}
    for object_id, upstream in await connection.execute(asked):
        found[object_id].add(upstream)
    return found


async def page_of(
    connection: AsyncConnection, team_id: str, kind: str, *, after: OwnedObject | None, ascending: bool, limit: int
) -> list[OwnedObject]:
    """The team's objects of a kind as they were made, the newest first unless ``ascending``, behind ``after``."""
    made, own_id = objects.c.created_at_ms, objects.c.object_id
    asked = select(objects).where(objects.c.team_id == team_id, objects.c.kind == kind)
    if after is not None:
        place, there = tuple_(made, own_id), tuple_(literal(after.created_at_ms), literal(after.object_id))
        asked = asked.where(place > there if ascending else place < there)
    order = (made, own_id) if ascending else (made.desc(), own_id.desc())
    return [OwnedObject(**row) for row in (await connection.execute(asked.order_by(*order).limit(limit))).mappings()]


async def forget(connection: AsyncConnection, team_id: str, object_ids: Sequence[str]) -> None:
    """They are not the team's any more: there is nothing left of them upstream."""
    await connection.execute(delete(objects).where(objects.c.team_id == team_id, objects.c.object_id.in_(object_ids)))
