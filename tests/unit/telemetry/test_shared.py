"""Metrics of several workers on one page: sums that never go back, whoever is asked and whoever dies."""

from __future__ import annotations

import threading

import pytest

from app.core.clock import SystemClock
from app.telemetry.metrics import Metrics
from app.telemetry.shared import GAUGES_KEPT_MS, SharedMetrics

SERIES = 'endpoint="responses",model="m",outcome="completed",team="t",upstream="u"'


class Clock(SystemClock):
    def __init__(self):
        self.ahead_ms = 0

    def now_ms(self):
        return super().now_ms() + self.ahead_ms


class Worker:
    """One process's metrics, on a slot."""

    def __init__(self, folder, slot, clock=None):
        self.metrics = Metrics()
        self.metrics.served("m")
        self.in_flight = 0.0
        self.lag_s = 0.0
        self.up = 1.0
        self.metrics.watch("headgate_in_flight", "…", lambda: self.in_flight)
        self.metrics.watch("headgate_lag", "…", lambda: self.lag_s, over_workers="max")
        self.metrics.watch("headgate_upstream_up", "…", lambda: [("u", self.up)], "upstream", over_workers="min")
        self.shared = self.metrics.share(folder / f"slot-{slot}.json", clock or SystemClock())

    def serve(self, count=1, seconds=0.3):
        for _ in range(count):
            sums = self.metrics.request("t", "m", "u", "responses", "completed")
            sums.requests += 1
            sums.times.duration.observe(seconds)
            self.metrics.refused.labels("overloaded").inc()

    def page(self):
        lines = self.metrics.render().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def requests(self):
        return self.page()[f"headgate_requests_total{{{SERIES}}}"]


def test_a_page_of_any_worker_has_the_sums_of_all(tmp_path):
    workers = [Worker(tmp_path, slot) for slot in range(3)]
    for count, worker in enumerate(workers, 1):
        worker.serve(count, 0.01 * count)
    for worker in workers:
        worker.shared.collect()
        worker.page()
    for worker in workers:
        told = worker.page()
        assert told[f"headgate_requests_total{{{SERIES}}}"] == 6
        assert told['headgate_refused_total{code="overloaded"}'] == 6
        times = 'endpoint="responses",le="{}",upstream="u"'
        name = "headgate_request_duration_seconds"
        assert told[f"{name}_bucket{{{times.format('0.01')}}}"] == 1
        assert told[f"{name}_bucket{{{times.format('0.025')}}}"] == 3
        assert told[f"{name}_bucket{{{times.format('+Inf')}}}"] == 6
        assert told[f'{name}_count{{endpoint="responses",upstream="u"}}'] == 6
        assert told[f'{name}_sum{{endpoint="responses",upstream="u"}}'] == pytest.approx(0.14)
        assert not [one for one in told if "_created" in one]
        assert len([one for one in told if one.startswith("headgate_build_info")]) == 1


def test_the_page_is_as_one_process_writes_it(tmp_path):
    alone, shared = Metrics(), Worker(tmp_path, 0).metrics

    def described(metrics):
        return {line for line in metrics.render().decode().splitlines() if line[0] == "#" and "_created" not in line}

    assert described(alone) <= described(shared)


def test_gauges_are_put_together_each_in_its_way(tmp_path):
    first, second = Worker(tmp_path, 0), Worker(tmp_path, 1)
    first.in_flight, first.lag_s, first.up = 3, 0.5, 0
    second.in_flight, second.lag_s = 4, 2.5
    first.page()
    told = second.page()
    assert told["headgate_in_flight"] == 7
    assert told["headgate_lag"] == 2.5
    assert told['headgate_upstream_up{upstream="u"}'] == 0
    assert [value for name, value in told.items() if name.startswith("headgate_build_info")] == [1]


def test_whoever_is_asked_next_shows_no_less(tmp_path):
    first, second = Worker(tmp_path, 0), Worker(tmp_path, 1)
    shown = 0.0
    for turn in range(20):
        (first if turn % 3 else second).serve()
        now = (first if turn % 2 else second).requests()
        assert now >= shown, "a page that goes back looks like a restart to Prometheus"
        shown = now
    first.page()
    assert second.requests() == 20


def test_the_next_holder_of_a_slot_goes_on_from_there(tmp_path):
    first, second = Worker(tmp_path, 0), Worker(tmp_path, 1)
    first.serve(5)
    second.serve(2)
    first.page()
    # Killed: whatever it had in its file stays, and the next one adds to it, over and over.
    for served in (7, 8, 9):
        assert second.requests() == served
        first = Worker(tmp_path, 0)
        first.serve()
        assert first.requests() == served + 1
    assert second.requests() == 10


def test_what_a_dead_worker_said_of_the_moment_is_forgotten_and_what_it_counted_is_not(tmp_path):
    clock = Clock()
    dead, alive = Worker(tmp_path, 0, clock), Worker(tmp_path, 1, clock)
    dead.serve(3)
    dead.in_flight = 9
    dead.page()
    assert alive.page()["headgate_in_flight"] == 9
    clock.ahead_ms += GAUGES_KEPT_MS + 1000
    told = alive.page()
    assert told["headgate_in_flight"] == 0
    assert told[f"headgate_requests_total{{{SERIES}}}"] == 3


def test_one_that_ends_in_order_leaves_no_moment_behind(tmp_path):
    ended, alive = Worker(tmp_path, 0), Worker(tmp_path, 1)
    ended.shared.start()
    ended.serve(2)
    ended.in_flight = 5
    ended.shared.close()
    told = alive.page()
    assert (told["headgate_in_flight"], told[f"headgate_requests_total{{{SERIES}}}"]) == (0, 2)


def test_it_is_saved_in_the_background(tmp_path, monkeypatch):
    monkeypatch.setattr("app.telemetry.shared.SAVE_INTERVAL_S", 0.01)
    worker, other = Worker(tmp_path, 0), Worker(tmp_path, 1)
    saved = threading.Event()
    real = SharedMetrics._save
    monkeypatch.setattr(SharedMetrics, "_save", lambda self, **more: (real(self, **more), saved.set())[0])
    worker.serve(4)
    worker.shared.start()
    assert saved.wait(5)
    worker.shared.close()
    assert other.requests() == 4


def test_on_a_full_disk_the_page_shows_what_was_saved_and_never_goes_back(tmp_path, monkeypatch):
    worker, other = Worker(tmp_path, 0), Worker(tmp_path, 1)
    worker.serve(2)
    assert worker.requests() == 2

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.telemetry.shared.os.open", refuse)
    worker.serve(3)
    worker.in_flight = 1
    told = worker.page()
    assert (told[f"headgate_requests_total{{{SERIES}}}"], told["headgate_in_flight"]) == (2, 1)
    assert other.requests() == 2
    monkeypatch.undo()
    assert worker.requests() == 5


@pytest.mark.parametrize("rubbish", [b"", b"{", b'{"at_ms": "x"}', b"[1, 2]"])
def test_a_file_that_cannot_be_read_is_as_none(tmp_path, rubbish):
    (tmp_path / "slot-0.json").write_bytes(rubbish)
    (tmp_path / "slot-7.json").write_bytes(rubbish)
    worker = Worker(tmp_path, 0)
    worker.serve()
    assert worker.requests() == 1


def test_one_process_alone_has_no_files(tmp_path):
    metrics = Metrics()
    metrics.render()
    assert list(tmp_path.iterdir()) == []
