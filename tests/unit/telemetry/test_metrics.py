"""Metrics: what the page says, and that clients cannot make it grow."""

from prometheus_client import generate_latest

from app.telemetry.metrics import MODELS_MAX, OTHER, Metrics, ending_code


def page(metrics: Metrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_sums_come_out_as_counters_and_histograms():
    metrics = Metrics()
    metrics.served("m")
    for outcome, cost in (("completed", 5), ("completed", 10**9), ("failed", 0)):
        sums = metrics.request("t", "m", "u", "responses", outcome)
        sums.requests += 1
        sums.cost_nanousd += cost
        sums.input_tokens += 7
        sums.times.duration.observe(0.3)
    told = page(metrics)
    money = 'endpoint="responses",model="m",team="t",upstream="u"'
    assert (
        told['headgate_requests_total{endpoint="responses",model="m",outcome="completed",team="t",upstream="u"}'] == 2
    )
    assert told[f"headgate_cost_usd_total{{{money}}}"] == 1.000000005
    assert told['headgate_tokens_total{endpoint="responses",model="m",team="t",type="input",upstream="u"}'] == 21
    times = 'endpoint="responses",le="{}",upstream="u"'
    name = "headgate_request_duration_seconds"
    assert told[f"{name}_bucket{{{times.format('0.25')}}}"] == 0
    assert told[f"{name}_bucket{{{times.format('0.5')}}}"] == 3
    assert told[f"{name}_bucket{{{times.format('+Inf')}}}"] == 3
    assert told[f'{name}_count{{endpoint="responses",upstream="u"}}'] == 3
    assert told[f'{name}_sum{{endpoint="responses",upstream="u"}}'] == 0.3 * 3


def test_a_model_is_a_label_once_it_was_served_and_only_so_many_are():
    metrics = Metrics()
    for number in range(10_000):
        metrics.request("t", f"made-up-{number}", "u", "responses", "failed").requests += 1
    assert (
        page(metrics)[
            f'headgate_requests_total{{endpoint="responses",model="{OTHER}",outcome="failed",team="t",upstream="u"}}'
        ]
        == 10_000
    )
    for number in range(10_000):
        metrics.served(f"m{number}")
        metrics.request("t", f"m{number}", "u", "responses", "completed").requests += 1
    names = [name for name in page(metrics) if name.startswith("headgate_requests_total")]
    assert len(names) == MODELS_MAX + 2


def test_teams_are_bounded_and_nothing_is_lost():
    metrics = Metrics()
    metrics.served("m")
    for number in range(1000):
        metrics.request(f"team-{number}", "m", "u", "responses", "completed").requests += 1
    told = page(metrics)
    assert sum(value for name, value in told.items() if name.startswith("headgate_requests_total")) == 1000
    assert told["headgate_metric_series_dropped_total"] > 0


def test_what_is_watched_is_read_again_if_it_changed_under_the_reader():
    metrics = Metrics()
    tries = []

    def read() -> float:
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("dictionary changed size during iteration")
        return 4

    metrics.watch("headgate_watched", "…", read)
    assert page(metrics)["headgate_watched"] == 4


def test_what_is_counted_by_a_closed_set_begins_at_zero():
    """Else the first event of all, which is the one that an alert waits for, is no increase."""
    told = page(Metrics())
    for name in (
        'headgate_refused_total{code="internal_error"}',
        'headgate_refused_total{code="limits_unavailable"}',
        'headgate_ledger_writes_total{result="poison"}',
        'headgate_configuration_reloads_total{result="refused"}',
        'headgate_disconnects_total{phase="stream"}',
    ):
        assert told[name] == 0


def test_answers_are_counted_over_teams_and_models():
    metrics = Metrics()
    for team in ("a", "b"):
        metrics.request(team, "m", "u", "responses", "completed").answers[(200, "")] = 2
        metrics.request(team, "m", "u", "responses", "failed").answers[(None, "key_revoked")] = 1
    told = page(metrics)
    assert told['headgate_answers_total{code="",outcome="completed",status="200",upstream="u"}'] == 4
    assert told['headgate_answers_total{code="key_revoked",outcome="failed",status="none",upstream="u"}'] == 2


def test_an_upstreams_own_error_codes_are_no_labels():
    assert ending_code(None) == ""
    assert ending_code("upstream_timeout") == "upstream_timeout"
    assert ending_code("upstream_stalled") == "upstream_stalled"
    assert {ending_code(f"made up {number}") for number in range(1000)} == {"upstream_error"}


def test_the_process_is_on_the_page():
    told = page(Metrics())
    assert told["process_resident_memory_bytes"] > 2**20
    assert 0 < told["process_open_fds"] < told["process_max_fds"]
