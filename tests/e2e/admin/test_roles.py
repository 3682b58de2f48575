"""Every route of the OpenAPI document, asked by everybody: what each may do stands in one table."""

from __future__ import annotations

import base64
import itertools
import re
import time
from typing import Any

import httpx
import pytest

from tests.e2e.admin.people import API, Admin
from tests.fakes.gateway import RunningGateway

CONFIG = f"""
upstreams:
  simulator: {{kind: simulator}}
models:
  - {{match: "*", upstream: simulator}}
server: {{drain_delay_s: 0, trusted_proxies: [127.0.0.1]}}
alerts:
  targets: [{{name: ops, webhook: {{url: "http://127.0.0.1:9", secret: "whsec_{base64.b64encode(b"x" * 32).decode()}"}}}}]
"""
names = (f"role-{number}" for number in itertools.count())

ROLES = ("nobody", "key", "viewer", "foreign", "lead", "admin")
"""``foreign`` leads another team than the one whose things are asked for."""

PUBLIC = ("ok", "ok", "ok", "ok", "ok", "ok")
ABSENT = (404, 404, 404, 404, 404, 404)
READ = (401, 401, "ok", "ok", "ok", "ok")
OF_TEAM = (401, 401, "ok", 404, "ok", "ok")
OF_ALL = (401, 401, "ok", 403, 403, "ok")
KEEP = (401, 401, 403, 404, "ok", "ok")
ADMIN = (401, 401, 403, 403, 403, "ok")
OWN = (401, "ok", 401, 401, 401, 401)

TABLE = {
    "post /session": PUBLIC,
    "get /session": READ,
    "delete /session": READ,
    "get /sso": PUBLIC,
    # No provider is configured here; test_sso.py has one.
    "get /sso/login": ABSENT,
    "get /sso/callback": ABSENT,
    "get /tokens": ADMIN,
    "post /tokens": ADMIN,
    "delete /tokens/{token_id}": ADMIN,
    "get /teams": READ,
    "post /teams": ADMIN,
    "get /teams/{team_id}": OF_TEAM,
    "patch /teams/{team_id}": ADMIN,
    "get /keys": READ,
    "post /keys": KEEP,
    "get /keys/counts": READ,
    "get /keys/{key_id}": OF_TEAM,
    "patch /keys/{key_id}": KEEP,
    "post /keys/{key_id}/rotate": KEEP,
    "post /keys/{key_id}/revoke": KEEP,
    "get /keys/{key_id}/secrets": OF_TEAM,
    "patch /keys/{key_id}/secrets/{secret_id}": KEEP,
    "post /keys/{key_id}/secrets/{secret_id}/revoke": KEEP,
    "get /overview": READ,
    "get /service": READ,
    "get /usage": READ,
    "get /usage/export": READ,
    "get /records": READ,
    "get /records/export": READ,
    "get /records/{request_id}": OF_TEAM,
    "get /explain/{request_id}": OF_TEAM,
    "get /budgets": READ,
    "post /budgets": ADMIN,
    "get /budgets/{budget_id}": OF_TEAM,
    "patch /budgets/{budget_id}": ADMIN,
    "delete /budgets/{budget_id}": ADMIN,
    "get /limits": READ,
    "post /limits": ADMIN,
    "patch /limits/{limit_id}": ADMIN,
    "delete /limits/{limit_id}": ADMIN,
    "get /upstreams": OF_ALL,
    "post /upstreams/{name}/probe": ADMIN,
    "post /upstreams/{name}/pause": ADMIN,
    "post /upstreams/{name}/resume": ADMIN,
    "get /prices": READ,
    "post /prices": ADMIN,
    "delete /prices/{price_id}": ADMIN,
    "post /prices/reprice": ADMIN,
    "get /audit": OF_ALL,
    "get /audit/export": OF_ALL,
    "get /live": READ,
    "get /alerts": OF_ALL,
    "post /alerts": ADMIN,
    "patch /alerts/{rule_id}": ADMIN,
    "delete /alerts/{rule_id}": ADMIN,
    "get /alerts/open": READ,
    "get /alerts/resolved": READ,
    "get /alerts/targets": OF_ALL,
    "post /alerts/targets/{name}/test": ADMIN,
    "get /alerts/deliveries": OF_ALL,
    "get /me": OWN,
    "get /me/limits": OWN,
    "get /me/usage": OWN,
    "get /me/records": OWN,
    "get /me/live": OWN,
}


