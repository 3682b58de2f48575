"""Requests whose exact usage is still to be asked for: whoever takes one has it for itself for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, select, update

from app.core.records import Attempt, Bound, BudgetWindow, Opening
from app.store.tables import awaited, entries, records

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

_windows_of = msgspec.json.Decoder(tuple[BudgetWindow, ...]).decode


class Awaited(msgspec.Struct, frozen=True):
    """One of them. ``asked``: how often it was asked for. ``until_ms``: when nobody need ask any more."""

    request_id: str
    team_id: str
    upstream: str
    object_id: str
    kind: str
    ask_at_ms: int
    asked: int
    until_ms: int


async def are_due(connection: AsyncConnection, now_ms: int, *, but: Collection[str] = ()) -> bool:
    """Whether any is, but of the upstreams ``but``: most of the time there is none, and nobody need write for that."""
    due = select(awaited.c.request_id).where(awaited.c.ask_at_ms <= now_ms, awaited.c.upstream.not_in(but)).limit(1)
    return (await connection.execute(due)).first() is not None


async def take_due(
    connection: AsyncConnection, now_ms: int, *, lease_ms: int, limit: int, but: Collection[str] = ()
) -> list[Awaited]:
    """Those that are due, the longest first, but of the upstreams ``but``; nobody else is given them for
    ``lease_ms``.
    """
    is_due = (awaited.c.ask_at_ms <= now_ms, awaited.c.upstream.not_in(but))
    due = select(awaited).where(*is_due).order_by(awaited.c.ask_at_ms).limit(limit)
    found = [Awaited(**row) for row in (await connection.execute(due)).mappings()]
    taken = []
    for one in found:
        claim = (
            update(awaited)
            .where(awaited.c.request_id == one.request_id, awaited.c.ask_at_ms == one.ask_at_ms)
            .values(ask_at_ms=now_ms + lease_ms, asked=one.asked + 1)
        )
        if (await connection.execute(claim)).rowcount:
            taken.append(one)
    return taken


async def put_off(connection: AsyncConnection, request_id: str, ask_at_ms: int) -> None:
    """It is to be asked for again at ``ask_at_ms``."""
    await connection.execute(update(awaited).where(awaited.c.request_id == request_id).values(ask_at_ms=ask_at_ms))


async def end(connection: AsyncConnection, request_id: str) -> None:
    """It need not be asked for any more."""
    await connection.execute(delete(awaited).where(awaited.c.request_id == request_id))


async def opening_of(connection: AsyncConnection, request_id: str) -> Opening | None:
    """What a written request began with, as far as its row and its last attempt tell; None where it was pruned."""
    row = (await connection.execute(select(records).where(records.c.request_id == request_id))).mappings().first()
    if row is None:
        return None
    primary = select(entries).where(entries.c.request_id == request_id, entries.c.reason == "")
    found = list((await connection.execute(primary)).mappings())
    last = max(found, key=_number, default=None)
    return None if last is None else _opening(row, last)


def _number(entry: Mapping[Any, Any]) -> int:
    return int(entry["attempt_id"].rpartition(".")[2])


def _opening(row: Mapping[Any, Any], entry: Mapping[Any, Any]) -> Opening:
    bound = Bound(
        output_tokens_upper=entry["output_tokens"],
        input_tokens_upper=entry["input_tokens"],
        cost_lower_nanousd=entry["cost_lower_nanousd"],
        cost_upper_nanousd=entry["cost_upper_nanousd"],
        price_source=entry["price_source"],
        price_version=entry["price_version"],
        service_tier=entry["service_tier"],
    )
    return Opening(
        request_id=row["request_id"],
        admitted_at_ms=row["admitted_at_ms"],
        quarter_ms=row["quarter_ms"],
        team_id=row["team_id"],
        key_id=row["key_id"],
        secret_id=row["secret_id"],
        endpoint=row["endpoint"],
        stream=bool(row["stream"]),
        model_requested=row["model_requested"],
        attempt=Attempt(_number(entry), entry["upstream"], entry["model"], bound),
        end_user=row["end_user"],
        tags=msgspec.json.decode(row["tags"], type=dict[str, str]),
        cache=row["cache"],
        budgets=_windows_of(row["budgets"]),
        background=True,
    )
