"""What a row says: a fault, how it is made so, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Told:
    """What a client was told. ``status`` None: it left, or was left without an answer. ``code`` is that of an error,
    also of one that ends a stream.
    """

    status: int | None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    took_s: float = 0.0


@dataclass(frozen=True)
class Ask:
    """What a client asks for: as ``who``, of an upstream that answers with ``play``. ``how`` names the way in which
    the client behaves, in ``asking``; ``at_other``: at the gateway beside the one that has the fault; ``family``:
    of which endpoint.
    """

    who: str = "free"
    play: str = "fine"
    model: str = "gpt-4o"
    stream: bool = False
    how: str = "waits"
    at_other: bool = False
    family: str = "responses"
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gets:
    """What comes of it. ``headers`` are patterns, None where there is none. ``kinds`` are those of its entries, one
    for each attempt, in the end; none, and no record: nothing was admitted.
    """

    status: int | None = 200
    code: str | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    within_s: float = 30.0


@dataclass(frozen=True)
class Row:
    """One fault. ``make`` makes it so for as long as it is held, and takes it back.

    ``running`` was begun before and ends in its time; ``asks`` are made during it, ``then`` after everything has
    recovered. ``counts`` are changes of counters over all of it, ``gauges`` what stands on the page during it; ``ends``
    are the requests counted by outcome, less those that were completed (others complete some beside them);
    ``told`` are the events of the log, each told once; ``failing`` is what /readyz names.
    """

    part: str
    fault: str
    world: str
    asks: tuple[tuple[Ask, Gets], ...] = ()
    make: Callable[[Any], AbstractContextManager[object]] = field(default=lambda _world: nullcontext())
    running: tuple[tuple[Ask, Gets], ...] = ()
    then: tuple[tuple[Ask, Gets], ...] = ()
    counts: Mapping[str, float] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)
    ends: Mapping[str, float] | None = None
    told: tuple[str, ...] | None = ()
    failing: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.part}: {self.fault}"


def down_and_up(*dependencies: str) -> tuple[str, ...]:
    """What the log tells of dependencies that went away and came back, each once."""
    return tuple(f"{event} {each}" for each in dependencies for event in ("dependency_down", "dependency_up"))


def degraded(*dependencies: str) -> dict[str, float]:
    return {f'headgate_degraded{{dependency="{each}"}}': 1.0 for each in dependencies}
