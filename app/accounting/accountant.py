"""One process of many that share a hot state: what it asks for, in which order, and what it does about each
answer that it does not get. No I/O: every method that needs any is a generator of ``steps``.

``number`` is the epoch that this process believes in. ``is_open`` says that it has put back all that it
holds in that epoch, and that the epoch's warm-up is over; only then are strict limits decided.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from app.accounting.decisions import decision_of, seeded_windows
from app.accounting.epochs import WAIT_S, WAITS_MAX, Epochs
from app.accounting.holdings import Holding, Holdings
from app.accounting.local import LocalShare
from app.accounting.steps import (
    CloseProcess,
    EpochView,
    LedgerAway,
    Mark,
    Post,
    RaiseMarks,
    ReadBudgets,
    ReadEpoch,
    ReadMarks,
    Sleep,
    Steps,
    TeamBudget,
)
from app.core.errors import LimitsUnavailable
from app.core.records import BudgetWindow
from app.ledger.lines import joined_lines
from app.limits.hot import (
    Beat,
    Beaten,
    BudgetValue,
    Cold,
    Confirm,
    Confirmed,
    Done,
    Granted,
    InSQL,
    Lost,
    OutOfWindow,
    Refused,
    Reserve,
    Restore,
    Seed,
    Seen,
    Settle,
    StoreAway,
    Void,
    Voided,
)
from app.limits.limiter import Claim, Grant, Outcome, Refusal

ROUNDS_MAX = 6
"""How often one admission asks again: each round repairs one thing that stood in its way."""
MARK_GROWTH = 1.5
MARK_CALLS_MIN = 4
"""A first mark is for as many calls as the one that needs it, so that it is not raised for each."""
DONE_BEATS = 15
"""Settled calls that wait for SQL are beaten for so much more rarely; their lease is longer, too."""
BEATEN_AT_ONCE = 500
WHOLE_MAX = 20_000
"""While SQL is away for long, the rows of so many settled calls are kept in memory; of the others the hot state and
the journal have them.
"""
CONFIRMED_AT_ONCE = 500

Remake: TypeAlias = Callable[[int], Claim]


class Accountant:
    """``epochs`` follows the epoch; ``local`` decides where the hot state is away."""

    def __init__(self, process_id: str, epochs: Epochs, local: LocalShare) -> None:
        self.process_id = process_id
        self.epochs = epochs
        self.holdings: Holdings = epochs.holdings
        self._local = local
        self._marks: dict[BudgetWindow, int] = {}
        self._seeding: set[str] = set()
        self._retiring: dict[str, tuple[Mark, ...]] = {}
        self._committed: defaultdict[str, list[InSQL]] = defaultdict(list)
        self._stale: defaultdict[str, set[BudgetWindow]] = defaultdict(set)

    def __repr__(self) -> str:
        return f"Accountant({self.process_id!r}, {self.epochs!r}, {self.holdings!r})"

    @property
    def unconfirmed(self) -> int:
        """Requests that SQL has and the hot state has not been told of."""
        return sum(map(len, self._committed.values()))

    # -- admission ------------------------------------------------------------------------------

    def admit(self, claim: Claim, remake: Remake) -> Steps[Grant | Refusal]:
        """Decide ``claim``; ``remake`` makes it anew for another moment, in the windows of that moment.

        Raises LimitsUnavailable where a strict limit cannot be decided. Where this is given up in the
        middle, ``abandon`` it.
        """
        holding = self.holdings.add(claim)
        decided: Grant | Refusal | None = None
        try:
            for _ in range(ROUNDS_MAX):
                decided = yield from self._ask(holding, remake)
                if decided is not None:
                    break
        finally:
            if isinstance(decided, Grant):
                holding.is_admitted = True
                holding.is_stored = decided.is_held
            else:
                self.holdings.remove(claim.request_id)
        if decided is None:
            raise LimitsUnavailable
        return decided

    def _ask(self, holding: Holding, remake: Remake) -> Steps[Grant | Refusal | None]:
        """One round of it; None: what stood in the way is repaired, ask again."""
        epochs, claim = self.epochs, holding.claim
        number = epochs.number
        if not epochs.is_open:
            return self._local.admit(claim)
        try:
            if claim.money:
                yield from self._raise_marks(claim)
            answer = yield Reserve(claim, str(number))
        except StoreAway as away:
            if away.sent:
                # It may be granted yet, and nobody would settle it.
                yield Post(Void(claim))
            return self._local.admit(claim)
        if not epochs.is_current(number):
            # What was counted in an epoch that is over has to be asked for again in this one.
            return None
        if isinstance(answer, Granted | Refused):
            epochs.knows(claim.tag, number)
            return decision_of(claim, answer)
        try:
            if isinstance(answer, Cold):
                yield from self._seed(claim.tag, seeded_windows(claim), number)
            elif isinstance(answer, OutOfWindow):
                self.holdings.claim_again(holding, remake(answer.now_ms))
            elif isinstance(answer, Lost):
                yield from epochs.answer_loss(claim.tag, answer.found, number)
            elif isinstance(answer, Voided):
                raise LimitsUnavailable
        except (StoreAway, LedgerAway):
            return self._local.admit(claim)
        return None

    def _raise_marks(self, claim: Claim) -> Steps[None]:
        """Before more is held of a budget than others assume, they are told."""
        raised: list[Mark] = []
        money = [limit for limit in claim.limits if limit.kind == "money"]
        for window, limit in zip(claim.money, money, strict=True):
            amount, taken = claim.amount_of(limit), self.holdings.taken(window.budget)
            mark = max(int(taken * MARK_GROWTH), taken + MARK_CALLS_MIN * amount)
            if limit.mode == "enforce":
                if amount > limit.maximum:
                    # It is about to be refused, and nothing is held for it.
                    return
                # Nobody can hold more than all of it.
                mark = max(taken, min(mark, limit.maximum))
            if taken > self._marks.get(window.budget, 0):
                raised.append(Mark(self.process_id, claim.tag, window.budget, mark))
        if not raised:
            return
        try:
            yield RaiseMarks(tuple(raised))
        except LedgerAway:
            # No epoch can begin while SQL is away, and marks count at the beginning of one only: the next
            # request tries again.
            return
        for each in raised:
            self._marks[each.budget] = max(self._marks.get(each.budget, 0), each.nanousd)

    def _seed(self, tag: str, budgets: Sequence[BudgetWindow], number: int) -> Steps[None]:
        """Values are read after the epoch was, so that they are no older than it."""
        for _ in range(WAITS_MAX):
            if tag not in self._seeding:
                break
            # Another request is at it, most likely for the same budgets: ask again when it is done.
            yield Sleep(WAIT_S)
            if tag not in self._seeding:
                return
        self._seeding.add(tag)
        try:
            yield from self._seed_now(tag, budgets, number)
        finally:
            self._seeding.discard(tag)

    def _seed_now(self, tag: str, budgets: Sequence[BudgetWindow], number: int) -> Steps[None]:
        values: tuple[BudgetValue, ...] = yield ReadBudgets(tuple(TeamBudget(tag, each) for each in budgets))
        yield Seed(tag, str(number), values)

    def forget_marks(self) -> None:
        """They are not in SQL any more."""
        self._marks.clear()

    def abandon(self, claim: Claim) -> Void:
        """Nobody waits for this admission any more, or it came to nothing before anything was sent."""
        self.holdings.remove(claim.request_id)
        return Void(claim)

    def go_on(self, request_id: str, line: bytes) -> Restore | None:
        """A further attempt is about to be sent; what to post, if the hot state can be told now. Whoever has to write
        the request's row must know of each attempt.
        """
        holding = self.holdings.get(request_id)
        if holding is None or holding.outcome is not None:
            return None
        opening = joined_lines(holding.claim.opening, line)
        holding.claim = msgspec.structs.replace(holding.claim, opening=opening)
        if not self.epochs.is_open or not holding.is_stored:
            return None
        return Restore(holding.claim, str(self.epochs.number))

    # -- the end of a call ----------------------------------------------------------------------

    def settle(self, request_id: str, outcome: Outcome) -> Settle | None:
        """A call has ended; what to post, if the hot state can be told now. Only the first outcome counts."""
        holding = self.holdings.get(request_id)
        if holding is None or holding.outcome is not None:
            return None
        self.holdings.settle(holding, outcome)
        self._local.settle(holding.claim, outcome)
        if not self.epochs.is_open or not holding.is_stored:
            return None
        return Settle(holding.claim, str(self.epochs.number), outcome)

    def settled(self, request_id: str, answer: object) -> None:
        """What the hot state said to that. Without an answer the next heartbeat tells it again."""
        holding = self.holdings.get(request_id)
        if holding is not None and isinstance(answer, Done):
            holding.is_told = True
            if len(self.holdings) > WHOLE_MAX:
                self.holdings.lighten(holding)

    # -- what SQL knows -------------------------------------------------------------------------

    def committed(
        self, requests: Sequence[tuple[str, InSQL]], values: Sequence[tuple[str, BudgetValue]], number: int
    ) -> Steps[None]:
        """A batch is in SQL: (tag, request) and (tag, value of a budget); ``number`` was the epoch before its
        transaction began.
        """
        by_tag: defaultdict[str, list[InSQL]] = defaultdict(list)
        for tag, request in requests:
            holding = self.holdings.get(request.request_id)
            if holding is not None and not holding.is_stored:
                # The hot state never heard of it, so there is nothing to confirm.
                self.holdings.remove(request.request_id)
            else:
                by_tag[tag].append(request)
        of_tag: defaultdict[str, list[BudgetValue]] = defaultdict(list)
        for tag, value in values:
            of_tag[tag].append(value)
        for tag in dict.fromkeys([*by_tag, *of_tag]):
            # A recovery commits more at once than one script should take; the values go with each part.
            for start in range(0, max(1, len(by_tag[tag])), CONFIRMED_AT_ONCE):
                some = by_tag[tag][start : start + CONFIRMED_AT_ONCE]
                told = yield from self._confirm(tag, some, of_tag[tag], number)
                if not told:
                    self._committed[tag] += some
                    # Also of requests that the hot state never heard of: what they cost counts there, too.
                    self._stale[tag].update(value.budget for value in of_tag[tag])

    def confirm_again(self) -> Steps[None]:
        """What could not be confirmed when it was committed: with values read anew, in the epoch of now."""
        is_ledger_away = False
        for tag in dict.fromkeys([*self._committed, *self._stale]):
            epochs = self.epochs
            if not epochs.is_open:
                return
            waiting = self._committed.pop(tag, [])
            number, requests = epochs.number, waiting[:CONFIRMED_AT_ONCE]
            if len(waiting) > CONFIRMED_AT_ONCE:
                self._committed[tag] = waiting[CONFIRMED_AT_ONCE:]
            stale = self._stale.pop(tag, set())
            told = False
            try:
                yield from epochs.open_tag(tag, number)
                budgets = sorted(stale.union(budget for request in requests for budget in request.budgets))
                values: Sequence[BudgetValue] = ()
                if budgets and is_ledger_away:
                    # It would take its whole time once more.
                    continue
                if budgets:
                    values = yield ReadBudgets(tuple(TeamBudget(tag, each) for each in budgets))
                told = yield from self._confirm(tag, requests, values, number)
            except StoreAway:
                pass
            except LedgerAway:
                is_ledger_away = True
            finally:
                if not told:
                    self._committed[tag] += requests
                    self._stale[tag] |= stale

    def _confirm(self, tag: str, requests: Sequence[InSQL], values: Sequence[BudgetValue], number: int) -> Steps[bool]:
        if not self.epochs.is_current(number):
            return False
        try:
            answer = yield Confirm(tag, str(number), tuple(requests), tuple(values))
        except StoreAway:
            return False
        if not isinstance(answer, Confirmed):
            return False
        for request in requests:
            if request.request_id not in answer.kept:
                self.holdings.remove(request.request_id)
        self._local.told(tag)
        return True

    def retire(self, process_id: str) -> Steps[bool]:
        """All that a dead process held is in SQL: end what is held for it. False: to be tried again."""
        epochs = self.epochs
        number = epochs.number
        if not epochs.is_current(number):
            return False
        try:
            marks = self._retiring.get(process_id)
            if marks is None:
                marks = self._retiring[process_id] = yield ReadMarks(process_id)
            for mark in marks:
                # The value that has its rows in it goes first: else they would count nowhere for a moment.
                yield from epochs.open_tag(mark.team_id, number)
                yield from self._seed_now(mark.team_id, [mark.budget], number)
            is_ended = yield from epochs.end_stand_ins(marks, number)
            if not is_ended or not epochs.is_current(number):
                return False
            yield CloseProcess(process_id)
            view: EpochView = yield ReadEpoch(self.process_id, epochs.acknowledged)
        except (StoreAway, LedgerAway):
            return False
        if view.number != number:
            # The leader of a newer one may have read these marks before they went.
            return False
        del self._retiring[process_id]
        return True

    # -- heartbeats -----------------------------------------------------------------------------

    def beat(self) -> Steps[None]:
        """Say that this process and its calls live; whatever the hot state has not heard of is told again."""
        try:
            if self.epochs.is_open:
                yield from self._beat_all()
            else:
                yield from self.epochs.put_back()
        except (StoreAway, LedgerAway):
            # The next beat comes long before a lease ends.
            return

    def _beat_all(self) -> Steps[None]:
        number = self.epochs.number
        running: defaultdict[str, list[Holding]] = defaultdict(list)
        done: defaultdict[str, list[str]] = defaultdict(list)
        untold: list[Holding] = []
        for holding in self.holdings.admitted():
            holding.beats += 1
            if holding.outcome is None:
                if holding.beats > 1:
                    # What has just begun needs none: most calls end before they do.
                    running[holding.claim.tag].append(holding)
            elif not holding.is_told:
                if holding.beats > 1:
                    untold.append(holding)
            elif holding.beats % DONE_BEATS == 0:
                done[holding.claim.tag].append(holding.claim.request_id)
            elif not self.epochs.ledger_answers:
                # Nobody would tell of a new epoch but the hot state itself: have the tag looked at.
                done[holding.claim.tag] += ()
        # In the order of admission, not of a set: a simulation has to tell the same story twice.
        for tag in dict.fromkeys([*running, *done]):
            yield from self._beat_tag(tag, running[tag], done[tag], number)
        for holding in untold:
            yield from self._tell(holding, number)

    def beat_light(self, claims: Mapping[str, Claim]) -> Steps[None]:
        """The same for calls under an upstream's limits, by request: only their leases are to be kept."""
        by_tag: defaultdict[str, list[str]] = defaultdict(list)
        for request_id, claim in claims.items():
            by_tag[claim.tag].append(request_id)
        try:
            for tag, request_ids in by_tag.items():
                for start in range(0, len(request_ids), BEATEN_AT_ONCE):
                    # What has ended while an earlier part was under way must not take its lease again.
                    some = (claims.get(each) for each in request_ids[start : start + BEATEN_AT_ONCE])
                    yield Beat(tag, "", tuple(Seen(claim) for claim in some if claim is not None))
        except StoreAway:
            return

    def _beat_tag(self, tag: str, running: list[Holding], done: list[str], number: int) -> Steps[None]:
        for start in range(0, max(1, len(running), len(done)), BEATEN_AT_ONCE):
            some = running[start : start + BEATEN_AT_ONCE]
            seen = tuple(holding.seen for holding in some if holding.outcome is None)
            answer = yield Beat(tag, str(number), seen, tuple(done[start : start + BEATEN_AT_ONCE]))
            if isinstance(answer, Lost):
                yield from self.epochs.answer_loss(tag, answer.found, number)
                return
            if not isinstance(answer, Beaten):
                continue
            missing = set(answer.missing)
            for holding in some:
                if holding.claim.request_id in missing:
                    yield from self._tell(holding, number)
                else:
                    holding.is_stored = True

    def _tell(self, holding: Holding, number: int) -> Steps[None]:
        """Put back what the hot state does not know: a running call, or how it ended."""
        if not self.epochs.is_current(number):
            return
        yield from self.epochs.open_tag(holding.claim.tag, number)
        if holding.claim.request_id not in self.holdings:
            # SQL has it by now, and nobody would end it.
            return
        outcome = holding.outcome
        # From here on the hot state may know of it, whatever it answers.
        holding.is_stored = True
        if outcome is None:
            answer = yield Restore(holding.claim, str(number))
        else:
            answer = yield Settle(holding.claim, str(number), outcome)
        if isinstance(answer, Lost):
            yield from self.epochs.answer_loss(holding.claim.tag, answer.found, number)
        elif isinstance(answer, Done) and outcome is not None:
            holding.is_told = True
