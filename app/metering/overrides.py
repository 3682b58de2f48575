"""The configuration file's prices: which row holds for a model, a tier and an instant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal

import msgspec

from app.core.money import UNITS_PER_PRICE, nanousd_from_usd
from app.core.patterns import compile_pattern
from app.metering.rates import Price, Rates
from app.settings import PriceOverride

SOURCE = "override"
TOKEN_RATES = {
    "input": "input_per_mtok_usd",
    "output": "output_per_mtok_usd",
    "cached": "cached_per_mtok_usd",
    "cache_write": "cache_write_per_mtok_usd",
    "cache_write_12h": "cache_write_12h_per_mtok_usd",
    "input_audio": "input_audio_per_mtok_usd",
    "cached_audio": "cached_audio_per_mtok_usd",
    "output_audio": "output_audio_per_mtok_usd",
    "input_image": "input_image_per_mtok_usd",
    "cached_image": "cached_image_per_mtok_usd",
    "output_image": "output_image_per_mtok_usd",
}
CALL_RATES = {
    "web_search": "web_search_usd",
    "preview_search": "preview_search_usd",
    "file_search": "file_search_usd",
    "code_session": "code_session_usd",
    "image_call": "image_call_usd",
    "request": "request_usd",
}


class Row(msgspec.Struct, frozen=True):
    """A row of the file: in force from ``from_ms`` on. ``adds``: its price is what it adds to another."""

    pattern: re.Pattern[str]
    upstream: str | None
    tier: str | None
    from_ms: int
    adds: bool
    price: Price
    named: dict[str, int]
    label: str

    def holds(self, upstream: str, name: str, at_ms: int) -> bool:
        return self.from_ms <= at_ms and self.upstream in {None, upstream} and self.pattern.fullmatch(name) is not None


class Overrides:
    """The rows, the latest first; of one day, the first in the file first."""

    def __init__(self, overrides: Sequence[PriceOverride]) -> None:
        rows = [_row(override) for override in overrides]
        rows.sort(key=lambda row: row.from_ms, reverse=True)
        self._whole = [row for row in rows if not row.adds]
        self._adding = [row for row in rows if row.adds]

    def __repr__(self) -> str:
        return f"Overrides(whole={len(self._whole)}, adding={len(self._adding)})"

    def price(self, upstream: str, name: str, tier: str, at_ms: int, *, tiered: bool) -> Price | None:
        """The price that a row sets. ``tiered``: the list knows the model's tiers, so a row without one is for none."""
        row = _chosen(self._whole, upstream, name, tier, at_ms, tierless=not (tier and tiered))
        return None if row is None else row.price

    def added(self, price: Price, upstream: str, names: Sequence[str], tier: str, at_ms: int) -> Price:
        """``price``, with what a row adds to it."""
        for name in names:
            row = _chosen(self._adding, upstream, name, tier, at_ms, tierless=True)
            if row is not None:
                return Price.made(
                    price.source if price.source == SOURCE else f"{price.source}+{SOURCE}",
                    f"{price.version} + {row.label}",
                    msgspec.structs.replace(price.rates, **row.named),
                    tuple((start, msgspec.structs.replace(rates, **row.named)) for start, rates in price.long),
                )
        return price

    def whole(self) -> Iterator[Price]:
        """The prices of all rows that set one, also of those that are not in force."""
        return (row.price for row in self._whole)


def _chosen(rows: list[Row], upstream: str, name: str, tier: str, at_ms: int, *, tierless: bool) -> Row | None:
    """The latest row of the tier, else, where they count, the latest that names none."""
    general = None
    for row in rows:
        if row.tier == tier and row.holds(upstream, name, at_ms):
            return row
        if general is None and row.tier is None and tierless and row.holds(upstream, name, at_ms):
            general = row
    return general


def _row(override: PriceOverride) -> Row:
    named = _named(override, TOKEN_RATES, 1) | _named(override, CALL_RATES, UNITS_PER_PRICE)
    rates = Rates(**named)
    long = []
    for level in override.long_context:
        rates = msgspec.structs.replace(rates, **_named(level, TOKEN_RATES, 1))
        long.append((level.above_input_tokens, rates))
    label = f"{override.model} from {override.effective_from.isoformat()}"
    if override.service_tier is not None:
        label += f" {override.service_tier or 'default'}"
    midnight = datetime.combine(override.effective_from, time(), UTC)
    return Row(
        pattern=compile_pattern(override.model),
        upstream=override.upstream,
        tier=override.service_tier,
        from_ms=int(midnight.timestamp()) * 1000,
        adds=override.adds,
        price=Price.made(SOURCE, label, Rates(**named), tuple(long)),
        named=named,
        label=label,
    )


def _named(prices: object, names: dict[str, str], units: int) -> dict[str, int]:
    """The rates that are given, in nano-dollars per million units; ``units``: how many there are to a price."""
    usd: dict[str, Decimal | None] = {rate: getattr(prices, key) for rate, key in names.items()}
    return {rate: nanousd_from_usd(price) * units for rate, price in usd.items() if price is not None}
