"""The steering keys that shape an answer, over a real socket."""

from __future__ import annotations

import gzip
import time
import zlib

import pytest

from app.simulator.tokens import count_tokens
from tests.unit.simulator.shapes import check_events, check_response, kinds
from tests.unit.simulator.wire_client import events_in


def deltas(events) -> list[str]:
    return [event["delta"] for event in events if event["type"] == "response.output_text.delta"]


@pytest.mark.parametrize("where", ["header", "model", "prompt", "array", "parts"])
async def test_a_directive_works_wherever_it_stands(caller, where):
    body = {"model": "sim-mini", "input": "Hi"}
    headers = {}
    if where == "header":
        headers = {"x-sim": "tokens=9"}
    elif where == "model":
        body["model"] = "sim-mini@tokens=9"
    elif where == "prompt":
        body["input"] = "Hi [[sim: tokens=9]]"
    elif where == "array":
        body["input"] = [{"role": "user", "content": "before"}, {"role": "user", "content": "Hi [[sim: tokens=9]]"}]
    else:
        body["input"] = [{"role": "user", "content": [{"type": "input_text", "text": "Hi [[sim: tokens=9]]"}]}]
    reply = (await caller.post("/v1/responses", body, headers)).json()
    assert reply["usage"]["output_tokens"] == 9
    assert reply["model"] == body["model"]


async def test_only_the_last_user_text_of_the_request_steers(client):
    first = await client.responses.create(model="sim-mini", input="Hi [[sim: tokens=9]]")
    second = await client.responses.create(model="sim-mini", input="2+2", previous_response_id=first.id)
    assert second.usage.output_tokens == 6


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tokens", [0, 1, 50, 3000])
async def test_tokens_sets_the_length_exactly(caller, tokens, stream):
    reply = await caller.respond(f"tokens={tokens}", stream=stream)
    response = reply.events()[-1]["response"] if stream else reply.json()
    text = check_response(response).output_text
    assert response["usage"]["output_tokens"] == tokens == count_tokens(text)
    if stream:
        assert len(deltas(reply.events())) == tokens
    assert (await caller.served()).usage.output_tokens == tokens


async def test_reasoning_sets_the_thought(caller):
    reply = await caller.respond("reasoning=100 tokens=5", stream=True)
    check_events(reply.events())
    usage = reply.events()[-1]["response"]["usage"]
    assert usage["output_tokens"] == 105
    assert usage["output_tokens_details"]["reasoning_tokens"] == 100
    assert (await caller.served()).usage.reasoning_tokens == 100
    none = check_response((await caller.respond("reasoning=0", model="o3")).json())
    assert [item.type for item in none.output] == ["message"]


async def test_cached_sets_the_cached_tokens(caller):
    reply = (await caller.respond("cached=5")).json()
    assert reply["usage"]["input_tokens_details"]["cached_tokens"] == 5
    assert (await caller.served()).usage.cached_tokens == 5
    reply = (await caller.respond("cached=5000")).json()
    assert reply["usage"]["input_tokens_details"]["cached_tokens"] == reply["usage"]["input_tokens"]


async def test_event_bytes_makes_one_long_delta(caller):
    reply = await caller.respond("event_bytes=100000 tokens=3", stream=True)
    events = reply.events()
    check_events(events)
    assert max(map(len, deltas(events))) == 100_000
    assert len(deltas(events)) == 4
    response = check_response(events[-1]["response"])
    assert response.usage.output_tokens == count_tokens(response.output_text)


async def test_repeat_id_sets_the_response_id(caller):
    for _ in range(2):
        reply = await caller.respond("repeat_id=resp_again", stream=True)
        assert reply.events()[0]["response"]["id"] == "resp_again"
    assert (await caller.served()).response_id == "resp_again"


async def test_first_ms_delays_the_head_and_head_ms_the_first_event(caller):
    connection = await caller.open(
        "/v1/responses", {"model": "m", "input": "[[sim: first_ms=80 head_ms=80]]", "stream": True}
    )
    begun = time.perf_counter()
    await connection.read_head()
    after_head = time.perf_counter()
    await connection.read_chunk()
    after_event = time.perf_counter()
    await connection.close()
    assert after_head - begun >= 0.075
    assert after_event - after_head >= 0.075


@pytest.mark.parametrize("stream", [False, True])
async def test_pace_ms_delays_each_token(caller, stream):
    begun = time.perf_counter()
    reply = await caller.respond("pace_ms=5 tokens=20", stream=stream)
    assert reply.whole
    assert 0.09 <= time.perf_counter() - begun < 5


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("size", [37, 200])
async def test_chunk_slices_the_bytes(caller, stream, size):
    reply = await caller.respond(f"chunk={size} chunk_ms=0 tokens=5", stream=stream)
    assert reply.whole
    assert all(len(chunk) == size for chunk in reply.chunks[:-1])
    if stream:
        check_events(reply.events())
    else:
        check_response(reply.json())


@pytest.mark.parametrize("framing", ["lf", "crlf", "cr", "line", "split", "one"])
async def test_framing_sets_line_ends_and_writes(caller, framing):
    reply = await caller.respond(f"framing={framing} tokens=3 chunk_ms=0", stream=True)
    check_events(reply.events())
    count = len(reply.events())
    body = reply.body
    assert (b"\r\n" in body, b"\r" in body) == (framing == "crlf", framing in ("crlf", "cr"))
    expected = {"line": 3 * count, "split": 2 * count, "one": 1}.get(framing, count)
    assert len(reply.chunks) == expected
    assert (await caller.served()).written_events == count


