"""Bounds: no answer that keeps to their assumptions costs more, and none is priced that may be unpriced."""

import json

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.core.codec import parse_object
from app.core.peek import PLAIN, Extent, peek
from app.metering.bounds import IMAGE_TOKENS_MAX, ask_of, bound_of
from app.metering.estimates import Ask, Estimates
from app.metering.pricing import PriceBook
from app.metering.rates import Price, Rates
from tests.unit.metering.prices import PARTS, prices, usage_of_parts

URLS = {"openai": "https://api.openai.com/v1"}
NOW_MS = 1_795_000_000_000
GPT_5_OUTPUT, GPT_5_WINDOW = 128_000, 400_000
EMPTY = dict.fromkeys(PARTS, 0)
TOOLS = {
    "web_search": ("searches",),
    "web_search_2025_08_26": ("searches",),
    "web_search_preview": ("previews",),
    "web_search_preview_2025_03_11": ("previews",),
    "file_search": ("files",),
    "code_interpreter": ("sessions",),
    "shell": ("sessions",),
    "image_generation": ("images",),
    "mcp": (),
    "tool_search": (),
}


def price_of(model, tier=None):
    return PriceBook((), URLS).price("openai", model, tier, NOW_MS)


def asked(family, **body):
    raw = json.dumps(body).encode()
    return ask_of(family, peek(family, parse_object(raw)), len(raw))


def bound(family, model="gpt-5", output_max=GPT_5_OUTPUT, window=GPT_5_WINDOW, **body):
    ask = asked(family, model=model, **body)
    price, *others = PriceBook((), URLS).possible_prices("openai", model, ask.service_tier, NOW_MS)
    return bound_of(ask, price, output_max, window, others=others)


extents = st.builds(
    Extent,
    images=st.integers(0, 3),
    unseen=st.booleans(),
    audio_input=st.booleans(),
    audio_output=st.booleans(),
    tools=st.lists(st.sampled_from(sorted(TOOLS)), max_size=3, unique=True).map(tuple),
    max_tool_calls=st.integers(0, 5),
    prediction_bytes=st.integers(0, 100),
    kept_12h=st.booleans(),
)
asks = st.builds(
    Ask,
    body_bytes=st.integers(0, 3000),
    output_tokens_max=st.none() | st.integers(1, 1000),
    follows_stored=st.booleans(),
    many=st.integers(1, 3),
    extent=extents | st.just(PLAIN),
    service_tier=st.sampled_from((None, "priority")),
    one_window=st.booleans(),
)


def split(draw, total, names):
    """``total`` units in parts with these names."""
    part = {}
    for name in names[:-1]:
        part[name] = draw(st.integers(0, total))
        total -= part[name]
    return {**part, names[-1]: total}


@given(st.data(), asks, prices(), st.none() | prices(), st.integers(1, 1000), st.integers(0, 8000))
@settings(max_examples=400)
def test_an_answer_within_the_assumptions_never_costs_more_than_the_bound(data, ask, price, other, output_max, window):
    others = () if other is None else (other,)
    found = bound_of(ask, price, output_max, window, others=others)
    extent = ask.extent
    inputs = ["plain_input", "cached_text", "written"]
    inputs += ["audio", "cached_audio"] * extent.audio_input + ["image", "cached_image"] * bool(extent.images)
    inputs += ["written_12h"] * extent.kept_12h
    outputs = ["plain_output"] + ["output_audio"] * extent.audio_output
    calls = [name for tool in extent.tools for name in TOOLS[tool]]
    used = {
        **EMPTY,
        **split(data.draw, data.draw(st.integers(0, found.input_tokens_upper)), inputs),
        **split(data.draw, data.draw(st.integers(0, found.output_tokens_upper)), outputs),
    }
    if calls:
        used |= split(data.draw, data.draw(st.integers(0, extent.max_tool_calls)), list(dict.fromkeys(calls)))
    usage = usage_of_parts(used)
    for each in (price, *others):
        cost = each.cost_nanousd(usage)
        if found.cost_upper_nanousd is not None:
            assert cost is not None, "an unpriced answer was let through"
            assert cost <= found.cost_upper_nanousd


@given(asks, prices(complete=True), prices(complete=True), st.integers(1, 1000), st.integers(0, 8000))
@settings(max_examples=200)
def test_the_bound_is_what_its_own_units_cost_by_its_own_price(ask, price, other, output_max, window):
    found = bound_of(ask, price, output_max, window, others=(other,))
    assume(found.cost_upper_nanousd is not None)
    used_by = next(each for each in (price, other) if each.version == found.price_version)
    assert used_by.cost_nanousd(found.usage_upper) == found.cost_upper_nanousd
    assert found.cost_lower_nanousd <= found.cost_upper_nanousd
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_a_request_of_text_is_bounded_by_its_bytes_and_its_longest_answer():
    body = {"input": "x" * 1000, "max_output_tokens": 500}
    found = bound("responses", **body)
    size = len(json.dumps({"model": "gpt-5", **body}))
    assert size < found.input_tokens_upper <= size + 64
    assert found.output_tokens_upper == 500
    assert found.cost_upper_nanousd == found.input_tokens_upper * 1250 + 500 * 10_000
    assert (found.unbounded, found.service_tier) == (None, None)


