"""Limits shared through Redis: one script per decision, all of its keys in the team's hash slot.

A grant's lease on concurrency lasts fifteen seconds and is prolonged every five, so that what a dead
process held comes free. Settlements are posted, not awaited: the client keeps their order.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Literal

from app.core.clock import Clock, SystemClock
from app.core.errors import LimitsUnavailable
from app.limits.limiter import SLOTS_PER_WINDOW, Claim, Grant, Limit, Refusal, Standing, countable
from app.store.redis import Argument, RedisClient, RedisError, RedisUnavailable, Script

LEASE_MS = 15_000
HEARTBEAT_S = 5.0
CLOSE_S_MAX = 2.0
REMEMBER_MS_MIN = 61_000
"""How long a reservation is remembered at least; longer where a window is."""
VOID_MS = 60_000
"""For so long a reserve that was given up is refused, should the server come to it late."""
EXTENDED_AT_ONCE_MAX = 500

GRANTED, VOIDED = 0, 2
FOREVER = -1


class RedisLimiter:
    """The limiter of any number of processes. The client is its owner's to start and to close.

    ``clock`` is for requests without limits, of which the store is not asked; with ``time_from_clock``
    (tests) the store is told its time too.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        clock: Clock | None = None,
        time_from_clock: bool = False,
        lease_ms: int = LEASE_MS,
        heartbeat_s: float = HEARTBEAT_S,
        close_s_max: float = CLOSE_S_MAX,
    ) -> None:
        self._client = client
        self._clock = clock or SystemClock()
        self._time_from_clock = time_from_clock
        self._lease_ms = lease_ms
        self._heartbeat_s = heartbeat_s
        self._close_s_max = close_s_max
        self._reserve = _script("reserve")
        self._settle = _script("settle")
        self._extend = _script("extend")
        self._leased: dict[str, Claim] = {}
        self._heart: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._heart = asyncio.create_task(self._beat(), name="limits heartbeat")

    async def close(self) -> None:
        if self._heart is not None:
            self._heart.cancel()
            with suppress(asyncio.CancelledError):
                await self._heart
            self._heart = None
        await self._client.drain(self._close_s_max)

    async def reserve(self, claim: Claim) -> Grant | Refusal:
        if not claim.limits:
            return Grant(claim, self._clock.now_ms(), ())
        try:
            answer = await self._client.call(self._reserve, _keys(claim), self._reserve_arguments(claim))
        except asyncio.CancelledError:
            self._void(claim)
            raise
        except RedisError as error:
            # Without an answer it may have been granted, or be granted yet: nobody would settle it.
            if not isinstance(error, RedisUnavailable) or error.sent:
                self._void(claim)
            raise LimitsUnavailable from error
        return self._decision(claim, answer)

    def settle(self, grant: Grant, tokens: int) -> None:
        claim = grant.claim
        if claim.limits:
            self._leased.pop(claim.request_id, None)
            self._post_settlement(claim, requests=1, tokens=countable(tokens), void_ms=0)

    def release(self, grant: Grant) -> None:
        self.settle(grant, 0)

    async def heartbeat(self) -> None:
        """Prolong the leases of all grants that are not settled."""
        request_ids: defaultdict[str, list[str]] = defaultdict(list)
        for claim in self._leased.values():
            for limit in claim.limits:
                if limit.kind == "concurrency":
                    request_ids[_key(claim.team_id, limit)].append(claim.request_id)
        # Sent in one go: a lease that is settled meanwhile must not be taken again after its settlement.
        answers: list[asyncio.Future[object]] = []
        with suppress(RedisUnavailable):  # the next beat comes before a lease ends
            for key, ids in request_ids.items():
                for start in range(0, len(ids), EXTENDED_AT_ONCE_MAX):
                    some = ids[start : start + EXTENDED_AT_ONCE_MAX]
                    answers.append(self._client.call(self._extend, [key], [self._now(), self._lease_ms, *some]))
        await asyncio.gather(*answers, return_exceptions=True)

    def __repr__(self) -> str:
        return f"RedisLimiter({self._client!r}, leased {len(self._leased)})"

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            await self.heartbeat()

    def _now(self) -> Argument:
        """'' asks the server to use its own clock."""
        return self._clock.now_ms() if self._time_from_clock else ""

    def _reserve_arguments(self, claim: Claim) -> list[Argument]:
        remember_ms = REMEMBER_MS_MIN
        arguments: list[Argument] = [self._now(), claim.request_id, remember_ms, self._lease_ms]
        for limit in claim.limits:
            slot_ms = limit.slot_ms
            arguments += (limit.kind, claim.amount_of(limit), limit.maximum, slot_ms)
            remember_ms = max(remember_ms, (SLOTS_PER_WINDOW + 1) * slot_ms)
        arguments[2] = remember_ms
        return arguments

    def _decision(self, claim: Claim, answer: list[int]) -> Grant | Refusal:
        """What ``reserve.lua`` answered, in our words."""
        verdict = answer[0]
        if verdict == VOIDED:
            raise LimitsUnavailable
        numbers = iter(answer[2:] if verdict == GRANTED else answer[3:])
        standings = tuple(
            Standing(limit, remaining, reset_ms)
            for limit, remaining, reset_ms in zip(claim.limits, numbers, numbers, strict=True)
        )
        if verdict == GRANTED:
            if any(limit.kind == "concurrency" for limit in claim.limits):
                self._leased[claim.request_id] = claim
            return Grant(claim, answer[1], standings)
        limit, retry_after_ms = claim.limits[answer[1] - 1], answer[2]
        return Refusal(limit, None if retry_after_ms == FOREVER else retry_after_ms, standings)

    def _void(self, claim: Claim) -> None:
        """As if the request had never come, whether the store has reserved it or will do so late."""
        self._post_settlement(claim, requests=0, tokens=0, void_ms=VOID_MS)

    def _post_settlement(self, claim: Claim, *, requests: int, tokens: int, void_ms: int) -> None:
        used = {"requests": requests, "tokens": tokens, "concurrency": 1}
        arguments: list[Argument] = [claim.request_id, void_ms]
        for limit in claim.limits:
            arguments += (limit.kind, used[limit.kind] - claim.amount_of(limit))
        self._client.post(self._settle, _keys(claim), arguments)


def _script(name: Literal["reserve", "settle", "extend"]) -> Script:
    return Script(name, (Path(__file__).parent / "scripts" / f"{name}.lua").read_text(encoding="utf-8"))


def _keys(claim: Claim) -> list[str]:
    """The reservation, then one key per limit."""
    team_id = claim.team_id
    return [
        f"hg:{{{team_id}}}:reservation:{claim.request_id}",
        *[_key(team_id, limit) for limit in claim.limits],
    ]


def _key(team_id: str, limit: Limit) -> str:
    """Where ``limit`` is held; the team's id in braces decides the shard, so a claim's keys are together."""
    return f"hg:{{{team_id}}}:{limit.scope}:{limit.scope_id}:{limit.name}"
