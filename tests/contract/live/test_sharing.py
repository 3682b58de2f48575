"""The live feed of several processes, over real servers."""

from __future__ import annotations

import asyncio

import hiredis
import pytest

from app.store.live import MESSAGE_BYTES_MAX, Names
from app.telemetry.live import Scope
from app.telemetry.live.board import FINISHED_KEPT
from tests.contract.live.nodes import SECRET, until

SEEN_S_MAX = 1.0
"""How long after it has begun a request is seen at another process, once somebody looks there."""
HELD_UP_S_MAX = 5.0
"""The same for its own requests, where a server that does not answer could hold it up, on a busy machine."""


@pytest.mark.quiet
async def test_a_request_of_one_process_is_seen_at_another_within_a_second(server, fleet):
    one, other = await fleet.node(server.url), await fleet.node(server.url)
    before = one.stage.begin()
    watcher = fleet.watch(other)
    await until(lambda: before in watcher.in_flight)
    request_id = one.stage.begin()
    assert await until(lambda: request_id in watcher.in_flight) < SEEN_S_MAX
    assert watcher.in_flight[request_id] == "host/p0"
    one.stage.end(request_id)
    assert await until(lambda: request_id in watcher.finished) < SEEN_S_MAX
    one.stage.end(before)
    await until(lambda: watcher.count["in_flight"] == 0)
    assert watcher.in_flight == {}
    assert not watcher.count["degraded"]


async def test_what_had_ended_at_another_process_is_shown_once(server, fleet):
    one, other = await fleet.node(server.url), await fleet.node(server.url)
    ended = one.stage.serve(5)
    watcher = fleet.watch(other)
    await until(lambda: set(watcher.finished) == set(ended))
    second = fleet.watch(one)
    assert sorted(second.finished) == sorted(ended)
    await asyncio.sleep(1.5)
    assert len(watcher.finished) == 5


async def test_nothing_is_published_while_nobody_looks(server, fleet):
    one, other = await fleet.node(server.url), await fleet.node(server.url)

    def published() -> int:
        stats = calls_of(server.execute("INFO", "commandstats"))
        return stats.get("cmdstat_publish", 0)

    before = published()
    one.stage.serve(50)
    await asyncio.sleep(1.5)
    assert published() == before
    watcher = fleet.watch(other)
    await until(lambda: published() > before)
    await watcher.close()
    fleet.watchers.remove(watcher)
    # The sign that somebody looks runs out.
    server.execute("DEL", Names(SECRET).watched)
    await until(lambda: not one.sharing.is_watched and not other.sharing.is_watched)
    await asyncio.sleep(0.5)
    quiet = published()
    one.stage.serve(50)
    await asyncio.sleep(1)
    assert published() == quiet
    assert one.board.finished.maxlen == FINISHED_KEPT


async def test_a_burst_is_batched_and_counted(server, fleet):
    one, other = await fleet.node(server.url), await fleet.node(server.url)
    watcher = fleet.watch(other)
    await until(lambda: one.sharing.is_watched)
    await asyncio.sleep(0.5)
    before = calls_of(server.execute("INFO", "commandstats")).get("cmdstat_publish", 0)
    for _ in range(20):
        one.stage.serve(50)
        await asyncio.sleep(0.1)
    published = calls_of(server.execute("INFO", "commandstats"))["cmdstat_publish"] - before
    # Two processes for two seconds and a bit.
    assert published <= 10 * 2 * 2.5
    await until(lambda: len(watcher.finished) + watcher.dropped == 1000)
    assert watcher.dropped > 0


async def test_a_server_that_dies_is_told_and_the_own_requests_go_on_being_shown(server, fleet):
    one, other = await fleet.node(server.url), await fleet.node(server.url)
    watcher = fleet.watch(other)
    theirs = one.stage.begin()
    await until(lambda: theirs in watcher.in_flight)
    server.kill()
    await until(lambda: watcher.count.get("degraded"))
    mine = other.stage.begin()
    assert await until(lambda: mine in watcher.in_flight) < HELD_UP_S_MAX
    # Of the others nobody knows any more.
    await until(lambda: set(watcher.in_flight) == {mine})
    server.start()
    await until(lambda: not watcher.count["degraded"])
    await until(lambda: set(watcher.in_flight) == {mine, theirs})
    assert watcher.count["in_flight"] == 2 or await until(lambda: watcher.count["in_flight"] == 2)


