from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from app.simulator.tokens import count_tokens
from tests.unit.simulator.shapes import check_events, check_response, kinds

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather somewhere",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    "strict": True,
}
TIME = {"type": "function", "name": "get_time", "parameters": {"type": "object", "properties": {}}, "strict": True}

MESSAGE_ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
REASONING_ORDER = [
    "response.output_item.added",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "response.reasoning_summary_part.done",
    "response.output_item.done",
]
CALL_ORDER = [
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]


async def test_a_response_has_every_member(caller):
    reply = await caller.respond(text="What is the capital of France?", metadata={"a": "b"}, user="u", max_tool_calls=3)
    assert reply.status == 200
    response = check_response(reply.json())
    assert response.output_text == "The capital of France is Paris."
    assert (response.status, response.service_tier, response.user, response.metadata) == (
        "completed",
        "default",
        "u",
        {"a": "b"},
    )
    assert response.output[0].content[0].annotations == []
    assert reply.json()["usage"] == {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 20,
    }


async def test_the_headers_are_like_the_providers(caller):
    headers = (await caller.respond()).headers
    assert headers["x-request-id"].startswith("req_")
    assert int(headers["openai-processing-ms"]) >= 0
    assert headers["openai-version"] == "2020-10-01"
    assert headers["content-type"] == "application/json"
    for kind in ("requests", "tokens"):
        assert int(headers[f"x-ratelimit-limit-{kind}"]) > int(headers[f"x-ratelimit-remaining-{kind}"])
        assert headers[f"x-ratelimit-reset-{kind}"].endswith("s")
    assert not {"set-cookie", "openai-organization", "alt-svc"} & set(headers)
    assert (await caller.respond(stream=True)).headers["content-type"] == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_the_version_prefix_is_optional(caller, prefix):
    reply = await caller.post(f"{prefix}/responses", {"model": "any-name", "input": "hi"})
    assert reply.json()["model"] == "any-name"


async def test_a_stream_has_the_recorded_order(caller):
    reply = await caller.respond(text="What is the capital of France?", stream=True)
    events = reply.events()
    check_events(events)
    assert kinds(events) == MESSAGE_ORDER
    assert "".join(event["delta"] for event in events if "delta" in event) == "The capital of France is Paris."
    assert events[0]["response"]["service_tier"] == "auto"
    assert events[0]["response"]["usage"] is None
    assert events[-1]["response"]["service_tier"] == "default"
    assert events[-1]["response"]["usage"]["output_tokens"] == 8
    assert not reply.body.rstrip().endswith(b"[DONE]")


async def test_each_event_is_one_write(caller):
    reply = await caller.respond(stream=True)
    assert reply.whole
    assert len(reply.chunks) == len(reply.events())
    for chunk, event in zip(reply.chunks, reply.events(), strict=True):
        lines = chunk.decode().split("\n")
        assert lines[0] == f"event: {event['type']}"
        assert json.loads(lines[1].removeprefix("data: ")) == event
        assert lines[2:] == ["", ""]


@pytest.mark.parametrize("model", ["o1", "o3-mini", "o4-mini", "gpt-5.1", "sim-reasoning"])
async def test_reasoning_models_reason(caller, model):
    reply = await caller.post("/v1/responses", {"model": model, "input": "2+2?", "stream": True})
    events = reply.events()
    check_events(events)
    assert kinds(events) == MESSAGE_ORDER[:2] + REASONING_ORDER + MESSAGE_ORDER[2:]
    usage = events[-1]["response"]["usage"]
    text_deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert usage["output_tokens_details"]["reasoning_tokens"] > 0
    assert usage["output_tokens"] == usage["output_tokens_details"]["reasoning_tokens"] + len(text_deltas)
    assert len(events[-1]["response"]["output"][0]["summary"]) == 1


async def test_reasoning_follows_its_settings(caller):
    plain = check_response((await caller.respond()).json())
    detailed = check_response((await caller.respond(reasoning={"effort": "high", "summary": "detailed"})).json())
    none = check_response((await caller.respond(model="gpt-5", reasoning={"effort": "none"})).json())
    low = check_response((await caller.respond(reasoning={"effort": "low"})).json())
    assert [item.type for item in plain.output] == [item.type for item in none.output] == ["message"]
    assert len(detailed.output[0].summary) == 2
    assert detailed.reasoning.effort == "high"
    thought = [response.usage.output_tokens_details.reasoning_tokens for response in (none, low, detailed)]
    assert thought == sorted(thought)
    assert len(set(thought)) == 3


async def test_encrypted_reasoning_is_sent_where_it_is_asked_for(caller):
    reply = await caller.respond(model="o3", include=["reasoning.encrypted_content"], stream=True)
    check_events(reply.events())
    assert reply.events()[-1]["response"]["output"][0]["encrypted_content"].startswith("gAAAAA")
    assert "encrypted_content" not in (await caller.respond(model="o3")).json()["output"][0]


@pytest.mark.parametrize(
    "asking",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "name": "get_weather"}},
        {
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "get_weather"}],
            }
        },
        {"text": "Use get_weather for Oslo"},
        {"text": "Please get weather for Oslo"},
        {"text": "How warm is it in Oslo? [[tool]]"},
    ],
)
async def test_functions_are_called_where_they_are_asked_for(caller, asking):
    reply = await caller.respond(**{"text": "How warm is it in Oslo?", "tools": [WEATHER], "stream": True} | asking)
    events = reply.events()
    check_events(events)
    assert kinds(events) == MESSAGE_ORDER[:2] + CALL_ORDER + MESSAGE_ORDER[-1:]
    call = events[-1]["response"]["output"][0]
    assert (call["name"], call["status"]) == ("get_weather", "completed")
    arguments = json.loads(call["arguments"])
    assert arguments["city"] == "Oslo"
    assert arguments["days"] >= 1
    assert count_tokens(call["arguments"]) == events[-1]["response"]["usage"]["output_tokens"]


