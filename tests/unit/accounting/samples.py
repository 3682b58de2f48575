"""Limits, claims and a process as short as a test wants them."""

from __future__ import annotations

from typing import Any

import msgspec

from app.accounting.accountant import Accountant
from app.accounting.epochs import Epochs
from app.accounting.holdings import Holding, Holdings
from app.accounting.local import LocalShare
from app.accounting.steps import EpochView, Mark, RaiseMarks, ReadEpoch, ReadMarks
from app.core.calendar import FOREVER_MS
from app.core.identity import LimitMode, LimitPolicy
from app.core.records import Attempt, Bound, BudgetWindow, Entry, Opening, Record, attempt_id_of
from app.ledger.lines import CloseLine, OpenLine, encode_payload
from app.limits.hot import Granted, InSQL, Reserve
from app.limits.limiter import Claim, Grant, Limit, MoneyWindow, Outcome
from tests.unit.accounting.stepping import NOT_SENT, Walk

NOW_MS = 1_800_000_000_000
TEAM = "team_1"
PROCESS = "process-1"
BUDGET = BudgetWindow("budget_1", 0)
TOTAL = MoneyWindow(BUDGET, FOREVER_MS)


class TestClock:
    """A clock that stands still until it is moved."""

    __test__ = False

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_s(self) -> float:
        return self.at_ms / 1000


def money(maximum: int = 1000, counter: str = "budget_1", **changes: Any) -> Limit:
    given: dict[str, Any] = {"scope": "team", "scope_id": TEAM, "name": "budget", "kind": "money", "window": "total"}
    return Limit(maximum=maximum, counter=counter, **{**given, **changes})


def requests(maximum: int = 10, policy: LimitPolicy = "strict", mode: LimitMode = "enforce") -> Limit:
    return Limit(
        scope="team",
        scope_id=TEAM,
        name="requests",
        kind="requests",
        maximum=maximum,
        counter="requests",
        window_ms=60_000,
        policy=policy,
        mode=mode,
    )


def concurrency(maximum: int = 10, policy: LimitPolicy = "strict") -> Limit:
    return Limit(
        scope="team",
        scope_id=TEAM,
        name="concurrency",
        kind="concurrency",
        maximum=maximum,
        counter="concurrency",
        policy=policy,
    )


def claim_of(
    request_id: str = "r1",
    *limits: Limit,
    bound: int = 100,
    likely: int = 60,
    tag: str = TEAM,
    windows: tuple[MoneyWindow, ...] | None = None,
    owner: str = PROCESS,
) -> Claim:
    """A claim of one budget without an end, unless ``limits`` and their ``windows`` are given."""
    limits = limits or (money(),)
    budgets = tuple(
        MoneyWindow(BudgetWindow(limit.counter, 0), FOREVER_MS) for limit in limits if limit.kind == "money"
    )
    return Claim(
        request_id,
        tag,
        limits,
        tokens=7,
        bound_nanousd=bound,
        likely_nanousd=likely,
        money=budgets if windows is None else windows,
        owner=owner,
        opening=b"opening of " + request_id.encode(),
    )


def free_claim(request_id: str = "r1", *limits: Limit) -> Claim:
    """A claim that no limit, or only ``limits`` without money, binds."""
    return Claim(request_id, TEAM, limits, owner=PROCESS, opening=b"opening of " + request_id.encode())


def never_remade(_at_ms: int) -> Claim:
    raise AssertionError("the claim is in its windows")


def exact(nanousd: int = 70, record: bytes = b"record") -> Outcome:
    return Outcome(2, nanousd, 11, record)


def in_sql(request_id: str = "r1", nanousd: int = 70, rank: int = 2, budgets: tuple[BudgetWindow, ...] = (BUDGET,)):
    return InSQL(request_id, rank, nanousd, budgets)


