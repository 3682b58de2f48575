"""What a seed tells: which world, and what befalls it when. Drawn whole before anything runs."""

from __future__ import annotations

import random

import msgspec

from tests.faults.chaos import mishaps
from tests.faults.chaos.constants import LOAD_S
from tests.faults.chaos.gateways import STRACE
from tests.faults.chaos.servers import Persistence

SMALL_DISK_MIB = 32


class Event(msgspec.Struct, frozen=True):
    """``at_s`` seconds after clients begin to ask."""

    at_s: float
    name: str


class Story(msgspec.Struct, frozen=True):
    """``seed`` decides all that the events themselves draw, and what clients ask."""

    seed: int
    events: tuple[Event, ...]
    persistence: Persistence
    clients: int = 14
    think_s: float = 0.12
    load_s: float = LOAD_S
    small_disk_mib: int = 0
    tracer: tuple[str, ...] = ()
    on_disconnect: str = "drain"
    midnight_at_s: float | None = None
    """Clients begin to ask so long before the day ends; None: whenever it is."""

    @property
    def loses_node(self) -> bool:
        return any(event.name == "lose-node" for event in self.events)


def story_of(seed: int) -> Story:
    """A disk and the hot state lost together lose what was in flight on that host, as the documentation says:
    a story has one of the two.
    """
    draw = random.Random(f"story {seed}")
    loses_disks = draw.random() < 0.2
    persistence: Persistence = "aof-always" if loses_disks else draw.choice(["none", "none", "rdb", "aof"])
    names = list(mishaps.OF_ALL)
    forced: list[str] = []
    if loses_disks:
        forced += ["lose-node"]
    else:
        names += [*mishaps.OF_LOST_DATA] * 3
    small_disk_mib, tracer = 0, ()
    if draw.random() < 0.12 and mishaps.can_mount():
        small_disk_mib = SMALL_DISK_MIB
        forced += ["fill-disk"]
    elif draw.random() < 0.1 and mishaps.can_trace():
        tracer = tracer_of(draw)
        forced += ["fail-syncs"]
    chosen = forced + [draw.choice(names) for _ in range(draw.randint(2, 6))]
    events = sorted((round(draw.uniform(1.0, LOAD_S - 3), 2), name) for name in chosen)
    return Story(
        seed=seed,
        events=tuple(Event(at_s, name) for at_s, name in events),
        persistence=persistence,
        clients=draw.choice([8, 14, 20]),
        small_disk_mib=small_disk_mib,
        tracer=tracer,
        on_disconnect=draw.choice(["drain", "drain", "drain", "cancel"]),
    )


def directed(name: str, seed: int = 0, times: int = 2) -> Story:
    """One kind of mishap alone."""
    draw = random.Random(f"directed {name} {seed}")
    persistence: Persistence = "aof-always" if name in {"lose-node", "restart-valkey"} else "none"
    events = tuple(Event(2.0 + 4.5 * number, name) for number in range(times))
    return Story(
        seed=seed,
        events=events,
        persistence=persistence,
        small_disk_mib=SMALL_DISK_MIB if name == "fill-disk" else 0,
        tracer=tracer_of(draw) if name == "fail-syncs" else (),
    )


def tracer_of(draw: random.Random) -> tuple[str, ...]:
    """A sync that fails now and then, and one that fails for a while."""
    when = draw.choice(["15+40", "20..30", "10..400+9"])
    return (*STRACE, f"inject=fdatasync:error=EIO:when={when}")


def dense(seed: int) -> Story:
    """Valkey is another server every five seconds, for a minute: how long do strict limits stay closed?"""
    events = tuple(Event(2.0 + 5.0 * number, "bounce-valkey") for number in range(12))
    return Story(seed=seed, events=events, persistence="none", load_s=64.0)


def midnight(seed: int) -> Story:
    """A day ends eight seconds after clients have begun to ask, and not much else is as it should be then."""
    draw = random.Random(f"midnight {seed}")
    names = ["kill-valkey", "freeze", "stop-postgres", "flush", "freeze-valkey", "kill", "cut-redis", "cut-sql"]
    events = sorted((round(draw.uniform(6.0, 8.5), 2), name) for name in draw.sample(names, 3))
    return Story(
        seed=seed,
        events=tuple(Event(at_s, name) for at_s, name in events),
        persistence="none",
        clients=20,
        load_s=16.0,
        midnight_at_s=8.0,
    )
