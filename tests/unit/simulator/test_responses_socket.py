from __future__ import annotations

import asyncio
import json

import pytest
import websockets
from websockets.asyncio.client import connect

from app.simulator.app import Simulator
from app.simulator.server import running_simulator
from tests.unit.simulator.shapes import EVENT_CLASSES, check_events


async def one(connection):
    """The events of one response."""
    events = []
    async for event in connection:
        events.append(event)
        if event.type in ("response.completed", "response.incomplete", "response.failed", "error"):
            return events
    raise AssertionError(events)


def raw(listening, **options):
    return connect(f"{listening.base_url.replace('http', 'ws')}/v1/responses", compression=None, **options)


async def frames(connection):
    """The same without the SDK."""
    events = []
    async for text in connection:
        assert isinstance(text, str)
        events.append(json.loads(text))
        if events[-1]["type"] in ("response.completed", "error"):
            break
    return events


async def ended(simulator, response_id):
    for _ in range(200):
        (entry,) = simulator.log.find(wanted_id=response_id)
        if entry.ended_ms is not None:
            return entry
        await asyncio.sleep(0.01)
    raise AssertionError(entry)


async def test_a_response_comes_as_frames_and_is_billed(client, simulator):
    async with client.responses.connect() as connection:
        await connection.response.create(model="sim-mini", input="2+2", temperature=0)
        events = await one(connection)
        made = events[-1].response
        assert (
            "".join(event.delta for event in events if event.type == "response.output_text.delta") == "2 + 2 equals 4."
        )
        entry = await ended(simulator, made.id)
        assert (entry.endpoint, entry.outcome, entry.stream, entry.billed) == ("responses", "completed", True, True)
        assert made.usage.output_tokens == entry.usage.output_tokens
        assert entry.written_events == len(events)
        await connection.response.create(model="sim-mini", input="And what was that?", previous_response_id=made.id)
        again = await one(connection)
        assert again[-1].response.previous_response_id == made.id
    assert (await client.responses.retrieve(made.id)).output_text == made.output_text


async def test_frames_are_the_events_of_a_stream(listening):
    async with raw(listening) as connection:
        assert connection.protocol.extensions == []
        assert connection.response.headers["x-request-id"].startswith("req_")
        await connection.send(json.dumps({"type": "response.create", "model": "sim-reasoning", "input": "Why?"}))
        check_events(await frames(connection))


async def test_what_is_not_stored_is_known_to_its_connection_alone(client):
    async with client.responses.connect() as connection, client.responses.connect() as other:
        await connection.response.create(model="sim-mini", input="My name is Ada.", store=False)
        first = (await one(connection))[-1].response
        ask = {"model": "sim-mini", "input": "What is my name?", "previous_response_id": first.id, "store": False}
        await connection.response.create(**ask)
        assert "Ada" in (await one(connection))[-1].response.output_text
        await other.response.create(**ask)
        (refused,) = await one(other)
        assert (refused.status, refused.error.code) == (400, "previous_response_not_found")
        assert refused.error.param == "previous_response_id"
        # An error does not end the connection.
        await other.response.create(model="sim-mini", input="2+2")
        assert (await one(other))[-1].type == "response.completed"


async def test_a_prewarm_generates_nothing_and_can_be_gone_on_from(client, simulator):
    async with client.responses.connect() as connection:
        await connection.response.create(model="sim-mini", input="My name is Ada.", generate=False, store=False)
        events = await one(connection)
        assert [event.type for event in events] == ["response.created", "response.in_progress", "response.completed"]
        warm = events[-1].response
        assert (warm.output, warm.usage.total_tokens) == ([], 0)
        entry = await ended(simulator, warm.id)
        assert (entry.billed, entry.outcome) == (False, "completed")
        await connection.response.create(model="sim-mini", input="What is my name?", previous_response_id=warm.id)
        assert "Ada" in (await one(connection))[-1].response.output_text


async def test_responses_come_one_after_the_other(client):
    async with client.responses.connect() as connection:
        for _ in range(3):
            await connection.response.create(model="sim-mini", input="Hi [[sim: pace_ms=5]]")
        ids = [{event.response.id for event in await one(connection) if hasattr(event, "response")} for _ in range(3)]
    assert [len(found) for found in ids] == [1, 1, 1]
    assert len(set.union(*ids)) == 3


async def test_lanes_run_beside_each_other(client):
    async with client.responses.connect() as connection:
        await connection.response.create(model="sim-mini", input="[[sim: pace_ms=50 tokens=20]]", stream_id="slow")
        await connection.response.create(model="sim-mini", input="2+2", stream_id="fast")
        events = await one(connection)
        assert events[-1].stream_id == "fast"
        assert {event.stream_id for event in events} == {"slow", "fast"}
        assert all(event.type in EVENT_CLASSES for event in events)
        assert (await one(connection))[-1].stream_id == "slow"


