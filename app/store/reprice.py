"""Prices what had no price when it was written, by entries of kind ``adjust``: nothing is written over.

The cost of an attempt becomes that of all the units that its entries add up to. What is priced stays as it
is, whatever prices say by now. It is safe beside running gateways and beside itself: a correction has one key.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from sqlalchemy import select, tuple_

from app.core.clock import quarter_of
from app.core.records import BudgetWindow, Entry
from app.core.usage import NOTHING_USED, Usage
from app.store import statements
from app.store.budgets import Posting, count_money
from app.store.flatten import Adjust, entry_row
from app.store.folds import add_sums
from app.store.posting import EXACT, is_unpriced
from app.store.steps import Ask, Steps, run_on
from app.store.tables import entries, records

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.store.database import Database

REPRICE = "reprice"
BATCH_ATTEMPTS = 500
PAUSE_MIN_S = 0.02
MODELS_TOLD_MAX = 100

_COLUMNS = tuple(column.name for column in entries.columns)
_windows_of = msgspec.json.Decoder(tuple[BudgetWindow, ...]).decode


class Unpriced(msgspec.Struct, frozen=True):
    """An attempt, with all by which its price is found."""

    upstream: str
    model: str
    model_served: str | None
    service_tier: str | None
    admitted_at_ms: int
    usage: Usage


class Found(msgspec.Struct, frozen=True):
    """What an attempt costs, and where its price comes from."""

    cost_nanousd: int
    price_source: str
    price_version: str


PriceOf: TypeAlias = Callable[[Unpriced], Found | None]
"""The price of an attempt, or None: it stays unpriced."""


class Repriced(msgspec.Struct, frozen=True):
    """How many attempts were priced, and the money of it; of those that have no price still, how many by model."""

    attempts: int
    cost_nanousd: int
    unpriced: int
    unpriced_models: dict[str, int]


class _Candidate(msgspec.Struct, frozen=True):
    attempt_id: str
    quarter_ms: int
    request_id: str
    admitted_at_ms: int
    attempts: int
    model_served: str | None
    windows: tuple[BudgetWindow, ...]


class _Correction(msgspec.Struct, frozen=True):
    adjust: Adjust
    windows: tuple[BudgetWindow, ...]


async def reprice(
    database: Database,
    price_of: PriceOf,
    start_ms: int,
    end_ms: int,
    now_ms: int,
    *,
    matches: Callable[[str], bool] = lambda _model: True,
    dry_run: bool = False,
) -> Repriced:
    """Prices attempts of requests admitted from ``start_ms`` up to, not including, ``end_ms``, whose model
    (asked of the upstream, or served) ``matches``. Run again it changes nothing. ``dry_run``: nothing is written,
    and what would be is told. Raises DatabaseUnavailable.
    """
    attempts = cost_nanousd = unpriced = 0
    models: Counter[str] = Counter()
    after = (quarter_of(start_ms), "")
    while True:
        # Found by reading, since that may take long where nearly all have a price.
        async with database.read() as connection:
            candidates = await _candidates(connection, after, start_ms, end_ms)
        if not candidates:
            break
        begun_s = time.monotonic()
        async with database.read() if dry_run else database.transaction() as connection:
            batch = _batch(candidates, price_of, matches, now_ms, dry_run=dry_run)
            written, without = await run_on(connection, batch)
        attempts += len(written)
        cost_nanousd += sum(each.cost_nanousd or 0 for each in written)
        unpriced += len(without)
        models.update(without)
        after = (candidates[-1].quarter_ms, candidates[-1].attempt_id)
        # SQLite has no queue for its writers: one that never pauses would keep the others out.
        await asyncio.sleep(max(time.monotonic() - begun_s, PAUSE_MIN_S))
    return Repriced(attempts, cost_nanousd, unpriced, dict(models.most_common(MODELS_TOLD_MAX)))


async def _candidates(
    connection: AsyncConnection, after: tuple[int, str], start_ms: int, end_ms: int
) -> list[_Candidate]:
    """The next attempts with an entry that has no price, by quarter and id."""
    asked = (
        select(
            entries.c.attempt_id,
            entries.c.quarter_ms,
            records.c.request_id,
            records.c.admitted_at_ms,
            records.c.attempts,
            records.c.model_served,
            records.c.budgets,
        )
        .distinct()
        .join(records, records.c.request_id == entries.c.request_id)
        .where(
            entries.c.cost_nanousd.is_(None),
            tuple_(entries.c.quarter_ms, entries.c.attempt_id) > tuple_(*after),
            entries.c.quarter_ms >= after[0],
            records.c.admitted_at_ms >= start_ms,
            records.c.admitted_at_ms < end_ms,
        )
        .order_by(entries.c.quarter_ms, entries.c.attempt_id)
        .limit(BATCH_ATTEMPTS)
    )
    return [_Candidate(*row[:-1], _windows_of(row[-1])) for row in await connection.execute(asked)]


def _batch(
    candidates: Sequence[_Candidate],
    price_of: PriceOf,
    matches: Callable[[str], bool],
    now_ms: int,
    *,
    dry_run: bool,
) -> Steps[tuple[list[Entry], list[str]]]:
    """Writes what can be priced of ``candidates``; returns the new entries, and the model of each attempt that
    has no price still.
    """
    attempt_ids = [(attempt_id,) for attempt_id in sorted(each.attempt_id for each in candidates)]
    # Locked first and read then, as every correction of an estimate is: its units change with it.
    if not dry_run:
        yield Ask(statements.ESTIMATES_LOCKED, attempt_ids)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in (yield Ask(statements.ENTRIES_OF_ATTEMPTS, attempt_ids)):
        values = dict(zip(_COLUMNS, row, strict=True))
        rows[values["attempt_id"]].append(values)
    corrections: dict[str, _Correction] = {}
    without: list[str] = []
    for candidate in candidates:
        asked = _asked(candidate, rows[candidate.attempt_id])
        if asked is None or not (matches(asked.model) or matches(asked.model_served or "")):
            continue
        found = price_of(asked)
        if found is not None:
            adjust = _adjust(rows[candidate.attempt_id], asked, found, now_ms)
            corrections[candidate.attempt_id] = _Correction(adjust, candidate.windows)
        elif is_unpriced(rows[candidate.attempt_id]):
            without.append(asked.model_served or asked.model)
    if not corrections:
        return [], without
    adjusts = [corrections[attempt_id].adjust for attempt_id in sorted(corrections)]
    if dry_run:
        return [adjust.entry for adjust in adjusts], without
    inserted = yield Ask(statements.ENTRIES, [entry_row(adjust, adjust.entry) for adjust in adjusts])
    new = {row[0] for row in inserted}
    adjusts = [adjust for adjust in adjusts if adjust.entry.attempt_id in new]
    if adjusts:
        yield from add_sums((), (), adjusts)
        postings = [
            Posting(adjust, corrections[adjust.entry.attempt_id].windows, adjust.entry.cost_nanousd or 0)
            for adjust in adjusts
        ]
        yield from count_money({}, [each for each in postings if each.nanousd])
    return [adjust.entry for adjust in adjusts], without


def _asked(candidate: _Candidate, rows: Sequence[Mapping[str, Any]]) -> Unpriced | None:
    """What has to be priced; None where the attempt's newest knowledge has a price, or was given one."""
    known = _newest(rows)
    if known["cost_nanousd"] is not None:
        return None
    if any(row["reason"] == REPRICE and row["number"] == _number(rows) for row in rows):
        return None
    # What the answer named is known of the last attempt only; those before it were void.
    is_last = candidate.attempt_id.rpartition(".")[2] == str(candidate.attempts)
    return Unpriced(
        upstream=known["upstream"],
        model=known["model"],
        model_served=candidate.model_served if is_last else None,
        service_tier=known["service_tier"],
        admitted_at_ms=candidate.admitted_at_ms,
        usage=_used(rows),
    )


