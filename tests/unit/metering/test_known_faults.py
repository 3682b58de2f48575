"""Faults of other gateways' bills, each as a test: named for what went wrong there."""

import msgspec
import pytest

from app.core.records import BudgetWindow
from app.core.usage import Usage
from app.metering.pricing import PriceBook
from app.settings import PriceOverride
from tests.unit.metering.metered import NOW_MS, URLS, answered, metered, streamed, usage

CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-4.1", "usage": None}}


def ended(kind, **response):
    return {"type": f"response.{kind}", "response": {"id": "resp_1", "status": kind, **response}}


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed", "cancelled"])
def test_usage_is_only_taken_from_completed(kind):
    """A response that ran into its maximum, or failed half way, costs as much as any."""
    streaming = streamed(metered(stream=True), CREATED, ended(kind, usage=usage()))
    whole = answered(metered(), {"id": "resp_1", "status": kind, "usage": usage()})
    for entry in (streaming, whole):
        assert (entry.kind, entry.cost_nanousd) == ("charge", 100 * 2000 + 10 * 8000)


def test_the_requested_tier_is_billed_and_not_the_served_one():
    told = {"model": "gpt-5", "status": "completed", "usage": usage()}
    asked_dear = answered(metered(model="gpt-5", service_tier="priority"), {**told, "service_tier": "default"})
    asked_cheap = answered(metered(model="gpt-5", service_tier="flex"), {**told, "service_tier": "priority"})
    assert (asked_dear.cost_nanousd, asked_dear.service_tier) == (100 * 1250 + 10 * 10_000, "default")
    assert (asked_cheap.cost_nanousd, asked_cheap.service_tier) == (100 * 2500 + 10 * 20_000, "priority")


def test_auto_that_was_served_as_priority_is_billed_as_auto():
    told = {"model": "gpt-5", "status": "completed", "usage": usage(), "service_tier": "priority"}
    assert answered(metered(model="gpt-5", service_tier="auto"), told).cost_nanousd == 100 * 2500 + 10 * 20_000


def test_the_requested_model_is_billed_and_not_the_served_one():
    told = {"model": "gpt-4.1-mini-2025-04-14", "status": "completed", "usage": usage()}
    assert answered(metered(), told).cost_nanousd == 100 * 400 + 10 * 1600


def test_an_unknown_tier_is_billed_at_the_standard_price():
    told = {"model": "gpt-5", "status": "completed", "usage": usage(), "service_tier": "ultrafast"}
    assert answered(metered(model="gpt-5"), told).cost_nanousd is None


def test_cache_writes_are_dropped():
    told = {"model": "gpt-5.6", "status": "completed", "usage": usage(cache_write_tokens=100)}
    entry = answered(metered(model="gpt-5.6"), told)
    assert (entry.usage.cache_write_tokens, entry.cost_nanousd) == (100, 100 * 5000 + 10 * 20_000)


def test_cached_tokens_are_billed_in_full_or_twice():
    told = {"model": "gpt-4.1", "status": "completed", "usage": usage(cached_tokens=60)}
    assert answered(metered(), told).cost_nanousd == 40 * 2000 + 60 * 500 + 10 * 8000


def test_reasoning_is_billed_on_top_of_the_output_it_is_in():
    told = {"model": "o3", "status": "completed", "usage": usage(reasoning_tokens=8)}
    assert answered(metered(model="o3"), told).cost_nanousd == 100 * 2000 + 10 * 8000


def test_predictions_are_billed_on_top_of_the_output_they_are_in():
    details = {"accepted_prediction_tokens": 3, "rejected_prediction_tokens": 4}
    told = {"prompt_tokens": 100, "completion_tokens": 10, "completion_tokens_details": details}
    entry = answered(metered("chat"), {"model": "gpt-4.1", "choices": [{"finish_reason": "stop"}], "usage": told})
    assert entry.cost_nanousd == 100 * 2000 + 10 * 8000


