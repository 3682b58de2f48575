"""Puts a configuration in force: all of it from one request to the next, while what runs goes on with its own.

A pipeline is made for each configuration and never changed, so that a request sees one configuration from
its beginning to its end. What has to outlive a configuration (journal, limits, the keys, what is in flight)
is handed on from one pipeline to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from app.admin.wire import InForce
from app.catalog import Catalog
from app.edge.plane import Gateway as GatewayApp
from app.main.prices import SetPrices
from app.main.upstreams import Upstreams
from app.metering.pricing import PriceBook
from app.pipeline import Parts, Pipeline
from app.settings import Configuration, PriceOverride
from app.upstream.pool import UpstreamPool

RETIRE_INTERVAL_S = 1.0


async def _nothing(_configuration: Configuration) -> None:
    pass


class Switch:
    """The pipeline in force, and those before it that still serve somebody."""

    def __init__(
        self,
        parts: Parts,
        upstreams: Upstreams,
        off: frozenset[str],
        prices: SetPrices,
        make_ready: Callable[[Configuration], Awaitable[None]] = _nothing,
    ) -> None:
        """``make_ready``: what has to be there before a configuration is in force; where that fails it is not."""
        self._parts = parts
        self._upstreams = upstreams
        self._set_prices = prices
        self._make_ready = make_ready
        self._app: GatewayApp | None = None
        self._before: dict[Pipeline, Mapping[str, UpstreamPool]] = {}
        self._lock = asyncio.Lock()
        self._retiring: asyncio.Task[None] | None = None
        self.pipeline = Pipeline(parts)
        self.off = off
        """The upstreams that have no key."""

    def __repr__(self) -> str:
        return f"Switch({self.pipeline!r}, before={len(self._before)})"

    @property
    def parts(self) -> Parts:
        """What the pipeline in force is made of."""
        return self._parts

    @property
    def configuration(self) -> Configuration:
        """What is in force."""
        return self._parts.configuration

    @property
    def in_force(self) -> InForce:
        """What the control plane is told of it."""
        parts = self._parts
        return InForce(parts.configuration, parts.catalog, parts.prices, parts.pools, self.off)

    @property
    def pools(self) -> Mapping[str, UpstreamPool]:
        return self._parts.pools

    @property
    def streams_open(self) -> int:
        """Event streams that upstreams are sending, under whichever configuration they began."""
        return sum(pipeline.streams_open for pipeline in (self.pipeline, *self._before))

    def connect(self, app: GatewayApp) -> None:
        """``app`` is what requests come through."""
        self._app = app

    async def put_in_force(self, configuration: Configuration) -> None:
        """Makes all that is new first: where that fails nothing has changed. OSError, ValueError."""
        async with self._lock:
            await self._make_ready(configuration)
            pools, off = await self._upstreams.open(configuration, self._parts.pools)
            try:
                # The price book compiles some thousand prices.
                catalog, prices = await asyncio.to_thread(
                    compiled, configuration, pools, off, self._set_prices.overrides
                )
                parts = msgspec.structs.replace(
                    self._parts, configuration=configuration, catalog=catalog, pools=pools, prices=prices
                )
                pipeline = Pipeline(parts, self.pipeline)
            except BaseException:
                await self._close_unused()
                raise
            self.off = off
            self._swap(parts, pipeline)

    async def put_prices_in_force(self, overrides: tuple[PriceOverride, ...]) -> None:
        """The configuration that is in force, with other prices set."""
        async with self._lock:
            parts = self._parts
            base_urls = {name: pool.base_url for name, pool in parts.pools.items()}
            prices = await asyncio.to_thread(PriceBook, (*overrides, *parts.configuration.prices), base_urls)
            parts = msgspec.structs.replace(parts, prices=prices)
            self._swap(parts, Pipeline(parts, self.pipeline))

    def _swap(self, parts: Parts, pipeline: Pipeline) -> None:
        self._before[self.pipeline] = self._parts.pools
        self._parts, self.pipeline = parts, pipeline
        parts.cache.resize(parts.configuration.cache.memory_bytes_max)
        if self._app is not None:
            self._app.swap(pipeline, parts.configuration.server)
        if self._retiring is None or self._retiring.done():
            self._retiring = asyncio.create_task(self._retire(), name="retiring configurations")

    async def close(self) -> None:
        if self._retiring is not None:
            self._retiring.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._retiring
        await self._upstreams.close()

    async def _retire(self) -> None:
        """Lets go of configurations, and of the pools that only they had, when their last request has ended."""
        while self._before:
            await asyncio.sleep(RETIRE_INTERVAL_S)
            async with self._lock:
                for pipeline in [one for one in self._before if not one.serving]:
                    del self._before[pipeline]
                await self._close_unused()

    async def _close_unused(self) -> None:
        used = set(self._parts.pools.values())
        for pools in self._before.values():
            used.update(pools.values())
        await self._upstreams.close_others(used)


def compiled(
    configuration: Configuration,
    pools: Mapping[str, UpstreamPool],
    off: frozenset[str],
    overrides: tuple[PriceOverride, ...],
) -> tuple[Catalog, PriceBook]:
    """What is looked up for every request, made once for a configuration; ``overrides`` are prices set over it."""
    prices = PriceBook((*overrides, *configuration.prices), {name: pool.base_url for name, pool in pools.items()})
    return Catalog(configuration, off=off), prices
