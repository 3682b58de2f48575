"""The console on a real gateway: what was called is what it cost, in every view; and the stand-in answers as it does."""

from __future__ import annotations

import re
import time

import httpx
import pytest

from app.admin.schemas.overview import Overview
from app.admin.schemas.people import Teams
from app.admin.schemas.session import Session
from app.admin.schemas.usage import Usage
from tests.browser.conftest import settle
from tests.fakes.admin_api import ADMIN, API
from tests.fakes.gateway import RunningGateway

MODELS = ("gpt-5.4", "gpt-4.1-mini", "a-model-without-a-price")
CALLS = 4
WAIT_S = 30


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("console")) as running:
        yield running


@pytest.fixture(scope="module")
def used(gateway):
    """Two teams with a key each, and calls of three models; returns the total that the API tells."""
    admin = httpx.Client(
        base_url=f"{gateway.url}{API}/",
        headers={"authorization": f"Bearer {gateway.first_run['admin_token']}"},
        timeout=30,
    )
    for name in ("red", "<b>blue</b>"):
        team = admin.post("teams", json={"name": name}).raise_for_status().json()
        key = admin.post("keys", json={"team_id": team["id"], "name": f"{name} bot"}).raise_for_status().json()
        for model in MODELS:
            for _ in range(CALLS):
                body = {"model": model, "input": "Hello"}
                httpx.post(
                    f"{gateway.base_url}/responses",
                    json=body,
                    headers={"authorization": f"Bearer {key['key']}"},
                    timeout=30,
                ).raise_for_status()
    deadline = time.monotonic() + WAIT_S
    while True:
        total = admin.get("usage", params={"by": "model", "range": "this_month"}).raise_for_status().json()["total"]
        if total["requests"] == 2 * CALLS * len(MODELS) or time.monotonic() > deadline:
            admin.close()
            return total
        time.sleep(0.2)


@pytest.fixture
def page(chromium, gateway, used):
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, timezone_id="UTC")
    page = context.new_page()
    page.set_default_timeout(20_000)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(gateway.url)
    page.get_by_label("Admin token or key").fill(gateway.first_run["admin_token"])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Overview", level=1).wait_for()
    settle(page)
    yield page
    context.close()
    assert [text for text in errors if "401" not in text] == []


def test_what_was_called_costs_the_same_everywhere(page, used):
    spent = page.locator(".figure-tile.is-lead .figure").inner_text()
    assert abs(float(spent.removeprefix("$")) - float(used["cost_usd"])) < 0.0001
    assert page.locator(".legend-panel tfoot tr").first.locator("td.end").first.inner_text() == spent
    assert page.get_by_text("8 requests have no price").is_visible()
    assert page.locator(".figures").get_by_text("24", exact=True).is_visible()
    page.get_by_role("link", name="Open in Explore").click()
    page.get_by_role("heading", name="Explore", level=1).wait_for()
    settle(page)
    for by in ("Key", "Model", "Upstream"):
        page.get_by_role("button", name=re.compile("^By: ")).click()
        page.get_by_role("option", name=by, exact=True).click()
        settle(page)
        assert page.locator(".total-figure").first.inner_text() == spent
        assert page.locator(".explore tfoot").get_by_text(spent, exact=True).count() == 1
        assert page.locator(".totals .warn").inner_text() == "◇ not in it: 8"
    page.get_by_role("button", name="Per: Day").click()
    page.get_by_role("option", name="Week").click()
    settle(page)
    last = page.locator("svg [role=img][data-index]").last
    assert spent in last.get_attribute("aria-label") or page.locator("svg [role=img][data-index]").count() > 1


def test_the_file_holds_the_rows_that_are_shown(page, gateway):
    page.goto(f"{gateway.url}/console/explore?by=key&then=model&tz=UTC")
    settle(page)
    shown = page.locator(".explore tbody tr").count()
    page.get_by_role("button", name="Export these rows").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="CSV", exact=True).click()
    rows = download.value.path().read_text().strip().splitlines()
    assert len(rows) - 1 == shown == 2 * len(MODELS)
    assert "<b>blue</b>" in page.locator(".explore tbody").inner_text()
    assert page.locator(".explore tbody b").count() == 0


def test_one_who_signs_out_cannot_come_back(page, gateway):
    cookie = page.context.cookies()[0]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.get_by_role("button", name=re.compile("^Signed in as")).click()
    page.get_by_role("menuitem", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    again = httpx.get(f"{gateway.url}{API}/session", cookies={cookie["name"]: cookie["value"]})
    assert again.status_code == 401


def test_the_stand_in_answers_as_the_gateway_does(api):
    with httpx.Client(base_url=f"{api.url}{API}/", timeout=10) as client:
        session = client.post("session", json={"credential": ADMIN})
        Session.model_validate(session.json())
        for show in ("team", "key", "model"):
            Overview.model_validate(client.get("overview", params={"tz": "Europe/Berlin", "show": show}).json())
        for by in ("team", "key,team", "day", "model,day"):
            Usage.model_validate(client.get("usage", params={"by": by, "range": "last_7_days"}).json())
        Teams.model_validate(client.get("teams").json())
