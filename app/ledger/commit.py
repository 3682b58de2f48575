"""Brings records and owned objects into SQL; a row that the database refuses does not hold up the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from app.core.records import OwnedObject, Record
from app.ledger.lines import mended
from app.store.batch import PoisonRow, keep_poison, write_batch
from app.store.database import Database
from app.store.errors import RowsRefused

Item: TypeAlias = Record | OwnedObject

ERROR_CHARS_MAX = 500


async def commit(database: Database, items: Sequence[Item], now_ms: int, on_poison: Callable[[str, str], None]) -> int:
    """Commits ``items``, or puts those aside that cannot be; returns how many records were new.

    Raises DatabaseUnavailable; parts may be committed then, and the same items may be given again.
    ``on_poison`` is told the request id and the reason of each that was put aside.
    """
    if not items:
        return 0
    try:
        return await _write(database, items)
    except RowsRefused as refused:
        if len(items) == 1:
            return await _put_aside(database, items[0], refused, now_ms, on_poison)
    middle = len(items) // 2
    first = await commit(database, items[:middle], now_ms, on_poison)
    return first + await commit(database, items[middle:], now_ms, on_poison)


async def _write(database: Database, items: Sequence[Item]) -> int:
    records = [item for item in items if isinstance(item, Record)]
    objects = [item for item in items if isinstance(item, OwnedObject)]
    return await write_batch(database, records, objects)


async def _put_aside(
    database: Database,
    item: Item,
    refused: RowsRefused,
    now_ms: int,
    on_poison: Callable[[str, str], None],
) -> int:
    built = msgspec.to_builtins(item)
    whole = mended(built)
    if whole != built:
        try:
            return await _write(database, [msgspec.convert(whole, type(item))])
        except (RowsRefused, msgspec.ValidationError):
            pass
    row = PoisonRow(
        request_id=item.request_id,
        item=item.object_id if isinstance(item, OwnedObject) else "",
        payload=msgspec.json.encode(whole).decode(),
        error=mended(str(refused))[:ERROR_CHARS_MAX].replace("\0", ""),
        at_ms=now_ms,
    )
    await keep_poison(database, [row])
    on_poison(item.request_id, str(refused))
    return 0
