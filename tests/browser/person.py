"""A person at the console of a real gateway: goes by the sidebar, reads tables, and figures as they are written."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from tests.browser.conftest import settle

WAIT_S = 30
THOUSANDS = {"": 1, "k": 1_000, "M": 1_000_000}


def sign_in(page: Any, url: str, credential: str) -> None:
    page.goto(url)
    page.get_by_label("Admin token or key").fill(credential)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Sign in").wait_for(state="detached")
    settle(page)


def sign_out(page: Any) -> None:
    page.get_by_role("button", name=re.compile("^Signed in as")).click()
    page.get_by_role("menuitem", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()


def go(page: Any, view: str) -> None:
    """To a view, by its link in the sidebar."""
    page.get_by_role("navigation").get_by_role("link", name=re.compile(f"^{view}")).click()
    page.get_by_role("heading", name=view, level=1).wait_for()
    settle(page)


def reload_until(page: Any, is_so: Callable[[], bool]) -> None:
    """What is told of calls comes a moment after them: look again until it is there."""
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, page.locator("main").inner_text()
        page.reload()
        settle(page)


def rows_of(table: Any) -> list[dict[str, str]]:
    """A table's rows, each cell by its column's name."""
    # At once: between two looks it may be drawn again, with other columns.
    names, lines = table.evaluate(
        """(table) => ['thead tr', 'tbody tr:not(.group)'].map((lines) => [...table.querySelectorAll(lines)]
          .map((line) => [...line.cells].map((cell) => cell.innerText)))"""
    )
    names = [name.strip(" ↓↑") for name in names[0]]
    return [dict(zip(names, line, strict=True)) for line in lines]


def exact_of(table: Any, column: str) -> Decimal:
    """The sum of a column, by the exact values that its cells have as titles."""
    names = [name.strip(" ↓↑") for name in table.locator("thead th").all_inner_texts()]
    cells = table.locator(f"tbody tr :is(td, th):nth-child({names.index(column) + 1})")
    return sum((Decimal(cell.get_attribute("title").strip("$").replace(",", "")) for cell in cells.all()), Decimal())


def is_written(text: str, exact: Decimal | int) -> bool:
    """Whether this is how ``exact`` is written, to the last digit that is shown."""
    found = re.fullmatch(r"\$?([\d,]+(?:\.(\d+))?)([kM]?)", text.strip())
    assert found, text
    number, places, unit = found.groups()
    step = Decimal(1).scaleb(-len(places or ""))
    rounded = (Decimal(exact) / THOUSANDS[unit]).quantize(step, ROUND_HALF_UP)
    return rounded == Decimal(number.replace(",", ""))
