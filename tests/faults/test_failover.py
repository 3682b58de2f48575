"""The master of Redis dies under load, and another takes its place: by sentinels, or in a cluster. What was not yet
replicated is lost with it, so this is a loss of the hot state: no call is missing from the bill or below its truth,
no budget is passed, and strict limits are closed for the time that it takes.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.fakes.postgres import PostgresServer
from tests.fakes.valkey import ValkeyCluster, ValkeySentinel
from tests.faults.chaos.clients import Crowd
from tests.faults.chaos.constants import configuration_of
from tests.faults.chaos.gateways import Gateway
from tests.faults.chaos.oracles import Evidence, judge
from tests.faults.chaos.people import Team, make_people, rule
from tests.faults.chaos.run import check_ledger, closed_spans, faults_in_log
from tests.faults.chaos.servers import Upstream
from tests.faults.chaos.truth import Held, read_books, read_served

TEAMS = (
    Team("alpha", (rule("money", 400_000_000, "month"),), (("a", 3, ()), ("b", 2, (rule("concurrency", 6),)))),
    Team("beta", (rule("money", 60_000_000, "month"), rule("requests", 60, "minute")), (("c", 2, ()),)),
    Team("gamma", (), (("d", 2, ()),)),
)
CLIENTS = 14
BEFORE_S, AFTER_S = 3.0, 10.0
REST_S_MAX = 90.0
CLOSED_S_MAX = 20.0
FAILOVERS = 2


async def come_to_rest(gateways: list[Gateway]) -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(REST_S_MAX):
        for gateway in gateways:
            while True:
                metrics = await gateway.metrics(client)
                owed = [name for name, value in metrics.items() if name.startswith("headgate_degraded") and value]
                if not owed and not metrics["headgate_journal_records"] and not metrics["headgate_in_flight"]:
                    break
                await asyncio.sleep(0.2)


def kill_master(redis: ValkeySentinel | ValkeyCluster, team_id: str) -> None:
    """That which has the team's keys; its replica takes over."""
    master = redis.primary if isinstance(redis, ValkeySentinel) else redis.owner(f"hg:{{{team_id}}}:epoch")
    master.kill()


@pytest.mark.long
@pytest.mark.parametrize("kind", [ValkeySentinel, ValkeyCluster], ids=["sentinel", "cluster"])
async def test_a_failover_under_load_loses_nothing_and_passes_no_budget(tmp_path: Path, kind):
    server = PostgresServer()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, server.remove)
        await asyncio.to_thread(server.start)
        url = await server.create_database()
        made = kind() if kind is ValkeySentinel else kind(replicas=1, node_timeout_ms=1000)
        redis = stack.enter_context(made)
        upstream = Upstream(tmp_path)
        stack.callback(upstream.kill)
        await upstream.start()
        config = tmp_path / "headgate.yaml"
        config.write_text(configuration_of(upstream.base_url))
        people = await make_people(url, TEAMS)
        gateways = [
            Gateway(f"gw{n}", tmp_path / f"gw{n}", config, HEADGATE_DATABASE_URL=url, HEADGATE_REDIS_URL=redis.url)
            for n in range(2)
        ]
        for gateway in gateways:
            stack.push_async_callback(gateway.remove)
            gateway.start()
        for gateway in gateways:
            await gateway.ready()
        crowd = Crowd(f"failover {kind.__name__}", people, gateways, CLIENTS, 0.08)
        over = asyncio.Event()
        asking = asyncio.create_task(crowd.ask(over.is_set))
        for turn in range(FAILOVERS):
            await asyncio.sleep(BEFORE_S)
            await asyncio.to_thread(kill_master, redis, people[turn].team_id)
            await asyncio.sleep(AFTER_S)
            await asyncio.to_thread(redis.restore)
        over.set()
        await asking
        await come_to_rest(gateways)
        codes = [await gateway.stop() for gateway in gateways]
        books = await read_books(url)
        broken = await check_ledger(HEADGATE_DATABASE_URL=url)
        upstream.kill()
        evidence = Evidence(
            served=read_served(upstream.logs),
            books=books,
            held=Held({}, {}, {}, []),
            told=crowd.told,
            people=people,
            losses=3 * FAILOVERS,
            longest_silence_s=AFTER_S,
            may_lose_leases=True,
        )
    broken += [each for gateway in gateways for each in faults_in_log(gateway)]
    assert [*judge(evidence), *broken] == []
    assert codes == [0, 0]
    assert sum(served.billed for served in evidence.served.values()) > 100
    spans = [span for gateway in gateways for span in closed_spans(gateway)]
    print(f"strict limits were closed for {[round(span.length_s, 1) for span in spans]} s, epoch {books.epoch}")
    assert books.epoch > 1 and spans, "nothing was lost"
    assert max(span.length_s for span in spans) < CLOSED_S_MAX
