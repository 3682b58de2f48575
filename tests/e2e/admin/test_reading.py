"""What a request says is read strictly: its parameters and its body, by every route."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "path",
    [
        "/teams",
        "/keys",
        "/keys/counts",
        "/audit",
        "/audit/export",
        "/tokens",
        "/prices",
        "/alerts",
        "/session",
        "/sso",
        "/sso/login",
    ],
)
def test_a_parameter_that_is_not_known_is_refused(admin, path):
    answer = admin.get(path, params={"stat": "revoked"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stat")


@pytest.mark.parametrize(
    ("path", "name"),
    [("/teams", "limit"), ("/keys", "limit"), ("/audit", "limit"), ("/alerts", "limit"), ("/live", "team")],
)
def test_a_parameter_that_is_given_twice_is_refused(admin, path, name):
    answer = admin.get(path, params=[(name, "1"), (name, "2")])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_what_changes_something_has_no_parameters(admin):
    answer = admin.post("/teams?dry_run=true", json={"name": "never made"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "dry_run")
    assert "never made" not in {team["name"] for team in admin.ask("GET", "/teams?limit=200")["data"]}


def test_what_a_route_has_is_taken(admin):
    admin.ask("GET", "/teams?q=x&limit=1")
    admin.ask("GET", "/keys?state=revoked&limit=1&q=x")
    admin.ask("GET", "/audit?actor=x&action=y&object_kind=z&object_id=w&limit=1")
    admin.ask("GET", "/usage?by=day&tag.project=x&range=today")


@pytest.mark.parametrize(("path", "body"), [("/tokens", {"role": "viewer"}), ("/prices", {"input_per_mtok_usd": "1"})])
def test_every_list_has_pages(admin, path, body):
    for number in range(3):
        named = {"name": f"t{number}"} if path == "/tokens" else {"model": f"m{number}", "output_per_mtok_usd": "1"}
        admin.ask("POST", path, json={**body, **named})
    whole = admin.ask("GET", path, params={"limit": 200})["data"]
    first = admin.ask("GET", path, params={"limit": 2})
    second = admin.ask("GET", path, params={"limit": 2, "cursor": first["next"]})
    assert first["data"] + second["data"] == whole[:4]
    assert admin.code("GET", path, params={"cursor": "x"}) == (400, "invalid_request")


def test_who_is_not_known_learns_nothing_of_parameters(gateway, admin):
    assert admin.code("GET", "/teams?x=1", headers={"authorization": "Bearer hg-admin-x"}) == (
        401,
        "invalid_admin_token",
    )


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"name":"a1","name":"b1"}', "ambiguous_json"),
        (b'{"name":"a1","n\\u0061me":"b1"}', "ambiguous_json"),
        (b'{ "name": "a1", "owner": {"x": 1, "x": 2} }', "ambiguous_json"),
        (b'\xef\xbb\xbf{"name":"a1"}', "invalid_json"),
        ('{"name":"a1"}'.encode("utf-16"), "invalid_json"),
        ('{"name":"a1"}'.encode("utf-16-le"), "invalid_json"),
        ('{"name":"a1"}'.encode("utf-32"), "invalid_json"),
        (b'{"name":"a1\xff"}', "invalid_json"),
        (b'{"name":"\\ud800"}', "invalid_json"),
        (b'{"name":NaN}', "invalid_json"),
        (b"[" * 2000, "invalid_json"),
        (b'["a1"]', "invalid_request"),
    ],
)
def test_a_body_says_one_thing_in_utf_8(admin, body, code):
    for path in ("/teams", "/session", "/keys", "/limits"):
        for kind in ("application/json", "application/json; charset=utf-16", "Application/vnd.x+JSON"):
            assert admin.code("POST", path, content=body, headers={"content-type": kind}) == (400, code)
    answer = admin.post("/teams", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    # Refused before a route sees it, and with the headers of every answer.
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert not {"a1", "b1"} & {team["name"] for team in admin.ask("GET", "/teams?limit=200")["data"]}


@pytest.mark.parametrize("path", ["/teams", "/session", "/nowhere"])
def test_a_body_that_does_not_say_how_long_it_is_has_the_same_bound(admin, path):
    def pieces():
        yield b'{"name": "'
        for _ in range(40):
            yield b"x" * 32 * 1024
        yield b'"}'

    assert admin.code("POST", path, content=pieces(), headers=JSON) == (413, "body_too_large")
    made = admin.post("/teams", content=iter([b'{"name": ', b'"in pieces"}']), headers=JSON)
    assert made.status_code == (201 if path == "/teams" else 409)


@pytest.mark.parametrize("of_budget", [{"time_zone": "Europe/Berlin"}, {"budget_window": "day"}])
def test_what_is_of_a_budget_does_not_come_alone(admin, of_budget):
    (name,) = of_budget
    team = admin.team(f"alone {name}", budget_usd="10")
    key = admin.key(team, "k")
    for method, path, body in (
        ("PATCH", f"/teams/{team['id']}", {}),
        ("PATCH", f"/keys/{key['id']}", {}),
        ("POST", "/teams", {"name": f"another {name}"}),
        ("POST", "/keys", {"team_id": team["id"], "name": "another"}),
    ):
        answer = admin.request(method, path, json={**body, **of_budget})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name), path
        assert "budget_usd" in answer.json()["error"]["message"]
    moved = admin.ask("PATCH", f"/teams/{team['id']}", json={**of_budget, "budget_usd": "10"})
    assert of_budget[name] in {limit["time_zone" if name == "time_zone" else "window"] for limit in moved["limits"]}
