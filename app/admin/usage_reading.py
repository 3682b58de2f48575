"""The rows of a page of usage, without the rows of all its other pages where that can be.

A year by day and key is tens of thousands of rows, of which a page shows a thousand. In the order of its groups such an
answer is read in chunks, of whole periods or of some members, until the page is there; in the order of a sum, only the
rows that are high enough are made. The total is asked for itself: it is the same query, of the same moment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from hashlib import blake2b

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from app.admin.asking import NOBODY, Order, Span, of_team
from app.core.calendar import CalendarWindow, window_of
from app.store.usage import PERIODS, Highest, UsageFilter, UsageReport, UsageRow, UsageSums, usage, used_between

MEMBERS_AT_ONCE_MAX = 500

AMOUNTS = {"cost": "cost_nanousd", "saved": "saved_nanousd", "estimated_usd": "estimated_nanousd"}

_FILTER_OF = {"team": "team_ids", "key": "key_ids", "model": "models", "upstream": "upstreams"}


class Question(msgspec.Struct, frozen=True):
    """Usage by what, of when and of whom, in which order. ``span`` is in whole quarters."""

    by: tuple[str, ...]
    span: Span
    only: UsageFilter
    order: Order | None

    @property
    def period(self) -> str | None:
        return next((name for name in self.by if name in PERIODS), None)

    @property
    def mark(self) -> str:
        """The same of two questions that differ in their span alone."""
        asked = msgspec.json.encode((self.by, self.span.time_zone, self.only, self.order))
        return blake2b(asked, digest_size=6).hexdigest()

    def of_team(self, team_id: str | None) -> Question:
        """The same, of this team alone; None is anybody's."""
        return msgspec.structs.replace(self, only=of_team(self.only, team_id))

    def of_key(self, team_id: str, key_id: str) -> Question:
        """The same, of this key alone."""
        only = of_team(self.only, team_id)
        mine = key_id if key_id in (only.key_ids or (key_id,)) else NOBODY
        return msgspec.structs.replace(self, only=msgspec.structs.replace(only, key_ids=(mine,)))


class Page(msgspec.Struct, frozen=True):
    """``offset`` rows have been shown, the last of them of the group ``after``, to who asked the question ``mark``."""

    limit: int
    offset: int = 0
    after: tuple[str, ...] = ()
    mark: str = ""


class Shown(msgspec.Struct, frozen=True):
    """The rows of a page, the first of them at ``start`` of all."""

    rows: Sequence[UsageRow]
    start: int
    is_last: bool
    total: UsageSums


async def ask(connection: AsyncConnection, question: Question, highest: Highest | None = None) -> UsageReport:
    """All of the answer. Raises UsageNotTold."""
    span = question.span
    return await usage(
        connection, question.by, span.start_ms, span.end_ms, span.zone, only=question.only, highest=highest
    )


async def read_shown(connection: AsyncConnection, question: Question, page: Page) -> Shown:
    """The page. Raises UsageNotTold."""
    order = question.order
    # Of a tag with many values it depends on the whole span which of them have sums of their own.
    is_by_tag = any(name.startswith("tag.") for name in question.by)
    if question.period is None or len(question.by) == 1 or is_by_tag:
        return await _of_all(connection, question, page)
    if order is not None and order.column not in question.by:
        return await _of_the_highest(connection, question, page, order)
    if order is not None and order.column != question.by[0]:
        return await _of_all(connection, question, page)
    by_time = question.by[0] == question.period
    rows: list[UsageRow] = []
    start: int | None = None
    async for chunk in _by_time(connection, question) if by_time else _by_member(connection, question):
        if start is None and (found := _behind(chunk, page)) is not None:
            start = len(rows) + found if page.after else found
        rows += chunk
        if start is not None and len(rows) > start + page.limit:
            break
    total = (await ask(connection, msgspec.structs.replace(question, by=(), order=None))).total
    return _cut(rows, start, page, total)


async def _of_all(connection: AsyncConnection, question: Question, page: Page) -> Shown:
    report = await ask(connection, question)
    rows = in_order(report.rows, question.order)
    return _cut(rows, _behind(rows, page), page, report.total)


