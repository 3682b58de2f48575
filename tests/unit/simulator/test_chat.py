from __future__ import annotations

import json

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from app.simulator.tokens import count_tokens
from tests.unit.simulator.wire_client import Reply

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def chat(caller, text="Tell me of the sea.", **members) -> Reply:
    body = {"model": "sim-mini", "messages": [{"role": "user", "content": text}], **members}
    return await caller.post("/v1/chat/completions", body)


def completion_of(reply: Reply) -> ChatCompletion:
    return ChatCompletion.model_validate_json(reply.body, strict=True)


def chunks_of(reply: Reply) -> list[ChatCompletionChunk]:
    assert reply.body.endswith(b"data: [DONE]\n\n")
    return [ChatCompletionChunk.model_validate_json(json.dumps(event), strict=True) for event in reply.events()]


async def test_a_completion_has_every_member(caller):
    completion = completion_of(await chat(caller, "What is the capital of Japan?"))
    choice = completion.choices[0]
    assert choice.message.content == "The capital of Japan is Tokyo."
    assert (choice.finish_reason, choice.message.refusal, choice.message.tool_calls) == ("stop", None, None)
    assert completion.id.startswith("chatcmpl-")
    assert completion.usage.completion_tokens == count_tokens(choice.message.content)
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert completion.usage.prompt_tokens_details.cached_tokens == 0
    assert completion.usage.completion_tokens_details.reasoning_tokens == 0


async def test_a_stream_is_one_write_per_chunk_and_done(caller):
    reply = await chat(caller, "What is the capital of Japan?", stream=True)
    chunks = chunks_of(reply)
    assert len(reply.chunks) == len(chunks) + 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "The capital of Japan is Tokyo."
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_usage_is_streamed_only_where_it_is_asked_for(caller):
    reply = await chat(caller, stream=True, stream_options={"include_usage": True})
    chunks = chunks_of(reply)
    assert chunks[-1].choices == []
    deltas = [chunk for chunk in chunks[:-1] if chunk.choices[0].delta.content]
    assert chunks[-1].usage.completion_tokens == len(deltas)
    assert all(event["usage"] is None for event in reply.events()[:-1])
    assert (await caller.served()).usage.output_tokens == len(deltas)


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_cuts_the_answer(caller, limit):
    completion = completion_of(await chat(caller, "Write a story", **{limit: 7}))
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 7 == count_tokens(completion.choices[0].message.content)
    chunks = chunks_of(await chat(caller, "Write a story", stream=True, **{limit: 7}))
    assert chunks[-1].choices[0].finish_reason == "length"
    assert (await caller.served()).outcome == "incomplete"


async def test_there_may_be_several_choices(caller):
    completion = completion_of(await chat(caller, n=3))
    texts = [choice.message.content for choice in completion.choices]
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert completion.usage.completion_tokens == sum(map(count_tokens, texts))
    chunks = chunks_of(await chat(caller, n=2, stream=True))
    assert [chunk.choices[0].index for chunk in chunks if chunk.choices[0].finish_reason] == [0, 1]


async def test_functions_are_called(caller):
    asking = {"text": "get_weather in Lima", "tools": [WEATHER]}
    completion = completion_of(await chat(caller, **asking))
    call = completion.choices[0].message.tool_calls[0]
    assert completion.choices[0].finish_reason == "tool_calls"
    assert completion.choices[0].message.content is None
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Lima"})
    chunks = chunks_of(await chat(caller, **asking, stream=True))
    deltas = [chunk.choices[0].delta.tool_calls[0] for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert deltas[0].function.name == "get_weather"
    assert deltas[0].id.startswith("call_")
    assert json.loads("".join(delta.function.arguments for delta in deltas)) == {"city": "Lima"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_the_functions_answer_is_answered_in_words(client):
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "get_weather in Lima"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"},
    ]
    completion = await client.chat.completions.create(model="sim-mini", messages=messages, tools=[WEATHER])
    assert "18 degrees" in completion.choices[0].message.content


async def test_a_named_function_must_be_called(caller):
    choice = {"type": "function", "function": {"name": "get_weather"}}
    completion = completion_of(await chat(caller, "Hi", tools=[WEATHER], tool_choice=choice))
    assert completion.choices[0].message.tool_calls[0].function.name == "get_weather"


class Town(BaseModel):
    name: str
    inhabitants: int


async def test_structured_output_is_of_its_schema(client):
    messages = [{"role": "user", "content": "Tell me of Porto"}]
    parsed = await client.chat.completions.parse(model="sim-mini", messages=messages, response_format=Town)
    assert parsed.choices[0].message.parsed.name == "Porto"
    plain = await client.chat.completions.create(
        model="sim-mini", messages=messages, response_format={"type": "json_object"}
    )
    assert json.loads(plain.choices[0].message.content)


async def test_a_refusal_has_its_own_member(caller):
    completion = completion_of(await chat(caller, "[[sim: refuse=1]]"))
    assert completion.choices[0].message.content is None
    assert completion.choices[0].message.refusal
    chunks = chunks_of(await chat(caller, "[[sim: refuse=1]]", stream=True))
    assert "".join(chunk.choices[0].delta.refusal or "" for chunk in chunks) == completion.choices[0].message.refusal


async def test_reasoning_is_counted_and_not_shown(caller):
    completion = completion_of(await chat(caller, "2+2", model="o4-mini"))
    thought = completion.usage.completion_tokens_details.reasoning_tokens
    assert thought > 0
    assert completion.usage.completion_tokens == thought + count_tokens(completion.choices[0].message.content)
    assert completion_of(await chat(caller, reasoning_effort="low")).usage.completion_tokens_details.reasoning_tokens


async def test_earlier_messages_are_seen(client):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "My name is Eve."}]},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "What is my name?"},
    ]
    completion = await client.chat.completions.create(model="gpt-4o", messages=messages)
    assert completion.choices[0].message.content == "Your name is Eve."


async def test_a_stop_sequence_ends_the_answer(caller):
    completion = completion_of(await chat(caller, "2+2", stop="equals"))
    assert completion.choices[0].message.content == "2 + 2 "


async def test_at_temperature_0_the_answer_is_always_the_same(caller):
    texts = {completion_of(await chat(caller, temperature=0)).choices[0].message.content for _ in range(3)}
    assert len(texts) == 1
    chunks = chunks_of(await chat(caller, temperature=0, stream=True))
    assert {"".join(chunk.choices[0].delta.content or "" for chunk in chunks)} == texts
