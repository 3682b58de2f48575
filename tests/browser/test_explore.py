"""Explore: files that can be had, and charts of all that there is, whatever it is called."""

from __future__ import annotations

import csv
import json
import re

import pytest


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
