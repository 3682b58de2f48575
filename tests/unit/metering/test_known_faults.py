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
    before = meter._estimates.input_tokens("k", "gpt-4.1", meter.ask)
    answered(meter, {"status": "completed", "usage": usage(2**60, 10)})
    assert meter._estimates.input_tokens("k", "gpt-4.1", meter.ask) == before


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


BUDGETED = (BudgetWindow("limit_1", 0),)


def chunk(content=None, *, index=0, finish=None, **more):
    return {"id": "c", "choices": [{"index": index, "delta": {"content": content}, "finish_reason": finish}], **more}


@pytest.mark.parametrize("empty", [0, None])
def test_zeros_under_the_other_api_s_names_make_a_chat_free(empty):
    told = {
        "prompt_tokens": 3,
        "completion_tokens": 793,
        "total_tokens": 796,
        "input_tokens": empty,
        "output_tokens": empty,
        "input_tokens_details": None,
    }
    entry = answered(metered("chat"), {"usage": told})
    assert (entry.kind, entry.cost_nanousd) == ("charge", 3 * 2000 + 793 * 8000)


def test_zeros_under_the_chat_names_make_a_response_free():
    entry = answered(metered(), {"status": "completed", "usage": {**usage(), "prompt_tokens": 0, "total_tokens": 0}})
    assert (entry.kind, entry.cost_nanousd) == ("charge", 100 * 2000 + 10 * 8000)


def test_of_two_usages_that_disagree_one_is_believed():
    meter = metered("chat")
    entry = answered(meter, {"usage": {**usage(), "prompt_tokens": 7, "completion_tokens": 10}})
    assert (entry.kind, meter.reading.suspect) == ("estimate", True)
    half = {**usage(), "prompt_tokens": 100}
    assert answered(metered("chat"), {"usage": half}).cost_nanousd == 100 * 2000 + 10 * 8000
    same = {**usage(cached_tokens=60), "prompt_tokens": 100, "completion_tokens": 10}
    assert answered(metered("chat"), {"usage": same}).cost_nanousd == 40 * 2000 + 60 * 500 + 10 * 8000


@pytest.mark.parametrize("reasoning", [{}, {"completion_tokens_details": {"reasoning_tokens": 382}}])
def test_reasoning_that_stands_in_the_total_only_is_free(reasoning):
    told = {"prompt_tokens": 20, "completion_tokens": 151, "total_tokens": 553, **reasoning}
    entry = answered(metered("chat"), {"usage": told})
    assert (entry.kind, entry.cost_nanousd) == ("charge", 20 * 2000 + 533 * 8000)


def test_a_total_that_is_too_low_lowers_the_bill():
    assert answered(metered("chat"), {"usage": {**usage(), "total_tokens": 5}}).usage.output_tokens == 10


def test_a_client_that_leaves_a_tier_without_a_price_spends_nothing_of_its_budget():
    meter = metered("chat", stream=True, budgets=BUDGETED, max_tokens=1000)
    entry = streamed(meter, chunk("hi", service_tier="scale"), outcome="disconnected")
    assert (entry.kind, entry.cost_nanousd) == ("estimate", meter.attempt.bound.cost_upper_nanousd)
    assert entry.cost_nanousd > 0
    free = metered("chat", stream=True, max_tokens=1000)
    assert streamed(free, chunk("hi", service_tier="scale"), outcome="disconnected").cost_nanousd is None


@pytest.mark.parametrize(
    "end",
    [
        ended("failed", usage=None, error={"code": "server_error"}),
        {"type": "error", "code": "server_error", "message": "…"},
    ],
)
def test_a_failed_stream_of_a_reasoning_model_is_taken_for_a_whole_answer(end):
    meter = metered(model="gpt-5", stream=True)
    created = {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5", "usage": None}}
    entry = streamed(meter, created, end, outcome="failed")
    assert (entry.kind, entry.usage.output_tokens) == ("estimate", meter.attempt.bound.output_tokens_upper)


def test_usage_told_on_the_way_to_an_error_is_the_bill():
    told = {"prompt_tokens": 90, "completion_tokens": 7, "total_tokens": 97}
    entry = streamed(
        metered("chat", stream=True), chunk("hi", usage=told), {"error": {"code": "overloaded"}}, outcome="failed"
    )
    assert (entry.kind, entry.cost_lower_nanousd) == ("estimate", 90 * 500 + 7 * 8000)


def test_the_end_of_the_first_of_several_answers_is_the_end_of_all():
    meter = metered("chat", model="gpt-5", stream=True, n=2)
    entry = streamed(meter, chunk("one", finish="stop"), chunk("two", index=1), outcome="failed")
    assert (entry.kind, entry.usage.output_tokens) == ("estimate", meter.attempt.bound.output_tokens_upper)
    meter = metered("chat", model="gpt-5", stream=True, n=2)
    ends = chunk("one", finish="stop"), chunk("two", index=1, finish="stop")
    assert streamed(meter, *ends).usage.output_tokens == 3 + 2048 + 3 * 4


def test_a_stream_that_is_not_asked_for_its_usage_passes_a_budget_by_what_it_thinks():
    meter = metered("chat", model="gpt-5", stream=True, budgets=BUDGETED)
    entry = streamed(meter, chunk("42", finish="stop"), b"[DONE]")
    assert (entry.kind, entry.usage.output_tokens) == ("estimate", meter.attempt.bound.output_tokens_upper)
    plain = metered("chat", stream=True, budgets=BUDGETED)
    assert streamed(plain, chunk("42", finish="stop"), b"[DONE]").usage.output_tokens == 1


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning": "x" * 4000},
        {"reasoning_content": "x" * 4000, "reasoning": "x" * 4000},
        {"audio": {"data": "x" * 4000}},
        {"function_call": {"arguments": "x" * 4000}},
        {"tool_calls": [{"function": {"arguments": "x" * 4000}}]},
    ],
)
def test_output_that_is_not_in_the_content_is_not_seen(delta):
    event = {"id": "c", "choices": [{"index": 0, "delta": delta}]}
    entry = streamed(metered("chat", stream=True), event, outcome="disconnected")
    assert 2256 <= entry.usage.output_tokens <= 2300


def test_members_of_a_delta_that_are_null_are_billed():
    event = {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": None, "audio": None, "function_call": None}}]}
    entry = streamed(metered("chat", stream=True), *[event] * 50, outcome="disconnected")
    assert entry.usage.output_tokens == 256


@pytest.mark.parametrize(
    ("model", "tokens"),
    [("gpt-5-pro", 272_000), ("gpt-5", 128_000), ("gpt-4-32k", 32_768), ("gpt-4", 8192), ("gpt-3.5-turbo-16k", 16_384)],
)
def test_a_larger_model_has_the_maximum_of_its_smaller_sister(model, tokens):
    assert PriceBook((), URLS).output_tokens_max(model) == tokens


def test_a_tuned_model_that_thinks_is_taken_for_one_that_does_not():
    meter = metered(model="ft:o4-mini:org::id", stream=True, max_output_tokens=900)
    entry = streamed(meter, {"type": "response.output_text.delta", "delta": "hi"}, outcome="disconnected")
    assert entry.usage.output_tokens == 900
