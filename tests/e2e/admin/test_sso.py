"""Signing in through a provider of OpenID Connect: a real one on a socket, honest and not."""

from __future__ import annotations

import contextlib
import json
import time
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import OctKey, RSAKey

from tests.e2e.admin.people import API, Admin
from tests.fakes.gateway import RunningGateway
from tests.fakes.provider import CLIENT_ID, CLIENT_SECRET, Provider

CONFIG = """
upstreams:
  simulator: {{kind: simulator}}
models:
  - {{match: "*", upstream: simulator}}
server: {{drain_delay_s: 0}}
sso:
  issuer: {issuer}
  client_id: {client_id}
  client_secret: ${{SSO_SECRET}}
  public_url: http://headgate.example
  admins: [platform]
  viewers: [finance]
  leads: {{search-leads: search, nowhere-leads: nowhere}}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with Provider() as provider:
        config = CONFIG.format(issuer=provider.url, client_id=CLIENT_ID)
        with RunningGateway(tmp_path_factory.mktemp("sso"), config, SSO_SECRET=CLIENT_SECRET) as gateway:
            with Admin(gateway) as admin:
                admin.team("search")
            yield provider, gateway


BROWSERS = contextlib.ExitStack()


@pytest.fixture
def provider(site):
    made, _ = site
    with BROWSERS:
        yield made
    made.claims, made.algorithm, made.signing = {}, "RS256", None


def sign_in(gateway, provider, **claims) -> tuple[httpx.Client, httpx.Response]:
    """A browser that goes all the way; the callback's host is the public one, so it is put in by hand."""
    provider.claims.update(claims)
    browser = BROWSERS.enter_context(httpx.Client(base_url=gateway.url))
    begun = browser.get(f"{API}/sso/login")
    assert begun.status_code == 303, begun.text
    agreed = httpx.get(begun.headers["location"])
    back = urlsplit(agreed.headers["location"])
    assert f"{back.scheme}://{back.netloc}" == "http://headgate.example"
    answer = browser.get(f"{back.path}?{back.query}")
    return browser, answer


@pytest.mark.parametrize(
    ("groups", "role", "team"),
    [
        (["platform"], "admin", None),
        ("platform", "admin", None),
        (["finance", "other"], "viewer", None),
        (["finance", "platform"], "admin", None),
        (["search-leads"], "lead", "search"),
    ],
)
def test_a_persons_groups_give_the_role(site, provider, groups, role, team):
    _, gateway = site
    browser, answer = sign_in(gateway, provider, groups=groups)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    session = browser.get(f"{API}/session").json()
    assert (session["kind"], session["role"], session["name"]) == ("sso", role, "mara@acme.example")
    assert (session["team"] or {}).get("name") == team
    made = browser.post(
        f"{API}/teams", json={"name": f"t{time.time_ns()}"}, headers={"x-headgate-csrf": session["csrf"]}
    )
    assert made.status_code == (201 if role == "admin" else 403)
    if role == "admin":
        actor = browser.get(f"{API}/audit").json()["data"][0]["actor"]
        assert actor == {"kind": "sso", "id": "user-1", "name": "mara@acme.example"}
    assert browser.delete(f"{API}/session", headers={"x-headgate-csrf": session["csrf"]}).status_code == 204
    assert browser.get(f"{API}/session").status_code == 401


@pytest.mark.parametrize("groups", [None, [], ["other"], "", ["nowhere-leads"], {"platform": True}, 7])
def test_who_has_no_role_is_not_let_in(site, provider, groups):
    _, gateway = site
    browser, answer = sign_in(gateway, provider, groups=groups)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert "headgate_session" not in browser.cookies


NOW_S = int(time.time())


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another"},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"iss": "https://elsewhere.example"},
        {"nonce": "another"},
        {"nonce": None},
        {"exp": NOW_S - 3600},
        {"exp": None},
        {"exp": "tomorrow"},
        {"iat": NOW_S + 86_400},
        {"sub": None},
        {"sub": ""},
    ],
)
def test_a_word_that_is_not_for_this_sign_in_counts_for_nothing(site, provider, claims):
    _, gateway = site
    browser, answer = sign_in(gateway, provider, groups=["platform"], **claims)
    assert answer.status_code == 502, answer.text
    assert "headgate_session" not in browser.cookies


def test_a_word_that_others_signed_counts_for_nothing(site, provider):
    _, gateway = site
    # What anybody can read of the provider, as if it were a secret that both share.
    public = json.dumps(provider.key.as_dict(private=False)).encode()
    for algorithm, key in (
        ("RS256", RSAKey.generate_key(2048, parameters={"kid": "one"})),
        ("HS256", OctKey.import_key(public, parameters={"kid": "one"})),
        ("none", OctKey.import_key(b"x" * 32)),
    ):
        provider.algorithm, provider.signing = algorithm, key
        browser, answer = sign_in(gateway, provider, groups=["platform"])
        assert answer.status_code == 502, (algorithm, answer.text)
        assert "headgate_session" not in browser.cookies


def test_a_new_key_of_the_provider_is_fetched(site, provider):
    _, gateway = site
    provider.key = RSAKey.generate_key(2048, parameters={"kid": "two"})
    provider.shown = [provider.key]
    _, answer = sign_in(gateway, provider, groups=["platform"])
    assert answer.status_code == 303, answer.text


def test_only_the_browser_that_began_may_finish(site, provider):
    _, gateway = site
    provider.claims["groups"] = ["platform"]
    with httpx.Client(base_url=gateway.url) as victim, httpx.Client(base_url=gateway.url) as attacker:
        begun = attacker.get(f"{API}/sso/login")
        back = urlsplit(httpx.get(begun.headers["location"]).headers["location"])
        assert victim.get(f"{back.path}?{back.query}").status_code == 403
        victim.get(f"{API}/sso/login")
        assert victim.get(f"{back.path}?{back.query}").status_code == 403
        state = parse_qs(back.query)["state"][0]
        assert attacker.get(f"{back.path}?code=unknown&state={state}").status_code == 502
        assert attacker.get(f"{back.path}?error=access_denied&state={state}").status_code == 403
        assert attacker.get(f"{back.path}?code=a&state=").status_code == 403


def test_its_cookies_are_safe_and_nothing_secret_is_told(site, provider):
    _, gateway = site
    begun = httpx.get(f"{gateway.url}{API}/sso/login")
    cookie = begun.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/admin/api/v1/sso" in cookie
    _, answer = sign_in(gateway, provider, groups=["platform"])
    assert any("SameSite=strict" in each and "HttpOnly" in each for each in answer.headers.get_list("set-cookie"))
    assert CLIENT_SECRET not in gateway.log_path.read_text() + begun.text + answer.text
    assert httpx.get(f"{gateway.url}{API}/sso").json() == {"enabled": True}


def test_a_provider_that_is_away_is_told_so(tmp_path):
    config = CONFIG.format(issuer="http://127.0.0.1:9", client_id=CLIENT_ID)
    with RunningGateway(tmp_path, config, SSO_SECRET=CLIENT_SECRET) as gateway:
        answer = httpx.get(f"{gateway.url}{API}/sso/login", timeout=20)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_invalid_response")


def test_without_a_provider_there_is_none(gateway):
    assert httpx.get(f"{gateway.url}{API}/sso").json() == {"enabled": False}
    assert httpx.get(f"{gateway.url}{API}/sso/login").status_code == 404
    assert httpx.get(f"{gateway.url}{API}/sso/callback?code=a&state=b").status_code == 404
