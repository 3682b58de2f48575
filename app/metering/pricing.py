"""The price book: the file's overrides, then genai-prices, then *unpriced*.

Prices are compiled into integers once per model, tier and hour and kept; a request only multiplies.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version

import msgspec
from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

from app.core.money import UNITS_PER_PRICE, nanousd_from_usd, round_up
from app.core.patterns import compile_pattern
from app.core.usage import Usage
from app.settings import PriceOverride

COMPILED_MAX = 4096
HOUR_MS = 3_600_000
STANDARD_TIERS = frozenset({"", "auto", "default", "standard"})
PER_THOUSAND = 1000
FALLBACK_PROVIDER = "openai"
"""Upstreams at other addresses usually pass OpenAI's models on, under OpenAI's names."""

# The largest answer a model can give, by the longest prefix that fits (OpenAI's model pages).
OUTPUT_TOKENS_MAX = {
    "gpt-3.5": 4096,
    "gpt-4": 8192,
    "gpt-4-turbo": 4096,
    "gpt-4o": 16_384,
    "gpt-4.1": 32_768,
    "gpt-4.5": 16_384,
    "chatgpt-4o": 16_384,
    "gpt-5": 128_000,
    "o1": 100_000,
    "o3": 100_000,
    "o4": 100_000,
    "sim-": 16_384,
}
OUTPUT_TOKENS_UNKNOWN = 131_072
CONTEXT_TOKENS_UNKNOWN = 1_050_000


class Rates(msgspec.Struct, frozen=True):
    """Nano-dollars per million units. None: the model has no such price."""

    input: int | None
    output: int | None
    cached: int | None = None
    cache_write: int | None = None
    input_audio: int | None = None
    output_audio: int | None = None
    web_search: int | None = None
    file_search: int | None = None
    request: int = 0


class Price(msgspec.Struct, frozen=True):
    """The price of a model at one tier. ``long`` holds (more than so many input tokens, rates), ascending."""

    rates: Rates
    source: str
    version: str
    long: tuple[tuple[int, Rates], ...] = ()

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates that a request of so many input tokens pays, for all of its tokens."""
        chosen = self.rates
        for start, rates in self.long:
            if input_tokens > start:
                chosen = rates
        return chosen

    def cost_nanousd(self, usage: Usage) -> int | None:
        """What ``usage`` costs, rounded up once; None where a bucket that was used has no price."""
        rates = self.rates_for(usage.input_tokens)
        total = rates.request
        plain_input = usage.input_tokens
        plain_output = usage.output_tokens
        # A bucket without a rate of its own is plain input: that is how providers bill it.
        if usage.cached_tokens and rates.cached is not None:
            plain_input -= usage.cached_tokens
            total += usage.cached_tokens * rates.cached
        if usage.cache_write_tokens and rates.cache_write is not None:
            plain_input -= usage.cache_write_tokens
            total += usage.cache_write_tokens * rates.cache_write
        if usage.input_audio_tokens:
            if rates.input_audio is None:
                return None
            plain_input -= usage.input_audio_tokens
            total += usage.input_audio_tokens * rates.input_audio
        if usage.output_audio_tokens:
            if rates.output_audio is None:
                return None
            plain_output -= usage.output_audio_tokens
            total += usage.output_audio_tokens * rates.output_audio
        for units, rate in (
            (max(plain_input, 0), rates.input),
            (max(plain_output, 0), rates.output),
            (usage.web_searches, rates.web_search),
            (usage.file_searches, rates.file_search),
        ):
            if not units:
                continue
            if rate is None:
                return None
            total += units * rate
        return round_up(total)


