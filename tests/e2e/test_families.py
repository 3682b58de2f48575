"""Families of endpoints, as they are given to keys and teams, with a running gateway that follows."""

from __future__ import annotations

import itertools
import time

import httpx
import pytest

from tests.e2e.admin.people import Admin
from tests.fakes.gateway import RunningGateway
from tests.fakes.upstream import JSON_HEAD, PlayedUpstream

FOLLOWS_S_MAX = 30.0
names = (f"families-{number}" for number in itertools.count())


def answer(request):
    content = b'{"asked": "%s"}' % request.target.encode()
    return [f"{JSON_HEAD}content-length: {len(content)}\r\n\r\n".encode() + content]


@pytest.fixture(scope="module")
def upstream():
    with PlayedUpstream(answer) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, upstream):
    config = f"""
upstreams:
  played: {{base_url: "{upstream.base_url}", api_key: sk-upstream}}
models:
  - {{match: "*", upstream: played}}
server: {{drain_delay_s: 0}}
"""
    with RunningGateway(tmp_path_factory.mktemp("families"), config) as running:
        yield running


@pytest.fixture(scope="module")
def admin(gateway):
    with Admin(gateway) as client:
        yield client


def status(gateway: RunningGateway, key: str, path: str, method: str = "GET") -> int:
    return httpx.request(method, f"{gateway.url}{path}", headers={"authorization": f"Bearer {key}"}).status_code


def code(gateway: RunningGateway, key: str, path: str) -> tuple[int, str]:
    refused = httpx.get(f"{gateway.url}{path}", headers={"authorization": f"Bearer {key}"})
    return refused.status_code, refused.json()["error"]["code"]


def becomes(expected: int, gateway: RunningGateway, key: str, path: str) -> None:
    """A change takes effect soon; that it is within a second is tested on a quiet machine, with keys."""
    deadline = time.monotonic() + FOLLOWS_S_MAX
    while (found := status(gateway, key, path)) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


NOT_ALLOWED = (403, "endpoint_not_allowed")
NO_SUCH = (404, "not_found")


def test_a_key_has_its_own_families_else_its_teams_else_the_default_ones(gateway, admin):
    team = admin.team(next(names))
    key = admin.key(team, "bot")
    text = key["key"]
    assert status(gateway, text, "/v1/models") == 200
    assert code(gateway, text, "/v1/files") == NOT_ALLOWED
    given = admin.ask("PATCH", f"/teams/{team['id']}", json={"endpoints": ["files", "models"]})
    assert given["endpoints"] == ["files", "models"]
    becomes(200, gateway, text, "/v1/files")
    assert status(gateway, text, "/v1/models") == 200
    assert code(gateway, text, "/v1/vector_stores") == NOT_ALLOWED
    admin.ask("PATCH", f"/keys/{key['id']}", json={"endpoints": ["vector_stores"]})
    becomes(200, gateway, text, "/v1/vector_stores")
    assert code(gateway, text, "/v1/files") == NOT_ALLOWED
    assert code(gateway, text, "/v1/models") == NOT_ALLOWED
    admin.ask("PATCH", f"/keys/{key['id']}", json={"endpoints": None})
    becomes(200, gateway, text, "/v1/files")
    assert code(gateway, text, "/v1/vector_stores") == NOT_ALLOWED
    assert admin.ask("PATCH", f"/teams/{team['id']}", json={"endpoints": None})["endpoints"] is None
    becomes(403, gateway, text, "/v1/files")


