"""What follows on new records and entries, in one order: corrections, ranks, rollups, budgets, objects.

An attempt's primary entry is whatever was written first. Where that was an ``estimate`` and now its exact
outcome is known, the outcome goes in as one correction: the difference to all that the attempt has by then.

An attempt has no price while its newest exact knowledge has none, unless it was repriced. Where an estimate had
a price and the exact outcome has none, the money of the estimate stays, and the attempt counts as unpriced.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from app.core.records import BudgetWindow, Entry
from app.core.usage import NOTHING_USED, Usage
from app.store import statements
from app.store.budgets import Posting, count_money
from app.store.flatten import Adjust, Row, awaited_row, entry_row, last_uses
from app.store.folds import add_sums
from app.store.steps import Ask, Steps
from app.store.tables import entries
from app.store.timings import timing_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.core.records import Record

EXACT_KINDS = frozenset({"charge", "void"})
EXACT = "exact"

RANK_EXACT = 2
RANK_ESTIMATE = 1

_COLUMNS = tuple(column.name for column in entries.columns)
_UNITS = Usage.__struct_fields__
_windows_of = msgspec.json.Decoder(tuple[BudgetWindow, ...]).decode


class Written(msgspec.Struct, frozen=True):
    """What is in SQL as of one commit.

    ``ranks``: of every record given, 2 where the exact outcome of each attempt is known, else 1. ``budgets``:
    of every window that one of them names, what was spent and the version of that. ``poisoned``: requests
    whose record the database will never take; they have no rank.
    """

    new_records: int
    ranks: dict[str, int]
    budgets: dict[BudgetWindow, tuple[int, int]]
    poisoned: tuple[str, ...] = ()


class Given(msgspec.Struct, frozen=True):
    """A batch after its insertion: all of its records and entries, which of them are new, its objects' rows."""

    records: Sequence[Record]
    entries: Sequence[tuple[Record, Entry]]
    new_records: Sequence[Record]
    new_entries: Sequence[tuple[Record, Entry]]
    object_rows: Sequence[Row]

    @property
    def all_new(self) -> bool:
        return len(self.new_records) == len(self.records) and len(self.new_entries) == len(self.entries)


def post(given: Given) -> Steps[Written]:
    """Writes all that follows from ``given``."""
    adjusts: list[tuple[Record, Adjust]] = []
    if given.all_new:
        estimated = {record.request_id for record, entry in given.entries if entry.kind == "estimate"}
    else:
        adjusts = yield from _adjusts(given)
        asked = [(record.request_id,) for record in given.records]
        estimated = {row[0] for row in (yield Ask(statements.ESTIMATED_REQUESTS, asked))}
    yield from add_sums(given.new_records, given.new_entries, [adjust for _, adjust in adjusts])
    timed = timing_rows(given.new_records)
    if timed:
        yield Ask(statements.TIMINGS, timed)
    uses = last_uses(given.new_records)
    if uses:
        yield Ask(statements.SECRET_USES, uses)
    named = {window: record.team_id for record in given.records for window in record.budgets}
    postings: list[Posting] = []
    if given.all_new:
        # Where no record names a budget nothing is looked at.
        if named:
            postings = [Posting(record, record.budgets, entry.cost_nanousd or 0) for record, entry in given.entries]
    else:
        postings = yield from _postings(given, adjusts)
    counters = (yield from count_money(named, [each for each in postings if each.nanousd])) if named or postings else {}
    awaited = [awaited_row(record) for record in given.new_records if record.awaited]
    if awaited:
        yield Ask(statements.AWAITED, awaited)
    if given.object_rows:
        yield Ask(statements.OBJECTS, given.object_rows)
    return Written(
        new_records=len(given.new_records),
        ranks={
            record.request_id: RANK_ESTIMATE if record.request_id in estimated else RANK_EXACT
            for record in given.records
        },
        budgets=counters,
    )