class Site:
    """A gateway with two teams, each with its lead, and things of the first to ask for."""

    def __init__(self, gateway: RunningGateway, admin: Admin) -> None:
        self.gateway, self.admin = gateway, admin
        self.document = httpx.get(f"{gateway.url}/admin/api/openapi.json").json()
        self.team, self.other = admin.team(next(names)), admin.team(next(names))
        self.key = admin.key(self.team, next(names))
        self.theirs = admin.key(self.other, next(names))
        people = {
            "viewer": admin.person(next(names), "viewer"),
            "foreign": admin.person(next(names), "lead", self.other),
            "lead": admin.person(next(names), "lead", self.team),
            "admin": admin,
        }
        self.credentials = {name: person.headers["authorization"] for name, person in people.items()}
        self.credentials["key"] = f"Bearer {self.key['key']}"
        for person in people.values():
            if person is not admin:
                person.close()
        self.request_id = self._asked()
        self._addresses = (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in itertools.count(1))

    def _asked(self) -> str:
        """The id of a request of the team's key, once it is in the ledger."""
        answer = httpx.post(
            f"{self.gateway.base_url}/responses",
            json={"model": "sim-small", "input": "hi"},
            headers={"authorization": self.credentials["key"]},
        )
        request_id = answer.headers["x-headgate-request-id"]
        deadline = time.monotonic() + 30
        while self.admin.get(f"/records/{request_id}").status_code == 404:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return request_id

    def things(self, path: str) -> dict[str, str]:
        """What the path names: things of the first team, made for this route alone."""
        admin = self.admin
        rule = {"team_id": self.team["id"], "model": next(names)}
        price = {"model": next(names), "input_per_mtok_usd": "1", "output_per_mtok_usd": "1"}
        made = {
            "team_id": lambda: self.team["id"],
            "key_id": lambda: admin.key(self.team, next(names))["id"],
            "token_id": lambda: admin.ask("POST", "/tokens", json={"name": next(names), "role": "viewer"})["id"],
            "request_id": lambda: self.request_id,
            "budget_id": lambda: admin.ask("POST", "/budgets", json={**rule, "maximum_usd": "1"})["id"],
            "limit_id": lambda: admin.ask("POST", "/limits", json={**rule, "kind": "concurrency", "maximum": 9})["id"],
            "price_id": lambda: admin.ask("POST", "/prices", json=price)["id"],
            "rule_id": lambda: admin.ask("POST", "/alerts", json={"kind": "model.unpriced"})["id"],
            "name": lambda: "ops" if "targets" in path else "simulator",
        }
        found = {name: made[name]() for name in re.findall(r"{(\w+)}", path) if name != "secret_id"}
        # The first secret of a key has its id.
        return {**found, "secret_id": found.get("key_id", "")}

    def body(self, method: str, path: str) -> dict[str, Any] | None:
        """One that gets as far as the question whose thing it is; of most an empty one does."""
        if "requestBody" not in self.document["paths"][path][method]:
            return None
        bodies: dict[str, dict[str, Any]] = {
            "/session": {"credential": self.credentials["lead"].removeprefix("Bearer ")},
            "/keys": {"team_id": self.team["id"], "name": next(names)},
            "/keys/{key_id}/revoke": {"name": "not its name"},
            "/keys/{key_id}/secrets/{secret_id}": {"expires_at": None},
        }
        return bodies.get(path.removeprefix(API), {})

    def status(self, role: str, method: str, path: str, body: dict[str, Any] | None = None) -> int:
        """From an address of its own: guesses are counted by those."""
        headers = {"x-forwarded-for": next(self._addresses)}
        if role in self.credentials:
            headers["authorization"] = self.credentials[role]
        with httpx.stream(method, f"{self.gateway.url}{path}", headers=headers, json=body, timeout=20) as answer:
            return answer.status_code


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("roles"), CONFIG) as gateway, Admin(gateway) as admin:
        yield Site(gateway, admin)


def test_the_table_has_every_route_and_no_other(site):
    routes = {
        f"{method} {path.removeprefix(API)}" for path, methods in site.document["paths"].items() for method in methods
    }
    assert routes == set(TABLE)


@pytest.mark.parametrize("route", TABLE)
def test_everybody_may_what_the_table_says(site, route):
    method, _, short = route.partition(" ")
    path = short if short.startswith("/me") else f"{API}{short}"
    place = path.format(**site.things(path))
    found = {}
    for role in ROLES:
        status = site.status(role, method, place, site.body(method, path))
        # What is allowed may be wrong in itself: most bodies are empty here.
        found[role] = status if status in {401, 403, 404} else "ok" if status < 400 or status in {400, 409} else status
    assert found == dict(zip(ROLES, TABLE[route], strict=True))


