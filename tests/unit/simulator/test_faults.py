"""The steering keys that make things go wrong, over a real socket."""

from __future__ import annotations

import asyncio
import time

import openai
import pytest

from tests.unit.simulator.shapes import check_events, check_response


@pytest.mark.parametrize("stream", [False, True])
async def test_stall_after_stops_and_goes_on(caller, stream):
    begun = time.perf_counter()
    connection = await caller.open(
        "/v1/responses", {"model": "m", "input": "[[sim: stall_after=3 stall_s=0.1]]", "stream": stream}
    )
    reply = await connection.read()
    await connection.close()
    assert reply.whole
    assert time.perf_counter() - begun >= 0.1
    if stream:
        check_events(reply.events())


async def test_stall_after_keeps_the_connection_open(caller):
    connection = await caller.open("/v1/responses", {"model": "m", "input": "[[sim: stall_after=3]]", "stream": True})
    await connection.read_head()
    seen = [await connection.read_chunk() for _ in range(3)]
    assert b"".join(seen).count(b"\n\n") == 3
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(connection.read_chunk(), 0.1)
    assert caller.entries()[0].outcome == "running"
    await connection.close()
    served = await caller.served()
    assert (served.outcome, served.written_events) == ("disconnected", 3)


async def test_mid_stalls_within_an_event(caller):
    connection = await caller.open(
        "/v1/responses", {"model": "m", "input": "[[sim: stall_after=1 mid=1 stall_s=0.1]]", "stream": True}
    )
    await connection.read_head()
    first = await connection.read_chunk()
    half = await connection.read_chunk()
    assert first.endswith(b"\n\n")
    assert half.startswith(b"event: response.in_progress\n")
    assert not half.endswith(b"\n\n")
    rest = await connection.read_chunk()
    assert rest.endswith(b"\n\n")
    await connection.close()


@pytest.mark.parametrize(
    ("steering", "status", "code", "error_class"),
    [
        ("error=400", 400, None, openai.BadRequestError),
        ("error=401", 401, "invalid_api_key", openai.AuthenticationError),
        ("error=404", 404, "model_not_found", openai.NotFoundError),
        ("error=429 retry_after=7", 429, "rate_limit_exceeded", openai.RateLimitError),
        ("error=429 error_code=insufficient_quota", 429, "insufficient_quota", openai.RateLimitError),
        ("error=500", 500, None, openai.InternalServerError),
        ("error=503", 503, None, openai.InternalServerError),
    ],
)
async def test_error_answers_with_a_status(client, simulator, steering, status, code, error_class):
    attempt = f"{steering} {status}"
    with pytest.raises(error_class) as failed:
        await client.responses.create(
            model="sim-mini", input=f"[[sim: {steering}]]", extra_headers={"x-client-request-id": attempt}
        )
    assert (failed.value.status_code, failed.value.code) == (status, code)
    assert failed.value.response.headers.get("retry-after") == ("7" if "retry_after" in steering else None)
    (entry,) = simulator.log.find(wanted_id=attempt)
    assert (entry.outcome, entry.billed, entry.status, entry.error_code) == ("refused", False, status, code)
    assert entry.usage.input_tokens == entry.usage.output_tokens == 0


async def test_billed_says_what_an_error_cost(caller):
    await caller.respond("error=500 billed=1 tokens=5")
    served = await caller.served()
    assert (served.billed, served.usage.output_tokens) == (True, 5)
    assert served.usage.input_tokens > 0
    await caller.respond("billed=0")
    served = await caller.served()
    assert (served.billed, served.usage.output_tokens, served.outcome) == (False, 0, "completed")


async def test_times_makes_a_fault_pass(caller):
    statuses = [(await caller.respond("error=503 times=2 tag=passing")).status for _ in range(3)]
    assert statuses == [503, 503, 200]


@pytest.mark.parametrize("stream", [False, True])
async def test_cut_head_ends_before_any_answer(caller, stream):
    reply = await caller.respond("cut=head tokens=5", stream=stream)
    assert reply.status == 0
    served = await caller.served()
    assert (served.outcome, served.status, served.billed) == ("cut", 0, True)
    assert served.usage.output_tokens == (0 if stream else 5)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("count", [0, 1, 6])
async def test_cut_after_ends_without_an_end(caller, count, how):
    reply = await caller.respond(f"cut_after={count} tokens=20 cut_how={how}", stream=True)
    assert reply.status == 200
    assert not reply.whole
    assert len(reply.events()) == count
    served = await caller.served()
    assert (served.outcome, served.written_events, served.billed) == ("cut", count, True)
    assert served.usage.output_tokens == max(0, count - 4)


async def test_a_reset_is_a_reset(caller):
    connection = await caller.open("/v1/responses", {"model": "m", "input": "[[sim: cut=head cut_how=reset]]"})
    with pytest.raises(ConnectionResetError):
        await connection.reader.read()
    await connection.close()


