"""Streams made of JSON answers: the official SDK takes them, and puts them together to the answer that they were."""

from __future__ import annotations

import copy
import json

import openai
import pytest
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from app.cache.forms import final_response, is_complete, pieces
from app.cache.synthesis import stream_of
from app.core.sse import EventReader
from tests.unit.simulator.shapes import EVENT_CLASSES

SSE = [(b"content-type", b"text/event-stream")]
STREAM_EVENT = TypeAdapter(ResponseStreamEvent)

NO_TOOLS_USED = {
    "image_gen": {
        "input_tokens": 0,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        "total_tokens": 0,
    },
    "web_search": {"num_requests": 0},
}
CITATIONS = [
    {
        "type": "url_citation",
        "start_index": 0,
        "end_index": 3,
        "title": "A \u201ctitle\u201d",
        "url": "https://a.example/",
    },
    {"type": "file_citation", "file_id": "file_1", "filename": "a.txt", "index": 2},
    {"type": "file_path", "file_id": "file_1", "index": 2},
    {
        "type": "container_file_citation",
        "container_id": "cntr_1",
        "file_id": "cfile_1",
        "filename": "a.png",
        "start_index": 0,
        "end_index": 3,
    },
]
TOOL = {"type": "function", "name": "f", "description": None, "parameters": {"type": "object"}, "strict": True}
LOGPROBS = [
    {
        "token": "Hel",
        "bytes": [72, 101, 108],
        "logprob": -1e-07,
        "top_logprobs": [{"token": "Ho", "logprob": -2.5, "bytes": [72, 111]}],
    },
    {"token": "lo", "bytes": [], "logprob": 0.0, "top_logprobs": []},
]


def text(value="Hello", **members):
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": value, **members}


def message(*parts, **members):
    content = list(parts) or [text()]
    return {"id": "msg_1", "type": "message", "status": "completed", "content": content, "role": "assistant", **members}


def reasoning(*summaries, **members):
    summary = [{"type": "summary_text", "text": each} for each in summaries]
    return {
        "id": "rs_1",
        "type": "reasoning",
        "content": [],
        "encrypted_content": "gAAAA",
        "summary": summary,
        **members,
    }


def call(**members):
    return {
        "id": "fc_1",
        "type": "function_call",
        "status": "completed",
        "arguments": '{"city":"Zürich"}',
        "call_id": "call_1",
        "name": "get_weather",
        **members,
    }


def response(*items, **members):
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_785_273_853,
        "status": "completed",
        "background": False,
        "completed_at": 1_785_273_855,
        "error": None,
        "frequency_penalty": 0.0,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "gpt-5.5-2026-04-23",
        "moderation": None,
        "output": list(items),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "medium", "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": 0.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tool_usage": NO_TOOLS_USED,
        "tools": [],
        "top_p": 0.98,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 12,
            "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 14,
        },
        "user": None,
        "metadata": {"a": "b"},
        **members,
    }


def without(value, *names):
    return {name: each for name, each in value.items() if name not in names}