def _newest(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The exact outcome, where there is a correction to it, else the primary entry."""
    return next((row for row in rows if row["reason"] == EXACT), next(row for row in rows if row["kind"] != "adjust"))


def _number(rows: Sequence[Mapping[str, Any]]) -> int:
    """The number of the correction: one for each entry without a price, so that an exact outcome that comes
    after a correction, and without a price, is corrected once more, and nothing is corrected twice.
    """
    return sum(row["cost_nanousd"] is None for row in rows) - 1


def _used(rows: Sequence[Mapping[str, Any]]) -> Usage:
    used = NOTHING_USED
    for row in rows:
        used = used.plus(Usage(*(row[name] for name in Usage.__struct_fields__)))
    return used


def _adjust(rows: Sequence[Mapping[str, Any]], asked: Unpriced, found: Found, now_ms: int) -> Adjust:
    primary = next(row for row in rows if row["kind"] != "adjust")

    def missing(name: str) -> int:
        """What lacks of the cost in the sum of ``name``; an exact cost counts as its own bounds."""
        sums = (row["cost_nanousd"] if row[name] is None else row[name] for row in rows)
        return found.cost_nanousd - sum(each or 0 for each in sums)

    entry = Entry(
        attempt_id=primary["attempt_id"],
        kind="adjust",
        upstream=primary["upstream"],
        model=primary["model"],
        cost_nanousd=missing("cost_nanousd"),
        cost_lower_nanousd=missing("cost_lower_nanousd"),
        cost_upper_nanousd=missing("cost_upper_nanousd"),
        price_source=found.price_source,
        price_version=found.price_version,
        service_tier=asked.service_tier,
        reason=REPRICE,
        number=_number(rows),
    )
    return Adjust(
        request_id=primary["request_id"],
        team_id=primary["team_id"],
        key_id=primary["key_id"],
        quarter_ms=primary["quarter_ms"],
        ended_at_ms=now_ms,
        entry=entry,
        unpriced=-is_unpriced(rows),
        estimated_nanousd=(entry.cost_nanousd or 0) if _newest(rows)["kind"] == "estimate" else 0,
    )
