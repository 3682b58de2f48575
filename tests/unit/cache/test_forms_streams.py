"""Which streams may be kept, the response at the end of one, and a stream in pieces."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cache.forms import final_response, is_complete, pieces
from app.core.sse import EventReader
from tests.unit.cache.test_forms import (
    BOM,
    COMPLETED,
    CREATED,
    DELTA,
    GOOD,
    ITEM_DONE,
    JSON,
    SSE,
    TELLING,
    chunk,
    keeps_stream,
    message,
    response,
    said,
    stream,
    without,
)

LINE_ENDS = [b"\n", b"\r\n", b"\r"]

# Streams of responses.


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_a_completed_stream_is_kept(line_end, done, named):
    body = stream(*TELLING, done=done, line_end=line_end, named=named)
    assert keeps_stream("responses", body)
    assert keeps_stream("responses", BOM + body)
    assert keeps_stream("responses", b": OPENROUTER PROCESSING" + 2 * line_end + body)
    assert keeps_stream("responses", body + b": bye" + 2 * line_end)
    assert keeps_stream("responses", body + line_end)


KEEPALIVE = {"type": "keepalive", "sequence_number": 3}
UNKNOWN = {"type": "response.note.added", "note": {"error": 1}}
QUEUED = {"type": "response.queued", "response": response(status="queued")}


@pytest.mark.parametrize(
    "events",
    [
        (CREATED, COMPLETED),
        (KEEPALIVE, CREATED, QUEUED, UNKNOWN, ITEM_DONE, KEEPALIVE, COMPLETED),
        (CREATED, {"type": "response.in_progress", "response": None}, COMPLETED),
    ],
)
def test_what_is_unknown_passes(events):
    assert keeps_stream("responses", stream(*events))


FAILED = {"type": "response.failed", "response": response(status="failed")}
INCOMPLETE = {"type": "response.incomplete", "response": response(status="incomplete")}


@pytest.mark.parametrize(
    "events",
    [
        (),
        (CREATED,),
        (COMPLETED,),
        (CREATED, DELTA, ITEM_DONE),
        (CREATED, FAILED),
        (CREATED, INCOMPLETE),
        (CREATED, FAILED, COMPLETED),
        (CREATED, COMPLETED, FAILED),
        (CREATED, COMPLETED, COMPLETED),
        (CREATED, COMPLETED, DELTA),
        (CREATED, COMPLETED, KEEPALIVE),
        (QUEUED, CREATED, COMPLETED),
        (CREATED, {"type": "error", "code": "server_error", "message": "x"}, COMPLETED),
        (CREATED, {"type": "error", "code": "server_error", "message": "x"}),
        (CREATED, {"type": "response.note", "error": {"message": "x"}}, COMPLETED),
        (CREATED, {"type": "response.refusal.delta", "delta": "I"}, COMPLETED),
        (CREATED, {"type": "response.refusal.done", "refusal": "I can't."}, COMPLETED),
        (CREATED, {"delta": "x"}, COMPLETED),
        (CREATED, {"type": 7}, COMPLETED),
        (CREATED, {"type": "response.completed"}),
        (CREATED, {"type": "response.completed", "response": None}),
        (CREATED, {"type": "response.completed", "response": response(message(status="incomplete"))}),
        (CREATED, {"type": "response.completed", "response": response(message(), id="resp_2")}),
        (CREATED, {"type": "response.completed", "response": response(status="failed")}),
        (CREATED, {"type": "response.output_item.added"}, COMPLETED),
        (CREATED, {"type": "response.output_item.done", "item": message(status="incomplete")}, COMPLETED),
        (without(CREATED, "response"), COMPLETED),
        ({**CREATED, "response": {}}, COMPLETED),
    ],
)
def test_a_stream_that_failed_or_refused_is_not_kept(events):
    assert not keeps_stream("responses", stream(*events))


def test_a_stream_whose_end_leaves_the_items_out_is_not_kept():
    assert not keeps_stream("responses", stream(CREATED, ITEM_DONE, {**COMPLETED, "response": response()}))


def test_around_the_end_of_a_stream():
    body = stream(*TELLING)
    done = b"data: [DONE]\n\n"
    assert not keeps_stream("responses", done + body)
    assert not keeps_stream("responses", stream(CREATED) + done + stream(COMPLETED))
    assert not keeps_stream("responses", body + done + done)
    assert not keeps_stream("responses", body + b"data: [done]\n\n")
    assert not keeps_stream("responses", body + b": bye\n")
    assert not keeps_stream("responses", body + b"data: {}")
    assert not keeps_stream("responses", body + b"event: x\n")
    assert not keeps_stream("responses", stream(CREATED) + b"data: {\n\n" + stream(COMPLETED))
    assert not keeps_stream("responses", stream(CREATED) + b"data: \xff\n\n" + stream(COMPLETED))
    assert not keeps_stream("responses", stream(CREATED) + b'event: error\ndata: {"type":"x"}\n\n' + stream(COMPLETED))


# Streams of chat.

CHATTING = (chunk(said(role="assistant")), chunk(said(content="Hi")), chunk(said("stop")))


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize(
    "events",
    [
        CHATTING,
        (chunk(prompt_filter_results=[]), *CHATTING, chunk(usage={"total_tokens": 3}), {"choices": None}),
        (chunk(said(), said(index=1)), chunk(said("stop"), said("tool_calls", 1))),
        (chunk(said("function_call", refusal=None, audio=None, annotations=[])),),
        (chunk({"index": 0, "delta": None, "finish_reason": "stop"}),),
    ],
)
def test_a_chat_stream_is_kept(line_end, events):
    body = stream(*events, done=True, line_end=line_end)
    assert keeps_stream("chat", body)
    assert keeps_stream("chat", b": ping" + 2 * line_end + body + b": ping" + 2 * line_end)
    assert not keeps_stream("responses", body)
    assert not keeps_stream("chat", stream(*events, line_end=line_end))


@pytest.mark.parametrize(
    "events",
    [
        (),
        (chunk(usage={}),),
        (chunk(said(content="Hi")),),
        (*CHATTING, chunk(said(content="x", index=1))),
        (chunk(said("length")),),
        (chunk(said("content_filter")),),
        (chunk(said("")),),
        (chunk(said("stop"), said("length", 1)),),
        (chunk(said(refusal="I")), *CHATTING),
        (chunk(said(audio={"id": "audio_1"})), *CHATTING),
        (chunk(said(annotations=[{"type": "url_citation"}])), *CHATTING),
        (*CHATTING, {"error": {"message": "x"}}),
        (*CHATTING[:2], chunk(said("stop"), error={"message": "x"})),
        ([], *CHATTING),
        (chunk({"delta": {}, "finish_reason": "stop"}),),
        (chunk(said("stop", "0")),),
    ],
)
def test_a_chat_stream_that_broke_off_or_refused_is_not(events):
    assert not keeps_stream("chat", stream(*events, done=True))


def test_a_chat_stream_ends_with_done():
    body = stream(*CHATTING, done=True)
    assert not keeps_stream("chat", body + b"data: [DONE]\n\n")
    assert not keeps_stream("chat", body + stream(CHATTING[0]))
    assert not keeps_stream("chat", b"data: [DONE]\n\n" + body)
    assert not keeps_stream("chat", stream(CHATTING[0]) + b"data: {\n\n" + body)
    assert not keeps_stream("chat", stream(CHATTING[0]) + b'event: error\ndata: {"message":"x"}\n\n' + body)


# Cut and garbled.


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_a_stream_that_is_cut_is_never_kept(line_end):
    for family, body in (
        ("responses", stream(*TELLING, line_end=line_end)),
        ("chat", stream(*CHATTING, done=True, line_end=line_end)),
    ):
        assert keeps_stream(family, body)
        assert not any(keeps_stream(family, body[:at]) for at in range(len(body)))


def test_json_that_is_cut_is_never_kept():
    assert not any(is_complete("responses", "json", 200, JSON, GOOD[:at]) for at in range(len(GOOD)))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["completed", "message", "stop"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("id status output error choices data type response item".split()), inner)
    ),
    max_leaves=12,
)
SEEDS = st.sampled_from([GOOD, stream(*TELLING), stream(*CHATTING, done=True), stream(*TELLING, line_end=b"\r\n")])
PARTS = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b'"', b"{", b"}", b"[", b"null", b"\xff", b"data: ", BOM])


@st.composite
def garbled(draw):
    body = draw(SEEDS)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(PARTS | st.binary(max_size=4)) + body[at + draw(st.integers(0, 5)) :]
    return body


BODIES = st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()) | garbled()
HEADERS = st.sampled_from([JSON, SSE, []]) | st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=20)))


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(["responses", "chat", "embeddings", "models"]),
    st.sampled_from(["json", "stream", "stream.x", ""]),
    HEADERS,
    BODIES,
)
def test_nothing_raises(family, form, headers, body):
    assert is_complete(family, form, 200, headers, body) in (True, False)
    final_response(body)
    assert b"".join(pieces(body)) == body


# The response at the end.


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_the_final_response_is_given_as_it_stands(line_end):
    raw = b'{"id" : "resp_1","n":1.50,"t":"\\u00e9\\/ \xe2\x80\xa8"}'
    final = b'data: {"response":%b , "type":"response.completed"}' % raw
    for before in (b"", BOM, b": hi" + 2 * line_end, stream(CREATED, DELTA, line_end=line_end)):
        assert final_response(before + final + 2 * line_end) == raw
    assert (
        final_response(BOM + stream(*TELLING, done=True, line_end=line_end))
        == json.dumps(COMPLETED["response"]).encode()
    )


def test_without_one_completed_event_there_is_no_final_response():
    assert final_response(b"") is None
    assert final_response(stream(CREATED, DELTA, FAILED)) is None
    assert final_response(stream(CREATED, COMPLETED, COMPLETED)) is None
    assert final_response(stream(CREATED, {"type": "response.completed"})) is None
    assert final_response(stream(CREATED, {"type": "response.completed", "response": None})) is None
    assert final_response(stream(CREATED, COMPLETED)[:-1]) is None
    assert final_response(stream(*CHATTING, done=True)) is None
    assert final_response(GOOD) is None


def test_an_event_of_several_lines_is_one():
    assert final_response(b'data: {"type":"response.completed",\ndata: "response":{}}\n\n') == b"{}"


# Pieces.


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"data: 1\n\ndata: 2\n\n", [b"data: 1\n\n", b"data: 2\n\n"]),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"data: 1\r\n\r\n", b"data: 2\r\n\r\n"]),
        (b"data: 1\r\rdata: 2\r\r", [b"data: 1\r\r", b"data: 2\r\r"]),
        (b"data: 1\r\n\ndata: 2\n\r\ndata: 3\n\r", [b"data: 1\r\n\n", b"data: 2\n\r\n", b"data: 3\n\r"]),
        (b"data: 1\r\r\ndata: 2\r\r\n", [b"data: 1\r\r\n", b"data: 2\r\r\n"]),
        (b"data: a\x0b\x0c\x1c\n\ndata: b\n\n", [b"data: a\x0b\x0c\x1c\n\n", b"data: b\n\n"]),
        (b"data: a\x0b\x0c\x1c\r\n\r\n", [b"data: a\x0b\x0c\x1c\r\n\r\n"]),
        (BOM + b"data: 1\n\ndata: 2\n\n", [BOM + b"data: 1\n\n", b"data: 2\n\n"]),
        (BOM + b"data: 1\r\n\r\ndata: 2\r\n\r\n", [BOM + b"data: 1\r\n\r\n", b"data: 2\r\n\r\n"]),
        (b": ping\n\nevent: x\ndata: 1\ndata: 2\n\n", [b": ping\n\n", b"event: x\ndata: 1\ndata: 2\n\n"]),
        (b"data: 1\n\ndata: 2\n", [b"data: 1\n\n", b"data: 2\n"]),
        (b"data: 1\r\n\r\ndata: 2\r\n", [b"data: 1\r\n\r\n", b"data: 2\r\n"]),
    ],
)
def test_a_stream_is_cut_behind_its_events(body, expected):
    assert pieces(body) == expected


LINES = st.lists(
    st.sampled_from(
        [b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n", b"data: x", b"event: e", b": c", b"\xef\xbb\xbf", b"\x0b"]
    ),
    max_size=40,
).map(b"".join)


@settings(max_examples=500, deadline=None)
@given(LINES)
def test_each_piece_is_whole_and_together_they_are_the_stream(body):
    whole = body + b"\n\n"
    cut = pieces(whole)
    assert b"".join(cut) == whole
    assert all(
        piece.endswith((b"\n\n", b"\r\r", b"\n\r", b"\n\r\n", b"\r\r\n")) or piece in (b"\n", b"\r\n", b"\r")
        for piece in cut
    )
    # No piece begins with what belongs to the line end before it.
    assert all(not (before.endswith(b"\r") and after.startswith(b"\n")) for before, after in pairwise(cut))
    # A reader that gets them one by one reads what another reads at once, and each brings one event at most.
    reader = EventReader()
    brought = [reader.feed(piece) for piece in cut]
    assert [event for events in brought for event in events] == EventReader().feed(whole)
    assert all(len(events) <= 1 for events in brought)


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_the_time_is_linear(line_end):
    for part in (
        line_end,
        b"data: {}" + line_end,
        b"data: {}" + 2 * line_end,
        b"x",
        b'data: {"type":"response.completed"}' + 2 * line_end,
    ):
        body = part * (100_000 // len(part))
        started = time.process_time()
        pieces(body)
        final_response(body)
        keeps_stream("responses", body)
        keeps_stream("chat", body + 2 * line_end)
        is_complete("responses", "json", 200, JSON, body)
        assert time.process_time() - started < 5
