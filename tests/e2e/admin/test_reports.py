"""Reports over a real gateway: real calls, and what every view, file and command says of them."""

from __future__ import annotations

import csv
import io
import json
import socket
from decimal import Decimal

import httpx
import pytest
from openai import APIStatusError, OpenAI

from app.admin.schemas.budgets import Budget, Budgets, Limits
from app.admin.schemas.limits import Limit
from app.admin.schemas.overview import Overview
from app.admin.schemas.records import Explanation, Records, RecordWhole
from app.admin.schemas.upstreams import Probe, Service, Upstreams
from app.admin.schemas.usage import Usage
from tests.e2e.admin.people import Admin, Person
from tests.fakes.fleet import wait_for
from tests.fakes.gateway import RunningGateway

SECRET = "sk-upstream-0123456789abcdef"
EVIL = '=HYPERLINK("http://evil","a"),\'x'
HOUR_MS = 3_600_000


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


CONFIG = """
upstreams:
  simulator: {{kind: simulator}}
  dead: {{base_url: "http://127.0.0.1:{port}/v1", api_key: {secret}}}
  bare: {{base_url: "https://api.openai.com/v1", api_key: ""}}
models:
  - {{match: "dead-*", upstream: dead}}
  - {{match: "*", upstream: simulator}}
prices:
  - {{model: "paid", input_per_mtok_usd: 100, output_per_mtok_usd: 200}}
server: {{drain_delay_s: 0}}
"""


class Site:
    """Two teams that have used a gateway: ``search`` with two keys, ``ops`` with one that has an evil name."""

    def __init__(self, gateway: RunningGateway, admin: Admin) -> None:
        self.gateway = gateway
        self.admin = admin
        self.search = admin.team("search")
        self.ops = admin.team(EVIL)
        self.web = admin.key(self.search, "web")
        self.batch = admin.key(self.search, "batch")
        self.root = admin.key(self.ops, "=1+1")
        self.lead = admin.person("lead of search", "lead", self.search)
        self.viewer = admin.person("viewer", "viewer")
        self.asked = [
            self.ask(self.web, "paid", tags="project=a"),
            self.ask(self.web, "paid", tags="project=b", user="bob"),
            self.ask(self.web, "unpriced-model"),
            self.ask(self.batch, "paid", tags="project=a"),
            self.ask(self.root, "paid", tags="project=z"),
            self.ask(self.root, "dead-model"),
        ]
        wait_for(lambda: admin.ask("GET", "/usage")["total"]["requests"] == len(self.asked))

    def ask(self, key: dict, model: str, *, tags: str | None = None, user: str | None = None) -> str:
        """The request's id."""
        body = {"model": model, "messages": [{"role": "user", "content": f"hello {model} {tags}"}], "max_tokens": 20}
        if user is not None:
            body["user"] = user
        headers = {"x-headgate-tags": tags} if tags else {}
        with OpenAI(
            base_url=self.gateway.base_url, api_key=key["key"], max_retries=0, default_headers=headers
        ) as client:
            try:
                answer = client.chat.completions.with_raw_response.create(**body)
            except APIStatusError as error:
                return error.response.headers["x-headgate-request-id"]
            return answer.headers["x-headgate-request-id"]

    def close(self) -> None:
        self.lead.close()
        self.viewer.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    config = CONFIG.format(port=unused_port(), secret=SECRET)
    with RunningGateway(tmp_path_factory.mktemp("reports"), config) as gateway, Admin(gateway) as admin:
        site = Site(gateway, admin)
        yield site
        site.close()


def told(person: Person, model, path: str, /, **query: str):
    """An answer, which is as its schema says."""
    answer = person.get(path, params=query)
    assert answer.status_code == 200, answer.text
    model.model_validate_json(answer.content)
    return answer.json()


