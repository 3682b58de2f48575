from __future__ import annotations

import json

import openai
import pytest

from tests.unit.simulator.shapes import check_events

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


@pytest.mark.parametrize(
    "members",
    [
        {"input": "Tell me a long story"},
        {"model": "sim-reasoning", "reasoning": {"summary": "detailed"}, "include": ["reasoning.encrypted_content"]},
        {"input": "get_weather in Rome", "tools": [WEATHER]},
        {"input": "[[sim: refuse=1]]"},
        {"input": "[[sim: event_bytes=5000]]"},
        {"max_output_tokens": 5},
        {"stream_options": {"include_obfuscation": False}},
        {"instructions": [{"role": "developer", "content": "Be short"}], "metadata": {"a": "b"}},
    ],
)
async def test_a_stream_is_replayed_as_it_was(caller, members):
    sent = (await caller.post("/v1/responses", {"model": "sim-mini", "input": "Hi", "stream": True} | members)).events()
    filled = "stream_options" not in members
    path = f"/v1/responses/{sent[0]['response']['id']}?stream=true&include_obfuscation={str(filled).lower()}"
    reply = await caller.get(path)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.whole
    assert reply.events() == sent
    check_events(sent)
    rest = await caller.get(f"{path}&starting_after=4")
    assert rest.events() == sent[5:]
    beyond = await caller.get(f"{path}&starting_after={len(sent)}")
    assert beyond.whole and beyond.events() == []


async def test_a_whole_answer_is_replayed_as_a_stream(client):
    made = await client.responses.create(model="sim-mini", input="2+2")
    events = [event async for event in await client.responses.retrieve(made.id, stream=True)]
    assert events[-1].response == made
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == made.output_text


async def test_a_replay_costs_nothing(caller, simulator):
    made = (await caller.respond(text="2+2")).json()
    last = simulator.log.last_number
    await caller.get(f"/v1/responses/{made['id']}?stream=true")
    await caller.get(f"/v1/responses/{made['id']}")
    assert simulator.log.last_number == last


async def test_what_is_not_stored_is_not_found(client):
    made = await client.responses.create(model="sim-mini", input="2+2", store=False)
    for call in (
        client.responses.retrieve(made.id),
        client.responses.delete(made.id),
        client.responses.input_items.list(made.id),
        client.responses.retrieve(made.id, stream=True),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            await call
        assert caught.value.body == {
            "message": f"Response with id '{made.id}' not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "after=msg_unknown"])
async def test_queries_that_make_no_sense_are_refused(caller, query):
    made = (await caller.respond(text="2+2")).json()
    assert (await caller.get(f"/v1/responses/{made['id']}/input_items?{query}")).status == 400


async def test_input_items_come_in_pages(client):
    texts = [f"line {number}" for number in range(7)]
    made = await client.responses.create(
        model="sim-mini", input=[{"role": "user", "content": text} for text in texts], extra_query={"beta": "true"}
    )
    listed = [item async for item in client.responses.input_items.list(made.id, limit=2, order="asc")]
    assert [item.content[0].text for item in listed] == texts
    assert len({item.id for item in listed}) == 7
    page = await client.responses.input_items.list(made.id, limit=3, include=["reasoning.encrypted_content"])
    assert [item.content[0].text for item in page.data] == ["line 6", "line 5", "line 4"]
    assert page.has_more
    (plain,) = (
        await client.responses.input_items.list((await client.responses.create(model="m", input="one")).id)
    ).data
    assert (plain.role, plain.content[0].text, plain.status) == ("user", "one", "completed")


async def test_items_are_referred_to(client):
    first = await client.responses.create(model="sim-mini", input="My name is Ada.")
    (asked,) = (await client.responses.input_items.list(first.id)).data
    references = [
        {"type": "item_reference", "id": asked.id},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "What is my name?"},
    ]
    second = await client.responses.create(model="sim-mini", input=references)
    assert "Ada" in second.output_text
    listed = (await client.responses.input_items.list(second.id, order="asc")).data
    assert [item.id for item in listed[:2]] == [asked.id, first.output[0].id]
    with pytest.raises(openai.NotFoundError, match="Items are not persisted"):
        await client.responses.create(model="sim-mini", input=[{"type": "item_reference", "id": "msg_unknown0001"}])


async def test_input_is_counted_for_nothing(client, simulator):
    last = simulator.log.last_number
    counted = await client.responses.input_tokens.count(model="sim-mini", input="Tell me of ships.")
    assert simulator.log.last_number == last
    made = await client.responses.create(model="sim-mini", input="Tell me of ships.")
    assert counted.object == "response.input_tokens"
    assert counted.input_tokens == made.usage.input_tokens
    chained = await client.responses.input_tokens.count(previous_response_id=made.id, input="2+2")
    assert chained.input_tokens > made.usage.total_tokens


async def test_compaction_costs(client, simulator):
    first = await client.responses.create(model="sim-mini", input="My name is Ada.")
    compacted = await client.responses.compact(
        model="sim-mini", previous_response_id=first.id, input="And [[sim: tokens=30]] now?"
    )
    assert compacted.object == "response.compaction"
    assert [item.type for item in compacted.output] == ["message", "message", "compaction"]
    (entry,) = simulator.log.find(wanted_id=compacted.id)
    assert (entry.endpoint, entry.billed, entry.outcome) == ("responses.compact", True, "completed")
    assert compacted.usage.output_tokens == entry.usage.output_tokens == 30
    assert compacted.usage.input_tokens == entry.usage.input_tokens > first.usage.input_tokens
    output = json.loads(compacted.to_json(warnings=False))["output"]
    question = {"role": "user", "content": "What is my name?"}
    assert "Ada" in (await client.responses.create(model="sim-mini", input=[*output, question])).output_text