def plain(value):
    """What the SDK made of an answer, less what it adds to it."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items() if name not in {"parsed", "parsed_arguments"}}
    return [plain(each) for each in value] if isinstance(value, list) else value


def made_of(value):
    made = stream_of(json.dumps(value).encode())
    assert made is not None
    return made


def put_together(events):
    """The output as a client follows it, from the smallest steps on; each ``done`` must say what is there."""
    output = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        item = output[event["output_index"]] if "output_index" in event and kind != "output_item.added" else None
        if item is not None and "item_id" in event:
            assert item["id"] == event["item_id"]
        if kind == "output_item.added":
            assert event["output_index"] == len(output)
            output.append(copy.deepcopy(event["item"]))
        elif kind == "output_item.done":
            assert {**item, "status": "completed"} == {**event["item"], "status": "completed"}
            output[event["output_index"]] = event["item"]
        elif kind == "content_part.added":
            assert event["content_index"] == len(item["content"])
            item["content"].append(copy.deepcopy(event["part"]))
        elif kind == "reasoning_summary_part.added":
            assert event["summary_index"] == len(item["summary"])
            item["summary"].append(copy.deepcopy(event["part"]))
        elif kind == "output_text.delta":
            part = item["content"][event["content_index"]]
            part["text"] += event["delta"]
            if "logprobs" in part and part["logprobs"] is not None:
                part["logprobs"] += event["logprobs"]
        elif kind == "output_text.annotation.added":
            annotations = item["content"][event["content_index"]]["annotations"]
            assert event["annotation_index"] == len(annotations)
            annotations.append(event["annotation"])
        elif kind == "reasoning_summary_text.delta":
            item["summary"][event["summary_index"]]["text"] += event["delta"]
        elif kind == "function_call_arguments.delta":
            item["arguments"] += event["delta"]
        elif kind == "output_text.done":
            part = item["content"][event["content_index"]]
            assert (part["text"], part.get("logprobs") or []) == (event["text"], event["logprobs"])
        elif kind == "content_part.done":
            assert item["content"][event["content_index"]] == event["part"]
        elif kind == "reasoning_summary_text.done":
            assert item["summary"][event["summary_index"]]["text"] == event["text"]
        elif kind == "reasoning_summary_part.done":
            assert item["summary"][event["summary_index"]] == event["part"]
        elif kind == "function_call_arguments.done":
            assert item["arguments"] == event["arguments"]
        else:
            assert kind in {"created", "in_progress", "completed"}
    return output


def check(value):
    """Everything that holds of a made stream."""
    made = made_of(value)
    # Framing.
    assert is_complete("responses", "stream", 200, SSE, made)
    events = EventReader().feed(made)
    assert b"\r" not in made
    assert len(pieces(made)) == len(events)
    assert b"".join(b"event: %b\ndata: %b\n\n" % (event.event, event.data) for event in events) == made
    told_events = [json.loads(event.data) for event in events]
    assert [event.event.decode() for event in events] == [each["type"] for each in told_events]
    assert [each["sequence_number"] for each in told_events] == list(range(len(events)))
    # The response at its beginning and at its end.
    assert json.loads(final_response(made)) == value
    assert list(json.loads(final_response(made))) == list(value)
    created, in_progress, *_, completed = told_events
    assert [each["type"] for each in told_events if "response" in each] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]
    began = {"status": "in_progress", "output": [], "usage": None, "completed_at": None}
    assert created["response"] == {name: began.get(name, each) for name, each in value.items()}
    assert list(created["response"]) == list(value)
    assert in_progress["response"] == created["response"]
    assert completed["response"] == value
    assert put_together(told_events) == value["output"]
    assert not [each for each in told_events if each.get("delta") == "" and not each.get("logprobs")]
    # The SDK.
    for each in told_events:
        EVENT_CLASSES[each["type"]].model_validate_json(json.dumps(each), strict=True)
        assert STREAM_EVENT.validate_python(each).type == each["type"]
    state = ResponseStreamState(input_tools=openai.omit, text_format=openai.omit)
    for each in told_events:
        state.handle_event(STREAM_EVENT.validate_python(each))
    assert plain(state._completed_response.to_dict(mode="json")) == value
    return told_events


def kinds(events):
    return [event["type"].removeprefix("response.") for event in events]


def test_a_message():
    assert kinds(check(response(message()))) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_reasoning_calls_and_messages():
    events = check(response(reasoning("One.", "Two."), call(), message(phase="final_answer")))
    assert kinds(events)[2:17] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
    ]
    assert events[2]["item"] == reasoning()


def test_citations_and_logprobs():
    events = check(response(message(text(annotations=CITATIONS, logprobs=LOGPROBS), text("more"))))
    assert kinds(events)[3:11] == [
        "content_part.added",
        "output_text.delta",
        *["output_text.annotation.added"] * 4,
        "output_text.done",
        "content_part.done",
    ]
    assert events[3]["part"] == text("")
    assert events[4]["logprobs"] == events[9]["logprobs"] == LOGPROBS


@pytest.mark.parametrize(
    "value",
    [
        response(),
        response(message(text(""))),
        response(message(without(text(), "logprobs"))),
        response(message(text(logprobs=None))),
        response(message(phase=None), message(phase="commentary", id="msg_2")),
        response(reasoning()),
        response(without(reasoning(""), "content", "encrypted_content")),
        response(reasoning("x", content=None, encrypted_content=None, status=None)),
        response(call(arguments="", caller=None)),
        response(call(), call(id="fc_2", call_id="call_2")),
        without(response(message()), "usage", "completed_at", "background", "tool_usage", "metadata"),
        response(message(), usage=None, moderation=None, never_heard_of=None),
        response(
            message(text('\u2028\u0085\x00\x1f\\"\U0001f600 data: x\n\nevent: y\r\n')), tools=[{"type": "web_search"}]
        ),
    ],
)
def test_members_that_may_be_missing_null_or_empty(value):
    check(value)


UNKNOWN_ITEMS = [
    {
        "type": "custom_tool_call",
        "id": "ctc_1",
        "call_id": "call_1",
        "name": "sql",
        "input": "x",
        "status": "completed",
    },
    {"type": "local_shell_call", "id": "lsh_1", "call_id": "call_1", "status": "completed", "action": {"type": "exec"}},
    {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    {"type": "of_tomorrow", "id": "x_1"},
    message(new_member=1),
    message(phase="new"),
    message(role="user"),
    message(status=None),
    message(status="incomplete"),
    without(message(), "status"),
    without(message(), "role"),
    message(id=""),
    without(message(), "id"),
    {**message(), "content": []},
    message({"type": "refusal", "refusal": "No."}),
    message({"type": "output_hologram"}),
    message({"type": "reasoning_text", "text": "x"}),
    message(text(new_member=1)),
    message(text(value=None)),
    message(text(annotations=None)),
    message(without(text(), "annotations")),
    message(text(annotations=[{"type": "of_tomorrow"}])),
    message(text(annotations=[{**CITATIONS[0], "new_member": 1}])),
    message(text(annotations=[without(CITATIONS[0], "title")])),
    message(text(logprobs=[{"token": "x"}])),
    message(text(logprobs=[{**LOGPROBS[0], "new_member": 1}])),
    message(text(logprobs=[{**LOGPROBS[0], "bytes": None}])),
    message(text(logprobs=[without(LOGPROBS[0], "bytes")])),
    reasoning(content=[{"type": "reasoning_text", "text": "x"}]),
    reasoning(status="completed"),
    reasoning(new_member=1),
    {**reasoning(), "summary": None},
    {**reasoning(), "summary": [{"type": "summary_hologram", "text": "x"}]},
    call(id=None),
    without(call(), "id"),
    without(call(), "status"),
    without(call(), "call_id"),
    call(arguments={}),
    call(namespace="crm"),
    call(caller={"type": "direct"}),
    call(**{"async": True}),
]


@pytest.mark.parametrize("item", UNKNOWN_ITEMS)
def test_an_item_whose_stream_is_not_known_beyond_doubt_gives_none(item):
    assert stream_of(json.dumps(response(item)).encode()) is None
    assert stream_of(json.dumps(response(message(id="msg_9"), item)).encode()) is None


@pytest.mark.parametrize(
    "value",
    [
        response(message(), background=True),
        response(message(), moderation={"input": {}}),
        response(message(), conversation={"id": "conv_1"}),
        response(message(), of_tomorrow=False),
        response(message(), output_text=""),
        response(message(), tool_usage={"web_search": {"num_requests": 1}}),
        response(message(), tool_usage={"image_gen": {"total_tokens": 10}, "web_search": {"num_requests": 0}}),
        response(message(), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        response(message(), status="in_progress"),
        response(message(), error={"code": "server_error", "message": "x"}),
        response(message(), object="response.compaction"),
        response(message(), id=""),
        without(response(message()), "id"),
        without(response(message()), "created_at"),
        without(response(message()), "model"),
        without(response(message()), "tools"),
        without(response(message()), "tool_choice"),
        without(response(message()), "parallel_tool_calls"),
        response(message(), message()),
        response(message(), reasoning(id="msg_1")),
        response(call(), call(id="fc_2")),
        [response(message())],
        {"error": {"message": "x"}},
        None,
    ],
)
def test_a_response_whose_stream_is_not_known_beyond_doubt_gives_none(value):
    assert stream_of(json.dumps(value).encode()) is None


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, json.dumps(response(message()))[:-1].encode()])
def test_what_is_not_json_gives_none(body):
    assert stream_of(body) is None


def test_numbers_escapes_and_spaces():
    body = (
        json.dumps(response(message(text("caf\u00e9/\U0001f600"))), indent=2)
        .replace("0.98", "9.80E-1")
        .replace("/", "\\/")
    )
    made = stream_of(body.encode())
    assert made == stream_of(body.encode().replace(b"\n", b"\r\n\t"))
    final = final_response(made)
    assert json.loads(final) == json.loads(body)
    assert b'"top_p":9.80E-1,' in final
    assert b'"text":"caf\\u00e9\\/\\ud83d\\ude00"' in final
    assert stream_of(final) == made