def rows_of(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def of_key(site: Site, key: dict, path: str, /, **query: str) -> httpx.Response:
    return httpx.get(f"{site.gateway.url}{path}", params=query, headers={"authorization": f"Bearer {key['key']}"})


# -- one reading ------------------------------------------------------------------------------


def test_every_view_file_and_command_has_the_same_totals(site):
    total = told(site.admin, Usage, "/usage")["total"]
    assert total["requests"] == 6
    assert (total["failed"], total["unpriced"]) == (1, 1)
    cost = Decimal(total["cost_usd"])
    assert cost > 0
    for by in ("team", "key", "model", "upstream", "day", "hour", "week", "month", "tag.project", "team,model,day"):
        found = told(site.admin, Usage, "/usage", by=by)
        assert found["total"] == total, by
        assert sum(Decimal(row["cost_usd"]) for row in found["rows"]) == cost, by
        lines = rows_of(site.admin.get("/usage/export", params={"by": by}))
        assert sum(Decimal(line["cost_usd"]) for line in lines) == cost, by
        assert sum(int(line["requests"]) for line in lines) == 6, by
    overview = told(site.admin, Overview, "/overview")
    assert Decimal(overview["month"]["spent_usd"]) == cost
    assert overview["requests"] == {"requests": 6, "failed": 1}
    records = told(site.admin, Records, "/records", limit="200", range="this_month")["data"]
    assert sum(Decimal(row["cost_usd"] or 0) for row in records) == cost
    lines = rows_of(site.admin.get("/records/export", params={"range": "this_month"}))
    assert sum(Decimal(line["cost_usd"] or 0) for line in lines) == cost
    assert sum(Decimal(row["cost_usd"]) for row in site.gateway.usage("team")) == cost
    budget = site.admin.ask("POST", "/budgets", json={"team_id": site.search["id"], "maximum_usd": "500"})
    Budget.model_validate(budget)
    of_search = told(site.admin, Usage, "/usage", team=site.search["id"])["total"]
    assert budget["spent_usd"] == of_search["cost_usd"]
    own = of_key(site, site.web, "/me/usage").json()["total"]
    assert own == told(site.admin, Usage, "/usage", key=site.web["id"])["total"]
    site.admin.ask("DELETE", f"/budgets/{budget['id']}")


def test_a_file_of_lines_has_the_rows_of_the_answer(site):
    found = told(site.admin, Usage, "/usage", by="team,key", sort="-cost")
    answer = site.admin.get("/usage/export", params={"by": "team,key", "sort": "-cost", "format": "jsonl"})
    assert [json.loads(line) for line in answer.text.splitlines()] == found["rows"]
    assert answer.headers["content-disposition"] == 'attachment; filename="headgate-usage.jsonl"'
    records = told(site.admin, Records, "/records", limit="200")["data"]
    answer = site.admin.get("/records/export", params={"format": "jsonl"})
    assert [json.loads(line) for line in answer.text.splitlines()] == records


def test_a_file_for_finops_tools_has_the_same_total(site):
    total = told(site.admin, Usage, "/usage")["total"]
    answer = site.admin.get("/usage/export", params={"format": "focus", "by": "tag.project", "tz": "Europe/Berlin"})
    assert answer.headers["content-disposition"] == 'attachment; filename="headgate-focus.csv"'
    lines = rows_of(answer)
    assert sum(Decimal(line["BilledCost"]) for line in lines) == Decimal(total["cost_usd"])
    assert sum(int(line["x_Requests"]) for line in lines) == total["requests"]
    assert {line["Tags"] for line in lines} == {"", '{"project":"a"}', '{"project":"b"}', '{"project":"z"}'}
    assert {line["ProviderName"] for line in lines} == {"simulator", "dead"}
    own = rows_of(site.lead.get("/usage/export", params={"format": "focus"}))
    assert {line["SubAccountName"] for line in own} == {"search"}
    assert site.admin.code("GET", "/usage/export?format=focus&by=week") == (400, "invalid_request")


def test_no_cell_is_a_formula(site):
    for path in ("/usage/export?by=team,key", "/records/export", "/usage/export?format=focus"):
        lines = list(csv.reader(io.StringIO(site.admin.get(path).text, newline="")))
        cells = [cell for line in lines for cell in line]
        assert f"'{EVIL}" in cells
        assert "'=1+1" in cells
        assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "\r"))]


