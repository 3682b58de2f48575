"""Cursor pages, as every list of the API has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.simulator.errors import refuse_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.simulator.routes import Request

PAGE_ITEMS = 20
PAGE_ITEMS_MAX = 100


def page_of(
    items: Sequence[dict[str, Any]],
    request: Request,
    *,
    items_max: int = PAGE_ITEMS_MAX,
    items_default: int = PAGE_ITEMS,
    order: str = "desc",
) -> dict[str, Any]:
    """The part of ``items`` (oldest first) that ``after``, ``before``, ``limit`` and ``order`` ask for."""
    limit = request.number("limit", items_default, 1, items_max)
    order = request.text("order") or order
    if order not in ("asc", "desc"):
        refuse_value("order", f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.")
    found = list(items) if order == "asc" else list(reversed(items))
    found = found[_place(found, request.text("after"), "after") :]
    before = request.text("before")
    if before:
        found = found[: _place(found, before, "before") - 1]
    shown = found[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(found) > limit,
    }


def _place(items: list[dict[str, Any]], cursor: str | None, name: str) -> int:
    """How many of ``items`` come up to and with ``cursor``."""
    if not cursor:
        return 0
    place = next((index for index, item in enumerate(items) if item["id"] == cursor), None)
    if place is None:
        refuse_value(name, f"Invalid '{name}': no item with id '{cursor}'.")
    return place + 1
