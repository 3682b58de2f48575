"""The metrics of several workers on one page.

Each worker keeps what it has counted in a file of its own, named by its slot: the next holder of the slot
goes on from there, so that counters never go back. A page is added up from files alone, of which the
worker that is asked has just written its own: whoever is asked next shows no less.
"""

from __future__ import annotations

import operator
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from app.core.clock import Clock

SAVE_INTERVAL_S = 2.0
SAVE_PAUSES = 50
"""A page of thousands of series takes a while to collect: it is then saved less often, 2% of the time at most."""
GAUGES_KEPT_MS = 15_000
"""What a worker says of the moment counts for as long; after that it is dead, or has stopped."""
SUFFIX = ".json"

OverWorkers = Literal["sum", "max", "min"]
"""How a gauge of several workers becomes one number."""

_HOW: Mapping[OverWorkers, Callable[[float, float], float]] = {"sum": operator.add, "max": max, "min": min}

RowKey = tuple[str, tuple[tuple[str, str], ...]]


class Family(msgspec.Struct, array_like=True):
    """One metric: ``rows`` are (name of the sample, labels, value)."""

    name: str
    kind: str
    text: str
    rows: list[tuple[str, dict[str, str], float]]


class Snapshot(msgspec.Struct):
    """What one process had counted at a moment."""

    at_ms: int
    counts: list[Family]
    gauges: list[Family]


class SharedMetrics(Collector):
    """One process's metrics among those of its siblings, which have their files in the same folder."""

    def __init__(
        self, registry: CollectorRegistry, path: Path, gauges: Mapping[str, OverWorkers], clock: Clock
    ) -> None:
        """``gauges``: how each gauge is put together; counters and histograms are always summed."""
        self._registry = registry
        self._path = path
        self._gauges = gauges
        self._clock = clock
        before = _read(path)
        self._base = before.counts if before is not None else []
        self._written = Snapshot(0, self._base, [])
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"SharedMetrics({self._path.name})"

    def start(self) -> None:
        """Begin to save in the background."""
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Save once more, without what was true of the moment only."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            self._save(ends=True)

    def collect(self) -> Iterable[Metric]:
        """The families of all processes, added up."""
        with self._lock:
            own = self._save()
        others = [_read(path) for path in sorted(self._path.parent.glob(f"*{SUFFIX}")) if path != self._path]
        now_ms = self._clock.now_ms()
        counts, gauges = [own.counts], [own.gauges]
        for other in others:
            if other is not None:
                counts.append(other.counts)
                if now_ms - other.at_ms <= GAUGES_KEPT_MS:
                    gauges.append(other.gauges)
        yield from _added(counts, {})
        yield from _added(gauges, self._gauges)

    def _run(self) -> None:
        pause_s = SAVE_INTERVAL_S
        while not self._stop.wait(pause_s):
            began_s = time.monotonic()
            with self._lock:
                self._save()
            pause_s = max(SAVE_INTERVAL_S, SAVE_PAUSES * (time.monotonic() - began_s))

    def _save(self, *, ends: bool = False) -> Snapshot:
        """What is in the file afterwards; where it cannot be written, what was, with what is true now."""
        counts, gauges = _collected(self._registry)
        now = Snapshot(self._clock.now_ms(), _plain(_added([self._base, counts], {})), [] if ends else gauges)
        fresh = self._path.with_name(f".{self._path.name}")
        # A full disk, most likely, of which the journal tells; what is shown must not be ahead of the file.
        with suppress(OSError):
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(now))
            fresh.replace(self._path)
            self._written = now
            return now
        return Snapshot(now.at_ms, self._written.counts, now.gauges)


def _read(path: Path) -> Snapshot | None:
    # Of another version, or of a machine that lost its power: as if there was none.
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=Snapshot)
    return None


def _collected(registry: CollectorRegistry) -> tuple[list[Family], list[Family]]:
    counts: list[Family] = []
    gauges: list[Family] = []
    for family in _plain(registry.collect()):
        (gauges if family.kind == "gauge" else counts).append(family)
    return counts, gauges


def _plain(metrics: Iterable[Metric]) -> list[Family]:
    """Without the time at which each series was made, which is no sum, and without what is not a number."""
    return [
        Family(
            metric.name,
            metric.type,
            metric.documentation,
            [
                (sample.name, dict(sample.labels), sample.value)
                for sample in metric.samples
                if not sample.name.endswith("_created") and sample.value == sample.value
            ],
        )
        for metric in metrics
    ]


def _added(pages: Sequence[Sequence[Family]], how: Mapping[str, OverWorkers]) -> list[Metric]:
    families: dict[str, Family] = {}
    values: dict[str, dict[RowKey, float]] = {}
    for page in pages:
        for family in page:
            families.setdefault(family.name, family)
            put = _HOW[how.get(family.name, "sum")]
            rows = values.setdefault(family.name, {})
            for name, labels, value in family.rows:
                key = (name, tuple(labels.items()))
                rows[key] = put(rows[key], value) if key in rows else value
    metrics = []
    for name, family in families.items():
        metric = Metric(name, family.text, family.kind)
        for (sample, pairs), value in values[name].items():
            metric.add_sample(sample, dict(pairs), value)
        metrics.append(metric)
    return metrics
