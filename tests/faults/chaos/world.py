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

import msgspec

from tests.fakes.postgres import PostgresServer
from tests.fakes.proxy import ChaosProxy
from tests.faults.chaos.constants import PRICES, Prices, configuration_of
from tests.faults.chaos.gateways import Gateway
from tests.faults.chaos.people import Person, Team, make_people, teams_of
from tests.faults.chaos.servers import HotServer, Ledger, Persistence, Upstream
from tests.faults.chaos.zones import DAY_S, next_midnight_s, write_zone

REBUILT_S = 5.0


class Span(msgspec.Struct, frozen=True):
    """Seconds since 1970."""

    from_s: float
    until_s: float

    @property
    def length_s(self) -> float:
        return self.until_s - self.from_s


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
    """Moments are monotonic seconds. ``losses``: of what Valkey held. ``silent``: spans in which a gateway and
    Valkey could not speak, ``mute`` those of which not Valkey was the cause; ``lost_lives``: gateways' processes that are gone with their disk, and when.
    """

    def __init__(self, folder: Path, hot: HotServer, ledger: Ledger, midnight_s: int, prices: Prices) -> None:
        self.folder = folder
        self.prices = prices
        self.hot = hot
        self.ledger = ledger
        self.midnight_s = midnight_s
        self.upstream = Upstream(folder)
        self.gateways: list[Gateway] = []
        self.wires: dict[str, Wires] = {}
        self.people: list[Person] = []
        # One mishap at a time each; those that come meanwhile wait for it.
        self.of_hot, self.of_ledger, self.of_upstream = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self.losses: list[float] = []
        self.outages: list[Span] = []
        """Of Valkey, from its loss until it answered again."""
        self.lost_lives: dict[str, float] = {}
        self.lost_processes: list[str] = []
        self.silent: list[tuple[float, float]] = []
        self.mute: list[tuple[float, float]] = []
        self.applied: list[str] = []

    @property
    def days(self) -> tuple[int, int]:
        """The first milliseconds of the day that ends in the middle, and of the next one."""
        return (self.midnight_s - DAY_S) * 1000, self.midnight_s * 1000

    @property
    def unsafe_lives(self) -> set[str]:
        """Lost with their disk while they could not speak with Valkey: what went on without it is lost, too."""
        return {
            life
            for life, at_s in self.lost_lives.items()
            if any(from_s <= at_s <= until_s + REBUILT_S for from_s, until_s in self.silent)
        }

    def tell(self, text: str) -> None:
        self.applied.append(text)

    def keep(self, seed: int) -> None:
        """The folder stays, beside the temporary ones."""
        kept = self.folder.parent / f"hg-kept-{seed}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.folder, kept, ignore=shutil.ignore_patterns("filler", "ballast", "*.sock"))

    async def ready(self) -> None:
        await asyncio.gather(*(gateway.ready() for gateway in self.gateways))


class Setting(msgspec.Struct, frozen=True):
    """What a world is made of. ``teams`` None: those that a seed draws. ``small_disk_mib`` and ``tracer`` are for
    the first gateway.
    """

    seed: int = 0
    gateways: int = 3
    persistence: Persistence = "none"
    teams: tuple[Team, ...] | None = None
    prices: Prices = PRICES
    on_disconnect: str = "drain"
    small_disk_mib: int = 0
    tracer: tuple[str, ...] = ()


@asynccontextmanager
async def running_world(setting: Setting, server: PostgresServer) -> AsyncIterator[World]:
    """A world whose gateways serve."""
    folder = Path(tempfile.mkdtemp(prefix=f"hg-chaos-{setting.seed}-"))
    if not server.running:
        await asyncio.to_thread(server.start)
    ledger = Ledger(server, await server.create_database())
    hot = HotServer(setting.persistence)
    hot.start()
    world = World(folder, hot, ledger, next_midnight_s(), setting.prices)
    try:
        await _furnish(world, setting)
        yield world
    finally:
        for gateway in world.gateways:
            await gateway.remove()
        for wires in world.wires.values():
            await asyncio.to_thread(wires.close)
        world.upstream.kill()
        hot.close()
        # A server that has not come up again leaves nothing but a folder, which goes with it.
        with contextlib.suppress(OSError, AssertionError):
            await ledger.start()
            await server.drop_database(ledger.url)
        shutil.rmtree(folder, ignore_errors=True)


async def _furnish(world: World, setting: Setting) -> None:
    folder = world.folder
    zone = write_zone(folder / "zones", world.midnight_s)
    teams = setting.teams
    if teams is None:
        teams = teams_of(random.Random(f"people {setting.seed}"), zone)
    with _time_zones(folder / "zones"):
        world.people = await make_people(world.ledger.url, teams)
    config = folder / "headgate.yaml"
    config.write_text(configuration_of(world.upstream.base_url, setting.prices, setting.on_disconnect))
    await world.upstream.start()
    for number in range(setting.gateways):
        name = f"gw{number}"
        wires = world.wires[name] = Wires(world.hot, world.ledger)
        wires.start()
        gateway = Gateway(
            name,
            folder / name,
            config,
            disk_mib=setting.small_disk_mib if number == 0 else 0,
            HEADGATE_DATABASE_URL=f"postgresql://postgres@127.0.0.1:{wires.sql.port}/{world.ledger.name}",
            HEADGATE_REDIS_URL=f"redis://127.0.0.1:{wires.redis.port}/0",
            HEADGATE_BALLAST_BYTES=str(4 * 2**20),
            PYTHONTZPATH=f"{folder / 'zones'}:/usr/share/zoneinfo",
        )
        if number == 0:
            gateway.tracer = setting.tracer
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
