from __future__ import annotations

import asyncio
import base64

import pytest


async def until(connection, kind):
    events = []
    async for event in connection:
        events.append(event)
        if event.type == kind:
            return events
    raise AssertionError(events)


def said(text):
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


async def test_a_session_answers_and_is_billed(client, simulator):
    async with client.realtime.connect(model="gpt-realtime") as connection:
        (created,) = await until(connection, "session.created")
        assert (created.session.type, created.session.model) == ("realtime", "gpt-realtime")
        await connection.session.update(session={"type": "realtime", "instructions": "Be short"})
        assert (await until(connection, "session.updated"))[-1].session.instructions == "Be short"
        await connection.conversation.item.create(item=said("My name is Ada. What is my name?"))
        assert (await until(connection, "conversation.item.done"))[-1].item.id
        await connection.response.create()
        events = await until(connection, "response.done")
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert "Ada" in text
        done = events[-1].response
        (entry,) = simulator.log.find(wanted_id=done.id)
        assert (entry.endpoint, entry.outcome, entry.billed, entry.model) == (
            "realtime",
            "completed",
            True,
            "gpt-realtime",
        )
        assert done.usage.input_tokens == entry.usage.input_tokens > 0
        assert done.usage.output_tokens == entry.usage.output_tokens > 0
        await connection.response.create()
        again = (await until(connection, "response.done"))[-1].response
        assert again.usage.input_tokens > done.usage.total_tokens - 1


async def test_sound_costs_input(client):
    async with client.realtime.connect(model="m") as connection:
        sound = base64.b64encode(b"x" * 48_000).decode()
        await connection.input_audio_buffer.append(audio=sound)
        await connection.input_audio_buffer.commit()
        await until(connection, "conversation.item.done")
        await connection.response.create()
        assert (await until(connection, "response.done"))[-1].response.usage.input_tokens >= 11


@pytest.mark.parametrize(
    "event",
    [
        {"type": "nothing"},
        {},
        {"type": "session.update", "session": 5},
        {"type": "response.create", "response": 5},
        {"type": "conversation.item.create"},
        {"type": "input_audio_buffer.append", "audio": 5},
        {"type": "input_audio_buffer.commit"},
    ],
)
async def test_a_bad_event_is_told_and_the_session_goes_on(client, event):
    async with client.realtime.connect(model="m") as connection:
        await connection.send(event)
        assert (await until(connection, "error"))[-1].error.message
        await connection.response.create()
        assert (await until(connection, "response.done"))[-1].response.status == "completed"


async def test_one_that_leaves_pays_for_what_was_said(client, simulator):
    async with client.realtime.connect(model="m") as connection:
        await connection.conversation.item.create(item=said("[[sim: pace_ms=10 tokens=500]]"))
        await connection.response.create()
        events = await until(connection, "response.output_text.delta")
    response_id = next(event.response.id for event in events if event.type == "response.created")
    for _ in range(200):
        (entry,) = simulator.log.find(wanted_id=response_id)
        if entry.ended_ms is not None:
            break
        await asyncio.sleep(0.01)
    assert (entry.outcome, entry.billed) == ("disconnected", True)
    assert 0 < entry.usage.output_tokens < 500


async def test_an_answer_is_refused_as_steered(client, simulator):
    async with client.realtime.connect(model="m") as connection:
        await connection.conversation.item.create(item=said("[[sim: error=503]]"))
        await connection.response.create()
        assert "503" in (await until(connection, "error"))[-1].error.message
    assert list(simulator.log)[-1].outcome == "refused"
