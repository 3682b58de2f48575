"""What the suites drive: the hot state in memory or behind Lua, with a clock that only the test moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import count
from typing import TypeVar

from app.core.identity import BoundPolicy, LimitMode
from app.core.records import BudgetWindow
from app.limits.hot import (
    Answer,
    BudgetValue,
    Command,
    Confirm,
    Confirmed,
    Due,
    FindDue,
    Granted,
    InSQL,
    Known,
    Look,
    Lost,
    OpenTag,
    Refused,
    Reserve,
    Seed,
    Settle,
    TakeOver,
)
from app.limits.limiter import MAXIMUM_MAX, Claim, Limit, MoneyWindow, Outcome
from app.limits.memory import MemoryHot
from app.limits.redis import RedisHot
from app.store.redis import RedisClient
from tests.fakes.valkey import ValkeyServer

START_MS = 1_800_000_000_123
MINUTE_MS = 60_000
DAY_MS = 86_400_000
TEAM = "team_1"
LIGHT = "up:openai"
"""A tag of limits that protect an upstream: it has no epochs."""
BUDGET = BudgetWindow("budget_1", 0)
FOREVER_MS = 2**53
UNBOUND = MAXIMUM_MAX

A = TypeVar("A", bound=Answer)
_numbers = count(1)


class TestClock:
    """A clock that stands still until it is moved."""

    __test__ = False

    def __init__(self, now_ms: int = START_MS) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._now_ms / 1000

    def advance(self, milliseconds: int) -> None:
        self._now_ms += milliseconds


class Driver:
    """One of the stores, asked in few words. ``epoch`` is the number that goes with every command."""

    def __init__(self, hot: MemoryHot | RedisHot, clock: TestClock, server: ValkeyServer | None = None) -> None:
        self.hot = hot
        self.clock = clock
        self.server = server
        self.epoch = "1"

    async def do(self, command: Command) -> Answer:
        """The answer; of a token only the epoch, since only one of the stores has a run id to add."""
        answer = self.hot.apply(command) if isinstance(self.hot, MemoryHot) else await self.hot.do(command)
        if isinstance(answer, Lost) and answer.found is not None:
            return Lost(answer.found.partition(":")[0])
        return answer

    async def expect(self, kind: type[A], command: Command) -> A:
        answer = await self.do(command)
        assert isinstance(answer, kind), answer
        return answer

    def flush(self) -> None:
        """Lose everything."""
        if isinstance(self.hot, MemoryHot):
            self.hot.flush()
        else:
            assert self.server is not None
            self.server.flush()

    # -- commands in this epoch -----------------------------------------------------------------

    async def open(self, epoch: str = "1", tag: str = TEAM) -> None:
        self.epoch = epoch
        await self.do(OpenTag(tag, epoch))

    async def reserve(self, claim: Claim) -> Answer:
        return await self.do(Reserve(claim, self._token(claim.tag)))

    async def take(self, *limits: Limit, tokens: int = 0, bound: int = 0, request_id: str = "") -> Claim:
        """A claim that is granted."""
        taken = claim(*limits, tokens=tokens, bound=bound, request_id=request_id)
        await self.grant(taken)
        return taken

    async def grant(self, claim: Claim) -> Granted:
        return await self.expect(Granted, Reserve(claim, self._token(claim.tag)))

    async def refuse(self, *limits: Limit, tokens: int = 0, bound: int = 0) -> Refused:
        refused = claim(*limits, tokens=tokens, bound=bound)
        return await self.expect(Refused, Reserve(refused, self.epoch))

    async def settle(self, claim: Claim, tokens: int = 0, nanousd: int = 0, rank: int = 2) -> Answer:
        outcome = Outcome(rank, nanousd, tokens, b"record of %d" % rank)
        return await self.do(Settle(claim, self._token(claim.tag), outcome))

    async def seed(self, spent: int, version: int, budget: BudgetWindow = BUDGET) -> Answer:
        return await self.do(Seed(TEAM, self.epoch, (BudgetValue(budget, spent, version),)))

    async def take_over(self, claim: Claim) -> Answer:
        budgets = tuple(window.budget for window in claim.money)
        return await self.do(TakeOver(claim.tag, self.epoch, claim.request_id, budgets))

    async def confirm(self, claim: Claim, rank: int, nanousd: int, *values: BudgetValue) -> tuple[str, ...]:
        """The ids that were kept."""
        request = InSQL(claim.request_id, rank, nanousd, tuple(window.budget for window in claim.money))
        return (await self.expect(Confirmed, Confirm(claim.tag, self.epoch, (request,), values))).kept

    async def look(self, claim: Claim) -> Known | None:
        answer = await self.do(Look(claim.tag, claim.request_id))
        return answer if isinstance(answer, Known) else None

    async def due(self, tag: str = TEAM) -> tuple[str, ...]:
        return (await self.expect(Due, FindDue(tag, self.epoch))).request_ids

    # -- what is left ---------------------------------------------------------------------------

    async def remaining(self, limit: Limit) -> int:
        """What is left of a limit of tokens; asking takes nothing."""
        asked = claim(limit)
        granted = await self.grant(asked)
        await self._forget(asked)
        return granted.standings[0][0]

    async def left(self, maximum: int, budget: BudgetWindow = BUDGET) -> int:
        """What is left of a budget of ``maximum``, be it negative; asking takes nothing."""
        asked = claim(money(UNBOUND, budget=budget), windows=(MoneyWindow(budget, FOREVER_MS),))
        granted = await self.grant(asked)
        await self._forget(asked)
        return granted.standings[0][0] - UNBOUND + maximum

    async def _forget(self, asked: Claim) -> None:
        await self.settle(asked)
        assert await self.confirm(asked, 2, 0) == ()

    def _token(self, tag: str) -> str:
        return self.epoch if tag == TEAM else ""


def new_id() -> str:
    return f"request_{next(_numbers)}"


def claim(
    *limits: Limit,
    tokens: int = 0,
    bound: int = 0,
    likely: int = 0,
    request_id: str = "",
    tag: str = TEAM,
    windows: tuple[MoneyWindow, ...] | None = None,
) -> Claim:
    """A claim; budgets are those that never end, unless ``windows`` says when they do."""
    of_money = tuple(
        MoneyWindow(BudgetWindow(limit.counter, 0), FOREVER_MS) for limit in limits if limit.kind == "money"
    )
    return Claim(
        request_id=request_id or new_id(),
        tag=tag,
        limits=limits,
        tokens=tokens,
        bound_nanousd=bound,
        likely_nanousd=likely,
        money=of_money if windows is None else windows,
        owner="gateway-1",
        opening=b'{"the":"opening"}',
    )


def requests(maximum: int, *, key: str = "key_1", window_ms: int = MINUTE_MS, mode: LimitMode = "enforce") -> Limit:
    return Limit(
        scope="key",
        scope_id=key,
        name="requests_per_minute",
        kind="requests",
        maximum=maximum,
        counter=f"{key}.requests",
        window_ms=window_ms,
        mode=mode,
    )


def tokens(maximum: int, *, key: str = "key_1", window_ms: int = MINUTE_MS, mode: LimitMode = "enforce") -> Limit:
    return Limit(
        scope="key",
        scope_id=key,
        name="tokens_per_minute",
        kind="tokens",
        maximum=maximum,
        counter=f"{key}.tokens",
        window_ms=window_ms,
        mode=mode,
    )


def concurrency(maximum: int, *, key: str = "key_1", mode: LimitMode = "enforce") -> Limit:
    return Limit(
        scope="key",
        scope_id=key,
        name="concurrency",
        kind="concurrency",
        maximum=maximum,
        counter=f"{key}.concurrency",
        mode=mode,
    )


def money(
    maximum: int, *, budget: BudgetWindow = BUDGET, bound: BoundPolicy = "maximum", mode: LimitMode = "enforce"
) -> Limit:
    return Limit(
        scope="team",
        scope_id=TEAM,
        name="budget",
        kind="money",
        maximum=maximum,
        counter=budget.budget_id,
        window="total",
        bound=bound,
        mode=mode,
    )


async def connected(server: ValkeyServer, clock: TestClock) -> tuple[Driver, RedisClient]:
    """A hot state on ``server`` that is told the time by ``clock``."""
    client = RedisClient(server.url)
    await client.start()
    return Driver(RedisHot(client, clock), clock, server), client


async def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Returns as soon as ``condition`` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.005)
