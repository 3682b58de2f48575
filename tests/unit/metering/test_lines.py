"""A cost told part by part adds up to what is charged, or is not told."""

from hypothesis import given, settings

from app.core.usage import Usage
from app.metering.lines import Line, lines_of
from app.metering.rates import Price, Rates
from tests.unit.metering.prices import parts, prices, usage_of_parts


def price(**rates: int) -> Price:
    return Price.made("override", "tests", Rates(**rates))


@settings(max_examples=300, deadline=None)
@given(prices(), parts())
def test_lines_add_up_to_the_cost_to_the_nano_dollar(priced, used):
    usage = usage_of_parts(used)
    lines = lines_of(priced, usage)
    cost = priced.cost_nanousd(usage)
    if cost is None:
        assert lines is None
    elif lines is not None:
        assert sum(line.cost_nanousd for line in lines) == cost
        assert all(line.count > 0 and line.rate > 0 for line in lines)


def test_what_texts_cost_is_told_in_the_buckets_that_are_billed():
    usage = Usage(input_tokens=24_644, cached_tokens=18_432, output_tokens=1204, reasoning_tokens=640, web_searches=1)
    priced = price(input=4 * 10**9, cached=4 * 10**8, output=20 * 10**9, web_search=10**13)
    assert lines_of(priced, usage) == (
        Line("input_tokens", 6212, 4 * 10**9, 24_848_000),
        Line("cached_tokens", 18_432, 4 * 10**8, 7_372_800),
        Line("output_tokens", 1204, 20 * 10**9, 24_080_000),
        Line("web_searches", 1, 10**13, 10_000_000),
    )


def test_the_one_rounding_falls_into_the_line_where_it_is_made():
    lines = lines_of(price(input=1, output=1), Usage(input_tokens=1, output_tokens=1))
    assert lines is not None
    assert [line.cost_nanousd for line in lines] == [1, 0]


def test_sound_and_images_are_not_told_part_by_part():
    usage = Usage(input_tokens=10, input_audio_tokens=4, output_tokens=3)
    priced = price(input=10**9, output=10**9, input_audio=9 * 10**9)
    assert priced.cost_nanousd(usage) is not None
    assert lines_of(priced, usage) is None


def test_what_has_no_price_has_no_lines():
    assert lines_of(price(input=10**9), Usage(input_tokens=1, output_tokens=1)) is None