class Process:
    """The core of one process; ``states`` is what it told of its state."""

    def __init__(self, process_id: str = PROCESS) -> None:
        self.id = process_id
        self.clock = TestClock()
        self.states: list[tuple[bool, str]] = []
        self.holdings = Holdings()
        self.epochs = Epochs(process_id, self.holdings, lambda is_open, why: self.states.append((is_open, why)))
        self.local = LocalShare(self.clock)
        self.accountant = Accountant(process_id, self.epochs, self.local)

    def open(self, number: int = 1, marks: tuple[Mark, ...] = ()) -> Process:
        """Has it believe in epoch ``number``, which is open; nothing has to be put back."""
        view = EpochView(number, is_open=True)
        walk = Walk(self.epochs.follow())
        walk.expect(ReadEpoch(self.id, self.epochs.acknowledged), view)
        if isinstance(walk.command, RaiseMarks):
            walk.answer()
        walk.expect(ReadEpoch(self.id, number), view)
        walk.expect(ReadMarks(self.id), marks)
        assert (self.epochs.number, self.epochs.is_open) == (number, True)
        return self

    def lose(self) -> None:
        """Somebody else has begun another epoch, and this process has heard of it."""
        self.epochs._enter(EpochView(self.epochs.number + 1, is_open=False))

    def knows_mark(self, budget: BudgetWindow = BUDGET, nanousd: int = 10**9) -> Process:
        """No mark has to be raised before a reservation."""
        self.accountant._marks[budget] = nanousd
        return self

    def grant(self, claim: Claim) -> Holding:
        """A call that the hot state has admitted."""
        return self._admit(claim, Granted(NOW_MS, tuple((0, 0) for _ in claim.limits)))

    def grant_locally(self, claim: Claim) -> Holding:
        """A call that was admitted while the hot state was away; its limits do not close with that."""
        return self._admit(claim, NOT_SENT)

    def _admit(self, claim: Claim, answer: Any) -> Holding:
        walk = Walk(self.accountant.admit(claim, never_remade))
        if isinstance(walk.command, RaiseMarks):
            walk.answer()
        walk.expect(Reserve(claim, str(self.epochs.number)), answer)
        assert isinstance(walk.result, Grant)
        return self.holding(claim.request_id)

    def holding(self, request_id: str) -> Holding:
        holding = self.holdings.get(request_id)
        assert holding is not None
        return holding


def opening_of(request_id: str = "r1", bound: int = 100, budgets: tuple[BudgetWindow, ...] = (BUDGET,)) -> Opening:
    return Opening(
        request_id=request_id,
        admitted_at_ms=NOW_MS - 20_000,
        quarter_ms=0,
        team_id=TEAM,
        key_id="key_1",
        secret_id="key_1",
        endpoint="responses",
        stream=False,
        model_requested="model",
        attempt=Attempt(1, "up", "model", Bound(cost_lower_nanousd=10, cost_upper_nanousd=bound)),
        budgets=budgets,
    )


def record_of(
    request_id: str = "r1",
    *costs: int | None,
    budgets: tuple[BudgetWindow, ...] = (BUDGET,),
    team_id: str = TEAM,
) -> Record:
    """A record with an entry for each of ``costs``."""
    entries = tuple(
        Entry(attempt_id_of(request_id, number), "charge", "up", "model", cost_nanousd=cost)
        for number, cost in enumerate(costs or (70,), 1)
    )
    return Record(
        request_id=request_id,
        admitted_at_ms=NOW_MS - 20_000,
        quarter_ms=0,
        ended_at_ms=NOW_MS - 1000,
        team_id=team_id,
        key_id="key_1",
        secret_id="key_1",
        endpoint="responses",
        stream=False,
        model_requested="model",
        upstream="up",
        model="model",
        outcome="completed",
        entries=entries,
        budgets=budgets,
    )


def opening_payload(opening: Opening) -> bytes:
    return encode_payload(OpenLine(opening))


def record_payload(record: Record) -> bytes:
    return encode_payload(CloseLine(record))


def protective(claim: Claim) -> Claim:
    """The same, where no limit closes with the hot state."""
    limits = tuple(msgspec.structs.replace(limit, policy="protective") for limit in claim.limits)
    return msgspec.structs.replace(claim, limits=limits)
