"""A real gateway and real receivers: what goes wrong is told, once, to whoever takes it, and no secret with it."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import httpx
import pytest

from app.alerts.readings import REFUSED_MIN
from tests.e2e.admin.people import Admin
from tests.e2e.alerts.hooks import FAILED, GONE, OK, PATH, PRICED, SECRET, Hook, alerting
from tests.e2e.test_reload import reload
from tests.fakes.fleet import wait_for
from tests.fakes.gateway import RunningGateway

TOLD_S_MAX = 40.0
"""Two looks, and the second try of a message."""
TEST_S_MAX = 15.0


class Site:
    """A gateway with five receivers: one of each manner."""

    def __init__(self, folder: Any) -> None:
        self.hooks = {
            "ops": Hook(OK),
            "flaky": Hook(FAILED, OK),
            "gone": Hook(GONE),
            "slow": Hook("hang"),
            "wrong": Hook(b"SSH-2.0-canary\r\n\r\n"),
        }
        for hook in self.hooks.values():
            hook.__enter__()
        self.config = PRICED + alerting({name: hook.url for name, hook in self.hooks.items()})
        self.gateway = RunningGateway(folder, self.config)
        self.gateway.start()
        self.admin = Admin(self.gateway)

    def close(self) -> None:
        self.admin.close()
        self.gateway.stop()
        for hook in self.hooks.values():
            hook.__exit__()

    def ask(self, key: str | None = None, model: str = "sim-mini") -> int:
        headers = {"authorization": f"Bearer {key or self.gateway.key}"}
        body = {"model": model, "input": "[[sim: tokens=5]] hi", "max_output_tokens": 5}
        return httpx.post(f"{self.gateway.base_url}/responses", json=body, headers=headers, timeout=30).status_code

    def open(self, **only: str) -> list[dict[str, Any]]:
        return self.admin.ask("GET", "/alerts/open", params=only)["data"]

    def rule(self, kind: str) -> dict[str, Any]:
        return self.admin.ask("GET", "/alerts", params={"kind": kind})["data"][0]

    def deliveries(self, **only: str) -> list[dict[str, Any]]:
        return self.admin.ask("GET", "/alerts/deliveries", params=only)["data"]

    def targets(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self.admin.ask("GET", "/alerts/targets")["data"]}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = Site(tmp_path_factory.mktemp("alerts"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def told(site):
    """A team whose budget refuses requests, and an upstream that is away; when all has come that follows of it."""
    team = site.admin.team("search", budget_usd="0.2", budget_window="total")
    key = site.admin.key(team, "ci")
    statuses = [site.ask(key["key"])]
    while statuses.count(429) < REFUSED_MIN:
        statuses.append(site.ask(key["key"]))
    assert (statuses[0], set(statuses)) == (200, {200, 429})
    assert site.ask(model="canary-unpriced") == 200
    assert site.ask(model="away") == 502
    site.admin.ask("PATCH", f"/alerts/{site.rule('upstream.down')['id']}", json={"parameters": {"after_s": 15}})
    wait_for(lambda: [alert for alert in site.open(kind="budget.threshold") if alert["level"] == 100], TOLD_S_MAX)

    def is_told() -> bool:
        states = {each["target"]: each["state"] for each in site.deliveries()}
        tries = {each["target"]: len(each["attempts"]) for each in site.deliveries()}
        return states.get("flaky") == "delivered" and tries.get("slow", 0) >= 1 and tries.get("wrong", 0) >= 2

    wait_for(is_told, TOLD_S_MAX)
    return team


def test_a_budget_that_refuses_is_told_once_with_who_and_how_much(site, told):
    *warned, event = site.hooks["ops"].events("budget.threshold")
    data = event["data"]
    # A look may have come between the requests.
    assert [each["data"]["level"] for each in warned] in ([], [80])
    assert (data["state"], data["level"], data["severity"]) == ("firing", 100, "bad")
    assert data["title"] in {"The budget of search refuses requests", "The budget of search is used up"}
    assert data["team"] == {"id": told["id"], "name": "search"}
    assert data["figures"]["maximum_usd"] == "0.2"
    (open_,) = site.open(kind="budget.threshold")
    assert open_ == data
    rule = site.rule("budget.threshold")
    assert (rule["state"], rule["firing"], rule["last_fired_at"]) == ("firing", 1, data["fired_at"])
    samples = site.gateway.metrics()
    assert samples['headgate_alerts_firing{rule="budget.threshold"}'] == 1
    assert samples['headgate_alert_deliveries_total{result="delivered",target="ops"}'] >= 1


def test_each_receiver_is_treated_as_it_behaves(site, told):
    of = {each["target"]: each for each in site.deliveries(rule=site.rule("budget.threshold")["id"])}
    assert (of["ops"]["state"], len(of["ops"]["attempts"])) == ("delivered", 1)
    flaky = of["flaky"]
    assert (flaky["state"], [each["status"] for each in flaky["attempts"]]) == ("delivered", [500, 204])
    assert flaky["attempts"][0]["error"] == "HTTP 500: not now"
    ids = [seen.headers["webhook-id"] for seen in site.hooks["flaky"].seen]
    assert ids == [flaky["id"]] * 2
    assert of["gone"]["state"] == "gone"
    assert [each["target"] for each in site.rule("budget.threshold")["blocked"]] == ["gone"]
    assert of["slow"]["state"] == "waiting"
    assert (of["slow"]["attempts"][0]["status"], of["slow"]["attempts"][0]["error"]) == (None, "no answer within 10 s")
    assert 9_000 < of["slow"]["attempts"][0]["took_ms"] < 25_000
    assert of["wrong"]["state"] == "waiting"
    assert of["wrong"]["next_at"] > of["wrong"]["attempts"][-1]["at"]
    targets = site.targets()
    assert {name: each["last_result"] for name, each in targets.items()} == {
        "ops": "delivered",
        "flaky": "delivered",
        "gone": "gone",
        "slow": "failed",
        "wrong": "failed",
    }
    assert targets["ops"]["to"] == "127.0.0.1"
    assert targets["slow"]["waiting"] == 1


def test_who_was_gone_is_told_again_when_targets_are_set(site, told):
    rule = site.rule("budget.threshold")
    changed = site.admin.ask("PATCH", f"/alerts/{rule['id']}", json={"targets": None})
    assert (changed["blocked"], changed["targets"]) == ([], None)


def test_a_budget_that_is_raised_is_over_and_that_is_told(site, told):
    site.admin.ask("PATCH", f"/teams/{told['id']}", json={"budget_usd": "100", "budget_window": "total"})
    before = len(site.hooks["ops"].events("budget.threshold"))
    wait_for(lambda: len(site.hooks["ops"].events("budget.threshold")) > before, TOLD_S_MAX)
    event = site.hooks["ops"].events("budget.threshold")[before]
    assert (event["data"]["state"], event["data"]["reason"]) == ("resolved", "back_to_normal")
    assert site.open(kind="budget.threshold") == []
    (over,) = site.admin.ask("GET", "/alerts/resolved", params={"kind": "budget.threshold"})["data"]
    assert over == event["data"]


@pytest.mark.parametrize(
    ("name", "ok", "status"),
    [("ops", True, 204), ("gone", False, 410), ("slow", False, None), ("wrong", False, None)],
)
def test_a_target_can_be_tried(site, name, ok, status):
    begun_s = time.monotonic()
    tested = site.admin.ask("POST", f"/alerts/targets/{name}/test")
    assert time.monotonic() - begun_s < TEST_S_MAX
    assert (tested["ok"], tested["delivery"]["attempts"][0]["status"]) == (ok, status)
    assert tested["delivery"]["type"] == "alert.test"
    assert tested["delivery"] in site.deliveries(target=name)
    assert site.admin.code("POST", "/alerts/targets/nobody/test") == (404, "not_found")


def test_rules_are_made_changed_and_removed_and_each_change_is_in_the_audit_log(site):
    admin = site.admin
    team = admin.team("rules")
    body = {
        "kind": "spend.velocity",
        "team_id": team["id"],
        "targets": ["ops", "ops"],
        "parameters": {"minimum_usd": "0.25"},
    }
    made = admin.ask("POST", "/alerts", 201, json=body)
    assert (made["name"], made["targets"], made["state"]) == ("Sudden spending", ["ops"], "quiet")
    assert made["parameters"] == {"times": 3.0, "minimum_usd": "0.25"}
    assert made["team"] == {"id": team["id"], "name": "rules"}
    path = f"/alerts/{made['id']}"
    changed = admin.ask("PATCH", path, json={"name": "Runaways", "enabled": False, "team_id": None})
    assert (changed["name"], changed["enabled"], changed["team"], changed["targets"]) == (
        "Runaways",
        False,
        None,
        ["ops"],
    )
    assert changed in admin.ask("GET", "/alerts")["data"]
    assert admin.ask("DELETE", path, 204) is None
    assert admin.code("DELETE", path) == (404, "not_found")
    assert admin.code("PATCH", path, json={}) == (404, "not_found")
    changes = admin.ask("GET", "/audit", params={"object_id": made["id"]})["data"]
    assert [each["action"] for each in changes] == ["alert.delete", "alert.update", "alert.create"]
    assert changes[1]["before"]["name"] == "Sudden spending"
    assert changes[1]["after"]["enabled"] is False
    assert admin.ask("GET", "/audit", params={"action": "alert.test"})["data"] != []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "kind"),
        ({"kind": "budget"}, "kind"),
        ({"kind": "model.unpriced", "parameters": {"x": 1}}, "parameters"),
        ({"kind": "spend.velocity", "parameters": {"minimum_usd": "-1"}}, "parameters"),
        ({"kind": "key.expiring", "parameters": {"days": []}}, "parameters"),
        ({"kind": "key.expiring", "targets": ["nobody"]}, "targets"),
        ({"kind": "key.expiring", "targets": "ops"}, "targets"),
        ({"kind": "upstream.down", "team_id": "x"}, "team_id"),
        ({"kind": "key.expiring", "team_id": "a\x00"}, "team_id"),
        ({"kind": "key.expiring", "name": "a\nb"}, "name"),
        ({"kind": "key.expiring", "id": "x"}, "id"),
    ],
)
def test_what_makes_no_rule_is_refused_with_its_place(site, body, param):
    answer = site.admin.post("/alerts", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "invalid_request"
    assert answer.json()["error"]["param"] == param


def test_a_team_that_is_not_there_is_404(site):
    assert site.admin.code("POST", "/alerts", json={"kind": "key.expiring", "team_id": "x"}) == (404, "not_found")


@pytest.mark.parametrize("query", ["cursor=x", "limit=0", "limit=201", "kind=x", "team=%00", "cursor=WzEsMl0"])
def test_pages_that_are_none_are_refused(site, query):
    assert site.admin.code("GET", f"/alerts/open?{query}") == (400, "invalid_request")


def test_pages_hold_everything_once(site):
    path = "/alerts?limit=2"
    seen: list[str] = []
    following = path
    while True:
        page = site.admin.ask("GET", following)
        seen += [rule["id"] for rule in page["data"]]
        if page["next"] is None:
            break
        following = f"{path}&cursor={page['next']}"
    assert seen == [rule["id"] for rule in site.admin.ask("GET", "/alerts")["data"]]
    assert len(seen) == 5


def test_a_viewer_reads_all_a_lead_its_own_and_a_key_nothing(site, told):
    other = site.admin.team("other")
    with (
        site.admin.person("viewer", "viewer") as viewer,
        site.admin.person("lead", "lead", told) as lead,
        site.admin.person("stranger", "lead", other) as stranger,
    ):
        rule = site.rule("model.unpriced")
        for path in ("/alerts", "/alerts/open", "/alerts/resolved", "/alerts/targets", "/alerts/deliveries"):
            assert viewer.get(path).status_code == 200
        for path in ("/alerts", "/alerts/targets", "/alerts/deliveries"):
            assert lead.code("GET", path) == (403, "forbidden")
        changing = [
            ("POST", "/alerts", {"kind": "model.unpriced"}),
            ("PATCH", f"/alerts/{rule['id']}", {"enabled": False}),
            ("DELETE", f"/alerts/{rule['id']}", None),
            ("POST", "/alerts/targets/ops/test", None),
        ]
        for person in (viewer, lead):
            for method, path, body in changing:
                assert person.code(method, path, json=body) == (403, "forbidden")
        assert [each["team"]["id"] for each in lead.ask("GET", "/alerts/resolved")["data"]] == [told["id"]]
        assert stranger.ask("GET", "/alerts/resolved")["data"] == []
        assert stranger.code("GET", f"/alerts/open?team={told['id']}") == (404, "not_found")
    nobody = httpx.get(f"{site.gateway.url}/admin/api/v1/alerts", headers=site.gateway.headers)
    assert nobody.status_code == 401


def test_an_upstream_that_cannot_be_reached_is_told_of_after_a_while(site, told):
    found = wait_for(lambda: site.open(kind="upstream.down"), TOLD_S_MAX)
    (alert,) = found
    assert (alert["title"], alert["severity"], alert["figures"]["cause"]) == (
        "away cannot be reached",
        "bad",
        "unreachable",
    )
    wait_for(lambda: site.hooks["ops"].events("upstream.down"))


def test_a_model_without_a_price_is_told_of(site, told):
    (alert,) = wait_for(lambda: site.open(kind="model.unpriced"), 90)
    assert alert["figures"] == {"model": "canary-unpriced", "upstream": "simulator", "requests": 1}


def test_a_reload_sends_to_the_targets_of_the_file(site):
    with Hook(OK) as fresh:
        reload(site.gateway, PRICED + alerting({"fresh": fresh.url}))
        assert list(site.targets()) == ["fresh"]
        assert site.admin.ask("POST", "/alerts/targets/fresh/test")["ok"]
        assert site.admin.code("POST", "/alerts/targets/ops/test") == (404, "not_found")
        assert len(fresh.events("alert.test")) == 1
    reload(site.gateway, site.config)


def test_no_secret_is_anywhere_but_in_the_file(site):
    """Neither what signs nor the path of a URL, which with many services is a secret too."""
    admin, gateway = site.admin, site.gateway
    pages = ["/alerts", "/alerts/open", "/alerts/resolved", "/alerts/targets", "/alerts/deliveries", "/audit"]
    text = "".join(admin.get(page, params={"limit": 200}).text for page in pages)
    text += gateway.log_path.read_text() + httpx.get(f"{gateway.url}/metrics").text
    with sqlite3.connect(f"file:{gateway.data_dir / 'headgate.db'}?mode=ro", uri=True) as database:
        text += "\n".join(database.iterdump())
    database.close()
    for secret in (SECRET, SECRET.removeprefix("whsec_"), PATH):
        assert secret not in text
    assert "[[sim:" not in text, "no prompt either"
    for hook in site.hooks.values():
        assert all(b"[[sim:" not in seen.body and b"sk-" not in seen.body for seen in hook.seen)
