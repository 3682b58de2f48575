"""What is shipped, against real gateways that a real Prometheus scrapes: every expression says something, every metric is
looked at by somebody, and the figures are those of the bill.
"""

from __future__ import annotations

import math
import re

import httpx
import pytest

from tests.fakes.fleet import wait_for
from tests.fakes.prometheus import QueryFailed
from tests.monitoring.shipped import (
    DASHBOARDS,
    Expression,
    alerts,
    annotated,
    dashboard,
    recorded,
    shown,
)
from tests.monitoring.worlds import BILLED, World

# What is rightly empty there, and why.
AGO = "nothing of it is so old"
UNSENT = "no target for messages is set"
EMPTY = {
    'sum(job_team_model:headgate_requests:rate5m{job=~"$job",team=~"$team",model=~"$model"} offset 1d)': AGO,
    'sum(job_team_model:headgate_requests:rate5m{job=~"$job",team=~"$team",model=~"$model"} offset 1w)': AGO,
    'sum(job_code:headgate_refused:rate5m{job=~"$job"} offset 1d)': AGO,
    'sum(job_code:headgate_refused:rate5m{job=~"$job"} offset 1w)': AGO,
    'headgate_answers_total{outcome="interrupted",code="internal_error"}': "no bug shows itself",
    'sum by (target, result) (increase(headgate_alert_deliveries_total{job=~"$job",instance=~"$instance"}[1h]))': UNSENT,
    'headgate_alert_deliveries_total{result=~"failed|gone"}': UNSENT,
    'changes(process_start_time_seconds{job=~"headgate.*"}[1m]) > 0': "nothing is started again",
}
# What one embedded gateway does not have.
SHARED_ONLY = {
    "headgate_worker_restarts_total": "it has no workers",
    "headgate_cache_corrupt_entries": "its cache is in memory",
    'headgate_degraded{dependency="cache"}': "its cache is in memory",
}
# What is exported and looked at by nobody.
UNUSED = {
    "process_virtual_memory_bytes": "part of the standard set; it says little of what a process takes",
}
# Prometheus's own.
NOT_OURS = {"up", "ALERTS"}
# What this traffic is bound to raise at once; the others that are true wait longer than it lasts.
RAISED = {"HeadgateRequestsUnpriced", "HeadgateUpstreamRefusesCredentials", "HeadgateUsageSuspect"}


def is_missing(world: World, expression: Expression) -> bool:
    """Whether the world lacks what it is about."""
    return len(world.clients) == 1 and not SHARED_ONLY.keys().isdisjoint({*expression.names, *expression.selectors})


def says_nothing(world: World, expression: Expression) -> str | None:
    """What is wrong with what it returns."""
    try:
        found = world.prometheus.query(expression.filled)
    except QueryFailed as error:
        return f"{expression}: {error}"
    if expression.text in EMPTY or is_missing(world, expression):
        return f"{expression} is no longer empty" if found else None
    return None if any(not math.isnan(value) for _, value in found) else f"{expression}: {found or 'nothing'}"


def test_the_targets_are_up_with_the_token_of_the_file_and_closed_without(world):
    targets = world.prometheus.read("targets")["activeTargets"]
    assert {target["health"] for target in targets} == {"up"}
    assert {target["labels"]["instance"] for target in targets} == {each.instance for each in world.clients}
    assert httpx.get(f"{world.clients[0].gateway.url}/metrics").status_code == 401


