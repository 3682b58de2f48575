"""Prometheus metrics: names are the product (docs/operations.md), labels come from closed sets.

Children are looked up once per combination and kept, since a look-up costs more than the update.
Model names are free text of clients: a model is a label only once an upstream has served it, and only
the first ``MODELS_MAX`` of them; the rest share ``_other``. Teams likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app import __version__
from app.core.money import NANO_PER_USD

OTHER = "_other"
TEAMS_MAX = 200
MODELS_MAX = 200
SERIES_MAX = 2000
READS_MAX = 5

DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
OVERHEAD_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1)
REQUEST_LABELS = ("team", "model", "upstream", "endpoint", "outcome")
STREAM_LABELS = ("upstream", "endpoint")


class RequestMetrics(NamedTuple):
    """The children one closed request updates."""

    requests: Counter
    unpriced: Counter
    cost_usd: Counter
    input_tokens: Counter
    cached_tokens: Counter
    output_tokens: Counter
    reasoning_tokens: Counter
    duration: Histogram
    first_byte: Histogram
    overhead: Histogram
    upstream: Histogram


class Metrics:
    """Every metric of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self._requests = Counter(
            "headgate_requests_total",
            "Admitted requests, by how they ended.",
            REQUEST_LABELS,
            registry=registry,
        )
        money = ("team", "model", "upstream", "endpoint")
        self._tokens = Counter(
            "headgate_tokens_total",
            "Tokens, by type; input includes cached.",
            (*money, "type"),
            registry=registry,
        )
        self._cost = Counter("headgate_cost_usd_total", "Cost in US dollars.", money, registry=registry)
        self._unpriced = Counter(
            "headgate_unpriced_requests_total", "Requests whose model had no price.", money, registry=registry
        )
        self._duration = Histogram(
            "headgate_request_duration_seconds",
            "From the request's head to its end.",
            STREAM_LABELS,
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._first_byte = Histogram(
            "headgate_time_to_first_byte_seconds",
            "From the request's head to the answer's first byte to the client.",
            STREAM_LABELS,
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._overhead = Histogram(
            "headgate_overhead_seconds",
            "Time to the first byte that was the gateway's own.",
            STREAM_LABELS,
            buckets=OVERHEAD_BUCKETS_S,
            registry=registry,
        )
        self._upstream = Histogram(
            "headgate_upstream_duration_seconds",
            "From sending to the upstream's last byte.",
            STREAM_LABELS,
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._add_events()
        self._series: dict[tuple[str, str, str, str, str], RequestMetrics] = {}
        self._teams: set[str] = set()
        self._models: set[str] = set()

    def _add_events(self) -> None:
        """What is counted beside admitted requests."""
        registry = self.registry
        self.limited = Counter(
            "headgate_limited_total", "Requests refused by a limit.", ("scope", "limit"), registry=registry
        )
        self.refused = Counter("headgate_refused_total", "Requests refused, by code.", ("code",), registry=registry)
        self.passed = Counter(
            "headgate_unmetered_requests_total",
            "Answered requests that leave no record.",
            ("endpoint", "outcome"),
            registry=registry,
        )
        self.retries = Counter("headgate_retries_total", "Calls repeated upstream.", ("upstream",), registry=registry)
        self.disconnects = Counter(
            "headgate_disconnects_total", "Clients that left early, by phase.", ("phase",), registry=registry
        )
        self.suspect = Counter(
            "headgate_suspect_usage_total", "Answers whose usage is absurd.", ("upstream",), registry=registry
        )
        self.ledger_writes = Counter(
            "headgate_ledger_writes_total", "Records written to the ledger.", ("result",), registry=registry
        )
        self.dropped = Counter(
            "headgate_metric_series_dropped_total", "Label values folded into _other.", registry=registry
        )
        self.degraded = Gauge(
            "headgate_degraded", "1 while a dependency does not answer.", ("dependency",), registry=registry
        )
        build = Gauge("headgate_build_info", "Always 1; the version is a label.", ("version",), registry=registry)
        build.labels(__version__).set(1)

    def __repr__(self) -> str:
        return f"Metrics(series={len(self._series)}, models={len(self._models)}, teams={len(self._teams)})"

    def served(self, model: str) -> None:
        """An upstream answered for ``model``: from now on the name may be a label."""
        if model not in self._models and len(self._models) < MODELS_MAX and len(model) <= 128:
            self._models.add(model)

    def request(self, team: str, model: str, upstream: str, endpoint: str, outcome: str) -> RequestMetrics:
        """The children for one closed request."""
        if model not in self._models:
            model = OTHER
        key = (team, model, upstream, endpoint, outcome)
        found = self._series.get(key)
        return found if found is not None else self._make(key)

    def _make(self, key: tuple[str, str, str, str, str]) -> RequestMetrics:
        team, model, upstream, endpoint, outcome = key
        if team not in self._teams and len(self._teams) < TEAMS_MAX:
            self._teams.add(team)
        if team not in self._teams or len(self._series) >= SERIES_MAX:
            self.dropped.inc()
            team, model = OTHER, OTHER
        money = (team, model, upstream, endpoint)
        made = RequestMetrics(
            requests=self._requests.labels(*money, outcome),
            unpriced=self._unpriced.labels(*money),
            cost_usd=self._cost.labels(*money),
            input_tokens=self._tokens.labels(*money, "input"),
            cached_tokens=self._tokens.labels(*money, "cached"),
            output_tokens=self._tokens.labels(*money, "output"),
            reasoning_tokens=self._tokens.labels(*money, "reasoning"),
            duration=self._duration.labels(upstream, endpoint),
            first_byte=self._first_byte.labels(upstream, endpoint),
            overhead=self._overhead.labels(upstream, endpoint),
            upstream=self._upstream.labels(upstream, endpoint),
        )
        if len(self._series) < SERIES_MAX:
            self._series[key] = made
        return made

    def watch(
        self, name: str, text: str, read: Callable[[], float | Iterable[tuple[str, float]]], label: str = ""
    ) -> None:
        """A gauge read at scrape time from ``read``: one number, or (label value, number) pairs."""
        self.registry.register(_Watched(name, text, read, label))


class _Watched(Collector):
    def __init__(
        self, name: str, text: str, read: Callable[[], float | Iterable[tuple[str, float]]], label: str
    ) -> None:
        self._name, self._text, self._read, self._label = name, text, read, label

    def collect(self) -> Iterable[Metric]:
        value = self._value()
        family = GaugeMetricFamily(self._name, self._text, labels=[self._label] if self._label else None)
        if isinstance(value, (int, float)):
            family.add_metric([], float(value))
        else:
            for label, number in value:
                family.add_metric([label], number)
        yield family

    def _value(self) -> float | Iterable[tuple[str, float]]:
        # The page is rendered in a thread: what is read may change under it, and is then read again.
        for _ in range(READS_MAX):
            with suppress(RuntimeError):
                return self._read()
        return float("nan")


def usd(nanousd: int) -> float:
    """Dollars for a counter: Prometheus counts in floats, the ledger does not."""
    return nanousd / NANO_PER_USD
