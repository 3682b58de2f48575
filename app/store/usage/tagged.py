"""Usage by tag: from the sums by tag where one name is asked for and they have it, else from the records.

Requests without a tag have no rows of their own: they are the total, less what has the tag.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import and_, func, literal_column, or_, select

from app.store.folds import month_of_utc
from app.store.meta import PRUNED_FACT, find_fact
from app.store.periods import DAY_MS, HOUR_MS, first_day_of_month
from app.store.tables import records, rollups, tag_values
from app.store.tag_values import NAME_ROW, OTHER, VALUES_MAX, Registry
from app.store.usage.groups import Groups, add, take_away, take_in, without_nothing
from app.store.usage.plan import Asked, Folded, Piece, Quarters, pieces_of, quarters_of
from app.store.usage.selects import select_records, select_sums, select_tagged
from app.store.usage.shape import TagFilter, UsageNotTold, tag_filters

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.store.folds import Fold
    from app.store.usage.shape import Grouping, UsageFilter

RECORDS_SPAN_MAX_MS = 31 * DAY_MS + HOUR_MS
"""A month, with the hour that clocks are put back in it."""
RECORDS_MAX = 500_000
"""A longer span is answered from records where it has no more of them."""


async def usage_by_tag(
    connection: AsyncConnection, grouping: Grouping, asked: Asked, only: UsageFilter, folds: Sequence[Fold]
) -> Groups:
    """The groups, with the value of the tag behind the members where it is grouped by one. Raises UsageNotTold."""
    filters = tag_filters(only)
    names = dict.fromkeys([*([grouping.tag] if grouping.tag is not None else []), *(each.name for each in filters)])
    if len(names) == 1:
        (name,) = names
        given = filters[0] if filters else TagFilter(name, None, frozenset())
        registry = await _registry(connection, name, asked)
        if not _hides(registry, given, asked):
            pieces = pieces_of(msgspec.structs.replace(asked, by_tag=True), folds)
            if await _may_read_records(connection, [piece.span for piece in pieces if isinstance(piece, Quarters)]):
                await _require_known(connection, pieces)
                reading = _Reading(connection, grouping, asked, only, folds, given)
                return await reading.groups(pieces, registry)
    return await _from_records(connection, grouping, asked, only, filters)


async def _may_read_records(connection: AsyncConnection, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether spans are short enough to be read record by record, or hold few."""
    if sum(end_ms - start_ms for start_ms, end_ms in spans) <= RECORDS_SPAN_MAX_MS:
        return True
    at_ms = records.c.admitted_at_ms
    within = or_(*[and_(at_ms >= start_ms, at_ms < end_ms) for start_ms, end_ms in spans])
    some = select(literal_column("1").label("one")).where(within).limit(RECORDS_MAX + 1).subquery()
    number: int = (await connection.execute(select(func.count(some.c.one)))).scalar_one()
    return number <= RECORDS_MAX


class _Reading(msgspec.Struct, frozen=True):
    """Of one tag, from its sums and, where these are not there yet, from records."""

    connection: AsyncConnection
    grouping: Grouping
    asked: Asked
    only: UsageFilter
    folds: Sequence[Fold]
    given: TagFilter

    @property
    def _width(self) -> int:
        return (self.grouping.period is not None) + len(self.grouping.members)

    async def groups(self, pieces: Sequence[Piece], registry: Registry) -> Groups:
        given, is_group = self.given, self.grouping.tag is not None
        with_untagged = given.lets("")
        wanted: frozenset[str] | None = None
        if given.any_of is not None and not with_untagged:
            wanted = given.any_of - given.none_of
        elif given.any_of is None and with_untagged and not is_group:
            # Only what is taken away from all.
            wanted = given.none_of
        found = await self._tagged(pieces, registry, wanted)
        rest: Groups = await self._all() if with_untagged else {}
        groups: Groups = {}
        for key, sums in found.items():
            group, value = key[:-1], key[-1]
            if with_untagged:
                take_away(rest, group, sums)
            if given.lets(value):
                add(groups, key if is_group else group, sums)
        for group, sums in without_nothing(rest).items():
            add(groups, (*group, "") if is_group else group, sums)
        return groups

    async def _tagged(self, pieces: Sequence[Piece], registry: Registry, wanted: frozenset[str] | None) -> Groups:
        """The sums of requests with the tag, its value behind each group; only of values ``wanted`` if there are."""
        found: Groups = {}
        if wanted is not None and not wanted:
            return found
        members, name = self.grouping.members, self.given.name
        for piece in pieces:
            text = piece.text if piece.period is not None else None
            if isinstance(piece, Folded):
                asked = select_tagged(piece, name, members, self.only, wanted)
                take_in(found, (await self.connection.execute(asked)).all(), self._width + 1, text)
                continue
            for part in _by_month_of_utc(piece):
                taken: Groups = {}
                month = month_of_utc(part.span[0])
                dialect = self.connection.dialect.name
                has_one = TagFilter(name, None, frozenset({""}))
                asked = select_records(part, name, [has_one], members, self.only, dialect)
                take_in(taken, (await self.connection.execute(asked)).all(), self._width + 1, text)
                for key, sums in taken.items():
                    registry.take(month, name, key[-1])
                    told = registry.value_of(month, name, key[-1])
                    if told is not None and (wanted is None or told in wanted):
                        add(found, (*key[:-1], told), sums)
        return found

    async def _all(self) -> Groups:
        found: Groups = {}
        for piece in pieces_of(self.asked, self.folds):
            text = piece.text if piece.period is not None else None
            asked = select_sums(piece, self.grouping.members, self.only)
            take_in(found, (await self.connection.execute(asked)).all(), self._width, text)
        return found


