"""Thousands of random commands, repeated, late and out of order: the scripts answer as memory does.

In memory nothing is swept here: what it forgets for want of room is what a clock that goes back would
still find in Redis. That sweeping changes no answer while the clock goes forward is the second test's.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from app.core.records import BudgetWindow
from app.limits.hot import (
    Beat,
    BudgetValue,
    Command,
    Confirm,
    FindDue,
    InSQL,
    Look,
    OpenTag,
    Reserve,
    Restore,
    Seed,
    Seen,
    Settle,
    StandIn,
    TakeOver,
    Void,
)
from app.limits.limiter import Claim, Limit, MoneyWindow, Outcome
from app.limits.memory import MemoryHot
from app.limits.tag import Tag
from tests.contract.limits.harness import (
    DAY_MS,
    FOREVER_MS,
    LIGHT,
    START_MS,
    TEAM,
    Driver,
    TestClock,
    concurrency,
    connected,
    money,
    requests,
    tokens,
)
from tests.fakes.valkey import ValkeyServer

STEPS = 4000
SEEDS = 3
FORWARD_MS = (1, 13, 250, 999, 1000, 4000, 5000, 15_000, 61_000, 200_000)
BACKWARD_MS = (-1, -900, -3000, -30_000, -60_000, -200_000)
TODAY_MS = START_MS - START_MS % DAY_MS

TOTAL = BudgetWindow("total", 0)
DAILY = BudgetWindow("daily:Zoë {x}", TODAY_MS)
WINDOWS = {"total": MoneyWindow(TOTAL, FOREVER_MS), DAILY.budget_id: MoneyWindow(DAILY, TODAY_MS + DAY_MS)}

TEAM_LIMITS: list[tuple[Limit, ...]] = [
    (),
    (requests(12), tokens(2000), concurrency(4)),
    (requests(12), tokens(2000), concurrency(4), money(50_000, budget=TOTAL)),
    (money(50_000, budget=TOTAL), money(20_000, budget=DAILY, bound="estimate")),
    (concurrency(2), money(20_000, budget=DAILY), requests(5, key="key_2", mode="observe")),
    (tokens(900, key="key_2", window_ms=6000, mode="observe"), concurrency(1, key="key_2", mode="observe")),
    (money(9 * 10**15, budget=TOTAL, mode="observe"), money(0, budget=DAILY, mode="observe")),
]
LIGHT_LIMITS: list[tuple[Limit, ...]] = [
    (requests(8, key="up"), concurrency(3, key="up")),
    (tokens(3000, key="up", window_ms=3_600_000),),
]


class Unswept(MemoryHot):
    def _sweep(self, tag: Tag, now_ms: int) -> None:
        """Keep everything."""


class Script:
    """Makes up commands about a few requests, so that each is met in every state."""

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.epoch = 2
        self.claims: list[Claim] = []
        self.made = 0
        self.kinds: dict[str, tuple[int, Callable[[], Command]]] = {
            "reserve": (30, lambda: Reserve(claim := self.claim(fresh=0.6), self.token(claim.tag))),
            "settle": (16, lambda: Settle(claim := self.claim(), self.token(claim.tag), self.outcome())),
            "void": (4, lambda: Void(self.claim(fresh=0.2))),
            "restore": (6, lambda: Restore(self.claim(fresh=0.1, of_team=True), self.token(TEAM))),
            "beat": (5, self.beat),
            "find_due": (4, lambda: FindDue(TEAM, self.token(TEAM), self.source.choice((1, 3, 100)))),
            "look": (8, lambda: Look((claim := self.claim()).tag, claim.request_id)),
            "take_over": (12, self.take_over),
            "confirm": (9, self.confirm),
            "seed": (5, lambda: Seed(TEAM, self.token(TEAM), self.values())),
            "stand_in": (3, self.stand_in),
            "open_tag": (4, self.open_tag),
        }

    def step(self) -> tuple[str, Command]:
        kind = self.source.choices(list(self.kinds), [weight for weight, _ in self.kinds.values()])[0]
        return kind, self.kinds[kind][1]()

    def token(self, tag: str) -> str:
        if tag == LIGHT:
            return ""
        return str(self.epoch + self.source.choices((0, -1, 1), (40, 1, 1))[0])

    def claim(self, fresh: float = 0.0, *, of_team: bool = False) -> Claim:
        """One of the latest requests, or a new one."""
        some = [claim for claim in self.claims[-14:] if claim.tag == TEAM or not of_team]
        if some and self.source.random() >= fresh:
            return self.source.choice(some)
        tag = TEAM if of_team or self.source.random() < 0.8 else LIGHT
        limits = self.source.choice(TEAM_LIMITS if tag == TEAM else LIGHT_LIMITS)
        self.made += 1
        claim = Claim(
            request_id=f"request_{self.made}",
            tag=tag,
            limits=limits,
            tokens=self.source.choice((0, 1, 50, 300, 700, 2001)),
            bound_nanousd=self.source.choice((0, 1, 900, 5000, 18_000, 60_000)),
            likely_nanousd=self.source.choice((0, 700)),
            money=tuple(WINDOWS[limit.counter] for limit in limits if limit.kind == "money"),
            owner=self.source.choice(("gateway-1", "gateway-2")),
            opening=self.source.choice((b"", b"\x00\r\n\xff", b"opening")),
        )
        self.claims.append(claim)
        return claim

    def outcome(self) -> Outcome:
        source = self.source
        nanousd = source.choice((0, 1, 800, 5000, 7000))
        return Outcome(source.choice((1, 2)), nanousd, source.choice((-3, 0, 1, 50, 300, 5000)), b"record\n\xfe")

    def beat(self) -> Command:
        tag = self.source.choice((TEAM, TEAM, LIGHT))
        some = {claim.request_id: claim for claim in (self.claim() for _ in range(3)) if claim.tag == tag}
        running = tuple(Seen(claim, self.source.randrange(50), self.source.randrange(900)) for claim in some.values())
        return Beat(tag, self.token(tag), running, tuple(self.claim().request_id for _ in range(2)))

    def take_over(self) -> Command:
        claim = self.claim(of_team=True)
        return TakeOver(TEAM, self.token(TEAM), claim.request_id, tuple(window.budget for window in claim.money))

    def confirm(self) -> Command:
        some = [self.claim(of_team=True) for _ in range(self.source.randrange(4))]
        requests = tuple(
            InSQL(
                claim.request_id,
                self.source.choice((1, 2)),
                self.source.choice((0, 800, 5000)),
                tuple(window.budget for window in claim.money),
            )
            for claim in some
        )
        return Confirm(TEAM, self.token(TEAM), requests, self.values())

    def values(self) -> tuple[BudgetValue, ...]:
        budgets = self.source.sample([TOTAL, DAILY], self.source.randrange(3))
        return tuple(
            BudgetValue(budget, self.source.choice((0, 1000, 30_000)), self.source.randrange(self.made + 2))
            for budget in budgets
        )

    def stand_in(self) -> Command:
        budget = self.source.choice((TOTAL, DAILY))
        return StandIn(TEAM, self.token(TEAM), self.source.choice("ab"), budget, self.source.choice((0, 0, 5000)))

    def open_tag(self) -> Command:
        if self.source.random() < 0.4:
            self.epoch += 1
        return OpenTag(TEAM, str(self.epoch - self.source.choice((0, 0, 1))))


async def _compare(
    server: ValkeyServer, memory_type: type[MemoryHot], seed: int, pauses_ms: tuple[int, ...]
) -> Counter[str]:
    source = random.Random(seed)
    clock = TestClock()
    redis, client = await connected(server, clock)
    memory = Driver(memory_type(clock), clock)
    script = Script(source)
    answers: Counter[str] = Counter()
    for step in range(STEPS):
        dice = source.random()
        if dice < 0.15:
            clock.advance(source.choice(pauses_ms))
        elif dice < 0.152:
            memory.flush()
            redis.flush()
        kind, command = script.step()
        expected = await memory.do(command)
        found = await redis.do(command)
        assert found == expected, f"step {step}: {command}"
        answers[f"{kind} {type(expected).__name__}"] += 1
    assert client.posts_dropped == 0
    await client.close()
    return answers


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_every_answer_is_memorys_whatever_the_clock_does(shared_server: ValkeyServer, seed: int) -> None:
    answers = await _compare(shared_server, Unswept, seed, (*FORWARD_MS, *BACKWARD_MS))
    assert _rare(answers) == set(), answers


@pytest.mark.parametrize("seed", range(SEEDS, 2 * SEEDS))
async def test_sweeping_changes_no_answer_while_the_clock_goes_forward(shared_server: ValkeyServer, seed: int) -> None:
    answers = await _compare(shared_server, MemoryHot, seed, FORWARD_MS[:-1])
    assert _rare(answers) == set(), answers


def _rare(answers: Counter[str]) -> set[str]:
    """What a run has to have met, and has not: it would prove too little."""
    wanted = {
        *("reserve Granted", "reserve Refused", "reserve Cold", "reserve Voided", "reserve Lost"),
        *("settle Done", "settle Lost", "void Done", "restore Done", "restore Lost", "beat Beaten", "find_due Due"),
        *("look Known", "look Done", "take_over Known", "take_over NotDue", "take_over Done", "take_over Lost"),
        *("confirm Confirmed", "confirm Lost", "seed Done", "stand_in Done", "open_tag Done", "open_tag Lost"),
    }
    return {answer for answer in wanted if answers[answer] < 5}
