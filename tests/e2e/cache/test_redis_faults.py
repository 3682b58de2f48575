"""The cache's Redis fails under load: answers are never wrong, never late, and none is missing on the bill."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import hiredis
import pytest

from app.store.redis.client import TIMEOUT_S
from tests.e2e.cache import wire
from tests.e2e.cache.sites import Site, body_of, opened_site, word
from tests.e2e.cache.wire import Told
from tests.e2e.doors import SHARED
from tests.fakes.fleet import wait_for
from tests.fakes.people import Key
from tests.fakes.valkey import ValkeyServer

CLIENTS = 4
QUESTIONS = 6
CALL_S = 0.02
SLACK_S = 0.5
ANSWERED_S_MAX = 2 * TIMEOUT_S + CALL_S + SLACK_S
"""Who asks looks for an answer, and for who is at work on one: each may wait for the store's timeout once."""
JUNK_BYTES = 100_000
DEGRADED = 'headgate_degraded{dependency="cache"}'


@dataclass
class Stage:
    """A gateway whose cache has a Redis of its own."""

    site: Site
    valkey: ValkeyServer
    twin: Site | None = None

    @property
    def sites(self) -> list[Site]:
        return [self.site] if self.twin is None else [self.site, self.twin]


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Iterator[Stage]:
    with (
        ValkeyServer(None, "--maxmemory-policy", "noeviction") as valkey,
        opened_site(tmp_path_factory.mktemp("stage"), SHARED, HEADGATE_CACHE_REDIS_URL=valkey.url) as site,
    ):
        yield Stage(site, valkey)


@dataclass
class Load:
    """Clients that ask, each its share of the same few questions; what they got."""

    stage: Stage
    key: Key
    seed: str
    told: list[tuple[str, Told]] = field(default_factory=list)
    degraded: set[float] = field(default_factory=set)
    over: bool = False

    async def ask(self, number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")
        began_s = time.monotonic()
        while not self.over:
            # A few questions at a time, and others a while later.
            said = f"{self.seed}-{int((time.monotonic() - began_s) * 2)}-{chance.randrange(QUESTIONS)}"
            text = f'[[sim: first_ms={int(CALL_S * 1000)}]] Say "{said}".'
            site = chance.choice(self.stage.sites)
            body = body_of(text, stream=chance.random() < 0.5)
            self.told.append((said, await wire.ask(site.port, self.key.text, body)))
            await asyncio.sleep(0.005)

    async def watch(self) -> None:
        while not self.over:
            metrics = await asyncio.to_thread(self.stage.site.gateway.metrics)
            self.degraded.add(metrics[DEGRADED])
            await asyncio.sleep(0.1)

    async def run(self) -> None:
        await asyncio.gather(self.watch(), *(self.ask(number) for number in range(CLIENTS)))

    def suffer(self, fault: Callable[[ValkeyServer, float], None], lasts_s: float, around_s: float) -> None:
        """A server ends with the thread that has started it: the clients have the other one."""
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(asyncio.run, self.run())
            try:
                time.sleep(around_s)
                fault(self.stage.valkey, lasts_s)
                time.sleep(around_s)
            finally:
                self.over = True
            running.result()


def killed(valkey: ValkeyServer, lasts_s: float) -> None:
    valkey.kill()
    time.sleep(lasts_s)
    valkey.start()


def frozen(valkey: ValkeyServer, lasts_s: float) -> None:
    valkey.freeze()
    time.sleep(lasts_s)
    valkey.resume()


def emptied(valkey: ValkeyServer, lasts_s: float) -> None:
    until = time.monotonic() + lasts_s
    while time.monotonic() < until:
        valkey.execute("FLUSHALL")
        time.sleep(0.2)


def filled(valkey: ValkeyServer, lasts_s: float) -> None:
    used = int(valkey.execute("INFO", "memory").partition(b"used_memory:")[2].partition(b"\r")[0])
    valkey.execute("CONFIG", "SET", "maxmemory", used + 40 * JUNK_BYTES)
    with suppress(hiredis.ReplyError):
        for number in range(100):
            valkey.execute("SET", f"junk:{number}", "x" * JUNK_BYTES)
        raise AssertionError("it is not full")
    time.sleep(lasts_s)
    valkey.execute("FLUSHALL")
    valkey.execute("CONFIG", "SET", "maxmemory", 0)


FAULTS = {"killed": killed, "frozen": frozen, "emptied": emptied, "filled": filled}
IS_AWAY = ("killed", "frozen")


def text_of(told: Told) -> str:
    return told.response["output"][0]["content"][0]["text"]


def check(stage: Stage, name: str, lasts_s: float, around_s: float) -> Load:
    site = stage.site
    load = Load(stage, site.key(), f"{name}-{word()}")
    load.suffer(FAULTS[name], lasts_s, around_s)
    assert len(load.told) > 50
    wrong = [(said, one.status, one.body[:200]) for said, one in load.told if one.status != 200 or not one.is_whole]
    assert wrong == []
    assert [said for said, one in load.told if text_of(one) != said] == [], "each answer belongs to its request"
    slowest = max(one.took_s for _, one in load.told)
    assert slowest < ANSWERED_S_MAX, f"{slowest:.3f} s"
    for each in stage.sites:
        each.settled()
    records = site.records(load.key, len(load.told))
    assert {row["outcome"] for row in records} == {"completed"}
    assert {row["request_id"] for row in records} == {one.request_id for _, one in load.told}
    site.check_ledger()
    # Afterwards it is a cache again.
    assert (1.0 in load.degraded) == (name in IS_AWAY)
    wait_for(lambda: site.metrics()[DEGRADED] == 0)

    def is_kept() -> bool:
        text = f"Say {word()}."
        return [site.ask(load.key, text).cache for _ in range(2)] == ["miss", "hit"]

    wait_for(is_kept)
    return load


@pytest.mark.quiet
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_redis_makes_misses_and_nothing_worse(stage, name):
    load = check(stage, name, 2.0 if name == "frozen" else 1.0, 0.4)
    caches = {one.cache for _, one in load.told}
    assert {"miss", "hit"} <= caches <= {"miss", "hit", "joined"}


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_redis_is_borne_by_two_replicas(tmp_path, name):
    with (
        ValkeyServer(None, "--maxmemory-policy", "noeviction") as valkey,
        opened_site(tmp_path / "first", SHARED, HEADGATE_CACHE_REDIS_URL=valkey.url) as first,
        first.twin(tmp_path / "second") as second,
    ):
        check(Stage(first, valkey, second), name, 2.0 if name == "frozen" else 4.0, 3.0)
