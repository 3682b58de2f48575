"""Requests of known keys that were refused: not a part of the bill, kept for a day to explain them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import ColumnElement, and_, delete, exc, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from app.store.database import is_unavailable, reason_of
from app.store.errors import RowsRefused
from app.store.tables import refusals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.store.database import Database

KEPT_PER_TEAM = 1000
KEPT_MS = 24 * 60 * 60 * 1000
DECISION_BYTES_MAX = 2048


class RefusalRow(msgspec.Struct, frozen=True):
    """One refusal. ``decision`` says why, at most 2 KiB as JSON: which limit, how much of it, until when."""

    request_id: str
    team_id: str
    key_id: str
    at_ms: int
    status: int
    code: str
    decision: dict[str, object] = msgspec.field(default_factory=dict)


async def keep_refusals(database: Database, rows: Sequence[RefusalRow], now_ms: int) -> None:
    """Keeps ``rows``; one that is there already stays as it is. Of each of their teams the newest 1,000 of
    the last day remain. Raises RowsRefused, DatabaseUnavailable: nothing was kept then.
    """
    if not rows:
        return
    inserting = sqlite.insert if database.dialect == "sqlite" else postgresql.insert
    try:
        values = [
            {**msgspec.structs.asdict(row), "decision": _decision_text(row.decision)}
            for row in sorted(rows, key=lambda row: row.request_id)
        ]
        async with database.transaction() as connection:
            await connection.execute(inserting(refusals).on_conflict_do_nothing(), values)
            for team_id in sorted({row.team_id for row in rows}):
                await _forget_surplus(connection, team_id, now_ms)
    except exc.SQLAlchemyError as error:
        if isinstance(error, exc.DBAPIError) and is_unavailable(error):
            raise
        raise RowsRefused(reason_of(error)) from error
    except (TypeError, ValueError, OverflowError) as error:
        # Half a surrogate pair, a value that is not JSON, too large a number: it does not become a row at all.
        raise RowsRefused(reason_of(error)) from error


async def _forget_surplus(connection: AsyncConnection, team_id: str, now_ms: int) -> None:
    of_team = refusals.c.team_id == team_id
    newest_first = refusals.c.at_ms.desc(), refusals.c.request_id.desc()
    asked = select(refusals.c.at_ms, refusals.c.request_id).where(of_team).order_by(*newest_first)
    last = (await connection.execute(asked.offset(KEPT_PER_TEAM).limit(1))).one_or_none()
    gone: ColumnElement[bool] = refusals.c.at_ms < now_ms - KEPT_MS
    if last is not None:
        same_moment = and_(refusals.c.at_ms == last.at_ms, refusals.c.request_id <= last.request_id)
        gone = or_(gone, refusals.c.at_ms < last.at_ms, same_moment)
    await connection.execute(delete(refusals).where(of_team, gone))


async def forget_refusals(database: Database, before_ms: int) -> int:
    """Deletes all older ones, of teams too that nobody refuses any more; returns how many there were."""
    async with database.transaction() as connection:
        return (await connection.execute(delete(refusals).where(refusals.c.at_ms < before_ms))).rowcount


async def find_refusal(connection: AsyncConnection, request_id: str) -> RefusalRow | None:
    asked = select(refusals).where(refusals.c.request_id == request_id)
    row = (await connection.execute(asked)).mappings().one_or_none()
    return None if row is None else _refusal(row)


async def recent_refusals(connection: AsyncConnection, team_id: str, *, limit: int = 50) -> list[RefusalRow]:
    """A team's last refusals, newest first."""
    asked = (
        select(refusals)
        .where(refusals.c.team_id == team_id)
        .order_by(refusals.c.at_ms.desc(), refusals.c.request_id.desc())
        .limit(min(limit, KEPT_PER_TEAM))
    )
    return [_refusal(row) for row in (await connection.execute(asked)).mappings()]


def _refusal(row: RowMapping) -> RefusalRow:
    return RefusalRow(**{**row, "decision": msgspec.json.decode(row["decision"], type=dict[str, object])})


def _decision_text(decision: dict[str, object]) -> str:
    """JSON within its bound: of one that is too long the first members that fit, and that it was cut."""
    encode = msgspec.json.encode
    text = encode(decision)
    if len(text) > DECISION_BYTES_MAX:
        kept: dict[str, object] = {"cut": True}
        for name, value in decision.items():
            if len(encode({**kept, name: value})) <= DECISION_BYTES_MAX:
                kept[name] = value
        text = encode(kept)
    return text.decode()
