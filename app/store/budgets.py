"""Counters of money: what is settled in each window of each budget.

A counter is the sum of the entries whose records name its window, and of what was spent in the window before
the counter was there: a budget that is set in the middle of the month begins with what the ledger knows of
that month. Whoever makes the row adds that, and until its transaction ends others that name the window wait
for the row, so that no money is counted twice or left out.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from app.core.calendar import window_of
from app.core.identity import LimitRule
from app.core.patterns import matches_any
from app.core.records import BudgetWindow
from app.core.rules import default_budget_of
from app.store import statements
from app.store.flatten import window_text
from app.store.rows import rule_from
from app.store.steps import Ask, Steps, run_on
from app.store.tables import limits

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.core.records import Record
    from app.store.flatten import Adjust

SETTLING_MS = 3_600_000
"""Gateways follow a new rule within seconds; so long after it, what does not name its budget is not of it."""

RULE_COLUMNS = tuple(column.name for column in limits.columns)

NAMES_NOTHING = "\n"
"""A text that no JSON has in it, unescaped."""

Counter: TypeAlias = tuple[int, int]
"""What was spent, in nano-dollars, and the version of that value."""


class Posting(msgspec.Struct, frozen=True):
    """Money that counts from now on, at the place of ``record``, in the windows that its row names."""

    record: Record | Adjust
    windows: tuple[BudgetWindow, ...]
    nanousd: int


class _Span(msgspec.Struct, frozen=True):
    """What a window counts: requests of a team or key, admitted in a span of time.

    ``known_from_ms`` is when the rule can have been known first: what was admitted long after it names the window.
    """

    team_id: str | None
    key_id: str | None
    start_ms: int
    end_ms: int
    known_from_ms: int | None
    model: str | None = None
    tag: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether it counts all that its team or key spends."""
        return self.model is None and not self.tag

    def holds(self, record: Record | Adjust) -> bool:
        return self.is_of(record.team_id, record.key_id) and self.start_ms <= record.quarter_ms < self.end_ms

    def is_of(self, team_id: str, key_id: str) -> bool:
        return self.team_id in {None, team_id} and self.key_id in {None, key_id}


async def read_budgets(
    connection: AsyncConnection, windows: Iterable[tuple[str, BudgetWindow]]
) -> dict[BudgetWindow, Counter]:
    """The counters of ``windows`` (each with its team's id), inside of ``Database.transaction()``: those that
    are not there are made, so that each has a version.
    """
    return await run_on(connection, _read({window: team_id for team_id, window in windows}))


async def spent_in_history(connection: AsyncConnection, budget_id: str, start_ms: int) -> int:
    """What the ledger says was spent in a window, in nano-dollars, whether a counter is there or not.

    0 where the rule is gone. A budget for models or tags does not see what ``prune`` has taken away.
    """
    return await run_on(connection, _history(BudgetWindow(budget_id, start_ms)))


def count_money(named: Mapping[BudgetWindow, str], postings: Sequence[Posting]) -> Steps[dict[BudgetWindow, Counter]]:
    """Adds ``postings`` to their counters; the counters of all windows ``named`` (with their team's id) as they
    are then. One that gets no money is only read.
    """
    sums: dict[BudgetWindow, int] = defaultdict(int)
    teams = dict(named)
    for posting in postings:
        for window in posting.windows:
            sums[window] += posting.nanousd
            teams.setdefault(window, posting.record.team_id)
    quiet = sorted(window for window in named if window not in sums)
    found: dict[BudgetWindow, Counter] = {}
    if quiet:
        found = _counters((yield Ask(statements.BUDGETS_READ, [(each.budget_id, each.start_ms) for each in quiet])))
    # All in one order, those to be made too, so that two writers wait for each other and never in a circle.
    rows = [
        (window.budget_id, window.start_ms, teams[window], sums.get(window, 0), 0, 1)
        for window in sorted({*sums, *named})
        if window not in found
    ]
    if rows:
        added = _counters((yield Ask(statements.BUDGETS_ADDED, rows)))
        found |= added
        made = {window: teams[window] for window, (_, version) in added.items() if version == 1}
        if made:
            found |= yield from _seeded(made, {window: added[window] for window in made}, postings)
    return {window: found[window] for window in named}


def _read(teams: Mapping[BudgetWindow, str]) -> Steps[dict[BudgetWindow, Counter]]:
    keys = [(window.budget_id, window.start_ms) for window in sorted(teams)]
    if not keys:
        return {}
    found = _counters((yield Ask(statements.BUDGETS_READ, keys)))
    missing = [window for window in sorted(teams) if window not in found]
    if missing:
        rows = [(window.budget_id, window.start_ms, teams[window], 0, 0, 1) for window in missing]
        made = {BudgetWindow(*row): (0, 1) for row in (yield Ask(statements.BUDGETS_MADE, rows))}
        found |= yield from _seeded({window: teams[window] for window in made}, made, ())
        # Somebody else was faster with these.
        late = [(window.budget_id, window.start_ms) for window in missing if window not in made]
        if late:
            found |= _counters((yield Ask(statements.BUDGETS_READ, late)))
    return found


