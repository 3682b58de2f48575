"""For everybody: screen readers, keys, narrow pages, both themes."""

from __future__ import annotations

import pytest
from axe_core_python.base import AXE_SCRIPT

from tests.browser.conftest import settle
from tests.fakes.admin_api import ADMIN

RUN = "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations.map((one) => [one.id, one.nodes.map((node) => node.html.slice(0, 200))]))"
VIEWS = {
    "overview": "/",
    "explore": "/console/explore?by=key&team=team_1",
    "lines": "/console/explore?draw=lines",
    "sign-in": "/",
}


def violations(page) -> list:
    page.evaluate(AXE_SCRIPT)
    return page.evaluate(RUN)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(visit, view, theme):
    page = visit(VIEWS[view], role=None if view == "sign-in" else ADMIN, theme=theme)
    if view == "sign-in":
        page.expected += ["401"]
    assert violations(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_a_phone_nor_in_what_opens(visit, theme):
    page = visit("/", width=360, height=760, theme=theme)
    assert violations(page) == []
    page.get_by_role("button", name="Menu").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.goto(page.url.replace("/?", "/console/explore?"))
    settle(page)
    page.get_by_role("button", name="Range: This month").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Add filter").click()
    page.get_by_role("dialog").get_by_text("platform").wait_for()
    assert violations(page) == []


@pytest.mark.parametrize("path", ["/", "/console/explore?by=key&then=model", "/console/explore?draw=total"])
@pytest.mark.parametrize("width", [320, 360, 819, 820, 1180, 1920])
def test_no_page_scrolls_sideways(visit, path, width):
    page = visit(path, width=width)
    # Charts are drawn once more when they know their room.
    page.wait_for_function("document.documentElement.scrollWidth <= innerWidth", timeout=5000)


def test_the_fold_at_1440_by_900_holds_all_of_overview(visit):
    page = visit("/", width=1440, height=900)
    bottom = page.locator(".overview-tops").bounding_box()
    assert bottom["y"] + bottom["height"] <= 900


def test_focus_is_seen_goes_into_what_opens_and_comes_back(visit):
    page = visit("/console/explore")
    button = page.get_by_role("button", name="By: Team")
    button.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "option"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "Key"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "By: Team"
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.get_by_role("button", name="Add filter").click()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Add filter"


def test_the_theme_is_kept_and_there_before_the_first_paint(visit):
    page = visit("/", theme="light")
    page.get_by_role("button", name="Dark theme").last.click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 19, 20)"
    page.reload(wait_until="commit")
    page.locator("body").wait_for(state="attached")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"


def test_forced_colours_keep_shapes(visit):
    page = visit("/", forced_colors="active")
    assert page.locator(".chart .fill").first.evaluate("(one) => getComputedStyle(one).strokeWidth") == "1px"
    assert page.locator(".chart pattern").count() > 0