def test_the_least_input_is_no_more_than_the_most():
    """A body far beyond the window: the provider refuses it."""
    ask = asked("responses", model="gpt-5", input="x" * 2000)
    found = bound_of(ask, price_of("gpt-5"), 10, 20)
    assert found.input_tokens_lower == found.input_tokens_upper == 22
    assert found.cost_lower_nanousd <= found.cost_upper_nanousd


def test_without_a_maximum_the_answer_is_the_models_longest():
    found = bound("responses", input="hi")
    assert found.output_tokens_upper == GPT_5_OUTPUT
    # The figure of the documentation: a gpt-5 call without a maximum is bounded at about $1.28.
    assert 1.28e9 < found.cost_upper_nanousd < 1.29e9


def test_many_answers_are_as_many_times_the_output():
    assert bound("chat", messages=[], n=5, max_tokens=100).output_tokens_upper == 500


def test_a_body_is_never_more_than_the_window():
    assert bound("responses", input="x" * 900_000).input_tokens_upper == 440_000
    assert bound("responses", window=0, input="x" * 900_000).input_tokens_upper > 900_000
    many = bound("embeddings", "text-embedding-3-small", 0, 8192, input=["x" * 8000] * 100)
    assert many.input_tokens_upper > 800_000


@pytest.mark.parametrize(
    "body",
    [
        {"input": "hi", "previous_response_id": "resp_1"},
        {"input": "hi", "conversation": "conv_1"},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://e.org/a.pdf"}]}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
    ],
)
def test_input_that_is_not_in_the_body_is_the_whole_window(body):
    assert bound("responses", **body).input_tokens_upper == 440_000
    assert bound("responses", window=0, **body).input_tokens_upper > 1_050_000


@pytest.mark.parametrize(
    ("body", "images"),
    [
        ({"input": [{"content": [{"type": "input_image", "image_url": "https://e.org"}] * 2}]}, 2),
        ({"input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot"}}]}, 1),
    ],
)
def test_images_are_allowed_for(body, images):
    upper = bound("responses", **body).input_tokens_upper
    assert images * IMAGE_TOKENS_MAX < upper < images * IMAGE_TOKENS_MAX + 1000


def test_images_and_files_in_chat_are_allowed_for():
    image = {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}
    seen = bound("chat", messages=[{"role": "user", "content": [image, image]}], max_tokens=1)
    assert 2 * IMAGE_TOKENS_MAX < seen.input_tokens_upper < 2 * IMAGE_TOKENS_MAX + 1000
    file = {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}
    assert bound("chat", messages=[{"role": "user", "content": [file]}]).input_tokens_upper == 440_000


def test_a_tool_without_a_maximum_of_calls_is_unbounded_and_says_so():
    found = bound("responses", input="hi", tools=[{"type": "web_search"}])
    assert found.unbounded == "web_search without max_tool_calls"
    found = bound("responses", input="hi", tools=[{"type": "mcp", "server_url": "https://e.org"}])
    assert found.unbounded == "mcp without max_tool_calls"
    found = bound("chat", messages=[], web_search_options={})
    assert found.unbounded == "web_search without max_tool_calls"
    assert bound("responses", input="hi", prompt={"id": "pmpt_1"}).unbounded == "prompt"


def test_calls_are_bounded_as_calls_of_the_dearest_tool_and_read_the_window_each():
    tools = [{"type": "web_search"}, {"type": "file_search", "vector_store_ids": []}]
    found = bound("responses", input="hi", tools=tools, max_tool_calls=3, max_output_tokens=100)
    assert (found.unbounded, found.parts_upper.web_searches, found.input_tokens_upper) == (None, 3, 4 * 440_000)
    assert found.cost_upper_nanousd == 4 * 440_000 * 1250 + 100 * 10_000 + 3 * 10_000_000


def test_tools_of_the_client_cost_their_tokens_only():
    tools = [{"type": "function", "name": "f"}, {"type": "shell", "environment": {"type": "local"}}]
    found = bound("responses", input="hi", tools=tools)
    assert found.unbounded is None
    assert found.input_tokens_upper < 300


