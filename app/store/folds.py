"""Folds: the rollups summed up further, by days and months of a time zone and by hours, so that a year is few rows.

A fold has in ``sums`` all that quarters before its ``until_ms`` hold, and nothing of later ones: these are read from
``rollups``. So every total is the same whatever has been folded yet, and a batch costs no more for it. What comes
late, for a quarter that was folded, is added to the sums in the transaction that writes it.
"""

from __future__ import annotations

from datetime import UTC, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from app.core.calendar import zone_of
from app.store import statements
from app.store.flatten import Row, rollup_rows, tagged_rows
from app.store.periods import DAY_MS, HOUR_MS, day_of, month_of
from app.store.steps import Ask, Steps
from app.store.tables import ROLLUP_KEY
from app.store.tag_values import Registry, register

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from app.core.records import Entry, Record
    from app.store.flatten import Adjust

TEAM = ("team_id",)
KEY = ("team_id", "key_id")
MODEL = ("team_id", "model", "upstream")
ALL = ("team_id", "key_id", "model", "upstream")

_KEY_COLUMNS = len(ROLLUP_KEY)
_tags_from = msgspec.json.Decoder(dict[str, str]).decode


class Level(msgspec.Struct, frozen=True):
    """One way of summing: by ``period``, keeping ``columns``; ``by_tag``: sums by tag are kept so too."""

    number: int
    period: str
    columns: tuple[str, ...]
    by_tag: bool = False


LEVELS = (
    Level(11, "hour", TEAM),
    Level(12, "hour", MODEL),
    Level(21, "day", TEAM, by_tag=True),
    Level(22, "day", KEY, by_tag=True),
    Level(23, "day", MODEL, by_tag=True),
    Level(24, "day", ALL),
    Level(32, "month", KEY, by_tag=True),
    Level(33, "month", MODEL, by_tag=True),
    Level(34, "month", ALL),
)
"""From the coarsest to the finest of each period."""

PERIODS_OF = {"hour": ("hour",), "day": ("day", "month")}


class Fold(msgspec.Struct, frozen=True):
    """``period`` is day or hour; ``zone`` a time zone, or of hours the minutes after a whole hour of UTC."""

    id: int
    period: str
    zone: str
    until_ms: int
    tags_from_ms: int

    @property
    def levels(self) -> list[Level]:
        return [level for level in LEVELS if level.period in PERIODS_OF[self.period]]

    @property
    def time_zone(self) -> tzinfo:
        return UTC if self.zone == "UTC" else zone_of(self.zone)

    def start_of(self, period: str, at_ms: int) -> int:
        """The number of the hour, day or month that holds a moment."""
        if period == "hour":
            return (at_ms - int(self.zone) * 60_000) // HOUR_MS
        day = _day_of(self.zone, at_ms)
        return day if period == "day" else month_of(day)


@lru_cache(maxsize=4096)
def _day_of(zone: str, quarter_ms: int) -> int:
    return day_of(quarter_ms, UTC if zone == "UTC" else zone_of(zone))


def add_sums(
    records: Sequence[Record], entries: Sequence[tuple[Record, Entry]], adjusts: Sequence[Adjust]
) -> Steps[None]:
    """Adds what is new of the bill to the rollups, and to the sums of the folds that have their quarters."""
    rows = rollup_rows(records, entries, adjusts)
    if not rows:
        return
    # Before the rollups: whoever holds the folds waits for nobody who may be waiting for them.
    folds = yield from _hold_folds()
    yield Ask(statements.ROLLUPS, rows)
    late = [(fold, [row for row in rows if _quarter(row) < fold.until_ms]) for fold in folds]
    late = [(fold, its) for fold, its in late if its]
    if not late:
        return
    sums: dict[tuple[str | int | None, ...], list[int]] = {}
    for fold, its in late:
        for level in fold.levels:
            _add(sums, fold, level, [("", "", row) for row in its])
    by_tag = [fold for fold, _ in late if any(level.by_tag for level in fold.levels)]
    if by_tag:
        until_ms = max(fold.until_ms for fold in by_tag)
        tags = yield from _tags_of(
            [record for record in records if record.quarter_ms < until_ms],
            {record.request_id for record, _ in entries if record.quarter_ms < until_ms}
            | {adjust.request_id for adjust in adjusts if adjust.quarter_ms < until_ms},
        )
        tagged = tagged_rows(records, entries, adjusts, tags)
        if tagged:
            wanted = {(month_of_utc(_quarter(row)), name, value) for name, value, row in tagged}
            registry = yield from register(wanted)
            for fold in by_tag:
                kept = _kept(tagged, registry, fold)
                for level in fold.levels:
                    if level.by_tag:
                        _add(sums, fold, level, kept)
    yield Ask(statements.SUMS, [(*key, *sums[key]) for key in sorted(sums)])


def _hold_folds() -> Steps[list[Fold]]:
    """The folds as they are; until the transaction ends none of them takes in more, and no new one is made."""
    return [Fold(*row) for row in (yield Ask(statements.FOLDS_HELD, [()]))]


def _tags_of(records: Sequence[Record], request_ids: set[str]) -> Steps[dict[str, dict[str, str]]]:
    """The tags of requests as their rows have them: of ``records``, which are new, and of others by id."""
    tags = {record.request_id: record.tags for record in records}
    others = sorted((request_id,) for request_id in request_ids - tags.keys())
    if others:
        for request_id, text in (yield Ask(statements.TAGS_OF_RECORDS, others)):
            tags[request_id] = _tags_from(text)
    return tags


def month_of_utc(at_ms: int) -> int:
    return month_of(at_ms // DAY_MS)


def _quarter(row: Row) -> int:
    return row[0]  # type: ignore[return-value] # the first of a rollup's columns


def _kept(tagged: Iterable[tuple[str, str, Row]], registry: Registry, fold: Fold) -> list[tuple[str, str, Row]]:
    """What a fold has to have of rows with a tag, by the values that have sums of their own."""
    kept = []
    for name, value, row in tagged:
        if fold.tags_from_ms <= _quarter(row) < fold.until_ms:
            told = registry.value_of(month_of_utc(_quarter(row)), name, value)
            if told is not None:
                kept.append((name, told, row))
    return kept


def _add(
    sums: dict[tuple[str | int | None, ...], list[int]],
    fold: Fold,
    level: Level,
    rows: Iterable[tuple[str, str, Row]],
) -> None:
    number, keeps = level.number, [name in level.columns for name in ALL]
    for tag, value, row in rows:
        start = fold.start_of(level.period, _quarter(row))
        whose = [each if kept else "" for each, kept in zip(row[1:_KEY_COLUMNS], keeps, strict=True)]
        key = (fold.id, number, tag, start, value, *whose)
        there = sums.get(key)
        if there is None:
            sums[key] = list(row[_KEY_COLUMNS:])  # type: ignore[arg-type] # all but the key are numbers
        else:
            for position, each in enumerate(row[_KEY_COLUMNS:]):
                there[position] += each  # type: ignore[operator] # the same
