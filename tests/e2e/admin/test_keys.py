"""Teams and keys over the admin API, and what running requests see of it."""

from __future__ import annotations

import base64
import itertools
import json
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.e2e.admin.people import Person

names = (f"team-{number}" for number in itertools.count())


def call(gateway, secret: str, **headers: str) -> int:
    sent = {"authorization": f"Bearer {secret}", **headers}
    body = {"model": "sim-small", "input": "hi"}
    return httpx.post(f"{gateway.base_url}/responses", json=body, headers=sent, timeout=30).status_code


def until(holds, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.05)


def test_a_key_is_made_used_changed_and_revoked(gateway, admin):
    team = admin.team(next(names), budget_usd="100", budget_window="month", time_zone="Europe/Berlin")
    assert team["limits"][0]["maximum_usd"] == "100"
    key = admin.key(team, "bot", owner="ann@acme.example", tags={"env": "prod"}, models=["sim-*"], concurrency=5)
    assert key["key"].startswith(f"sk-hg-{key['id']}-")
    assert call(gateway, key["key"]) == 200
    until(lambda: admin.ask("GET", f"/keys/{key['id']}")["requests_month"] == 1)
    shown = admin.ask("GET", f"/keys/{key['id']}")
    assert "key" not in shown
    assert shown["last_used_at"] is not None
    assert float(shown["spent_month_usd"]) > 0
    changed = admin.ask("PATCH", f"/keys/{key['id']}", json={"models": ["other-*"], "owner": None, "concurrency": None})
    assert (changed["models"], changed["owner"], changed["limits"]) == (["other-*"], None, [])
    assert changed["tags"] == {"env": "prod"}, "what is left out stays"
    until(lambda: call(gateway, key["key"]) == 403)
    admin.ask("PATCH", f"/keys/{key['id']}", json={"models": None})
    until(lambda: call(gateway, key["key"]) == 200)
    assert admin.code("POST", f"/keys/{key['id']}/revoke", json={"name": "Bot"}) == (400, "invalid_request")
    revoked = admin.ask("POST", f"/keys/{key['id']}/revoke", json={"name": "bot"})
    assert revoked["state"] == "revoked"
    until(lambda: call(gateway, key["key"]) == 401)
    assert admin.code("POST", f"/keys/{key['id']}/rotate", json={"overlap_s": 1}) == (404, "not_found")


def test_a_rotation_shows_who_still_uses_the_old_secret(gateway, admin):
    team = admin.team(next(names))
    key = admin.key(team, "bot")
    rotated = admin.ask("POST", f"/keys/{key['id']}/rotate", json={"overlap_s": 3600})
    until(lambda: call(gateway, rotated["key"]) == 200)
    assert call(gateway, key["key"], **{"x-headgate-tags": "service=digest"}) == 200

    def uses():
        return {each["id"]: each for each in admin.ask("GET", f"/keys/{key['id']}/secrets")["data"]}

    until(lambda: all(each["last_used_at"] for each in uses().values()))
    old, new = uses()[key["id"]], uses()[rotated["secret_id"]]
    assert (old["requests_last_hour"], sum(old["hours"]), len(old["hours"])) == (1, 1, 24)
    assert [(tag["name"], tag["value"]) for tag in old["tags"]] == [("service", "digest")]
    assert (new["expires_at"], new["tags"]) == (None, [])
    assert key["id"] in [each["id"] for each in admin.ask("GET", "/keys?state=rotating&limit=200")["data"]]
    later = (datetime.now(UTC) + timedelta(days=9)).strftime("%Y-%m-%dT%H:%M:%SZ")
    path = f"/keys/{key['id']}/secrets/{key['id']}"
    moved = admin.ask("PATCH", path, json={"expires_at": later})
    assert moved["secrets"][0]["expires_at"] == later.replace("Z", ".000Z")
    admin.ask("POST", f"{path}/revoke")
    until(lambda: call(gateway, key["key"]) == 401)
    assert call(gateway, rotated["key"]) == 200
    assert admin.code("PATCH", path, json={"expires_at": later}) == (404, "not_found")


def test_a_secret_that_has_ended_stays_so(gateway, admin):
    """It is what one does after a leak: whoever may change the key must not bring it back by mistake."""
    key = admin.key(admin.team(next(names)), "leaked")
    admin.ask("POST", f"/keys/{key['id']}/rotate", json={"overlap_s": 0})
    until(lambda: call(gateway, key["key"]) == 401)
    path = f"/keys/{key['id']}/secrets/{key['id']}"
    assert admin.code("PATCH", path, json={"expires_at": None}) == (404, "not_found")
    assert call(gateway, key["key"]) == 401


