"""Brings into SQL what its owner has been silent about: nothing that was reserved is released for silence.

A reaper acts only if the hot state is ready and SQL has just answered. What it takes over is its own for
five seconds; if it takes longer, another does the same, and the second row is none.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from app.accounting.epochs import Epochs
from app.accounting.steps import LedgerAway, ListTags, ProcessView, ReadProcess, Steps, Submit
from app.core.records import Opening, OwnedObject, Record
from app.ledger.lines import AttemptLine, CloseLine, OpenLine, SeenLine, decode_lines, decode_payload
from app.ledger.recovery import interrupted_record
from app.limits.hot import Confirm, Due, FindDue, InSQL, Known, Look, Lost, StoreAway, TakeOver

EXACT_RANK = 2
UNREADABLE_MAX = 1000
"""So many are remembered, and told of once."""
TAGS_AT_ONCE = 200
"""Tags looked at in one round: all are, in turn."""
DUE_AT_ONCE = 100


class Reaper:
    """``now_ms`` stamps the end of what has none; ``on_unreadable(request_id)`` is told of a reservation that
    cannot be understood and is left where it is.
    """

    def __init__(
        self,
        epochs: Epochs,
        now_ms: Callable[[], int],
        *,
        on_unreadable: Callable[[str], None] = lambda _request_id: None,
    ) -> None:
        self._epochs = epochs
        self._now_ms = now_ms
        self._on_unreadable = on_unreadable
        self._unreadable: set[str] = set()
        self._tags: deque[str] = deque()
        self.taken_over = 0

    def __repr__(self) -> str:
        return f"Reaper(taken_over={self.taken_over})"

    def reap(self) -> Steps[None]:
        """One round, over some of the tags."""
        epochs = self._epochs
        number = epochs.number
        if not epochs.is_current(number) or not epochs.ledger_answers:
            return
        try:
            if not self._tags:
                self._tags.extend((yield ListTags()))
            for _ in range(min(TAGS_AT_ONCE, len(self._tags))):
                tag = self._tags.popleft()
                yield from epochs.open_tag(tag, number)
                # What cannot be read stays due, and must not stand in the way of all that can.
                due = yield FindDue(tag, str(number), DUE_AT_ONCE + len(self._unreadable))
                if isinstance(due, Lost):
                    yield from epochs.answer_loss(tag, due.found, number)
                    return
                epochs.knows(tag, number)
                if isinstance(due, Due):
                    for request_id in due.request_ids:
                        if request_id not in epochs.holdings:
                            yield from self._take_over(tag, request_id, number)
        except (StoreAway, LedgerAway):
            # Whatever was taken over and not submitted is due again soon.
            return

    def _take_over(self, tag: str, request_id: str, number: int) -> Steps[None]:
        known = yield Look(tag, request_id)
        left = _left_of(known) if isinstance(known, Known) else None
        if isinstance(known, Known) and left is None and request_id not in self._unreadable:
            if len(self._unreadable) < UNREADABLE_MAX:
                self._unreadable.add(request_id)
            self._on_unreadable(request_id)
        if not isinstance(known, Known) or left is None:
            return
        is_nothing = yield from self._is_nothing(known, number)
        if not self._epochs.is_current(number):
            return
        if is_nothing:
            yield Confirm(tag, str(number), (InSQL(request_id, EXACT_RANK, 0, left.said.budgets),), ())
            return
        taken = yield TakeOver(tag, str(number), request_id, left.said.budgets)
        # Its owner may have settled it since it was looked at.
        left = _left_of(taken) if isinstance(taken, Known) else None
        if isinstance(taken, Known) and left is not None:
            self.taken_over += 1
            yield Submit(left.record(taken, self._now_ms()))

    def _is_nothing(self, known: Known, number: int) -> Steps[bool]:
        """Whether its owner is known not to hold it: what it holds it puts back before it acknowledges an
        epoch. Then it is in SQL, or was never sent; a server that was set back may still have it.
        """
        if known.owner == self._epochs.process_id:
            return True
        if known.epoch == number:
            return False
        owner: ProcessView = yield ReadProcess(known.owner)
        return owner.is_closed or owner.acknowledged >= number


class _Left(NamedTuple):
    """What its owner said of a call last: how it ended, else how it began; and each attempt after the first."""

    said: Record | Opening
    further: Sequence[AttemptLine] = ()
    made: Sequence[OwnedObject] = ()

    def record(self, taken: Known, now_ms: int) -> Record:
        """How it ended; else what it can have cost at most."""
        if isinstance(self.said, Record):
            return self.said
        return interrupted_record(
            self.said,
            self.further,
            self.made,
            max(now_ms, self.said.admitted_at_ms),
            lower_nanousd=taken.lower_nanousd,
            seen_output_tokens=taken.output_tokens,
            error_code="gateway_lost",
        )


def _left_of(known: Known) -> _Left | None:
    """None where nothing of it can be read."""
    if known.record:
        with contextlib.suppress(ValueError):
            line = decode_payload(known.record)
            if isinstance(line, CloseLine):
                return _Left(line.record)
    try:
        first, *further = decode_lines(known.opening)
    except ValueError:
        return None
    if not isinstance(first, OpenLine):
        return None
    attempts = [line for line in further if isinstance(line, AttemptLine)]
    return _Left(first.opening, attempts, [line.owned for line in further if isinstance(line, SeenLine)])
