"""Every view, on a real gateway with names that are markup: axe, both themes, narrow pages, and what each role reaches."""

from __future__ import annotations

import pytest

from tests.browser.company import BAD
from tests.browser.conftest import settle
from tests.browser.test_access import violations

PEOPLES = {
    "keys": "/console/keys",
    "key": "/console/keys?open={key}",
    "teams": "/console/teams",
    "team": "/console/teams/{team}",
    "budgets": "/console/budgets",
    "budget": "/console/budgets?open={budget}",
    "requests": "/console/requests",
    "request": "/console/request/{request}",
    "live": "/console/live",
    "upstreams": "/console/upstreams",
    "prices": "/console/prices",
    "alerts": "/console/alerts",
    "audit": "/console/audit",
    "tokens": "/console/tokens",
}
OWN = {"me": "/console/me", "my-requests": "/console/my-requests", "my-live": "/console/my-live"}
VIEWS = {
    **{name: (path, "admin") for name, path in PEOPLES.items()},
    **{name: (path, "key") for name, path in OWN.items()},
}


@pytest.fixture(scope="module")
def places(company):
    """What the addresses name: all of the team whose name is markup."""
    team = company.teams[BAD]["id"]
    budget = company.admin.ask(
        "POST",
        "/budgets",
        json={"team_id": team, "window": "month", "maximum_usd": "50", "model": "priced"},
    )
    return {
        "key": company.keys[BAD]["id"],
        "team": team,
        "budget": budget["id"],
        "request": company.admin.ask("GET", f"/records?team={team}")["data"][0]["request_id"],
    }


@pytest.fixture
def view(enter, places):
    def open_view(name: str, **more):
        path, role = VIEWS[name]
        page = enter(path.format(**places), role=role, **more)
        if name in {"live", "my-live"}:
            page.get_by_text("Just finished").wait_for()
            page.locator(".live-columns table").first.or_(page.locator(".live-columns .empty").first).first.wait_for()
        return page

    return open_view


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", VIEWS)
def test_axe_finds_nothing_and_names_are_text(view, name, theme):
    page = view(name, theme=theme)
    assert violations(page) == []
    assert page.evaluate("window.owned") is None
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize("name", VIEWS)
def test_a_phone_scrolls_down_only(view, name):
    page = view(name, width=360, height=760)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == []


@pytest.mark.parametrize("width", [320, 819, 820, 1180, 1181, 1920])
def test_no_width_scrolls_sideways(view, places, company, width):
    page = view("keys", width=width)
    for name in ("key", "team", "budgets", "requests", "request", "prices", "audit"):
        page.goto(company.gateway.url + PEOPLES[name].format(**places))
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


@pytest.mark.parametrize("name", ["teams", "budgets", "prices", "alerts", "upstreams"])
def test_a_viewer_is_shown_no_verb_that_changes(enter, name):
    page = enter(PEOPLES[name], role="viewer")
    words = [text.strip() for text in page.locator("main button:visible").all_inner_texts()]
    verbs = (
        "Make",
        "Set",
        "Reprice",
        "Revoke",
        "Rename",
        "Change",
        "Take",
        "Raise",
        "Probe",
        "Pause",
        "Resume",
        "Send",
    )
    assert [text for text in words if text.startswith(verbs)] == []


def test_a_lead_goes_straight_to_its_team_and_reaches_no_prices(enter, company):
    page = enter("/console/teams", role="lead")
    page.get_by_role("heading", name="red", level=1).wait_for()
    assert page.get_by_role("button", name="Change limits").count() == 0
    links = page.locator(".side a.side-link").all_inner_texts()
    assert [name for name in ("Prices", "Alerts", "Audit", "Admin tokens") if name in links] == []
    page.goto(f"{company.gateway.url}/console/prices")
    page.get_by_role("heading", name="Not here").wait_for()
    assert "An administrator can" in page.locator("main").inner_text()


def test_a_key_reaches_what_is_its_own_and_no_other_key_is_named(enter, company):
    page = enter("/", role="key")
    page.wait_for_url("**/console/me*")
    settle(page)
    assert page.locator(".side a.side-link").all_inner_texts() == ["Me", "My requests", "My live requests"]
    assert f'base_url="{company.gateway.base_url}"' in page.locator(".me-code").inner_text()
    for path in OWN.values():
        page.goto(company.gateway.url + path)
        page.locator("h1").first.wait_for()
        assert BAD not in page.locator("body").inner_text()
    page.goto(f"{company.gateway.url}/console/keys")
    page.get_by_role("heading", name="Not here").wait_for()


def test_reload_and_back_give_the_same_picture(view, places):
    page = view("keys")
    page.get_by_role("button", name="red bot").click()
    page.get_by_role("heading", name="red bot").wait_for()
    page.wait_for_url("**open=*")
    page.reload()
    settle(page)
    page.get_by_role("heading", name="red bot").wait_for()
    page.go_back()
    page.get_by_role("heading", name="red bot").wait_for(state="detached")
    page.go_forward()
    page.get_by_role("heading", name="red bot").wait_for()
    page.get_by_role("heading", name="red bot").focus()
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="red bot").wait_for(state="detached")
    assert "red bot" in page.evaluate("document.activeElement.textContent")
