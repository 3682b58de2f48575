"""What closed requests add up to: plain sums, turned into Prometheus families when a page is asked for.

A request touches eleven numbers at its end; as children of prometheus-client's counters and histograms
they cost it about ten times as much. All of it is written by the event loop alone, so no lock is needed: a
page that is rendered meanwhile may have one request in one sum and not yet in another.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app.core.money import NANO_PER_USD

DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Up to ten minutes: reasoning calls last."""
OVERHEAD_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)

SeriesKey = tuple[str, str, str, str, str]
"""Team, model, upstream, endpoint, outcome."""

MONEY_LABELS = ("team", "model", "upstream", "endpoint")
TIME_LABELS = ("upstream", "endpoint")
ANSWER_LABELS = ("upstream", "outcome", "status", "code")


class Durations:
    """A histogram of seconds."""

    __slots__ = ("_bounds_s", "counts", "total_s")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self._bounds_s, seconds)] += 1
        self.total_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, how many are not above it), the last bound being +Inf."""
        cumulated, below = [], 0
        for bound, count in zip((*map(floatToGoString, self._bounds_s), "+Inf"), self.counts, strict=True):
            below += count
            cumulated.append((bound, float(below)))
        return cumulated


class Times:
    """How long requests to one upstream's endpoint took."""

    __slots__ = ("duration", "first_byte", "overhead", "upstream")

    def __init__(self) -> None:
        self.duration = Durations(DURATION_BUCKETS_S)
        self.first_byte = Durations(DURATION_BUCKETS_S)
        self.overhead = Durations(OVERHEAD_BUCKETS_S)
        self.upstream = Durations(DURATION_BUCKETS_S)


class RequestSums:
    """What the requests of one series add up to."""

    __slots__ = (
        "answers",
        "cached_tokens",
        "cost_nanousd",
        "estimated",
        "input_tokens",
        "output_tokens",
        "reasoning_tokens",
        "requests",
        "saved_nanousd",
        "times",
        "unpriced",
    )

    def __init__(self, times: Times) -> None:
        self.times = times
        self.requests = 0
        self.unpriced = 0
        self.estimated = 0
        self.answers: dict[tuple[int | None, str], int] = {}
        """By HTTP status, None where no answer began, and by code, empty where nothing failed."""
        self.cost_nanousd = 0
        self.saved_nanousd = 0
        self.input_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0
        self.reasoning_tokens = 0


HISTOGRAMS = (
    ("duration", "headgate_request_duration_seconds", "From the request's head to its end."),
    ("first_byte", "headgate_time_to_first_byte_seconds", "From the request's head to its answer's first byte."),
    ("overhead", "headgate_overhead_seconds", "Time to the first byte that was the gateway's own."),
    ("upstream", "headgate_upstream_duration_seconds", "From sending to the upstream's last byte."),
)


class RequestCollector(Collector):
    """Shows the sums as metrics."""

    def __init__(
        self,
        series: Mapping[SeriesKey, RequestSums],
        times: Mapping[tuple[str, str], Times],
        cache_results: Mapping[str, int],
    ) -> None:
        self._series = series
        self._times = times
        self._cache_results = cache_results

    def collect(self) -> Iterable[Metric]:
        # Copies, since the event loop may add a series while the page is rendered in a thread.
        series = list(self._series.items())
        yield from self._counters(series)
        yield _answers(series)
        cache = CounterMetricFamily("headgate_cache", "Admitted requests, by what the cache did.", labels=("result",))
        for result, count in self._cache_results.items():
            cache.add_metric((result,), count)
        yield cache
        for attribute, name, text in HISTOGRAMS:
            family = HistogramMetricFamily(name, text, labels=TIME_LABELS)
            for labels, times in list(self._times.items()):
                durations: Durations = getattr(times, attribute)
                family.add_metric(labels, durations.buckets(), durations.total_s)
            yield family

    def _counters(self, series: list[tuple[SeriesKey, RequestSums]]) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "headgate_requests", "Admitted requests, by how they ended.", labels=(*MONEY_LABELS, "outcome")
        )
        tokens = CounterMetricFamily(
            "headgate_tokens", "Tokens, by type; input includes cached.", labels=(*MONEY_LABELS, "type")
        )
        cost = CounterMetricFamily("headgate_cost_usd", "Cost in US dollars.", labels=MONEY_LABELS)
        saved = CounterMetricFamily(
            "headgate_saved_usd", "What answers from the cache, and joined calls, did not cost.", labels=MONEY_LABELS
        )
        unpriced = CounterMetricFamily(
            "headgate_unpriced_requests", "Requests whose model had no price.", labels=MONEY_LABELS
        )
        estimated = CounterMetricFamily(
            "headgate_estimated_requests",
            "Requests that are billed as an estimate, since their usage was not told.",
            labels=MONEY_LABELS,
        )
        money: dict[tuple[str, ...], list[int]] = {}
        for key, sums in series:
            requests.add_metric(key, sums.requests)
            added = money.setdefault(key[:4], [0] * 8)
            for index, value in enumerate(
                (
                    sums.cost_nanousd,
                    sums.saved_nanousd,
                    sums.unpriced,
                    sums.estimated,
                    sums.input_tokens,
                    sums.cached_tokens,
                    sums.output_tokens,
                    sums.reasoning_tokens,
                )
            ):
                added[index] += value
        for labels, (cost_nanousd, saved_nanousd, without_price, by_estimate, *counts) in money.items():
            cost.add_metric(labels, cost_nanousd / NANO_PER_USD)
            saved.add_metric(labels, saved_nanousd / NANO_PER_USD)
            unpriced.add_metric(labels, without_price)
            estimated.add_metric(labels, by_estimate)
            for kind, count in zip(("input", "cached", "output", "reasoning"), counts, strict=True):
                tokens.add_metric((*labels, kind), count)
        yield from (requests, tokens, cost, saved, unpriced, estimated)


def _answers(series: list[tuple[SeriesKey, RequestSums]]) -> Metric:
    family = CounterMetricFamily(
        "headgate_answers",
        "Admitted requests, by the HTTP status that was answered (none: no answer began) and the error's code.",
        labels=ANSWER_LABELS,
    )
    added: dict[tuple[str, str, str, str], int] = {}
    for (_team, _model, upstream, _endpoint, outcome), sums in series:
        for (status, code), count in list(sums.answers.items()):
            labels = (upstream, outcome, "none" if status is None else str(status), code)
            added[labels] = added.get(labels, 0) + count
    for labels, count in added.items():
        family.add_metric(labels, count)
    return family
