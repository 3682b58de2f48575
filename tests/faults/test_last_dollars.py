"""The last ten dollars of a budget, and everybody wants them at once, over several replicas, while Redis is emptied:
never over, and most of them are used.
"""

from __future__ import annotations

import asyncio
import random
import time

import aiohttp
import pytest

from tests.fakes.postgres import PostgresServer
from tests.faults.chaos.clients import Crowd, Shape, Told, call
from tests.faults.chaos.constants import Prices
from tests.faults.chaos.gateways import Gateway
from tests.faults.chaos.oracles import judge
from tests.faults.chaos.people import Person, Team, rule
from tests.faults.chaos.rest import come_to_rest, heal
from tests.faults.chaos.run import gather_evidence, watch_budgets
from tests.faults.chaos.truth import read_held
from tests.faults.chaos.world import Setting, World, running_world

NANO = 1_000_000_000
LAST_USD = 10
SPENT_TOKENS = 30_000
OUTPUT_USD_PER_MTOK = 1000
PRICES = Prices(input=1000, cached=1000, output=OUTPUT_USD_PER_MTOK * 1000)
PATIENCE_S = 40.0
PAUSE_S = 7.0
USED_SHARE_MIN = 0.8

WORTH_ANOTHER_TRY = {"limits_unavailable", "rate_limit_exceeded", "upstream_unreachable"}

# What one call costs, and how many replicas there are: in the short form a hundred calls are for more than $10, too.
FORMS = [
    pytest.param(100, 2, 180, id="100-2"),
    pytest.param(500, 4, 40, id="500-4", marks=pytest.mark.long),
]


def shape_of(tokens: int, number: int, *, stream: bool) -> Shape:
    prompt = f"[[sim: tokens={tokens} pace_ms=5]] the last dollars, {number}"
    body = {"model": "sim-mini", "input": prompt, "stream": stream, "store": False, "max_output_tokens": tokens + 10}
    return Shape("/v1/responses", body, stream)


async def ask(crowd: Crowd, person: Person, gateway: Gateway, shape: Shape, until_s: float) -> None:
    """One call, made again for as long as it is worth it."""
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < until_s:
            told = Told(person.name, gateway.name, gateway.lives, 0.0, shape.stream)
            crowd.told.append(told)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await call(session, person.text, gateway.url, shape, told)
            except (aiohttp.ClientError, OSError, TimeoutError):
                told.left = True
                return
            if told.code not in WORTH_ANOTHER_TRY:
                return
            await asyncio.sleep(random.uniform(0.3, 1.0))


async def lose_redis_near_the_limit(world: World, draw: random.Random, limit: int, *, paused: bool) -> None:
    """Once most of the budget is held or settled; one of the replicas stands still meanwhile, or does not."""
    share = draw.uniform(0.75, 0.95)
    async with asyncio.timeout(PATIENCE_S):
        while taken(world) < share * limit:
            await asyncio.sleep(0.01)
    gateway = draw.choice(world.gateways)
    began_s = time.monotonic()
    if paused:
        gateway.freeze()
        world.mute.append((began_s, began_s + PAUSE_S))
        world.silent.append(world.mute[-1])
        await asyncio.sleep(draw.uniform(0, 0.3))
    world.losses.append(time.monotonic())
    world.tell(f"FLUSHALL at {share:.0%} of the budget, paused: {paused}")
    world.hot.execute("FLUSHALL")
    if paused:
        await asyncio.sleep(PAUSE_S)
        gateway.resume()


def taken(world: World) -> int:
    return max(
        (sum(int(fields.get(name, 0)) for name in "cuh") for fields in read_held(world.hot).budgets.values()), default=0
    )


@pytest.mark.parametrize("paused", [False, True], ids=["all-run", "one-paused"])
@pytest.mark.parametrize(("calls", "replicas", "tokens"), FORMS)
@pytest.mark.parametrize("turn", [pytest.param(0), *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 5))])
async def test_the_last_dollars_are_spent_once(calls, replicas, tokens, turn, paused):
    limit = (SPENT_TOKENS * OUTPUT_USD_PER_MTOK // 1_000_000 + LAST_USD) * NANO
    teams = (Team("rich", (rule("money", limit, "total"),), (("key", 1, ()),)),)
    draw = random.Random(f"{calls} {turn} {paused}")
    server = PostgresServer()
    try:
        async with running_world(Setting(seed=turn, gateways=replicas, teams=teams, prices=PRICES), server) as world:
            crowd = Crowd("last dollars", world.people, world.gateways, 0, 0)
            person = world.people[0]
            peaks: dict[tuple[str, int], int] = {}
            watching = asyncio.create_task(watch_budgets(world, peaks))
            until_s = time.monotonic() + PATIENCE_S
            first = shape_of(SPENT_TOKENS, 0, stream=False)
            first.body["input"] = first.body["input"].replace("pace_ms=5", "pace_ms=0")
            first.body["max_output_tokens"] = SPENT_TOKENS
            await ask(crowd, person, world.gateways[0], first, until_s)
            shapes = [shape_of(tokens, number, stream=number % 2 == 0) for number in range(1, calls + 1)]
            await asyncio.gather(
                lose_redis_near_the_limit(world, draw, limit, paused=paused),
                *(ask(crowd, person, draw.choice(world.gateways), shape, until_s) for shape in shapes),
            )
            await heal(world)
            _, _, owed = await come_to_rest(world)
            watching.cancel()
            evidence, broken = await gather_evidence(world, crowd, peaks)
    finally:
        await asyncio.to_thread(server.remove)
    assert [*owed, *broken, *judge(evidence)] == []
    spent = sum(attempt.nanousd for attempt in evidence.books.attempts.values())
    truth = sum(served.nanousd for served in evidence.served.values())
    assert truth <= spent <= limit
    left_at_most = (1 - USED_SHARE_MIN) * LAST_USD * NANO
    assert limit - spent <= left_at_most, crowd.codes()