def test_filters_and_complements(site):
    def requests(**query):
        return told(site.admin, Usage, "/usage", **query)["total"]["requests"]

    assert requests(team=site.search["id"]) == 4
    assert requests(**{"not.team": site.search["id"]}) == 2
    assert requests(key=f"{site.web['id']},{site.batch['id']}") == 4
    assert requests(model="paid") == 4
    assert requests(upstream="dead") == 1
    assert requests(**{"tag.project": "a"}) == 2
    assert requests(**{"tag.project": "a,b"}) == 3
    assert requests(**{"not.tag.project": "a"}) == 4
    assert requests(**{"tag.project": ""}) == 2
    assert requests(team="nobody") == 0
    groups = {
        row["tag.project"]: row["requests"] for row in told(site.admin, Usage, "/usage", by="tag.project")["rows"]
    }
    assert groups == {"": 2, "a": 2, "b": 1, "z": 1}


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/usage?by=colour", "by"),
        ("/usage?teem=x", "teem"),
        ("/usage?range=this_week", "range"),
        ("/usage?from=yesterday", "from"),
        ("/usage?tz=Mars", "tz"),
        ("/usage?team=a&team=b", "team"),
        ("/usage?sort=price", "sort"),
        ("/usage?limit=0", "limit"),
        ("/usage?limit=9999999999", "limit"),
        ("/usage?cursor=x", "cursor"),
        ("/usage?tag.=x", "tag."),
        ("/usage?team=%00", "team"),
        ("/usage/export?format=xls", "format"),
        ("/usage/export?cursor=x", "cursor"),
        ("/records?outcome=fine", "outcome"),
        ("/records?cursor=e30", "cursor"),
        ("/records?q=", "q"),
        ("/records/x?team=y", "team"),
        ("/overview?show=upstream", "show"),
        ("/overview?range=today", "range"),
        ("/service?hours=0", "hours"),
        ("/budgets?cursor=WzBd", "cursor"),
        ("/limits?state=x", "state"),
        ("/upstreams?x=1", "x"),
    ],
)
def test_what_means_nothing_is_a_400_that_names_it(site, path, param):
    answer = site.admin.get(path)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", param)
    assert answer.headers["x-headgate-request-id"]


# -- records ----------------------------------------------------------------------------------


def test_a_record_is_found_by_whatever_is_known_of_it(site):
    first = told(site.admin, RecordWhole, f"/records/{site.asked[1]}")
    assert (first["team"]["name"], first["key"]["name"], first["end_user"]) == ("search", "web", "bob")
    assert first["tags"] == {"project": "b"}
    assert sum(Decimal(entry["cost_usd"]) for entry in first["entries"]) == Decimal(first["cost_usd"])
    for text in (site.asked[1], first["response_id"], "bob", "project=b"):
        found = told(site.admin, Records, "/records", q=text)["data"]
        assert [row["request_id"] for row in found] == [site.asked[1]], text
    for query in ({"end_user": "bob"}, {"response_id": first["response_id"]}, {"tag.project": "b"}):
        assert len(told(site.admin, Records, "/records", **query)["data"]) == 1
    assert len(told(site.admin, Records, "/records", q=site.web["id"])["data"]) == 3
    assert [row["request_id"] for row in told(site.admin, Records, "/records", outcome="failed")["data"]] == [
        site.asked[5]
    ]