@pytest.mark.parametrize(
    ("frame", "param"),
    [
        ({"type": "response.create"}, "model"),
        ({"type": "response.create", "model": "m"}, "input"),
        ({"type": "response.create", "model": "m", "input": 5}, "input"),
        ({"type": "response.create", "model": "m", "input": "x", "background": True}, "background"),
        ({"type": "session.update"}, "type"),
        ({}, "type"),
        ("not json", None),
        (b"bytes", None),
    ],
)
async def test_a_bad_frame_is_told_and_the_connection_stays(listening, frame, param):
    async with raw(listening) as connection:
        await connection.send(json.dumps(frame) if isinstance(frame, dict) else frame)
        (error,) = await frames(connection)
        assert (error["type"], error["status"], error["error"]["param"]) == ("error", 400, param)
        assert set(error["error"]) == {"message", "type", "param", "code"}
        await connection.send(json.dumps({"type": "response.create", "model": "m", "input": "2+2"}))
        assert (await frames(connection))[-1]["type"] == "response.completed"


async def test_a_frame_beyond_the_limit_ends_the_connection(listening):
    async with raw(listening) as connection:
        with pytest.raises(websockets.ConnectionClosedError) as caught:
            await connection.send("x" * (16 * 1024 * 1024 + 1))
            await connection.recv()
        assert caught.value.rcvd.code == 1009


async def test_pings_are_answered_while_an_answer_comes(listening):
    async with raw(listening) as connection:
        body = {"type": "response.create", "model": "m", "input": "[[sim: stall_after=2 stall_s=60]]"}
        await connection.send(json.dumps(body))
        await connection.recv()
        await asyncio.wait_for(await connection.ping(), 5)


async def test_a_client_that_leaves_pays_for_what_was_generated(client, simulator):
    async with client.responses.connect() as connection:
        await connection.response.create(model="sim-mini", input="[[sim: pace_ms=10 tokens=500]]")
        async for event in connection:
            if event.type == "response.created":
                response_id = event.response.id
            if event.type == "response.output_text.delta":
                break
    entry = await ended(simulator, response_id)
    assert (entry.outcome, entry.billed) == ("disconnected", True)
    assert 0 < entry.usage.output_tokens < 500


async def test_a_connection_is_cut_and_answers_fail_as_steered(client, listening, simulator):
    async with client.responses.connect() as connection:
        await connection.response.create(model="sim-mini", input="Hi [[sim: fail_after=6]]")
        assert (await one(connection))[-1].type == "response.failed"
        await connection.response.create(model="sim-mini", input="Hi [[sim: error=503]]")
        assert (await one(connection))[-1].status == 503
    async with raw(listening) as connection:
        await connection.send(json.dumps({"type": "response.create", "model": "m", "input": "Hi [[sim: cut_after=5]]"}))
        events = [json.loads(await connection.recv()) for _ in range(5)]
        with pytest.raises(websockets.ConnectionClosedError):
            await connection.recv()
    entry = await ended(simulator, events[0]["response"]["id"])
    assert (entry.outcome, entry.written_events) == ("cut", 5)


async def test_steering_is_refused_in_its_own_shape(client):
    async with client.responses.connect() as connection:
        await connection.response.steer(input="Faster", previous_response_id="resp_1")
        event = await connection.recv()
        assert (event.type, event.steer.input) == ("response.steer.failed", "Faster")
        assert event.error.code == "steering_not_supported"


async def test_too_many_lanes_and_waiting_requests_are_refused(listening, monkeypatch):
    monkeypatch.setattr("app.simulator.responses_socket.LANES_MAX", 1)
    monkeypatch.setattr("app.simulator.responses_socket.LANE_FRAMES_MAX", 1)
    async with raw(listening) as connection:
        stalled = {"type": "response.create", "model": "m", "input": "[[sim: stall_after=1 stall_s=60]]"}
        await connection.send(json.dumps(stalled))
        await connection.recv()
        await connection.send(json.dumps(stalled))
        await connection.send(json.dumps(stalled))
        assert json.loads(await connection.recv())["status"] == 429
        await connection.send(json.dumps({**stalled, "stream_id": "b"}))
        assert json.loads(await connection.recv())["error"]["param"] == "stream_id"


async def test_the_handshake_asks_for_the_key_and_a_known_path():
    guarded = Simulator(api_key="sk-simulator")
    async with running_simulator(guarded, port=0) as at:
        url = f"ws://{at.host}:{at.port}"
        right = {"authorization": "Bearer sk-simulator"}
        for path, headers, status in [("/v1/responses", {}, 401), ("/v1/elsewhere", right, 404)]:
            with pytest.raises(websockets.InvalidStatus) as caught:
                await connect(url + path, additional_headers=headers)
            assert caught.value.response.status_code == status
            assert "error" in json.loads(caught.value.response.body)
        connection = await connect(f"{url}/v1/responses?beta=true", additional_headers=right)
        body = {"type": "response.create", "model": "m", "input": "[[sim: stall_after=1 stall_s=60]]"}
        await connection.send(json.dumps(body))
        await connection.recv()
    await asyncio.wait_for(connection.wait_closed(), 10)
    assert connection.close_code == 1012
    assert [entry.outcome for entry in guarded.log] == ["cut"]