def test_a_keys_tags_are_those_of_its_requests(gateway, admin):
    """A client adds others, and cannot shed these: neither in its records nor in a budget."""
    team = admin.team(next(names))
    key = admin.key(team, "labelled", tags={"env": "prod", "service": "chat"})
    budget = {"team_id": team["id"], "window": "day", "maximum_usd": "0", "tag_name": "env", "tag_value": "prod"}
    plain = admin.key(team, "plain")
    until(lambda: call(gateway, key["key"], **{"x-headgate-tags": "env=dev,project=x"}) == 200)
    assert call(gateway, key["key"]) == 200
    assert call(gateway, plain["key"], **{"x-headgate-tags": "env=dev"}) == 200

    def tags():
        rows = admin.ask("GET", "/records", params={"team": team["id"]})["data"]
        return [admin.ask("GET", f"/records/{row['request_id']}")["tags"] for row in rows if row["status"] == 200]

    own = {"env": "prod", "service": "chat"}
    until(lambda: len(tags()) == 3)
    assert tags() == [{"env": "dev"}, own, {**own, "project": "x"}]
    admin.ask("POST", "/budgets", json=budget)
    until(lambda: call(gateway, key["key"], **{"x-headgate-tags": "env=dev"}) == 429)
    assert call(gateway, plain["key"], **{"x-headgate-tags": "env=dev"}) == 200
    admin.ask("PATCH", f"/keys/{key['id']}", json={"tags": {}})
    until(lambda: call(gateway, key["key"], **{"x-headgate-tags": "env=dev"}) == 200)


def test_keys_are_found_page_by_page(gateway, admin):
    team = admin.team(next(names))
    made = {admin.key(team, f"key {number:02}", owner=f"Owner{number}")["id"] for number in range(7)}
    seen, cursor, pages = [], None, 0
    while True:
        page = admin.ask(
            "GET", "/keys", params={"team": team["id"], "limit": 3, **({"cursor": cursor} if cursor else {})}
        )
        seen += [key["id"] for key in page["data"]]
        cursor, pages = page["next"], pages + 1
        if cursor is None:
            break
    assert (set(seen), len(seen), pages) == (made, 7, 3)
    assert [key["owner"] for key in admin.ask("GET", "/keys", params={"q": "OWNER3", "team": team["id"]})["data"]] == [
        "Owner3"
    ]
    for text in ("%", "_", "\\", "' OR 1=1 --"):
        assert admin.ask("GET", "/keys", params={"q": text, "team": team["id"]})["data"] == []
    for wrong in ("x", "e30", "WzFd", "AAAA", "[]"):
        assert admin.code("GET", "/keys", params={"cursor": wrong}) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("name", ""),
        ("name", " "),
        ("name", "a\x00b"),
        ("name", "a\nb"),
        ("name", "x" * 101),
        ("name", 5),
        ("budget_usd", "1e400"),
        ("budget_usd", "NaN"),
        ("budget_usd", "-1"),
        ("budget_usd", "9000001"),
        ("budget_usd", "0.0000000001"),
        ("budget_usd", 1.5),
        ("budget_usd", True),
        ("requests_per_minute", 0),
        ("requests_per_minute", 1.5),
        ("requests_per_minute", "5"),
        ("requests_per_minute", 10**30),
        ("budget_window", "year"),
        ("time_zone", "Mars/Base"),
        ("time_zone", "../../etc/passwd"),
        ("models", []),
        ("models", "x"),
        ("models", [""]),
        ("endpoints", ["nothing"]),
        ("endpoints", []),
        ("tags", {"a b": "c"}),
        ("tags", {"a": "b,c=d"}),
        ("tags", {"a": ""}),
        ("expires_at", "2001-01-01T00:00:00Z"),
        ("expires_at", "2100-01-01T00:00:00"),
        ("expires_at", "yesterday"),
        ("cache_mode", "on"),
        ("team_id", None),
    ],
)
def test_bad_input_is_told_where_it_is(gateway, admin, member, value):
    team = admin.ask("GET", "/teams")["data"][0]
    answer = admin.post("/keys", json={"team_id": team["id"], "name": "fine", member: value})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == "invalid_request"
    assert error["param"].partition(".")[0] == member