# -- more of anybody --------------------------------------------------------------------------------

BY_LEADS = {
    "post /keys",
    "patch /keys/{key_id}",
    "post /keys/{key_id}/rotate",
    "post /keys/{key_id}/revoke",
    "patch /keys/{key_id}/secrets/{secret_id}",
}


def shown_values(document: dict[str, Any]) -> dict[str, Any]:
    """Every member that any schema has, with a value that some example shows for it."""
    found: dict[str, Any] = {}
    for schema in document["components"]["schemas"].values():
        found.update(dict.fromkeys(set(schema.get("properties", {})) - set(found), "admin"))
    examples = [
        example
        for schema in document["components"]["schemas"].values()
        for example in (schema.get("example"), *schema.get("examples", ()))
        if isinstance(example, dict)
    ]
    for example in examples:
        found.update({name: value for name, value in example.items() if value is not None})
    return found


def hostile_values(site: Site) -> dict[str, Any]:
    """The same, where it matters pointing at what is not the lead's."""
    other = {"id": site.other["id"], "name": site.other["name"]}
    return {
        **shown_values(site.document),
        "role": "admin",
        "kind": "token",
        "team_id": site.other["id"],
        "team": other,
        "key_id": site.theirs["id"],
        "key": site.theirs["id"],
        "id": site.theirs["id"],
        "secret_id": site.theirs["id"],
        "secrets": [{"id": site.theirs["id"], "state": "revoked"}],
        "actor": {"kind": "token", "id": "environment", "name": "root"},
        "created_at": "2020-01-01T00:00:00.000Z",
        "state": "active",
        "digest": "00",
        "is_admin": True,
        "endpoints": ["*"],
    }


def everything(site: Site) -> dict[str, Any]:
    """All that is not the lead's to change, as an administrator reads it."""
    admin = site.admin

    def rows(path: str, without: tuple[str, ...] = (), **asked: str) -> list[dict[str, Any]]:
        data = admin.ask("GET", path, params={"limit": 200, **asked})["data"]
        return [{name: value for name, value in row.items() if name not in without} for row in data]

    return {
        "teams": rows("/teams", ("keys_active",)),
        "tokens": rows("/tokens", ("last_used_at",)),
        "keys of others": [row for row in rows("/keys", state="all") if row["team"]["id"] != site.team["id"]],
        "limits of teams": [
            row for row in rows("/limits") if row["key"] is None or row["team"]["id"] != site.team["id"]
        ],
        "prices": rows("/prices"),
        # What fires meanwhile is nobody's doing.
        "alerts": rows("/alerts", ("state", "firing", "last_fired_at")),
    }


def send_each(lead: httpx.Client, site: Site, route: str, place: str) -> None:
    """A body that is right but for one member, for every member that there is."""
    method, _, short = route.partition(" ")
    content = site.document["paths"][f"{API}{short}"][method]["requestBody"]["content"]["application/json"]
    schema = site.document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    values = hostile_values(site)
    assert len(values) > 100
    if TABLE[route] is ADMIN:
        # Who may not is refused before a body is looked at.
        for body in (values, {}, content["example"]):
            assert lead.request(method, place, json=body).status_code == 403, route
        return
    for name, value in values.items():
        answer = lead.request(method, place, json={**site.body(method, f"{API}{short}"), name: value})
        if name in schema["properties"]:
            expected = {403} if name == "endpoints" else {200, 201, 400, 401, 404, 409}
            assert answer.status_code in expected, (route, name, answer.text)
        else:
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name), (route, name)


def test_no_member_of_any_body_gives_a_lead_more(site):
    places = {
        f"{method} {path.removeprefix(API)}": path.format(**site.things(path))
        for path, methods in site.document["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    }
    assert {route for route in places if TABLE[route] is KEEP} == BY_LEADS
    before = everything(site)
    headers = {"authorization": site.credentials["lead"]}
    with httpx.Client(base_url=site.gateway.url, headers=headers, timeout=20) as lead:
        for route, place in places.items():
            send_each(lead, site, route, place)
        session = lead.get(f"{API}/session").json()
    assert (session["role"], session["team"]["id"]) == ("lead", site.team["id"])
    assert everything(site) == before
    changes = site.admin.ask("GET", "/audit", params={"limit": 200, "object_id": site.theirs["id"]})["data"]
    assert {change["action"] for change in changes} == {"key.create"}
