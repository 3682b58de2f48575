"""What the suite drives: a limiter on one of the stores, with a clock that only the test moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import count

from app.limits.limiter import Claim, Grant, Limit, Limiter, Refusal
from tests.fakes.valkey import ValkeyServer

START_MS = 1_800_000_000_123
MINUTE_MS = 60_000

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
    """Reserves and settles in few words."""

    def __init__(self, limiter: Limiter, clock: TestClock, server: ValkeyServer | None = None) -> None:
        self.limiter = limiter
        self.clock = clock
        self.server = server

    async def reserve(self, *limits: Limit, tokens: int = 0, request_id: str = "") -> Grant | Refusal:
        return await self.limiter.reserve(Claim(request_id or new_id(), "team_1", limits, tokens))

    async def grant(self, *limits: Limit, tokens: int = 0, request_id: str = "") -> Grant:
        decision = await self.reserve(*limits, tokens=tokens, request_id=request_id)
        assert isinstance(decision, Grant), decision
        return decision

    async def refuse(self, *limits: Limit, tokens: int = 0, request_id: str = "") -> Refusal:
        decision = await self.reserve(*limits, tokens=tokens, request_id=request_id)
        assert isinstance(decision, Refusal), decision
        return decision

    async def remaining(self, limit: Limit) -> int:
        """What is left of a token limit; asking takes nothing."""
        grant = await self.grant(limit, tokens=0)
        self.limiter.settle(grant, 0)
        return grant.standings[0].remaining


def new_id() -> str:
    return f"request_{next(_numbers)}"


def requests(maximum: int, *, key: str = "key_1", window_ms: int = MINUTE_MS) -> Limit:
    return Limit("key", key, "requests_per_minute", "requests", maximum, window_ms)


def tokens(maximum: int, *, key: str = "key_1", window_ms: int = MINUTE_MS) -> Limit:
    return Limit("key", key, "tokens_per_minute", "tokens", maximum, window_ms)


def concurrency(maximum: int, *, key: str = "key_1") -> Limit:
    return Limit("key", key, "concurrency", "concurrency", maximum)


def team_requests(maximum: int) -> Limit:
    return Limit("team", "team_1", "requests_per_minute", "requests", maximum, MINUTE_MS)


async def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Returns as soon as ``condition`` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.005)