def test_an_unknown_model_is_free():
    entry = answered(metered(model="gpt-99-imaginary"), {"status": "completed", "usage": usage()})
    assert (entry.kind, entry.cost_nanousd, entry.price_source) == ("charge", None, None)
    assert entry.usage == Usage(input_tokens=100, output_tokens=10)


def test_missing_usage_is_a_full_refund():
    entry = streamed(metered(stream=True), CREATED, ended("completed", usage=None))
    assert entry.kind == "estimate"
    assert entry.cost_nanousd > 0
    assert streamed(metered(stream=True), CREATED, outcome="disconnected").cost_nanousd > 256 * 8000
    unseen = streamed(metered(stream=True), outcome="disconnected")
    assert unseen.usage.output_tokens == 32_768


def test_explicit_zero_usage_is_taken_for_missing():
    entry = answered(metered(), {"status": "completed", "usage": usage(0, 0)})
    assert (entry.kind, entry.cost_nanousd, entry.usage) == ("charge", 0, Usage())


@pytest.mark.parametrize(
    "absurd",
    [
        usage(-1, 10),
        usage(100, 2**53),
        usage(100.0, 10),
        usage("100", 10),
        usage(100, 10, cached_tokens=101),
        usage(100, 10, cache_write_tokens=60, cached_tokens=60),
        usage(100, 10, audio_tokens=60, image_tokens=60),
        usage(100, 10, cache_write_tokens_details={"ttl_12h_tokens": 1}),
        usage(100, 10, reasoning_tokens=11),
    ],
)
def test_absurd_usage_is_billed(absurd):
    """It is as if nothing had been said, kept as it was said, and marked."""
    meter = metered()
    meter.body_seen = True
    entry = answered(meter, {"status": "completed", "usage": absurd})
    assert entry.kind == "estimate"
    record = meter.close(NOW_MS, "completed")
    assert record.suspect
    assert record.usage_raw is not None


def test_absurd_usage_teaches_the_estimates():
    meter = metered()
    before = meter._estimates.input_tokens("k", "gpt-4.1", 1000)
    answered(meter, {"status": "completed", "usage": usage(2**60, 10)})
    assert meter._estimates.input_tokens("k", "gpt-4.1", 1000) == before


def test_long_contexts_are_billed_at_the_short_rate():
    told = {"model": "gpt-5.4", "status": "completed"}
    short = answered(metered(model="gpt-5.4"), {**told, "usage": usage(272_000, 10)})
    long = answered(metered(model="gpt-5.4"), {**told, "usage": usage(272_001, 10)})
    assert short.cost_nanousd == 272_000 * 2500 + 10 * 15_000
    assert long.cost_nanousd == 272_001 * 5000 + 10 * 22_500


def test_audio_is_billed_at_the_price_of_text():
    """gpt-4o-audio-preview: audio is 16 times as dear in, 8 times out."""
    told = {
        "prompt_tokens": 100,
        "prompt_tokens_details": {"audio_tokens": 90},
        "completion_tokens": 50,
        "completion_tokens_details": {"audio_tokens": 40},
    }
    answer = {"model": "gpt-4o-audio-preview", "choices": [{"finish_reason": "stop"}], "usage": told}
    entry = answered(metered("chat", "gpt-4o-audio-preview"), answer)
    assert entry.cost_nanousd == 10 * 2500 + 90 * 40_000 + 10 * 10_000 + 40 * 80_000
    text_model = PriceBook((), URLS).price("openai", "gpt-4.1", None, NOW_MS)
    assert text_model.cost_nanousd(Usage(input_tokens=100, input_audio_tokens=90)) is None


