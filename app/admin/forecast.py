"""What will have been spent, and when a budget is gone, from what was spent before.

A day to come is expected to cost the mean of its weekday over the last four weeks; today the larger of what
it has cost so far and that mean. With less than seven days behind it nothing is said: too early to say.
Amounts are nano-dollars, days are those of one time zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta

import msgspec

DAYS_NEEDED = 7
WEEKS = 4
DAYS_LOOKED_AT = 7 * WEEKS
HORIZON_DAYS = 366
"""How far a budget without an end is looked ahead."""


class Forecast(msgspec.Struct, frozen=True):
    """``days``: today and every day to come, each as a whole; ``total_nanousd``: those and all before."""

    days: dict[date, int]
    total_nanousd: int


class DaySpan(msgspec.Struct, frozen=True):
    """A day and its first and last moment, in milliseconds: 23, 24 or 25 hours."""

    day: date
    start_ms: int
    end_ms: int


def days_from(start: date, end: date) -> Iterator[date]:
    """Every day from ``start`` up to, not including, ``end``."""
    for number in range((end - start).days):
        yield start + timedelta(days=number)


def usual_days(spent: Mapping[date, int], today: date) -> tuple[int, ...] | None:
    """What each weekday costs, Monday first; None where it is too early to say.

    ``spent`` has the days on which something was used; what lies before the first of them says nothing.
    """
    looked_at = [day for day in days_from(today - timedelta(days=DAYS_LOOKED_AT), today) if day in spent]
    if not looked_at or (today - looked_at[0]).days < DAYS_NEEDED:
        return None
    known: list[list[int]] = [[] for _ in range(7)]
    for day in days_from(looked_at[0], today):
        known[day.weekday()].append(spent.get(day, 0))
    return tuple(sum(amounts) // len(amounts) for amounts in known)


def forecast(spent: Mapping[date, int], today: date, start: date, end: date) -> Forecast | None:
    """Of the days from ``start`` up to, not including, ``end``, among which is today; None: too early to say.

    ``spent`` reaches back to the four weeks before today, and to ``start``.
    """
    usual = usual_days(spent, today)
    if usual is None:
        return None
    days = {day: usual[day.weekday()] for day in days_from(today, end)}
    days[today] = max(spent.get(today, 0), days[today])
    before = sum(spent.get(day, 0) for day in days_from(start, today))
    return Forecast(days, before + sum(days.values()))


def gone_at(
    maximum: int, taken: int, expected: Mapping[date, int], so_far: int, days: Iterable[DaySpan], now_ms: int
) -> int | None:
    """The moment at which ``maximum`` will be spent, in milliseconds; None where it lasts.

    ``taken`` is spent by now, ``so_far`` of it today; ``expected`` says of today and the days after it what
    each costs as a whole, evenly over its hours; ``days`` are those, in order.
    """
    left = maximum - taken
    for span in days:
        is_today = span.start_ms <= now_ms < span.end_ms
        begin_ms = now_ms if is_today else span.start_ms
        amount = expected.get(span.day, 0) - (so_far if is_today else 0)
        if amount > 0 and amount >= left:
            return begin_ms + (span.end_ms - begin_ms) * left // amount
        left -= max(amount, 0)
    return None


def went_at(maximum: int, spent: Mapping[date, int], days: Sequence[DaySpan], now_ms: int) -> int | None:
    """The moment at which ``maximum`` was reached, from what each day cost: as exact as an even day."""
    taken = 0
    for span in days:
        amount = spent.get(span.day, 0)
        if amount > 0 and taken + amount >= maximum:
            end_ms = min(span.end_ms, now_ms)
            return span.start_ms + (end_ms - span.start_ms) * max(maximum - taken, 0) // amount
        taken += amount
    return None


def change_percent(now: int, before: int) -> float | None:
    """By how much ``now`` is above (or, negative, below) ``before``; None where there was nothing."""
    return None if before <= 0 else round(100 * (now - before) / before, 1)


def share_percent(part: int, whole: int, digits: int = 2) -> float | None:
    """None of nothing."""
    return None if whole <= 0 else round(100 * part / whole, digits)
