"""The messages of alerts: a bounded queue, and the log of what became of each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import RowMapping, and_, case, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.ids import random_base62
from app.store.now import NowMs
from app.store.tables import alert_deliveries

DeliveryState = Literal["waiting", "delivered", "failed", "gone"]

DELIVERY_ID_CHARS = 24
WAITING_MAX = 1000
"""Messages that wait, of all targets together; what does not fit is not sent."""

_columns = alert_deliveries.c


class Try(msgspec.Struct, frozen=True):
    """One attempt. ``status`` is the receiver's, None where there was none; ``error`` at most 200 characters."""

    number: int
    at_ms: int
    took_ms: int
    status: int | None = None
    error: str | None = None


class Delivery(msgspec.Struct, frozen=True):
    """``body`` is the message's JSON, the same in every try. ``next_at_ms`` is None once it is over."""

    id: str
    type: str
    rule_id: str | None
    alert_id: str | None
    target: str
    body: str
    created_at_ms: int
    next_at_ms: int | None
    state: DeliveryState = "waiting"
    tries: int = 0
    attempts: tuple[Try, ...] = ()


class TargetStanding(msgspec.Struct, frozen=True):
    """The last message to a target that was tried, and how many wait."""

    last: Delivery | None
    waiting: int


class DeliveryPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a page ends."""

    at_ms: Annotated[int, Meta(ge=0, le=2**53)]
    id: str


def new_delivery_id() -> str:
    """What receivers know a message by, however often it comes."""
    return f"msg_{random_base62(DELIVERY_ID_CHARS)}"


async def queue_deliveries(connection: AsyncConnection, deliveries: Sequence[Delivery]) -> int:
    """Keeps as many of ``deliveries`` as the queue has room for, in their order; returns how many."""
    if not deliveries:
        return 0
    waiting = select(func.count()).select_from(alert_deliveries).where(_columns.state == "waiting")
    room = max(0, WAITING_MAX - (await connection.execute(waiting)).scalar_one())
    if kept := deliveries[:room]:
        await connection.execute(insert(alert_deliveries), [_row(delivery) for delivery in kept])
    return len(kept)


async def due_deliveries(connection: AsyncConnection, *, except_targets: Collection[str], limit: int) -> list[Delivery]:
    """Those whose time has come by the database's clock, the longest due first."""
    asked = select(alert_deliveries).where(_columns.state == "waiting", _columns.next_at_ms <= NowMs())
    if except_targets:
        asked = asked.where(_columns.target.not_in(sorted(except_targets)))
    found = await connection.execute(asked.order_by(_columns.next_at_ms, _columns.id).limit(limit))
    return [_delivery(row) for row in found.mappings()]


async def claim_delivery(connection: AsyncConnection, delivery: Delivery, claim_ms: int) -> bool:
    """Whether the caller may try it now: nobody else has since it was read. If nothing is heard of that try,
    the next one is after ``claim_ms``.
    """
    same = (_columns.id == delivery.id, _columns.state == "waiting", _columns.tries == delivery.tries)
    claimed = update(alert_deliveries).where(*same).values(tries=delivery.tries + 1, next_at_ms=NowMs() + claim_ms)
    return (await connection.execute(claimed)).rowcount == 1


async def note_try(
    connection: AsyncConnection, delivery: Delivery, made: Try, state: DeliveryState, retry_in_ms: int | None
) -> None:
    """What came of the try that was claimed; the next one, if there is to be one, is after ``retry_in_ms``."""
    attempts = msgspec.json.encode((*delivery.attempts, made)).decode()
    of_this_try = (_columns.id == delivery.id, _columns.tries == made.number)
    next_at_ms = None if retry_in_ms is None else NowMs() + retry_in_ms
    noted = update(alert_deliveries).where(*of_this_try).values(attempts=attempts, state=state, next_at_ms=next_at_ms)
    await connection.execute(noted)


async def end_deliveries(connection: AsyncConnection, rule_id: str, target: str, state: DeliveryState) -> int:
    """What waits of a rule for a target is not tried any more; how many there were."""
    of_both = (_columns.rule_id == rule_id, _columns.target == target, _columns.state == "waiting")
    ended = update(alert_deliveries).where(*of_both).values(state=state, next_at_ms=None)
    return (await connection.execute(ended)).rowcount


async def keep_delivery(connection: AsyncConnection, delivery: Delivery) -> None:
    """Writes one down that does not go through the queue."""
    await connection.execute(insert(alert_deliveries).values(**_row(delivery)))


async def list_deliveries(
    connection: AsyncConnection,
    *,
    target: str | None = None,
    rule_id: str | None = None,
    state: str | None = None,
    after: DeliveryPlace | None = None,
    limit: int = 50,
) -> list[Delivery]:
    """The log, newest first."""
    asked = select(alert_deliveries)
    for column, value in ((_columns.target, target), (_columns.rule_id, rule_id), (_columns.state, state)):
        if value is not None:
            asked = asked.where(column == value)
    if after is not None:
        same_moment = and_(_columns.created_at_ms == after.at_ms, _columns.id < after.id)
        asked = asked.where(or_(_columns.created_at_ms < after.at_ms, same_moment))
    newest_first = asked.order_by(_columns.created_at_ms.desc(), _columns.id.desc()).limit(limit)
    return [_delivery(row) for row in (await connection.execute(newest_first)).mappings()]


async def target_standings(connection: AsyncConnection, targets: Sequence[str]) -> dict[str, TargetStanding]:
    """Of each of ``targets``, whether anything was ever sent to it or not."""
    waiting = case((_columns.state == "waiting", 1), else_=0)
    counted = select(_columns.target, func.sum(waiting)).where(_columns.target.in_(targets)).group_by(_columns.target)
    numbers = {target: int(number) for target, number in await connection.execute(counted)}
    standings = {}
    for target in targets:
        tried = select(alert_deliveries).where(_columns.target == target, _columns.attempts != "[]")
        last = (await connection.execute(tried.order_by(_columns.created_at_ms.desc()).limit(1))).mappings().first()
        standings[target] = TargetStanding(None if last is None else _delivery(last), numbers.get(target, 0))
    return standings


async def forget_deliveries(connection: AsyncConnection, before_ms: int) -> int:
    """Deletes older ones that are over; returns how many there were."""
    old = delete(alert_deliveries).where(_columns.created_at_ms < before_ms, _columns.state != "waiting")
    return (await connection.execute(old)).rowcount


def _row(delivery: Delivery) -> dict[str, Any]:
    return {**msgspec.structs.asdict(delivery), "attempts": msgspec.json.encode(delivery.attempts).decode()}


def _delivery(row: RowMapping) -> Delivery:
    return Delivery(**{**row, "attempts": msgspec.json.decode(row["attempts"], type=tuple[Try, ...])})
