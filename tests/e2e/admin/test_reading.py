"""What a request says is read strictly: its parameters and its body, by every route."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "path", ["/teams", "/keys", "/keys/counts", "/audit", "/audit/export", "/tokens", "/prices", "/alerts", "/session"]
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
