"""The scripts on the nodes of a cluster: they touch no key that was not passed, and each tag has its node's run."""

from __future__ import annotations

from app.limits.hot import (
    Beat,
    Beaten,
    BudgetValue,
    Confirm,
    Confirmed,
    Done,
    Due,
    FindDue,
    Granted,
    InSQL,
    Known,
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
from app.limits.limiter import Outcome
from app.limits.redis import RedisHot
from app.store.redis import connect
from tests.contract.limits.harness import BUDGET, LIGHT, TestClock, claim, concurrency, money, requests, tokens
from tests.fakes.valkey import ValkeyCluster

TEAMS = 12


async def test_every_command_on_every_node(cluster: ValkeyCluster) -> None:
    clock = TestClock()
    client = connect(cluster.url)
    await client.start()
    hot = RedisHot(client, clock)
    runs = set()
    for team in (f"team_{number}" for number in range(TEAMS)):
        limits = (requests(5, key="{x}"), tokens(100), concurrency(3), money(1000))
        call, other, silent = (claim(*limits, tokens=9, bound=50, tag=team) for _ in range(3))
        row = InSQL(call.request_id, 2, 20, (BUDGET,))
        script = [
            (OpenTag(team, "1"), Done()),
            (Seed(team, "1", (BudgetValue(BUDGET, 100, 1),)), Done()),
            (Reserve(call, "1"), Granted),
            (Beat(team, "1", (Seen(call, 1, 2),)), Beaten()),
            (Settle(call, "1", Outcome(2, 20, 5)), Done()),
            (Confirm(team, "1", (row,), (BudgetValue(BUDGET, 120, 2),)), Confirmed()),
            (Restore(other, "1"), Done()),
            (Void(other), Done()),
            (StandIn(team, "1", "gateway-2", BUDGET, 5), Done()),
            (Reserve(silent, "1"), Granted),
        ]
        for command, expected in script:
            answer = await hot.do(command)
            assert answer == expected or (isinstance(expected, type) and isinstance(answer, expected)), answer
        clock.advance(15_000)
        assert await hot.do(FindDue(team, "1")) == Due((silent.request_id,))
        assert isinstance(await hot.do(TakeOver(team, "1", silent.request_id, (BUDGET,))), Known)
        assert isinstance(await hot.do(Look(team, silent.request_id)), Known)
        runs.add(client.run_id_for(f"hg:{{{team}}}:epoch"))
    assert len(runs) == 3  # the teams are on all nodes, each in the epoch of its own
    light = claim(requests(1), tag=LIGHT)
    assert isinstance(await hot.do(Reserve(light, "")), Granted)
    assert await hot.do(Settle(light, "", Outcome(2, 0, 0))) == Done()
    await client.close()