def test_pages_of_records_newest_first(site):
    seen, cursor = [], None
    while True:
        page = told(site.admin, Records, "/records", limit="2", **({"cursor": cursor} if cursor else {}))
        seen += [row["request_id"] for row in page["data"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == site.asked[::-1]


def test_why(site):
    explained = told(site.admin, Explanation, f"/explain/{site.asked[0]}")
    assert (explained["kind"], explained["team"], explained["key"]) == ("record", "search", "web")
    assert explained["attempts"][0]["entries"][0]["price_source"]
    lines = [Decimal(line["cost_usd"]) for line in explained["bill"]["lines"] if line["cost_usd"]]
    assert sum(lines) == Decimal(explained["cost_usd"]) > 0
    failed = told(site.admin, Explanation, f"/explain/{site.asked[5]}")
    assert {attempt["kind"] for attempt in failed["attempts"]} == {"void"}
    limited = site.admin.key(site.search, "limited", requests_per_minute=1)
    admitted = site.ask(limited, "paid")
    refused = site.ask(limited, "paid")
    wait_for(lambda: site.admin.get(f"/records/{admitted}").status_code == 200)
    wait_for(lambda: site.admin.get(f"/explain/{refused}").status_code == 200)
    explained = told(site.admin, Explanation, f"/explain/{refused}")
    assert (explained["kind"], explained["status"]) == ("refusal", 429)
    assert explained["decision"]["limit"] == "requests_per_minute"
    assert site.lead.get(f"/explain/{refused}").status_code == 200
    for path in ("records", "explain"):
        assert site.admin.code("GET", f"/{path}/{'0' * 36}") == (404, "not_found")
        assert site.admin.code("GET", f"/{path}/{'%00' * 3}")[0] == 400


# -- who may ----------------------------------------------------------------------------------


def test_a_lead_sees_its_team_and_no_other(site):
    lead = site.lead
    of_team = told(site.admin, Usage, "/usage", team=site.search["id"])["total"]
    assert told(lead, Usage, "/usage")["total"] == of_team
    assert told(lead, Usage, "/usage", team=site.ops["id"])["total"]["requests"] == 0
    assert told(lead, Usage, "/usage", key=site.root["id"])["total"]["requests"] == 0
    assert {row["team"] for row in told(lead, Usage, "/usage", by="team")["rows"]} == {"search"}
    assert told(lead, Records, "/records", q=site.asked[4])["data"] == []
    assert told(lead, Records, "/records", team=site.ops["id"])["data"] == []
    assert lead.code("GET", f"/records/{site.asked[4]}") == (404, "not_found")
    assert lead.code("GET", f"/explain/{site.asked[4]}") == (404, "not_found")
    assert lead.code("GET", "/overview", params={"team": site.ops["id"]}) == (404, "not_found")
    assert lead.code("GET", "/service", params={"team": f"{site.search['id']},{site.ops['id']}"}) == (404, "not_found")
    both = told(site.admin, Overview, "/overview", team=f"{site.search['id']},{site.ops['id']}")
    assert both["month"]["spent_usd"] == told(site.admin, Overview, "/overview")["month"]["spent_usd"]
    assert site.admin.code("GET", "/overview", params={"team": "nobody"}) == (404, "not_found")
    overview = told(lead, Overview, "/overview")
    assert overview["month"]["spent_usd"] == of_team["cost_usd"]
    assert "evil" not in json.dumps(overview)
    assert "dead" not in json.dumps(told(lead, Service, "/service"))
    assert "evil" not in lead.get("/usage/export?by=team,key").text + lead.get("/records/export").text
    assert lead.code("GET", "/upstreams") == (403, "forbidden")
    budget = site.admin.ask("POST", "/budgets", json={"team_id": site.ops["id"], "maximum_usd": "1"})
    assert lead.code("GET", f"/budgets/{budget['id']}") == (404, "not_found")
    both = f"{site.search['id']},{site.ops['id']}"
    assert [each["id"] for each in told(site.admin, Budgets, "/budgets", team=both)["data"]] == [budget["id"]]
    assert told(lead, Budgets, "/budgets", team=both)["data"] == []
    assert told(lead, Budgets, "/budgets")["data"] == told(lead, Budgets, "/budgets", team=site.ops["id"])["data"] == []
    for method, path, body in (
        ("POST", "/budgets", {"team_id": site.search["id"], "maximum_usd": "1"}),
        ("POST", "/limits", {"team_id": site.search["id"], "kind": "concurrency", "maximum": 1}),
        ("PATCH", f"/budgets/{budget['id']}", {"maximum_usd": "2"}),
        ("DELETE", f"/limits/{budget['id']}", None),
        ("POST", "/upstreams/simulator/probe", None),
    ):
        for person in (lead, site.viewer):
            assert person.code(method, path, json=body) == (403, "forbidden"), (method, path)
    site.admin.ask("DELETE", f"/budgets/{budget['id']}")


def test_a_viewer_reads_everything(site):
    for path in ("/usage", "/overview", "/service", "/records", "/budgets", "/limits", "/upstreams"):
        assert site.viewer.get(path).status_code == 200, path


def test_nobody_reads_nothing(site):
    with Person(site.gateway) as nobody, Person(site.gateway, site.web["key"]) as key:
        for path in (
            "/usage",
            "/usage/export",
            "/overview",
            "/service",
            "/records",
            "/records/export",
            "/budgets",
            "/limits",
            "/upstreams",
            f"/records/{site.asked[0]}",
            f"/explain/{site.asked[0]}",
        ):
            for person in (nobody, key):
                assert person.code("GET", path) == (401, "invalid_admin_token"), path
    token = {"authorization": f"Bearer {site.gateway.first_run['admin_token']}"}
    for path in ("/me", "/me/limits", "/me/usage", "/me/records"):
        for headers in ({}, token):
            answer = httpx.get(site.gateway.url + path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), path


# -- rules ------------------------------------------------------------------------------------


def test_a_budget_is_made_raised_and_taken_away_and_the_log_says_so(site):
    admin = site.admin
    made = admin.ask(
        "POST",
        "/budgets",
        201,
        json={"team_id": site.search["id"], "key_id": site.web["id"], "maximum_usd": "0.01", "warn_percents": [50, 80]},
    )
    assert (made["window"], made["key"]["name"], made["warn_percents"]) == ("month", "web", [50, 80])
    assert made["state"] in {"ok", "warned", "exhausted"}
    assert made["days"][-1]["spent_usd"] == made["spent_usd"]
    again = {"team_id": site.search["id"], "key_id": site.web["id"], "maximum_usd": "5"}
    assert admin.code("POST", "/budgets", json=again) == (409, "already_exists")
    raised = admin.ask("PATCH", f"/budgets/{made['id']}", json={"maximum_usd": "12.50", "mode": "observe"})
    assert (raised["maximum_usd"], raised["mode"], raised["spent_usd"]) == ("12.5", "observe", made["spent_usd"])
    assert admin.ask("GET", f"/budgets/{made['id']}")["id"] == made["id"]
    assert told(admin, Budgets, "/budgets", key=site.web["id"])["data"][0]["id"] == made["id"]
    log = admin.ask("GET", f"/audit?object_id={made['id']}")["data"]
    assert [change["action"] for change in log] == ["budget.update", "budget.create"]
    assert log[0]["before"] == {"maximum_usd": "0.01", "mode": "enforce"}
    assert log[0]["after"] == {"maximum_usd": "12.5", "mode": "observe"}
    admin.ask("DELETE", f"/budgets/{made['id']}", 204)
    assert admin.code("GET", f"/budgets/{made['id']}") == (404, "not_found")
    assert admin.ask("GET", "/audit?action=budget.delete")["data"][0]["object"]["id"] == made["id"]


def test_a_limit_holds_on_the_data_plane(site):
    admin = site.admin
    key = admin.key(site.ops, "held")
    made = admin.ask(
        "POST",
        "/limits",
        201,
        json={"team_id": site.ops["id"], "key_id": key["id"], "kind": "requests", "window": "minute", "maximum": 0},
    )
    Limit.model_validate(made)
    body = {"model": "sim-small", "input": "hi"}
    headers = {"authorization": f"Bearer {key['key']}"}
    wait_for(lambda: httpx.post(f"{site.gateway.base_url}/responses", json=body, headers=headers).status_code == 429)
    found = told(admin, Limits, "/limits", key=key["id"])["data"]
    assert [(each["id"], each["maximum"]) for each in found] == [(made["id"], 0)]
    assert admin.code("PATCH", f"/limits/{made['id']}", json={"maximum_usd": "1"}) == (400, "invalid_request")
    assert admin.code("PATCH", f"/budgets/{made['id']}", json={"mode": "observe"}) == (404, "not_found")
    assert admin.code("DELETE", f"/budgets/{made['id']}") == (404, "not_found")
    admin.ask("PATCH", f"/limits/{made['id']}", json={"mode": "observe"})
    admin.ask("DELETE", f"/limits/{made['id']}", 204)
    assert admin.code("DELETE", f"/limits/{made['id']}") == (404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"team_id": "T", "kind": "requests", "window": "month", "maximum": 1},
        {"team_id": "T", "kind": "money", "window": "month", "maximum": 1},
        {"team_id": "T", "kind": "requests", "window": "minute", "maximum_usd": "1"},
        {"team_id": "T", "kind": "requests", "window": "minute", "maximum": -1},
        {"team_id": "T", "kind": "requests", "window": "minute", "maximum": 1, "id": "x"},
        {"team_id": "T", "kind": "requests", "window": "minute", "maximum": 1, "tag_value": "x"},
        {"team_id": "T", "kind": "requests", "window": "minute", "maximum": 1, "model": "a\0"},
        {"team_id": "T", "kind": "money", "window": "month", "maximum_usd": "1", "time_zone": "Mars"},
        {"team_id": "T", "kind": "money", "window": "month", "maximum_usd": 1.5},
        {"team_id": "T", "kind": "money", "window": "month", "maximum_usd": "1", "warn_percents": [101]},
    ],
)
def test_a_rule_that_cannot_be_counted_is_refused(site, body):
    if "team_id" in body:
        body = {**body, "team_id": site.search["id"]}
    assert site.admin.code("POST", "/limits", json=body) == (400, "invalid_request")


