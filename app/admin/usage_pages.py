"""Pages and files of usage: one question, asked of the one query, for whoever may see the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec

from app.admin.asking import Asked, Span, filter_asked, groups_asked, order_asked, span_asked
from app.admin.rows import SUMS, sums_data, usage_data
from app.admin.usage_reading import (
    Page,
    Question,
    ask,
    identity_of,
    in_order,
    in_use,
    member_of,
    read_shown,
    stretches_of,
)
from app.admin.wire import cursor_text, position_of
from app.core.errors import InvalidRequest
from app.store.colors import bind_colors, colors_of
from app.store.database import Database
from app.store.errors import StoreError
from app.store.explanations import iso_time
from app.store.usage import PERIODS, UsageReport, UsageRow

PAGE_DEFAULT = 1000
PAGE_MAX = 5000
HOURS_DAYS_MAX = 100
COLORED_MAX = 50
PART_ROWS = 1000

SORTED_BY = ("cost", "saved", *(name for name in SUMS if name not in {"cost_usd", "saved_usd"}))
"""Columns that rows can be put in order by, beside those of the group."""


def question_asked(asked: Asked, now_ms: int) -> Question:
    """Raises InvalidRequest."""
    by = groups_asked(asked)
    span = span_asked(asked, now_ms, "this_month")
    if span is None:
        raise InvalidRequest("A range is missing.", param="range")
    only = filter_asked(asked)
    return Question(by, span.quarters, only, order_asked(asked, (*by, *SORTED_BY)))


def page_asked(asked: Asked, question: Question) -> tuple[Question, Page]:
    """The page that ``limit`` and ``cursor`` ask for. A cursor holds the span too, so that no page is of another
    moment than the first. Raises InvalidRequest.
    """
    if "hour" in question.by and question.span.end_ms - question.span.start_ms > HOURS_DAYS_MAX * 86_400_000:
        raise InvalidRequest(
            f"Hours are told of {HOURS_DAYS_MAX} days at most: take a shorter range, or an export.", param="by"
        )
    limit = asked.number("limit", PAGE_DEFAULT, at_least=1, at_most=PAGE_MAX)
    cursor = asked.cursor()
    place = position_of(cursor, tuple[int, int, int, str, tuple[str, ...]])
    if place is None:
        return question, Page(limit, mark=question.mark)
    start_ms, end_ms, offset, mark, after = place
    is_ours = 0 <= start_ms < end_ms < 2**45 and offset > 0 and mark == question.mark
    is_ours = is_ours and len(after) == _identity_length(question.by)
    span = msgspec.structs.replace(question.span, start_ms=start_ms, end_ms=end_ms)
    if not is_ours or span != span.quarters:
        raise InvalidRequest("The cursor is not one of this question.", param="cursor")
    return msgspec.structs.replace(question, span=span), Page(limit, offset, after, mark)


async def usage_page(database: Database, question: Question, page: Page) -> dict[str, Any]:
    """The answer. Raises StoreError, UsageNotTold."""
    span = question.span
    dimension = next((name for name in question.by if name not in PERIODS), None)
    async with database.read() as connection:
        shown = await read_shown(connection, question, page)
        drawn: UsageReport | None = None
        if dimension is not None:
            drawn = await ask(connection, msgspec.structs.replace(question, by=(dimension,), order=None))
    cursor = None
    if not shown.is_last:
        last = identity_of(shown.rows[-1])
        place = (span.start_ms, span.end_ms, shown.start + page.limit, page.mark, last)
        cursor = cursor_text(place)  # type: ignore[arg-type] # JSON
    return {
        "from": iso_time(span.start_ms),
        "to": iso_time(span.end_ms),
        "time_zone": span.time_zone,
        "by": question.by,
        "rows": [usage_data(row) for row in shown.rows],
        "total": sums_data(shown.total),
        "colors": await _colors(database, dimension, drawn.rows) if dimension and drawn else {},
        "next": cursor,
    }


async def usage_parts(database: Database, question: Question) -> AsyncIterator[list[dict[str, Any]]]:
    """All rows of the answer, a part at a time. With a period among the groups, and no order asked for, they come
    by its time, each stretch read on its own: a year by the day takes no more memory than a week.

    Raises UsageNotTold.
    """
    spans: Iterable[Span] = [question.span]
    if question.period is not None and question.order is None:
        async with database.read() as connection:
            spans = stretches_of(await in_use(connection, question.span), question.period)
    for span in spans:
        async with database.read() as connection:
            report = await ask(connection, msgspec.structs.replace(question, span=span))
        rows = in_order(report.rows, question.order)
        for start in range(0, len(rows), PART_ROWS):
            yield [usage_data(row) for row in rows[start : start + PART_ROWS]]


def _identity_length(by: Sequence[str]) -> int:
    return len(by) + sum(name in {"team", "key"} for name in by)


async def _colors(database: Database, dimension: str, rows: Sequence[UsageRow]) -> dict[str, int]:
    costs = {member_of(row, dimension): row.cost_nanousd for row in rows}
    return await colors_for(database, dimension, sorted(costs, key=lambda member: (-costs[member], member)))


async def colors_for(database: Database, dimension: str, members: Sequence[str]) -> dict[str, int]:
    """The slots of the first fifty of ``members``; what has no name ("": without the tag) has none.

    A ledger that cannot be written to at this moment still says which are bound.
    """
    named = [member for member in members if member][:COLORED_MAX]
    try:
        return await bind_colors(database, dimension, named)
    except StoreError:
        async with database.read() as connection:
            return await colors_of(connection, dimension, named)
