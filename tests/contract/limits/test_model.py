"""Calls, owners, reapers, SQL and losses in any order that hypothesis finds, against a model that adds up for itself.

The model never asks the store what it counts. It knows which calls run and what the ledger holds, and so
what may have been spent at most; the store may think more for a while, but never less.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app.limits.hot import (
    Answer,
    Beat,
    BudgetValue,
    Cold,
    Command,
    Confirm,
    Confirmed,
    Done,
    Granted,
    InSQL,
    Known,
    Lost,
    NotDue,
    OpenTag,
    Refused,
    Reserve,
    Restore,
    Seed,
    Seen,
    Settle,
    TakeOver,
    Void,
)
from app.limits.limiter import Claim, Outcome
from app.limits.memory import MemoryHot
from tests.contract.limits.harness import BUDGET, TEAM, UNBOUND, Driver, TestClock, claim, concurrency, connected, money
from tests.fakes.valkey import ValkeyServer

MAXIMUM = 1000
EXAMPLES = {"memory": 50, "valkey": 20, "redis-server": 20}
STEPS = 60


# -- the model ----------------------------------------------------------------------------------


@dataclass
class Call:
    """``cost`` is what it cost, once it has ended; its owner may be dead, and then nobody knows. Its owner, or
    whoever found its journal, is done with it when the store has been told that SQL knows all.
    """

    claim: Claim
    cost: int | None = None
    is_dead: bool = False
    is_back: bool = True
    is_confirmed: bool = False

    @property
    def outcome(self) -> Outcome | None:
        """What its owner, or its owner's journal, says of it."""
        if self.cost is not None:
            return Outcome(2, self.cost, 0, b"exact")
        return Outcome(1, self.claim.bound_nanousd, 0, b"replayed") if self.is_dead else None


@dataclass
class Ledger:
    """SQL: one row per call, an adjustment where exact knowledge follows an estimate, and a sum with a version."""

    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    total: int = 0
    version: int = 1

    def write(self, request_id: str, rank: int, nanousd: int) -> None:
        old_rank, old = self.rows.get(request_id, (0, 0))
        if rank > old_rank:
            self.rows[request_id] = (rank, nanousd)
            self.total += nanousd - old
            self.version += 1

    def row(self, request_id: str) -> InSQL:
        return InSQL(request_id, *self.rows[request_id], (BUDGET,))

    def value(self) -> BudgetValue:
        return BudgetValue(BUDGET, self.total, self.version)


@dataclass
class Model:
    ledger: Ledger = field(default_factory=Ledger)
    calls: dict[str, Call] = field(default_factory=dict)

    def spent_at_most(self) -> int:
        """What every admitted call cost, or may have cost while nobody knows."""
        return sum(call.claim.bound_nanousd if call.cost is None else call.cost for call in self.calls.values())

    def uncommitted(self) -> list[Call]:
        """Those of which more can be written than SQL knows."""
        rows = self.ledger.rows
        ended = [(call, call.outcome) for call in self.calls.values()]
        return [call for call, outcome in ended if outcome and rows.get(call.claim.request_id, (0,))[0] < outcome.rank]


