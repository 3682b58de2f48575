"""One gateway of the simulation: the real core, a disk, and a writer of the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from app.accounting.accountant import Accountant
from app.accounting.epochs import Epochs
from app.accounting.holdings import Holdings
from app.accounting.local import LocalShare
from app.accounting.reaper import Reaper
from app.accounting.steps import LedgerAway, Post, Sleep, Steps
from app.core.errors import LimitsUnavailable
from app.core.records import Attempt, Bound, Entry, Opening, Record, attempt_id_of
from app.ledger.lines import CloseLine, OpenLine, encode_payload
from app.ledger.recovery import interrupted_record
from app.limits.hot import InSQL
from app.limits.limiter import Claim, Grant, Outcome, Refusal
from app.pipeline.admission import money_windows
from tests.simulation.constants import TEAMS

if TYPE_CHECKING:
    from tests.simulation.ledger import Written
    from tests.simulation.world import World

PERIODS_S = {"follow": 0.4, "beat": 1.0, "reap": 1.0, "confirm": 0.7, "write": 0.25}


class WriteBatch(msgspec.Struct, frozen=True):
    records: tuple[Record, ...]


class Disk:
    """A journal: openings, and records by request, in the order of their lines."""

    def __init__(self) -> None:
        self.openings: dict[str, Opening] = {}
        self.records: dict[str, Record] = {}


class Node:
    """``life`` counts its processes: what an earlier one has asked for is answered to nobody."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.life = 0
        self.paused_until_ms = 0
        self.cut_until_ms = 0
        self.sql_cut_until_ms = 0
        self.is_up = False
        self.disk = Disk()
        self.process_id = ""
        self.queue: list[Record] = []
        self.dead_processes: list[str] = []
        self.has_lost_disk = False
        self._requests = 0

    def is_cut_off(self, now_ms: int) -> bool:
        return self.cut_until_ms > now_ms

    # -- life and death -------------------------------------------------------------------------

    def start(self) -> None:
        """A new process on this disk: what the last one left is replayed before anything new is taken."""
        world = self.world
        self.life += 1
        self.is_up = True
        self.process_id = f"{self.name}.{self.life}"
        holdings = Holdings()
        self.epochs = Epochs(self.process_id, holdings)
        self.accountant = Accountant(self.process_id, self.epochs, LocalShare(world.clock))
        self.reaper = Reaper(self.epochs, lambda: world.now_ms)
        self.queue = list(self.disk.records.values())
        for request_id, opening in self.disk.openings.items():
            if request_id not in self.disk.records:
                record = interrupted_record(opening, (), (), world.now_ms)
                self.disk.records[request_id] = record
                self.queue.append(record)
        self._replayed = bool(self.queue)
        for name, steps in (
            ("follow", self.epochs.follow),
            ("beat", self.accountant.beat),
            ("reap", self.reaper.reap),
            ("confirm", self._tidy),
            ("write", self._write),
        ):
            world.spawn(self, self._forever(PERIODS_S[name], steps))

    def die(self, *, with_disk: bool = False) -> None:
        self.world.log(f"{self.name} DIES with_disk={with_disk}")
        self.life += 1
        self.is_up = False
        self.paused_until_ms = 0
        if with_disk:
            self.disk = Disk()
            self.has_lost_disk = True
            # Who held what before is noted on the disk.
            self.dead_processes.clear()
        else:
            self.dead_processes.append(self.process_id)

    def _forever(self, period_s: float, steps: Callable[[], Steps[Any]]) -> Steps[None]:
        while True:
            yield from steps()
            yield Sleep(period_s * (0.5 + self.world.random.random()))

    # -- a request ------------------------------------------------------------------------------

    def ask(self, *, team: str | None = None, seconds: float | None = None, dear: bool = False) -> None:
        """One request begins; it runs for so long and is of that team, if that is said."""
        draw = self.world.random
        team, bound = team or draw.choice(TEAMS), draw.randint(100 if dear else 20, 200)
        if seconds is None:
            seconds = draw.choice([0.01, 0.1, 0.5, 2.0, 6.0]) * draw.random()
        self._requests += 1
        request_id = f"{self.name}-{self.life}-{self._requests}"
        self.world.spawn(self, self._request(request_id, team, bound, seconds, dear=dear))

    def _request(self, request_id: str, team: str, bound: int, seconds: float, *, dear: bool) -> Steps[None]:
        world, draw = self.world, self.world.random
        opening = self._opening(request_id, team, bound)

        def claim_at(now_ms: int) -> Claim:
            nonlocal opening
            windows = money_windows(world.limits[team], now_ms)
            opening = msgspec.structs.replace(opening, budgets=tuple(window.budget for window in windows))
            return Claim(
                request_id, team, world.limits[team], bound_nanousd=bound, likely_nanousd=bound, money=windows,
                owner=self.process_id, opening=encode_payload(OpenLine(opening)),
            )  # fmt: skip

        claim = claim_at(world.now_ms)
        try:
            decided = yield from self.accountant.admit(claim, claim_at)
        except LimitsUnavailable:
            return
        if isinstance(decided, Refusal):
            world.log(f"{self.name} {request_id} REFUSED {decided.limit.name} held={decided.is_held}")
            return
        assert isinstance(decided, Grant)
        claim = decided.claim
        if draw.random() < 0.05:
            # The journal could not be written: nothing is sent.
            yield Post(self.accountant.abandon(claim))
            return
        world.admitted_at[team].append(decided.admitted_at_ms)
        self.disk.openings[request_id] = opening
        yield Sleep(0)
        attempt_id = attempt_id_of(request_id, 1)
        is_void = draw.random() < 0.1
        cost = 0 if is_void else draw.randint(bound - 5 if dear else 0, bound)
        world.send(team, attempt_id, cost)
        yield Sleep(seconds)
        world.answered(attempt_id)
        is_exact = is_void or draw.random() < 0.8
        kind = "void" if is_void else "charge" if is_exact else "estimate"
        charged = cost if is_exact else draw.randint(cost, bound)
        record = _closed(opening, Entry(attempt_id, kind, "up", "model", cost_nanousd=charged), world.now_ms)
        self.disk.records[request_id] = record
        outcome = Outcome(2 if is_exact else 1, charged, 10, encode_payload(CloseLine(record)))
        command = self.accountant.settle(request_id, outcome)
        if command is not None:
            self.world.post(self, command, lambda answer: self.accountant.settled(request_id, answer))
        self.queue.append(record)

    def _opening(self, request_id: str, team: str, bound: int) -> Opening:
        return Opening(
            request_id=request_id, admitted_at_ms=self.world.now_ms, quarter_ms=0, team_id=team, key_id="key",
            secret_id="key", endpoint="responses", stream=False, model_requested="model",
            attempt=Attempt(1, "up", "model", Bound(cost_lower_nanousd=0, cost_upper_nanousd=bound)),
        )  # fmt: skip

    # -- the ledger's writer --------------------------------------------------------------------

    def submit(self, record: Record) -> None:
        self.queue.append(record)

    def _write(self) -> Steps[None]:
        batch = tuple(self.queue[: self.world.random.randint(1, 20)])
        if not batch:
            return
        number = self.epochs.number if self.epochs.is_open else 0
        try:
            written: Written = yield WriteBatch(batch)
        except LedgerAway:
            return
        # Others may have been added behind them meanwhile.
        del self.queue[: len(batch)]
        for record in batch:
            self.disk.openings.pop(record.request_id, None)
            self.disk.records.pop(record.request_id, None)
        requests = [
            (
                record.team_id,
                InSQL(record.request_id, written.ranks[record.request_id], written.costs[record.request_id],
                      record.budgets),
            )
            for record in batch
        ]  # fmt: skip
        values = [(value.budget.budget_id.partition("-")[0], value) for value in written.values.values()]
        yield from self.accountant.committed(requests, values, number)

    def _tidy(self) -> Steps[None]:
        yield from self.accountant.confirm_again()
        if self.dead_processes and not self._is_replaying():
            retired = yield from self.accountant.retire(self.dead_processes[0])
            if retired:
                del self.dead_processes[0]

    def _is_replaying(self) -> bool:
        """Whether rows of an earlier process wait to be written."""
        return any(not record.request_id.startswith(f"{self.name}-{self.life}-") for record in self.queue)


def _closed(opening: Opening, entry: Entry, now_ms: int) -> Record:
    return Record(
        request_id=opening.request_id, admitted_at_ms=opening.admitted_at_ms, quarter_ms=0, ended_at_ms=now_ms,
        team_id=opening.team_id, key_id=opening.key_id, secret_id=opening.secret_id, endpoint=opening.endpoint,
        stream=False, model_requested="model", upstream="up", model="model", outcome="completed", entries=(entry,),
        budgets=opening.budgets,
    )  # fmt: skip