@pytest.mark.parametrize(
    "body",
    [
        {"input": "hi", "tools": [{"type": "code_interpreter", "container": {"type": "auto"}}], "max_tool_calls": 1},
        {"input": "hi", "tools": [{"type": "shell", "environment": {"type": "container_auto"}}], "max_tool_calls": 1},
        {"input": "hi", "tools": [{"type": "image_generation"}], "max_tool_calls": 1},
        {"input": "hi", "tools": [{"type": "a_tool_of_tomorrow"}], "max_tool_calls": 1},
        {"input": "hi", "service_tier": "scale"},
        {"input": [{"content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}]},
    ],
)
def test_what_may_be_unpriced_has_no_bound_in_money(body):
    assert bound("responses", **body).cost_upper_nanousd is None


def test_writing_to_the_cache_for_twelve_hours_has_no_bound_where_it_has_no_price():
    assert bound("responses", "gpt-5.6", input="hi").cost_upper_nanousd is not None
    kept = bound("responses", "gpt-5.6", input="hi", prompt_cache_options={"ttl": "12h"})
    assert kept.cost_upper_nanousd is None


def test_input_is_bounded_as_written_to_the_cache_where_that_is_dearer():
    found = bound("responses", "gpt-5.6", input="hi", max_output_tokens=10)
    assert found.parts_upper.cache_write_tokens == found.input_tokens_upper
    assert found.cost_upper_nanousd == found.input_tokens_upper * 5000 + 10 * 20_000


def test_audio_is_bounded_at_its_own_rate():
    audio = {"type": "input_audio", "input_audio": {"data": "A" * 1000, "format": "wav"}}
    found = bound(
        "chat",
        "gpt-4o-audio-preview",
        messages=[{"role": "user", "content": [audio]}],
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        max_completion_tokens=100,
    )
    assert found.cost_upper_nanousd == found.input_tokens_upper * 40_000 + 100 * 80_000


def test_a_predicted_output_is_billed_on_top():
    predicted = {"type": "content", "content": "x" * 1000}
    found = bound("chat", messages=[], max_completion_tokens=10, prediction=predicted)
    assert found.output_tokens_upper > 1010


@pytest.mark.parametrize(
    ("tier", "rate", "named"),
    [(None, 1250, None), ("auto", 1250, None), ("priority", 2500, "priority"), ("flex", 1250, None)],
)
def test_the_tier_is_the_dearer_of_the_one_asked_for_and_the_standard_one(tier, rate, named):
    """A cheaper tier may be served as the standard one; "auto" is taken for it."""
    asking = {} if tier is None else {"service_tier": tier}
    found = bound("responses", input="hi", max_output_tokens=1, **asking)
    assert found.cost_upper_nanousd == found.input_tokens_upper * rate + rate * 8
    assert found.service_tier == named


def test_without_a_price_there_is_no_cost_but_tokens():
    ask = asked("responses", model="x", input="hi")
    found = bound_of(ask, None, 10, 0)
    assert (found.cost_upper_nanousd, found.price_source, found.output_tokens_upper) == (None, None, 10)
    assert bound_of(ask, price_of("gpt-5"), 10, 0, others=(None,)).cost_upper_nanousd is None


def test_the_estimate_policy_holds_what_the_keys_requests_used_before():
    estimates, price = Estimates(), price_of("gpt-5")
    ask = asked("responses", model="gpt-5", input="x" * 3930)
    cold = estimates.likely_tokens("key", "gpt-5", ask)
    assert cold == (-(-ask.body_bytes // 2), 1024)
    for _ in range(60):
        estimates.learn("key", "gpt-5", ask, usage_of_parts(EMPTY | {"plain_input": 800, "plain_output": 50}))
    likely = estimates.likely_tokens("key", "gpt-5", ask)
    assert likely == (pytest.approx(800, abs=2), pytest.approx(50, abs=2))
    found = bound_of(ask, price, GPT_5_OUTPUT, GPT_5_WINDOW, policy="estimate", likely=likely)
    assert found.cost_upper_nanousd == likely[0] * 1250 + likely[1] * 10_000
    assert found.cost_upper_nanousd < bound_of(ask, price, GPT_5_OUTPUT, GPT_5_WINDOW).cost_upper_nanousd


def test_the_estimate_policy_keeps_to_the_requests_own_maximum_and_takes_one_call():
    estimates = Estimates()
    ask = asked("responses", model="gpt-5", input="hi", max_output_tokens=7, tools=[{"type": "web_search"}])
    likely = estimates.likely_tokens("key", "gpt-5", ask)
    found = bound_of(ask, price_of("gpt-5"), GPT_5_OUTPUT, GPT_5_WINDOW, policy="estimate", likely=likely)
    assert (found.output_tokens_upper, found.parts_upper.web_searches, found.unbounded) == (7, 1, None)


def test_the_estimate_policy_lets_nothing_through_that_is_unpriced():
    tools = [{"type": "code_interpreter", "container": {"type": "auto"}}]
    ask = asked("responses", model="gpt-5", input="hi", tools=tools)
    found = bound_of(ask, price_of("gpt-5"), 10, 0, policy="estimate", likely=(10, 10))
    assert found.cost_upper_nanousd is None


def test_a_price_without_a_rate_for_input_bounds_nothing():
    price = Price.made("test", "x", Rates(cached=1, output=1))
    assert bound_of(asked("responses", model="x", input="hi"), price, 10, 0).cost_upper_nanousd is None
