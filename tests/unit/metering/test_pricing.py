"""Prices: overrides, then the list, then unpriced; one rounding, up."""

from datetime import date
from decimal import Decimal

import pytest

from app.core.usage import Usage
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
    audio = book().price("openai", "gpt-4o-audio-preview", None, NOW_MS)
    assert audio.cost_nanousd(Usage(input_tokens=10)) == 10 * 2500
    assert audio.cost_nanousd(Usage(input_tokens=10, input_audio_tokens=5)) is None


def test_search_calls_cost():
    price = book().price("openai", "gpt-4.1", None, NOW_MS)
    assert price.cost_nanousd(Usage(web_searches=3)) == 30_000_000


def test_the_latest_override_in_force_wins_over_the_list():
    prices = book(
        PriceOverride(model="gpt-4*", input_per_mtok_usd=Decimal(1), output_per_mtok_usd=Decimal(1)),
        PriceOverride(
            model="gpt-4.1",
            input_per_mtok_usd=Decimal(3),
            output_per_mtok_usd=Decimal(3),
            effective_from=date(2026, 1, 1),
        ),
        PriceOverride(
            model="gpt-4.1",
            input_per_mtok_usd=Decimal(9),
            output_per_mtok_usd=Decimal(9),
            effective_from=date(2099, 1, 1),
        ),
    )
    price = prices.price("openai", "gpt-4.1", None, NOW_MS)
    assert (price.source, usd_per_mtok(price)[0]) == ("override", 3)
    assert usd_per_mtok(prices.price("openai", "gpt-4.1-mini", None, NOW_MS))[0] == 1


def test_the_answers_model_has_the_price_unless_an_override_names_the_asked_one():
    prices = book(PriceOverride(model="qwen3", input_per_mtok_usd=Decimal(1), output_per_mtok_usd=Decimal(1)))
    assert usd_per_mtok(prices.price("gpu", "qwen3", None, NOW_MS, served="Qwen/Qwen3-8B"))[0] == 1
    assert usd_per_mtok(prices.price("openai", "gpt-4.1-mini", None, NOW_MS, served="gpt-4.1"))[0] == 2
    assert usd_per_mtok(prices.price("openai", "gpt-4.1", None, NOW_MS, served="gpt-99-imaginary"))[0] == 2


def test_an_override_can_be_for_one_upstream():
    prices = book(
        PriceOverride(model="gpt-4.1", upstream="gpu", input_per_mtok_usd=Decimal(0), output_per_mtok_usd=Decimal(0))
    )
    assert usd_per_mtok(prices.price("gpu", "gpt-4.1", None, NOW_MS))[0] == 0
    assert usd_per_mtok(prices.price("openai", "gpt-4.1", None, NOW_MS))[0] == 2


def test_another_provider_is_known_by_its_address():
    assert usd_per_mtok(book().price("or", "openai/gpt-oss-20b", None, NOW_MS))[0] == 0.03


def test_junk_names_do_not_pile_up():
    prices = book()
    for number in range(10_000):
        prices.price("openai", f"junk-{number}", None, NOW_MS)
    assert len(prices._compiled) <= 4096
    assert len(prices._infos) <= 4096
