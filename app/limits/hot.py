"""The hot state: what the store of limits is told and what it answers, for memory and Redis alike.

Everything of one team (or one protected upstream) lives under one *tag*, and is changed by one command at
a time, all or nothing. A reservation is *open* (reserved), then *done* (settled, not yet in SQL), then
*gone* (in SQL; remembered for a minute, so that what comes late finds it) or *void* (its owner gave up).

A tag belongs to an *epoch*: ``token`` is ``<epoch's number>:<the server's run id>``, and a tag that has
another, or none, answers ``Lost`` and does nothing, since what it counted is not to be believed. Every
reservation and budget carries the number of the epoch in which it is counted; an amount of another epoch
counts as nothing until it is counted again, once, by whoever comes first.

Limits that protect an upstream count nothing that would be missed: for their tags the token is empty,
nothing is compared, and a reservation is forgotten when it is settled or its window is over.

A budget adds up ``confirmed`` (assigned from SQL, with a version), ``unconfirmed`` (settled, not in SQL),
``held`` (open) and stand-ins for processes that could not say what they hold. Without a version it is
*cold*: not zero, but not known.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from app.core.errors import LimitsUnavailable
from app.core.records import BudgetWindow
from app.limits.limiter import Claim, Limit, Outcome

RESERVATION_LEASE_MS = 15_000
"""How long an open reservation and its concurrency lease last without a heartbeat."""
DONE_LEASE_MS = 60_000
"""How long a settled one waits for its owner to bring it into SQL before others do."""
TOMBSTONE_MS = 60_000
TAKE_OVER_MS = 5_000
"""How long a reaper has for what it took over."""


class StoreAway(LimitsUnavailable):
    """The hot state gave no answer, or none in time. ``sent``: the command may have been carried out all the same."""

    def __init__(self, reason: str = "", *, sent: bool) -> None:
        super().__init__()
        self.reason = reason
        self.sent = sent


# -- commands -----------------------------------------------------------------------------------


class Reserve(msgspec.Struct, frozen=True):
    """Take the claim from all its limits, or from none; the same claim again is granted and not counted twice.

    One that is open in another epoch is taken anew, as if nothing were known of it.

    Answers Granted, Refused, Cold, OutOfWindow, Voided or Lost.
    """

    claim: Claim
    token: str
    lease_ms: int = RESERVATION_LEASE_MS


class Settle(msgspec.Struct, frozen=True):
    """The call has ended: open becomes done; what was reserved is corrected, its lease freed.

    A done or gone one takes an outcome of higher rank; of the same or a lower rank changes nothing; an
    absent or void one becomes done. Where the outcome has a record, that is all that anybody needs from then on, and
    the opening is not sent along. Answers Done or Lost.
    """

    claim: Claim
    token: str
    outcome: Outcome
    lease_ms: int = DONE_LEASE_MS

    @property
    def opening(self) -> bytes:
        """What is kept of the opening where nothing is known of the call."""
        return b"" if self.outcome.record else self.claim.opening


class Void(msgspec.Struct, frozen=True):
    """As if the request had never come, whether it has been reserved or will be late. Answers Done."""

    claim: Claim


class Restore(msgspec.Struct, frozen=True):
    """The owner puts back an open reservation, whatever the limits, and though it was voided: the call does run.
    Its opening is the claim's from then on, which may tell of more attempts than before.

    Answers Done or Lost.
    """

    claim: Claim
    token: str
    lease_ms: int = RESERVATION_LEASE_MS


class Seen(msgspec.Struct, frozen=True):
    """What a heartbeat tells of a running call: output so far, and what it has cost at least."""

    claim: Claim
    output_tokens: int = 0
    lower_nanousd: int = 0


class Beat(msgspec.Struct, frozen=True):
    """The owner lives: its running calls, and the done ones that it has not brought into SQL yet.

    Answers Beaten or Lost.
    """

    tag: str
    token: str
    running: tuple[Seen, ...] = ()
    done: tuple[str, ...] = ()
    lease_ms: int = RESERVATION_LEASE_MS
    done_lease_ms: int = DONE_LEASE_MS


class FindDue(msgspec.Struct, frozen=True):
    """Reservations whose owner has been silent for too long. Answers Due or Lost."""

    tag: str
    token: str
    at_most: int = 100


class Look(msgspec.Struct, frozen=True):
    """What is known of one reservation. Answers Known or Done (there is none)."""

    tag: str
    request_id: str


class Peek(msgspec.Struct, frozen=True):
    """What is counted of limits of requests, tokens and concurrency, one at least; nothing is changed by looking.

    Answers Counted.
    """

    tag: str
    limits: tuple[Limit, ...]


class TakeOver(msgspec.Struct, frozen=True):
    """A reaper claims a reservation whose time is past. Open money is charged at its bound, never released.

    ``budgets`` are those of its opening, in order. Answers Known (it is the caller's for TAKE_OVER_MS; what
    was open is done now, with rank 1 and no record), NotDue, Done (it is gone) or Lost.
    """

    tag: str
    token: str
    request_id: str
    budgets: tuple[BudgetWindow, ...]
    hold_ms: int = TAKE_OVER_MS


class InSQL(msgspec.Struct, frozen=True):
    """A request whose rows are committed: its rank there, what it costs there, and its budgets."""

    request_id: str
    rank: int
    nanousd: int
    budgets: tuple[BudgetWindow, ...]


class BudgetValue(msgspec.Struct, frozen=True):
    """A budget's value in SQL and the version of that value (at least 1; 0: a window that has not begun)."""

    budget: BudgetWindow
    spent_nanousd: int
    version: int


