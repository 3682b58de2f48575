"""Records as rows: what each column of ``records``, ``entries`` and ``rollups`` is given.

Rows are tuples in the order of the table's columns. The text of a client or an upstream is cut and freed
of NUL, which PostgreSQL does not store and SQLite ends a string at: a name must not keep its request off
the bill.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from app.core.records import Entry
from app.store.tables import ROLLUP_SUMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from app.core.records import BudgetWindow, OwnedObject, Record

Row: TypeAlias = tuple[str | int | None, ...]

TEXT_CHARS_MAX = 512
"""Well inside what an index of PostgreSQL takes (2,704 bytes), in any script."""

FAILED = frozenset({"failed", "interrupted"})
"""Outcomes without an answer that the client did not choose: ``incomplete`` has one, ``cancelled`` chose."""

SUMS = len(ROLLUP_SUMS)

_encode = msgspec.json.Encoder().encode


class Adjust(msgspec.Struct, frozen=True):
    """A correction of an attempt, counted where its primary entry is. ``entry`` holds the differences;
    ``unpriced`` is what the correction changes of that count: -1 where it gives a price to an attempt
    without one, 1 where it takes away the certainty of the one there was. ``estimated_nanousd`` is what it
    changes of the money of estimates.
    """

    request_id: str
    team_id: str
    key_id: str
    quarter_ms: int
    ended_at_ms: int
    entry: Entry
    unpriced: int
    estimated_nanousd: int


AWAITED_MS_MAX = 24 * 60 * 60 * 1000


def _clean(text: str | None) -> str | None:
    if text is None or (len(text) <= TEXT_CHARS_MAX and "\0" not in text):
        return text
    return text[:TEXT_CHARS_MAX].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _json(value: dict[str, str] | dict[str, object]) -> str:
    return _encode(value).decode() if value else "{}"


def windows_text(windows: tuple[BudgetWindow, ...]) -> str:
    """``windows`` as ``records.budgets`` has them; one window inside of it reads as ``window_text`` says."""
    return _encode(windows).decode() if windows else "[]"


def window_text(window: BudgetWindow) -> str:
    """``window`` as it stands in ``records.budgets``."""
    return _encode(window).decode()


def record_row(record: Record) -> Row:
    """``record`` in the order of ``tables.records``."""
    return (
        record.request_id,
        record.admitted_at_ms,
        record.quarter_ms,
        record.first_byte_at_ms,
        record.ended_at_ms,
        record.team_id,
        record.key_id,
        record.secret_id,
        record.endpoint,
        int(record.stream),
        _clean(record.model_requested),
        _clean(record.model),
        _clean(record.model_served),
        record.upstream,
        record.outcome,
        record.status,
        record.error_code,
        record.attempts,
        _clean(record.response_id),
        _clean(record.end_user),
        _json(record.tags),
        _clean(record.service_tier),
        record.cache,
        record.tool_usage,
        record.usage_raw,
        record.saved_nanousd,
        int(record.suspect),
        _json(record.decision),
        windows_text(record.budgets),
        record.own_us,
    )


def entry_row(record: Record | Adjust, entry: Entry) -> Row:
    """``entry`` of ``record`` in the order of ``tables.entries``."""
    usage = entry.usage
    return (
        entry.attempt_id,
        entry.reason,
        entry.number,
        entry.kind,
        record.request_id,
        record.team_id,
        record.key_id,
        entry.upstream,
        _clean(entry.model),
        record.quarter_ms,
        record.ended_at_ms,
        usage.input_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.input_audio_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.output_audio_tokens,
        usage.web_searches,
        usage.file_searches,
        entry.cost_nanousd,
        entry.cost_lower_nanousd,
        entry.cost_upper_nanousd,
        entry.price_source,
        entry.price_version,
        _clean(entry.service_tier),
        usage.cached_audio_tokens,
        usage.input_image_tokens,
        usage.cached_image_tokens,
        usage.output_image_tokens,
        usage.cache_write_12h_tokens,
        usage.preview_searches,
        usage.code_sessions,
        usage.image_calls,
        usage.unknown_units,
    )


def object_row(owned: OwnedObject) -> Row:
    """``owned`` in the order of ``tables.objects``."""
    return (
        owned.object_id,
        owned.upstream,
        owned.team_id,
        owned.kind,
        owned.request_id,
        owned.created_at_ms,
    )


def awaited_row(record: Record) -> Row:
    """What is to be asked for, in the order of ``tables.awaited``: at once, and for as long as providers keep it."""
    until_ms = record.admitted_at_ms + AWAITED_MS_MAX
    at_ms = record.ended_at_ms
    return record.request_id, record.team_id, record.upstream, record.response_id, "response", at_ms, 0, until_ms


def last_uses(records: Iterable[Record]) -> list[Row]:
    """When each secret of ``records`` was last used, in the order of the secrets."""
    uses: dict[str, int] = {}
    for record in records:
        uses[record.secret_id] = max(uses.get(record.secret_id, 0), record.admitted_at_ms)
    return sorted(uses.items())


def rollup_rows(
    records: Iterable[Record], entries: Iterable[tuple[Record, Entry]], adjusts: Iterable[Adjust] = ()
) -> list[Row]:
    """What new records, new primary entries and new corrections add to ``rollups``, one row per key, in the
    order of the keys.

    Requests are counted where the record says they ended, units and money where each entry says they
    were used: after a fallback the two may be different upstreams.
    """
    sums: dict[tuple[str | int | None, ...], list[int]] = {}
    for record in records:
        key = (record.quarter_ms, record.team_id, record.key_id, _clean(record.model), record.upstream)
        row = sums.get(key)
        if row is None:
            row = sums[key] = [0] * SUMS
        row[0] += 1
        row[1] += record.outcome in FAILED
        row[8] += record.saved_nanousd
    for record, entry in entries:
        row = _add(sums, record, entry)
        row[9] += entry.cost_nanousd is None
        if entry.kind == "estimate":
            row[10] += 1
            row[11] += entry.cost_nanousd or 0
    for adjust in adjusts:
        row = _add(sums, adjust, adjust.entry)
        row[9] += adjust.unpriced
        # Two make one: the estimate is none any more.
        row[10] -= adjust.entry.reason == "exact"
        row[11] += adjust.estimated_nanousd
    return [(*key, *sums[key]) for key in sorted(sums)]


def tagged_rows(
    records: Iterable[Record],
    entries: Iterable[tuple[Record, Entry]],
    adjusts: Iterable[Adjust],
    tags: Mapping[str, Mapping[str, str]],
) -> list[tuple[str, str, Row]]:
    """What the same adds to the sums by tag: the name, the value, and a row of ``rollups`` for each request with
    tags; ``tags`` are those of each request, by its id.
    """
    mine: dict[str, tuple[list[Record], list[tuple[Record, Entry]], list[Adjust]]] = {}

    def of(request_id: str) -> tuple[list[Record], list[tuple[Record, Entry]], list[Adjust]] | None:
        return mine.setdefault(request_id, ([], [], [])) if tags.get(request_id) else None

    for record in records:
        if (its := of(record.request_id)) is not None:
            its[0].append(record)
    for record, entry in entries:
        if (its := of(record.request_id)) is not None:
            its[1].append((record, entry))
    for adjust in adjusts:
        if (its := of(adjust.request_id)) is not None:
            its[2].append(adjust)
    rows: list[tuple[str, str, Row]] = []
    for request_id, its in mine.items():
        for row in rollup_rows(*its):
            rows += [(name, value, row) for name, value in tags[request_id].items()]
    return rows


def _add(sums: dict[tuple[str | int | None, ...], list[int]], place: Record | Adjust, entry: Entry) -> list[int]:
    """Adds units and money of ``entry``; the sums of its key, for what else there is to add."""
    key = (place.quarter_ms, place.team_id, place.key_id, _clean(entry.model), entry.upstream)
    row = sums.get(key)
    if row is None:
        row = sums[key] = [0] * SUMS
    usage = entry.usage
    row[2] += usage.input_tokens
    row[3] += usage.cached_tokens
    row[4] += usage.cache_write_tokens
    row[5] += usage.output_tokens
    row[6] += usage.reasoning_tokens
    row[7] += entry.cost_nanousd or 0
    return row