def test_every_rule_is_evaluated_without_an_error(world):
    rules = [rule for group in world.prometheus.read("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(recorded()) + len(alerts())
    assert {
        (rule["name"], rule["health"], rule.get("lastError", "")) for rule in rules if rule["health"] != "ok"
    } == set()


@pytest.mark.parametrize("expressions", [recorded, shown, annotated])
def test_every_expression_says_something(world, expressions):
    wrong = [told for expression in expressions() if (told := says_nothing(world, expression)) is not None]
    assert wrong == []


def test_every_panel_that_is_drawn_over_time_has_points(world):
    """Grafana asks for a span, in steps."""
    wrong = []
    for expression in shown():
        found = world.prometheus.query_range(expression.filled, 60, 5)
        if not found and expression.text not in EMPTY and not is_missing(world, expression):
            wrong.append(str(expression))
    assert wrong == []


def test_everything_that_an_alert_looks_at_is_there(world):
    """An alert is a comparison, and mostly empty: what it compares must not be."""
    wrong = []
    for alert in alerts():
        world.prometheus.query(alert.filled)
        for selector in alert.selectors:
            lacking = selector in EMPTY or is_missing(world, Expression(alert.place, selector))
            if bool(world.prometheus.query(selector)) == lacking:
                wrong.append(f"{alert}: {selector}")
    assert wrong == []


def test_what_went_wrong_raises_its_alerts_and_no_others(world):
    def raised() -> set[str]:
        return {labels["alertname"] for labels, _ in world.prometheus.query('ALERTS{alertstate="firing"}')}

    wait_for(lambda: raised() >= RAISED)
    assert raised() == RAISED
    told = world.prometheus.read("alerts")["alerts"]
    (unpriced,) = (each for each in told if each["labels"]["alertname"] == "HeadgateRequestsUnpriced")
    assert unpriced["annotations"]["summary"] == "Model mystery of upstream sim has no price."


def test_every_metric_that_is_looked_at_is_exported(world):
    exported = set().union(*(each.families() for each in world.clients))
    exported |= {rule.place.split()[0] for rule in recorded()} | NOT_OURS
    if len(world.clients) == 1:
        exported |= set(SHARED_ONLY)
    missing = {
        f"{expression}: {name}"
        for expression in [*recorded(), *alerts(), *shown(), *annotated()]
        for name in expression.names
        if name not in exported and re.sub("_(bucket|sum|count)$", "", name) not in exported
    }
    assert missing == set()


def test_every_metric_that_is_exported_is_looked_at(world):
    exported = set().union(*(each.families() for each in world.clients))
    looked_at = set().union(*(expression.names for expression in [*recorded(), *alerts(), *shown()]))
    looked_at |= {re.sub("_(bucket|sum|count)$", "", name) for name in looked_at}
    # When each series was made is told beside every counter.
    unused = {name for name in exported - looked_at if not name.endswith("_created")}
    assert unused == set(UNUSED)


def test_every_recorded_series_is_there_and_looked_at(world):
    looked_at = set().union(*(expression.names for expression in [*recorded(), *alerts(), *shown()]))
    for rule in recorded():
        name = rule.place.split()[0]
        assert world.prometheus.query(name), name
        assert name in looked_at, name


def test_every_variable_has_values(world):
    for path in DASHBOARDS:
        for variable in dashboard(path)["templating"]["list"]:
            if variable["type"] != "query":
                continue
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert asked is not None and variable["definition"] == asked[0], variable["name"]
            selector, label = Expression("", asked[1]).filled, asked[2]
            assert any(labels.get(label) for labels, _ in world.prometheus.query(selector)), (path.stem, asked[0])


def test_the_figures_are_those_of_the_bill(world):
    """To a nano-dollar, as far as a float has them."""
    for clients in world.clients:
        told = {
            "requests": world.sum_of(clients, "headgate_requests_total"),
            "cost_usd": world.sum_of(clients, "headgate_cost_usd_total"),
            "saved_usd": world.sum_of(clients, "headgate_saved_usd_total"),
        }
        for kind in ("input", "cached", "output", "reasoning"):
            told[f"{kind}_tokens"] = world.prometheus.value(
                f'sum(headgate_tokens_total{{instance="{clients.instance}",type="{kind}"}})'
            )
        billed = clients.billed()
        assert set(told) == set(BILLED)
        assert {name: round(value, 9) for name, value in told.items()} == {
            name: round(float(value), 9) for name, value in billed.items()
        }
        assert min(told["requests"], told["cost_usd"], told["saved_usd"]) > 0
        assert world.sum_of(clients, "headgate_answers_total") == told["requests"]
        assert world.sum_of(clients, "headgate_request_duration_seconds_count") == told["requests"]
        assert world.sum_of(clients, "headgate_cache_total") == told["requests"]