async def test_bom_comes_first(caller):
    assert (await caller.respond("bom=1", stream=True)).body.startswith(b"\xef\xbb\xbfevent: ")
    assert (await caller.respond("bom=1")).body.startswith(b"\xef\xbb\xbf{")


async def test_no_event_lines_leaves_only_data(caller):
    reply = await caller.respond("no_event_lines=1", stream=True)
    check_events(reply.events())
    assert b"event: " not in reply.body


async def test_content_encoding_compresses_or_lies(caller):
    reply = await caller.respond("content_encoding=gzip")
    assert reply.headers["content-encoding"] == "gzip"
    assert b'"object":"response"' in gzip.decompress(reply.body)
    stream = await caller.respond("content_encoding=gzip", stream=True)
    check_events(events_in(zlib.decompress(stream.body, 31)))
    lie = await caller.respond("content_encoding=br")
    assert lie.headers["content-encoding"] == "br"
    check_response(lie.json())


@pytest.mark.parametrize(
    "lie", ["missing", "null", "negative", "float", "string", "huge", "zero", "cached_above_input"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_usage_may_be_a_lie_and_the_log_is_not(caller, lie, stream):
    reply = await caller.respond(f"usage={lie} tokens=8", stream=stream)
    response = reply.events()[-1]["response"] if stream else reply.json()
    usage = response.get("usage")
    assert ("usage" in response) == (lie != "missing")
    tokens = usage["output_tokens"] if usage else None
    expected = {"negative": -7, "float": 8.5, "string": "8", "huge": 10**12, "zero": 0, "cached_above_input": 8}
    assert tokens == expected.get(lie)
    if lie == "cached_above_input":
        assert usage["input_tokens_details"]["cached_tokens"] > usage["input_tokens"]
    assert (await caller.served()).usage.output_tokens == 8


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
@pytest.mark.parametrize("lie", ["missing", "null", "huge", "cached_above_input"])
async def test_usage_may_be_a_lie_elsewhere(caller, path, lie):
    text = f"[[sim: usage={lie}]]"
    reply = (
        await caller.post(path, {"model": "m", "input": text, "messages": [{"role": "user", "content": text}]})
    ).json()
    if lie in ("missing", "null"):
        assert reply.get("usage") is None
    else:
        assert max(reply["usage"]["prompt_tokens"], _cached(reply["usage"])) > 100


def _cached(usage) -> int:
    return usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)


async def test_unknown_events_and_comments_come_in_between(caller):
    reply = await caller.respond("unknown_events=1 tokens=9", stream=True)
    events = reply.events()
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "response.simulator_note.added" in kinds(events)
    assert b"\n: keep-alive\n\n" in reply.body
    assert events[-1]["type"] == "response.completed"
    assert (await caller.served()).written_events == len(events)


async def test_the_sdk_reads_over_unknown_events(client):
    stream = await client.responses.create(model="m", input="2+2 [[sim: unknown_events=1 bom=1]]", stream=True)
    seen = [event.type async for event in stream]
    assert seen[-1] == "response.completed"


async def test_done_is_added_and_left_out(caller):
    assert (await caller.respond("done=1", stream=True)).body.endswith(b"data: [DONE]\n\n")
    body = {"model": "m", "messages": [{"role": "user", "content": "[[sim: done=0]]"}], "stream": True}
    assert b"[DONE]" not in (await caller.post("/v1/chat/completions", body)).body


async def test_headers_are_set(caller):
    reply = await caller.respond("header_set-cookie=a=b header_openai-organization=org-1")
    assert (reply.headers["set-cookie"], reply.headers["openai-organization"]) == ("a=b", "org-1")


async def test_chat_takes_the_same_directives(caller):
    steering = "unknown_events=1 two_terminals=1 tokens=9 event_bytes=50"
    body = {"model": "m", "messages": [{"role": "user", "content": f"[[sim: {steering}]]"}], "stream": True}
    reply = await caller.post("/v1/chat/completions", body)
    events = reply.events()
    known = [event for event in events if event["object"] == "chat.completion.chunk"]
    assert len(known) < len(events)
    assert [event["choices"][0]["finish_reason"] for event in known][-2:] == ["stop", "stop"]
    assert max(len(event["choices"][0]["delta"].get("content", "")) for event in known) == 50
    assert b": keep-alive" in reply.body
    assert reply.body.endswith(b"data: [DONE]\n\n")
    body["messages"][0]["content"] = "[[sim: error_event_after=2]]"
    assert "error" in (await caller.post("/v1/chat/completions", body)).events()[-1]


async def test_bodies_are_delayed_and_sliced_with_pauses(caller):
    begun = time.perf_counter()
    reply = await caller.respond("head_ms=30 chunk=400 chunk_ms=10 tokens=1")
    assert time.perf_counter() - begun >= 0.04
    check_response(reply.json())
    failed = await caller.post("/v1/embeddings", {"model": "m", "input": "[[sim: fail_after=0]]"})
    assert failed.status == 500


async def test_a_client_may_leave_a_sliced_body(caller):
    connection = await caller.open("/v1/responses", {"model": "m", "input": "[[sim: chunk=10 chunk_ms=20]]"})
    await connection.read_head()
    await connection.read_chunk()
    await connection.close()
    assert (await caller.served()).outcome == "disconnected"
    connection = await caller.open(
        "/v1/responses", {"model": "m", "input": "[[sim: chunk=10 chunk_ms=20]]", "stream": True}
    )
    await connection.read_head()
    await connection.read_chunk()
    await connection.close()
    assert (await caller.served()).outcome == "disconnected"
