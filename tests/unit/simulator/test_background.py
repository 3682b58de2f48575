from __future__ import annotations

import asyncio

import openai
import pytest

from app.simulator.app import Simulator
from app.simulator.server import running_simulator
from tests.unit.simulator.shapes import EVENT_CLASSES
from tests.unit.simulator.wire_client import Connection


async def settled(client, response_id):
    for _ in range(500):
        response = await client.responses.retrieve(response_id)
        if response.status not in ("queued", "in_progress"):
            return response
        await asyncio.sleep(0.01)
    raise AssertionError(response)


async def begin(client, steering="", **members):
    return await client.responses.create(
        model="sim-mini", input=f"Tell me of ships. [[sim: {steering}]]", background=True, **members
    )


def entry_of(simulator, response_id):
    (entry,) = simulator.log.find(wanted_id=response_id)
    return entry


async def generating(simulator, response_id):
    for _ in range(500):
        if entry_of(simulator, response_id).usage.output_tokens:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(entry_of(simulator, response_id))


async def test_it_is_queued_first_and_costs_once_when_it_is_done(client, simulator):
    waiting = await begin(client, "queue_ms=60000")
    assert (waiting.status, waiting.usage, waiting.background, waiting.output) == ("queued", None, True, [])
    entry = entry_of(simulator, waiting.id)
    assert (entry.outcome, entry.billed, entry.status) == ("running", False, 200)
    assert await client.responses.retrieve(waiting.id) == waiting
    assert (await client.responses.cancel(waiting.id)).status == "cancelled"
    assert (entry.outcome, entry.billed) == ("cancelled", False)
    begun = await begin(client, "queue_ms=150 tokens=20")
    entry = entry_of(simulator, begun.id)
    done = await settled(client, begun.id)
    assert done.status == "completed" and done.output_text
    again = await client.responses.retrieve(begun.id)
    assert again == done
    assert done.usage.output_tokens == 20 == entry.usage.output_tokens
    assert done.usage.input_tokens == entry.usage.input_tokens > 0
    assert (entry.outcome, entry.billed) == ("completed", True)
    assert entry.ended_ms - entry.started_ms >= 140
    chained = await client.responses.create(model="sim-mini", input="2+2", previous_response_id=begun.id)
    assert chained.usage.input_tokens > done.usage.total_tokens


async def test_it_is_in_progress_while_tokens_come(client, simulator):
    begun = await begin(client, "pace_ms=20 tokens=30")
    await generating(simulator, begun.id)
    running = await client.responses.retrieve(begun.id)
    assert (running.status, running.usage) == ("in_progress", None)
    assert 0 < entry_of(simulator, begun.id).usage.output_tokens < 30
    assert (await settled(client, begun.id)).usage.output_tokens == 30