class PriceBook:
    """Finds prices. ``providers`` maps an upstream's name to its base URL ("" where it is unknown)."""

    def __init__(
        self,
        overrides: Sequence[PriceOverride],
        base_urls: dict[str, str],
        *,
        snapshot: DataSnapshot | None = None,
    ) -> None:
        self._overrides = [
            (compile_pattern(override.model), override)
            for override in sorted(overrides, key=lambda override: override.effective_from, reverse=True)
        ]
        self._snapshot = snapshot or get_snapshot()
        self._providers = {name: self._provider_of(url) for name, url in base_urls.items()}
        self._version = version("genai-prices")
        self._compiled: dict[tuple[str, str, str, str, int], Price | None] = {}
        self._infos: dict[tuple[str, str], ModelInfo | None] = {}

    def __repr__(self) -> str:
        return f"PriceBook(overrides={len(self._overrides)}, compiled={len(self._compiled)})"

    def price(
        self, upstream: str, model: str, tier: str | None, at_ms: int, *, served: str | None = None
    ) -> Price | None:
        """The price in force at ``at_ms``, or None: unpriced.

        ``served`` is the model that the answer names, as soon as there is one: it has the price, and
        ``model``, the name it was asked by, is looked up only where it has none. Overrides for either
        name come before list prices.
        """
        key = (
            upstream,
            model,
            served or "",
            "" if (tier or "") in STANDARD_TIERS else tier or "",
            at_ms // HOUR_MS,
        )
        try:
            return self._compiled[key]
        except KeyError:
            pass
        if len(self._compiled) >= COMPILED_MAX:
            self._compiled.clear()
        names = (served, model) if served and served != model else (model,)
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
        price = self._overriding(upstream, names, at) or self._listed(upstream, names, key[3], at)
        self._compiled[key] = price
        return price

    def output_tokens_max(self, model: str) -> int:
        """The most that one answer of ``model`` can hold."""
        return _output_tokens_max(model)

    def context_tokens_max(self, upstream: str, model: str) -> int:
        """The context window of ``model``, as far as it is known."""
        info = self._info(upstream, model)
        return (info.context_window if info is not None else None) or CONTEXT_TOKENS_UNKNOWN

    def _overriding(self, upstream: str, names: tuple[str, ...], at: datetime) -> Price | None:
        for name in names:
            for pattern, override in self._overrides:
                if (
                    override.effective_from <= at.date()
                    and override.upstream in {None, upstream}
                    and pattern.fullmatch(name) is not None
                ):
                    return _price_of_override(override)
        return None

    def _listed(self, upstream: str, names: tuple[str, ...], tier: str, at: datetime) -> Price | None:
        for name in names:
            if name.startswith("sim-"):
                return SIMULATOR_PRICES.get(name, SIMULATOR_PRICES["sim-mini"])
            info = self._info(upstream, name)
            if info is None:
                continue
            if tier and not any(variant.when.get("service_tier") == tier for variant in info.price_variants or ()):
                # genai-prices would silently give the standard price; a tier without a price is unpriced.
                return None
            found = info.get_prices(at, {"service_tier": tier} if tier else None)
            return _price_of_model(found, f"genai-prices {self._version}")
        return None

    def _info(self, upstream: str, model: str) -> ModelInfo | None:
        key = (upstream, model)
        try:
            return self._infos[key]
        except KeyError:
            pass
        if len(self._infos) >= COMPILED_MAX:
            self._infos.clear()
        provider = self._providers.get(upstream) or self._fallback
        info = self._infos[key] = provider.find_model(model.lower(), all_providers=self._snapshot.providers)
        return info

    @property
    def _fallback(self) -> Provider:
        return self._snapshot.find_provider(None, FALLBACK_PROVIDER, None)

    def _provider_of(self, base_url: str) -> Provider:
        try:
            return self._snapshot.find_provider(None, None, base_url)
        except LookupError:
            return self._fallback


@lru_cache(maxsize=COMPILED_MAX)
def _output_tokens_max(model: str) -> int:
    name = model.rsplit("/", 1)[-1].lower()
    fits = [prefix for prefix in OUTPUT_TOKENS_MAX if name.startswith(prefix)]
    return OUTPUT_TOKENS_MAX[max(fits, key=len)] if fits else OUTPUT_TOKENS_UNKNOWN


def _price_of_override(override: PriceOverride) -> Price:
    def rate(usd: Decimal | None) -> int | None:
        return None if usd is None else nanousd_from_usd(usd)

    return Price(
        rates=Rates(
            input=rate(override.input_per_mtok_usd),
            output=rate(override.output_per_mtok_usd),
            cached=rate(override.cached_per_mtok_usd),
            cache_write=rate(override.cache_write_per_mtok_usd),
        ),
        source="override",
        version=f"{override.model} from {override.effective_from.isoformat()}",
    )


def _price_of_model(found: ModelPrice, price_version: str) -> Price | None:
    starts = sorted(
        {tier.start for value in vars(found).values() if isinstance(value, TieredPrices) for tier in value.tiers}
    )
    rates = _rates(found, 0)
    if rates.input is None and rates.output is None and not rates.request:
        return None
    return Price(
        rates=rates,
        source="genai-prices",
        version=price_version,
        long=tuple((start, _rates(found, start + 1)) for start in starts),
    )


def _rates(found: ModelPrice, input_tokens: int) -> Rates:
    def rate(name: str, units: int = UNITS_PER_PRICE) -> int | None:
        value = getattr(found, name, None)
        if isinstance(value, TieredPrices):
            base = value.base
            for tier in value.tiers:
                if input_tokens > tier.start:
                    base = tier.price
            value = base
        if value is None:
            return None
        # The rates are nano-dollars per million units, whatever count the list price is for.
        return int((value * 1_000_000_000 * UNITS_PER_PRICE / units).to_integral_value())

    return Rates(
        input=rate("input_mtok"),
        output=rate("output_mtok"),
        cached=rate("cache_read_mtok"),
        cache_write=rate("cache_write_mtok"),
        input_audio=rate("input_audio_mtok"),
        output_audio=rate("output_audio_mtok"),
        web_search=rate("web_searches_kcount", PER_THOUSAND),
        file_search=rate("storage_searches_kcount", PER_THOUSAND),
        request=rate("requests_kcount", PER_THOUSAND) or 0,
    )


def _simulated(input_usd: str, cached_usd: str, output_usd: str) -> Price:
    return Price(
        rates=Rates(
            input=nanousd_from_usd(input_usd),
            cached=nanousd_from_usd(cached_usd),
            output=nanousd_from_usd(output_usd),
        ),
        source="simulator",
        version="1",
    )


SIMULATOR_PRICES = {
    "sim-large": _simulated("2.00", "0.50", "8.00"),
    "sim-mini": _simulated("0.40", "0.10", "1.60"),
    "sim-reasoning": _simulated("1.10", "0.275", "4.40"),
    "sim-embedding": _simulated("0.02", "0.02", "0"),
}
"""List prices of the simulator's own models, so that the first bill shows money."""