def test_calls_of_tools_are_free():
    items = [
        {"type": "web_search_call", "action": {"type": "search"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"type": "file_search_call"},
    ]
    told = {"model": "gpt-4.1", "status": "completed", "usage": usage(), "output": items}
    entry = answered(metered(tools=[{"type": "web_search"}]), told)
    tokens = 100 * 2000 + 10 * 8000
    assert entry.cost_nanousd == tokens + 10_000_000 + 2_500_000
    preview = answered(metered(), {**told, "tools": [{"type": "web_search_preview"}]})
    assert preview.cost_nanousd == tokens + 25_000_000 + 2_500_000


@pytest.mark.parametrize(
    ("item", "bucket"),
    [
        ({"type": "code_interpreter_call", "container_id": "cntr_1"}, "code_sessions"),
        ({"type": "shell_call", "environment": {"type": "container_reference", "container_id": "c"}}, "code_sessions"),
        ({"type": "image_generation_call", "result": "…"}, "image_calls"),
    ],
)
def test_calls_without_a_list_price_are_free(item, bucket):
    told = {"model": "gpt-4.1", "status": "completed", "usage": usage(), "output": [item]}
    entry = answered(metered(), told)
    assert (getattr(entry.usage, bucket), entry.cost_nanousd) == (1, None)
    row = PriceOverride(model="*", code_session_usd="0.03", image_call_usd="0.03")
    assert answered(metered(rows=(row,)), told).cost_nanousd == 100 * 2000 + 10 * 8000 + 30_000_000


def test_calls_that_only_the_answer_counts_are_free():
    told = {"model": "gpt-4.1", "status": "completed", "usage": usage()}
    searched = {"web_search": {"num_requests": 3}, "image_gen": {"input_tokens": 0, "output_tokens": 0}}
    assert answered(metered(), {**told, "tool_usage": searched}).cost_nanousd == 280_000 + 30_000_000
    drew = {"image_gen": {"input_tokens": 5, "output_tokens": 900}}
    assert answered(metered(), {**told, "tool_usage": drew}).cost_nanousd is None
    unheard_of = {"telepathy": {"minutes": 2}}
    entry = answered(metered(), {**told, "tool_usage": unheard_of})
    assert (entry.cost_nanousd, entry.usage.unknown_units) == (None, 1)


def test_a_search_of_a_stream_that_was_cut_is_free():
    item = {"type": "web_search_call", "action": {"type": "search"}}
    done = {"type": "response.output_item.done", "item": item}
    begun = {"type": "response.output_item.added", "item": {"type": "web_search_call", "status": "in_progress"}}
    entry = streamed(metered(stream=True, tools=[{"type": "web_search"}]), CREATED, begun, done, begun)
    assert (entry.kind, entry.usage.web_searches) == ("estimate", 2)
    assert entry.cost_lower_nanousd >= 10_000_000
    assert entry.cost_nanousd >= 20_000_000


def test_a_poll_or_a_second_terminal_event_is_billed_again():
    first = ended("completed", usage=usage())
    entry = streamed(metered(stream=True), CREATED, first, first)
    assert entry.cost_nanousd == 280_000


def test_pricing_again_charges_again():
    """It depends on the usage and on what the record holds, and on nothing that it did before."""
    prices = PriceBook((PriceOverride(model="x", input_per_mtok_usd=1, output_per_mtok_usd=2),), URLS)
    used = Usage(input_tokens=7, output_tokens=3)
    again = [prices.price_again(used, "gpu", "x", None, NOW_MS, served="x-large") for _ in range(3)]
    assert [each.cost_nanousd for each in again] == [13_000] * 3
    unknown = prices.price_again(used, "gpu", "y", None, NOW_MS)
    assert (unknown.cost_nanousd, unknown.price_source, unknown.price_version) == (None, None, None)


def test_an_answer_without_a_price_leaves_a_budget_untouched():
    """Where a budget of money binds it costs what was held for it; elsewhere it is unpriced."""
    told = {"model": "gpt-5", "status": "completed", "usage": usage(), "service_tier": "ultrafast"}
    meter = metered(model="gpt-5")
    meter.opening = msgspec.structs.replace(meter.opening, budgets=(BudgetWindow("budget_1", 0),))
    entry = answered(meter, told)
    assert entry.kind == "estimate"
    assert entry.cost_nanousd == entry.cost_upper_nanousd == meter.attempt.bound.cost_upper_nanousd
    assert (entry.usage.input_tokens, entry.usage.output_tokens) == (100, 10)
    assert answered(metered(model="gpt-5"), told).cost_nanousd is None
