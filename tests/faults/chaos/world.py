"""Everything that one run is made of, started from nothing and taken down to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fakes.postgres import PostgresServer
from tests.fakes.proxy import ChaosProxy
from tests.faults.chaos.constants import CONFIGURATION, FIRST_BYTE_S, IDLE_S, UPSTREAM_KEY
from tests.faults.chaos.gateways import Gateway
from tests.faults.chaos.people import Person, make_people, teams_of
from tests.faults.chaos.servers import HotServer, Ledger, Persistence, Upstream
from tests.faults.chaos.zones import next_midnight_s, write_zone


class Wires:
    """What one gateway reaches the others by: each can be cut."""

    def __init__(self, hot: HotServer, ledger: Ledger) -> None:
        self.redis = ChaosProxy(hot.socket_path)
        self.sql = ChaosProxy(ledger.socket_path)

    def start(self) -> None:
        self.redis.start()
        self.sql.start()

    def heal(self) -> None:
        for wire in (self.redis, self.sql):
            wire.stalled = None
            wire.latency_s = wire.jitter_s = 0.0
            wire.accept()

    def close(self) -> None:
        self.redis.close()
        self.sql.close()


class World:
    """``losses`` are the moments (monotonic) at which what Valkey held was lost, ``restarts`` those at which it
    was another server afterwards; ``lost_nodes`` are gateways' names.
    """

    def __init__(self, folder: Path, hot: HotServer, ledger: Ledger, midnight_s: int) -> None:
        self.folder = folder
        self.hot = hot
        self.ledger = ledger
        self.midnight_s = midnight_s
        self.upstream = Upstream(folder)
        self.gateways: list[Gateway] = []
        self.wires: dict[str, Wires] = {}
        self.people: list[Person] = []
        self.losses: list[float] = []
        self.restarts: list[float] = []
        self.lost_nodes: list[str] = []
        self.lost_processes: list[str] = []
        self.silent: list[tuple[float, float]] = []
        self.applied: list[str] = []
        self.expected_in_logs: set[str] = set()

    def tell(self, text: str) -> None:
        self.applied.append(text)

    def keep(self, seed: int) -> None:
        """The folder stays, beside the temporary ones."""
        kept = self.folder.parent / f"hg-kept-{seed}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.folder, kept, ignore=shutil.ignore_patterns("filler", "ballast", "*.sock"))

    async def ready(self) -> None:
        await asyncio.gather(*(gateway.ready() for gateway in self.gateways))


@asynccontextmanager
async def running_world(
    seed: int,
    server: PostgresServer,
    *,
    gateways: int = 3,
    persistence: Persistence = "none",
    small_disk_mib: int = 0,
    tracer: tuple[str, ...] = (),
    on_disconnect: str = "drain",
) -> AsyncIterator[World]:
    """A world whose gateways serve. ``small_disk_mib`` and ``tracer`` are for the first of them."""
    folder = Path(tempfile.mkdtemp(prefix=f"hg-chaos-{seed}-"))
    if not server.running:
        await asyncio.to_thread(server.start)
    ledger = Ledger(server, await server.create_database())
    hot = HotServer(persistence)
    hot.start()
    midnight_s = next_midnight_s()
    world = World(folder, hot, ledger, midnight_s)
    try:
        await _furnish(world, seed, gateways, small_disk_mib, tracer, on_disconnect)
        yield world
    finally:
        for gateway in world.gateways:
            await gateway.remove()
        for wires in world.wires.values():
            await asyncio.to_thread(wires.close)
        world.upstream.kill()
        hot.close()
        with contextlib.suppress(Exception):
            await ledger.start()
            await server.drop_database(ledger.url)
        shutil.rmtree(folder, ignore_errors=True)


async def _furnish(
    world: World, seed: int, gateways: int, small_disk_mib: int, tracer: tuple[str, ...], on_disconnect: str
) -> None:
    folder, draw = world.folder, random.Random(f"people {seed}")
    zone = write_zone(folder / "zones", world.midnight_s)
    with _time_zones(folder / "zones"):
        world.people = await make_people(world.ledger.url, teams_of(draw, zone))
    config = folder / "headgate.yaml"
    config.write_text(
        CONFIGURATION.format(
            base_url=world.upstream.base_url,
            key=UPSTREAM_KEY,
            first_byte_s=FIRST_BYTE_S,
            idle_s=IDLE_S,
            upstream_concurrency=200,
            on_disconnect=on_disconnect,
        )
    )
    await world.upstream.start()
    for number in range(gateways):
        name = f"gw{number}"
        wires = world.wires[name] = Wires(world.hot, world.ledger)
        wires.start()
        gateway = Gateway(
            name,
            folder / name,
            config,
            disk_mib=small_disk_mib if number == 0 else 0,
            HEADGATE_DATABASE_URL=f"postgresql://postgres@127.0.0.1:{wires.sql.port}/{world.ledger.name}",
            HEADGATE_REDIS_URL=f"redis://127.0.0.1:{wires.redis.port}/0",
            HEADGATE_BALLAST_BYTES=str(4 * 2**20),
            PYTHONTZPATH=f"{folder / 'zones'}:/usr/share/zoneinfo",
        )
        if number == 0:
            gateway.tracer = tracer
        world.gateways.append(gateway)
        gateway.start()
    await world.ready()


@contextlib.contextmanager
def _time_zones(folder: Path):
    """The zone is known to this process, too."""
    import zoneinfo

    zoneinfo.reset_tzpath([str(folder), *zoneinfo.TZPATH])
    try:
        yield
    finally:
        zoneinfo.reset_tzpath()
        zoneinfo.ZoneInfo.clear_cache()


def now_s() -> float:
    return time.monotonic()