async def test_a_frozen_server_is_told_and_holds_nobody_up(server, fleet):
    one, other = await fleet.node(server.url), await fleet.node(server.url)
    watcher = fleet.watch(other)
    await until(lambda: one.sharing.is_watched)
    server.freeze()
    for _ in range(10):
        one.stage.serve(5)
        await asyncio.sleep(0.1)
    mine = other.stage.begin()
    assert await until(lambda: mine in watcher.in_flight) < HELD_UP_S_MAX
    await until(lambda: watcher.count.get("degraded"))
    server.resume()
    await until(lambda: not watcher.count["degraded"])
    theirs = one.stage.begin()
    await until(lambda: theirs in watcher.in_flight)
    # What could not be told is counted.
    await until(lambda: len(set(watcher.finished)) + watcher.dropped == 50)


@pytest.mark.quiet
async def test_a_process_that_ends_takes_its_requests_along_at_once(server, fleet):
    one, other = await fleet.node(server.url), await fleet.node(server.url)
    watcher = fleet.watch(other)
    theirs = one.stage.begin()
    await until(lambda: theirs in watcher.in_flight)
    fleet.nodes.remove(one)
    await one.close()
    assert await until(lambda: not watcher.in_flight) < SEEN_S_MAX


async def test_another_ledger_on_the_same_server_is_not_heard(server, fleet):
    one, other = await fleet.node(server.url, b"another" * 4), await fleet.node(server.url)
    watcher, foreign = fleet.watch(other), fleet.watch(one)
    theirs = one.stage.begin()
    await until(lambda: theirs in foreign.in_flight)
    await asyncio.sleep(1.5)
    assert watcher.in_flight == {}


async def test_what_is_not_ours_is_not_shown(server, fleet):
    node = await fleet.node(server.url)
    watcher = fleet.watch(node)
    await until(lambda: node.sharing._subscription.up)
    channel = Names(SECRET).channel
    for forged in ("", "x", "\x00" * 40, "x" * (MESSAGE_BYTES_MAX + 100)):
        server.execute("PUBLISH", channel, forged)
    await until(lambda: node.sharing.refused == 4)
    assert watcher.in_flight == {}
    mine = node.stage.begin()
    await until(lambda: mine in watcher.in_flight)


async def test_a_lead_at_another_process_sees_its_team_alone(server, fleet):
    one, other = await fleet.node(server.url), await fleet.node(server.url)
    watcher = fleet.watch(other, Scope(teams=frozenset({"team-a"})))
    await until(lambda: one.sharing.is_watched)
    own, foreign = one.stage.begin("a1", "a"), one.stage.begin("b1", "b")
    await until(lambda: own in watcher.in_flight)
    await asyncio.sleep(0.5)
    assert foreign not in watcher.in_flight
    await until(lambda: watcher.count["in_flight"] == 1)


async def test_in_a_cluster_every_node_passes_it_on(cluster, fleet):
    nodes = [await fleet.node(cluster.url) for _ in range(3)]
    watcher = fleet.watch(nodes[0])
    ids = [node.stage.begin() for node in nodes]
    await until(lambda: set(watcher.in_flight) == set(ids))
    assert not watcher.count["degraded"]


async def test_it_follows_a_master_that_fails_over(sentinels, fleet):
    one, other = await fleet.node(sentinels.url), await fleet.node(sentinels.url)
    watcher = fleet.watch(other)
    before = one.stage.begin()
    await until(lambda: before in watcher.in_flight)
    sentinels.primary.kill()
    await until(lambda: watcher.count.get("degraded"))
    await until(lambda: not watcher.count["degraded"])
    after = one.stage.begin()
    await until(lambda: {before, after} == set(watcher.in_flight))


def calls_of(answer: bytes) -> dict[str, int]:
    """How often each command was called."""
    assert not isinstance(answer, hiredis.ReplyError)
    told = {}
    for line in answer.decode().splitlines():
        name, _, rest = line.partition(":calls=")
        if rest:
            told[name] = int(rest.partition(",")[0])
    return told
