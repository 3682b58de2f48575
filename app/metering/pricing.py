"""The price book: the file's prices, then genai-prices and what it lacks, then *unpriced*.

Prices are compiled into integers once per model, tier and quarter of an hour and kept; a request only
multiplies.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version

import msgspec
from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import ModelInfo, Provider

from app.core.money import nanousd_from_usd
from app.core.usage import Usage
from app.metering.listed import is_tiered, listed_price
from app.metering.overrides import Overrides
from app.metering.rates import Price, Rates
from app.settings import PriceOverride
from app.settings.model import STANDARD_TIERS

__all__ = ["Price", "PriceBook", "Priced", "Rates"]

COMPILED_MAX = 4096
QUARTER_MS = 900_000
"""Prices change at instants that are whole quarters of an hour: the file's at midnight, the list's (which has
prices by the time of day) at whole or half hours. A test holds the list to it."""
FALLBACK_PROVIDER = "openai"
"""Upstreams at other addresses usually pass OpenAI's models on, under OpenAI's names."""

# The largest answer a model can give, by the longest prefix that fits (OpenAI's model pages).
OUTPUT_TOKENS_MAX = {
    "gpt-3.5": 4096,
    "gpt-3.5-turbo-16k": 16_384,
    "gpt-4": 8192,
    "gpt-4-32k": 32_768,
    "gpt-4-turbo": 4096,
    "gpt-4o": 16_384,
    "gpt-4.1": 32_768,
    "gpt-4.5": 16_384,
    "chatgpt-4o": 16_384,
    "gpt-5": 128_000,
    "gpt-5-pro": 272_000,
    "o1": 100_000,
    "o3": 100_000,
    "o4": 100_000,
    "sim-": 16_384,
}
OUTPUT_TOKENS_UNKNOWN = 131_072
CONTEXT_TOKENS_UNKNOWN = 1_050_000


class Priced(msgspec.Struct, frozen=True):
    """What a usage costs, and by which price. ``cost_nanousd`` None: unpriced."""

    cost_nanousd: int | None
    price_source: str | None
    price_version: str | None


class PriceBook:
    """Finds prices. ``base_urls`` maps an upstream's name to its base URL ("" where it is unknown)."""

    def __init__(
        self,
        overrides: Sequence[PriceOverride],
        base_urls: dict[str, str],
        *,
        snapshot: DataSnapshot | None = None,
    ) -> None:
        self._overrides = Overrides(overrides)
        self._snapshot = snapshot or get_snapshot()
        self._fallback = self._snapshot.find_provider(None, FALLBACK_PROVIDER, None)
        self._openai_models = frozenset(map(id, self._fallback.models))
        self._providers = {name: self._provider_of(url) for name, url in base_urls.items()}
        self._version = version("genai-prices")
        self._compiled: dict[tuple[str, str, str, str, int], Price | None] = {}
        self._rates: dict[
            tuple[str, str, str | None, int], tuple[Price | None, tuple[Price | None, ...], int, int]
        ] = {}
        self._infos: dict[tuple[str, str], ModelInfo | None] = {}

    def __repr__(self) -> str:
        return f"PriceBook(overrides={self._overrides!r}, compiled={len(self._compiled)})"

    def price(
        self, upstream: str, model: str, tier: str | None, at_ms: int, *, served: str | None = None
    ) -> Price | None:
        """The price in force at ``at_ms``, the instant of admission, or None: unpriced.

        ``tier`` is the service tier that the answer names (before there is an answer, the one asked for):
        "auto", "default", "standard", "" and None are the standard one, any other must have a price.
        ``served`` is the model that the answer names, as soon as there is one: it has the price, and
        ``model``, the name it was asked by, is looked up only where it has none. The file's rows for either
        name come before list prices.
        """
        key = (
            upstream,
            model,
            served or "",
            "" if tier is None or tier in STANDARD_TIERS else tier,
            at_ms // QUARTER_MS,
        )
        try:
            return self._compiled[key]
        except KeyError:
            pass
        if len(self._compiled) >= COMPILED_MAX:
            self._compiled.clear()
        names = (served, model) if served and served != model else (model,)
        price = self._overriding(upstream, names, key[3], at_ms) or self._listed(upstream, names, key[3], at_ms)
        if price is not None:
            price = self._overrides.added(price, upstream, names, key[3], at_ms)
        self._compiled[key] = price
        return price

    def possible_prices(self, upstream: str, model: str, tier: str | None, at_ms: int) -> tuple[Price | None, ...]:
        """The prices that the answer to a request for ``tier`` may come with: that of the tier first.

        A provider may serve any tier as the standard one. What "auto" (or nothing) asks for is set in the
        provider's project; it is taken to be the standard tier, which is what it is unless someone changed it.
        """
        price = self.price(upstream, model, tier, at_ms)
        if tier is None or tier in STANDARD_TIERS:
            return (price,)
        return (price, self.price(upstream, model, None, at_ms))

    def rates_of(
        self, upstream: str, model: str, tier: str | None, at_ms: int
    ) -> tuple[Price | None, tuple[Price | None, ...], int, int]:
        """All that a bound needs to know of a model: ``possible_prices`` (the first, the others), the most output and
        the context window. Found once for a quarter of an hour, since every request asks.
        """
        key = (upstream, model, tier, at_ms // QUARTER_MS)
        found = self._rates.get(key)
        if found is None:
            if len(self._rates) >= COMPILED_MAX:
                self._rates.clear()
            price, *others = self.possible_prices(upstream, model, tier, at_ms)
            context = self.context_tokens(upstream, model)
            found = self._rates[key] = price, tuple(others), self.output_tokens_max(model), context
        return found

    def price_again(
        self, usage: Usage, upstream: str, model: str, tier: str | None, at_ms: int, *, served: str | None = None
    ) -> Priced:
        """What an attempt costs by the prices that are known now.

        ``usage`` is all of the attempt's: the sum of its primary entry and its adjustments. The rest is
        what its record holds. Depends on nothing else, so doing it twice gives the same.
        """
        price = self.price(upstream, model, tier, at_ms, served=served)
        cost = None if price is None else price.cost_nanousd(usage)
        if price is None or cost is None:
            return Priced(None, None, None)
        return Priced(cost, price.source, price.version)

    def recorded(
        self,
        source: str,
        price_version: str,
        upstream: str,
        model: str,
        tier: str | None,
        at_ms: int,
        *,
        served: str | None = None,
    ) -> Price | None:
        """The price by which an entry was computed, from what the entry and its record hold.

        None where neither this version of the list nor the file has it any more. The file's rows are found
        whether or not they are in force or hidden by a later one.
        """
        price = self.price(upstream, model, tier, at_ms, served=served)
        for known in (price, *self._overrides.whole()):
            if known is not None and (known.source, known.version) == (source, price_version):
                return known
        return None

    def output_tokens_max(self, model: str) -> int:
        """The most that one answer of ``model`` can hold."""
        return _output_tokens_max(model)

    def context_tokens_max(self, upstream: str, model: str) -> int:
        """The context window of ``model``, as far as it is known."""
        return self.context_tokens(upstream, model) or CONTEXT_TOKENS_UNKNOWN

    def context_tokens(self, upstream: str, model: str) -> int:
        """The context window of ``model``; 0 where it is unknown."""
        info = self._info(upstream, model)
        return (info.context_window if info is not None else None) or 0

    def _overriding(self, upstream: str, names: tuple[str, ...], tier: str, at_ms: int) -> Price | None:
        for name in names:
            info = self._info(upstream, name) if tier else None
            price = self._overrides.price(upstream, name, tier, at_ms, tiered=info is not None and is_tiered(info))
            if price is not None:
                return price
        return None

    def _listed(self, upstream: str, names: tuple[str, ...], tier: str, at_ms: int) -> Price | None:
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
        for name in names:
            if name.startswith("sim-"):
                return SIMULATOR_PRICES.get(name, SIMULATOR_PRICES["sim-mini"])
            info = self._info(upstream, name)
            if info is not None:
                openai = id(info) in self._openai_models
                return listed_price(info, name, tier, at, version=self._version, openai=openai)
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


def _simulated(input_usd: str, cached_usd: str, output_usd: str) -> Price:
    rates = Rates(
        input=nanousd_from_usd(input_usd),
        cached=nanousd_from_usd(cached_usd),
        output=nanousd_from_usd(output_usd),
    )
    return Price.made("simulator", "1", rates)


SIMULATOR_PRICES = {
    "sim-large": _simulated("2.00", "0.50", "8.00"),
    "sim-mini": _simulated("0.40", "0.10", "1.60"),
    "sim-reasoning": _simulated("1.10", "0.275", "4.40"),
    "sim-embedding": _simulated("0.02", "0.02", "0"),
}
"""List prices of the simulator's own models, so that the first bill shows money."""