def test_everything_is_every_path_but_those_of_the_providers_account(gateway, admin, upstream):
    plain, everything = admin.team(next(names)), admin.team(next(names), endpoints=["files", "*"])
    assert everything["endpoints"] == ["*"]
    text = admin.key(plain, "bot")["key"]
    for path in ("/v1/novelties/one", "/v1/organization/usage"):
        assert code(gateway, text, path) == NO_SUCH, path
    text = admin.key(everything, "bot")["key"]
    got = httpx.get(f"{gateway.url}/v1/novelties/one?of=a", headers={"authorization": f"Bearer {text}"})
    assert (got.status_code, got.json()) == (200, {"asked": "/v1/novelties/one?of=a"})
    assert upstream.requests[-1].headers["authorization"] == "Bearer sk-upstream"
    assert status(gateway, text, "/v1/files") == 200
    before = len(upstream.requests)
    for path in (
        "/v1/organization/usage",
        "/v1/organization/admin_api_keys",
        "/v1/organization",
        "/v1/ORGANIZATION/users",
        "/v1/projects/p",
        "/v1/novelties/../organization/users",
        "/v1/%6frganization/users",
        "/openai/v1/organization/users",
    ):
        assert code(gateway, text, path) == NO_SUCH, path
    assert len(upstream.requests) == before


def test_commands_give_families_to_teams_and_keys(gateway):
    name = next(names)
    made = gateway.json("teams", "create", "--name", name, "--endpoints", "files,models,files")
    assert made["endpoints"] == ["files", "models"]
    text = gateway.json("keys", "create", "--team", name, "--name", "bot")["key"]
    assert status(gateway, text, "/v1/files") == 200
    gateway.command("teams", "update", name, "--requests-per-minute", "1000")
    (row,) = [row for row in gateway.json("teams", "list") if row["id"] == made["id"]]
    assert (row["endpoints"], row["requests_per_minute"]) == (["files", "models"], 1000)
    assert "files,models" in gateway.command("teams", "list").stdout
    assert gateway.json("teams", "update", name, "--endpoints", "default")["endpoints"] is None
    becomes(403, gateway, text, "/v1/files")
    refused = gateway.command("teams", "update", name, "--endpoints", "files,file", check=False)
    assert refused.returncode == 2
    assert "fine_tuning" in refused.stderr


def test_commands_say_what_everything_gives_up(gateway):
    name = next(names)
    made = gateway.command("teams", "create", "--name", name, "--endpoints", "*", "--json")
    assert made.stderr.count("\n") == 1
    assert "gives up the isolation of teams" in made.stderr
    key = gateway.command("keys", "create", "--team", name, "--name", "bot", "--endpoints", "files,*", "--json")
    assert key.stderr == made.stderr
    assert '"endpoints": ["*"]' in key.stdout
    assert gateway.command("keys", "update", "bot", "--team", name, "--endpoints", "all").stderr == ""


def test_what_is_given_is_in_the_audit_log(gateway, admin):
    team = admin.team(next(names), endpoints=["files"])
    admin.ask("PATCH", f"/teams/{team['id']}", json={"endpoints": ["*", "files"]})
    gateway.command("teams", "update", team["id"], "--endpoints", "default")
    newest, update, create = admin.ask("GET", "/audit", params={"object_id": team["id"]})["data"]
    assert create["after"]["endpoints"] == ["files"]
    assert (update["before"], update["after"]) == ({"endpoints": ["files"]}, {"endpoints": ["*"]})
    assert (newest["before"], newest["after"]) == ({"endpoints": ["*"]}, {"endpoints": None})


@pytest.mark.parametrize("given", [["file"], [], ["*", "file"], "files", ["files", None], [["files"]]])
def test_what_is_no_family_is_refused_with_all_there_are(admin, given):
    team = admin.team(next(names))
    for method, path, body in (
        ("POST", "/teams", {"name": next(names)}),
        ("PATCH", f"/teams/{team['id']}", {}),
        ("POST", "/keys", {"team_id": team["id"], "name": next(names)}),
    ):
        refused = admin.request(method, path, json={**body, "endpoints": given})
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (400, "invalid_request")
        assert error["param"].partition(".")[0] == "endpoints"
        if error["param"] == "endpoints" and given != "files":
            assert "files, uploads, vector_stores" in error["message"]


