"""kill -9 in the middle of calls, again and again: nothing that the upstream billed is missing, what nobody saw the
end of is an estimate that says so, and never below the truth.
"""

from __future__ import annotations

import asyncio
import random

import httpx
import pytest

from tests.fakes.postgres import PostgresServer
from tests.faults.chaos.clients import Crowd
from tests.faults.chaos.constants import configuration_of
from tests.faults.chaos.gateways import Gateway
from tests.faults.chaos.oracles import Evidence, judge
from tests.faults.chaos.people import Team, make_people, rule
from tests.faults.chaos.rest import come_to_rest, heal
from tests.faults.chaos.run import check_ledger, faults_in_log, gather_evidence
from tests.faults.chaos.servers import Upstream
from tests.faults.chaos.truth import Held, read_file, read_served
from tests.faults.chaos.world import Setting, running_world

TEAMS = (
    Team(
        "alpha", (rule("money", 5_000_000_000, "month"),), (("bound", 3, ()), ("crowd", 2, (rule("concurrency", 6),)))
    ),
    Team("gamma", (), (("unbound", 2, ()),)),
)
CLIENTS = 10
RUNNING_MIN = 4
WAIT_S_MAX = 15.0

TIMES = [pytest.param(5, id="5"), pytest.param(100, id="100", marks=pytest.mark.long)]


async def kill_often(gateway: Gateway, crowd: Crowd, times: int) -> None:
    """Each time that some calls are under way."""
    draw = random.Random(f"kills {times}")
    over = asyncio.Event()
    asking = asyncio.create_task(crowd.ask(over.is_set))
    try:
        for _ in range(times):
            await gateway.ready()
            async with asyncio.timeout(WAIT_S_MAX):
                while crowd.running < RUNNING_MIN:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(draw.uniform(0, 0.5))
            await gateway.kill()
            gateway.start()
        await gateway.ready()
        await asyncio.sleep(0.5)
    finally:
        over.set()
        await asking


@pytest.mark.parametrize("times", TIMES)
async def test_an_embedded_gateway_loses_nothing_when_it_is_killed(tmp_path, times):
    gateway = None
    upstream = Upstream(tmp_path)
    try:
        await upstream.start()
        config = tmp_path / "headgate.yaml"
        config.write_text(configuration_of(upstream.base_url))
        gateway = Gateway("gw0", tmp_path / "gw0", config)
        gateway.data_dir.mkdir(mode=0o700)
        people = await make_people(f"sqlite:///{gateway.data_dir / 'headgate.db'}", TEAMS)
        gateway.start()
        crowd = Crowd(f"embedded {times}", people, [gateway], CLIENTS, 0.05)
        await kill_often(gateway, crowd, times)
        await nothing_is_pending(gateway)
        assert await gateway.stop() == 0
    finally:
        upstream.kill()
        if gateway is not None:
            await gateway.remove()
    evidence = Evidence(
        served=read_served(upstream.logs),
        books=read_file(gateway.data_dir / "headgate.db"),
        held=Held({}, {}, {}, []),
        told=crowd.told,
        people=people,
    )
    broken = [*judge(evidence), *await check_ledger(HEADGATE_DATA_DIR=str(gateway.data_dir)), *faults_in_log(gateway)]
    assert broken == []
    told_apart(evidence, times)


async def nothing_is_pending(gateway: Gateway) -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(WAIT_S_MAX):
        while True:
            metrics = await gateway.metrics(client)
            if not metrics["headgate_journal_records"] and not metrics["headgate_in_flight"]:
                return
            await asyncio.sleep(0.1)


def told_apart(evidence: Evidence, times: int) -> None:
    """The kills did hit calls, each of them one of a client at most, and what became of those is told as what it is."""
    crashed = {
        request_id for request_id, record in evidence.books.records.items() if record["error_code"] == "gateway_crashed"
    }
    assert 0 < len(crashed) <= times * CLIENTS
    for request_id, attempts in evidence.books.requests().items():
        if request_id in crashed:
            assert attempts[-1].kind == "estimate"
            assert evidence.books.records[request_id]["outcome"] == "interrupted"


@pytest.mark.parametrize("times", TIMES)
async def test_a_gateway_with_redis_and_postgresql_loses_nothing_when_it_is_killed(times):
    server = PostgresServer()
    try:
        async with running_world(Setting(seed=times, gateways=1, teams=TEAMS), server) as world:
            crowd = Crowd(f"shared {times}", world.people, world.gateways, CLIENTS, 0.05)
            await kill_often(world.gateways[0], crowd, times)
            await heal(world)
            _, _, owed = await come_to_rest(world)
            assert owed == []
            evidence, broken = await gather_evidence(world, crowd, {})
    finally:
        await asyncio.to_thread(server.remove)
    assert [*judge(evidence), *broken] == []
    told_apart(evidence, times)
