from __future__ import annotations

import asyncio

import pytest

from tests.unit.simulator.wire_client import Connection


def asked(steering: str, *, stream: bool = True) -> dict[str, object]:
    return {"model": "sim-mini", "input": f"Go [[sim: {steering}]]", "stream": stream}


async def test_a_client_that_leaves_ends_the_generation(caller):
    connection = await caller.open("/v1/responses", asked("pace_ms=10 tokens=1000"))
    await connection.read_head()
    for _ in range(9):
        await connection.read_chunk()
    await connection.close()
    served = await caller.served()
    assert (served.outcome, served.billed) == ("disconnected", True)
    assert 5 <= served.usage.output_tokens < 500
    assert served.usage.input_tokens > 0
    assert served.written_events == served.usage.output_tokens + 4


async def test_thought_is_billed_too(caller):
    connection = await caller.open("/v1/responses", asked("pace_ms=10 tokens=100 reasoning=500"))
    await connection.read_head()
    for _ in range(8):
        await connection.read_chunk()
    await connection.close()
    served = await caller.served()
    assert served.outcome == "disconnected"
    assert 0 < served.usage.reasoning_tokens == served.usage.output_tokens < 500


async def test_a_client_that_leaves_before_the_first_byte(caller):
    connection = await caller.open("/v1/responses", asked("first_ms=5000"))
    await asyncio.sleep(0.05)
    await connection.close()
    served = await caller.served()
    assert (served.outcome, served.status, served.billed, served.usage.output_tokens) == ("disconnected", 0, True, 0)


async def test_a_client_that_leaves_while_a_body_is_generated(caller):
    connection = await caller.open("/v1/responses", asked("pace_ms=10 tokens=500", stream=False))
    await asyncio.sleep(0.1)
    await connection.close()
    served = await caller.served()
    assert served.outcome == "disconnected"
    assert 3 <= served.usage.output_tokens < 500


async def test_a_client_that_leaves_a_stream_that_nobody_paces(caller):
    connection = await caller.open("/v1/responses", asked("tokens=200000"))
    await connection.read_head()
    await connection.read_chunk()
    await connection.close()
    served = await caller.served()
    assert served.outcome == "disconnected"
    assert served.usage.output_tokens < 200_000


async def test_a_plain_stream_notices_too(caller):
    body = {"model": "sim-mini", "input": "Write a long story [[sim: event_bytes=5000000]]", "stream": True}
    connection = await caller.open("/v1/responses", body)
    await connection.read_head()
    await connection.close()
    assert (await caller.served()).outcome in ("disconnected", "completed")


async def test_a_client_that_leaves_chat(caller):
    body = {"model": "m", "messages": [{"role": "user", "content": "[[sim: pace_ms=10 tokens=500]]"}], "stream": True}
    connection = await caller.open("/v1/chat/completions", body)
    await connection.read_head()
    for _ in range(5):
        await connection.read_chunk()
    await connection.close()
    served = await caller.served()
    assert served.outcome == "disconnected"
    assert served.usage.output_tokens == served.written_events - 1


async def test_a_client_that_leaves_before_its_body_is_whole_asked_nothing(caller, simulator):
    before = simulator.log.last_number
    connection = await Connection.open(caller.address)
    connection.writer.write(b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    await connection.writer.drain()
    await asyncio.sleep(0.03)
    await connection.close()
    await asyncio.sleep(0.03)
    assert simulator.log.last_number == before


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_told_is_usage_logged(caller, stream):
    for model in ("sim-mini", "o3"):
        reply = await caller.respond(model=model, stream=stream)
        usage = (reply.events()[-1]["response"] if stream else reply.json())["usage"]
        (entry,) = caller.entries()
        assert entry.ended_ms is not None, "the entry is closed before the answer has been read"
        logged = entry.usage
        assert (logged.input_tokens, logged.output_tokens) == (usage["input_tokens"], usage["output_tokens"])
        assert logged.reasoning_tokens == usage["output_tokens_details"]["reasoning_tokens"]
        assert logged.cached_tokens == usage["input_tokens_details"]["cached_tokens"]
        assert (entry.outcome, entry.billed, entry.stream, entry.model) == ("completed", True, stream, model)


async def test_pipelined_requests_on_one_connection_are_answered_in_turn(caller):
    connection = await Connection.open(caller.address)
    for number in range(3):
        await connection.send("/v1/responses", {"model": f"m{number}", "input": "x", "stream": number == 1})
    replies = [await connection.read() for _ in range(3)]
    await connection.close()
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert replies[2].json()["model"] == "m2"
