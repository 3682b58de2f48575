"""Hours, days, weeks and months of a time zone, as numbers that sums are grouped by and as people read them.

A day is numbered from 1970-01-01, a week from the Monday before, a month from January of the year 0. A span is cut
where its zone's offset changes; inside each part a local day is whole numbers away from UTC.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING

from app.core.clock import QUARTER_MS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

PERIODS = ("hour", "day", "week", "month")

_FIRST_DAY = date(1970, 1, 1).toordinal()
_FIRST_WEEKDAY = 3
"""1970-01-01 was a Thursday."""


def offset_parts(start_ms: int, end_ms: int, time_zone: tzinfo) -> Iterator[tuple[int, int, int]]:
    """The span from ``start_ms`` to ``end_ms`` in parts of one offset each: start, end, offset."""
    part_ms = at_ms = start_ms
    offset_ms = offset_ms_of(start_ms, time_zone)
    while at_ms < end_ms:
        next_ms = min(at_ms + DAY_MS, end_ms)
        if offset_ms_of(next_ms, time_zone) != offset_ms:
            change_ms = _first_of_other_offset(at_ms, next_ms, offset_ms, time_zone)
            yield part_ms, change_ms, offset_ms
            part_ms = next_ms = change_ms
            offset_ms = offset_ms_of(change_ms, time_zone)
        at_ms = next_ms
    if part_ms < end_ms:
        yield part_ms, end_ms, offset_ms


def _first_of_other_offset(low_ms: int, high_ms: int, offset_ms: int, time_zone: tzinfo) -> int:
    """The first whole quarter in (low, high] with another offset than ``offset_ms``; clocks change on one."""
    low, high = low_ms // QUARTER_MS, -(-high_ms // QUARTER_MS)
    while high - low > 1:
        middle = (low + high) // 2
        if offset_ms_of(middle * QUARTER_MS, time_zone) == offset_ms:
            low = middle
        else:
            high = middle
    return high * QUARTER_MS


def offset_ms_of(at_ms: int, time_zone: tzinfo) -> int:
    """How far the zone's clocks are ahead of UTC at a moment."""
    offset = datetime.fromtimestamp(at_ms / 1000, time_zone).utcoffset() or timedelta()
    return int(offset.total_seconds()) * 1000


def day_of(at_ms: int, time_zone: tzinfo) -> int:
    """The number of the local day that holds a moment."""
    return (at_ms + offset_ms_of(at_ms, time_zone)) // DAY_MS


def start_of_day(day: int, time_zone: tzinfo) -> int:
    """The first moment of a local day; where clocks skip midnight it is the first there is."""
    local = datetime.fromtimestamp(day * DAY_MS / 1000, UTC)
    at_ms = round(local.replace(tzinfo=time_zone).timestamp() * 1000)
    return at_ms - at_ms % QUARTER_MS


def month_of(day: int) -> int:
    """The number of the month that holds a local day."""
    at = date.fromordinal(day + _FIRST_DAY)
    return at.year * 12 + at.month - 1


def first_day_of_month(month: int) -> int:
    return date(month // 12, month % 12 + 1, 1).toordinal() - _FIRST_DAY


def week_of(day: int) -> int:
    """The number of the week, from Monday, that holds a local day."""
    return (day + _FIRST_WEEKDAY) // 7


def day_text(day: int) -> str:
    return date.fromordinal(day + _FIRST_DAY).isoformat()


def month_text(month: int) -> str:
    return f"{month // 12:04}-{month % 12 + 1:02}"


def week_text(week: int) -> str:
    """A week by its Monday, as a date: it sorts, and nobody has to know how weeks are counted."""
    return day_text(week * 7 - _FIRST_WEEKDAY)


def hour_text(hour: int, offset_ms: int) -> str:
    """A local hour, counted from 1970. Hours carry their offset: in autumn one comes twice."""
    local = datetime.fromtimestamp(hour * HOUR_MS / 1000, UTC)
    zoned = local.replace(tzinfo=timezone(timedelta(milliseconds=offset_ms)))
    return zoned.isoformat(timespec="minutes")


def text_of_day(period: str, day: int) -> str:
    """The day, week or month that holds a local day."""
    if period == "day":
        return day_text(day)
    return week_text(week_of(day)) if period == "week" else month_text(month_of(day))