def _seeded(
    teams: Mapping[BudgetWindow, str], made: dict[BudgetWindow, Counter], postings: Sequence[Posting]
) -> Steps[dict[BudgetWindow, Counter]]:
    """Adds what was spent before to counters that this transaction made.

    What it has written itself is in the sums of the ledger by now, and must not be added once more. Others
    that name one of these windows have not committed: they would have made the row.
    """
    spans = yield from _spans(teams)
    spans = {
        window: span
        for window, span in spans.items()
        if span.known_from_ms is None or span.start_ms < span.known_from_ms + SETTLING_MS
    }
    before = yield from _spent(spans)
    for posting in postings:
        for window in posting.windows:
            span = spans.get(window)
            # A budget for models or tags leaves them out itself.
            if span is not None and span.is_plain and span.holds(posting.record):
                before[window] -= posting.nanousd
    seeds = [(spent, spent, window.budget_id, window.start_ms) for window, spent in sorted(before.items()) if spent]
    if seeds:
        yield Ask(statements.BUDGET_SEEDED, seeds)
    return {window: (spent + before.get(window, 0), version) for window, (spent, version) in made.items()}


def _history(window: BudgetWindow) -> Steps[int]:
    spans = yield from _spans([window])
    spent = yield from _spent(spans, without_named=False)
    return spent.get(window, 0)


def _spans(windows: Collection[BudgetWindow]) -> Steps[dict[BudgetWindow, _Span]]:
    """What each window counts; without those whose rule is gone."""
    asked = {(window.budget_id.partition(":")[0],) for window in windows}
    rows = yield Ask(statements.RULES, sorted(asked))
    rules = {row["id"]: row for row in (dict(zip(RULE_COLUMNS, each, strict=True)) for each in rows)}
    spans = {}
    for window in windows:
        rule_id, _, value = window.budget_id.partition(":")
        span = _span_of(window, rules[rule_id], value) if rule_id in rules else _span_of_default(window)
        if span is not None:
            spans[window] = span
    return spans


def _span_of(window: BudgetWindow, row: Mapping[str, Any], value: str) -> _Span | None:
    rule: LimitRule = rule_from(row)  # type: ignore[arg-type] # it only looks up names
    tag = ""
    if rule.tag_name is not None:
        # Names and values of tags have no character that JSON escapes.
        tag = f'"{rule.tag_name}":"{value if rule.tag_value is None else rule.tag_value}"'
    end_ms = _end_of(rule.window, rule.time_zone, window.start_ms)
    if end_ms is None:
        return None
    return _Span(row["team_id"], row["key_id"], window.start_ms, end_ms, row["created_at_ms"], rule.model, tag)


def _span_of_default(window: BudgetWindow) -> _Span | None:
    """A budget that stands in the configuration file: nobody knows since when."""
    default = default_budget_of(window.budget_id)
    if default is None:
        return None
    end_ms = _end_of(default.window, default.time_zone, window.start_ms)
    if end_ms is None:
        return None
    of_team = default.owner == "team"
    return _Span(
        team_id=default.owner_id if of_team else None,
        key_id=None if of_team else default.owner_id,
        start_ms=window.start_ms,
        end_ms=end_ms,
        known_from_ms=None,
    )


def _end_of(name: str, time_zone: str, start_ms: int) -> int | None:
    if name not in {"day", "week", "month", "total"}:
        return None
    try:
        return window_of(name, time_zone, start_ms)[1]  # type: ignore[arg-type] # it is one of the four
    except (ValueError, OverflowError):
        # A zone that this machine does not know, or a moment outside of the calendar: nothing to find.
        return None


def _spent(spans: Mapping[BudgetWindow, _Span], *, without_named: bool = True) -> Steps[dict[BudgetWindow, int]]:
    """What the ledger has of each span; of those for models and tags without what names the window itself."""
    spent = dict.fromkeys(spans, 0)
    for window, span in spans.items():
        if span.is_plain:
            of, owner = (
                (statements.SPENT_OF_TEAM, span.team_id)
                if span.key_id is None
                else (statements.SPENT_OF_KEY, span.key_id)
            )
            ((spent[window],),) = yield Ask(of, [(owner, span.start_ms, span.end_ms)])
            continue
        end_ms = span.end_ms
        if without_named and span.known_from_ms is not None:
            end_ms = min(end_ms, span.known_from_ms + SETTLING_MS)
        naming = window_text(window) if without_named else NAMES_NOTHING
        found = yield Ask(statements.SPENT_BY_MODELS, [(span.team_id, span.start_ms, end_ms, span.tag, naming)])
        spent[window] = sum(
            nanousd
            for key_id, model, nanousd in found
            if span.key_id in {None, key_id} and (span.model is None or matches_any([span.model], model))
        )
    return spent


def _counters(rows: Iterable[Sequence[Any]]) -> dict[BudgetWindow, Counter]:
    return {BudgetWindow(row[0], row[1]): (row[2], row[3]) for row in rows}
