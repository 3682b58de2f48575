"""List prices: those of genai-prices, and what is missing there.

genai-prices reads neither tiers nor tool calls, and where it does not know a rate it silently takes
another. Here what is not known stays unknown: a tier without a price in force, or a model that bills what
its answers do not tell, has no price at all.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from app.core.money import UNITS_PER_PRICE, nanousd_from_usd
from app.metering.rates import Price, Rates

SOURCE = "genai-prices"
PER_THOUSAND = 1000
RATE_NAMES = {
    "input": ("input_mtok", UNITS_PER_PRICE),
    "output": ("output_mtok", UNITS_PER_PRICE),
    "cached": ("cache_read_mtok", UNITS_PER_PRICE),
    "cache_write": ("cache_write_mtok", UNITS_PER_PRICE),
    "input_audio": ("input_audio_mtok", UNITS_PER_PRICE),
    "cached_audio": ("cache_audio_read_mtok", UNITS_PER_PRICE),
    "output_audio": ("output_audio_mtok", UNITS_PER_PRICE),
    "input_image": ("input_image_mtok", UNITS_PER_PRICE),
    "cached_image": ("cache_image_read_mtok", UNITS_PER_PRICE),
    "output_image": ("output_image_mtok", UNITS_PER_PRICE),
    "web_search": ("web_searches_kcount", PER_THOUSAND),
    "file_search": ("storage_searches_kcount", PER_THOUSAND),
    "request": ("requests_kcount", PER_THOUSAND),
}
"""Our rates, and genai-prices' names and units for them. It has none of a twelve-hour cache write, a
preview search, a container or an image call."""

UNTOLD_NAMES = ("output_reasoning_mtok", "output_citation_mtok")
"""Rates of tokens that a chat answer of their providers does not tell apart: such a model is unpriced."""

SEARCH_MODELS = ("gpt-4o-search-preview", "gpt-4o-mini-search-preview", "gpt-5-search-api")
"""They search the web for every chat request and bill it as a tool call, which their answers do not count."""

# OpenAI's list prices that genai-prices 0.2.3 lacks (https://developers.openai.com/api/docs/pricing and the
# models' own pages), in US dollars per million tokens: input and output audio. The first snapshot of
# gpt-4o-audio-preview (2024-10-01) cost more, and how much is not certain: it stays without.
AUDIO_USD = {
    "gpt-4o-audio-preview": ("40", "80"),
    "gpt-4o-audio-preview-2024-12-17": ("40", "80"),
    "gpt-4o-audio-preview-2025-06-03": ("40", "80"),
    "gpt-4o-mini-audio-preview": ("10", "20"),
    "gpt-4o-mini-audio-preview-2024-12-17": ("10", "20"),
}
# A preview version of web search is $25 per 1,000 calls with models that do not reason (the same page: "Web
# search preview, non-reasoning models"), and what any other version is, $10, with those that do.
PREVIEW_SEARCH_NANOUSD = nanousd_from_usd(25) * (UNITS_PER_PRICE // PER_THOUSAND)
NO_REASONING = ("gpt-4o", "gpt-4.1", "gpt-4.5", "chatgpt-4o")
# These models draw and do nothing else: what the list calls their output is images, unless it has both.
DRAWING = "gpt-image-"
# Missing here on purpose. Containers: $0.03 for 20 minutes of the smallest, but since 2026-06-02 by the
# minute, which no answer tells. Calls of image_generation: billed in tokens of an image model that the
# answer does not name. Cache writes kept for twelve hours: no rate is published. The file can set them.


def listed_price(info: ModelInfo, name: str, tier: str, at: datetime, *, version: str, openai: bool) -> Price | None:
    """The list price of ``info``, asked for as ``name``, in force at ``at``; None: unpriced.

    ``tier`` is "" for the standard one; ``version`` is genai-prices'; ``openai``: the model is OpenAI's own.
    """
    context = {("processing" if tier == "batch" else "service_tier"): tier} if tier else None
    if context is not None and not _has_variant(info, context, at):
        # genai-prices would give the standard price: for a tier it does not know, and before the day from
        # which it knows it.
        return None
    found = info.get_prices(at, context)
    if any(getattr(found, untold, None) is not None for untold in UNTOLD_NAMES):
        return None
    name = name.lower()
    if openai and name.rsplit("/", 1)[-1].startswith(SEARCH_MODELS):
        return None
    rates = _rates(found, 0, name, openai=openai)
    if rates.input is None and rates.output is None and not rates.request:
        return None
    starts = sorted(
        {tiered.start for value in vars(found).values() if isinstance(value, TieredPrices) for tiered in value.tiers}
    )
    return Price.made(
        SOURCE,
        f"{version} {info.id}" + (f" {tier}" if tier else ""),
        rates,
        tuple((start, _rates(found, start + 1, name, openai=openai)) for start in starts),
    )


def is_tiered(info: ModelInfo) -> bool:
    """Whether the list tells the model's price by service tier."""
    return any(variant.when.get("service_tier", "default") != "default" for variant in info.price_variants or ())


def _has_variant(info: ModelInfo, context: dict[str, str], at: datetime) -> bool:
    return any(
        variant.when == context and (variant.constraint is None or variant.constraint.active(at))
        for variant in info.price_variants or ()
    )


def _rates(found: ModelPrice, input_tokens: int, name: str, *, openai: bool) -> Rates:
    told: dict[str, int] = {}
    for rate, (key, units) in RATE_NAMES.items():
        value = getattr(found, key, None)
        if isinstance(value, TieredPrices):
            base = value.base
            for tiered in value.tiers:
                if input_tokens > tiered.start:
                    base = tiered.price
            value = base
        if value is not None:
            # The rates are nano-dollars per million units, whatever count the list price is for.
            told[rate] = int((value * 1_000_000_000 * UNITS_PER_PRICE / units).to_integral_value())
    rates = Rates(**told)
    return _supplemented(rates, name.rsplit("/", 1)[-1]) if openai else rates


def _supplemented(rates: Rates, name: str) -> Rates:
    """``rates`` of a model of OpenAI's, and what the list does not have of it."""
    added: dict[str, int | None] = {}
    if name in AUDIO_USD and rates.input_audio is None:
        added["input_audio"], added["output_audio"] = map(nanousd_from_usd, AUDIO_USD[name])
    if rates.web_search is not None:
        added["preview_search"] = PREVIEW_SEARCH_NANOUSD if name.startswith(NO_REASONING) else rates.web_search
    if name.startswith(DRAWING) and rates.output_image is None:
        added["output_image"] = rates.output
    return msgspec.structs.replace(rates, **added) if added else rates
