"""Overview and Explore: figures that tie, charts that keys can walk, files that hold what is shown."""

from __future__ import annotations

import re
from itertools import pairwise

from tests.browser.conftest import settle
from tests.fakes.admin_api import LEAD, Shop

COLUMN = "svg [role=img][data-index]"
FOCUSED = "document.activeElement.getAttribute('aria-label')"


def figure(text: str) -> float:
    return float(re.sub(r"[^0-9.]", "", text))


def test_the_same_total_in_every_place(visit):
    page = visit("/")
    spent = page.locator(".figure-tile.is-lead .figure").inner_text()
    legend = page.locator(".legend-panel tfoot tr").first.locator("td.end").first.inner_text()
    models = page.locator(".overview-tops .panel").nth(1).locator("tfoot td").last.inner_text()
    assert spent == legend == models
    parts = page.locator(".legend-panel tbody tr td:nth-child(2)").all_inner_texts()
    assert abs(sum(map(figure, parts)) - figure(spent)) < 0.01 * len(parts)
    page.goto(page.url.replace("/?", "/console/explore?"))
    settle(page)
    assert page.locator(".total-figure").first.inner_text() == spent
    assert page.locator(".explore tfoot td.end").nth(5).inner_text() == spent


def test_the_chart_is_walked_by_keys(visit):
    page = visit("/")
    page.get_by_role("button", name="Tag").focus()
    page.keyboard.press("Tab")
    today = page.evaluate(FOCUSED)
    assert today.startswith("Tue 24 Nov, $")
    assert "until 16:40" in today
    assert today.endswith("3 unpriced")
    assert page.locator(".chart-card").first.is_visible()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(FOCUSED).startswith("Mon 23 Nov, $")
    page.keyboard.press("Home")
    assert page.evaluate(FOCUSED).startswith("Sun 1 Nov, $")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(FOCUSED).startswith("Sun 1 Nov, $")
    page.keyboard.press("End")
    assert page.evaluate(FOCUSED).startswith("Mon 30 Nov, forecast $")
    page.keyboard.press("ArrowLeft")
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert page.evaluate(FOCUSED).startswith("Tue 24 Nov")
    page.keyboard.press("ArrowUp")
    assert page.locator(".chart-card li.is-part").inner_text().startswith("assistant")
    assert page.locator(".legend-panel tr.is-faded").count() == 4
    page.keyboard.press("ArrowUp")
    assert page.locator(".chart-card li.is-part").inner_text().startswith("growth")
    page.keyboard.press("Escape")
    assert page.locator(".chart-card").first.is_hidden()
    assert page.locator(".legend-panel tr.is-faded").count() == 0
    assert page.evaluate("document.activeElement === document.body")


def test_enter_on_a_column_opens_its_requests(visit):
    page = visit("/")
    page.get_by_role("button", name="Tag").focus()
    for key in ("Tab", "ArrowLeft", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    page.wait_for_url("**/console/requests?**")
    assert "range=2026-11-23..2026-11-23" in page.url
    assert "team=team_0" in page.url
    page.expected += ["Failed to fetch dynamically imported module", "404"]


def test_the_card_says_the_same_by_pointer_and_by_key(visit):
    page = visit("/console/explore?by=key")
    page.locator(COLUMN).nth(12).hover()
    by_pointer = page.locator(".chart-card").inner_text()
    assert "Fri 13 Nov" in by_pointer
    assert "4 unpriced requests not included" in by_pointer
    page.mouse.move(5, 5)
    page.locator(COLUMN).nth(12).focus()
    assert page.locator(".chart-card").inner_text() == by_pointer
    card, column = page.locator(".chart-card").bounding_box(), page.locator(COLUMN).nth(12).bounding_box()
    assert card["x"] >= column["x"] + column["width"] or card["x"] + card["width"] <= column["x"], "beside, not over"


def test_above_eight_names_there_are_eight_and_other_which_tie_with_the_total(visit, api):
    api.shop = Shop(
        teams=[f"team-{index:02d}" for index in range(13)], keys=[f"key-{index:02d}" for index in range(13)]
    )
    page = visit("/console/explore?by=team&range=2026-11-20..2026-11-23")
    page.locator(COLUMN).nth(3).focus()
    lines = page.locator(".chart-card li").all_inner_texts()
    assert len(lines) == 9
    assert lines[0].startswith("Other (5)")
    total = figure(page.locator(".chart-card .top span").last.inner_text())
    assert abs(sum(figure(line.rsplit("$", 1)[1]) for line in lines) - total) < 0.1
    swatches = page.locator(".chart-card li .swatch").evaluate_all(
        "all => all.map((one) => getComputedStyle(one).backgroundColor)"
    )
    assert len(set(swatches)) == 9, "no two names of one chart share a colour"


def test_the_export_is_the_question_that_the_table_asked(visit, api):
    page = visit("/console/explore?by=key&then=model&sort=-requests&team=team_1,team_2&range=last_7_days")
    asked = {part.split("?", 1)[1] for part in api.shop.asked if part.startswith("usage?") and "sort=-requests" in part}
    page.get_by_role("button", name="Export these rows").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="CSV", exact=True).click()
    exported = next(part.split("?", 1)[1] for part in api.shop.asked if part.startswith("export?"))
    parameters = dict(pair.split("=", 1) for pair in exported.split("&"))
    assert parameters.pop("format") == "csv"
    shown = [dict(pair.split("=", 1) for pair in line.split("&")) for line in asked]
    assert parameters in [{name: value for name, value in line.items() if name != "limit"} for line in shown]
    rows = download.value.path().read_text().splitlines()
    assert len(rows) == page.locator(".explore tbody tr").count()


def test_a_filter_is_made_named_and_taken_away(visit):
    page = visit("/console/explore?by=model")
    before = page.locator(".total-figure").first.inner_text()
    page.get_by_role("button", name="Add filter").click()
    page.get_by_role("dialog").get_by_text("platform").click()
    page.get_by_role("button", name="Show only these").click()
    page.get_by_role("button", name="team is platform", exact=True).wait_for()
    settle(page)
    assert page.locator(".total-figure").first.inner_text() != before
    assert "team=team_2" in page.url
    page.get_by_role("button", name="Take away: team is team_2").click()
    settle(page)
    assert page.locator(".total-figure").first.inner_text() == before


def test_a_lead_sees_its_own_team_alone(visit):
    page = visit("/", role=LEAD)
    assert page.get_by_role("button", name="Team: All").count() == 0
    assert page.locator(".legend-panel tbody").inner_text().startswith("support-bot")
    assert page.get_by_role("button", name="Team", exact=True).count() == 0
    assert "by=key" in page.url


def test_overview_says_that_it_shows_one_team_or_all(visit):
    page = visit("/?team=team_1,team_2")
    page.locator(".toast").filter(has_text="one team or all").wait_for()
    assert "team=" not in page.url
    assert page.get_by_role("button", name="Team: All").count() == 1


def test_a_year_of_days_is_drawn_with_few_elements(visit):
    page = visit("/console/explore?range=this_year&by=team")
    assert page.locator(COLUMN).count() == 328
    assert page.locator(".chart path").count() < 30
    labels = page.locator(".chart svg > g:nth-of-type(3) text").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect()).sort((a, b) => a.x - b.x).map((one) => [one.left, one.right])"
    )
    assert all(one[1] < other[0] for one, other in pairwise(labels)), "no two labels touch"