def test_a_rule_of_nobody(site):
    for body in (
        {"team_id": "nobody", "maximum_usd": "1"},
        {"team_id": site.search["id"], "key_id": site.root["id"], "maximum_usd": "1"},
    ):
        assert site.admin.code("POST", "/budgets", json=body) == (404, "not_found")


# -- upstreams --------------------------------------------------------------------------------


def test_upstreams_and_how_they_are(site):
    found = {each["name"]: each for each in told(site.admin, Upstreams, "/upstreams")["data"]}
    assert {name: each["state"] for name, each in found.items()} == {
        "simulator": "healthy",
        "dead": "down",
        "bare": "off",
    }
    assert found["dead"]["since"] is not None
    assert (found["dead"]["host"].partition(":")[0], found["simulator"]["host"]) == ("127.0.0.1", "built in")
    assert found["simulator"]["hours"][-1]["requests"] + found["simulator"]["hours"][-2]["requests"] >= 5
    assert len(found["simulator"]["hours"]) == 24
    assert (found["dead"]["models"], found["simulator"]["models"]) == (["dead-*"], ["*"])
    assert found["dead"]["failed_percent"] == 100.0
    assert SECRET not in site.admin.get("/upstreams").text
    service = told(site.admin, Service, "/service", hours="2")
    assert len(service["series"]) == 2
    assert service["first_byte_p95_ms"] > 0
    assert [item["title"] for item in told(site.admin, Overview, "/overview")["attention"]] == [
        "dead is down",
        "1 request has no price",
    ]


