"""Records as people and machines read them: each with the sum of its entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, select

from app.core.records import BudgetWindow
from app.store.posting import EXACT, is_unpriced
from app.store.tables import INT, entries, records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

RECENT_RECORDS_MAX = 1000


class EntryView(msgspec.Struct, frozen=True):
    """One entry, as it was written."""

    attempt_id: str
    kind: str
    reason: str
    number: int
    upstream: str
    model: str
    created_at_ms: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    input_audio_tokens: int
    output_tokens: int
    reasoning_tokens: int
    output_audio_tokens: int
    web_searches: int
    file_searches: int
    cached_audio_tokens: int
    input_image_tokens: int
    cached_image_tokens: int
    output_image_tokens: int
    cache_write_12h_tokens: int
    preview_searches: int
    code_sessions: int
    image_calls: int
    unknown_units: int
    cost_nanousd: int | None
    cost_lower_nanousd: int | None
    cost_upper_nanousd: int | None
    price_source: str | None
    price_version: str | None
    service_tier: str | None


class RecordView(msgspec.Struct, frozen=True):
    """A record and the sum of its entries. ``unpriced``: one of its attempts has no price. ``cost_nanousd`` is what
    sums and budgets have of it: where it is unpriced what else is known, None if that is nothing; lower and upper
    count an exact cost as both. Prices are the last priced entry's. ``estimated``: of some attempt nothing exact is
    known.
    """

    request_id: str
    response_id: str | None
    started_at_ms: int
    first_byte_at_ms: int | None
    ended_at_ms: int
    quarter_ms: int
    team_id: str
    key_id: str
    secret_id: str
    end_user: str | None
    tags: dict[str, str]
    endpoint: str
    stream: bool
    model_requested: str
    model: str
    model_served: str | None
    upstream: str
    service_tier: str | None
    status: int | None
    outcome: str
    error_code: str | None
    attempts: int
    cache: str
    tool_usage: str | None
    usage_raw: str | None
    saved_nanousd: int
    suspect: bool
    decision: dict[str, object]
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nanousd: int | None
    cost_lower_nanousd: int | None
    cost_upper_nanousd: int | None
    price_source: str | None
    price_version: str | None
    estimated: bool
    unpriced: bool
    budgets: tuple[BudgetWindow, ...]
    entries: tuple[EntryView, ...]


_COLUMNS = tuple(name for name in RecordView.__struct_fields__ if name in records.c)


async def find_record(connection: AsyncConnection, request_id: str) -> RecordView | None:
    """The record of one request, or None."""
    row = (await connection.execute(select(records).where(records.c.request_id == request_id))).mappings().one_or_none()
    return None if row is None else (await with_entries(connection, [row]))[0]


async def find_records_of_response(connection: AsyncConnection, response_id: str) -> list[RecordView]:
    """The records that name this response, oldest first."""
    asked = select(records).where(records.c.response_id == response_id).order_by(records.c.admitted_at_ms)
    return await with_entries(connection, (await connection.execute(asked)).mappings().all())


async def recent_records(
    connection: AsyncConnection,
    *,
    limit: int = 50,
    team_id: str | None = None,
    key_id: str | None = None,
) -> list[RecordView]:
    """The last records admitted, newest first; of all, a team or a key."""
    asked = select(records).order_by(records.c.admitted_at_ms.desc(), records.c.request_id.desc())
    if team_id is not None:
        asked = asked.where(records.c.team_id == team_id)
    if key_id is not None:
        asked = asked.where(records.c.key_id == key_id)
    found = await connection.execute(asked.limit(min(limit, RECENT_RECORDS_MAX)))
    return await with_entries(connection, found.mappings().all())


async def count_records(connection: AsyncConnection) -> int:
    """How many records there are."""
    counted = select(func.count(type_=INT)).select_from(records)
    number: int = (await connection.execute(counted)).scalar_one()
    return number


async def with_entries(connection: AsyncConnection, rows: Sequence[RowMapping]) -> list[RecordView]:
    """Rows of ``records``, each with its entries."""
    asked = (
        select(entries)
        .where(entries.c.request_id.in_([row["request_id"] for row in rows]))
        .order_by(entries.c.created_at_ms, entries.c.attempt_id, entries.c.reason, entries.c.number)
    )
    views: dict[str, list[EntryView]] = {row["request_id"]: [] for row in rows}
    for entry in (await connection.execute(asked)).mappings():
        views[entry["request_id"]].append(EntryView(**{name: entry[name] for name in EntryView.__struct_fields__}))
    return [_view(row, tuple(views[row["request_id"]])) for row in rows]


def _view(row: RowMapping, parts: tuple[EntryView, ...]) -> RecordView:
    attempts: dict[str, list[EntryView]] = {}
    for part in parts:
        attempts.setdefault(part.attempt_id, []).append(part)
    unpriced = any(is_unpriced([msgspec.structs.asdict(part) for part in each]) for each in attempts.values())
    priced = [part for part in parts if part.price_source is not None]
    given = {name: row[name] for name in _COLUMNS}
    given["tags"] = msgspec.json.decode(row["tags"], type=dict[str, str])
    given["decision"] = msgspec.json.decode(row["decision"], type=dict[str, object])
    given["budgets"] = msgspec.json.decode(row["budgets"], type=tuple[BudgetWindow, ...])
    given["stream"] = bool(row["stream"])
    given["suspect"] = bool(row["suspect"])
    return RecordView(
        **given,
        started_at_ms=row["admitted_at_ms"],
        input_tokens=sum(part.input_tokens for part in parts),
        cached_tokens=sum(part.cached_tokens for part in parts),
        cache_write_tokens=sum(part.cache_write_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
        reasoning_tokens=sum(part.reasoning_tokens for part in parts),
        cost_nanousd=cost_of(sum(part.cost_nanousd or 0 for part in parts), unpriced=unpriced),
        cost_lower_nanousd=None if unpriced else sum(_either(part.cost_lower_nanousd, part) for part in parts),
        cost_upper_nanousd=None if unpriced else sum(_either(part.cost_upper_nanousd, part) for part in parts),
        price_source=priced[-1].price_source if priced else None,
        price_version=priced[-1].price_version if priced else None,
        estimated=any(_is_estimated(each) for each in attempts.values()),
        unpriced=unpriced,
        entries=parts,
    )


def cost_of(nanousd: int, *, unpriced: bool) -> int | None:
    """What is unpriced is not free; but the money of an estimate, or of another attempt, is counted."""
    return None if unpriced and not nanousd else nanousd


def _is_estimated(parts: Sequence[EntryView]) -> bool:
    return any(part.kind == "estimate" for part in parts) and all(part.reason != EXACT for part in parts)


def _either(bound: int | None, part: EntryView) -> int:
    return (part.cost_nanousd or 0) if bound is None else bound
