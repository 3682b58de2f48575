"""Pages and files of records, for whoever may see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, get_args

import msgspec

from app.admin.asking import NOBODY, Asked, Span, filter_asked, of_team, span_asked
from app.admin.exports import ExportFormat
from app.admin.rows import record_data, record_line
from app.admin.wire import cursor_text, position_of
from app.core.errors import InvalidRequest
from app.core.records import Outcome
from app.store.database import Database
from app.store.people import OwnerNames, names_of
from app.store.search import RecordFilter, RecordPlace, RecordsFound, search_records

OUTCOMES: tuple[str, ...] = get_args(Outcome)
PAGE_DEFAULT = 50
PAGE_MAX = 200
FILE_PART = 1000
TIME_MAX_MS = 2**53


class RecordQuestion(msgspec.Struct, frozen=True):
    """Which records; ``span`` None is of any time."""

    only: RecordFilter
    span: Span | None

    def of_team(self, team_id: str | None) -> RecordQuestion:
        """The same, of this team alone; None is anybody's."""
        return self._of(msgspec.structs.replace(self.only, only=of_team(self.only.only, team_id)))

    def of_key(self, team_id: str, key_id: str) -> RecordQuestion:
        """The same, of this key alone."""
        only = of_team(self.only.only, team_id)
        keys = (key_id if key_id in (only.key_ids or (key_id,)) else NOBODY,)
        return self._of(msgspec.structs.replace(self.only, only=msgspec.structs.replace(only, key_ids=keys)))

    def _of(self, only: RecordFilter) -> RecordQuestion:
        return msgspec.structs.replace(self, only=only)


def records_asked(asked: Asked, now_ms: int) -> RecordQuestion:
    """Raises InvalidRequest."""
    outcomes = asked.values("outcome")
    for outcome in outcomes:
        if outcome not in OUTCOMES:
            raise InvalidRequest(f"outcome is made of {', '.join(OUTCOMES)}.", param="outcome")
    only = RecordFilter(
        outcomes=outcomes,
        text=asked.text("q"),
        end_user=asked.text("end_user"),
        response_id=asked.text("response_id"),
        only=filter_asked(asked),
    )
    return RecordQuestion(only, span_asked(asked, now_ms, None))


def record_page_asked(asked: Asked) -> tuple[int, RecordPlace | None]:
    """``limit`` and ``cursor``. Raises InvalidRequest."""
    limit = asked.number("limit", PAGE_DEFAULT, at_least=1, at_most=PAGE_MAX)
    place = position_of(asked.cursor(), tuple[int, str])
    if place is None:
        return limit, None
    at_ms, request_id = place
    if not 0 <= at_ms < TIME_MAX_MS or not (request_id.isprintable() and len(request_id) <= 64):
        raise InvalidRequest("The cursor is not one of this list.", param="cursor")
    return limit, RecordPlace(at_ms, request_id)


async def record_page(
    database: Database, question: RecordQuestion, limit: int, before: RecordPlace | None
) -> dict[str, Any]:
    """The answer. Raises StoreError."""
    found, names = await _found(database, question, limit, before)
    place = found.next
    return {
        "data": [record_data(record, names) for record in found.records],
        "next": None if place is None else cursor_text((place.admitted_at_ms, place.request_id)),
    }


async def record_parts(
    database: Database, question: RecordQuestion, style: ExportFormat
) -> AsyncIterator[list[dict[str, Any]]]:
    """All records, newest first, a part at a time, each read on its own: what is admitted meanwhile is newer."""
    data = record_line if style == "csv" else record_data
    before: RecordPlace | None = None
    while True:
        found, names = await _found(database, question, FILE_PART, before)
        if found.records:
            yield [data(record, names) for record in found.records]
        if found.next is None:
            return
        before = found.next


async def _found(
    database: Database, question: RecordQuestion, limit: int, before: RecordPlace | None
) -> tuple[RecordsFound, OwnerNames]:
    span = question.span
    async with database.read() as connection:
        found = await search_records(
            connection,
            question.only,
            start_ms=0 if span is None else span.start_ms,
            end_ms=None if span is None else span.end_ms,
            before=before,
            limit=limit,
        )
        team_ids = [record.team_id for record in found.records]
        names = await names_of(connection, team_ids, [record.key_id for record in found.records])
    return found, names
