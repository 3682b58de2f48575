"""What a request cost, as a sum: its units, their prices, and what each part came to."""

from __future__ import annotations

from typing import Any

from app.core.money import NANO_PER_USD, UNITS_PER_PRICE, usd_text
from app.core.usage import Usage
from app.metering.lines import Line, lines_of
from app.metering.pricing import PriceBook
from app.store.explanations import AttemptExplained, RecordExplained


def bill_of(explained: RecordExplained, prices: PriceBook) -> dict[str, Any] | None:
    """The lines of all its calls, which add up to its cost. None where a price by which one was reckoned is not known
    any more, or where corrections make it another sum: what its entries say then is all there is.
    """
    lines: list[dict[str, Any]] = []
    for attempt in explained.attempts:
        if not attempt.usage and not attempt.cost_nanousd:
            continue
        found = _lines(explained, attempt, prices)
        if found is None:
            return None
        for line in found:
            lines.append(_line_data(line))
            thought = attempt.usage.get("reasoning_tokens")
            if line.unit == "output_tokens" and thought:
                lines.append({"unit": "reasoning_tokens", "count": thought, "included": True, "cost_usd": None})
    if not lines:
        return None
    return {"lines": lines, "source": explained.record.price_source, "version": explained.record.price_version}


def _lines(explained: RecordExplained, attempt: AttemptExplained, prices: PriceBook) -> tuple[Line, ...] | None:
    record = explained.record
    priced = next((entry for entry in reversed(attempt.entries) if entry.price_source and entry.price_version), None)
    if priced is None or priced.price_source is None or priced.price_version is None:
        return None
    price = prices.recorded(
        priced.price_source,
        priced.price_version,
        attempt.upstream,
        attempt.model,
        priced.service_tier,
        record.started_at_ms,
        served=record.model_served,
    )
    lines = None if price is None else lines_of(price, Usage(**attempt.usage))
    if lines is None or sum(line.cost_nanousd for line in lines) != attempt.cost_nanousd:
        return None
    return lines


def _line_data(line: Line) -> dict[str, Any]:
    """Tokens are priced by the million, all else each."""
    is_tokens = line.unit.endswith("_tokens")
    price = {"per_mtok_usd": usd_text(line.rate)} if is_tokens else {"each_usd": _each(line.rate)}
    return {"unit": line.unit, "count": line.count, **price, "cost_usd": usd_text(line.cost_nanousd)}


def _each(rate: int) -> str:
    """Of one, in dollars: exact, beyond the nano-dollar where it has to be."""
    whole, rest = divmod(rate, NANO_PER_USD * UNITS_PER_PRICE)
    return f"{whole}.{rest:015d}".rstrip("0").rstrip(".")
