"""Finding records: by what they are of, newest first, a page at a time.

What an index answers is read along it. Everything else (models, tags, outcomes, end users) is looked for in
slices of records from the newest on, for a bounded time: a page may then hold less than was asked for, or
nothing, and still say where to go on. No search reads a year of records in one breath.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import ColumnElement, and_, func, or_, select, tuple_

from app.core.errors import InvalidRequest
from app.core.tags import tags_of
from app.store.records import RecordView, with_entries
from app.store.tables import keys, records, secrets
from app.store.usage import UsageFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

SLICE = 20_000
SEARCH_S_MAX = 1.5

_REQUEST_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SECRET = re.compile(r"sk-hg-([0-9A-Za-z]{10})")


class RecordFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which records: every condition that is set has to hold. ``text`` finds a request id, a response id, an
    end user, a key or one of its secrets, or ``tag=value``.
    """

    only: UsageFilter = UsageFilter()
    outcomes: tuple[str, ...] = ()
    text: str | None = None
    end_user: str | None = None
    response_id: str | None = None


class RecordPlace(msgspec.Struct, frozen=True, array_like=True):
    """A record by its place in time; what comes after it, newest first, is older."""

    admitted_at_ms: int
    request_id: str


class RecordsFound(msgspec.Struct, frozen=True):
    """``next`` is None where there are no more."""

    records: list[RecordView]
    next: RecordPlace | None


async def search_records(
    connection: AsyncConnection,
    asked: RecordFilter,
    *,
    start_ms: int = 0,
    end_ms: int | None = None,
    before: RecordPlace | None = None,
    limit: int = 50,
    seconds: float = SEARCH_S_MAX,
) -> RecordsFound:
    """Records admitted from ``start_ms`` up to, not including, ``end_ms``, older than ``before``."""
    indexed, others = _conditions(asked, connection.dialect.name)
    if asked.text is not None:
        found_by, is_indexed = await _text_condition(connection, asked.text)
        (indexed if is_indexed else others).append(found_by)
    in_span = [records.c.admitted_at_ms >= start_ms]
    if end_ms is not None:
        in_span.append(records.c.admitted_at_ms < end_ms)
    rows: list[RowMapping] = []
    deadline_s = time.monotonic() + seconds
    place = before
    while True:
        span = [*in_span, *indexed, *_older(place)]
        boundary_ms = await _boundary(connection, span) if others else None
        if boundary_ms is not None:
            span.append(records.c.admitted_at_ms >= boundary_ms)
        wanted = _newest_first(select(records).where(and_(*span, *others))).limit(limit + 1 - len(rows))
        rows += (await connection.execute(wanted)).mappings().all()
        if len(rows) > limit or boundary_ms is None:
            break
        place = RecordPlace(boundary_ms, "")
        if time.monotonic() > deadline_s:
            return RecordsFound(await with_entries(connection, rows), place)
    is_more = len(rows) > limit
    rows = rows[:limit]
    last = RecordPlace(rows[-1]["admitted_at_ms"], rows[-1]["request_id"]) if is_more else None
    return RecordsFound(await with_entries(connection, rows), last)


def _newest_first(asked: Select[tuple[object, ...]]) -> Select[tuple[object, ...]]:
    return asked.order_by(records.c.admitted_at_ms.desc(), records.c.request_id.desc())


def _older(place: RecordPlace | None) -> list[ColumnElement[bool]]:
    if place is None:
        return []
    of_row = tuple_(records.c.admitted_at_ms, records.c.request_id)
    # The first says no more than the second does, in the words of the index.
    return [
        records.c.admitted_at_ms <= place.admitted_at_ms,
        of_row < tuple_(place.admitted_at_ms, place.request_id),
    ]


async def _boundary(connection: AsyncConnection, span: Sequence[ColumnElement[bool]]) -> int | None:
    """The time of the record that ends the next slice; None where fewer are left."""
    asked = select(records.c.admitted_at_ms).where(and_(*span)).order_by(records.c.admitted_at_ms.desc())
    boundary: int | None = (await connection.execute(asked.offset(SLICE).limit(1))).scalar_one_or_none()
    return boundary


def _conditions(asked: RecordFilter, dialect: str) -> tuple[list[ColumnElement[bool]], list[ColumnElement[bool]]]:
    """Those that an index answers in the order of time, and the others."""
    only = asked.only
    indexed: list[ColumnElement[bool]] = []
    others: list[ColumnElement[bool]] = []
    for column, ids in ((records.c.team_id, only.team_ids), (records.c.key_id, only.key_ids)):
        if len(ids) == 1:
            indexed.append(column == ids[0])
        elif ids:
            others.append(column.in_(ids))
    if asked.response_id is not None:
        indexed.append(records.c.response_id == asked.response_id)
    if asked.end_user is not None:
        others.append(records.c.end_user == asked.end_user)
    for column, names in (
        (records.c.model, only.models),
        (records.c.upstream, only.upstreams),
        (records.c.outcome, asked.outcomes),
    ):
        if names:
            others.append(column.in_(names))
    for column, names in (
        (records.c.team_id, only.not_team_ids),
        (records.c.key_id, only.not_key_ids),
        (records.c.model, only.not_models),
        (records.c.upstream, only.not_upstreams),
    ):
        if names:
            others.append(column.not_in(names))
    others += [_has_tag(name, values, dialect) for name, values in only.tags]
    others += [~_has_tag(name, values, dialect) for name, values in only.not_tags]
    return indexed, others


def _has_tag(name: str, values: Sequence[str], dialect: str) -> ColumnElement[bool]:
    position = func.instr if dialect == "sqlite" else func.strpos
    # Names and values of tags have no character that JSON escapes; "" is to be without the tag.
    return or_(
        *(
            position(records.c.tags, f'"{name}":"{value}"') > 0
            if value
            else position(records.c.tags, f'"{name}":') == 0
            for value in values
        )
    )


async def _text_condition(connection: AsyncConnection, text: str) -> tuple[ColumnElement[bool], bool]:
    """What ``text`` is, by its shape and by what there is; and whether an index answers it."""
    if _REQUEST_ID.fullmatch(text) is not None:
        return records.c.request_id == text.lower(), True
    if "=" in text:
        try:
            ((name, value),) = tags_of(text.encode("latin-1", "replace")).items()
        except (InvalidRequest, ValueError):
            # No tag has such a name or value; a response or an end user may.
            pass
        else:
            return _has_tag(name, (value,), connection.dialect.name), False
    of_response = select(records.c.request_id).where(records.c.response_id == text).limit(1)
    if (await connection.execute(of_response)).first() is not None:
        return records.c.response_id == text, True
    named = _SECRET.match(text)
    key_or_secret = text if named is None else named.group(1)
    of_secret = select(secrets.c.key_id).where(secrets.c.id == key_or_secret)
    key_id = (await connection.execute(of_secret)).scalar_one_or_none()
    if key_id is not None and key_id != key_or_secret:
        return and_(records.c.key_id == key_id, records.c.secret_id == key_or_secret), True
    of_key = select(keys.c.id).where(keys.c.id == key_or_secret)
    if key_id is not None or (await connection.execute(of_key)).first() is not None:
        return records.c.key_id == key_or_secret, True
    return records.c.end_user == text, False
