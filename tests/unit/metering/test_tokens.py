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
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cache_write_tokens": 7, "image_tokens": 30, "text_tokens": 70},
                "completion_tokens_details": {"accepted_prediction_tokens": 9, "rejected_prediction_tokens": 8},
            },
            Usage(input_tokens=100, cache_write_tokens=7, input_image_tokens=30, output_tokens=50),
        ),
        (
            {
                "input_tokens": 100,
                "input_tokens_details": {
                    "cache_write_tokens": 9,
                    "cache_write_tokens_details": {"ttl_30m_tokens": 4, "ttl_12h_tokens": 5},
                },
                "output_tokens": 50,
                "output_tokens_details": {"image_tokens": 40, "text_tokens": 10},
            },
            Usage(
                input_tokens=100,
                cache_write_tokens=9,
                cache_write_12h_tokens=5,
                output_tokens=50,
                output_image_tokens=40,
            ),
        ),
        (
            # As transcriptions and the realtime API tell it.
            {
                "input_tokens": 100,
                "input_token_details": {
                    "audio_tokens": 60,
                    "image_tokens": 30,
                    "cached_tokens": 50,
                    "cached_tokens_details": {"audio_tokens": 20, "image_tokens": 10, "text_tokens": 20},
                },
                "output_tokens": 50,
                "output_token_details": {"audio_tokens": 45},
            },
            Usage(
                input_tokens=100,
                cached_tokens=50,
                input_audio_tokens=60,
                cached_audio_tokens=20,
                input_image_tokens=30,
                cached_image_tokens=10,
                output_tokens=50,
                output_audio_tokens=45,
            ),
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
        {"input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 41}},
        {"input_tokens_details": {"audio_tokens": 60, "image_tokens": 41}},
        {"input_tokens_details": {"cached_tokens": 5, "audio_tokens": 9, "cached_tokens_details": {"audio_tokens": 6}}},
        {"input_tokens_details": {"cached_tokens": 9, "audio_tokens": 5, "cached_tokens_details": {"audio_tokens": 6}}},
        {"input_tokens_details": {"image_tokens": -1}},
        {"input_tokens_details": {"cache_write_tokens": 5, "cache_write_tokens_details": {"ttl_12h_tokens": 6}}},
        {"output_tokens_details": {"audio_tokens": 20, "image_tokens": 11}},
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


CALLS = [
    {"type": "web_search_call", "action": {"type": "search", "query": "a"}},
    {"type": "web_search_call", "action": {"type": "open_page", "url": "https://e.org"}},
    {"type": "web_search_call", "action": {"type": "find_in_page", "pattern": "x", "url": "https://e.org"}},
    {"type": "web_search_call"},
    {"type": "file_search_call"},
    {"type": "code_interpreter_call", "container_id": "cntr_1"},
    {"type": "code_interpreter_call", "container_id": "cntr_1"},
    {"type": "code_interpreter_call", "container_id": "cntr_2"},
    {"type": "code_interpreter_call"},
    {"type": "shell_call", "environment": {"type": "container_reference", "container_id": "cntr_2"}},
    {"type": "shell_call", "environment": {"type": "local"}},
    {"type": "shell_call", "environment": {"type": ["?"]}},
    {"type": "image_generation_call", "result": "AAAA"},
    {"type": "function_call", "name": "web_search_call"},
    {"type": "message", "content": [{"type": "output_text", "text": 'a "web_search_call" in words'}]},
    {"type": "mcp_call"},
    {"type": 7},
]
COUNTED = {"web_searches": 2, "file_searches": 1, "code_sessions": 3, "image_calls": 1}


def counts(usage):
    return {name: getattr(usage, name) for name in COUNTED}


def test_calls_that_are_billed_apart_are_counted_from_the_items():
    """A page that is opened is no search, and code runs in a container however often it runs."""
    assert counts(read({"usage": FULL, "output": CALLS}).usage) == COUNTED
    items = [{"type": "response.output_item.done", "item": item} for item in CALLS]
    completed = {"type": "response.completed", "response": {"usage": FULL, "output": []}}
    assert counts(streamed(*items, completed).usage) == COUNTED
    completed["response"]["output"] = CALLS
    assert counts(streamed(*items, completed).usage) == COUNTED


def test_calls_that_are_told_twice_are_counted_once():
    told = {"usage": FULL, "tool_usage": {"web_search": {"num_requests": 1}}}
    created = {"type": "response.created", "response": {"id": "resp_1", **told}}
    ended = {"type": "response.completed", "response": {"usage": None, "tool_usage": told["tool_usage"]}}
    assert streamed(created, ended).usage.web_searches == 1


def test_calls_are_known_of_an_answer_that_told_no_usage():
    reading = read({"usage": None, "status": "failed", "output": CALLS})
    assert (reading.usage, counts(reading.calls)) == (None, COUNTED)


def test_a_call_that_had_begun_may_have_been_billed():
    begun = {"type": "response.output_item.added", "item": {"type": "web_search_call", "status": "in_progress"}}
    done = {"type": "response.output_item.done", "item": CALLS[0]}
    reading = streamed(begun, done, begun)
    assert (reading.calls.web_searches, reading.calls_begun.web_searches) == (1, 2)
    assert streamed(begun).calls == Usage()


@pytest.mark.parametrize(
    ("told", "searches"),
    [({"num_requests": 5}, 5), ({"num_requests": 0}, 0), ({"num_requests": -1}, 2), ({}, 2), (7, 2)],
)
def test_the_number_of_searches_that_were_billed_is_the_upstreams_if_it_tells_one(told, searches):
    usage = read({"usage": FULL, "output": CALLS, "tool_usage": {"web_search": told}}).usage
    assert usage.web_searches == searches


def test_the_version_of_a_search_is_read_from_the_tools():
    preview = [{"type": "function"}, {"type": "web_search_preview_2025_03_11"}]
    usage = read({"usage": FULL, "output": CALLS, "tools": preview}).usage
    assert (usage.web_searches, usage.preview_searches) == (2, 2)
    assert read({"usage": FULL, "output": CALLS, "tools": [{"type": "web_search"}]}).usage.preview_searches == 0
    named = [{"type": "function", "description": "web_search_preview"}]
    assert read({"usage": FULL, "output": CALLS, "tools": named}).usage.preview_searches == 0


@pytest.mark.parametrize(
    ("told", "units"),
    [
        ({"telepathy": {"minutes": 2}}, 1),
        ({"telepathy": {"minutes": 0, "of": [0, {"a": 0}]}}, 0),
        ({"telepathy": {"of": [{"a": 0.5}]}, "more": 1}, 2),
        ({"web_search": {"num_requests": 0}, "image_gen": {"input_tokens": 0}}, 0),
        ("lots", 0),
    ],
)
def test_what_is_billed_apart_and_not_known_is_counted(told, units):
    assert read({"usage": FULL, "tool_usage": told}).usage.unknown_units == units


def test_a_deep_tool_usage_is_taken_for_something():
    deep = 0
    for _ in range(50):
        deep = [deep]
    assert read({"usage": FULL, "tool_usage": {"new": deep}}).usage.unknown_units == 1


@pytest.mark.parametrize(
    "output", [{"a": '_call"'}, ["web_search_call"], [{"type": "web_search_call", "action": 7}], 5]
)
def test_no_output_is_too_strange(output):
    assert read({"usage": FULL, "output": output}).usage.input_tokens == 100


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


CITED = {"type": "container_file_citation", "container_id": "cntr_1", "file_id": "cfile_1"}
OF_CITED = [("container", "cntr_1"), ("container_file", "cfile_1")]


def test_a_cited_file_is_named_as_soon_as_it_is_told():
    event = {"type": "response.output_text.annotation.added", "annotation": CITED}
    assert streamed(event).take_objects() == OF_CITED


def test_a_cited_file_of_a_whole_answer_is_named():
    parts = [{"type": "output_text", "annotations": None}, {"type": "output_text", "annotations": [CITED]}]
    item = {"id": "msg_1", "type": "message", "content": parts}
    assert read({"id": "resp_1", "output": [item]}).take_objects() == [("", "resp_1"), ("item", "msg_1"), *OF_CITED]
    done = streamed({"type": "response.output_item.done", "item": item})
    assert done.take_objects() == [("item", "msg_1"), *OF_CITED]


def test_sound_is_named_by_a_whole_chat_and_by_its_chunks():
    whole = {"id": "c", "choices": [{"message": {"audio": {"id": "audio_1"}}}]}
    assert read(whole).take_objects() == [("", "c"), ("audio", "audio_1")]
    chunk = {"id": "c", "choices": [{"delta": {"audio": {"id": "audio_1", "data": "x"}}}]}
    assert streamed(chunk).take_objects() == [("", "c"), ("audio", "audio_1")]


@pytest.mark.parametrize(
    "kind", ["image_generation.completed", "image_edit.completed", "transcript.text.done", "speech.audio.done"]
)
def test_a_picture_a_transcript_and_a_sound_tell_their_usage_in_their_last_event(kind):
    partial = {"type": "image_generation.partial_image", "b64_json": "AAAA"}
    reading = streamed(partial, {"type": kind, "usage": FULL})
    assert (reading.usage, reading.finished, reading.suspect) == (USAGE, True, False)
    reading = streamed({"type": kind, "usage": None})
    assert (reading.usage, reading.finished) == (None, True)


def test_each_of_several_pictures_tells_what_it_used():
    done = {"type": "image_generation.completed", "usage": FULL}
    assert streamed(done, done).usage == USAGE.plus(USAGE)
    reading = streamed(done, {"type": "image_generation.completed", "usage": {**FULL, "input_tokens": -1}})
    assert (reading.usage, reading.suspect) == (USAGE, True)


@pytest.mark.parametrize(
    ("status", "terminal"), [("completed", "completed"), ("failed", "failed"), ("expired", None), ([], None)]
)
def test_a_streamed_run_tells_how_it_ended_and_what_it_used(status, terminal):
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    step = {"object": "thread.run.step", "id": "step_1", "status": "completed", "usage": usage}
    run = {"object": "thread.run", "id": "run_1", "thread_id": "thread_1", "status": status, "usage": usage}
    reading = streamed(step, run)
    assert (reading.usage, reading.terminal) == (Usage(input_tokens=11, output_tokens=7), terminal)
