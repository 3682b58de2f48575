"""What each row of the bill adds to sums, in SQL: the same as ``flatten.rollup_rows`` says of what is new.

Each select has the columns of ``rollups``, and the tags of the request (JSON text) where these are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sqlalchemy import ColumnElement, Select, and_, case, cast, exists, func, literal_column, select, union_all

from app.store.flatten import FAILED
from app.store.posting import EXACT
from app.store.tables import INT, ROLLUP_KEY, ROLLUP_SUMS, entries, records

if TYPE_CHECKING:
    from sqlalchemy import BindParameter, FromClause, Table

Span: TypeAlias = "tuple[int | BindParameter[int], int | BindParameter[int]]"
"""Quarters from the first up to, not including, the second."""

Tags: TypeAlias = Literal["none", "some", "all"]


def counted(span: Span | None = None, *, tags: Tags = "none") -> FromClause:
    """All rows of the bill, of a span of quarters if one is given; with ``tags`` of all requests, or of some: those
    that have any.
    """
    parts = [
        of_records(span, tags=tags),
        of_entries(span, tags=tags),
        of_corrections(span, tags=tags),
        of_estimates(span, tags=tags),
    ]
    return union_all(*parts).subquery()


def of_records(span: Span | None = None, *, tags: Tags = "none") -> Select[Any]:
    """Requests, where their record says that they ended."""
    values = {
        "requests": literal_column("1", INT),
        "failed": as_number(records.c.outcome.in_(sorted(FAILED))),
        "saved_nanousd": records.c.saved_nanousd,
    }
    asked = select(*_place(records), *_sums(values))
    if tags != "none":
        asked = asked.add_columns(records.c.tags)
    if tags == "some":
        asked = asked.where(records.c.tags != "{}")
    if span is not None:
        # The index is by the moment, which is in its quarter.
        asked = asked.where(records.c.admitted_at_ms >= span[0], records.c.admitted_at_ms < span[1])
    return asked


def of_entries(span: Span | None = None, *, tags: Tags = "none") -> Select[Any]:
    """Units and money, where each entry says that they were used."""
    primary_unpriced = and_(entries.c.kind != "adjust", entries.c.cost_nanousd.is_(None))
    exact_adjust = and_(entries.c.kind == "adjust", entries.c.reason == EXACT)
    values = {
        "input_tokens": entries.c.input_tokens,
        "cached_tokens": entries.c.cached_tokens,
        "cache_write_tokens": entries.c.cache_write_tokens,
        "output_tokens": entries.c.output_tokens,
        "reasoning_tokens": entries.c.reasoning_tokens,
        "cost_nanousd": func.coalesce(entries.c.cost_nanousd, 0),
        "unpriced": as_number(primary_unpriced),
        "estimated": case((entries.c.kind == "estimate", 1), (exact_adjust, -1), else_=0),
    }
    return _of(select(*_place(entries), *_sums(values)).select_from(entries), span, tags=tags)


def of_corrections(span: Span | None = None, *, tags: Tags = "none") -> Select[Any]:
    """What the corrections of each attempt have changed of ``unpriced``, together, where its primary entry is.

    The same as ``posting.is_unpriced`` says, as a difference to the primary entry alone.
    """
    of_exact = and_(entries.c.reason == EXACT, entries.c.cost_nanousd.is_(None))
    grouped = (
        select(
            entries.c.attempt_id,
            func.max(as_number(entries.c.reason == EXACT)).label("exact"),
            func.max(as_number(of_exact)).label("exact_unpriced"),
            func.max(as_number(and_(entries.c.reason != EXACT, entries.c.cost_nanousd.is_not(None)))).label("repriced"),
        )
        .where(entries.c.kind == "adjust", *_within(entries, span))
        .group_by(entries.c.attempt_id)
    )
    corrections = grouped.subquery()
    there = corrections.c
    before = as_number(entries.c.cost_nanousd.is_(None))
    after = case((there.repriced == 1, 0), (there.exact == 1, there.exact_unpriced), else_=before)
    changed: ColumnElement[int] = after - before
    asked = (
        select(*_place(entries), *_sums({"unpriced": changed}))
        .select_from(entries.join(corrections, there.attempt_id == entries.c.attempt_id))
        .where(entries.c.kind != "adjust")
    )
    return _of(asked, span, tags=tags)


def of_estimates(span: Span | None = None, *, tags: Tags = "none") -> Select[Any]:
    """The money of attempts of which nothing exact is known, with what was corrected of it."""
    parts, exact = entries.alias("parts"), entries.alias("exact")
    is_known = exists(
        select(literal_column("1"))
        .select_from(exact)
        .where(exact.c.attempt_id == entries.c.attempt_id, exact.c.reason == EXACT)
    )
    asked = (
        select(*_place(entries), *_sums({"estimated_nanousd": func.coalesce(parts.c.cost_nanousd, 0)}))
        .select_from(entries.join(parts, parts.c.attempt_id == entries.c.attempt_id))
        .where(entries.c.kind == "estimate", ~is_known)
    )
    return _of(asked, span, tags=tags)


def as_number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """1 where it is so, else 0."""
    return case((condition, 1), else_=0)


def added(rows: FromClause) -> list[ColumnElement[int]]:
    """The sums of ``rows``, each under its name."""
    return [cast(func.sum(rows.c[name]), INT).label(name) for name in ROLLUP_SUMS]


def _place(table: Table) -> list[ColumnElement[Any]]:
    return [table.c[name] for name in ROLLUP_KEY]


def _sums(values: dict[str, ColumnElement[int]]) -> list[ColumnElement[Any]]:
    """A column for each sum: those given, and 0 for the rest."""
    zero = literal_column("0", INT)
    return [values.get(name, zero).label(name) for name in ROLLUP_SUMS]


def _within(table: Table, span: Span | None) -> list[ColumnElement[bool]]:
    return [] if span is None else [table.c.quarter_ms >= span[0], table.c.quarter_ms < span[1]]


def _of(asked: Select[Any], span: Span | None, *, tags: Tags) -> Select[Any]:
    asked = asked.where(*_within(entries, span))
    if tags != "none":
        asked = asked.add_columns(records.c.tags).join(records, records.c.request_id == entries.c.request_id)
    if tags == "some":
        asked = asked.where(records.c.tags != "{}")
    return asked
