"""What holds for every price and every usage: whole, never falling, rounded once, the same again."""

import json
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.usage import Usage
from app.metering.pricing import PriceBook
from app.metering.rates import Price
from app.settings import PriceOverride
from tests.unit.metering.prices import PARTS, parts, prices, usage_of_parts

URLS = {"openai": "https://api.openai.com/v1", "gpu": "http://gpu-1:8000/v1"}
NOW_MS = 1_795_000_000_000
LISTED = (
    "gpt-4.1",
    "gpt-4o",
    "gpt-5",
    "gpt-5.4",
    "gpt-5.6",
    "gpt-4o-audio-preview",
    "gpt-realtime",
    "gpt-image-1.5",
    "o3",
)


def rate_of(rates, name):
    """The rate that a unit pays by the rules in words, None: it has none."""
    plain = rates.input
    written = rates.cache_write is not None or rates.cache_write_12h is not None
    image = plain if rates.input_image is None else rates.input_image
    return {
        "plain_input": plain,
        "cached_text": plain if rates.cached is None else rates.cached,
        "audio": rates.input_audio,
        "cached_audio": None
        if rates.input_audio is None
        else rates.input_audio
        if rates.cached_audio is None
        else rates.cached_audio,
        "image": image,
        "cached_image": (plain if rates.cached is None else rates.cached)
        if rates.input_image is None
        else rates.input_image
        if rates.cached_image is None
        else rates.cached_image,
        "written": plain if rates.cache_write is None else rates.cache_write,
        "written_12h": rates.cache_write_12h if written else plain,
        "plain_output": rates.output,
        "output_audio": rates.output_audio,
        "output_image": rates.output_image,
        "searches": rates.web_search,
        "previews": rates.preview_search,
        "files": rates.file_search,
        "sessions": rates.code_session,
        "images": rates.image_call,
    }[name]


def cost_in_words(price: Price, part: dict[str, int]) -> int | None:
    rates = price.rates_for(usage_of_parts(part).input_tokens)
    total = Fraction(rates.request)
    for name, units in part.items():
        if not units:
            continue
        rate = rate_of(rates, name)
        if rate is None:
            return None
        total += units * rate
    return ceil(total / 1_000_000)


@given(prices(), parts())
@settings(max_examples=200)
def test_each_unit_pays_its_rate_once_and_the_sum_is_rounded_up_once(price, part):
    cost = price.cost_nanousd(usage_of_parts(part))
    assert cost == cost_in_words(price, part)
    assert cost is None or type(cost) is int


@given(prices(complete=True), parts(), st.sampled_from(PARTS), st.integers(1, 5000))
@settings(max_examples=150)
def test_more_of_anything_never_costs_less(price, part, name, more):
    cost = price.cost_nanousd(usage_of_parts(part))
    assert price.cost_nanousd(usage_of_parts({**part, name: part[name] + more})) >= cost


@given(prices(), parts(), st.sampled_from(PARTS), st.integers(1, 5000))
@settings(max_examples=100)
def test_what_is_unpriced_stays_so_with_more_of_anything(price, part, name, more):
    if price.cost_nanousd(usage_of_parts(part)) is None:
        assert price.cost_nanousd(usage_of_parts({**part, name: part[name] + more})) is None


@given(prices(), parts())
def test_units_that_nobody_knows_are_never_priced(price, part):
    usage = usage_of_parts(part).plus(Usage(unknown_units=1))
    assert price.cost_nanousd(usage) is None


@given(prices(), prices())
def test_a_version_stands_for_its_rates_and_no_others(one, other):
    again = Price.made(one.source, "generated", one.rates, one.long)
    assert again.version == one.version
    assert (one.version == other.version) == ((one.rates, one.long) == (other.rates, other.long))


overrides = st.lists(
    st.builds(
        lambda model, tier, day, usd, fee: PriceOverride(
            model=model,
            tier=tier,
            effective_from=date(2026, 11, 1) + timedelta(days=day),
            input_per_mtok_usd=None if fee else usd,
            output_per_mtok_usd=None if fee else usd * 3,
            code_session_usd=usd if fee else None,
        ),
        st.sampled_from(("x", "gpt-*", "*", "gpt-5")),
        st.sampled_from((None, "flex", "default")),
        st.integers(0, 30),
        st.decimals(min_value=Decimal(0), max_value=Decimal(50), places=9),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda row: (row.model, row.tier, row.effective_from, row.adds),
)


@given(
    overrides,
    st.sampled_from((*LISTED, "x", "nobody")),
    st.sampled_from((None, "default", "flex", "priority", "odd")),
    st.integers(NOW_MS - 30 * 86_400_000, NOW_MS + 30 * 86_400_000),
    parts(),
)
@settings(max_examples=150, deadline=None)
def test_a_stored_row_is_computed_again_bit_for_bit(rows, model, tier, at_ms, part):
    """Through JSON, as a row is stored, and by another process that knows the same file and list."""
    usage = usage_of_parts(part)
    done = PriceBook(rows, URLS).price_again(usage, "openai", model, tier, at_ms)
    stored = json.loads(json.dumps([done.cost_nanousd, done.price_source, done.price_version]))
    later = PriceBook(rows, URLS)
    assert later.price_again(usage, "openai", model, tier, at_ms) == done
    if done.cost_nanousd is not None:
        price = later.recorded(stored[1], stored[2], "openai", model, tier, at_ms)
        assert price.cost_nanousd(usage) == stored[0]
        assert len(stored[2]) <= 200
        assert len(stored[1]) <= 40


def test_a_row_that_a_later_one_hides_is_still_found_and_one_that_is_gone_is_not():
    old = PriceOverride(model="x", input_per_mtok_usd=Decimal(1), output_per_mtok_usd=Decimal(1))
    changed = PriceOverride(model="x", input_per_mtok_usd=Decimal(2), output_per_mtok_usd=Decimal(1))
    hiding = PriceOverride(
        model="*", input_per_mtok_usd=Decimal(5), output_per_mtok_usd=Decimal(5), effective_from=date(2026, 1, 1)
    )
    price = PriceBook((old,), URLS).price("gpu", "x", None, NOW_MS)
    found = PriceBook((old, hiding), URLS).recorded(price.source, price.version, "gpu", "x", None, NOW_MS)
    assert found == price
    assert PriceBook((changed,), URLS).recorded(price.source, price.version, "gpu", "x", None, NOW_MS) is None


def test_long_names_do_not_make_long_versions():
    row = PriceOverride(model="x" * 5000 + "*", input_per_mtok_usd=Decimal(1), output_per_mtok_usd=Decimal(1))
    added = PriceOverride(model="x" * 4000 + "*", code_session_usd=Decimal(1))
    price = PriceBook((row, added), URLS).price("gpu", "x" * 5000, None, NOW_MS)
    assert len(price.version) <= 200
    assert price.cost_nanousd(Usage(input_tokens=1, code_sessions=1)) == 1_000_001_000