def test_an_upstream_is_tried_and_its_key_is_not_told(site):
    good = site.admin.ask("POST", "/upstreams/simulator/probe")
    Probe.model_validate(good)
    assert (good["ok"], good["status"], good["error"]) == (True, 200, None)
    bad = site.admin.post("/upstreams/dead/probe")
    assert bad.json()["ok"] is False
    assert bad.json()["error"] == "It cannot be connected to."
    assert SECRET not in bad.text
    assert site.admin.code("POST", "/upstreams/bare/probe") == (400, "invalid_request")
    assert site.admin.code("POST", "/upstreams/nobody/probe") == (404, "not_found")


# -- me ---------------------------------------------------------------------------------------


def test_a_key_sees_itself(site):
    me = of_key(site, site.web, "/me").json()
    assert me["key"] == {"id": site.web["id"], "name": "web"}
    assert me["team"] == {"name": "search"}
    assert me["base_url"] == site.gateway.base_url
    usage = of_key(site, site.web, "/me/usage", by="model").json()
    Usage.model_validate(usage)
    assert usage["total"]["requests"] == 3
    found = of_key(site, site.web, "/me/records").json()
    Records.model_validate(found)
    assert [row["request_id"] for row in found["data"]] == site.asked[2::-1]
    for header in ("x-api-key", "api-key"):
        answer = httpx.get(f"{site.gateway.url}/me", headers={header: site.web["key"]})
        assert answer.json() == me


