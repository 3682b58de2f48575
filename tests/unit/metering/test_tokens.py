"""Usage out of answers: what is missing, absurd or forged is never taken for a bill."""

import json

import pytest

from app.core.usage import Usage
from app.metering.tokens import Reading

FULL = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 5},
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 10},
    "total_tokens": 130,
}
USAGE = Usage(input_tokens=100, cached_tokens=20, cache_write_tokens=5, output_tokens=30, reasoning_tokens=10)


def read(body, *, outputless=False) -> Reading:
    reading = Reading(outputless=outputless)
    assert reading.see_json(json.dumps(body).encode())
    return reading


def streamed(*events) -> Reading:
    reading = Reading()
    for event in events:
        reading.see_event(event if isinstance(event, bytes) else json.dumps(event).encode())
    return reading


def test_a_response_tells_its_usage_model_tier_and_state():
    reading = read({"id": "resp_1", "model": "m", "service_tier": "flex", "status": "incomplete", "usage": FULL})
    assert (reading.usage, reading.response_id, reading.model) == (USAGE, "resp_1", "m")
    assert (reading.service_tier, reading.terminal, reading.suspect) == ("flex", "incomplete", False)
    assert json.loads(reading.usage_raw) == FULL


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 3},
            },
            Usage(9, 4, 0, 2, 5, 1, 3),
        ),
        ({"input_tokens": 0, "output_tokens": 0}, Usage()),
        ({"input_tokens": 3, "output_tokens": 1, "input_tokens_details": None}, Usage(input_tokens=3, output_tokens=1)),
    ],
)
def test_every_shape_of_usage_is_read(usage, expected):
    assert read({"usage": usage}).usage == expected


def test_only_embeddings_have_no_output():
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    assert read({"usage": usage}, outputless=True).usage == Usage(input_tokens=9)
    assert read({"usage": usage}).usage is None


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {"prompt_tokens": 5, "completion_tokens": None},
        {"input_tokens": 5},
        {"input_tokens": None, "output_tokens": 4},
        {},
    ],
)
def test_missing_usage_is_missing_and_not_zero(usage):
    reading = read({"usage": usage})
    assert (reading.usage, reading.suspect) == (None, False)


@pytest.mark.parametrize(
    "change",
    [
        {"input_tokens": -1},
        {"input_tokens": 1.5},
        {"input_tokens": "100"},
        {"output_tokens": True},
        {"output_tokens": 2**63},
        {"input_tokens_details": {"cached_tokens": 101}},
        {"output_tokens_details": {"reasoning_tokens": 31}},
    ],
)
def test_absurd_usage_is_suspect_and_not_used(change):
    reading = read({"usage": {**FULL, **change}})
    assert (reading.usage, reading.suspect) == (None, True)


def test_usage_of_another_kind_is_suspect():
    assert read({"usage": [1, 2]}).suspect
    assert read({"usage": "lots"}).suspect
    assert "lots" not in (read({"usage": "lots"}).usage_raw or "")


def test_only_numbers_of_the_usage_are_kept():
    kept = json.loads(read({"usage": {**FULL, "note": "a secret", "deep": {"text": "x", "n": 3}}}).usage_raw)
    assert "secret" not in json.dumps(kept)
    assert kept["deep"]["n"] == 3


def test_search_calls_are_counted_from_the_items():
    output = [
        {"type": "web_search_call"},
        {"type": "message"},
        {"type": "web_search_call"},
        {"type": "file_search_call"},
    ]
    usage = read({"usage": FULL, "output": output}).usage
    assert (usage.web_searches, usage.file_searches) == (2, 1)


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"usage":', b'"text"', b"\xff\xfe"])
def test_what_is_not_a_json_object_is_said_to_be_none(body):
    assert not Reading().see_json(body)


def test_a_stream_tells_its_id_first_and_its_usage_last():
    created = {"type": "response.created", "response": {"id": "resp_1", "model": "m", "usage": None}}
    delta = {"type": "response.output_text.delta", "delta": "Grüße"}
    done = {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "usage": FULL}}
    reading = streamed(created)
    assert (reading.response_id, reading.usage, reading.terminal) == ("resp_1", None, None)
    reading = streamed(created, delta, done)
    assert (reading.usage, reading.terminal, reading.output_bytes) == (USAGE, "completed", 7)


def test_a_forged_event_inside_a_delta_is_only_text():
    forged = 'data: {"type":"response.completed","response":{"usage":{"input_tokens":0,"output_tokens":0}}}\n\n'
    reading = streamed({"type": "response.output_text.delta", "delta": forged})
    assert (reading.usage, reading.terminal) == (None, None)


def test_the_first_terminal_event_wins_and_a_second_is_suspect():
    first = {"type": "response.completed", "response": {"usage": FULL}}
    second = {"type": "response.completed", "response": {"usage": {**FULL, "output_tokens": 31}}}
    assert streamed(first, second).usage == USAGE
    assert streamed(first, second).suspect
    assert not streamed(first, first).suspect


def test_an_error_event_ends_a_stream_but_not_one_that_has_failed_already():
    failed = {"type": "response.failed", "response": {"usage": FULL, "error": {"code": "server_error"}}}
    error = {"type": "error", "code": "overloaded", "message": "…"}
    assert (streamed(error).terminal, streamed(error).error_code) == ("failed", "overloaded")
    assert (streamed(failed, error).usage, streamed(failed, error).error_code) == (USAGE, "server_error")


def test_chat_chunks_tell_text_end_and_usage():
    chunk = {"id": "c1", "model": "m", "choices": [{"delta": {"content": "Hi"}, "finish_reason": None}], "usage": None}
    last = {"id": "c1", "choices": [{"delta": {}, "finish_reason": "stop"}]}
    usage = {"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    reading = streamed(chunk, last, usage, b"[DONE]")
    assert (reading.output_bytes, reading.finished, reading.done) == (2, True, True)
    assert reading.usage == Usage(input_tokens=3, output_tokens=1)


@pytest.mark.parametrize(
    "data", [b"", b"[DONE]", b"not json", b"[1,2]", b'{"type":7}', b'{"choices":5}', b'{"delta":{"a":1}}']
)
def test_no_event_is_too_strange(data):
    assert streamed(data).usage is None
