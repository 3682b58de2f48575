"""Prometheus metrics: names are the product (docs/operations.md), labels come from closed sets.

Model names are free text of clients: a model is a label only once an upstream has served it, and only
the first ``MODELS_MAX`` of them; the rest share ``_other``. Teams likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app import __version__
from app.core.clock import Clock
from app.core.errors import GatewayError
from app.telemetry.shared import OverWorkers, SharedMetrics
from app.telemetry.sums import RequestCollector, RequestSums, SeriesKey, Times

OTHER = "_other"
TEAMS_MAX = 200
MODELS_MAX = 200
SERIES_MAX = 2000
READS_MAX = 5
LEDGER_RESULTS = ("written", "known", "poison")
RELOAD_RESULTS = ("reloaded", "refused")
TURN_RESULTS = ("kept", "lost")
DISCONNECT_PHASES = ("request", "waiting", "stream", "shared")
CUTS = ("drain_over", "gateway_lost", "gateway_shutdown", "key_revoked", "upstream_disconnected", "upstream_stalled")
"""How a call that was under way can end, beside the errors that a client can be given."""
UPSTREAM_ERROR = "upstream_error"
PROCESS_GAUGES: dict[str, OverWorkers] = {
    "process_virtual_memory_bytes": "sum",
    "process_resident_memory_bytes": "sum",
    "process_start_time_seconds": "max",
    "process_open_fds": "max",
    "process_max_fds": "min",
}
"""The standard names; the process that has the most files open, and the one that began last."""


def _codes_of(error: type[GatewayError]) -> frozenset[str]:
    return frozenset({error.code}).union(*(_codes_of(kind) for kind in error.__subclasses__()))


REFUSAL_CODES = _codes_of(GatewayError)
ENDING_CODES = REFUSAL_CODES.union(CUTS)


def ending_code(error_code: str | None) -> str:
    """``error_code`` of a record as a label: an upstream's own codes are free text, and become one."""
    if error_code is None:
        return ""
    return error_code if error_code in ENDING_CODES else UPSTREAM_ERROR


class Metrics:
    """Every metric of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known: dict[SeriesKey, RequestSums] = {}
        self._sums: dict[SeriesKey, RequestSums] = {}
        self._times: dict[tuple[str, str], Times] = {}
        self._teams: set[str] = set()
        self._models: set[str] = set()
        self._gauges: dict[str, OverWorkers] = {}
        self._shared: SharedMetrics | None = None
        self.cache_results = {"hit": 0, "joined": 0, "miss": 0, "bypass": 0}
        self.registry.register(RequestCollector(self._sums, self._times, self.cache_results))
        self._add_events()
        self.turns = Counter(
            "headgate_state_turns_total",
            "Turns for upstreams that keep none, by what became of them.",
            ("result",),
            registry=self.registry,
        )
        self._begin_at_zero()
        ProcessCollector(registry=self.registry)
        self._gauges |= PROCESS_GAUGES

    def _add_events(self) -> None:
        """What is counted beside admitted requests."""
        registry = self.registry
        self.limited = Counter(
            "headgate_limited_total", "Requests refused by a limit.", ("scope", "limit"), registry=registry
        )
        self.would_limit = Counter(
            "headgate_would_limit_total",
            "Requests that a limit in mode observe would have refused.",
            ("scope", "limit"),
            registry=registry,
        )
        self.refused = Counter("headgate_refused_total", "Requests refused, by code.", ("code",), registry=registry)
        self.passed = Counter(
            "headgate_unmetered_requests_total",
            "Answered requests that leave no record.",
            ("endpoint", "outcome"),
            registry=registry,
        )
        self.retries = Counter("headgate_retries_total", "Calls repeated upstream.", ("upstream",), registry=registry)
        self.fallbacks = Counter(
            "headgate_fallbacks_total",
            "Targets passed over or tried in vain, where another one was called instead.",
            ("upstream", "reason"),
            registry=registry,
        )
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
        self.reloads = Counter(
            "headgate_configuration_reloads_total",
            "Changed configurations, by whether they are in force now.",
            ("result",),
            registry=registry,
        )
        self.shadow_hits = Counter(
            "headgate_cache_shadow_hits_total",
            "Requests that the cache would have answered in mode shadow, by the mode that it would take.",
            ("mode",),
            registry=registry,
        )
        self.shadow_saved_usd = Counter(
            "headgate_cache_shadow_saved_usd_total",
            "What those would not have cost, in US dollars.",
            ("mode",),
            registry=registry,
        )
        self.alert_deliveries = Counter(
            "headgate_alert_deliveries_total",
            "Tries to send a message of an alert, by what came of them.",
            ("target", "result"),
            registry=registry,
        )
        self.degraded = Gauge(
            "headgate_degraded", "1 while a dependency does not answer.", ("dependency",), registry=registry
        )
        build = Gauge("headgate_build_info", "Always 1; the version is a label.", ("version",), registry=registry)
        build.labels(__version__).set(1)
        self._gauges |= {"headgate_degraded": "max", "headgate_build_info": "max"}

    def _begin_at_zero(self) -> None:
        """A counter that appears with its first event hides it: no rate is seen between nothing and one."""
        for counter, values in (
            (self.refused, sorted(REFUSAL_CODES)),
            (self.ledger_writes, LEDGER_RESULTS),
            (self.reloads, RELOAD_RESULTS),
            (self.turns, TURN_RESULTS),
            (self.disconnects, DISCONNECT_PHASES),
        ):
            for value in values:
                counter.labels(value)

    def __repr__(self) -> str:
        return f"Metrics(series={len(self._sums)}, models={len(self._models)}, teams={len(self._teams)})"

    def served(self, model: str) -> None:
        """An upstream answered for ``model``: from now on the name may be a label."""
        if model not in self._models and len(self._models) < MODELS_MAX and len(model) <= 128:
            self._models.add(model)

    def request(self, team: str, model: str, upstream: str, endpoint: str, outcome: str) -> RequestSums:
        """The sums that one closed request adds to."""
        if model not in self._models:
            model = OTHER
        key = (team, model, upstream, endpoint, outcome)
        found = self._known.get(key)
        return found if found is not None else self._find(key)

    def _find(self, key: SeriesKey) -> RequestSums:
        team, model, upstream, endpoint, outcome = key
        if team not in self._teams and len(self._teams) < TEAMS_MAX:
            self._teams.add(team)
        if team not in self._teams or len(self._sums) >= SERIES_MAX:
            self.dropped.inc()
            team = model = OTHER
        times = self._times.setdefault((upstream, endpoint), Times())
        sums = self._sums.setdefault((team, model, upstream, endpoint, outcome), RequestSums(times))
        if len(self._known) < SERIES_MAX:
            self._known[key] = sums
        return sums

    def watch(
        self,
        name: str,
        text: str,
        read: Callable[[], float | Iterable[tuple[str, float]]],
        label: str = "",
        over_workers: OverWorkers = "sum",
    ) -> None:
        """A gauge read at scrape time from ``read``: one number, or (label value, number) pairs.
        ``over_workers``: how the numbers of several workers become one.
        """
        self._gauges[name] = over_workers
        self.registry.register(_Watched(name, text, read, label))

    def share(self, path: Path, clock: Clock) -> SharedMetrics:
        """From now on the page has the metrics of all whose files are in the folder of ``path``, this
        process's own. The caller starts and closes what is returned.
        """
        self._shared = SharedMetrics(self.registry, path, self._gauges, clock)
        return self._shared

    def render(self) -> bytes:
        """The page, in Prometheus's text format; may be called from any thread."""
        return generate_latest(self.registry if self._shared is None else self._shared)


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
