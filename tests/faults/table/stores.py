"""What rows of Redis and of SQL have in common: who asks, what each gets, and networks that break."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.fakes.proxy import BOTH, ChaosProxy
from tests.faults.table.rows import Ask, Gets
from tests.faults.table.worlds import SharedWorld

Making = Callable[[SharedWorld], AbstractContextManager[None]]

LATE_S = 0.7
"""What a busy machine may take beyond what is promised."""
REDIS_S = 0.3 + LATE_S
REQUEST_S = 1.0 + LATE_S
"""F9: a second, and the upstream's time, which is none here."""


REFUSED = Gets(503, "limits_unavailable", {"retry-after": "[23]", "x-should-retry": None}, within_s=REDIS_S)
CHARGED = Gets(200, kinds=("charge",), within_s=REDIS_S)
ALL_CHARGED = tuple((Ask(who), CHARGED) for who in ("free", "protective", "strict", "budget"))
STRICT_REFUSED = (
    (Ask("strict"), REFUSED),
    (Ask("free"), CHARGED),
    (Ask("protective"), CHARGED),
    (Ask("budget"), REFUSED),
    (Ask("strict", stream=True), REFUSED),
)
SPENT_STILL = (Ask("spent", model="paid", more={"max_output_tokens": 7}), Gets(429, "insufficient_quota"))
RUNNING = (
    (Ask("running", play="held"), Gets(200, kinds=("charge",))),
    (Ask("running", play="held stream", stream=True), Gets(200, kinds=("charge",))),
)
WAITING = "headgate_journal_records"
"""What runs, and what SQL does not have yet."""
LIMITED_AWAY = 'headgate_refused_total{code="limits_unavailable"}'


def refused(proxy_of: Callable[[SharedWorld], ChaosProxy]) -> Making:
    """The server is away: its address refuses, its connections are gone."""

    @contextmanager
    def refuse(world: SharedWorld) -> Iterator[None]:
        proxy = proxy_of(world)
        proxy.refuse()
        proxy.reset()
        yield
        proxy.accept()

    return refuse


def stalled(proxy_of: Callable[[SharedWorld], ChaosProxy]) -> Making:
    """A black hole in the network."""

    @contextmanager
    def stall(world: SharedWorld) -> Iterator[None]:
        proxy_of(world).stalled = BOTH
        yield
        proxy_of(world).stalled = None

    return stall


def reset(proxy_of: Callable[[SharedWorld], ChaosProxy]) -> Making:
    """Its connections end again and again."""

    @contextmanager
    def flap(world: SharedWorld) -> Iterator[None]:
        for _ in range(6):
            proxy_of(world).reset()
            time.sleep(0.05)
        yield

    return flap
