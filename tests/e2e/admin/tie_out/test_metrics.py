"""Metrics count since their process began: so real calls of every kind, and then each sample against the records and the
bill, label by label.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.core.money import NANO_PER_USD
from app.telemetry.metrics import OTHER
from tests.e2e.admin.people import Admin
from tests.e2e.admin.tie_out.books import nano
from tests.fakes.gateway import RunningGateway
from tests.monitoring.worlds import CONFIG, Clients

COUNTED = {"requests": "requests", "unpriced_requests": "unpriced", "estimated_requests": "estimated"}
FOLLOWED_S = 5.0
TYPES = ("input", "cached", "output", "reasoning")
MONEY = ("cost_usd", "saved_usd")


class Site:
    """A gateway after a round of everything, with budgets on one of its teams that count and refuse nothing."""

    def __init__(self, gateway, admin):
        self.gateway = gateway
        self.admin = admin
        self.clients = Clients(gateway)
        teams = {team["name"]: team["id"] for team in admin.ask("GET", "/teams", params={"limit": 200})["data"]}
        self.team_ids = [team_id for name, team_id in teams.items() if name != "default"]
        self.budgets = [
            admin.ask(
                "POST",
                "/budgets",
                json={"team_id": team_id, "maximum_usd": "100", "window": window, "mode": "observe", "time_zone": zone},
            )["id"]
            for team_id in self.team_ids
            for window, zone in (("total", "UTC"), ("month", "Asia/Kathmandu"))
        ]
        # What is admitted before a gateway has heard of a budget is not of it.
        time.sleep(FOLLOWED_S)
        self.clients.play()
        self.clients.settled()
        self.samples = defaultdict(float)
        for family in text_string_to_metric_families(self.clients.text()):
            for sample in family.samples:
                self.samples[sample.name, frozenset(sample.labels.items())] += sample.value

    def by(self, name, *labels):
        """The sums of a metric over all but these labels, without those of nothing."""
        found = defaultdict(float)
        for (sample, given), value in self.samples.items():
            if sample == name:
                found[tuple(dict(given)[label] for label in labels)] += value
        return {place: value for place, value in found.items() if value}

    def records(self):
        rows, cursor = [], None
        while True:
            more = {} if cursor is None else {"cursor": cursor}
            page = self.admin.ask("GET", "/records", params={"limit": 200, **more})
            rows += page["data"]
            cursor = page["next"]
            if cursor is None:
                return rows

    def usage(self, by, **query):
        return self.admin.ask("GET", "/usage", params={"by": by, "range": "last_30_days", **query})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("metrics"), CONFIG) as gateway, Admin(gateway) as admin:
        yield Site(gateway, admin)


def whole(values):
    """Money of a metric in nano-dollars; a float has such small sums exactly."""
    return {place: round(value * NANO_PER_USD) for place, value in values.items()}


def test_metrics_are_the_records_and_the_bill(site):
    labels = ("team", "model", "upstream")
    known = {model for _, model, _ in site.by("headgate_requests_total", *labels)}
    assert {OTHER, "sim-mini", "kept-a"} <= known
    rows = site.usage("team,model,upstream")["rows"]

    def told(member, of=int):
        found = Counter()
        for row in rows:
            # What no upstream has served is no label.
            found[row["team"], row["model"] if row["model"] in known else OTHER, row["upstream"]] += of(row[member])
        return {place: value for place, value in found.items() if value}

    for metric, member in COUNTED.items():
        assert site.by(f"headgate_{metric}_total", *labels) == told(member), metric
    for name in MONEY:
        assert whole(site.by(f"headgate_{name}_total", *labels)) == told(name, nano), name
    by_type = site.by("headgate_tokens_total", *labels, "type")
    for kind in TYPES:
        assert {place[:3]: value for place, value in by_type.items() if place[3] == kind} == told(f"{kind}_tokens")
    assert {kind for *_, kind in by_type} <= set(TYPES)
    total = site.usage("day")["total"]
    assert min(total["requests"], total["unpriced"], total["estimated"], nano(total["saved_usd"])) > 0


def test_how_requests_ended(site):
    rows = site.records()
    ended = Counter((row["endpoint"], row["outcome"]) for row in rows)
    assert site.by("headgate_requests_total", "endpoint", "outcome") == ended
    assert site.by("headgate_answers_total", "upstream", "outcome") == Counter(
        (row["upstream"], row["outcome"]) for row in rows
    )
    assert site.by("headgate_cache_total", "result") == Counter((row["cache"],) for row in rows)
    assert site.by("headgate_ledger_writes_total", "result") == {("written",): len(rows)}
    assert site.by("headgate_request_duration_seconds_count", "endpoint") == Counter((row["endpoint"],) for row in rows)
    failed = sum(row["outcome"] in {"failed", "interrupted"} for row in rows)
    assert failed == site.usage("day")["total"]["failed"] > 0


def test_records_are_the_bill(site):
    total, rows = site.usage("day")["total"], site.records()
    assert len(rows) == total["requests"]
    for name in MONEY:
        assert sum(nano(row[name]) for row in rows) == nano(total[name])
    for kind in TYPES:
        assert sum(row[f"{kind}_tokens"] for row in rows) == total[f"{kind}_tokens"]
    for name in ("unpriced", "estimated"):
        assert sum(row[name] for row in rows) == total[name]


def test_budgets_that_have_counted_are_the_bill_and_the_metrics(site):
    of_teams = whole(site.by("headgate_cost_usd_total", "team"))
    by_command = {row["id"]: nano(row["spent_usd"]) for row in site.gateway.json("limits", "list") if row["spent_usd"]}
    spent = 0
    for budget in (site.admin.ask("GET", f"/budgets/{budget_id}") for budget_id in site.budgets):
        team = budget["team"]
        billed = nano(site.usage("day", team=team["id"])["total"]["cost_usd"])
        assert nano(budget["spent_usd"]) == billed == of_teams.get((team["name"],), 0)
        assert by_command[budget["id"]] == billed
        spent += billed
    assert spent > 0
    assert site.gateway.check_ledger()["ok"]
