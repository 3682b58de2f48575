"""Some gateways, one hot state, one database and an upstream, under a scheduler that a seed decides.

Each gateway runs the real accounting core (``app.accounting``) as generators. Whatever one asks for is
carried out at a moment that the seed chooses: late, twice, without an answer, or never; and between any
two steps a gateway may die, stand still or lose its disk, the hot state may be emptied, set back or away.
"""

from __future__ import annotations

import copy
import heapq
import random
from collections.abc import Callable
from typing import Any

import msgspec

from app.accounting.steps import LedgerAway, Post, Sleep, Steps, Submit
from app.core.identity import LimitWindow
from app.core.records import Record
from app.limits import hot
from app.limits.hot import Answer, Command, StoreAway
from app.limits.memory import MemoryHot
from tests.simulation.constants import LIMIT_NANOUSD, MIDNIGHT_MS, TEAMS, limits_of
from tests.simulation.ledger import SimLedger, Written
from tests.simulation.node import Node, WriteBatch

TIMEOUT_MS = 300
STORE_MS = (1, 6)
SQL_MS = (2, 25)


class Faults(msgspec.Struct):
    """How likely each mishap is; drawn from the seed."""

    store_lost_request: float = 0.0
    store_lost_answer: float = 0.0
    store_late: float = 0.0
    store_twice: float = 0.0
    sql_lost_request: float = 0.0
    sql_lost_answer: float = 0.0


class Clock:
    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        return self._world.now_ms

    def monotonic_s(self) -> float:
        return self._world.now_ms / 1000


