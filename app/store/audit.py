"""Who changed what, and when: written in the transaction of the change, never updated or deleted.

A restore puts another ledger in the place of this one, its audit log with it: that is why no trigger of the database
forbids it. No other statement of Headgate's touches a row, which a test sees to.

``before`` and ``after`` are what an administrator reads of the object (never a secret or its digest).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from sqlalchemy import insert, select, tuple_

from app.core.ids import new_request_id
from app.store.rows import json_text
from app.store.tables import audit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

ActorKind: TypeAlias = Literal["token", "sso", "cli", "system"]

TEXT_BYTES_MAX = 16 * 1024


class Actor(msgspec.Struct, frozen=True):
    """Who changes something. ``peer`` is the address that the change came from, "" for none."""

    kind: ActorKind
    id: str
    name: str
    peer: str = ""


class AuditRow(msgspec.Struct, frozen=True):
    """One change. ``id`` rises with time; ``before`` is None of what was made, ``after`` of what was taken away."""

    id: str
    at_ms: int
    actor: Actor
    action: str
    object_kind: str
    object_id: str
    object_name: str
    team_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes are asked for; None is any. Times are milliseconds, ``end_ms`` not included."""

    actor_id: str | None = None
    action: str | None = None
    object_kind: str | None = None
    object_id: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None


async def note_change(
    connection: AsyncConnection,
    actor: Actor,
    *,
    action: str,
    object_kind: str,
    object_id: str,
    object_name: str,
    now_ms: int,
    team_id: str | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Writes down a change, in its own transaction. Of both sides only what differs is kept; where nothing does,
    nothing has changed, and there is nothing to write down.
    """
    if before is not None and after is not None:
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        if not names:
            return
        before = {name: before.get(name) for name in names}
        after = {name: after.get(name) for name in names}
    await connection.execute(
        insert(audit).values(
            id=new_request_id(now_ms),
            at_ms=now_ms,
            actor_kind=actor.kind,
            actor_id=actor.id,
            actor_name=actor.name,
            action=action,
            object_kind=object_kind,
            object_id=object_id,
            object_name=object_name,
            team_id=team_id,
            before=_text(before),
            after=_text(after),
            peer=actor.peer,
        )
    )


async def list_changes(
    connection: AsyncConnection, only: AuditFilter, *, limit: int, before: tuple[int, str] | None = None
) -> list[AuditRow]:
    """Changes, newest first; ``before`` is (at_ms, id) of the last one that was seen."""
    asked = select(audit).order_by(audit.c.at_ms.desc(), audit.c.id.desc()).limit(limit)
    for name in ("actor_id", "action", "object_kind", "object_id"):
        wanted = getattr(only, name)
        if wanted is not None:
            asked = asked.where(audit.c[name] == wanted)
    if only.start_ms is not None:
        asked = asked.where(audit.c.at_ms >= only.start_ms)
    if only.end_ms is not None:
        asked = asked.where(audit.c.at_ms < only.end_ms)
    if before is not None:
        asked = asked.where(tuple_(audit.c.at_ms, audit.c.id) < tuple_(*before))
    return [_row(row) for row in (await connection.execute(asked)).mappings()]


def _row(row: RowMapping) -> AuditRow:
    return AuditRow(
        id=row["id"],
        at_ms=row["at_ms"],
        actor=Actor(row["actor_kind"], row["actor_id"], row["actor_name"], row["peer"]),
        action=row["action"],
        object_kind=row["object_kind"],
        object_id=row["object_id"],
        object_name=row["object_name"],
        team_id=row["team_id"],
        before=_data(row["before"]),
        after=_data(row["after"]),
    )


def _text(side: Mapping[str, Any] | None) -> str | None:
    if side is None:
        return None
    text = json_text(side)
    if len(text.encode()) <= TEXT_BYTES_MAX:
        return text
    return json_text({"cut": True, "members": sorted(side)[:100]})


def _data(text: str | None) -> dict[str, Any] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])