# -- the machine --------------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """One rule, which draws what happens next: rules of their own would be switched off by the half, and what
    is looked for takes all of them.
    """

    def __init__(self, server: ValkeyServer | None, seen: Counter[str]) -> None:
        super().__init__()
        self.seen = seen
        self.runner = asyncio.Runner()
        self.clock = TestClock()
        self.client = None
        if server is None:
            self.driver = Driver(MemoryHot(self.clock), self.clock)
        else:
            server.flush()
            self.driver, self.client = self.runner.run(connected(server, self.clock))
        self.model = Model()
        self.ledger = self.model.ledger
        self.epoch = 1
        self.is_open = True
        self.is_lost = False
        self.unconfirmed: list[Confirm] = []
        self.do(OpenTag(TEAM, "1"))

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """Something that is possible now."""
        weights = {
            "reserve": 6 * self.is_open,
            "reserve_and_give_up": self.is_open,
            "end": 3 * bool(self.running()),
            "tell": 2 * bool(self.ended()),
            "beat": bool(self.running()),
            "die": bool(self.running()),
            "commit": 4 * bool(self.model.uncommitted()),
            "confirm": 5 * bool(self.unconfirmed),
            "wait_and_reap": 2,
            "meet_a_reaper": 2 * bool(self.running() and not self.is_lost),
            "lose": self.is_open,
            "begin_epoch": 1 + 4 * self.is_lost if not self.is_open else 0,
            "put_back": 5 * bool(self.can_rebuild() and self.missing()),
            "open_epoch": 5 * bool(self.can_rebuild() and not self.missing()),
        }
        kind = data.draw(st.sampled_from([kind for kind, weight in weights.items() for _ in range(weight)]))
        getattr(self, kind)(data)

    def do(self, command: Command) -> Answer:
        return self.runner.run(self.driver.do(command))

    def do_again(self, command: Command, times: int) -> Answer:
        """The first answer; what is repeated changes nothing that is counted."""
        answer = self.do(command)
        taken = self.taken()
        for _ in range(times):
            self.do(command)
            assert self.taken() == taken, command
        return answer

    def taken(self) -> int | None:
        """What the store thinks is gone of the budget; None while it does not know."""
        asked = claim(money(UNBOUND))
        answer = self.do(Reserve(asked, str(self.epoch)))
        if not isinstance(answer, Granted):
            return None
        self.do(Void(asked))
        return UNBOUND - answer.standings[0][0]

    def look(self, call: Call) -> Known | None:
        return self.runner.run(self.driver.look(call.claim))

    # -- owners ---------------------------------------------------------------------------------

    def running(self) -> list[Call]:
        return [call for call in self.model.calls.values() if call.cost is None and not call.is_dead]

    def ended(self) -> list[Call]:
        return [call for call in self.model.calls.values() if call.outcome is not None]

    def reserve(self, data: st.DataObject) -> None:
        asked = claim(money(MAXIMUM), concurrency(10**6), bound=data.draw(st.sampled_from((0, 1, 60, 150, 300))))
        command = Reserve(asked, str(self.epoch))
        answer = self.do(command)
        if isinstance(answer, Cold):
            self.do(Seed(TEAM, str(self.epoch), (self.ledger.value(),)))
            answer = self.do_again(command, data.draw(st.integers(0, 1)))
        self.seen[type(answer).__name__] += 1
        if isinstance(answer, Granted):
            self.model.calls[asked.request_id] = Call(asked)
        else:
            assert isinstance(answer, Refused)

    def reserve_and_give_up(self, data: st.DataObject) -> None:
        asked = claim(money(MAXIMUM), bound=data.draw(st.sampled_from((1, 300))))
        before = self.taken()
        commands: list[Command] = [Reserve(asked, str(self.epoch)), Void(asked)]
        for command in data.draw(st.permutations(commands)):
            self.do(command)
        assert self.taken() == before

    def end(self, data: st.DataObject) -> None:
        """A call ends; whether the store hears of it is another matter."""
        call = data.draw(st.sampled_from(self.running()))
        call.cost = call.claim.bound_nanousd * data.draw(st.sampled_from((0, 50, 100))) // 100
        if data.draw(st.booleans()):
            self.settle(call)

    def tell(self, data: st.DataObject) -> None:
        """For the first time or again, early or late."""
        self.settle(data.draw(st.sampled_from(self.ended())))

    def settle(self, call: Call) -> None:
        outcome = call.outcome
        assert outcome is not None
        self.do_again(Settle(call.claim, str(self.epoch), outcome), 1)

    def beat(self, data: st.DataObject) -> None:
        self.do(Beat(TEAM, str(self.epoch), (Seen(data.draw(st.sampled_from(self.running())).claim),)))

    def die(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.running())).is_dead = True

    # -- SQL ------------------------------------------------------------------------------------

    def commit(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.model.uncommitted()))
        assert call.outcome is not None
        self.unconfirmed.append(self.write(call, call.outcome.rank, call.outcome.nanousd))

    def write(self, call: Call, rank: int, nanousd: int) -> Confirm:
        """What the writer tells the store afterwards."""
        request_id = call.claim.request_id
        self.ledger.write(request_id, rank, nanousd)
        return Confirm(TEAM, str(self.epoch), (self.ledger.row(request_id),), (self.ledger.value(),))

    def confirm(self, data: st.DataObject) -> None:
        """In any order, late, in an epoch that is over, or again."""
        command = self.unconfirmed.pop(data.draw(st.integers(0, len(self.unconfirmed) - 1)))
        if data.draw(st.integers(0, 3)) == 3:
            self.unconfirmed.append(command)
        self.deliver(command)

    def deliver(self, command: Confirm) -> None:
        row = command.requests[0]
        call = self.model.calls[row.request_id]
        before = self.look(call)
        answer = self.do_again(command, 1)
        after = self.look(call)
        if isinstance(answer, Lost):
            self.seen["late confirmation"] += 1
            assert self.is_lost or int(command.token) < self.epoch
            assert after == before
        elif before is not None and before.state == "done" and before.rank > row.rank:
            self.seen["kept"] += 1
            assert answer == Confirmed((row.request_id,))
            assert after == before
        else:
            assert answer == Confirmed()
            assert after is None
            call.is_confirmed |= call.outcome is not None and row.rank >= call.outcome.rank

    # -- reapers --------------------------------------------------------------------------------

    def wait_and_reap(self, data: st.DataObject) -> None:
        """Whoever is due, alive or not, is taken over and written with what the store says of it."""
        self.clock.advance(data.draw(st.sampled_from((1000, 6000, 16_000, 61_000))))
        if self.is_lost:
            return
        self.driver.epoch = str(self.epoch)
        for request_id in self.runner.run(self.driver.due()):
            if request_id in self.model.calls:
                self.unconfirmed.append(self.write(*self.take_over(self.model.calls[request_id])))

    def take_over(self, call: Call) -> tuple[Call, int, int]:
        """What is to be written of it: its rank and amount."""
        before, was = self.taken(), self.look(call)
        answer = self.do_again(TakeOver(TEAM, str(self.epoch), call.claim.request_id, (BUDGET,)), 1)
        assert isinstance(answer, Known)
        assert was is not None
        self.seen[f"taken over {was.state}"] += 1
        if was.state == "open":
            assert (answer.rank, answer.nanousd) == (1, call.claim.bound_nanousd)
        if was.epoch == self.epoch and before is not None:
            assert self.taken() == before  # charged, not released
        # Nobody else takes it over until a reaper's time is up.
        assert self.do(TakeOver(TEAM, str(self.epoch), call.claim.request_id, (BUDGET,))) == NotDue()
        outcome = call.outcome if answer.record else None
        return call, answer.rank, outcome.nanousd if outcome is not None else answer.nanousd

    def meet_a_reaper(self, data: st.DataObject) -> None:
        """An owner that was paused for longer than its lease, and the reaper, in every order."""
        call = data.draw(st.sampled_from(self.running()))
        self.clock.advance(16_000)
        if self.look(call) is None:
            return
        found = self.take_over(call)
        call.cost = call.claim.bound_nanousd * data.draw(st.sampled_from((0, 50, 100))) // 100
        reapers: list[Confirm] = []
        owners: list[Confirm] = []
        for step in data.draw(st.permutations(("reaper writes", "reaper confirms", "tell", "write", "confirm"))):
            if step == "tell":
                self.settle(call)
            elif step == "reaper writes":
                reapers.append(self.write(*found))
            elif step == "write":
                owners.append(self.write(call, 2, call.cost))
            for each in reapers if step == "reaper confirms" else owners if step == "confirm" else []:
                self.deliver(each)
        self.unconfirmed += reapers + owners

    # -- losses ---------------------------------------------------------------------------------

    def lose(self, data: st.DataObject) -> None:
        """The store is emptied, or only not to be believed any more; nobody is admitted until it is rebuilt."""
        if data.draw(st.booleans()):
            self.runner.run(_flush(self.driver))
            self.is_lost = True
        self.is_open = False
        for call in self.model.calls.values():
            call.is_back = False

    def begin_epoch(self, _data: st.DataObject) -> None:
        self.epoch += 1
        self.driver.epoch = str(self.epoch)
        assert self.do(OpenTag(TEAM, str(self.epoch))) == Done()
        self.is_lost = False
        for call in self.model.calls.values():
            call.is_back = False

    def can_rebuild(self) -> bool:
        return not self.is_open and not self.is_lost and self.epoch > 1

    def missing(self) -> list[Call]:
        return [call for call in self.model.calls.values() if not call.is_back and not call.is_confirmed]

    def put_back(self, data: st.DataObject) -> None:
        """By its owner; of the dead, by whoever found their journal."""
        missing = self.missing()
        for call in missing if data.draw(st.booleans()) else [data.draw(st.sampled_from(missing))]:
            if call.outcome is None:
                self.do_again(Restore(call.claim, str(self.epoch)), 1)
            else:
                self.settle(call)
            call.is_back = True
            self.seen["put back"] += 1

    def open_epoch(self, _data: st.DataObject) -> None:
        self.is_open = True

    # -- what holds -----------------------------------------------------------------------------

    @invariant()
    def the_budget_is_kept(self) -> None:
        assert self.model.spent_at_most() <= MAXIMUM

    @invariant()
    def the_store_never_counts_less(self) -> None:
        if self.is_open:
            taken = self.taken()
            assert taken is None or taken >= self.model.spent_at_most()

    def teardown(self) -> None:
        """At rest nothing is held, and the store knows what SQL does."""
        try:
            self._come_to_rest()
        finally:
            if self.client is not None:
                self.runner.run(self.client.close())
            self.runner.close()

    def _come_to_rest(self) -> None:
        if self.is_lost:
            self.epoch += 1
            self.do(OpenTag(TEAM, str(self.epoch)))
        token = self.driver.epoch = str(self.epoch)
        for call in self.running():
            call.cost = call.claim.bound_nanousd // 3
        for call in self.model.calls.values():
            outcome = call.outcome
            assert outcome is not None
            self.do(Settle(call.claim, token, outcome))
            self.ledger.write(call.claim.request_id, outcome.rank, outcome.nanousd)
        rows = tuple(map(self.ledger.row, self.model.calls))
        assert self.do(Confirm(TEAM, token, rows, (self.ledger.value(),))) == Confirmed()
        self.clock.advance(10**6)
        assert self.runner.run(self.driver.due()) == ()
        assert self.taken() == self.ledger.total == self.model.spent_at_most()
        standings = self.runner.run(self.driver.grant(claim(concurrency(10**6)))).standings
        assert standings[0][0] == 10**6 - 1


async def _flush(driver: Driver) -> None:
    driver.flush()


@pytest.mark.parametrize("store", list(EXAMPLES))
def test_money_under_every_order_of_events(store: str, servers) -> None:
    server = None if store == "memory" else servers.get(store)
    seen: Counter[str] = Counter()
    run_state_machine_as_test(
        lambda: Machine(server, seen),
        settings=settings(
            max_examples=EXAMPLES[store],
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    for event in ("Granted", "Refused", "taken over open", "taken over done", "kept", "late confirmation", "put back"):
        assert seen[event] >= EXAMPLES[store] // 10, seen
