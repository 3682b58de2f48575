"""What a query string asks for: a span of time, a zone, groups, filters, an order.

Read strictly: a parameter that is not known, one that is given twice, or a value that means nothing is a
400 that names it. A report that quietly left out a filter would show somebody else's money.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Literal, TypeVar, get_args
from zoneinfo import ZoneInfo

import msgspec

from app.core.calendar import window_of, zone_of
from app.core.clock import QUARTER_MS, quarter_of
from app.core.errors import InvalidRequest, quoted
from app.store.usage import MEMBERS, PERIODS, UsageFilter

RangeName = Literal[
    "today", "yesterday", "last_24_hours", "last_7_days", "last_30_days", "this_month", "last_month", "this_year"
]

RANGES: tuple[RangeName, ...] = get_args(RangeName)
DAY_MS = 24 * 3_600_000
TEXT_CHARS_MAX = 256
CURSOR_CHARS_MAX = 4096
VALUES_MAX = 100
YEARS = range(1970, 3000)
NOBODY = ""
"""No team and no key has this id."""

_TAG_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?\Z", re.ASCII)

T = TypeVar("T", bound=str)


class Span(msgspec.Struct, frozen=True):
    """From ``start_ms`` up to, not including, ``end_ms``, both milliseconds since 1970 UTC; days, weeks and
    months inside of it are those of ``time_zone``.
    """

    start_ms: int
    end_ms: int
    time_zone: str = "UTC"

    @property
    def zone(self) -> ZoneInfo:
        return zone_of(self.time_zone)

    @property
    def quarters(self) -> Span:
        """The whole quarters of an hour that hold it: sums are kept by those."""
        end_ms = quarter_of(self.end_ms + QUARTER_MS - 1)
        return msgspec.structs.replace(self, start_ms=quarter_of(self.start_ms), end_ms=end_ms)


class Asked:
    """The parameters of one request, each taken once; ``finish`` refuses what nobody took."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        """``pairs``: names and values, decoded. Raises InvalidRequest where a name stands twice."""
        self._values: dict[str, str] = {}
        for name, value in pairs:
            if name in self._values:
                raise InvalidRequest(f"{quoted(name)} is given twice.", param=quoted(name))
            self._values[name] = value

    def __repr__(self) -> str:
        return f"Asked(left={len(self._values)})"

    def text(self, name: str, chars_max: int = TEXT_CHARS_MAX) -> str | None:
        """A value as it is, not empty; None where it is not given."""
        value = self._values.pop(name, None)
        return None if value is None else _checked(name, value, chars_max)

    def cursor(self) -> str | None:
        """``next`` of the page before."""
        return self.text("cursor", CURSOR_CHARS_MAX)

    def choice(self, name: str, choices: Sequence[T], default: T) -> T:
        value = self._values.pop(name, None)
        return default if value is None else _one_of(name, value, choices)

    def number(self, name: str, default: int, *, at_least: int, at_most: int) -> int:
        value = self._values.pop(name, None)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) <= len(str(at_most))):
            raise InvalidRequest(f"{name} is a whole number from {at_least} to {at_most}.", param=name)
        if not at_least <= int(value) <= at_most:
            raise InvalidRequest(f"{name} is from {at_least} to {at_most}.", param=name)
        return int(value)

    def values(self, name: str) -> tuple[str, ...]:
        """What is given with commas in between; nothing where it is not given."""
        value = self._values.pop(name, None)
        return () if value is None else _listed(name, value)

    def tagged(self, prefix: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Every parameter that is ``prefix`` and a tag's name: (name, values). "" are requests without the tag."""
        found = []
        for name in [name for name in self._values if name.startswith(prefix)]:
            tag = name.removeprefix(prefix)
            if _TAG_NAME.match(tag) is None:
                raise InvalidRequest(f"{quoted(name)} does not name a tag.", param=quoted(name))
            value = self._values.pop(name)
            found.append((tag, _listed(name, value, may_be_empty=True)))
        return tuple(sorted(found))

    def skip(self, names: Iterable[str]) -> None:
        """What somebody else reads."""
        for name in names:
            self._values.pop(name, None)

    def finish(self) -> None:
        """Raises InvalidRequest where something is left."""
        for name in self._values:
            raise InvalidRequest(f"There is no parameter {quoted(name)} here.", param=quoted(name))


