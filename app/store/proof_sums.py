"""The proof that sums by day, month, hour and tag are those of the bill: plain ones of the rollups, those by tag of
the records, as far as these are there still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import func, select

from app.store.fold_statements import summed, summed_tagged
from app.store.folding import end_of_piece, list_folds, piece_parameters
from app.store.folds import Fold, Level
from app.store.meta import PRUNED_FACT, find_fact
from app.store.tables import ROLLUP_SUMS, SUMS_KEY, rollups, sums

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

_KEY_COLUMNS = len(SUMS_KEY)
_START = SUMS_KEY.index("start")


class SumDifference(msgspec.Struct, frozen=True):
    """A sum that is not that of its rows: what it has too much (or, negative, too little). ``start`` is the number of
    an hour, a day or a month of ``zone``.
    """

    period: str
    zone: str
    start: int
    tag: str
    value: str
    team_id: str
    key_id: str
    model: str
    upstream: str
    excess: dict[str, int]


async def different_sums(connection: AsyncConnection, most: int) -> tuple[int, list[SumDifference]]:
    """How many sums are not those of their rows, and the first ``most`` of them. To be asked in one snapshot."""
    pruned_ms = int(await find_fact(connection, PRUNED_FACT) or 0)
    first_ms = (await connection.execute(select(func.min(rollups.c.quarter_ms)))).scalar()
    total = 0
    told: list[SumDifference] = []
    for fold in await list_folds(connection):
        pieces = [] if first_ms is None else _pieces(fold, first_ms)
        for level in fold.levels:
            looks = [_Look(fold, level, by_tag=False, known_ms=0)]
            if level.by_tag:
                looks.append(_Look(fold, level, by_tag=True, known_ms=max(pruned_ms, fold.tags_from_ms)))
            for look in looks:
                async for difference in look.differences(connection, pieces):
                    total += 1
                    if len(told) < most:
                        told.append(difference)
    return total, told


def _pieces(fold: Fold, first_ms: int) -> list[tuple[int, int]]:
    pieces = []
    while first_ms < fold.until_ms:
        end_ms = min(end_of_piece(fold, first_ms), fold.until_ms)
        pieces.append((first_ms, end_ms))
        first_ms = end_ms
    return pieces


class _Look(msgspec.Struct, frozen=True):
    """One level of one fold: all of its sums without a tag, or all by tag from the first unit behind ``known_ms``."""

    fold: Fold
    level: Level
    by_tag: bool
    known_ms: int

    async def differences(self, connection: AsyncConnection, pieces: Iterable[tuple[int, int]]) -> Any:
        """A piece after the other: what lies before the unit in which a piece begins is complete."""
        fold, level = self.fold, self.level
        asked = (summed_tagged if self.by_tag else summed)(connection.dialect.name, level)
        wanted: dict[tuple[Any, ...], list[int]] = {}
        first = fold.start_of(level.period, self.known_ms) + 1 if self.known_ms else 0
        looked_at = first
        for start_ms, end_ms in pieces:
            if end_ms <= self.known_ms:
                continue
            unit = fold.start_of(level.period, start_ms)
            if unit > looked_at:
                async for difference in self._compared(connection, wanted, looked_at, unit):
                    yield difference
                looked_at = unit
            given = piece_parameters(fold, max(start_ms, self.known_ms), end_ms)
            for row in await connection.execute(asked, given):
                key = tuple(row[:_KEY_COLUMNS])
                if key[_START] >= first:
                    kept = wanted.setdefault(key, [0] * len(ROLLUP_SUMS))
                    for position, value in enumerate(row[_KEY_COLUMNS:]):
                        kept[position] += value
        async for difference in self._compared(connection, wanted, looked_at, None):
            yield difference

    async def _compared(
        self, connection: AsyncConnection, wanted: dict[tuple[Any, ...], list[int]], first: int, end: int | None
    ) -> Any:
        """Sums of units from ``first`` up to, not including, ``end``; takes what it has looked at out of ``wanted``."""
        there = sums.c
        asked = select(*[there[name] for name in (*SUMS_KEY, *ROLLUP_SUMS)]).where(
            there.fold == self.fold.id,
            there.level == self.level.number,
            (there.tag != "") if self.by_tag else (there.tag == ""),
            there.start >= first,
        )
        if end is not None:
            asked = asked.where(there.start < end)
        for row in await connection.execute(asked):
            expected = wanted.pop(tuple(row[:_KEY_COLUMNS]), [0] * len(ROLLUP_SUMS))
            excess = [value - other for value, other in zip(row[_KEY_COLUMNS:], expected, strict=True)]
            if any(excess):
                yield self._difference(tuple(row[:_KEY_COLUMNS]), excess)
        for key in [key for key in wanted if end is None or key[_START] < end]:
            missing = [-value for value in wanted.pop(key)]
            if any(missing):
                yield self._difference(key, missing)

    def _difference(self, key: tuple[Any, ...], excess: list[int]) -> SumDifference:
        place = dict(zip(SUMS_KEY, key, strict=True))
        del place["fold"], place["level"]
        named = dict(zip(ROLLUP_SUMS, excess, strict=True))
        return SumDifference(
            period=self.level.period,
            zone=self.fold.zone,
            **place,
            excess={name: value for name, value in named.items() if value},
        )