async def test_its_stream_begins_with_queued_and_goes_on_when_the_reader_leaves(client, simulator):
    stream = await begin(client, "pace_ms=10 tokens=12", stream=True)
    seen = []
    async for event in stream:
        seen.append(event)
        if len(seen) == 8:
            break
    await stream.close()
    assert [event.type for event in seen[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert [event.response.status for event in seen[:3]] == ["queued", "queued", "in_progress"]
    response_id = seen[0].response.id
    resumed = [
        event
        async for event in await client.responses.retrieve(
            response_id, stream=True, starting_after=seen[-1].sequence_number
        )
    ]
    everything = [event.sequence_number for event in [*seen, *resumed]]
    assert everything == list(range(len(everything)))
    assert resumed[-1].type == "response.completed"
    assert resumed[-1].response.usage.output_tokens == 12
    entry = entry_of(simulator, response_id)
    assert (entry.outcome, entry.usage.output_tokens, entry.stream) == ("completed", 12, True)
    replayed = [event async for event in await client.responses.retrieve(response_id, stream=True)]
    assert replayed[: len(seen)] == seen
    assert replayed[len(seen) :] == resumed
    for event in replayed:
        EVENT_CLASSES[event.type].model_validate_json(event.to_json(), strict=True)


async def test_many_follow_one_that_runs(client):
    begun = await begin(client, "pace_ms=5 tokens=20")

    async def follow():
        return [event.to_json() async for event in await client.responses.retrieve(begun.id, stream=True)]

    first, second, third = await asyncio.gather(follow(), follow(), follow())
    assert first == second == third
    assert len(first) > 20


async def test_a_stream_that_is_cut_can_be_resumed(caller, client):
    reply = await caller.respond("cut_after=6 tokens=9 pace_ms=5", background=True, stream=True)
    assert not reply.whole
    events = reply.events()
    assert len(events) == 6
    response_id = events[0]["response"]["id"]
    rest = [event async for event in await client.responses.retrieve(response_id, stream=True, starting_after=5)]
    assert rest[0].sequence_number == 6
    assert rest[-1].type == "response.completed"
    assert (await caller.served()).outcome == "completed"


async def test_an_answer_whose_head_is_cut_runs_on_and_costs(caller):
    reply = await caller.respond("cut=head tokens=9", background=True)
    assert reply.status == 0
    served = await caller.served()
    assert (served.outcome, served.usage.output_tokens, served.billed) == ("completed", 9, True)


async def test_a_refused_one_does_not_run(caller, client):
    reply = await caller.respond("error=503", background=True)
    assert reply.status == 503
    served = await caller.served()
    assert (served.outcome, served.billed) == ("refused", False)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(served.response_id)


async def test_it_fails_as_steered(client, simulator):
    begun = await begin(client, "fail_after=9 tokens=30")
    failed = await settled(client, begun.id)
    assert (failed.status, failed.error.code) == ("failed", "server_error")
    entry = entry_of(simulator, begun.id)
    assert (entry.outcome, entry.billed) == ("failed", True)
    assert failed.usage.output_tokens == entry.usage.output_tokens < 30
    events = [event async for event in await client.responses.retrieve(begun.id, stream=True)]
    assert events[-1].type == "response.failed"


async def test_one_that_never_ends_is_cancelled(client, simulator):
    begun = await begin(client, "stall_after=8 stall_s=3600 tokens=30")
    stream = await client.responses.retrieve(begun.id, stream=True)
    await generating(simulator, begun.id)
    # Until it stalls: what was generated before is written at once.
    await asyncio.sleep(0.1)
    cancelled = await client.responses.cancel(begun.id)
    assert (cancelled.status, cancelled.usage) == ("cancelled", None)
    assert await client.responses.cancel(begun.id) == cancelled
    assert await client.responses.retrieve(begun.id) == cancelled
    entry = entry_of(simulator, begun.id)
    assert (entry.outcome, entry.billed) == ("cancelled", True)
    assert 0 < entry.usage.output_tokens < 30
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(8))


async def test_only_background_responses_are_cancelled(client):
    done = await client.responses.create(model="sim-mini", input="2+2")
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        await client.responses.cancel(done.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.cancel("resp_unknown")
    begun = await begin(client, "tokens=3")
    finished = await settled(client, begun.id)
    assert await client.responses.cancel(begun.id) == finished


async def test_a_deleted_one_is_ended(client, simulator):
    begun = await begin(client, "stall_after=5 stall_s=3600")
    await client.responses.delete(begun.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(begun.id)
    assert entry_of(simulator, begun.id).outcome == "cancelled"


async def test_it_must_be_stored(client):
    with pytest.raises(openai.BadRequestError):
        await begin(client, store=False)


async def test_more_than_may_run_are_refused(client, simulator, monkeypatch):
    monkeypatch.setattr(simulator.runs, "bytes_max", 100)
    with pytest.raises(openai.RateLimitError):
        await begin(client, "tokens=30")


async def test_a_simulator_that_stops_ends_them():
    simulator = Simulator()
    async with running_simulator(simulator, port=0) as at:
        connection = await Connection.open((at.host, at.port))
        body = {"model": "m", "input": "[[sim: stall_after=4 stall_s=3600]]", "background": True}
        await connection.send("/v1/responses", body)
        assert (await connection.read()).json()["status"] == "queued"
        await connection.close()
    assert [entry.outcome for entry in simulator.log] == ["cut"]
    assert "runs=" in repr(simulator.runs)


async def test_a_follower_that_hears_nothing_for_too_long_is_cut(caller, client, monkeypatch):
    monkeypatch.setattr("app.simulator.event_record.FOLLOW_S_MAX", 0.05)
    begun = await begin(client, "stall_after=4 stall_s=3600")
    reply = await caller.get(f"/v1/responses/{begun.id}?stream=true")
    assert (reply.status, reply.whole, len(reply.events())) == (200, False, 4)
    await client.responses.cancel(begun.id)
