"""What two views say with the same words is the same; and what is said of a figure is true of it."""

from __future__ import annotations

import re
from typing import Any

from tests.browser.conftest import settle


def test_the_badge_of_prices_is_one_number_in_every_view(enter, company):
    def older(route: Any) -> None:
        """As if calls of the month before were in the thirty days that Prices lists."""
        answer = route.fetch()
        told = answer.json()
        for row in told["data"]:
            row["unpriced"] = row["unpriced"] and row["unpriced"] + 40
        route.fulfill(response=answer, json=told)

    # Whatever month it is by now.
    company.record(company.call(company.keys["red"]["key"], "without-a-price"))
    page = enter("/?tz=UTC")
    page.route("**/admin/api/v1/prices*", older)
    badge = page.locator("a[data-view=prices] .side-badge").first
    said = badge.inner_text()
    assert re.fullmatch(r"◇ \d+\s+requests of this month without a price", said), said
    page.get_by_role("link", name=re.compile("^Prices")).click()
    page.get_by_role("heading", name="Without a price, last 30 days").wait_for()
    settle(page)
    assert badge.inner_text() == said
    page.goto(f"{company.gateway.url}/?tz=UTC&team={company.teams['red']['id']}")
    settle(page)
    badge.filter(has_text="of this month").wait_for()
    assert badge.inner_text() == said


def test_a_percentile_is_not_told_as_a_part_of_another(enter):
    page = enter("/?tz=UTC")
    tile = page.locator(".figure-tile", has_text="First byte")
    assert tile.locator(".figure-name").inner_text() == "First byte p95, 24 h"
    assert re.fullmatch(r"overhead p95 .* m?s", tile.locator(".note").inner_text())


def test_upstreams_says_the_rule_that_is_followed(enter):
    page = enter("/console/upstreams")
    assert "3% or more of at least 20 requests failed" in page.locator(".table-note").inner_text()


def test_two_prices_of_one_model_are_told_apart_on_a_phone(enter, company):
    for upstream in (None, "simulator"):
        more = {} if upstream is None else {"upstream": upstream}
        company.admin.ask(
            "POST", "/prices", json={"model": "twice", "input_per_mtok_usd": "1", "output_per_mtok_usd": "2", **more}
        )
    page = enter("/console/prices", width=360)
    rows = page.locator(".prices-table tbody tr", has_text="twice").all_inner_texts()
    assert len(rows) == 2
    assert sum("any upstream" in row for row in rows) == 1
    assert sum("simulator" in row for row in rows) == 1
