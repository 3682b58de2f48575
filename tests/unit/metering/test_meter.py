"""What closes a request: a charge where usage is known, else an estimate between its least and its most."""

import json

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.records import Attempt
from app.core.usage import Usage
from app.metering.estimates import Estimates
from app.settings import PriceOverride
from tests.unit.metering.metered import NOW_MS, answered, metered, streamed, usage

DELTA = {"type": "response.output_text.delta", "delta": "words and more words "}


def created(**told):
    return {"type": "response.created", "response": {"id": "resp_1", "usage": None, **told}}


def test_a_charge_carries_units_price_and_tier():
    told = {"id": "resp_1", "model": "gpt-4.1", "status": "completed", "service_tier": "default", "usage": usage()}
    entry = answered(metered(), told)
    assert (entry.kind, entry.usage, entry.service_tier) == (
        "charge",
        Usage(input_tokens=100, output_tokens=10),
        "default",
    )
    assert (entry.cost_nanousd, entry.price_source) == (280_000, "genai-prices")
    assert entry.price_version.startswith("0.2.3 gpt-4.1 ")
    assert (entry.cost_lower_nanousd, entry.cost_upper_nanousd) == (None, None)


def test_usage_that_was_told_on_the_way_is_the_least_and_not_the_bill():
    chunk = {
        "id": "c",
        "choices": [{"delta": {"content": "hi"}}],
        "usage": {"prompt_tokens": 90, "completion_tokens": 7},
    }
    entry = streamed(metered("chat", stream=True), chunk, outcome="disconnected")
    assert entry.kind == "estimate"
    assert entry.usage.input_tokens >= 90
    assert entry.cost_lower_nanousd == 90 * 500 + 7 * 8000


def test_what_was_not_seen_is_charged_at_the_bound():
    meter = metered(max_output_tokens=50)
    bound = meter.attempt.bound
    entry = meter.close(NOW_MS, "interrupted").entries[-1]
    assert (entry.kind, entry.usage.output_tokens) == ("estimate", 50)
    assert entry.cost_lower_nanousd <= entry.cost_nanousd <= entry.cost_upper_nanousd
    assert entry.cost_upper_nanousd == bound.cost_upper_nanousd


