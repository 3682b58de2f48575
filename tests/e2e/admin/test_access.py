"""Who reaches the control plane, and what each may do there."""

from __future__ import annotations

import itertools

import httpx
import pytest

from tests.e2e.admin.people import API, Admin, Browser, Person
from tests.fakes.gateway import SIMULATED, RunningGateway

names = (f"name-{number}" for number in itertools.count())
BODY = {"model": "sim-small", "input": "hi"}
UNKNOWN = {"expires_at_ms": 1, "id": "x", "created_at_ms": 1, "digest": "x", "changed": 1, "is_admin": True}


def test_a_model_key_never_reaches_the_admin_plane_nor_an_admin_token_a_model(gateway, admin):
    with Person(gateway, gateway.key) as key:
        for path in ("/teams", "/keys", "/tokens", "/audit", "/prices", "/session"):
            assert key.code("GET", path) == (401, "invalid_admin_token"), path
    token = gateway.first_run["admin_token"]
    for header in ({"authorization": f"Bearer {token}"}, {"x-api-key": token}, {"api-key": token}):
        answer = httpx.post(f"{gateway.base_url}/responses", json=BODY, headers=header)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    for header in ({"x-api-key": token}, {"api-key": token}, {"authorization": token}, {"cookie": f"hg={token}"}):
        assert httpx.get(f"{gateway.url}{API}/teams", headers=header).status_code == 401


def test_every_wrong_token_gets_the_same_answer(gateway, admin):
    ended = admin.ask("POST", "/tokens", json={"name": next(names), "role": "admin"})
    admin.ask("DELETE", f"/tokens/{ended['id']}")
    answers = set()
    for token in (
        "x",
        "hg-admin-0000000000-x",
        gateway.key,
        ended["token"],
        "a" * 9000,
    ):
        answer = httpx.get(f"{gateway.url}{API}/teams", headers={"authorization": f"Bearer {token}"})
        answers.add((answer.status_code, answer.content))
    assert len(answers) == 1
    assert answers.pop()[0] == 401


def test_a_revoked_token_closes_its_sessions(gateway, admin):
    made = admin.ask("POST", "/tokens", json={"name": next(names), "role": "viewer"})
    with Browser.signed_in(gateway, made["token"]) as browser:
        assert browser.ask("GET", "/session")["role"] == "viewer"
        admin.ask("DELETE", f"/tokens/{made['id']}")
        assert browser.code("GET", "/session") == (401, "invalid_admin_token")
        assert browser.code("GET", "/teams") == (401, "invalid_admin_token")


def test_a_session_is_random_httponly_and_ends(gateway):
    with Browser(gateway) as browser:
        first = browser.post("/session", json={"credential": gateway.first_run["admin_token"]})
        cookie = first.headers["set-cookie"]
        assert {part.strip().partition("=")[0] for part in cookie.split(";")} >= {"HttpOnly", "SameSite", "Path"}
        assert "SameSite=strict" in cookie
        value = browser.cookies["headgate_session"]
        # Fixation: what the browser brings is never what it gets, and the session that it had is over.
        again = browser.post("/session", json={"credential": gateway.first_run["admin_token"]})
        assert browser.cookies["headgate_session"] != value
        old = {"cookie": f"headgate_session={value}"}
        assert httpx.get(f"{gateway.url}{API}/session", headers=old).status_code == 401
        csrf = {"x-headgate-csrf": again.json()["csrf"]}
        current = {"cookie": f"headgate_session={browser.cookies['headgate_session']}"}
        assert browser.delete("/session", headers=csrf).status_code == 204
        assert httpx.get(f"{gateway.url}{API}/session", headers=current).status_code == 401


def test_a_cookie_that_another_chose_is_nobody(gateway):
    chosen = {"cookie": f"headgate_session={'A' * 43}"}
    with Person(gateway) as person:
        assert person.code("GET", "/session", headers=chosen) == (401, "invalid_admin_token")
        answer = person.post("/session", json={"credential": gateway.first_run["admin_token"]}, headers=chosen)
        assert "A" * 43 not in answer.headers["set-cookie"]
        assert person.code("GET", "/session", headers=chosen) == (401, "invalid_admin_token")


