"""What the accounting core asks for and is answered: its only door to the world.

The core is written as generators. They yield a command, are sent its answer, and are thrown ``StoreAway``
or ``LedgerAway`` where none came; so that asyncio, or a scheduler in a test, can carry the commands out in
whatever order, late, twice, or not at all.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

import msgspec

from app.core.records import BudgetWindow, Record
from app.limits import hot

T = TypeVar("T")


class LedgerAway(Exception):
    """SQL gave no answer; a change that was asked for may have been made."""


class Post(msgspec.Struct, frozen=True):
    """A command whose answer nobody waits for."""

    command: hot.Command


class Sleep(msgspec.Struct, frozen=True):
    """Nothing, for so long, while others ask SQL; LedgerAway where there is no time left for that."""

    seconds: float


class TeamBudget(msgspec.Struct, frozen=True):
    """A window of a budget, and whose it is."""

    team_id: str
    budget: BudgetWindow


class ReadBudgets(msgspec.Struct, frozen=True):
    """Answered with a tuple of BudgetValue, one for each."""

    budgets: tuple[TeamBudget, ...]


class Mark(msgspec.Struct, frozen=True):
    """The most that a process may hold, or have unconfirmed, of a budget."""

    process_id: str
    team_id: str
    budget: BudgetWindow
    nanousd: int


class RaiseMarks(msgspec.Struct, frozen=True):
    """Answered with None once they are in SQL; a mark is never lowered by it."""

    marks: tuple[Mark, ...]


class EpochView(msgspec.Struct, frozen=True):
    """The epoch by SQL. While it is not open, ``leader`` has ``leader_left_ms`` to open it; ``behind`` is told to
    the leader: how many processes live and have not acknowledged it.
    """

    number: int
    is_open: bool
    leader: str = ""
    leader_left_ms: int = 0
    behind: int = 0


class ReadEpoch(msgspec.Struct, frozen=True):
    """Answered with an EpochView; says by the way that this process lives."""

    process_id: str
    acknowledged: int


class AdvanceEpoch(msgspec.Struct, frozen=True):
    """Begin the epoch after ``number``, led by ``leader``, unless somebody has: one that is also after
    ``beyond``. Answered with an EpochView.
    """

    number: int
    leader: str
    lease_ms: int
    beyond: int = 0


class TakeLead(msgspec.Struct, frozen=True):
    """Lead an epoch that nobody leads any more, or go on leading it. Answered with an EpochView."""

    number: int
    leader: str
    lease_ms: int


class OpenEpoch(msgspec.Struct, frozen=True):
    """The warm-up is over. Answered with an EpochView."""

    number: int
    leader: str


class ReadLaggards(msgspec.Struct, frozen=True):
    """Answered with a tuple of Mark: those of processes that are not closed and have not acknowledged
    ``number``.
    """

    number: int


class ReadMarks(msgspec.Struct, frozen=True):
    """Answered with a tuple of Mark: one process' own."""

    process_id: str


class CloseProcess(msgspec.Struct, frozen=True):
    """All that the process held is in SQL: its marks go. Answered with None."""

    process_id: str


class ProcessView(msgspec.Struct, frozen=True):
    """What SQL knows of a process: the last epoch in which it has put back all that it holds, and whether
    everything it ever held is in SQL. One that SQL does not know has acknowledged nothing.
    """

    acknowledged: int
    is_closed: bool


class ReadProcess(msgspec.Struct, frozen=True):
    """Answered with a ProcessView."""

    process_id: str


class TagInserted(msgspec.Struct, frozen=True):
    """``inserted``: nobody had opened the tag in this epoch; else it was, ``age_ms`` ago."""

    inserted: bool
    age_ms: int = 0


class InsertTag(msgspec.Struct, frozen=True):
    """Note in SQL that a tag is about to be opened. Answered with TagInserted."""

    tag: str
    number: int


class ListTags(msgspec.Struct, frozen=True):
    """Answered with a tuple of all tags that were ever opened: one that nobody has used in this epoch may
    still hold what was left behind in another.
    """


class Submit(msgspec.Struct, frozen=True):
    """A record for the ledger, written by somebody other than its owner. Answered with None, at once."""

    record: Record


Command: TypeAlias = (
    hot.Command
    | Post
    | Sleep
    | ReadBudgets
    | RaiseMarks
    | ReadEpoch
    | AdvanceEpoch
    | TakeLead
    | OpenEpoch
    | ReadLaggards
    | ReadMarks
    | CloseProcess
    | ReadProcess
    | InsertTag
    | ListTags
    | Submit
)

Steps: TypeAlias = Generator[Command, Any, T]
