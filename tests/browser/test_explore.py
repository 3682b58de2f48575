"""Explore: files that can be had, and charts of all that there is, whatever it is called."""

from __future__ import annotations

import csv
import json
import re

import pytest

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


def test_what_was_not_read_is_said(visit, api):
    """Twenty pages of rows are read; the stand-in is asked for small ones."""
    api.shop = Shop(teams=["one"], keys=[f"key-{index}" for index in range(8)], days=900, rows_max=100)
    page = visit("/console/explore?by=key&range=2024-06-08..2026-11-24")
    assert "The chart does not hold all of it" in page.locator(".explore-note").inner_text()