def test_what_changes_something_needs_the_csrf_token(gateway, admin):
    with (
        Browser.signed_in(gateway, gateway.first_run["admin_token"]) as browser,
        Browser.signed_in(gateway, gateway.first_run["admin_token"]) as other,
    ):
        body = {"name": next(names)}
        assert browser.code("POST", "/teams", json=body) == (403, "forbidden")
        for wrong in ("", "x", other.csrf):
            assert browser.code("POST", "/teams", json=body, headers={"x-headgate-csrf": wrong})[0] == 403
        assert browser.code("DELETE", "/session") == (403, "forbidden")
        assert browser.ask("POST", "/teams", json=body, headers=browser.csrf_headers)["name"] == body["name"]
        # A form can send neither JSON nor a header.
        form = browser.post("/teams", data={"name": next(names)}, headers=browser.csrf_headers)
        assert form.status_code == 400
        text = browser.post("/session", content='{"credential":"x"}', headers={"content-type": "text/plain"})
        assert text.status_code == 400
    cross = {"sec-fetch-site": "cross-site"}
    credential = {"credential": gateway.first_run["admin_token"]}
    with Person(gateway) as person:
        assert person.code("POST", "/session", json=credential, headers=cross) == (403, "forbidden")


def test_a_bearer_counts_whatever_the_cookie_says(gateway, admin):
    viewer = admin.ask("POST", "/tokens", json={"name": next(names), "role": "viewer"})["token"]
    with Browser.signed_in(gateway, gateway.first_run["admin_token"]) as browser:
        headers = {"authorization": f"Bearer {viewer}", **browser.csrf_headers}
        assert browser.code("POST", "/teams", json={"name": next(names)}, headers=headers) == (403, "forbidden")
        for nothing in ({"authorization": "Bearer"}, {"authorization": "Basic eDp5"}):
            assert browser.code("GET", "/teams", headers=nothing) == (401, "invalid_admin_token")


def test_a_key_signs_in_to_what_it_may_see_and_no_more(gateway, admin):
    with Browser.signed_in(gateway, gateway.key) as browser:
        session = browser.ask("GET", "/session")
        assert (session["kind"], session["role"], session["name"]) == ("key", "key", "default")
        for path in ("/teams", "/keys", "/audit", "/prices", "/tokens"):
            assert browser.code("GET", path) == (401, "invalid_admin_token"), path
        assert browser.code("POST", "/teams", json={"name": "x"}, headers=browser.csrf_headers)[0] == 401


def test_guesses_are_throttled_by_address(tmp_path):
    with RunningGateway(tmp_path) as gateway, Person(gateway, "hg-admin-wrong") as guesser:
        codes = [guesser.get("/teams").status_code for _ in range(30)]
        assert codes[:5] == [401] * 5
        assert codes[-1] == 429
        refused = guesser.get("/teams")
        if refused.status_code == 429:
            assert int(refused.headers["retry-after"]) <= 60
        assert httpx.post(f"{gateway.base_url}/responses", json=BODY, headers=gateway.headers).status_code == 200


def test_a_viewer_reads_everything_and_changes_nothing(gateway, admin):
    team = admin.team(next(names))
    key = admin.key(team, "k")
    with admin.person(next(names), "viewer") as viewer:
        for path in ("/teams", f"/teams/{team['id']}", "/keys", f"/keys/{key['id']}", "/audit", "/prices"):
            viewer.ask("GET", path)
        assert_changes_nothing(viewer, team, key)
        assert viewer.code("GET", "/tokens") == (403, "forbidden")


def assert_changes_nothing(person: Person, team, key) -> None:
    changes = [
        ("POST", "/teams", {"name": next(names)}),
        ("PATCH", f"/teams/{team['id']}", {"name": next(names)}),
        ("POST", "/keys", {"team_id": team["id"], "name": next(names)}),
        ("PATCH", f"/keys/{key['id']}", {"name": next(names)}),
        ("POST", f"/keys/{key['id']}/rotate", {"overlap_s": 0}),
        ("POST", f"/keys/{key['id']}/revoke", {"name": key["name"]}),
        ("PATCH", f"/keys/{key['id']}/secrets/{key['id']}", {"expires_at": "2100-01-01T00:00:00Z"}),
        ("POST", f"/keys/{key['id']}/secrets/{key['id']}/revoke", None),
        ("POST", "/tokens", {"name": next(names), "role": "admin"}),
        ("DELETE", "/tokens/x", None),
        ("POST", "/prices", {"model": "m", "input_per_mtok_usd": "1", "output_per_mtok_usd": "1"}),
        ("DELETE", "/prices/x", None),
        ("POST", "/prices/reprice", {"from": "2026-01-01T00:00:00Z"}),
    ]
    for method, path, body in changes:
        assert person.code(method, path, json=body) == (403, "forbidden"), (method, path)


