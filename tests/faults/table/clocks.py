"""Rows of the clock. A process' own clock is set by a module that Python imports before all others.

The store's clock decides on limits; the worker's one is for display.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.fakes.gateway import RunningGateway
from tests.fakes.people import rule, zone_at
from tests.faults.table.rows import Ask, Gets, Row

HOUR_MS = 3_600_000
NEVER_MS = 0
HOUR_LEFT_S_MIN = 20.0
"""No day ends while a row is held."""
SHIFT = "shift_ms"
SHIFTED = """
import os, time

REAL = time.time_ns

def shifted():
    with open(os.environ["TEST_CLOCK"]) as file:
        return REAL() + int(file.read() or 0) * 1_000_000

time.time_ns = shifted
time.time = lambda: shifted() / 1e9
"""


def with_a_clock(gateway: RunningGateway) -> RunningGateway:
    """Its clock is the machine's until ``set_clock`` says another."""
    folder = gateway.folder / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SHIFTED)
    gateway.environment |= {"PYTHONPATH": str(folder), "TEST_CLOCK": str(folder / SHIFT)}
    set_clock(gateway, NEVER_MS)
    return gateway


def set_clock(gateway: RunningGateway, shift_ms: int) -> None:
    """So far from the machine's."""
    path = gateway.folder / "clock" / SHIFT
    written = path.with_suffix(".new")
    written.write_text(str(shift_ms))
    written.rename(path)


def shifted(shift_ms: int, hour: int) -> Callable[..., AbstractContextManager[None]]:
    """``hour``: how late it is where the day's budget counts, so that it is another day by the shifted clock."""

    @contextmanager
    def make(world) -> Iterator[None]:
        left_s = 3600 - time.time() % 3600
        if left_s < HOUR_LEFT_S_MIN:
            time.sleep(left_s)
        price = 7_000_000
        day = rule("money", price * 3 // 2, "day", time_zone=zone_at(hour))
        world.keys |= {"day": world.people.key(day), "few": world.people.key(rule("requests", 4, "minute"))}
        set_clock(world.gateway, shift_ms)
        refused = world.client.get("/v1/nothing").headers["x-headgate-request-id"]
        # The first 48 bits of an id are the milliseconds of its process.
        assert (
            abs(int(refused.replace("-", "")[:12], 16) - time.time_ns() // 1_000_000 - shift_ms)
            < HOUR_LEFT_S_MIN * 1000
        )
        yield
        set_clock(world.gateway, NEVER_MS)

    return make


CHARGED = Gets(200, kinds=("charge",))
PAYS = {"model": "paid", "more": {"max_output_tokens": 7}}
FULL = Gets(429, "rate_limit_exceeded", {"retry-after": "[1-6]?[0-9]", "x-ratelimit-remaining-requests": "0"})
SPENT = Gets(429, "insufficient_quota", {"x-should-retry": "false"})
ASKS = (
    *((Ask("few", at_other=at_other), CHARGED) for at_other in (False, True, True, False)),
    *((Ask("few", at_other=at_other), FULL) for at_other in (False, True)),
    (Ask("day", at_other=True, **PAYS), CHARGED),
    (Ask("day", **PAYS), SPENT),
    (Ask("spent", **PAYS), SPENT),
)


def row(fault: str, shift_ms: int, hour: int) -> Row:
    return Row(
        "clock",
        fault,
        "shared",
        ASKS,
        shifted(shift_ms, hour),
        running=((Ask("running", play="held"), CHARGED),),
        then=((Ask("few"), FULL), (Ask("day", **PAYS), SPENT)),
    )


CLOCK = (
    row("a step of an hour forward", HOUR_MS, 23),
    row("a step of an hour back", -HOUR_MS, 0),
    row("a skew of thirty seconds between replicas", 30_000, 12),
)