# -- time -------------------------------------------------------------------------------------


def zone_asked(asked: Asked) -> str:
    """``tz``: the name of a zone, UTC where none is given."""
    name = asked.text("tz") or "UTC"
    try:
        zone_of(name)
    except ValueError as error:
        raise InvalidRequest("tz is the name of a time zone, such as Europe/Berlin.", param="tz") from error
    return name


def span_asked(asked: Asked, now_ms: int, default: RangeName | None, *, since_ever: bool = False) -> Span | None:
    """``range``, or ``from`` and ``to``, in ``tz``; the ``default`` where none of them is given. ``since_ever``: ``to``
    may come alone.

    Raises InvalidRequest.
    """
    time_zone = zone_asked(asked)
    since, until, name = asked.text("from"), asked.text("to"), asked.text("range")
    if since is None and until is None:
        if name is None:
            return None if default is None else named_span(default, time_zone, now_ms)
        return named_span(_one_of("range", name, RANGES), time_zone, now_ms)
    if name is not None:
        raise InvalidRequest("Give either range, or from and to.", param="range")
    if since is None and not since_ever:
        raise InvalidRequest("to needs a from.", param="from")
    start_ms = 0 if since is None else _moment("from", since, time_zone, is_end=False)
    end_ms = _now_end(now_ms) if until is None else _moment("to", until, time_zone, is_end=True)
    if start_ms >= end_ms:
        raise InvalidRequest("from is before to.", param="from" if until is None else "to")
    return Span(start_ms, end_ms, time_zone)


def named_span(name: RangeName, time_zone: str, now_ms: int) -> Span:
    """A range by its name; what reaches up to now ends with the quarter of an hour that runs."""
    end_ms = _now_end(now_ms)
    zone = zone_of(time_zone)
    today = day_of(now_ms, zone)
    day_start_ms, _ = window_of("day", time_zone, now_ms)
    month_start_ms, _ = window_of("month", time_zone, now_ms)
    spans: dict[RangeName, tuple[int, int]] = {
        "today": (day_start_ms, end_ms),
        "yesterday": (start_of(today - timedelta(days=1), zone), day_start_ms),
        "last_24_hours": (end_ms - DAY_MS, end_ms),
        "last_7_days": (start_of(today - timedelta(days=6), zone), end_ms),
        "last_30_days": (start_of(today - timedelta(days=29), zone), end_ms),
        "this_month": (month_start_ms, end_ms),
        "last_month": (window_of("month", time_zone, month_start_ms - 1)[0], month_start_ms),
        "this_year": (start_of(date(today.year, 1, 1), zone), end_ms),
    }
    return Span(*spans[name], time_zone)


def day_of(at_ms: int, zone: ZoneInfo) -> date:
    """The day in the zone that holds a moment."""
    return datetime.fromtimestamp(at_ms / 1000, zone).date()


def start_of(day: date, zone: ZoneInfo) -> int:
    """The first millisecond of a zone's day."""
    return round(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)


def _now_end(now_ms: int) -> int:
    return quarter_of(now_ms) + QUARTER_MS


def _moment(param: str, text: str, time_zone: str, *, is_end: bool) -> int:
    """A date is the whole day of the zone; a time without an offset is the zone's."""
    zone = zone_of(time_zone)
    try:
        if _DATE.match(text) is not None:
            day = date.fromisoformat(text) + timedelta(days=1 if is_end else 0)
            if day.year in YEARS:
                return start_of(day, zone)
        elif _TIME.match(text) is not None:
            at = datetime.fromisoformat(text)
            at = at.replace(tzinfo=zone) if at.tzinfo is None else at
            if at.year in YEARS:
                return round(at.timestamp() * 1000)
    except (ValueError, OverflowError):
        # The thirtieth of February, hour 25: it is told below.
        pass
    raise InvalidRequest(
        f"{param} is a date (2026-11-24) or a time (2026-11-24T15:40:00Z; a + is written %2B).", param=param
    )


