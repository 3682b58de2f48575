"""How a process follows the epoch: what it does when the hot state was lost, and when somebody says so.

SQL numbers the epochs, so that all agree. Whoever finds the hot state lost begins the next one and leads
its warm-up: everybody puts back what it holds; for those who cannot, the leader holds what they declared;
then the epoch is open. Nothing here waits: each round looks, and does what can be done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from app.accounting.holdings import Holdings
from app.accounting.steps import (
    AdvanceEpoch,
    EpochView,
    InsertTag,
    LedgerAway,
    Mark,
    OpenEpoch,
    RaiseMarks,
    ReadEpoch,
    ReadLaggards,
    ReadMarks,
    Sleep,
    Steps,
    TagInserted,
    TakeLead,
)
from app.limits.hot import Beat, Lost, OpenTag, Restore, Settle, StandIn, StoreAway, number_of

LEAD_MS = 2500
WARM_UP_ROUNDS_MIN = 2
"""Leases of concurrency are put back by others meanwhile: their loss would not be noticed otherwise."""
WARM_UP_ROUNDS_MAX = 6
"""Rounds are 0.4 s apart: who has not put its holds back by then has what it declared held for it."""
TAG_OPENING_MS = 2000
"""Between noting a tag in SQL and opening it, its process may take so long, and no longer."""
TAG_REOPENING_MS = 1500
"""Whose opening could not be sent may try again for so long, by SQL's clock."""
OPENING_WAIT_S = 0.05
WAIT_S = 0.02
WAITS_MAX = 50
"""How often one request looks whether another has done what both need."""

OnState = Callable[[bool, str], None]


