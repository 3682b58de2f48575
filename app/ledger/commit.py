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
from app.store.posting import Written

Item: TypeAlias = Record | OwnedObject
BeforeWrite: TypeAlias = Callable[[], object]
AfterWrite: TypeAlias = Callable[[Sequence[Record], Written, object], None]
OnPoison: TypeAlias = Callable[[str, str], None]

ERROR_CHARS_MAX = 500


class Hooks(msgspec.Struct, frozen=True):
    """Who is told of writes.

    ``before_write`` is called right before each transaction, ``after_write(records, written, token)`` once
    it is committed, with what the former returned; must not raise, since what is committed would be given
    again. ``on_poison(request_id, reason)`` is told of each row that the database will never take; of a
    record ``after_write`` is told too, in ``Written.poisoned``.
    """

    before_write: BeforeWrite = lambda: None
    after_write: AfterWrite = lambda _records, _written, _token: None
    on_poison: OnPoison = lambda _request_id, _reason: None


async def commit(database: Database, items: Sequence[Item], now_ms: int, hooks: Hooks) -> int:
    """Commits ``items``, or puts those aside that cannot be; returns how many records were new.

    Raises DatabaseUnavailable; parts may be committed then, and the same items may be given again.
    """
    if not items:
        return 0
    try:
        return await _write(database, items, hooks)
    except RowsRefused as refused:
        if len(items) == 1:
            return await _put_aside(database, items[0], refused, now_ms, hooks)
    middle = len(items) // 2
    first = await commit(database, items[:middle], now_ms, hooks)
    return first + await commit(database, items[middle:], now_ms, hooks)


async def _write(database: Database, items: Sequence[Item], hooks: Hooks) -> int:
    records = [item for item in items if isinstance(item, Record)]
    objects = [item for item in items if isinstance(item, OwnedObject)]
    token = hooks.before_write()
    written = await write_batch(database, records, objects)
    hooks.after_write(records, written, token)
    return written.new_records


async def _put_aside(database: Database, item: Item, refused: RowsRefused, now_ms: int, hooks: Hooks) -> int:
    built = msgspec.to_builtins(item)
    whole = mended(built)
    if whole != built:
        try:
            return await _write(database, [msgspec.convert(whole, type(item))], hooks)
        except (RowsRefused, msgspec.ValidationError):
            pass
    row = PoisonRow(
        request_id=item.request_id,
        item=item.object_id if isinstance(item, OwnedObject) else "",
        payload=msgspec.json.encode(whole).decode(),
        error=mended(str(refused))[:ERROR_CHARS_MAX].replace("\0", ""),
        at_ms=now_ms,
    )
    token = hooks.before_write()
    await keep_poison(database, [row])
    hooks.on_poison(item.request_id, str(refused))
    if isinstance(item, Record):
        hooks.after_write([item], Written(0, {}, {}, poisoned=(item.request_id,)), token)
    return 0
