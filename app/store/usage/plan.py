"""From which sums a span is answered: few rows of a fold where it has whole days and months, quarters at the ends."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from app.store.folds import LEVELS, Fold, Level
from app.store.periods import (
    HOUR_MS,
    first_day_of_month,
    hour_text,
    month_text,
    offset_parts,
    start_of_day,
    text_of_day,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import tzinfo

MINUTE_MS = 60_000


class Folded(msgspec.Struct, frozen=True):
    """Sums of a fold at a level: the hours, days or months from ``first`` up to, not including, ``end``. ``period``
    is what they are grouped by, if anything, at an offset of the zone; they hold what was used in a span of quarters.
    """

    fold: Fold
    level: Level
    first: int
    end: int
    period: str | None
    offset_ms: int
    span: tuple[int, int]

    def text(self, number: int) -> str:
        """A number of the period, as people read it."""
        if self.level.period == "hour":
            return hour_text(number + (int(self.fold.zone) * MINUTE_MS + self.offset_ms) // HOUR_MS, self.offset_ms)
        return month_text(number) if self.level.period == "month" else text_of_day(self.period or "day", number)


class Quarters(msgspec.Struct, frozen=True):
    """What rollups, or records, have of a span of one offset."""

    period: str | None
    offset_ms: int
    span: tuple[int, int]

    def text(self, number: int) -> str:
        """A number of the period (a day, or an hour), as people read it."""
        return hour_text(number, self.offset_ms) if self.period == "hour" else text_of_day(self.period or "day", number)


Piece: TypeAlias = Folded | Quarters


class Asked(msgspec.Struct, frozen=True):
    """A span, grouped by ``period`` of ``time_zone`` if by any, and the columns that it is grouped or filtered by."""

    start_ms: int
    end_ms: int
    period: str | None
    time_zone: tzinfo
    columns: Collection[str]
    by_tag: bool = False

    def level(self, period: str) -> Level | None:
        """The coarsest that has the columns."""
        for level in LEVELS:
            if level.period == period and set(self.columns) <= set(level.columns):
                return level if level.by_tag or not self.by_tag else None
        return None


def name_of_zone(time_zone: tzinfo) -> str | None:
    """The name under which a zone has a fold; None where it has no name."""
    return "UTC" if time_zone is UTC else getattr(time_zone, "key", None)


def pieces_of(asked: Asked, folds: Sequence[Fold]) -> list[Piece]:
    """The pieces that make up the span, each quarter in one of them."""
    if asked.end_ms <= asked.start_ms:
        return []
    if asked.period == "hour":
        return _by_hour(asked, folds)
    days = {fold.zone: fold for fold in folds if fold.period == "day"}
    fold = days.get(name_of_zone(asked.time_zone) or "")
    if fold is None and asked.period is None:
        # Whose days they are says nothing of a sum.
        fold = days.get("UTC")
    if fold is None:
        return list(quarters_of(asked))
    months = asked.level("month") if asked.period in {None, "month"} else None
    return _of_fold(asked, fold, [level for level in (months, asked.level("day")) if level is not None])


def _by_hour(asked: Asked, folds: Sequence[Fold]) -> list[Piece]:
    hours = {fold.zone: fold for fold in folds if fold.period == "hour"}
    level = asked.level("hour")
    pieces: list[Piece] = []
    for start_ms, end_ms, offset_ms in offset_parts(asked.start_ms, asked.end_ms, asked.time_zone):
        fold = hours.get(str(phase_of(offset_ms)))
        part = msgspec.structs.replace(asked, start_ms=start_ms, end_ms=end_ms)
        pieces += quarters_of(part) if fold is None or level is None else _of_fold(part, fold, [level])
    return pieces


def phase_of(offset_ms: int) -> int:
    """The minutes after a whole hour of UTC at which hours begin where clocks are so far ahead."""
    return -offset_ms % HOUR_MS // MINUTE_MS


def _of_fold(asked: Asked, fold: Fold, levels: Sequence[Level]) -> list[Piece]:
    """What is whole at the first of ``levels``, and on both sides of it what is at the next; the rest in quarters."""
    if asked.end_ms <= asked.start_ms:
        return []
    if not levels:
        return list(quarters_of(asked))
    whole = _whole(asked, fold, levels[0])
    if whole is None:
        return _of_fold(asked, fold, levels[1:])
    before = msgspec.structs.replace(asked, end_ms=whole.span[0])
    after = msgspec.structs.replace(asked, start_ms=whole.span[1])
    return [*_of_fold(before, fold, levels[1:]), whole, *_of_fold(after, fold, levels[1:])]


def _whole(asked: Asked, fold: Fold, level: Level) -> Folded | None:
    """What a fold has at a level of whole units of its own inside of the span, and of one that it has begun."""
    start_of = _starts(fold, level.period)
    first = fold.start_of(level.period, asked.start_ms)
    if start_of(first) < asked.start_ms:
        first += 1
    end = fold.start_of(level.period, asked.end_ms)
    if start_of(end) < asked.end_ms and fold.until_ms <= asked.end_ms:
        # It goes on behind the span, but the fold has nothing of that yet.
        end += 1
    span = (start_of(first), min(fold.until_ms, start_of(end)))
    if end <= first or span[1] <= span[0]:
        return None
    offset_ms = next(offset_parts(asked.start_ms, asked.end_ms, asked.time_zone))[2] if asked.period == "hour" else 0
    return Folded(fold, level, first, end, asked.period, offset_ms, span)


def _starts(fold: Fold, period: str) -> Callable[[int], int]:
    """The first moment of a unit, by its number."""
    if period == "hour":
        return lambda hour: hour * HOUR_MS + int(fold.zone) * MINUTE_MS
    zone = fold.time_zone
    if period == "day":
        return lambda day: start_of_day(day, zone)
    return lambda month: start_of_day(first_day_of_month(month), zone)


def quarters_of(asked: Asked) -> list[Quarters]:
    """The span in quarters alone."""
    if asked.period is None:
        return [Quarters(None, 0, (asked.start_ms, asked.end_ms))]
    parts = offset_parts(asked.start_ms, asked.end_ms, asked.time_zone)
    return [Quarters(asked.period, offset_ms, (begin_ms, until_ms)) for begin_ms, until_ms, offset_ms in parts]