class Confirm(msgspec.Struct, frozen=True):
    """SQL has these. ``token`` was captured before the transaction that wrote them began.

    What it holds is taken away where SQL knows as much as it does, and values are assigned where they are
    newer. Answers Confirmed or Lost.
    """

    tag: str
    token: str
    requests: tuple[InSQL, ...]
    values: tuple[BudgetValue, ...]


class Seed(msgspec.Struct, frozen=True):
    """Values read from SQL after ``token`` was captured. Answers Done or Lost."""

    tag: str
    token: str
    values: tuple[BudgetValue, ...]


class StandIn(msgspec.Struct, frozen=True):
    """Hold ``nanousd`` of a budget for a process that cannot say what it holds; 0 ends it, for this epoch.

    Answers Done or Lost.
    """

    tag: str
    token: str
    process_id: str
    budget: BudgetWindow
    nanousd: int


class OpenTag(msgspec.Struct, frozen=True):
    """Begin an epoch under this tag, where it has none or an older one. Answers Done, or Lost."""

    tag: str
    token: str


Command: TypeAlias = (
    Reserve | Settle | Void | Restore | Beat | FindDue | Look | Peek | TakeOver | Confirm | Seed | StandIn | OpenTag
)


# -- answers ------------------------------------------------------------------------------------


class Granted(msgspec.Struct, frozen=True):
    """``standings`` has (remaining, reset_ms) for each limit, ``observed`` the indices of those in mode
    ``observe`` that would have refused.
    """

    admitted_at_ms: int
    standings: tuple[tuple[int, int], ...]
    observed: tuple[int, ...] = ()


class Refused(msgspec.Struct, frozen=True):
    """``index`` is the limit that it waits for longest (the first of those alike); ``retry_after_ms`` None:
    waiting does not help.
    """

    index: int
    retry_after_ms: int | None
    standings: tuple[tuple[int, int], ...]
    is_held: bool = False


class Cold(msgspec.Struct, frozen=True):
    """Budgets (indices of limits) whose value is not known here: seed them and ask again."""

    indices: tuple[int, ...]


class OutOfWindow(msgspec.Struct, frozen=True):
    """By the store's clock a budget's window has not begun, or is over."""

    now_ms: int


class Voided(msgspec.Struct, frozen=True):
    """The owner gave this reservation up, or it has been settled and forgotten."""


class Lost(msgspec.Struct, frozen=True):
    """The tag's epoch is another: ``found`` is its token, None where it has none."""

    found: str | None


class Done(msgspec.Struct, frozen=True):
    """It is so now. ``changed`` is False where it was so already."""

    changed: bool = True


class Beaten(msgspec.Struct, frozen=True):
    """``missing``: running calls that are not counted here: unknown, void, or open in another epoch."""

    missing: tuple[str, ...] = ()


class Due(msgspec.Struct, frozen=True):
    request_ids: tuple[str, ...]


class NotDue(msgspec.Struct, frozen=True):
    """Its owner, or another reaper, has been faster."""


class Known(msgspec.Struct, frozen=True):
    """A reservation, and the ``epoch`` that it is counted in: ``record`` is the outcome's, or empty;
    ``nanousd`` what it counts in each budget, once it is done.
    """

    state: Literal["open", "done"]
    epoch: int
    rank: int
    owner: str
    opening: bytes
    record: bytes
    nanousd: int
    output_tokens: int = 0
    lower_nanousd: int = 0


class Counted(msgspec.Struct, frozen=True):
    """(held, reset_ms) of each limit: what is counted, and how long until nothing of it is."""

    counts: tuple[tuple[int, int], ...]


class Confirmed(msgspec.Struct, frozen=True):
    """``kept``: what holds more than SQL knows, and waits for its owner or a reaper."""

    kept: tuple[str, ...] = ()


Answer: TypeAlias = (
    Granted | Refused | Cold | OutOfWindow | Voided | Lost | Done | Beaten | Due | NotDue | Known | Confirmed | Counted
)


def number_of(token: str) -> int:
    """The epoch's number in a token."""
    return int(token.partition(":")[0])
