from __future__ import annotations

import openai
import pytest

from app.simulator.tokens import count_tokens


async def test_the_second_turn_sees_the_first(client):
    first = await client.responses.create(model="sim-mini", input="My name is Ada.")
    second = await client.responses.create(model="sim-mini", input="And then?", previous_response_id=first.id)
    third = await client.responses.create(model="sim-mini", input="What is my name?", previous_response_id=second.id)
    alone = await client.responses.create(model="sim-mini", input="What is my name?")
    assert third.output_text == "Your name is Ada."
    assert third.previous_response_id == second.id
    assert "Ada" not in alone.output_text
    said = [first, second]
    chain = (
        sum(turn.usage.output_tokens + 4 for turn in said)
        + count_tokens("My name is Ada.")
        + count_tokens("And then?")
        + 8
    )
    assert third.usage.input_tokens == chain + alone.usage.input_tokens


async def test_a_history_sent_again_is_answered_as_one_remembered(client):
    options = {"model": "sim-mini", "temperature": 0}
    first = await client.responses.create(input="I live by the sea", **options)
    chained = await client.responses.create(input="Go on", previous_response_id=first.id, **options)
    history = [{"role": "user", "content": "I live by the sea"}, *first.output, {"role": "user", "content": "Go on"}]
    whole = await client.responses.create(input=history, **options)
    assert whole.output_text == chained.output_text
    assert whole.usage.input_tokens == chained.usage.input_tokens


async def test_a_stream_can_be_gone_on_from_as_soon_as_it_has_ended(client):
    response_id = ""
    async for event in await client.responses.create(model="sim-mini", input="My name is Bo", stream=True):
        if event.type == "response.completed":
            response_id = event.response.id
    second = await client.responses.create(model="sim-mini", input="What is my name?", previous_response_id=response_id)
    assert second.output_text == "Your name is Bo."


async def test_instructions_count_but_do_not_carry_over(client):
    plain = await client.responses.create(model="sim-mini", input="Go on")
    first = await client.responses.create(model="sim-mini", input="Go on", instructions="Be very brief indeed.")
    assert first.usage.input_tokens == plain.usage.input_tokens + count_tokens("Be very brief indeed.")
    assert first.instructions == "Be very brief indeed."
    second = await client.responses.create(model="sim-mini", input="Go on", previous_response_id=first.id)
    carried = first.usage.output_tokens + 4
    assert second.usage.input_tokens == 2 * plain.usage.input_tokens + carried


async def test_an_unknown_previous_response_is_refused(client):
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="sim-mini", input="Go on", previous_response_id="resp_unknown")
    assert refused.value.code == "previous_response_not_found"
    assert refused.value.param == "previous_response_id"


async def test_what_is_not_stored_is_not_there(client):
    response = await client.responses.create(model="sim-mini", input="Hi", store=False)
    assert response.store is False
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model="sim-mini", input="Go on", previous_response_id=response.id)


async def test_a_stored_response_can_be_read_and_deleted(client):
    response = await client.responses.create(model="sim-mini", input="Hi")
    assert await client.responses.retrieve(response.id) == response
    await client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.delete(response.id)


@pytest.mark.parametrize("text", ["Tell me of ships", "Write a long story about rain", "2+2"])
async def test_at_temperature_0_the_answer_is_always_the_same(client, text):
    asked = [await client.responses.create(model="sim-mini", input=text, temperature=0, store=False) for _ in range(3)]
    assert len({response.output_text for response in asked}) == 1
    streamed = ""
    stream = await client.responses.create(model="sim-mini", input=text, temperature=0, store=False, stream=True)
    async for event in stream:
        streamed += event.delta if event.type == "response.output_text.delta" else ""
    assert streamed == asked[0].output_text
    other = await client.responses.create(model="sim-large", input=text, temperature=0)
    assert (other.output_text == streamed) == (text == "2+2")


async def test_at_other_temperatures_it_varies(client):
    texts = {(await client.responses.create(model="sim-mini", input="Tell me of ships")).output_text for _ in range(4)}
    assert len(texts) > 1


async def test_a_long_prefix_is_reported_as_cached(client):
    instructions = " ".join(f"Rule {number} of this test." for number in range(400))
    asked = [
        await client.responses.create(model="sim-mini", input=f"Question {number}", instructions=instructions)
        for number in range(2)
    ]
    cached = [response.usage.input_tokens_details.cached_tokens for response in asked]
    assert cached[0] == 0
    assert 1024 <= cached[1] < asked[1].usage.input_tokens
