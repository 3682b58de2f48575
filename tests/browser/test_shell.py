"""Who is let in, what is drawn for whom, and where addresses lead."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import settle
from tests.fakes.admin_api import ADMIN, KEY, LEAD, VIEWER

LINKS = "nav a.side-link"


def test_a_wrong_token_is_told_and_the_right_one_opens_the_page_one_came_for(visit):
    page = visit("/console/explore?by=model", role=None)
    page.expected += ["401"]
    page.get_by_label("Admin token or key").fill("hg-admin-wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").filter(has_text="not known here").wait_for()
    page.get_by_label("Admin token or key").fill(ADMIN)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Explore", level=1).wait_for()
    assert page.locator("button[aria-label='By: Model']").count() == 1
    assert ADMIN not in page.content()
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert "hg-admin" not in stored


def test_one_who_signs_out_is_out(visit):
    page = visit("/")
    page.expected += ["401"]
    page.get_by_role("button", name="Signed in as mara@acme.example").click()
    page.get_by_role("menuitem", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    page.reload()
    page.get_by_role("heading", name="Sign in").wait_for()


def test_a_session_that_ended_leads_to_the_sign_in_page(visit, api):
    page = visit("/console/explore")
    page.expected += ["401"]
    api.sessions.clear()
    page.get_by_role("button", name="Lines").click()
    page.get_by_role("button", name="Show: Cost").click()
    page.get_by_role("option", name="Requests", exact=True).click()
    page.get_by_text("Your session has ended").wait_for()


@pytest.mark.parametrize(
    ("role", "there", "missing"),
    [
        (ADMIN, {"Overview", "Keys", "Prices", "Audit"}, {"Me"}),
        (VIEWER, {"Overview", "Keys", "Prices", "Audit"}, {"Me"}),
        (LEAD, {"Overview", "Explore", "Keys", "Teams", "Requests"}, {"Prices", "Alerts", "Audit", "Me"}),
        (KEY, {"Me", "My requests", "My live requests"}, {"Overview", "Explore", "Keys", "Teams", "Prices"}),
    ],
)
def test_what_a_role_may_not_do_is_not_drawn(visit, role, there, missing):
    page = visit("/console/nowhere", role=role)
    names = {text.strip() for text in page.locator(LINKS).all_inner_texts()}
    assert there <= names
    assert not names & missing
    page.get_by_role("heading", name="Not here").wait_for()


def test_a_lead_is_told_who_can_grant_what_is_not_its_own(visit):
    page = visit("/console/audit", role=LEAD)
    page.get_by_text("Your role, Team lead of support, does not reach Audit.").wait_for()


def test_back_and_reload_give_the_same_picture(visit):
    page = visit("/")
    page.get_by_role("link", name="Explore", exact=True).click()
    page.get_by_role("heading", name="Explore", level=1).wait_for()
    page.get_by_role("button", name="By: Team").click()
    page.get_by_role("option", name="Model").click()
    page.get_by_role("button", name="Running total").click()
    settle(page)
    address = page.url
    assert "by=model" in address
    assert "draw=total" in address
    assert "range" not in address, "a default is left out"
    assert "tz=Europe/Berlin" in address, "a link shows another person the same days"
    totals = page.locator(".totals").inner_text()
    page.reload()
    settle(page)
    assert page.url == address
    assert page.locator(".totals").inner_text() == totals
    assert page.get_by_role("button", name="Running total").get_attribute("aria-pressed") == "true"
    page.go_back()
    page.get_by_role("heading", name="Overview", level=1).wait_for()
    page.go_forward()
    page.get_by_role("heading", name="Explore", level=1).wait_for()
    assert page.url == address


def test_range_zone_and_team_follow_from_view_to_view(visit):
    page = visit("/console/explore?range=last_7_days&tz=Asia/Tokyo&team=team_1&by=model")
    href = page.get_by_role("link", name="Budgets").get_attribute("href")
    assert href == "/console/budgets?range=last_7_days&tz=Asia/Tokyo&team=team_1"


def test_what_is_picked_in_a_view_follows_to_the_next(visit):
    page = visit("/console/explore?team=team_1")
    page.get_by_role("button", name="Range: This month").click()
    page.get_by_text("Last 30 days", exact=True).click()
    settle(page)
    page.get_by_role("button", name=re.compile("^Take away: team is")).click()
    settle(page)
    href = page.get_by_role("link", name="Requests", exact=True).get_attribute("href")
    assert href.startswith("/console/requests?")
    assert "range=last_30_days" in href
    assert "team=" not in href


def test_an_error_stands_beside_the_last_good_figures(visit, api):
    page = visit("/")
    page.expected += ["503"]
    before = page.locator(".figures").inner_text()
    api.shop.failing = {"overview"}
    page.get_by_role("button", name="Model", exact=True).click()
    alert = page.get_by_role("alert").filter(has_text="cannot be read")
    alert.wait_for()
    assert "as of 16:40" in alert.inner_text()
    assert "01938f2e-7c41-7d0a-b6e2-51c09a77e3d8" in alert.inner_text()
    assert page.locator(".figures").inner_text() == before
    api.shop.failing = set()
    page.get_by_role("button", name="Try again").click()
    alert.wait_for(state="detached")


def test_a_server_that_is_gone_is_said_plainly(visit):
    page = visit("/")
    page.expected += ["ERR_FAILED"]
    page.route(re.compile("/overview"), lambda route: route.abort())
    page.get_by_role("button", name="Model", exact=True).click()
    page.get_by_role("alert").filter(has_text="Headgate cannot be reached").wait_for()


def test_a_fresh_install_says_what_to_do_next(visit, api):
    api.shop.is_empty = True
    page = visit("/")
    page.get_by_text("No requests yet. Make a key, then send this:").wait_for()
    assert f"{api.url}/v1/responses" in page.locator("pre.code").inner_text()
    assert page.get_by_role("link", name="Make a key").is_visible()
    assert page.locator(".attention").is_hidden()
    assert "forecast: too early to say" in page.locator(".figures").inner_text()


def test_the_sidebar_says_where_a_person_must_act(visit):
    for path in ("/", "/console/explore"):
        page = visit(path)
        page.locator("a[data-view=live] .side-badge").filter(has_text="11").wait_for()
        badges = {
            name: page.locator(f"a[data-view={name}] .side-badge").first.inner_text()
            for name in ("budgets", "upstreams", "prices", "keys")
        }
        assert badges["budgets"].startswith("92%")
        assert badges["upstreams"].startswith("▲ 1")
        assert badges["prices"].startswith("◇ 12")
        assert badges["keys"] == ""


def test_overview_asks_once(visit, api):
    api.shop.asked.clear()
    visit("/")
    assert api.shop.asked == ["overview?tz=Europe/Berlin&show=team"]
    page = visit("/?tz=UTC&by=model&team=team_2")
    page.get_by_role("button", name="Team").locator("visible=true").first.click()
    page.get_by_role("option", name="support").click()
    settle(page)
    assert "team=team_4" in page.url
    # The second visit of one browser asks before its modules are there, and not again. What the sidebar asks of all
    # teams while one is shown may come late: it has the zone of the visit before.
    page.goto(f"{api.url}/?tz=Asia/Tokyo&by=tag.service")
    settle(page)
    assert [line for line in api.shop.asked if line.startswith("overview?tz=Asia")] == [
        "overview?tz=Asia/Tokyo&show=tag.service"
    ]
