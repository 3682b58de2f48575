"""Prices as the ledger asks for them: set ones in front of the file's, and what a past attempt costs by them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.metering.pricing import PriceBook
from app.settings import PriceOverride
from app.store.prices import SetPrice
from app.store.reprice import Found, PriceOf, Unpriced


def overrides_of(rows: Sequence[SetPrice], file: Sequence[PriceOverride]) -> tuple[PriceOverride, ...]:
    """The overrides in force: of two for one day, what was set comes before what the file says."""
    return (*(PriceOverride.model_validate(msgspec.json.decode(row.rates)) for row in rows), *file)


def price_of(prices: PriceBook) -> PriceOf:
    """What finds the price of an attempt that had none."""

    def find(asked: Unpriced) -> Found | None:
        priced = prices.price_again(
            asked.usage,
            asked.upstream,
            asked.model,
            asked.service_tier,
            asked.admitted_at_ms,
            served=asked.model_served,
        )
        if priced.cost_nanousd is None:
            return None
        return Found(priced.cost_nanousd, priced.price_source or "", priced.price_version or "")

    return find
