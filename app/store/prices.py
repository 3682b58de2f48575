"""Prices that people set: over those of the file and of the list, for every gateway on the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, insert, select, update

from app.core.ids import random_base62
from app.store.errors import NoSuchPrice, TooManyPrices
from app.store.rows import next_change
from app.store.tables import INT, prices

if TYPE_CHECKING:
    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

PRICE_ID_CHARS = 12
PRICES_MAX = 1000


class SetPrice(msgspec.Struct, frozen=True):
    """A price of a model (a pattern is allowed), by JSON text as an entry of ``prices`` in the file says it."""

    id: str
    model: str
    upstream: str | None
    rates: str
    effective_from_ms: int
    created_at_ms: int


async def set_price(
    connection: AsyncConnection, *, model: str, upstream: str | None, rates: str, effective_from_ms: int, now_ms: int
) -> SetPrice:
    """A new price. Raises TooManyPrices."""
    change = await next_change(connection)
    counted = select(func.count(type_=INT)).select_from(prices).where(prices.c.removed_at_ms.is_(None))
    if (await connection.execute(counted)).scalar_one() >= PRICES_MAX:
        raise TooManyPrices(f"There are {PRICES_MAX} set prices already: remove some, or write them into the file.")
    price = SetPrice(random_base62(PRICE_ID_CHARS), model, upstream, rates, effective_from_ms, now_ms)
    await connection.execute(insert(prices).values(**msgspec.structs.asdict(price), changed=change))
    return price


async def prices_of(connection: AsyncConnection, model: str) -> list[SetPrice]:
    """Those of a model that hold, the newest first. Until this transaction ends nobody else sets or removes one."""
    await next_change(connection)
    return [row for row in await list_prices(connection) if row.model == model]


async def remove_price(connection: AsyncConnection, price_id: str, *, now_ms: int) -> SetPrice:
    """Takes a price away; what it has priced keeps it. Raises NoSuchPrice."""
    change = await next_change(connection)
    living = prices.c.id == price_id, prices.c.removed_at_ms.is_(None)
    row = (await connection.execute(select(prices).where(*living))).mappings().one_or_none()
    if row is None:
        raise NoSuchPrice(f"There is no set price {price_id!r}.")
    await connection.execute(update(prices).where(*living).values(removed_at_ms=now_ms, changed=change))
    return _price(row)


async def list_prices(connection: AsyncConnection) -> list[SetPrice]:
    """Those that hold, the newest first: of two for one day the newer counts."""
    asked = (
        select(prices)
        .where(prices.c.removed_at_ms.is_(None))
        .order_by(prices.c.created_at_ms.desc(), prices.c.id.desc())
    )
    return [_price(row) for row in (await connection.execute(asked)).mappings()]


async def have_prices_changed(connection: AsyncConnection, change: int) -> bool:
    """Whether one was set or removed after number ``change``."""
    asked = select(prices.c.id).where(prices.c.changed > change).limit(1)
    return (await connection.execute(asked)).first() is not None


def _price(row: RowMapping) -> SetPrice:
    return SetPrice(**{name: row[name] for name in SetPrice.__struct_fields__})