# -- groups, filters, order -------------------------------------------------------------------


def groups_asked(asked: Asked) -> tuple[str, ...]:
    """``by``: dimensions in the order given, each once, at most one of them a period."""
    groups = asked.values("by")
    for group in groups:
        is_tag = group.startswith("tag.") and _TAG_NAME.match(group.removeprefix("tag.")) is not None
        if not is_tag and group not in {*MEMBERS, *PERIODS}:
            known = ", ".join((*MEMBERS, "tag.NAME", *PERIODS))
            raise InvalidRequest(f"by is made of {known}; {quoted(group)} is none of them.", param="by")
    if len(set(groups)) < len(groups):
        raise InvalidRequest("by names a dimension twice.", param="by")
    if len([group for group in groups if group in PERIODS]) > 1:
        raise InvalidRequest(f"by has at most one of {', '.join(PERIODS)}.", param="by")
    if len([group for group in groups if group.startswith("tag.")]) > 1:
        raise InvalidRequest("by has at most one tag.", param="by")
    return groups


def shown_asked(asked: Asked) -> str:
    """``show``: the dimension that columns are made of."""
    show = asked.text("show") or "team"
    is_tag = show.startswith("tag.") and _TAG_NAME.match(show.removeprefix("tag.")) is not None
    if not is_tag and show not in {"team", "model", "key"}:
        raise InvalidRequest("show is one of team, model, key, tag.NAME.", param="show")
    return show


def filter_asked(asked: Asked) -> UsageFilter:
    """``team``, ``key``, ``model``, ``upstream``, ``tag.NAME``, and each of them behind ``not.``"""
    return UsageFilter(
        team_ids=asked.values("team"),
        key_ids=asked.values("key"),
        models=asked.values("model"),
        upstreams=asked.values("upstream"),
        not_team_ids=asked.values("not.team"),
        not_key_ids=asked.values("not.key"),
        not_models=asked.values("not.model"),
        not_upstreams=asked.values("not.upstream"),
        tags=asked.tagged("tag."),
        not_tags=asked.tagged("not.tag."),
    )


def of_team(only: UsageFilter, team_id: str | None) -> UsageFilter:
    """``only``, and only of this team; None is anybody's."""
    if team_id is None:
        return only
    mine = team_id if team_id in (only.team_ids or (team_id,)) else NOBODY
    return msgspec.structs.replace(only, team_ids=(mine,))


class Order(msgspec.Struct, frozen=True):
    """By which column, and whether from the largest on."""

    column: str
    is_falling: bool


def order_asked(asked: Asked, columns: Collection[str]) -> Order | None:
    """``sort``: a column, with a minus before it from the largest on."""
    text = asked.text("sort")
    if text is None:
        return None
    column = text.removeprefix("-")
    if column not in columns:
        raise InvalidRequest(f"sort is one of {', '.join(columns)}, or one with a minus before it.", param="sort")
    return Order(column, text != column)


# -- texts ------------------------------------------------------------------------------------


def _one_of(name: str, value: str, choices: Sequence[T]) -> T:
    for choice in choices:
        if choice == value:
            return choice
    raise InvalidRequest(f"{name} is one of {', '.join(choices)}.", param=name)


def _listed(name: str, value: str, *, may_be_empty: bool = False) -> tuple[str, ...]:
    values = tuple("" if may_be_empty and not part else _checked(name, part) for part in value.split(","))
    if len(values) > VALUES_MAX:
        raise InvalidRequest(f"{quoted(name)} has more than {VALUES_MAX} values.", param=quoted(name))
    return values


def _checked(name: str, value: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    if not value:
        raise InvalidRequest(f"{quoted(name)} is empty.", param=quoted(name))
    if len(value) > chars_max or not value.isprintable():
        raise InvalidRequest(f"{quoted(name)} is up to {chars_max} printable characters each.", param=quoted(name))
    return value