async def _of_the_highest(connection: AsyncConnection, question: Question, page: Page, order: Order) -> Shown:
    """Of as many as have been shown with this page, and as many again: the last row that was shown may have sunk."""
    count = 2 * page.offset + page.limit + 1
    report = await ask(connection, question, Highest(AMOUNTS.get(order.column, order.column), order.is_falling, count))
    rows = in_order(report.rows, order)
    start = _behind(rows, page)
    if len(rows) >= count and (start is None or len(rows) <= start + page.limit):
        return await _of_all(connection, question, page)
    return _cut(rows, start, page, report.total)


def _behind(rows: Sequence[UsageRow], page: Page) -> int | None:
    """The place behind the row that was shown last, wherever its sums have moved it; None where it is not there."""
    if not page.after:
        return page.offset
    return next((index + 1 for index, row in enumerate(rows) if identity_of(row) == page.after), None)


def _cut(rows: Sequence[UsageRow], start: int | None, page: Page, total: UsageSums) -> Shown:
    start = page.offset if start is None else start
    end = start + page.limit
    return Shown(rows[start:end], start, end >= len(rows), total)


async def _by_time(connection: AsyncConnection, question: Question) -> AsyncIterator[list[UsageRow]]:
    """Rows in the order of their periods, read by twice as many stretches each time."""
    stretches = list(stretches_of(await in_use(connection, question.span), question.by[0]))
    if question.order is not None and question.order.is_falling:
        stretches.reverse()
    begin, count = 0, 1
    while begin < len(stretches):
        taken = stretches[begin : begin + count]
        start_ms, end_ms = min(each.start_ms for each in taken), max(each.end_ms for each in taken)
        span = msgspec.structs.replace(question.span, start_ms=start_ms, end_ms=end_ms)
        report = await ask(connection, msgspec.structs.replace(question, span=span))
        yield in_order(report.rows, question.order)
        begin, count = begin + count, count * 2


async def _by_member(connection: AsyncConnection, question: Question) -> AsyncIterator[list[UsageRow]]:
    """Rows in the order of what they are grouped by first, read of twice as many members each time."""
    dimension = question.by[0]
    members = await ask(connection, msgspec.structs.replace(question, by=(dimension,), order=None))
    rows = in_order(members.rows, question.order)
    begin, count = 0, 8
    while begin < len(rows):
        end = begin + count
        # Keys of one name stand among each other.
        while end < len(rows) and rows[end].group == rows[end - 1].group:
            end += 1
        taken = {_FILTER_OF[dimension]: tuple(member_of(row, dimension) for row in rows[begin:end])}
        only = msgspec.structs.replace(question.only, **taken)
        report = await ask(connection, msgspec.structs.replace(question, only=only))
        yield in_order(report.rows, question.order)
        begin, count = end, min(count * 2, MEMBERS_AT_ONCE_MAX)


async def in_use(connection: AsyncConnection, span: Span) -> Span:
    """The part of ``span`` from the first usage that there is up to the last: a thousand years have many days."""
    start_ms, end_ms = await used_between(connection)
    start_ms, end_ms = max(span.start_ms, start_ms), min(span.end_ms, end_ms)
    return msgspec.structs.replace(span, start_ms=start_ms, end_ms=max(start_ms, end_ms))


def stretches_of(span: Span, period: str) -> Iterator[Span]:
    """``span`` cut where a period ends: a day of hours, a week of days, else the period itself."""
    start_ms = span.start_ms
    while start_ms < span.end_ms:
        window: CalendarWindow = "day" if period == "hour" else "month" if period == "month" else "week"
        end_ms = window_of(window, span.time_zone, start_ms)[1]
        yield msgspec.structs.replace(span, start_ms=start_ms, end_ms=min(end_ms, span.end_ms))
        start_ms = end_ms


def in_order(rows: list[UsageRow], order: Order | None) -> list[UsageRow]:
    """Those that are alike stay in the order of their groups."""
    if order is None:
        return rows
    column = order.column
    if rows and column in rows[0].group:
        return sorted(rows, key=lambda row: row.group[column], reverse=order.is_falling)
    name = AMOUNTS.get(column, column)
    return sorted(rows, key=lambda row: getattr(row, name), reverse=order.is_falling)


def identity_of(row: UsageRow) -> tuple[str, ...]:
    """What no other row of an answer has: two teams may each have a key of one name."""
    ids = (row.team_id, row.key_id)
    return (*row.group.values(), *(each for each in ids if each is not None))


def member_of(row: UsageRow, dimension: str) -> str:
    """Its id where the dimension has ids, else its name."""
    ids = {"team": row.team_id, "key": row.key_id}
    return ids.get(dimension) or row.group[dimension]
