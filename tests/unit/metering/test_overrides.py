"""The file's prices: by date, tier, length and upstream, whole or added to the list's."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from pydantic import ValidationError

from app.core.usage import Usage
from app.metering.pricing import PriceBook
from app.settings import Configuration, PriceOverride

NOW_MS = 1_795_000_000_000
NEW_YEAR_MS = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
URLS = {"openai": "https://api.openai.com/v1", "gpu": "http://gpu-1:8000/v1"}
ONE_IN = Usage(input_tokens=1_000_000)
"""A million tokens: what they cost in nano-dollars is the rate."""


def row(model, usd_in=None, usd_out=None, **other):
    rates = {} if usd_in is None else {"input_per_mtok_usd": Decimal(str(usd_in))}
    if usd_out is not None or usd_in is not None:
        rates["output_per_mtok_usd"] = Decimal(str(usd_in if usd_out is None else usd_out))
    if isinstance(other.get("effective_from"), str):
        other["effective_from"] = date.fromisoformat(other["effective_from"])
    return PriceOverride(model=model, **rates, **other)


def book(*rows):
    return PriceBook(rows, URLS)


def usd_in(price):
    return None if price is None else price.cost_nanousd(ONE_IN) / 1e9


def test_the_latest_row_in_force_wins_over_the_list():
    prices = book(
        row("gpt-4*", 1),
        row("gpt-4.1", 3, effective_from="2026-01-01"),
        row("gpt-4.1", 9, effective_from="2099-01-01"),
    )
    price = prices.price("openai", "gpt-4.1", None, NOW_MS)
    assert (price.source, usd_in(price)) == ("override", 3)
    assert usd_in(prices.price("openai", "gpt-4.1-mini", None, NOW_MS)) == 1


def test_a_row_holds_from_the_midnight_of_its_day_in_utc_to_the_millisecond():
    prices = book(row("x", 1), row("x", 2, effective_from="2026-01-01"), row("x", 3, effective_from="2026-01-02"))
    at = {ms: usd_in(prices.price("gpu", "x", None, ms)) for ms in (0, NEW_YEAR_MS - 1, NEW_YEAR_MS)}
    assert at == {0: 1, NEW_YEAR_MS - 1: 1, NEW_YEAR_MS: 2}
    next_day = NEW_YEAR_MS + 86_400_000
    assert usd_in(prices.price("gpu", "x", None, next_day - 1)) == 2
    assert usd_in(prices.price("gpu", "x", None, next_day)) == 3


def test_before_its_day_a_row_leaves_the_list_price_or_none():
    prices = book(row("gpt-4.1", 7, effective_from="2026-01-01"), row("x", 7, effective_from="2026-01-01"))
    assert usd_in(prices.price("openai", "gpt-4.1", None, NEW_YEAR_MS - 1)) == 2
    assert prices.price("gpu", "x", None, NEW_YEAR_MS - 1) is None


def test_of_rows_from_one_day_the_first_in_the_file_wins():
    assert usd_in(book(row("gpt-4.1", 5), row("gpt-*", 6)).price("openai", "gpt-4.1", None, NOW_MS)) == 5
    assert usd_in(book(row("gpt-*", 6), row("gpt-4.1", 5)).price("openai", "gpt-4.1", None, NOW_MS)) == 6


def test_the_answers_model_has_the_price_unless_a_row_names_the_asked_one():
    prices = book(row("qwen3", 1))
    assert usd_in(prices.price("gpu", "qwen3", None, NOW_MS, served="Qwen/Qwen3-8B")) == 1
    assert usd_in(prices.price("openai", "gpt-4.1-mini", None, NOW_MS, served="gpt-4.1")) == 2
    assert usd_in(prices.price("openai", "gpt-4.1", None, NOW_MS, served="gpt-99-imaginary")) == 2


def test_a_row_can_be_for_one_upstream():
    prices = book(row("gpt-4.1", 0, upstream="gpu"))
    assert usd_in(prices.price("gpu", "gpt-4.1", None, NOW_MS)) == 0
    assert usd_in(prices.price("openai", "gpt-4.1", None, NOW_MS)) == 2


def test_a_row_without_a_tier_holds_for_every_tier_of_a_model_that_the_list_has_no_tiers_of():
    prices = book(row("qwen3", 1), row("gpt-4o-audio-preview", 2))
    for tier in (None, "default", "flex", "priority", "whatever"):
        assert usd_in(prices.price("gpu", "qwen3", tier, NOW_MS)) == 1
        assert usd_in(prices.price("openai", "gpt-4o-audio-preview", tier, NOW_MS)) == 2


def test_a_row_without_a_tier_is_no_way_to_priority_at_the_standard_price():
    prices = book(row("gpt-5", 1))
    assert usd_in(prices.price("openai", "gpt-5", "default", NOW_MS)) == 1
    assert usd_in(prices.price("openai", "gpt-5", "priority", NOW_MS)) == 2.5
    assert prices.price("openai", "gpt-5", "ultrafast", NOW_MS) is None


def test_a_row_of_the_tier_comes_before_a_later_one_of_none():
    prices = book(
        row("qwen3", 1, effective_from="2026-01-02"),
        row("qwen3", 3, tier="priority"),
        row("qwen3", 4, tier="default"),
        row("gpt-5", 5, tier="ultrafast"),
    )
    assert usd_in(prices.price("gpu", "qwen3", "priority", NOW_MS)) == 3
    assert usd_in(prices.price("gpu", "qwen3", "flex", NOW_MS)) == 1
    assert usd_in(prices.price("gpu", "qwen3", "auto", NOW_MS)) == 4
    assert usd_in(prices.price("openai", "gpt-5", "ultrafast", NOW_MS)) == 5
    assert usd_in(prices.price("openai", "gpt-5", None, NOW_MS)) == 1.25


def test_a_row_of_a_tier_that_is_not_in_force_yet_leaves_the_one_without():
    prices = book(row("qwen3", 1), row("qwen3", 3, tier="priority", effective_from="2026-01-01"))
    assert usd_in(prices.price("gpu", "qwen3", "priority", NEW_YEAR_MS - 1)) == 1
    assert usd_in(prices.price("gpu", "qwen3", "priority", NEW_YEAR_MS)) == 3


def test_every_bucket_can_be_priced():
    prices = book(
        row(
            "x",
            "1",
            "2",
            cached_per_mtok_usd="0.1",
            cache_write_per_mtok_usd="1.25",
            cache_write_12h_per_mtok_usd="1.5",
            input_audio_per_mtok_usd="10",
            cached_audio_per_mtok_usd="5",
            output_audio_per_mtok_usd="20",
            input_image_per_mtok_usd="7",
            cached_image_per_mtok_usd="3",
            output_image_per_mtok_usd="30",
            web_search_usd="0.01",
            preview_search_usd="0.025",
            file_search_usd="0.0025",
            code_session_usd="0.03",
            image_call_usd="0.04",
            request_usd="0.001",
        )
    )
    usage = Usage(
        input_tokens=100,
        cached_tokens=30,
        cached_audio_tokens=4,
        cached_image_tokens=6,
        cache_write_tokens=20,
        cache_write_12h_tokens=5,
        input_audio_tokens=10,
        input_image_tokens=12,
        output_tokens=50,
        output_audio_tokens=8,
        output_image_tokens=9,
        web_searches=3,
        preview_searches=1,
        file_searches=2,
        code_sessions=1,
        image_calls=2,
    )
    # Input: 30 cached (20 text, 4 audio, 6 images), 20 written, 6 audio, 6 images, and so 38 plain.
    tokens = 38 * 1000 + 20 * 100 + 15 * 1250 + 5 * 1500 + 6 * 10_000 + 4 * 5000 + 6 * 7000 + 6 * 3000
    tokens += 33 * 2000 + 8 * 20_000 + 9 * 30_000
    calls = 2 * 10_000_000 + 25_000_000 + 2 * 2_500_000 + 30_000_000 + 2 * 40_000_000 + 1_000_000
    assert prices.price("gpu", "x", None, NOW_MS).cost_nanousd(usage) == tokens + calls


def test_a_row_of_its_own_takes_nothing_from_the_list():
    price = book(row("gpt-4.1", 1)).price("openai", "gpt-4.1", None, NOW_MS)
    assert price.cost_nanousd(Usage(input_tokens=100, cached_tokens=50)) == 100 * 1000
    assert price.cost_nanousd(Usage(web_searches=1)) is None


def test_long_contexts_pay_their_rate_for_all_tokens_and_what_is_not_named_stays():
    level = {"above_input_tokens": 1000, "input_per_mtok_usd": 2}
    higher = {"above_input_tokens": 5000, "output_per_mtok_usd": 9}
    price = book(row("x", 1, 4, cached_per_mtok_usd="0.5", long_context=(level, higher))).price(
        "gpu", "x", None, NOW_MS
    )
    assert price.cost_nanousd(Usage(input_tokens=1000, output_tokens=10)) == 1000 * 1000 + 10 * 4000
    assert price.cost_nanousd(Usage(input_tokens=1001, output_tokens=10)) == 1001 * 2000 + 10 * 4000
    long = Usage(input_tokens=5001, cached_tokens=1, output_tokens=10)
    assert price.cost_nanousd(long) == 5000 * 2000 + 500 + 10 * 9000


def test_a_row_without_input_and_output_adds_to_the_price_that_holds():
    prices = book(row("*", code_session_usd="0.03"), row("qwen3", 1), row("gpt-4.1", web_search_usd="0.008"))
    flex = prices.price("openai", "gpt-5.4", "flex", NOW_MS)
    assert flex.cost_nanousd(Usage(code_sessions=2)) == 60_000_000
    assert flex.cost_nanousd(Usage(input_tokens=300_000, code_sessions=1)) == 300_000 * 2500 + 30_000_000
    assert flex.source == "genai-prices+override"
    own = prices.price("gpu", "qwen3", None, NOW_MS)
    assert (own.source, own.cost_nanousd(Usage(code_sessions=1))) == ("override", 30_000_000)
    assert prices.price("gpu", "unknown", None, NOW_MS) is None


def test_the_latest_row_that_adds_wins():
    prices = book(
        row("*", code_session_usd="0.03"),
        row("gpt-5", code_session_usd="0.01", effective_from="2026-01-01"),
        row("gpt-5", code_session_usd="0.05", tier="priority"),
    )
    cost = {
        tier: prices.price("openai", "gpt-5", tier, NOW_MS).cost_nanousd(Usage(code_sessions=1)) / 1e9
        for tier in (None, "flex", "priority")
    }
    assert cost == {None: 0.01, "flex": 0.01, "priority": 0.05}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"input_per_mtok_usd": 1}, "both input_per_mtok_usd and output_per_mtok_usd"),
        ({}, "expected a price"),
        ({"tier": "flex"}, "expected a price"),
        ({"cached_per_mtok_usd": 1}, "need input and output"),
        ({"input_per_mtok": 1, "output_per_mtok": 1}, "Extra inputs"),
        ({"web_searches_usd": 1}, "Extra inputs"),
        ({"code_session_usd": -1}, "greater than or equal to 0"),
        ({"code_session_usd": "0.0000000001"}, "decimal places"),
        ({"code_session_usd": True}, "Decimal input"),
        ({"code_session_usd": "nan"}, "finite number"),
        ({"code_session_usd": 1, "effective_from": "2026-01-01T12:00:00"}, "zero time"),
        ({"code_session_usd": 1, "tier": "Flex tier"}, "pattern"),
    ],
)
def test_a_wrong_row_is_refused(wrong, says):
    with pytest.raises(ValidationError) as caught:
        PriceOverride.model_validate({"model": "x", **wrong})
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("levels", "says"),
    [
        ([{"above_input_tokens": 0}], "greater than 0"),
        ([{"above_input_tokens": 9}, {"above_input_tokens": 9}], "rising above_input_tokens"),
        ([{"above_input_tokens": 9, "input_per_mtok_usd": "0.5"}], "do not fall"),
        (
            [
                {"above_input_tokens": 9, "input_per_mtok_usd": 3},
                {"above_input_tokens": 99, "input_per_mtok_usd": 2},
            ],
            "do not fall",
        ),
        ([{"input_per_mtok_usd": 2}], "Field required"),
    ],
)
def test_wrong_lengths_are_refused(levels, says):
    with pytest.raises(ValidationError) as caught:
        PriceOverride(model="x", input_per_mtok_usd=1, output_per_mtok_usd=1, long_context=levels)
    assert says in str(caught.value)


def test_two_prices_of_one_model_from_one_day_on_are_a_fault():
    def faults(*rows):
        return [text for _, text in Configuration(prices=rows).faults()]

    assert faults(row("x", 1), row("x", 2)) == ["there are two prices of 'x' from the same day on"]
    assert faults(row("x", 1, tier="auto"), row("x", 2, tier="default")) != []
    assert faults(row("x", 1), row("x", 2, tier="flex"), row("x", 3, effective_from="2026-01-01")) == []
    assert faults(row("x", 1), row("x", code_session_usd=1)) == []
    assert faults(row("x", 1, upstream="nowhere")) == ["there is no upstream named 'nowhere'"]