def test_a_running_call_tells_what_it_has_cost_at_least():
    meter = metered(stream=True)
    body_bytes = meter.ask.body_bytes
    assert meter.at_least() == (0, body_bytes // 64 * 500)
    for event in (created(), *[DELTA] * 8):
        meter.reading.see_event(json.dumps(event).encode())
    tokens = 8 * len(DELTA["delta"]) // 16
    assert meter.at_least() == (tokens, body_bytes // 64 * 500 + tokens * 8000)
    assert meter.at_least()[1] <= meter.close(NOW_MS, "interrupted").entries[-1].cost_nanousd


def test_a_running_call_without_a_price_has_cost_nothing_that_is_known():
    assert metered(model="gpt-99-imaginary", stream=True).at_least() == (0, 0)


def test_a_void_costs_nothing():
    entry = metered().close(NOW_MS, "failed", void=True).entries[-1]
    assert (entry.kind, entry.cost_nanousd, entry.usage) == ("void", 0, Usage())


def test_an_estimate_is_priced_at_the_tier_asked_for_until_the_answer_names_one():
    asked = metered(model="gpt-5", service_tier="priority", max_output_tokens=10, stream=True)
    silent = asked.close(NOW_MS, "interrupted").entries[-1]
    assert (silent.service_tier, silent.price_version.split()[2]) == ("priority", "priority")
    told = streamed(
        metered(model="gpt-5", service_tier="priority", max_output_tokens=10, stream=True),
        created(service_tier="default"),
        outcome="disconnected",
    )
    assert told.service_tier == "default"
    assert told.cost_nanousd * 2 == silent.cost_nanousd
    echoed = streamed(metered(model="gpt-5", stream=True), created(service_tier="auto"), outcome="disconnected")
    assert echoed.service_tier is None


def test_input_of_an_estimate_counts_as_written_to_the_cache_where_that_is_dearer():
    entry = metered(model="gpt-5.6", max_output_tokens=1).close(NOW_MS, "interrupted").entries[-1]
    assert entry.usage.cache_write_tokens == entry.usage.input_tokens
    assert entry.cost_nanousd == entry.usage.input_tokens * 5000 + 20_000
    least = metered(model="gpt-5.6", max_output_tokens=1).attempt.bound.input_tokens_lower
    assert entry.cost_lower_nanousd == least * 400


def test_an_estimate_that_may_hold_what_has_no_price_is_priced_by_its_tokens_if_nothing_such_was_seen():
    tools = [{"type": "code_interpreter", "container": {"type": "auto"}}]
    meter = metered(tools=tools, stream=True)
    assert meter.attempt.bound.cost_upper_nanousd is None
    entry = streamed(meter, created(), DELTA, outcome="disconnected")
    assert entry.cost_nanousd is not None
    ran = {"type": "response.output_item.done", "item": {"type": "code_interpreter_call", "container_id": "c"}}
    entry = streamed(metered(tools=tools, stream=True), created(), ran, outcome="disconnected")
    assert (entry.cost_nanousd, entry.usage.code_sessions) == (None, 1)


def test_each_call_of_a_tool_reads_what_the_one_before_it_found():
    search = {"type": "response.output_item.done", "item": {"type": "web_search_call"}}
    tools = [{"type": "web_search"}]
    likely = [
        streamed(metered(tools=tools, stream=True), created(), *[search] * calls, outcome="disconnected")
        for calls in range(3)
    ]
    tokens = [entry.usage.input_tokens for entry in likely]
    assert tokens[1] > 8000 > tokens[0]
    assert tokens[2] > 3 * 8000
    bounded = metered(tools=tools, stream=True, max_tool_calls=0)
    entry = streamed(bounded, created(), search, search, outcome="disconnected")
    assert entry.usage.input_tokens <= bounded.attempt.bound.input_tokens_upper


def test_a_file_may_be_as_long_as_the_window():
    file = [{"role": "user", "content": [{"type": "input_file", "file_url": "https://e.org/a.pdf"}]}]
    meter = metered(input=file, stream=True)
    entry = streamed(meter, created(), DELTA, outcome="disconnected")
    assert entry.usage.input_tokens == meter.attempt.bound.input_tokens_upper > 1_000_000


def test_stored_turns_are_a_window_for_each_time_that_the_model_reads_them():
    tools = [{"type": "web_search"}]
    asking = {"tools": tools, "previous_response_id": "resp_0", "stream": True, "max_tool_calls": 3}
    search = {"type": "response.output_item.done", "item": {"type": "web_search_call"}}
    none = streamed(metered(**asking), created(), DELTA, outcome="disconnected")
    one = streamed(metered(**asking), created(), search, outcome="disconnected")
    window = metered(**asking).attempt.bound.input_tokens_upper // 4
    assert none.usage.input_tokens == window
    assert one.usage.input_tokens == 2 * window + 8000


def test_a_fallback_is_priced_where_it_went():
    rows = (PriceOverride(model="qwen3", input_per_mtok_usd=1, output_per_mtok_usd=1),)
    meter = metered(rows=rows)
    meter.retry(Attempt(2, "gpu", "qwen3", meter.attempt.bound))
    meter.body_seen = meter.reading.finished = True
    meter.reading.see_json(b'{"status":"completed","usage":{"input_tokens":5,"output_tokens":5}}')
    record = meter.close(NOW_MS, "completed")
    assert [(entry.kind, entry.upstream, entry.cost_nanousd) for entry in record.entries] == [
        ("void", "openai", 0),
        ("charge", "gpu", 10_000),
    ]


def test_only_a_charge_teaches_the_estimates():
    estimates = Estimates()
    ask = metered().ask
    before = estimates.input_tokens("k", "gpt-4.1", ask)
    streamed(metered(estimates=estimates, stream=True), created(), DELTA, outcome="disconnected")
    assert estimates.input_tokens("k", "gpt-4.1", ask) == before
    answered(metered(estimates=estimates), {"status": "completed", "usage": usage()})
    assert estimates.input_tokens("k", "gpt-4.1", ask) != before


events = st.lists(
    st.sampled_from(
        (
            created(),
            created(service_tier="priority", model="gpt-5"),
            created(service_tier="flex"),
            DELTA,
            {"type": "response.reasoning_summary_text.delta", "delta": "hm"},
            {"type": "response.output_item.added", "item": {"type": "reasoning"}},
            {"type": "response.output_item.added", "item": {"type": "web_search_call"}},
            {"type": "response.output_item.done", "item": {"type": "web_search_call"}},
            {"type": "response.output_item.done", "item": {"type": "file_search_call"}},
            {"type": "response.completed", "response": {"status": "completed", "usage": None, "output": []}},
            {"type": "error", "code": "overloaded"},
        )
    ),
    max_size=8,
)
bodies = st.fixed_dictionaries(
    {"input": st.text(max_size=300)},
    optional={
        "max_output_tokens": st.integers(1, 3000),
        "max_tool_calls": st.integers(0, 3),
        "tools": st.just([{"type": "web_search"}, {"type": "file_search"}]),
        "service_tier": st.sampled_from(("auto", "priority", "flex")),
        "previous_response_id": st.just("resp_0"),
        "reasoning": st.just({"effort": "low"}),
    },
)


@given(bodies, events, st.sampled_from(("gpt-4.1", "gpt-5", "gpt-5.4", "gpt-5.6", "sim-mini", "qwen3")))
@settings(max_examples=300, deadline=None)
def test_an_estimate_lies_between_its_least_and_its_most_and_is_what_its_units_cost(body, seen, model):
    rows = (PriceOverride(model="qwen3", input_per_mtok_usd=1, output_per_mtok_usd=2, web_search_usd="0.01"),)
    meter = metered(model=model, rows=rows, stream=True, **body)
    entry = streamed(meter, *seen, outcome="disconnected")
    assert entry.kind == "estimate"
    if entry.cost_nanousd is None:
        assert (entry.cost_lower_nanousd, entry.cost_upper_nanousd) == (None, None)
        return
    assert 0 <= entry.cost_lower_nanousd <= entry.cost_nanousd <= entry.cost_upper_nanousd
    found = meter._prices.recorded(
        entry.price_source,
        entry.price_version,
        "openai",
        model,
        entry.service_tier,
        NOW_MS,
        served=meter.reading.model,
    )
    assert found.cost_nanousd(entry.usage) == entry.cost_nanousd
    assert msgspec.json.decode(msgspec.json.encode(entry), type=type(entry)) == entry