def _by_month_of_utc(piece: Quarters) -> list[Quarters]:
    """Values have sums by the month of UTC."""
    start_ms, end_ms = piece.span
    parts = []
    while start_ms < end_ms:
        next_ms = min(end_ms, first_day_of_month(month_of_utc(start_ms) + 1) * DAY_MS)
        parts.append(msgspec.structs.replace(piece, span=(start_ms, next_ms)))
        start_ms = next_ms
    return parts


async def _registry(connection: AsyncConnection, name: str, asked: Asked) -> Registry:
    """What is kept of a name in the months of a span; of other names that they are there."""
    first, last = month_of_utc(asked.start_ms), month_of_utc(asked.end_ms)
    there = tag_values.c
    rows = await connection.execute(
        select(there.month, there.name, there.value).where(
            there.month >= first, there.month <= last, (there.name == name) | (there.value == NAME_ROW)
        )
    )
    return Registry(tuple(row) for row in rows)


def _hides(registry: Registry, given: TagFilter, asked: Asked) -> bool:
    """Whether sums cannot tell what is asked: the name has none in a month, or a value is one of ``_other``."""
    months = range(month_of_utc(asked.start_ms), month_of_utc(max(asked.end_ms - 1, asked.start_ms)) + 1)
    asked_for = (None, *given.named)
    return any(registry.may_hide(month, given.name, value) for month in months for value in asked_for)


async def _require_known(connection: AsyncConnection, pieces: Iterable[Piece]) -> None:
    """Raises UsageNotTold where the tags of some usage are not known any more."""
    pruned_ms = int(await find_fact(connection, PRUNED_FACT) or 0)
    for piece in pieces:
        known_ms = piece.fold.tags_from_ms if isinstance(piece, Folded) else pruned_ms
        if piece.span[0] < known_ms:
            some: Select[Any] = select(literal_column("1")).where(
                rollups.c.quarter_ms >= piece.span[0], rollups.c.quarter_ms < min(known_ms, piece.span[1])
            )
            if (await connection.execute(some.limit(1))).first() is not None:
                at = datetime.fromtimestamp(known_ms / 1000, UTC).isoformat(timespec="minutes")
                raise UsageNotTold(f"Usage by tag is known from {at} on here: the records of before were pruned.")


async def _from_records(
    connection: AsyncConnection, grouping: Grouping, asked: Asked, only: UsageFilter, filters: Sequence[TagFilter]
) -> Groups:
    if not await _may_read_records(connection, [(asked.start_ms, asked.end_ms)]):
        raise UsageNotTold(
            "This needs the records themselves (two tags, a tag with both keys and models, a value that has no sums of"
            " its own, or days of a zone whose sums are being made), which are read of up to 31 days: take a shorter"
            " range."
        )
    pieces = quarters_of(asked)
    await _require_known(connection, pieces)
    groups: Groups = {}
    width = (grouping.period is not None) + len(grouping.members) + (grouping.tag is not None)
    for piece in pieces:
        text = piece.text if piece.period is not None else None
        found = select_records(piece, grouping.tag, filters, grouping.members, only, connection.dialect.name)
        take_in(groups, (await connection.execute(found)).all(), width, text)
    return groups if grouping.tag is None else _bounded(groups)


def _bounded(groups: Groups) -> Groups:
    """As many values as there may be sums for; those of the fewest requests are ``_other``."""
    requests: dict[str, int] = {}
    for key, sums in groups.items():
        requests[key[-1]] = requests.get(key[-1], 0) + sums[0]
    if len(requests) <= VALUES_MAX + 1:
        return groups
    kept = set(sorted(requests, key=lambda value: (-requests[value], value))[:VALUES_MAX]) | {""}
    bounded: Groups = {}
    for key, sums in groups.items():
        add(bounded, key if key[-1] in kept else (*key[:-1], OTHER), sums)
    return bounded
