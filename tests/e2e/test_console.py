"""How the console's files are served: to whom, with which headers, and nothing else than these files."""

from __future__ import annotations

import http.client
import json
import re

import httpx
import pytest

from app.admin.console import FOLDER, TYPES

HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
IMPORTED = re.compile(r"(?:^(?:import|export)\b.*from |^import |\bimport\()'([^']+)'", re.MULTILINE)
NOT_FILES = [
    "../console.py",
    "..%2fconsole.py",
    "%2e%2e/%2e%2e/__init__.py",
    "js/../../app.py",
    "/etc/passwd",
    "js//main.js",
    "js/main.js%00",
    "index.html",
    "js",
    "",
]


@pytest.fixture(scope="module")
def client(simulated):
    with httpx.Client(base_url=simulated.url) as client:
        yield client


def digest_of(client: httpx.Client) -> str:
    found = re.search(r"/console/assets/([0-9a-f]{16})/js/main\.js", client.get("/", headers=HTML).text)
    assert found is not None
    return found.group(1)


def test_a_script_that_asks_for_the_root_gets_json_as_ever(client):
    for accept in ("*/*", "application/json"):
        answer = client.get("/", headers={"accept": accept})
        assert answer.json()["name"] == "headgate"
        assert answer.headers["vary"] == "accept"


@pytest.mark.parametrize("path", ["/", "/console/keys", "/console/requests/01938f2e", "/console/no-such-view"])
def test_every_page_is_the_shell_under_a_strict_policy(client, path):
    answer = client.get(path, headers=HTML)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    for part in (
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ):
        assert part in policy
    assert "unsafe" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=|https?://", answer.text)


@pytest.mark.parametrize("path", ["/console", "/console/"])
@pytest.mark.parametrize("query", ["", "?range=today&team=a%2Fb"])
def test_the_address_without_a_view_leads_to_the_first_one(client, path, query):
    answer = client.get(path + query, headers=HTML)
    assert answer.status_code == 308
    assert answer.headers["location"] == f"/{query}"
    assert client.get(path, headers=HTML, follow_redirects=True).status_code == 200


def test_every_file_that_the_shell_names_is_there_for_good(client):
    page = client.get("/", headers=HTML).text
    named = re.findall(r'(?:href|src)="([^"]+)"', page)
    modules = re.findall(r'data-modules="([^"]+)"', page)[0].split()
    assert len(modules) > 20
    named += [f"/console/assets/{digest_of(client)}/{name}" for name in modules]
    for address in named:
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert client.get(address, headers={"if-none-match": answer.headers["etag"]}).status_code == 304


def test_a_view_names_its_own_modules_and_not_those_of_others(client):
    page = client.get("/console/explore", headers=HTML).text
    assert "js/views/explore.js" in page
    assert "js/views/explore/rows.js" in page
    assert "js/views/overview.js" not in page
    assert page.index("js/early.js") < page.index("stylesheet"), "a script behind a sheet waits for it"


def test_one_sheet_holds_all_of_them_in_order(client):
    sheet = client.get("/console/assets/css/all.css").text
    places = [sheet.index(path.read_text()) for path in FOLDER.rglob("*.css")]
    assert len(places) == len(set(places)) > 10
    assert sheet.startswith((FOLDER / "css" / "tokens.css").read_text())


def test_an_address_without_the_digest_is_looked_at_again(client):
    answer = client.get("/console/assets/js/main.js")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", NOT_FILES)
def test_what_is_not_in_the_table_is_not_there(client, simulated, name):
    for prefix in ("", f"{digest_of(client)}/", "0123456789abcdef/"):
        # As it is written: a client would tidy the dots away.
        connection = http.client.HTTPConnection("127.0.0.1", simulated.port, timeout=10)
        connection.request("GET", f"/console/assets/{prefix}{name}")
        answer = connection.getresponse()
        assert answer.status == 404
        assert json.loads(answer.read())["error"]["type"]
        connection.close()


def test_a_page_can_be_asked_for_without_its_body(client):
    answer = client.head("/console/keys")
    assert answer.status_code == 200
    assert answer.content == b""


def test_the_modules_bring_in_each_other_and_nothing_from_elsewhere():
    """Air-gapped: every import is a file of this folder; and no way to make markup or code of text is used."""
    for path in FOLDER.rglob("*"):
        if path.is_dir() or path.name == "index.html":
            continue
        assert path.suffix in TYPES, f"{path} would not be served"
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".js":
            for target in IMPORTED.findall(text):
                assert target.startswith("."), (path, target)
            for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
                assert sink not in text, (path, sink)
        if path.suffix == ".css":
            assert "url(" not in text
            assert "@import" not in text


def test_a_module_is_a_sitting():
    for path in FOLDER.rglob("*.js"):
        assert path.read_text().count("\n") <= 300, path
