"""Which colour a name has in every chart: one of eight, bound at its first use.

Given out in turn and never changed, so that a team that joins, or a filter, recolours nobody. What is bound is
an id (of teams and keys) or the name itself (models, upstreams, values of tags).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite

from app.store.tables import INT, colors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.store.database import Database

SLOTS = 8
BOUND_AT_ONCE_MAX = 200
"""Values of tags are whatever clients write: those beyond are small, and drawn as Other."""


async def colors_of(connection: AsyncConnection, dimension: str, members: Sequence[str]) -> dict[str, int]:
    """The slots, 1 to 8, of those of ``members`` that have one."""
    asked = select(colors.c.member, colors.c.slot).where(
        colors.c.dimension == dimension, colors.c.member.in_(list(members)[:BOUND_AT_ONCE_MAX])
    )
    return {row.member: row.slot for row in await connection.execute(asked)}


async def bind_colors(database: Database, dimension: str, members: Sequence[str]) -> dict[str, int]:
    """The slots of ``members``, of the first 200 of them; those that have none get one, in their order.

    Raises DatabaseUnavailable.
    """
    members = list(dict.fromkeys(members))[:BOUND_AT_ONCE_MAX]
    async with database.read() as connection:
        found = await colors_of(connection, dimension, members)
    if len(found) == len(members):
        return found
    inserting = sqlite.insert if database.dialect == "sqlite" else postgresql.insert
    async with database.transaction() as connection:
        counted = select(func.count(type_=INT)).select_from(colors).where(colors.c.dimension == dimension)
        bound = (await connection.execute(counted)).scalar_one()
        # Somebody else may bind at the same moment: then two share a slot a turn early, and nothing is lost.
        new = [member for member in members if member not in found]
        rows: list[dict[str, str | int]] = [
            {"dimension": dimension, "member": member, "slot": (bound + number) % SLOTS + 1}
            for number, member in enumerate(new)
        ]
        # In one order, so that two who bind the same names wait for each other and never in a circle.
        rows.sort(key=lambda row: str(row["member"]))
        await connection.execute(inserting(colors).on_conflict_do_nothing(), rows)
        return await colors_of(connection, dimension, members)