def test_a_lead_keeps_the_keys_of_one_team_and_sees_no_other(gateway, admin):
    own, foreign = admin.team(next(names)), admin.team(next(names))
    theirs = admin.key(foreign, "theirs")
    with admin.person(next(names), "lead", own) as lead:
        assert [team["id"] for team in lead.ask("GET", "/teams")["data"]] == [own["id"]]
        made = lead.ask("POST", "/keys", json={"team_id": own["id"], "name": "mine", "requests_per_minute": 5})
        assert [key["id"] for key in lead.ask("GET", "/keys")["data"]] == [made["id"]]
        assert lead.ask("GET", f"/keys?team={foreign['id']}")["data"] == []
        assert lead.ask("GET", f"/keys/counts?team={foreign['id']}")["all"] == 0
        lead.ask("PATCH", f"/keys/{made['id']}", json={"owner": "ann"})
        lead.ask("POST", f"/keys/{made['id']}/rotate", json={"overlap_s": 60})
        unknown = "0000000000"
        for path in (f"/teams/{foreign['id']}", f"/keys/{theirs['id']}", f"/keys/{theirs['id']}/secrets"):
            there, nowhere = (
                lead.get(path),
                lead.get(path.replace(foreign["id"], unknown).replace(theirs["id"], unknown)),
            )
            assert (there.status_code, nowhere.status_code) == (404, 404)
            # Unknown and not yours are one answer, but for the id that was asked for.
            same = there.json()["error"]["message"].replace(theirs["id"], unknown).replace(foreign["id"], unknown)
            assert same == nowhere.json()["error"]["message"]
        for method, path, body in (
            ("POST", "/keys", {"team_id": foreign["id"], "name": "x"}),
            ("PATCH", f"/keys/{theirs['id']}", {"name": "x"}),
            ("POST", f"/keys/{theirs['id']}/rotate", {"overlap_s": 0}),
            ("POST", f"/keys/{theirs['id']}/revoke", {"name": "theirs"}),
            ("PATCH", f"/keys/{theirs['id']}/secrets/{theirs['id']}", {"expires_at": None}),
            ("POST", f"/keys/{theirs['id']}/secrets/{theirs['id']}/revoke", None),
        ):
            assert lead.code(method, path, json=body) == (404, "not_found"), path
        for method, path, body in (
            ("PATCH", f"/teams/{own['id']}", {"budget_usd": "1000000"}),
            ("POST", "/teams", {"name": "x"}),
            ("POST", "/tokens", {"name": "x", "role": "admin"}),
            ("GET", "/audit", None),
            ("GET", "/tokens", None),
        ):
            assert lead.code(method, path, json=body) == (403, "forbidden"), path
    assert admin.ask("GET", f"/keys/{theirs['id']}")["state"] == "active"


@pytest.mark.parametrize("extra", [*UNKNOWN, "role", "team", "state", "secrets", "kind", "spent_month_usd"])
def test_no_field_of_a_body_makes_more_of_anybody(gateway, admin, extra):
    own = admin.team(next(names))
    key = admin.key(own, "k")
    value = UNKNOWN.get(extra, "admin")
    with admin.person(next(names), "lead", own) as lead:
        for method, path, body in (
            ("POST", "/keys", {"team_id": own["id"], "name": next(names)}),
            ("PATCH", f"/keys/{key['id']}", {"owner": "x"}),
            ("POST", f"/keys/{key['id']}/rotate", {"overlap_s": 1}),
            ("POST", f"/keys/{key['id']}/revoke", {"name": "k"}),
        ):
            status, code = lead.code(method, path, json={**body, extra: value})
            assert (status, code) == (400, "invalid_request"), (path, extra)
    with admin.person(next(names), "lead", own) as lead:
        moved = lead.code("PATCH", f"/keys/{key['id']}", json={"team_id": "x"})
        assert moved == (400, "invalid_request"), "a key stays in its team"


def test_the_environments_token_is_an_administrator(tmp_path):
    with RunningGateway(tmp_path, HEADGATE_ADMIN_TOKEN="from-the-environment") as gateway:
        with Person(gateway, "from-the-environment") as person:
            assert person.ask("POST", "/teams", json={"name": "made"})["name"] == "made"
            assert person.ask("GET", "/audit")["data"][0]["actor"]["id"] == "environment"
        with Browser.signed_in(gateway, "from-the-environment") as browser:
            assert browser.ask("GET", "/session")["role"] == "admin"
        assert "from-the-environment" not in gateway.log_path.read_text()


def test_no_secret_is_in_the_ledger_or_the_log(tmp_path):
    with RunningGateway(tmp_path) as gateway, Admin(gateway) as admin:
        made = admin.key(admin.ask("GET", "/teams")["data"][0], "k")
        token = admin.ask("POST", "/tokens", json={"name": "t", "role": "viewer"})["token"]
        with Browser.signed_in(gateway, token) as browser:
            cookie = browser.cookies["headgate_session"]
        told = admin.get("/audit").text + admin.get("/keys").text + admin.get("/tokens").text
        files = b"".join(path.read_bytes() for path in gateway.data_dir.rglob("*.db*")) + gateway.log_path.read_bytes()
        for secret in (made["key"], token, cookie):
            assert secret not in told
            assert secret.encode() not in files


