"""List prices: every bucket, tier and length has its own or none; one rounding, up."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import StartDateConstraint, TieredPrices, TimeOfDateConstraint

from app.core.usage import Usage
from app.metering.listed import RATE_NAMES, UNTOLD_NAMES
from app.metering.pricing import PriceBook
from app.settings import PriceOverride

NOW_MS = 1_795_000_000_000
URLS = {"openai": "https://api.openai.com/v1", "gpu": "http://gpu-1:8000/v1", "or": "https://openrouter.ai/api/v1"}


def book(*overrides: PriceOverride) -> PriceBook:
    return PriceBook(overrides, URLS)


def usd_per_mtok(price):
    return (
        None
        if price is None
        else tuple(None if r is None else r / 1e9 for r in (price.rates.input, price.rates.cached, price.rates.output))
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4.1", (2, 0.5, 8)),
        ("gpt-4o", (2.5, 1.25, 10)),
        ("gpt-4o-2024-08-06", (2.5, 1.25, 10)),
        ("o4-mini", (1.1, 0.275, 4.4)),
        ("gpt-5", (1.25, 0.125, 10)),
        ("gpt-5.4", (2.5, 0.25, 15)),
        ("gpt-5.6", (4, 0.4, 20)),
    ],
)
def test_list_prices_are_those_that_were_checked_by_hand(model, expected):
    assert usd_per_mtok(book().price("openai", model, None, NOW_MS)) == expected


def test_an_unknown_model_is_unpriced_and_never_free():
    assert book().price("openai", "gpt-99-imaginary", None, NOW_MS) is None
    assert book().price("gpu", "qwen3", None, NOW_MS) is None


def test_a_tier_has_its_own_price_and_an_unknown_tier_none():
    prices = book()
    standard = prices.price("openai", "gpt-5", "default", NOW_MS)
    assert usd_per_mtok(prices.price("openai", "gpt-5", "flex", NOW_MS)) == (0.625, 0.0625, 5)
    assert standard == prices.price("openai", "gpt-5", None, NOW_MS) == prices.price("openai", "gpt-5", "auto", NOW_MS)
    assert prices.price("openai", "gpt-5", "warp", NOW_MS) is None


def test_long_contexts_pay_their_rate_for_all_tokens():
    price = book().price("openai", "gpt-5.4", None, NOW_MS)
    assert price.cost_nanousd(Usage(input_tokens=272_000)) == 272_000 * 2500
    assert price.cost_nanousd(Usage(input_tokens=272_001)) == 272_001 * 5000


def test_cached_input_is_part_of_input_and_the_sum_is_rounded_up_once():
    price = book().price("openai", "gpt-4.1", None, NOW_MS)
    usage = Usage(input_tokens=1000, cached_tokens=400, output_tokens=7)
    assert price.cost_nanousd(usage) == 600 * 2000 + 400 * 500 + 7 * 8000
    third = book(PriceOverride(model="x", input_per_mtok_usd=Decimal("0.000333333"), output_per_mtok_usd=Decimal(0)))
    assert third.price("gpu", "x", None, NOW_MS).cost_nanousd(Usage(input_tokens=1)) == 1


def test_what_has_no_price_makes_the_whole_unpriced():
    text_only = book().price("openai", "gpt-4.1", None, NOW_MS)
    assert text_only.cost_nanousd(Usage(input_tokens=10)) == 10 * 2000
    for used in (
        {"input_tokens": 10, "input_audio_tokens": 5},
        {"output_tokens": 10, "output_audio_tokens": 5},
        {"output_tokens": 10, "output_image_tokens": 5},
        {"code_sessions": 1},
        {"image_calls": 1},
        {"unknown_units": 1},
    ):
        assert text_only.cost_nanousd(Usage(**used)) is None, used


def test_calls_of_tools_cost_what_the_version_of_the_tool_costs():
    price = book().price("openai", "gpt-4.1", None, NOW_MS)
    assert price.cost_nanousd(Usage(web_searches=3)) == 3 * 10_000_000
    assert price.cost_nanousd(Usage(web_searches=3, preview_searches=3)) == 3 * 25_000_000
    assert price.cost_nanousd(Usage(file_searches=2)) == 2 * 2_500_000
    reasoning = book().price("openai", "gpt-5", None, NOW_MS)
    assert reasoning.cost_nanousd(Usage(web_searches=1, preview_searches=1)) == 10_000_000


def test_a_model_whose_list_price_has_no_search_is_unpriced_when_it_searches():
    price = book().price("openai", "o1", None, NOW_MS)
    assert price.cost_nanousd(Usage(input_tokens=10)) is not None
    assert price.cost_nanousd(Usage(input_tokens=10, web_searches=1)) is None


@pytest.mark.parametrize(
    ("model", "rates"),
    [
        ("gpt-4o-audio-preview", (2500, 40_000, 10_000, 80_000)),
        ("gpt-4o-audio-preview-2025-06-03", (2500, 40_000, 10_000, 80_000)),
        ("gpt-4o-mini-audio-preview", (150, 10_000, 600, 20_000)),
        ("gpt-audio", (2500, 32_000, 10_000, 64_000)),
    ],
)
def test_audio_has_its_own_rate(model, rates):
    text_in, audio_in, text_out, audio_out = rates
    usage = Usage(input_tokens=10, input_audio_tokens=4, output_tokens=9, output_audio_tokens=2)
    expected = 6 * text_in + 4 * audio_in + 7 * text_out + 2 * audio_out
    assert book().price("openai", model, None, NOW_MS).cost_nanousd(usage) == expected


def test_a_snapshot_whose_audio_price_is_not_certain_has_none():
    price = book().price("openai", "gpt-4o-audio-preview-2024-10-01", None, NOW_MS)
    assert price.cost_nanousd(Usage(input_tokens=10, input_audio_tokens=4)) is None


def test_cached_audio_and_images_are_taken_out_of_both_wholes_once():
    price = book().price("openai", "gpt-realtime", None, NOW_MS)
    usage = Usage(
        input_tokens=100,
        cached_tokens=40,
        input_audio_tokens=30,
        cached_audio_tokens=10,
        input_image_tokens=20,
        cached_image_tokens=5,
    )
    # 100 = 25 plain text + 25 cached text + 20 audio + 10 cached audio + 15 images + 5 cached images
    expected = 25 * 4000 + 25 * 400 + 20 * 32_000 + 10 * 400 + 15 * 5000 + 5 * 500
    assert price.cost_nanousd(usage) == expected


def test_images_are_text_for_a_model_that_sees_and_not_for_one_that_draws():
    sees = book().price("openai", "gpt-4o", None, NOW_MS)
    assert sees.cost_nanousd(Usage(input_tokens=100, input_image_tokens=60)) == 100 * 2500
    cached = Usage(input_tokens=100, cached_tokens=50, input_image_tokens=60, cached_image_tokens=40)
    assert sees.cost_nanousd(cached) == 50 * 2500 + 50 * 1250
    draws = book().price("openai", "gpt-image-1", None, NOW_MS)
    usage = Usage(input_tokens=100, input_image_tokens=60, output_tokens=1000, output_image_tokens=1000)
    assert draws.cost_nanousd(usage) == 40 * 5000 + 60 * 10_000 + 1000 * 40_000


def test_cache_writes_are_dearer_than_input_and_those_kept_long_have_no_list_price():
    price = book().price("openai", "gpt-5.6", None, NOW_MS)
    assert price.cost_nanousd(Usage(input_tokens=100, cache_write_tokens=60)) == 40 * 4000 + 60 * 5000
    assert price.cost_nanousd(Usage(input_tokens=9, cache_write_tokens=9, cache_write_12h_tokens=1)) is None
    older = book().price("openai", "gpt-4.1", None, NOW_MS)
    assert older.cost_nanousd(Usage(input_tokens=9, cache_write_tokens=9, cache_write_12h_tokens=1)) == 9 * 2000


@pytest.mark.parametrize(
    "model", ["gpt-4o-search-preview", "gpt-4o-mini-search-preview-2025-03-11", "gpt-5-search-api"]
)
def test_a_model_that_bills_what_its_answers_do_not_tell_is_unpriced(model):
    assert book().price("openai", model, None, NOW_MS) is None


@pytest.mark.parametrize(
    ("tier", "rates"),
    [("priority", (2.5, 0.25, 20)), ("fast", (2.5, 0.25, 20)), ("batch", (0.625, 0.0625, 5)), ("scale", None)],
)
def test_each_tier_has_its_list_price_or_none(tier, rates):
    assert usd_per_mtok(book().price("openai", "gpt-5", tier, NOW_MS)) == rates


def test_a_tier_has_no_price_before_the_day_from_which_the_list_knows_it():
    from_ms = int(datetime(2026, 10, 12, tzinfo=UTC).timestamp() * 1000)
    prices = book()
    assert usd_per_mtok(prices.price("openai", "gpt-5", "flex", from_ms))[0] == 0.625
    assert prices.price("openai", "gpt-5", "flex", from_ms - 1) is None
    assert usd_per_mtok(prices.price("openai", "gpt-5", None, from_ms - 1))[0] == 1.25


def test_a_tier_of_a_model_that_has_none_is_unpriced():
    assert book().price("openai", "gpt-4o-audio-preview", "priority", NOW_MS) is None


def test_prices_by_the_time_of_day_change_to_the_millisecond():
    prices = PriceBook((), {"deepseek": "https://api.deepseek.com"})
    noon = datetime(2025, 6, 3, 16, 30, tzinfo=UTC)
    at_ms = int(noon.timestamp() * 1000)
    before = prices.price("deepseek", "deepseek-chat", None, at_ms - 1)
    after = prices.price("deepseek", "deepseek-chat", None, at_ms)
    assert before.rates.input > after.rates.input


def test_the_list_changes_its_prices_at_whole_quarters_of_an_hour_only():
    """What is compiled is kept for the quarter: a price that changed within one would be charged late."""
    for provider in get_snapshot().providers:
        for model in provider.models:
            conditional = model.prices if isinstance(model.prices, list) else []
            for constraint in (each.constraint for each in (*conditional, *(model.price_variants or ()))):
                if isinstance(constraint, TimeOfDateConstraint):
                    for at in (constraint.start_time, constraint.end_time):
                        assert (at.minute % 15, at.second, at.microsecond, at.utcoffset()) == (0, 0, 0, timedelta(0))
                else:
                    assert constraint is None or isinstance(constraint, StartDateConstraint)


def test_every_list_price_names_only_rates_that_are_known():
    """A new kind of rate in genai-prices must be read, or be known not to matter, before it is relied on."""
    told = {key for key, _ in RATE_NAMES.values()} | set(UNTOLD_NAMES)
    # Of what chat, Responses and embeddings never report, or of a cache that OpenAI's API has not.
    apart = {
        *("audio_hours", "input_audio_hours", "input_mchars", "input_video_mtok", "output_video_mtok"),
        *("input_document_kpages", "input_annotated_document_kpages", "input_text_messages_kcount"),
        "cache_write_1h_mtok",
    }
    for provider in get_snapshot().providers:
        for model in provider.models:
            prices = [each.prices for each in model.prices] if isinstance(model.prices, list) else [model.prices]
            prices += [variant.prices for variant in model.price_variants or ()]
            for price in prices:
                keys = {key for key, value in vars(price).items() if value is not None}
                assert keys <= told | apart, (provider.id, model.id)


def test_the_list_never_gets_cheaper_with_length():
    """Bounds are computed at the greatest length: what came before must not have cost more."""
    for provider in get_snapshot().providers:
        for model in provider.models:
            prices = [each.prices for each in model.prices] if isinstance(model.prices, list) else [model.prices]
            for price in prices:
                for value in vars(price).values():
                    if isinstance(value, TieredPrices):
                        steps = [value.base, *(tier.price for tier in value.tiers)]
                        assert steps == sorted(steps), (provider.id, model.id)


def test_another_provider_is_known_by_its_address():
    assert usd_per_mtok(book().price("or", "openai/gpt-oss-20b", None, NOW_MS))[0] == 0.03


def test_junk_names_do_not_pile_up():
    prices = book()
    for number in range(10_000):
        prices.price("openai", f"junk-{number}", None, NOW_MS)
    assert len(prices._compiled) <= 4096
    assert len(prices._infos) <= 4096