@pytest.mark.parametrize(
    "asking", [{}, {"tool_choice": "none", "text": "get_weather"}, {"tool_choice": {"type": "web_search"}}]
)
async def test_functions_are_not_called_otherwise(caller, asking):
    reply = await caller.respond(**{"text": "How are you?", "tools": [WEATHER, {"type": "web_search"}]} | asking)
    assert [item["type"] for item in reply.json()["output"]] == ["message"]


async def test_functions_may_be_called_together(caller):
    asking = {"text": "Use get_weather and get_time", "tools": [WEATHER, TIME]}
    both = check_response((await caller.respond(**asking)).json())
    one = check_response((await caller.respond(**asking, parallel_tool_calls=False)).json())
    assert [item.name for item in both.output] == ["get_weather", "get_time"]
    assert len({item.call_id for item in both.output}) == 2
    assert [item.name for item in one.output] == ["get_weather"]


async def test_the_functions_answer_is_answered_in_words(client):
    first = await client.responses.create(model="sim-mini", input="get_weather in Oslo", tools=[WEATHER])
    call = first.output[0]
    second = await client.responses.create(
        model="sim-mini",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}],
        tools=[WEATHER],
    )
    assert "21 degrees" in second.output_text
    assert second.usage.input_tokens > first.usage.input_tokens


async def test_the_tools_and_text_settings_come_back(caller):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    text = {"format": {"type": "json_schema", "name": "A", "schema": schema, "strict": True}, "verbosity": "low"}
    reply = (await caller.respond(tools=[WEATHER, {"type": "web_search"}])).json()
    assert reply["tools"] == [WEATHER, {"type": "web_search"}]
    reply = (await caller.post("/v1/responses", {"model": "m", "input": "x", "text": text})).json()
    assert reply["text"]["verbosity"] == "low"
    assert reply["text"]["format"] == text["format"] | {"description": None}


class Event(BaseModel):
    name: str
    participants: list[str]
    year: int
    place: str | None


async def test_structured_output_is_of_its_schema(client):
    parsed = await client.responses.parse(model="sim-mini", input="Ada met Grace in Paris in 1950", text_format=Event)
    assert isinstance(parsed.output_parsed, Event)
    plain = await client.responses.create(model="sim-mini", input="Anything", text={"format": {"type": "json_object"}})
    assert isinstance(json.loads(plain.output_text), dict)


async def test_structured_output_streams(client):
    async with client.responses.stream(model="sim-mini", input="Ada met Grace", text_format=Event) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()
    assert isinstance(final.output_parsed, Event)


async def test_a_refusal_is_a_part_of_its_own(caller):
    reply = await caller.respond("refuse=1", stream=True)
    events = reply.events()
    check_events(events)
    assert "response.refusal.delta" in kinds(events)
    assert "response.refusal.done" in kinds(events)
    part = events[-1]["response"]["output"][0]["content"][0]
    assert part["type"] == "refusal"
    assert count_tokens(part["refusal"]) == events[-1]["response"]["usage"]["output_tokens"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tokens", [1, 5, 16])
async def test_a_limit_cuts_the_answer(caller, stream, tokens):
    reply = await caller.respond(text="Write a long story", max_output_tokens=tokens, stream=stream)
    if stream:
        check_events(reply.events())
        assert reply.events()[-1]["type"] == "response.incomplete"
    response = check_response(reply.events()[-1]["response"] if stream else reply.json())
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"
    assert response.usage.output_tokens == tokens == count_tokens(response.output_text)
    assert response.completed_at is None
    assert (await caller.served()).outcome == "incomplete"


async def test_thinking_counts_towards_the_limit(caller):
    response = check_response((await caller.respond(model="o3", max_output_tokens=20)).json())
    assert [item.type for item in response.output] == ["reasoning"]
    assert response.status == "incomplete"
    assert response.usage.output_tokens == response.usage.output_tokens_details.reasoning_tokens == 20


async def test_a_limit_that_is_not_reached_changes_nothing(caller):
    response = check_response((await caller.respond(text="2+2?", max_output_tokens=6)).json())
    assert response.status == "completed"
    assert response.usage.output_tokens == 6


@pytest.mark.parametrize(
    ("asked", "served"), [(None, "default"), ("auto", "default"), ("flex", "flex"), ("priority", "priority")]
)
async def test_the_service_tier_comes_back(caller, asked, served):
    reply = await caller.respond(**({"service_tier": asked} if asked else {}))
    assert reply.json()["service_tier"] == served
    assert (await caller.served()).service_tier == served


async def test_inputs_of_every_form_are_read(client):
    parts = [
        {"type": "input_text", "text": "My name is Cy."},
        {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
        {"type": "input_file", "file_data": "data:;base64,AAAA", "filename": "a.pdf"},
    ]
    response = await client.responses.create(
        model="sim-mini",
        input=[
            {"role": "developer", "content": "Be kind."},
            {"type": "message", "role": "user", "content": parts},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"role": "user", "content": "What is my name?"},
        ],
    )
    assert response.output_text == "Your name is Cy."
    assert response.usage.input_tokens > 85


async def test_obfuscation_can_be_turned_off(caller):
    with_filler = (await caller.respond(stream=True)).events()
    without = (await caller.respond(stream=True, stream_options={"include_obfuscation": False})).events()
    assert all("obfuscation" in event for event in with_filler if event["type"].endswith("text.delta"))
    assert not any("obfuscation" in event for event in without)