# -- what a lead may give ----------------------------------------------------------------------------


def test_a_lead_gives_a_key_what_the_team_has_and_no_more(gateway, admin):
    team = admin.team(next(names))
    with admin.person(next(names), "lead", team) as lead:
        made = lead.ask("POST", "/keys", json={"team_id": team["id"], "name": "a", "endpoints": ["chat", "models"]})
        path = f"/keys/{made['id']}"
        for families in (["files"], ["chat", "files"], ["*"], ["*", "chat"]):
            assert lead.code("PATCH", path, json={"endpoints": families}) == (403, "forbidden")
            body = {"team_id": team["id"], "name": "b", "endpoints": families}
            assert lead.code("POST", "/keys", json=body) == (403, "forbidden")
        assert lead.ask("GET", path)["endpoints"] == ["chat", "models"]
        assert lead.code("PATCH", f"/teams/{team['id']}", json={"endpoints": ["files"]}) == (403, "forbidden")
        admin.ask("PATCH", f"/teams/{team['id']}", json={"endpoints": ["files", "batches"]})
        assert lead.ask("PATCH", path, json={"endpoints": ["files"]})["endpoints"] == ["files"]
        # It is neither the team's nor the key's any more.
        assert lead.code("PATCH", path, json={"endpoints": ["chat", "files"]}) == (403, "forbidden")
        admin.ask("PATCH", f"/teams/{team['id']}", json={"endpoints": ["*"]})
        assert lead.ask("PATCH", path, json={"endpoints": ["evals"]})["endpoints"] == ["evals"]
        assert lead.code("PATCH", path, json={"endpoints": ["*"]}) == (403, "forbidden")


def test_a_lead_may_leave_a_key_what_an_administrator_gave_it(admin):
    team = admin.team(next(names))
    key = admin.key(team, "bot", endpoints=["files", "batches"])
    with admin.person(next(names), "lead", team) as lead:
        path = f"/keys/{key['id']}"
        assert lead.ask("PATCH", path, json={"endpoints": ["batches", "chat"]})["endpoints"] == ["batches", "chat"]
        assert lead.code("PATCH", path, json={"endpoints": ["files"]}) == (403, "forbidden")
        assert lead.ask("PATCH", path, json={"endpoints": None})["endpoints"] is None
        admin.ask("PATCH", path, json={"endpoints": ["*"]})
        assert lead.ask("PATCH", path, json={"endpoints": ["*"], "owner": "ann"})["endpoints"] == ["*"]
        assert lead.ask("PATCH", path, json={"endpoints": ["files"]})["endpoints"] == ["files"]
        assert lead.code("PATCH", path, json={"endpoints": ["*"]}) == (403, "forbidden")


# -- what a key is told of itself --------------------------------------------------------------------


def test_a_key_is_told_what_is_on(gateway, admin):
    team = admin.team(next(names))
    key = admin.key(team, "bot")

    def me() -> tuple[list[str] | None, list[str]]:
        told = httpx.get(f"{gateway.url}/me", headers={"authorization": f"Bearer {key['key']}"}).json()
        return told["endpoints"], told["families"]

    def until(endpoints: list[str] | None) -> list[str]:
        deadline = time.monotonic() + FOLLOWS_S_MAX
        while (told := me())[0] != endpoints:
            assert time.monotonic() < deadline, told
            time.sleep(0.02)
        return told[1]

    default = until(None)
    assert {"responses", "chat", "models"} < set(default)
    assert not {"files", "batches", "*"} & set(default)
    admin.ask("PATCH", f"/teams/{team['id']}", json={"endpoints": ["batches", "files"]})
    assert until(["batches", "files"]) == ["files", "batches"]
    admin.ask("PATCH", f"/keys/{key['id']}", json={"endpoints": ["*"]})
    every = until(["*"])
    assert every[-1] == "*"
    assert set(every) > {*default, "files", "batches"}