def _adjusts(given: Given) -> Steps[list[tuple[Record, Adjust]]]:
    """Corrects estimates of which the exact outcome was given; returns what is new."""
    new = {entry.attempt_id for _, entry in given.new_entries}
    exact = {
        entry.attempt_id: (record, entry)
        for record, entry in given.entries
        if entry.kind in EXACT_KINDS and entry.attempt_id not in new
    }
    if not exact:
        return []
    # Locked first and read then: what another transaction corrects meanwhile is seen, or has to wait.
    locked = yield Ask(statements.ESTIMATES_LOCKED, [(attempt_id,) for attempt_id in sorted(exact)])
    attempt_ids = sorted(row[0] for row in locked)
    if not attempt_ids:
        return []
    found = yield Ask(statements.ENTRIES_OF_ATTEMPTS, [(attempt_id,) for attempt_id in attempt_ids])
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        values = dict(zip(_COLUMNS, row, strict=True))
        rows[values["attempt_id"]].append(values)
    adjusts = [
        (exact[attempt_id][0], exact_adjust(rows[attempt_id], *exact[attempt_id]))
        for attempt_id in attempt_ids
        if all(row["reason"] != EXACT for row in rows[attempt_id])
    ]
    if not adjusts:
        return []
    inserted = yield Ask(statements.ENTRIES, [entry_row(adjust, adjust.entry) for _, adjust in adjusts])
    added = {row[0] for row in inserted}
    return [(record, adjust) for record, adjust in adjusts if adjust.entry.attempt_id in added]


def exact_adjust(rows: Sequence[Mapping[str, Any]], record: Record, exact: Entry) -> Adjust:
    """The correction that makes the sum of ``rows`` (all entries of one attempt) what ``exact`` says."""
    primary = next(row for row in rows if row["kind"] != "adjust")
    used = NOTHING_USED
    for row in rows:
        used = used.plus(Usage(*(row[name] for name in _UNITS)))
    cost = exact.cost_nanousd
    spent = sum(row["cost_nanousd"] or 0 for row in rows)
    lower = upper = None
    if cost is not None:
        lower = cost - sum(_or_cost(row, "cost_lower_nanousd") for row in rows)
        upper = cost - sum(_or_cost(row, "cost_upper_nanousd") for row in rows)
        cost -= spent
    return Adjust(
        request_id=primary["request_id"],
        team_id=primary["team_id"],
        key_id=primary["key_id"],
        quarter_ms=primary["quarter_ms"],
        ended_at_ms=record.ended_at_ms,
        entry=Entry(
            attempt_id=exact.attempt_id,
            kind="adjust",
            upstream=primary["upstream"],
            model=primary["model"],
            usage=exact.usage.minus(used),
            cost_nanousd=cost,
            cost_lower_nanousd=lower,
            cost_upper_nanousd=upper,
            price_source=exact.price_source,
            price_version=exact.price_version,
            service_tier=exact.service_tier,
            reason=EXACT,
        ),
        unpriced=_is_unpriced(rows, cost) - is_unpriced(rows),
        # Whatever it has cost by now was an estimate's.
        estimated_nanousd=-spent,
    )


def _is_unpriced(rows: Sequence[Mapping[str, Any]], exact_nanousd: int | None) -> bool:
    return is_unpriced([*rows, {"kind": "adjust", "reason": EXACT, "cost_nanousd": exact_nanousd}])


def is_unpriced(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an attempt has no price, by all of its entries."""
    known = None
    for row in rows:
        if row["kind"] != "adjust":
            known = row["cost_nanousd"]
    for row in rows:
        if row["kind"] == "adjust" and row["reason"] == EXACT:
            known = row["cost_nanousd"]
    repriced = any(
        row["kind"] == "adjust" and row["reason"] != EXACT and row["cost_nanousd"] is not None for row in rows
    )
    return known is None and not repriced


def _or_cost(row: Mapping[str, Any], name: str) -> int:
    bound: int | None = row[name]
    return (row["cost_nanousd"] or 0) if bound is None else bound


def _postings(given: Given, adjusts: Sequence[tuple[Record, Adjust]]) -> Steps[list[Posting]]:
    """New money; of records that were there already in the windows that their rows name."""
    new = {record.request_id for record in given.new_records}
    money = [(record, entry.cost_nanousd or 0) for record, entry in given.new_entries]
    money += [(record, adjust.entry.cost_nanousd or 0) for record, adjust in adjusts]
    known = {(record.request_id,) for record, nanousd in money if nanousd and record.request_id not in new}
    windows = {}
    if known:
        windows = {row[0]: _windows_of(row[1]) for row in (yield Ask(statements.WINDOWS_OF_RECORDS, sorted(known)))}
    return [Posting(record, windows.get(record.request_id, record.budgets), nanousd) for record, nanousd in money]
