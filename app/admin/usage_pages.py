"""Pages and files of usage: one question, asked of the one query, for whoever may see the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import msgspec

from app.admin.asking import Asked, Order, Span, day_of, filter_asked, groups_asked, order_asked, span_asked, start_of
from app.admin.rows import SUMS, sums_data, usage_data
from app.admin.wire import cursor_text, position_of
from app.core.calendar import window_of
from app.core.errors import InvalidRequest
from app.store.colors import bind_colors, colors_of
from app.store.database import Database
from app.store.errors import StoreError
from app.store.explanations import iso_time
from app.store.usage import PERIODS, UsageFilter, UsageRow, usage

PAGE_DEFAULT = 1000
PAGE_MAX = 5000
HOURS_DAYS_MAX = 100
COLORED_MAX = 50
PART_ROWS = 1000
WEEK = 7
NOBODY = ""
"""No team has this id."""

SORTED_BY = ("cost", "saved", *(name for name in SUMS if name not in {"cost_usd", "saved_usd"}))
"""Columns that rows can be put in order by, beside those of the group."""

AMOUNTS = {"cost": "cost_nanousd", "saved": "saved_nanousd", "estimated_usd": "estimated_nanousd"}


class Question(msgspec.Struct, frozen=True):
    """Usage by what, of when and of whom, in which order. ``span`` is in whole quarters."""

    by: tuple[str, ...]
    span: Span
    only: UsageFilter
    order: Order | None

    def of_team(self, team_id: str | None) -> Question:
        """The same, of this team alone."""
        return msgspec.structs.replace(self, only=of_team(self.only, team_id))

    def of_key(self, team_id: str, key_id: str) -> Question:
        """The same, of this key alone."""
        only = of_team(self.only, team_id)
        keys = (key_id if key_id in (only.key_ids or (key_id,)) else NOBODY,)
        return msgspec.structs.replace(self, only=msgspec.structs.replace(only, key_ids=keys))


class Page(msgspec.Struct, frozen=True):
    """``offset`` rows have been shown, the last of them of the group ``after``."""

    limit: int
    offset: int = 0
    after: tuple[str, ...] = ()


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
    place = position_of(cursor, tuple[int, int, int, tuple[str, ...]])
    if place is None:
        return question, Page(limit)
    start_ms, end_ms, offset, after = place
    is_ours = 0 <= start_ms < end_ms < 2**45 and offset > 0 and len(after) == _identity_length(question.by)
    span = msgspec.structs.replace(question.span, start_ms=start_ms, end_ms=end_ms)
    if not is_ours or span != span.quarters:
        raise InvalidRequest("The cursor is not one of this list.", param="cursor")
    return msgspec.structs.replace(question, span=span), Page(limit, offset, after)


def of_team(only: UsageFilter, team_id: str | None) -> UsageFilter:
    """``only``, and only of this team; None is anybody's."""
    if team_id is None:
        return only
    if only.team_ids and team_id not in only.team_ids:
        team_id = NOBODY
    return msgspec.structs.replace(only, team_ids=(team_id,))


async def usage_page(database: Database, question: Question, page: Page) -> dict[str, Any]:
    """The answer. Raises StoreError."""
    span = question.span
    async with database.read() as connection:
        report = await usage(connection, question.by, span.start_ms, span.end_ms, span.zone, only=question.only)
    rows = _ordered(report.rows, question.order)
    start = _start_of_page(rows, page)
    shown = rows[start : start + page.limit]
    cursor = None
    if start + page.limit < len(rows):
        last = identity_of(shown[-1])
        cursor = cursor_text((span.start_ms, span.end_ms, start + page.limit, last))  # type: ignore[arg-type] # JSON
    return {
        "from": iso_time(span.start_ms),
        "to": iso_time(span.end_ms),
        "time_zone": span.time_zone,
        "by": question.by,
        "rows": [usage_data(row) for row in shown],
        "total": sums_data(report.total),
        "colors": await _colors(database, question.by, report.rows),
        "next": cursor,
    }


async def usage_parts(database: Database, question: Question) -> AsyncIterator[list[dict[str, Any]]]:
    """All rows of the answer, a part at a time. With a period among the groups, and no order asked for, they come
    by its time, each stretch read on its own: a year by the day takes no more memory than a week.
    """
    period = next((name for name in question.by if name in PERIODS), None)
    spans = [question.span] if period is None or question.order is not None else _stretches(question.span, period)
    for span in spans:
        async with database.read() as connection:
            report = await usage(connection, question.by, span.start_ms, span.end_ms, span.zone, only=question.only)
        rows = _ordered(report.rows, question.order)
        for start in range(0, len(rows), PART_ROWS):
            yield [usage_data(row) for row in rows[start : start + PART_ROWS]]


def identity_of(row: UsageRow) -> tuple[str, ...]:
    """What no other row of an answer has: two teams may each have a key of one name."""
    ids = (row.team_id, row.key_id)
    return (*row.group.values(), *(each for each in ids if each is not None))


def _identity_length(by: Sequence[str]) -> int:
    return len(by) + sum(name in {"team", "key"} for name in by)


def _ordered(rows: list[UsageRow], order: Order | None) -> list[UsageRow]:
    """Those that are alike stay in the order of their groups."""
    if order is None:
        return rows
    column = order.column
    if rows and column in rows[0].group:
        return sorted(rows, key=lambda row: row.group[column], reverse=order.is_falling)
    name = AMOUNTS.get(column, column)
    return sorted(rows, key=lambda row: getattr(row, name), reverse=order.is_falling)


def _start_of_page(rows: Sequence[UsageRow], page: Page) -> int:
    """Behind the row that was shown last, wherever its sums have moved it."""
    if not page.after:
        return page.offset
    for index, row in enumerate(rows):
        if identity_of(row) == page.after:
            return index + 1
    return page.offset


def _stretches(span: Span, period: str) -> Iterator[Span]:
    """``span`` cut where a period ends: a day of hours, a week of days, else the period itself."""
    start_ms = span.start_ms
    while start_ms < span.end_ms:
        if period == "hour":
            end_ms = window_of("day", span.time_zone, start_ms)[1]
        elif period == "month":
            end_ms = window_of("month", span.time_zone, start_ms)[1]
        else:
            end_ms = window_of("week", span.time_zone, start_ms)[1]
        yield msgspec.structs.replace(span, start_ms=start_ms, end_ms=min(end_ms, span.end_ms))
        start_ms = end_ms


async def _colors(database: Database, by: Sequence[str], rows: Sequence[UsageRow]) -> dict[str, int]:
    """Those of the first dimension that is drawn in colours."""
    dimension = next((name for name in by if name not in PERIODS), None)
    if dimension is None:
        return {}
    costs: dict[str, int] = {}
    for row in rows:
        member = member_of(row, dimension)
        costs[member] = costs.get(member, 0) + row.cost_nanousd
    return await colors_for(database, dimension, sorted(costs, key=lambda member: (-costs[member], member)))


def member_of(row: UsageRow, dimension: str) -> str:
    """Its id where the dimension has ids, else its name."""
    ids = {"team": row.team_id, "key": row.key_id}
    return ids.get(dimension) or row.group[dimension]


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


def days_of(span: Span) -> Iterator[tuple[date, int, int]]:
    """Each day of the zone in ``span`` with its first moment and that of the next one."""
    day = day_of(span.start_ms, span.zone)
    while (start_ms := start_of(day, span.zone)) < span.end_ms:
        day += timedelta(days=1)
        yield day - timedelta(days=1), start_ms, start_of(day, span.zone)
