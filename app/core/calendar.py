"""Windows of the calendar, in which budgets of money count: days, weeks from Monday and months of a time zone."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

CalendarWindow = Literal["day", "week", "month", "total"]

FOREVER_MS = 2**53
"""The end of a window that never ends: still exact in the doubles of Lua."""

_DAYS_OF_WEEK = 7


def window_of(window: CalendarWindow, time_zone: str, at_ms: int) -> tuple[int, int]:
    """The window that holds the moment ``at_ms``: its first millisecond, and that of the next one.

    A day on which clocks change is 23 or 25 hours long. Raises ValueError for an unknown time zone.
    """
    if window == "total":
        return 0, FOREVER_MS
    # Kept, since zone arithmetic costs more than all else that a limit does.
    return _window_of_quarter(window, time_zone, at_ms // 900_000)


@lru_cache(maxsize=1024)
def _window_of_quarter(window: CalendarWindow, time_zone: str, quarter: int) -> tuple[int, int]:
    """Every zone's windows begin on a quarter of an hour of UTC, so all its moments share one window."""
    zone = zone_of(time_zone)
    local = datetime.fromtimestamp(quarter * 900, zone)
    first = datetime(local.year, local.month, local.day, tzinfo=zone)
    if window == "day":
        end = _midnight(first + timedelta(days=1), zone)
    elif window == "week":
        first = _midnight(first - timedelta(days=first.weekday()), zone)
        end = _midnight(first + timedelta(days=_DAYS_OF_WEEK), zone)
    else:
        first = first.replace(day=1)
        end = _midnight((first + timedelta(days=32)).replace(day=1), zone)
    return _ms(first), _ms(end)


def _midnight(moment: datetime, zone: ZoneInfo) -> datetime:
    return datetime(moment.year, moment.month, moment.day, tzinfo=zone)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


@lru_cache(maxsize=256)
def zone_of(time_zone: str) -> ZoneInfo:
    """Raises ValueError where there is no such zone."""
    try:
        return ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, OSError, ValueError) as error:
        raise ValueError(f"there is no time zone {time_zone!r}") from error