class World:
    """``trace`` prints every step."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.trace = trace
        self.now_ms = 0
        self.clock = Clock(self)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self.hot = MemoryHot(self.clock)
        self.run_id = 1
        self._snapshot: Any = None
        self.store_away_until_ms = 0
        self.sql_away_until_ms = 0
        self.ledger = SimLedger(lambda: self.now_ms)
        self.nodes: list[Node] = []
        self.faults = Faults()
        self.faults_ever = False
        # What the upstream knows: what each attempt that it was sent has cost.
        self.truth: dict[str, int] = {}
        self.sent = 0
        self.at_upstream: dict[str, str] = {}
        self.concurrency_seen = 0
        self.told_exact: set[str] = set()
        self.leases_lost = False
        self.data_lost_at: list[int] = []
        self.over_limit: list[str] = []
        # In a world of days the budgets' midnight comes in the middle of it.
        self.window: LimitWindow = self.random.choice(["total", "total", "day"])
        self.began_ms = MIDNIGHT_MS - (self.random.randint(1000, 5000) if self.window == "day" else 0)
        self.now_ms = self.began_ms
        counts_requests = self.random.random() < 0.3
        self.limits = {team: limits_of(team, self.window, counts_requests=counts_requests) for team in TEAMS}
        self.admitted_at: dict[str, list[int]] = {team: [] for team in TEAMS}

    def log(self, text: str) -> None:
        if self.trace:
            print(f"{self.now_ms - self.began_ms:>7} {text}")

    # -- time -----------------------------------------------------------------------------------

    def at(self, delay_ms: int, event: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (self.now_ms + delay_ms, self._order, event))

    def run(self, until_ms: int) -> None:
        """Everything that happens until then."""
        while self._events and self._events[0][0] <= until_ms:
            at_ms, _, event = heapq.heappop(self._events)
            self.now_ms = max(self.now_ms, at_ms)
            event()
        self.now_ms = max(self.now_ms, until_ms)

    def skip(self, by_ms: int) -> None:
        """Time passes, and everything that was about to happen is late."""
        self.now_ms += by_ms

    # -- tasks ----------------------------------------------------------------------------------

    def spawn(self, node: Node, steps: Steps[Any], then: Callable[[Any], None] = lambda _: None) -> None:
        """Drive ``steps`` for as long as its gateway lives."""
        life = node.life
        self._resume(node, life, steps, lambda: next(steps), then)

    def _resume(
        self, node: Node, life: int, steps: Steps[Any], advance: Callable[[], Any], then: Callable[[Any], None]
    ) -> None:
        if node.life != life:
            return
        if node.paused_until_ms > self.now_ms:
            # A process that stands still takes nothing in until it goes on.
            self.at(node.paused_until_ms - self.now_ms, lambda: self._resume(node, life, steps, advance, then))
            return
        try:
            command = advance()
        except StopIteration as end:
            then(end.value)
            return
        except (StoreAway, LedgerAway):
            raise
        self._carry_out(
            node,
            command,
            lambda answer: self._resume(node, life, steps, lambda: steps.send(answer), then),
            lambda error: self._resume(node, life, steps, lambda: steps.throw(error), then),
        )

    def _carry_out(
        self, node: Node, command: Any, answer: Callable[[Any], None], fail: Callable[[Exception], None]
    ) -> None:
        if isinstance(command, Sleep):
            self.at(int(command.seconds * 1000), lambda: answer(None))
        elif isinstance(command, Submit):
            node.submit(command.record)
            self.at(0, lambda: answer(None))
        elif isinstance(command, Post):
            self.post(node, command.command)
            self.at(0, lambda: answer(None))
        elif type(command) in STORE_COMMANDS:
            self._ask_store(node, command, answer, fail)
        else:
            self._ask_sql(node, command, answer, fail)

    def post(self, node: Node, command: Command, then: Callable[[Answer], None] = lambda _: None) -> None:
        """Nobody waits for its answer."""
        life = node.life

        def told(answer: Answer) -> None:
            if node.life == life:
                then(answer)

        self._ask_store(node, command, told, lambda _: None, is_post=True)

    # -- the hot state --------------------------------------------------------------------------

    def _ask_store(
        self,
        node: Node,
        command: Command,
        answer: Callable[[Any], None],
        fail: Callable[[Exception], None],
        *,
        is_post: bool = False,
    ) -> None:
        token = getattr(command, "token", None)
        if token:
            # The run id is that of the connection: of the server as it is when the command leaves.
            command = msgspec.structs.replace(command, token=f"{token}:{self.run_id}")  # type: ignore[type-var]
        if node.is_cut_off(self.now_ms) or self.store_away_until_ms > self.now_ms:
            self.at(1, lambda: fail(StoreAway(sent=False)))
            return
        draw, faults, run_id = self.random.random(), self.faults, self.run_id
        delay_ms = self.random.randint(*STORE_MS)
        if draw < faults.store_lost_request:
            self.at(TIMEOUT_MS, lambda: fail(StoreAway(sent=True)))
            return
        draw -= faults.store_lost_request
        if draw < faults.store_lost_answer:
            self.at(delay_ms, lambda: self._apply_late(node, command, run_id))
            self.at(TIMEOUT_MS, lambda: fail(StoreAway(sent=True)))
            return
        draw -= faults.store_lost_answer
        if draw < faults.store_late:
            self.at(TIMEOUT_MS, lambda: fail(StoreAway(sent=True)))
            self.at(TIMEOUT_MS + self.random.randint(1, 3000), lambda: self._apply_late(node, command, run_id))
            return
        draw -= faults.store_late
        if draw < faults.store_twice:
            self.at(delay_ms + self.random.randint(1, 400), lambda: self._apply_late(node, command, run_id))

        def carried_out() -> None:
            if run_id != self.run_id and not is_post:
                # Its connection ended with the server that it went to; a post is sent again by the client.
                fail(StoreAway(sent=True))
                return
            told = self._apply(node, command)
            self.at(self.random.randint(*STORE_MS), lambda: answer(told))

        self.at(delay_ms, carried_out)

    def _apply(self, node: Node, command: Command) -> Answer:
        told = self.hot.apply(command)
        if isinstance(command, hot.Settle) and command.outcome.rank > 1 and isinstance(told, hot.Done):
            self.told_exact.add(f"{command.claim.request_id}.1")
        if self.trace:
            self.log(f"{node.name} {_short(command)} -> {_short(told)}")
        return told

    def _apply_late(self, node: Node, command: Command, run_id: int) -> None:
        """On the connection that it left by, if that still leads somewhere."""
        if run_id == self.run_id:
            self._apply(node, command)

    def flush(self) -> None:
        self.log("FLUSH")
        self.hot.flush()
        self._lose_data()

    def restart_store(self, *, keep: bool) -> None:
        """The server is another one afterwards: with its data, or with that of its last snapshot."""
        self.run_id += 1
        self.log(f"RESTART run_id={self.run_id} keep={keep}")
        if not keep:
            self._set_back()
            self._lose_data()
        self.leases_lost = True

    def take_snapshot(self) -> None:
        held = {name: value for name, value in vars(self.hot).items() if name not in {"_clock", "_steps"}}
        self._snapshot = copy.deepcopy(held)

    def _set_back(self) -> None:
        if self._snapshot is None:
            self.hot.flush()
        else:
            vars(self.hot).update(copy.deepcopy(self._snapshot))

    def _lose_data(self) -> None:
        self.leases_lost = True
        self.data_lost_at.append(self.now_ms)

    # -- SQL ------------------------------------------------------------------------------------

    def _ask_sql(
        self, node: Node, command: Any, answer: Callable[[Any], None], fail: Callable[[Exception], None]
    ) -> None:
        delay_ms = self.random.randint(*SQL_MS)
        draw = self.random.random()
        if (
            self.sql_away_until_ms > self.now_ms
            or node.sql_cut_until_ms > self.now_ms
            or draw < self.faults.sql_lost_request
        ):
            self.at(delay_ms, lambda: fail(LedgerAway()))
            return

        def carried_out() -> None:
            told: object = (
                self._write(node, command.records) if isinstance(command, WriteBatch) else self.ledger.answer(command)
            )
            if self.trace:
                self.log(f"{node.name} {_short(command)} -> {_short(told)}")
            later_ms = self.random.randint(*SQL_MS)
            if draw < self.faults.sql_lost_request + self.faults.sql_lost_answer:
                self.at(later_ms, lambda: fail(LedgerAway()))
            else:
                self.at(later_ms, lambda: answer(told))

        self.at(delay_ms, carried_out)

    def _write(self, node: Node, records: tuple[Record, ...]) -> Written:
        written = self.ledger.write(records)
        for window, (spent, _) in self.ledger.budgets.items():
            if spent > LIMIT_NANOUSD:
                self.over_limit.append(f"{window.budget_id} by {node.name} at {self.now_ms - self.began_ms}: {spent}")
        return written

    # -- the upstream ---------------------------------------------------------------------------

    def send(self, team: str, attempt_id: str, cost: int) -> None:
        """An attempt arrives, and will cost this."""
        self.sent += 1
        self.truth[attempt_id] = cost
        self.at_upstream[attempt_id] = team
        at_once = sum(each == team for each in self.at_upstream.values())
        self.concurrency_seen = max(self.concurrency_seen, at_once)

    def answered(self, attempt_id: str) -> None:
        self.at_upstream.pop(attempt_id, None)


STORE_COMMANDS = {
    hot.Reserve, hot.Settle, hot.Void, hot.Restore, hot.Beat, hot.FindDue, hot.Look, hot.TakeOver, hot.Confirm,
    hot.Seed, hot.StandIn, hot.OpenTag,
}  # fmt: skip


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 260 else text[:260] + "…"
