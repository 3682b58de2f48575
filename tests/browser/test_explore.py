"""Explore: files that can be had, and charts of all that there is, whatever it is called."""

from __future__ import annotations

import csv
import json
import re

import pytest

from tests.browser.conftest import settle
from tests.fakes.admin_api import Shop

COLUMN = "svg [role=img][data-index]"


@pytest.mark.parametrize("question", ["by=key", "by=team&then=model&sort=requests", "by=tag.service&then=key&per=hour"])
def test_every_kind_of_file_can_be_had(enter, question):
    page = enter(f"/console/explore?{question}&tz=UTC")
    found = {}
    for name in ("CSV", "JSON Lines", "FOCUS, as CSV"):
        page.get_by_role("button", name="Export these rows").click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=name, exact=True).click()
        found[name] = download.value.path().read_text()
        page.keyboard.press("Escape")
    rows = page.locator(".explore tbody tr").count()
    assert rows > 0
    assert len(list(csv.DictReader(found["CSV"].splitlines()))) == rows
    assert len([json.loads(line) for line in found["JSON Lines"].splitlines()]) == rows
    charges = list(csv.DictReader(found["FOCUS, as CSV"].splitlines()))
    said = page.locator(".total-figure").nth(1).inner_text()
    assert sum(int(row["x_Requests"]) for row in charges) == int(re.sub(r"\D", "", said))


def test_a_chart_holds_every_period_however_many_rows_they_are(visit, api):
    api.shop = Shop(teams=["one"], keys=[f"key-{index}" for index in range(8)], days=900)
    page = visit("/console/explore?by=key&range=2024-06-08..2026-11-24")
    said = page.locator(COLUMN).evaluate_all("(all) => all.map((one) => one.getAttribute('aria-label'))")
    assert len(said) == 900
    assert [one for one in said if "most key-" not in one] == []
    assert page.locator(".explore-note").get_by_text("does not hold all").count() == 0


@pytest.mark.quiet
def test_what_was_not_read_is_said(visit, api):
    """Twenty pages of rows are read; the stand-in is asked for small ones."""
    api.shop = Shop(teams=["one"], keys=[f"key-{index}" for index in range(8)], days=900, rows_max=100)
    page = visit("/console/explore?by=key&range=2024-06-08..2026-11-24")
    assert "The chart does not hold all of it" in page.locator(".explore-note").inner_text()


HOSTILE = ("__proto__", "_other", "constructor", "hasOwnProperty", "toString", "valueOf", "Other")


@pytest.fixture(scope="module")
def named(company):
    """Calls whose tags are called as the insides of a program are."""
    for name in HOSTILE:
        company.call(company.keys["red"]["key"], tags=f"odd={name}")
    # Whatever day it is by now.
    company.call(company.keys["red"]["key"])
    total = len(HOSTILE)
    company.wait(lambda: company.admin.ask("GET", "/usage?by=tag.odd&not.tag.odd=")["total"]["requests"] == total)


@pytest.mark.parametrize("draw", ["columns", "lines", "total"])
def test_a_name_that_is_a_word_of_the_language_is_a_name(enter, named, draw):
    page = enter(f"/console/explore?by=tag.odd&show=requests&range=today&draw={draw}&tz=UTC&not.tag.odd=x")
    page.locator(COLUMN).last.hover()
    shown = page.locator(".chart-card li").all_inner_texts()
    assert sorted(line.split("\n")[0] for line in shown) == sorted([*HOSTILE, "no tag"])
    assert {line.split("\n")[-1] for line in shown if not line.startswith("no tag")} == {"1"}
    drawn = page.locator(".chart svg [data-series]").evaluate_all("(all) => all.map((one) => one.dataset.series)")
    assert set(HOSTILE) <= set(drawn)


def test_overview_tells_a_client_s_other_from_its_own(enter, named):
    page = enter("/?by=tag.odd&tz=UTC")
    rows = dict.fromkeys(page.locator(".legend-panel tbody tr th").all_inner_texts())
    assert set(HOSTILE) <= set(rows)
    page.locator(".legend-panel tbody tr", has_text="_other").locator(".row-open").click()
    page.wait_for_url("**/console/explore?**")
    settle(page)
    assert "tag.odd=_other" in page.url
    assert page.locator(".total-figure").nth(1).inner_text() == "1"


def test_what_is_not_shown_by_name_is_one_part_beside_a_client_s_other(words):
    members = ", ".join(
        f"{{id: '{name}', name: '{name}', color: 0, size: {size}}}"
        for size, name in enumerate([*HOSTILE, "a", "b", "c"])
    )
    found = words("charts/series", f"m.seriesOf([{members}]).series.map((one) => [one.id, one.name])")
    assert len(found) == 9
    assert found[-1][1] == "Other (2)"
    assert found[-1][0] not in HOSTILE
    sums = words(
        "charts/series", "[...m.bySeries([['constructor', 1], ['constructor', 2], ['_other', 3]], (id) => id)]"
    )
    assert sums == [["constructor", 3], ["_other", 3]]
