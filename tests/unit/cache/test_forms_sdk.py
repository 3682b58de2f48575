"""Streams made of any answer whose parts are known, against the simulator's, and read by the official SDK over HTTP."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cache.forms import final_response, is_complete, pieces
from app.cache.synthesis import stream_of
from app.core.clock import SystemClock
from app.simulator.generation import Call, Message, Plan, Reasoning
from app.simulator.log import BilledUsage
from app.simulator.responses_answer import ResponsesAnswer
from app.simulator.responses_request import ResponsesBody
from app.simulator.steering import UNSTEERED
from tests.unit.cache.test_forms_recordings import events_of, told
from tests.unit.cache.test_forms_synthesis import (
    CITATIONS,
    LOGPROBS,
    SSE,
    call,
    check,
    made_of,
    message,
    plain,
    reasoning,
    response,
    text,
)

# Any response of what is known.

TEXT = st.text(max_size=12) | st.sampled_from(["\n\n", "data: [DONE]\n\n", "\r", "response.completed", '{"a":"b"}'])
TOKEN = {"token": TEXT, "bytes": st.lists(st.integers(0, 255), max_size=3), "logprob": st.floats(-100, 0)}
LOGPROB = st.fixed_dictionaries({**TOKEN, "top_logprobs": st.lists(st.fixed_dictionaries(TOKEN), max_size=2)})
OUTPUT_TEXT = st.fixed_dictionaries(
    {"type": st.just("output_text"), "annotations": st.lists(st.sampled_from(CITATIONS), max_size=3), "text": TEXT},
    optional={"logprobs": st.lists(LOGPROB, max_size=2) | st.none()},
)
ITEMS = st.lists(
    st.builds(lambda parts: message(*parts), st.lists(OUTPUT_TEXT, min_size=1, max_size=3))
    | st.builds(lambda texts: reasoning(*texts), st.lists(TEXT, max_size=3))
    | st.builds(lambda name, arguments: call(name=name, arguments=arguments), TEXT.filter(bool), TEXT),
    max_size=4,
)


@st.composite
def responses(draw):
    items = draw(ITEMS)
    for at, item in enumerate(items):
        item["id"] += f"{at}"
        if "call_id" in item:
            item["call_id"] += f"{at}"
    members = draw(st.permutations(list(response())))
    value = response(
        *items, instructions=draw(TEXT | st.none()), metadata=draw(st.dictionaries(TEXT, TEXT, max_size=2))
    )
    return {name: value[name] for name in members}


@settings(max_examples=150, deadline=None)
@given(responses())
def test_any_response_of_what_is_known(value):
    check(value)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_nothing_raises_and_what_is_made_says_the_same(data):
    body = json.dumps(
        response(reasoning("x"), call(), message(text(annotations=CITATIONS, logprobs=LOGPROBS)))
    ).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        put = data.draw(st.sampled_from([b"", b"null", b"0", b'"', b"[]", b"{", b"}", b"\xff", b" ", b"\n", b"a"]))
        body = body[:at] + put + body[at + data.draw(st.integers(0, 3)) :]
    made = stream_of(body)
    if made is not None:
        assert is_complete("responses", "stream", 200, SSE, made)
        assert json.loads(final_response(made)) == json.loads(body)


# The simulator tells its answers as OpenAI does.


def test_a_made_stream_is_like_the_simulators():
    parts = [
        Reasoning(5, [["Think", "ing"], ["More"]]),
        Call("get_weather", ['{"city"', ':"Rome"}']),
        Message(["It", " is", " fine."]),
    ]
    body = ResponsesBody(model="gpt-5", input="x", stream=True, store=False, include=["reasoning.encrypted_content"])
    answer = ResponsesAnswer(
        body, Plan(parts, 20, 5, True), BilledUsage(3, 0, 20, 5), UNSTEERED, "resp_1", SystemClock(), None
    )
    simulated = b"".join(b"event: %b\ndata: %b\n\n" % (event.type, event.data) for event in answer.events())
    final = final_response(simulated)
    assert told(events_of(stream_of(final)), [0, 1, 2]) == told(events_of(simulated), [0, 1, 2])
    check(json.loads(final))


# The official SDK over HTTP.


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in (*pieces(self.server.stream), b""):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answering) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def base_url(server):
    return f"http://127.0.0.1:{server.server_address[1]}/v1"


ANSWERS = [
    response(message()),
    response(reasoning("One.", "Two."), call(), message(text(annotations=CITATIONS, logprobs=LOGPROBS), text("more"))),
]


@pytest.mark.parametrize("value", ANSWERS)
def test_the_sdk_reads_it(server, value):
    server.stream = made_of(value)
    with openai.OpenAI(api_key="hg", base_url=base_url(server), max_retries=0) as client:
        with client.responses.create(model="gpt-5", input="x", stream=True) as events:
            told_events = list(events)
        assert [event.to_dict(mode="json") for event in told_events] == events_of(server.stream)
        assert told_events[-1].response.to_dict(mode="json") == value
        with client.responses.stream(model="gpt-5", input="x") as events:
            deltas = [event for event in events if event.type == "response.output_text.delta"]
            final = events.get_final_response()
    texts = [part["text"] for item in value["output"] if item["type"] == "message" for part in item["content"]]
    assert [event.snapshot for event in deltas] == texts
    assert final.output_text == "".join(texts)
    assert plain(final.to_dict(mode="json")) == value


@pytest.mark.parametrize("value", ANSWERS)
async def test_the_async_sdk_reads_it(server, value):
    server.stream = made_of(value)
    async with (
        openai.AsyncOpenAI(api_key="hg", base_url=base_url(server), max_retries=0) as client,
        client.responses.stream(model="gpt-5", input="x") as events,
    ):
        kinds_seen = [event.type async for event in events]
        final = await events.get_final_response()
    assert kinds_seen == [event["type"] for event in events_of(server.stream)]
    assert plain(final.to_dict(mode="json")) == value