class Epochs:
    """``on_state(open, reason)`` is called once per change of state."""

    def __init__(self, process_id: str, holdings: Holdings, on_state: OnState = lambda _open, _reason: None) -> None:
        self.process_id = process_id
        self.holdings = holdings
        self.number = 0
        self.is_open = False
        self.ledger_answers = False
        """Whether SQL answered the last time it was asked for the epoch."""
        self._on_state = on_state
        self.acknowledged = 0
        """The last epoch in which this process has put back all that it held."""
        self._is_registered = False
        self._lost_number = 0
        self._ahead = 0
        self._rounds = 0
        self._opened: set[str] = set()
        self._opening: set[str] = set()
        self._unsent: set[str] = set()

    def __repr__(self) -> str:
        return f"Epochs(number={self.number}, open={self.is_open})"

    def knows(self, tag: str, number: int) -> None:
        """The tag has answered in epoch ``number``: should it ever be missing there, it was lost."""
        if number == self.number:
            self._opened.add(tag)

    def is_current(self, number: int) -> bool:
        """Whether ``number`` is the epoch still, and open."""
        return number == self.number and self.is_open

    # -- tags -----------------------------------------------------------------------------------

    def answer_loss(self, tag: str, found: str | None, number: int) -> Steps[None]:
        """A tag is not of epoch ``number``: open it, if nobody has used it there yet; else it was lost."""
        if number != self.number:
            return
        if found is not None and number_of(found) > number:
            # Others are ahead: this process finds out in its next round. Or SQL has gone back.
            self._ahead = max(self._ahead, number_of(found))
            self._close("another epoch has begun")
            return
        is_other_server = found is not None and number_of(found) == number
        if tag in self._opened or is_other_server:
            yield from self._declare_lost(number)
            return
        yield from self.open_tag(tag, number)

    def open_tag(self, tag: str, number: int) -> Steps[None]:
        """Open the tag in this epoch, once among all processes. What is noted in SQL and is not there
        is lost, or about to be opened by another process.
        """
        for _ in range(WAITS_MAX):
            if tag in self._opened or number != self.number:
                return
            if tag not in self._opening:
                break
            # Another request of this process is at it.
            yield Sleep(WAIT_S)
        self._opening.add(tag)
        try:
            yield from self._open_noted(tag, number)
        finally:
            self._opening.discard(tag)

    def open_tags(self, tags: Iterable[str], at_most: int) -> Steps[None]:
        """Open those of ``tags`` that this process has not heard of in this epoch; some in each round."""
        number = self.number
        if not self.is_current(number):
            return
        try:
            for tag in islice((tag for tag in tags if tag not in self._opened), at_most):
                yield from self.open_tag(tag, number)
                if not self.is_current(number):
                    return
        except (StoreAway, LedgerAway):
            return

    def _open_noted(self, tag: str, number: int) -> Steps[None]:
        noted: TagInserted = yield InsertTag(tag, number)
        if number != self.number:
            return
        # One that was noted here and could not be sent may still be opened, while others wait for that.
        if noted.inserted or (tag in self._unsent and noted.age_ms < TAG_REOPENING_MS):
            self._unsent.discard(tag)
            try:
                answer = yield OpenTag(tag, str(number))
            except StoreAway as away:
                if not away.sent and number == self.number:
                    self._unsent.add(tag)
                raise
            if not isinstance(answer, Lost):
                self.knows(tag, number)
        elif noted.age_ms < TAG_OPENING_MS:
            yield Sleep(OPENING_WAIT_S)
        else:
            self.knows(tag, number)

    def _declare_lost(self, number: int) -> Steps[None]:
        if number != self.number:
            return
        self._lost_number = number
        self._close("the hot state was lost")
        try:
            view = yield AdvanceEpoch(number, self.process_id, LEAD_MS)
        except LedgerAway:
            return
        self._enter(view)

    def _close(self, reason: str) -> None:
        if self.is_open:
            self.is_open = False
            self._on_state(False, reason)

    def _open(self, number: int) -> None:
        """The warm-up is over, unless something has happened since that was read."""
        if number == self.number and self._is_registered and number != self._lost_number:
            self.is_open = True
            self._on_state(True, "")

    def _enter(self, view: EpochView) -> None:
        """Believe in this epoch from now on."""
        if view.number != self.number:
            self._close("a new epoch has begun")
            self.number = view.number
            self._is_registered = False
            self._rounds = 0
            self._opened.clear()
            self._unsent.clear()

    # -- rounds ---------------------------------------------------------------------------------

    def follow(self) -> Steps[None]:
        """One look at the epoch in SQL, and what follows from it."""
        try:
            view: EpochView = yield ReadEpoch(self.process_id, self.acknowledged)
            self.ledger_answers = True
            if view.number == self._lost_number or view.number < self._ahead:
                view = yield AdvanceEpoch(view.number, self.process_id, LEAD_MS, self._ahead)
            self._enter(view)
            if not self._is_registered:
                is_registered = yield from self._register(view.number)
                if not is_registered:
                    return
                view = yield ReadEpoch(self.process_id, self.acknowledged)
                if view.number != self.number:
                    return
            if not view.is_open:
                view = yield from self._lead(view)
            if view.is_open and view.number == self.number and not self.is_open:
                is_ended = yield from self._end_own_stand_ins(view.number)
                if is_ended:
                    self._open(view.number)
        except LedgerAway:
            self.ledger_answers = False
        except StoreAway:
            return

    def put_back(self) -> Steps[None]:
        """Cut off from SQL, where the others read what it declared, this process may have declared too little
        since: it looks for the epoch in the hot state itself, and puts back there what it holds. It
        acknowledges nothing by this.
        """
        if self.ledger_answers:
            return
        holdings = self.holdings.admitted()
        for tag in dict.fromkeys(holding.claim.tag for holding in holdings):
            answer = yield Beat(tag, str(self.number))
            if not isinstance(answer, Lost) or answer.found is None or number_of(answer.found) <= self.number:
                continue
            number = number_of(answer.found)
            self._ahead = max(self._ahead, number)
            for holding in [each for each in holdings if each.claim.tag == tag]:
                outcome, holding.is_stored = holding.outcome, True
                if outcome is None:
                    yield Restore(holding.claim, str(number))
                else:
                    yield Settle(holding.claim, str(number), outcome)

    def _declare(self) -> Steps[None]:
        """What others must assume if this process falls silent before it has put all of it back."""
        marks = tuple(
            Mark(self.process_id, team_id, budget, nanousd)
            for (team_id, budget), nanousd in self.holdings.by_budget().items()
        )
        if marks:
            yield RaiseMarks(marks)

    def _register(self, number: int) -> Steps[bool]:
        """Put everything back that this process holds; what is settled and not in SQL, too."""
        yield from self._declare()
        for holding in self.holdings.admitted():
            yield from self.open_tag(holding.claim.tag, number)
            if holding.claim.request_id not in self.holdings:
                # SQL has it by now, and nobody would end it.
                continue
            outcome = holding.outcome
            # From here on the hot state may know of it, whatever it answers.
            holding.is_stored = True
            if outcome is None:
                answer = yield Restore(holding.claim, str(number))
            else:
                answer = yield Settle(holding.claim, str(number), outcome)
            if isinstance(answer, Lost):
                if holding.claim.tag in self._opened:
                    yield from self._declare_lost(number)
                return False
            if number != self.number:
                return False
            if outcome is not None:
                holding.is_told = True
        self._is_registered = True
        self.acknowledged = number
        return True

    def _lead(self, view: EpochView) -> Steps[EpochView]:
        """Lead the warm-up, if it falls to this process: hold what the silent ones declared, then open."""
        number = view.number
        if view.leader != self.process_id and view.leader_left_ms > 0:
            return view
        view = yield TakeLead(number, self.process_id, LEAD_MS)
        if view.number != number or view.leader != self.process_id or view.is_open:
            return view
        self._rounds += 1
        laggards: tuple[Mark, ...] = yield ReadLaggards(number)
        is_early = self._rounds < (WARM_UP_ROUNDS_MAX if laggards or view.behind else WARM_UP_ROUNDS_MIN)
        if is_early:
            return view
        for mark in laggards:
            yield from self.open_tag(mark.team_id, number)
            answer = yield StandIn(mark.team_id, str(number), mark.process_id, mark.budget, mark.nanousd)
            if isinstance(answer, Lost):
                if mark.team_id in self._opened:
                    yield from self._declare_lost(number)
                return view
        opened: EpochView = yield OpenEpoch(number, self.process_id)
        return opened

    def _end_own_stand_ins(self, number: int) -> Steps[bool]:
        """What was held for this process is held by itself now. All stand-ins were put before the epoch opened."""
        marks: tuple[Mark, ...] = yield ReadMarks(self.process_id)
        return (yield from self.end_stand_ins(marks, number))

    def end_stand_ins(self, marks: tuple[Mark, ...], number: int) -> Steps[bool]:
        """End what is held for the process that declared ``marks``; False where that was not possible."""
        for mark in marks:
            yield from self.open_tag(mark.team_id, number)
            answer = yield StandIn(mark.team_id, str(number), mark.process_id, mark.budget, 0)
            if isinstance(answer, Lost):
                yield from self.answer_loss(mark.team_id, answer.found, number)
                return False
        return True