@pytest.mark.parametrize(
    "path", [f"{API}/teams/", f"{API}/keys/counts/", f"{API}/session/", f"{API}/", "/me/", "/me/usage/"]
)
def test_a_slash_at_the_end_is_another_address_and_no_redirect(gateway, admin, path):
    headers = {**dict(admin.headers), "host": "evil.example"}
    for method in ("GET", "POST", "DELETE"):
        answer = httpx.request(method, f"{gateway.url}{path}", headers=headers, json=None if method == "GET" else {})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), (method, path)
        assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", f"{API}/teams", "GET, POST"),
        ("DELETE", f"{API}/teams", "GET, POST"),
        ("DELETE", f"{API}/session", None),
        ("PUT", f"{API}/session", "GET, POST, DELETE"),
        ("POST", f"{API}/alerts/x", "PATCH, DELETE"),
        ("DELETE", f"{API}/keys/x", "GET, PATCH"),
        ("GET", f"{API}/keys/x/rotate", "POST"),
        ("PATCH", f"{API}/usage", "GET"),
        ("POST", "/me/limits", "GET"),
    ],
)
def test_a_method_that_is_not_there_is_told_which_are(gateway, admin, method, path, allowed):
    answer = httpx.request(method, f"{gateway.url}{path}", headers=dict(admin.headers))
    assert answer.headers.get("allow") == allowed
    if allowed is not None:
        assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


def test_a_page_of_another_origin_changes_nothing(gateway, admin):
    host = f"127.0.0.1:{gateway.port}"
    other = [
        *(
            {"origin": origin}
            for origin in ("https://evil.example", "null", "", f"http://127.0.0.1:{gateway.port + 1}")
        ),
        *(
            {"origin": origin}
            for origin in (f"http://{host}.evil.example", f"http://x@{host}", "http://127.0.0.1", host)
        ),
        *({"sec-fetch-site": site} for site in ("cross-site", "same-site")),
        {"origin": f"http://{host}", "sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example", "x-forwarded-host": "evil.example"},
    ]
    own = [
        {"origin": f"http://{host}"},
        {"origin": f"http://{host}", "sec-fetch-site": "same-origin"},
        # A proxy has put its own name for us where the browser's was.
        {"origin": "https://gateway.example", "sec-fetch-site": "same-origin"},
        {},
    ]
    credential = {"credential": gateway.first_run["admin_token"]}
    with Browser.signed_in(gateway, gateway.first_run["admin_token"]) as browser, Person(gateway) as person:
        for headers in other:
            changed = {"json": {"name": next(names)}, "headers": {**browser.csrf_headers, **headers}}
            assert browser.code("POST", "/teams", **changed) == (403, "forbidden"), headers
            assert browser.code("DELETE", "/session", headers=changed["headers"]) == (403, "forbidden"), headers
            assert person.code("POST", "/session", json=credential, headers=headers) == (403, "forbidden"), headers
            # Reading changes nothing, and another page cannot see the answer; a bearer no browser adds by itself.
            browser.ask("GET", "/session", headers=headers)
            admin.ask("POST", "/teams", json=changed["json"], headers=headers)
        for headers in own:
            changed = {"json": {"name": next(names)}, "headers": {**browser.csrf_headers, **headers}}
            browser.ask("POST", "/teams", 201, **changed)
            person.ask("POST", "/session", json=credential, headers=headers)


def test_behind_a_trusted_proxy_the_host_is_what_the_browser_asked(tmp_path):
    config = f"{SIMULATED[: SIMULATED.index('server:')]}server: {{drain_delay_s: 0, trusted_proxies: [127.0.0.1]}}\n"
    with RunningGateway(tmp_path, config) as gateway, Person(gateway) as person:
        credential = {"credential": gateway.first_run["admin_token"]}
        proxied = {"x-forwarded-host": "gateway.example", "x-forwarded-proto": "https"}
        for origin, status in (
            ("https://gateway.example", 200),
            ("https://gateway.example:443", 200),
            ("http://gateway.example", 403),
            ("https://gateway.example:8443", 403),
            (f"http://127.0.0.1:{gateway.port}", 403),
        ):
            answer = person.post("/session", json=credential, headers={**proxied, "origin": origin})
            assert answer.status_code == status, origin
        kept = {"host": "gateway.example", "origin": "https://gateway.example"}
        assert person.post("/session", json=credential, headers=kept).status_code == 200