def test_a_key_sees_nothing_of_others(site):
    others = (site.batch["id"], site.root["id"], "batch", "evil", "project=z")
    for path, query in (
        ("/me/usage", {"by": "team,key"}),
        ("/me/usage", {"key": site.batch["id"], "by": "key"}),
        ("/me/usage", {"not.key": site.web["id"], "by": "key"}),
        ("/me/records", {"q": site.asked[3]}),
        ("/me/records", {"q": site.batch["id"]}),
        ("/me/records", {"q": "project=z"}),
        ("/me/records", {"team": site.ops["id"]}),
        ("/me/limits", {}),
        ("/me", {}),
    ):
        answer = of_key(site, site.web, path, **query)
        assert answer.status_code == 200
        for text in others:
            assert text not in answer.text, (path, query)
        if "key" in query or "q" in query or "team" in query or "not.key" in query:
            data = answer.json()
            assert (data.get("data") or data.get("rows") or []) == []
    assert of_key(site, site.web, "/me/usage", foo="1").json()["error"]["param"] == "foo"


def test_what_is_left_of_every_limit(site):
    key = site.admin.key(
        site.ops, "limited", requests_per_minute=10, tokens_per_minute=100_000, concurrency=3, budget_usd="5"
    )
    site.ask(key, "paid")
    budget = site.admin.ask(
        "POST", "/budgets", json={"team_id": site.ops["id"], "maximum_usd": "0.5", "window": "week"}
    )

    def limits():
        answer = of_key(site, key, "/me/limits")
        assert answer.status_code == 200, answer.text
        return {(each["scope"], each["kind"]): each for each in answer.json()["data"]}

    wait_for(lambda: ("team", "money") in limits() and limits()["key", "money"]["used_usd"] != "0")
    found = limits()
    assert found["key", "requests"]["used"] == 1
    assert found["key", "requests"]["left"] == 9
    assert found["key", "requests"]["resets_at"] is not None
    assert 0 < found["key", "tokens"]["used"] < 100
    assert (found["key", "concurrency"]["used"], found["key", "concurrency"]["left"]) == (0, 3)
    money = found["key", "money"]
    assert Decimal(money["used_usd"]) + Decimal(money["left_usd"]) == 5
    used = told(site.admin, Usage, "/usage", key=key["id"])["total"]["cost_usd"]
    assert money["used_usd"] == used
    percents = [each["used_percent"] for each in of_key(site, key, "/me/limits").json()["data"]]
    assert percents == sorted(percents, reverse=True)
    # Looking takes nothing.
    assert limits()["key", "requests"] == found["key", "requests"]
    site.admin.ask("DELETE", f"/budgets/{budget['id']}")


def test_hostile_hosts_are_not_repeated(site):
    headers = {"authorization": f"Bearer {site.web['key']}", "host": 'a"><script>'}
    answer = httpx.get(f"{site.gateway.url}/me", headers=headers)
    assert "<script>" not in answer.text
