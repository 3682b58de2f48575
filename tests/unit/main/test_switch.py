"""A configuration takes another's place: what stays the same is kept, what has gone is closed when nobody needs it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from app.main import switch as switching
from app.main.prices import SetPrices
from app.main.switch import Switch
from app.main.upstreams import Upstreams
from app.settings import Configuration
from app.telemetry.logs import LogWriter
from app.upstream.pool import UpstreamPool


def configured(**upstreams: dict[str, Any]) -> Configuration:
    return Configuration.model_validate({"upstreams": upstreams})


A = {"base_url": "http://a/v1"}
B = {"base_url": "http://b/v1"}


@pytest.fixture
def closed(monkeypatch):
    """The names of pools in the order in which they were closed."""
    names: list[str] = []
    real = UpstreamPool.close

    async def close(self):
        names.append(self.name)
        await real(self)

    monkeypatch.setattr(UpstreamPool, "close", close)
    return names


async def test_pools_of_upstreams_that_have_not_changed_are_kept(tmp_path, closed):
    upstreams = Upstreams(tmp_path)
    first, off = await upstreams.open(configured(a=A, b=B), {})
    second, _ = await upstreams.open(configured(a=A, b={**B, "connections_max": 7}, c=A), first)
    assert second["a"] is first["a"]
    assert second["b"] is not first["b"] and second["c"] is not first["a"]
    assert (off, closed) == (frozenset(), [])
    await upstreams.close_others(second.values())
    assert closed == ["b"]
    await upstreams.close()
    assert sorted(closed) == ["a", "b", "b", "c"]


async def test_an_upstream_without_its_key_is_off_and_has_no_pool(tmp_path):
    upstreams = Upstreams(tmp_path)
    pools, off = await upstreams.open(configured(a={**A, "api_key": ""}, b=B), {})
    assert (set(pools), off) == ({"b"}, {"a"})
    await upstreams.close()


async def test_somebody_elses_simulator_is_used_and_none_is_started(tmp_path):
    upstreams = Upstreams(tmp_path, tmp_path / "theirs.sock")
    pools, _ = await upstreams.open(configured(sim={"kind": "simulator"}), {})
    assert set(pools) == {"sim"} and list(tmp_path.iterdir()) == []
    await upstreams.close()


async def test_the_simulator_is_started_once_for_whoever_asks_first(tmp_path):
    upstreams = Upstreams(tmp_path)
    pools, _ = await upstreams.open(configured(a=A), {})
    assert not (tmp_path / "simulator.sock").exists()
    for _ in range(2):
        pools, _ = await upstreams.open(configured(sim={"kind": "simulator"}), pools)
        assert (tmp_path / "simulator.sock").is_socket()
    await upstreams.close()
    assert not (tmp_path / "simulator.sock").exists()


class FakeCache:
    def __init__(self):
        self.bytes_max = None

    def resize(self, memory_bytes_max):
        self.bytes_max = memory_bytes_max


class Parts(msgspec.Struct, frozen=True):
    """Those parts that a configuration makes."""

    configuration: Any
    pools: Any
    catalog: Any = None
    prices: Any = None
    cache: Any = msgspec.field(default_factory=FakeCache)


class FakePipeline:
    def __init__(self, parts, before=None):
        self.parts, self.before = parts, before
        self.serving = 0
        self.streams_open = 0


class FakeApp:
    def __init__(self):
        self.swaps = []

    def swap(self, pipeline, settings):
        self.swaps.append((pipeline, settings))


@pytest.fixture
async def switch(tmp_path, monkeypatch, closed):
    monkeypatch.setattr(switching, "Pipeline", FakePipeline)
    monkeypatch.setattr(switching, "RETIRE_INTERVAL_S", 0.01)
    upstreams = Upstreams(tmp_path)
    configuration = configured(a=A, b=B)
    pools, off = await upstreams.open(configuration, {})
    switch = Switch(Parts(configuration, pools), upstreams, off, SetPrices(LogWriter(2)))
    switch.app = FakeApp()
    switch.connect(switch.app)
    yield switch
    await switch.close()


async def test_all_of_it_is_swapped_at_once_and_what_is_not_configured_is_handed_on(switch):
    first = switch.pipeline
    changed = configured(a=A, c=B)
    await switch.put_in_force(changed)
    assert switch.pipeline.before is first
    assert switch.app.swaps == [(switch.pipeline, changed.server)]
    assert switch.configuration is changed and set(switch.pools) == {"a", "c"}
    assert switch.pipeline.parts.catalog is not None and switch.pipeline.parts.prices is not None
    assert switch.pipeline.parts.cache.bytes_max == changed.cache.memory_bytes_max


async def test_a_pool_is_closed_when_the_last_request_that_may_use_it_has_ended(switch, closed):
    first = switch.pipeline
    first.serving = first.streams_open = 1
    await switch.put_in_force(configured(b=B))
    second = switch.pipeline
    second.serving = 1
    await switch.put_in_force(configured(c=A))
    await asyncio.sleep(0.1)
    assert (closed, switch.streams_open) == ([], 1)
    first.serving = first.streams_open = 0
    await asyncio.sleep(0.1)
    assert closed == ["a"], "the second may still call b"
    second.serving = 0
    await asyncio.sleep(0.1)
    assert closed == ["a", "b"]
    await switch.put_in_force(configured(a=A))
    await asyncio.sleep(0.1)
    assert closed == ["a", "b", "c"]


async def test_what_cannot_be_made_changes_nothing(switch, closed, monkeypatch):
    before = switch.pipeline, switch.configuration, switch.pools

    def refuse(*_):
        raise ValueError

    monkeypatch.setattr(switching, "compiled", refuse)
    with pytest.raises(ValueError):
        await switch.put_in_force(configured(a=A, new=B))
    assert (switch.pipeline, switch.configuration, switch.pools) == before
    assert (switch.app.swaps, closed) == ([], ["new"])