def test_bodies_that_are_none_are_told(gateway, admin):
    for code, contents in (
        ("invalid_request", (b"", b"[]", b"null", b'"x"')),
        ("invalid_json", (b"{", b"\xff", b'{"name":"\\ud800"}')),
    ):
        for content in contents:
            answer = admin.post("/teams", content=content, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), content
    large = admin.post("/teams", content=b" " * (1024 * 1024 + 1), headers={"content-type": "application/json"})
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")
    assert admin.code("POST", "/teams", json={"name": admin.ask("GET", "/teams")["data"][0]["name"]}) == (
        409,
        "already_exists",
    )


def test_what_no_database_stores_is_told(gateway, admin):
    key = admin.key(admin.team(next(names)), "k")
    for path in ("/keys/a%00b", "/keys?q=a%00", "/audit?actor=%00", f"/keys/{key['id']}/secrets/%00"):
        answer = httpx.get(f"{gateway.url}/admin/api/v1{path}", headers=dict(admin.headers))
        assert answer.status_code in {400, 404, 405}, (path, answer.text)
    for method, path, body in (
        ("POST", "/keys", {"team_id": "a\0b", "name": "x"}),
        ("POST", "/tokens", {"name": "x", "role": "lead", "team_id": "\0"}),
        ("POST", "/keys", {"team_id": "team", "name": "x", "owner": "a\0"}),
    ):
        assert admin.code(method, path, json=body) == (400, "invalid_request")
    surrogate = admin.post(
        "/session", content=b'{"credential":"\\ud800"}', headers={"content-type": "application/json"}
    )
    assert (surrogate.status_code, surrogate.json()["error"]["code"]) == (400, "invalid_json")
    for place in ([2**70, "x"], [1, "a\0"]):
        cursor = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
        assert admin.code("GET", "/audit", params={"cursor": cursor}) == (400, "invalid_request")


def test_every_change_is_in_the_audit_log(gateway, admin):
    team = admin.team(next(names))
    key = admin.key(team, "bot")
    admin.ask("PATCH", f"/keys/{key['id']}", json={"owner": "ann"})
    admin.ask("POST", f"/keys/{key['id']}/rotate", json={"overlap_s": 60})
    admin.ask("POST", f"/keys/{key['id']}/revoke", json={"name": "bot"})
    changes = admin.ask("GET", "/audit", params={"object_id": key["id"]})["data"]
    assert [change["action"] for change in changes] == ["key.revoke", "key.rotate", "key.update", "key.create"]
    update, create = changes[2:]
    assert (update["before"], update["after"]) == ({"owner": None}, {"owner": "ann"})
    assert (create["before"], create["actor"]["name"], create["peer"]) == (None, "first-run", "127.0.0.1")
    listed = []
    cursor = None
    while True:
        page = admin.ask("GET", "/audit", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        listed += page["data"]
        cursor = page["next"]
        if cursor is None:
            break
    exported = [line for line in admin.get("/audit/export?format=jsonl").text.splitlines() if line]
    assert len(listed) == len(exported)
    assert len({change["id"] for change in listed}) == len(listed)


def test_prices_are_set_for_every_request_that_comes(gateway, admin):
    body = {"model": "sim-small", "input": "hi"}
    headers = {"authorization": f"Bearer {gateway.key}"}

    def cost() -> str:
        return httpx.post(f"{gateway.base_url}/responses", json=body, headers=headers).headers["x-headgate-cost-usd"]

    before = cost()
    price = admin.ask(
        "POST", "/prices", json={"model": "sim-small", "input_per_mtok_usd": "1000", "output_per_mtok_usd": "0"}
    )
    until(lambda: float(cost()) > 100 * float(before))
    rows = admin.ask("GET", "/prices")["data"]
    assert [row["source"] for row in rows if row["model"] == "sim-small"] == ["override", "override"]
    admin.ask("DELETE", f"/prices/{price['id']}", 204)
    until(lambda: cost() == before)


def test_nobody_without_a_token_sees_anything(gateway):
    with Person(gateway) as nobody:
        document = httpx.get(f"{gateway.url}/admin/api/openapi.json").json()
        for path, methods in document["paths"].items():
            for method in methods:
                # Before one is known one can only sign in.
                if path.startswith("/admin/api/v1") and not path.endswith("/session") and "/sso" not in path:
                    asked = path.removeprefix("/admin/api/v1").replace("{", "").replace("}", "")
                    status = nobody.request(method.upper(), asked, json={}).status_code
                    assert status == 401, (method, path, status)
