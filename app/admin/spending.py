"""What keys spent this month, as every other view tells it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.calendar import window_of
from app.core.clock import QUARTER_MS, quarter_of
from app.core.money import usd_text
from app.store.usage import UsageFilter, usage


async def spent_this_month(
    connection: AsyncConnection, key_ids: Sequence[str], *, now_ms: int
) -> dict[str, dict[str, Any]]:
    """``spent_month_usd`` and ``requests_month`` of each of these keys, in the month of UTC that runs."""
    spent = {key_id: {"spent_month_usd": "0", "requests_month": 0} for key_id in key_ids}
    if not key_ids:
        return spent
    start_ms, _ = window_of("month", "UTC", now_ms)
    end_ms = quarter_of(now_ms) + QUARTER_MS
    report = await usage(connection, ["key"], start_ms, end_ms, UTC, only=UsageFilter(key_ids=tuple(key_ids)))
    for row in report.rows:
        if row.key_id in spent:
            spent[row.key_id] = {"spent_month_usd": usd_text(row.cost_nanousd), "requests_month": row.requests}
    return spent