async def test_cut_after_the_last_event_still_cuts(caller):
    whole = await caller.respond("tokens=3", stream=True)
    count = len(whole.events())
    reply = await caller.respond(f"tokens=3 cut_after={count}", stream=True)
    assert not reply.whole
    assert reply.events()[-1]["type"] == "response.completed"
    assert (await caller.served()).outcome == "cut"


async def test_mid_cuts_within_an_event(caller):
    reply = await caller.respond("cut_after=6 mid=1 tokens=20", stream=True)
    assert not reply.whole
    assert len(reply.chunks) == 7
    assert not reply.chunks[-1].endswith(b"\n\n")
    assert (await caller.served()).usage.output_tokens == 3


@pytest.mark.parametrize("tokens", [1, 4])
async def test_a_cut_within_done_takes_no_tokens_back(caller, tokens):
    messages = [{"role": "user", "content": f"[[sim: tokens={tokens} cut_after={tokens + 3} mid=1]]"}]
    body = {"model": "m", "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    reply = await caller.post("/v1/chat/completions", body)
    assert not reply.whole
    assert reply.chunks[-1].startswith(b"data: [")
    served = await caller.served()
    assert (served.outcome, served.usage.output_tokens) == ("cut", tokens)


async def test_a_cut_within_a_comment_takes_no_tokens_back(caller):
    reply = await caller.respond("unknown_events=1 cut_after=7 mid=1 tokens=20", stream=True)
    assert reply.chunks[-1].startswith(b": k")
    # Of the seven, one is unknown to the model, and four come before its first word.
    assert (await caller.served()).usage.output_tokens == 2


async def test_cut_after_ends_a_body_in_the_middle(caller):
    reply = await caller.respond("cut_after=1 tokens=20")
    assert reply.status == 200
    assert not reply.whole
    assert 0 < len(reply.body) < int(reply.headers["content-length"])
    served = await caller.served()
    assert (served.outcome, served.usage.output_tokens) == ("cut", 20)


@pytest.mark.parametrize("count", [0, 2, 7])
@pytest.mark.parametrize("with_usage", [0, 1])
async def test_fail_after_fails_within_the_stream(caller, count, with_usage):
    reply = await caller.respond(f"fail_after={count} fail_usage={with_usage} tokens=20", stream=True)
    events = reply.events()
    check_events(events)
    assert reply.whole
    assert len(events) == count + 1
    response = check_response(events[-1]["response"])
    assert (events[-1]["type"], response.status, response.error.code) == ("response.failed", "failed", "server_error")
    served = await caller.served()
    generated = max(0, count - 4)
    assert (served.outcome, served.usage.output_tokens, served.billed) == ("failed", generated, True)
    assert (response.usage.output_tokens if with_usage else response.usage) == (generated if with_usage else None)


async def test_fail_after_fails_a_body(caller):
    response = check_response((await caller.respond("fail_after=0")).json())
    assert response.status == "failed"
    assert (await caller.served()).outcome == "failed"
    chat = {"model": "m", "messages": [{"role": "user", "content": "[[sim: fail_after=0]]"}]}
    assert (await caller.post("/v1/chat/completions", chat)).status == 500


async def test_error_event_after_ends_with_an_error_event(caller):
    reply = await caller.respond("error_event_after=5 tokens=20", stream=True)
    events = reply.events()
    check_events(events)
    assert [event["type"] for event in events][-1] == "error"
    assert len(events) == 6
    assert (await caller.served()).outcome == "failed"


async def test_chat_fails_with_an_error_chunk(caller):
    body = {"model": "m", "messages": [{"role": "user", "content": "[[sim: fail_after=3]]"}], "stream": True}
    reply = await caller.post("/v1/chat/completions", body)
    assert len(reply.events()) == 4
    assert reply.events()[-1]["error"]["code"] == "server_error"
    assert b"[DONE]" not in reply.body


async def test_html_and_bad_json_come_with_a_200(caller):
    html = await caller.respond("html=1")
    assert (html.status, html.headers["content-type"]) == (200, "text/html")
    assert b"<h1>" in html.body
    assert (await caller.served()).billed is False
    bad = await caller.respond("badjson=1")
    with pytest.raises(ValueError):
        bad.json()
    assert (await caller.served()).billed is True
    stream = await caller.respond("badjson=1", stream=True)
    with pytest.raises(ValueError):
        stream.events()


async def test_redirect_and_status(caller):
    reply = await caller.respond("redirect=https://example.com/elsewhere")
    assert (reply.status, reply.headers["location"]) == (307, "https://example.com/elsewhere")
    assert (await caller.served()).billed is False
    assert (await caller.respond("redirect=/x status=302")).status == 302
    assert (await caller.respond("status=418")).status == 418
    assert (await caller.respond("status=201", stream=True)).status == 201


async def test_two_terminals(caller):
    reply = await caller.respond("two_terminals=1", stream=True)
    events = reply.events()
    check_events(events)
    assert [event["type"] for event in events][-2:] == ["response.completed"] * 2
    assert events[-1]["response"] == events[-2]["response"]
