"""The upstreams: a pool for each that can be used, and the simulator where one is named."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from app.settings import Configuration, ConfigurationError, UpstreamSettings
from app.simulator.app import Simulator
from app.simulator.log import ServedLog
from app.simulator.server import running_simulator
from app.upstream.pool import UpstreamPool

SERVED_LOG_ENTRIES_MAX = 10_000
SIMULATOR_SOCKET = "simulator.sock"
SOCKET_PATH_CHARS_MAX = 100


class Upstreams:
    """Makes pools and closes them; over a change of the configuration those that stay the same are kept."""

    def __init__(self, data_dir: Path, simulator_socket: Path | None = None) -> None:
        """``simulator_socket``: where somebody else's simulator listens; without it, one is started here for
        the first upstream that asks.
        """
        self._data_dir = data_dir
        self._socket = simulator_socket
        self._simulator = AsyncExitStack()
        self._pools: set[UpstreamPool] = set()
        self._paused: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Upstreams(pools={len(self._pools)})"

    async def open(
        self, configuration: Configuration, before: Mapping[str, UpstreamPool]
    ) -> tuple[dict[str, UpstreamPool], frozenset[str]]:
        """The pools of all upstreams that can be used, those of ``before`` where nothing about them has
        changed, and the names of the upstreams that cannot. OSError: the simulator cannot be started;
        ConfigurationError: a file or variable that an upstream needs cannot be used.
        """
        upstreams = configuration.upstreams
        off = frozenset(name for name, upstream in upstreams.items() if upstream.is_off)
        if self._socket is None and any(upstream.kind == "simulator" for upstream in upstreams.values()):
            self._socket = await self._start_simulator()
        pools = {}
        for name, upstream in upstreams.items():
            if name not in off:
                known = before.get(name)
                same = known is not None and known.settings == upstream
                pools[name] = known if known is not None and same else self._make(name, upstream)
        return pools, off

    def pause(self, names: frozenset[str]) -> None:
        """These are paused from now on, and no others, under whichever configuration."""
        self._paused = names
        for pool in self._pools:
            pool.breaker.is_paused = pool.name in names

    def _make(self, name: str, settings: UpstreamSettings) -> UpstreamPool:
        try:
            pool = UpstreamPool(name, settings, simulator_socket=self._socket)
        except ValueError as error:
            raise ConfigurationError(f"upstreams.{name}: {error}") from error
        pool.breaker.is_paused = name in self._paused
        self._pools.add(pool)
        return pool

    async def close_others(self, used: Collection[UpstreamPool]) -> None:
        """Closes all pools but ``used``."""
        for pool in self._pools.difference(used):
            self._pools.discard(pool)
            await pool.close()

    async def close(self) -> None:
        await self.close_others(())
        await self._simulator.aclose()

    async def _start_simulator(self) -> Path:
        path = simulator_socket(self._simulator, self._data_dir)
        await self._simulator.enter_async_context(running_simulator(new_simulator(), uds=path))
        return path


def new_simulator() -> Simulator:
    """The built-in upstream, as it is part of a gateway."""
    return Simulator(log=ServedLog(entries_max=SERVED_LOG_ENTRIES_MAX))


def simulator_socket(stack: AsyncExitStack, data_dir: Path) -> Path:
    """Where the simulator of a data dir listens."""
    path = data_dir / SIMULATOR_SOCKET
    if len(str(path)) > SOCKET_PATH_CHARS_MAX:
        # A socket's path has little room; a private folder of its own has a short one.
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headgate-"))) / SIMULATOR_SOCKET
    return path
