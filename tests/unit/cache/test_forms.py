"""Which answers told as JSON may be kept."""

from __future__ import annotations

import json

import pytest

from app.cache.forms import is_complete

JSON = [(b"Content-Type", b"application/json")]
SSE = [(b"content-type", b"text/event-stream; charset=utf-8")]
BOM = b"\xef\xbb\xbf"


# What an upstream says.


def text_part(text="Hello", **members):
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text, **members}


def message(*parts, **members):
    content = list(parts) or [text_part()]
    return {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "content": content,
        "role": "assistant",
        **members,
    }


def response(*items, **members):
    return {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "output": list(items),
        **members,
    }


def without(value, name):
    return {each: value[each] for each in value if each != name}


def stream(*events, done=False, line_end=b"\n", named=True):
    lines: list[bytes] = []
    for event in events:
        if named and isinstance(event, dict) and "type" in event:
            lines.append(f"event: {event['type']}".encode())
        lines += [b"data: " + json.dumps(event).encode(), b""]
    if done:
        lines += [b"data: [DONE]", b""]
    return b"".join(line + line_end for line in lines)


CREATED = {"type": "response.created", "response": response(status="in_progress")}
DELTA = {"type": "response.output_text.delta", "delta": 'data: {"type":"response.completed"}\n\n'}
ITEM_ADDED = {"type": "response.output_item.added", "item": message(status="in_progress", content=[])}
ITEM_DONE = {"type": "response.output_item.done", "item": message()}
COMPLETED = {"type": "response.completed", "response": response(message())}
TELLING = (CREATED, ITEM_ADDED, DELTA, ITEM_DONE, COMPLETED)


def completion(*choices, **members):
    return {"id": "chatcmpl-1", "object": "chat.completion", "choices": list(choices), **members}


def choice(finish_reason="stop", index=0, **said):
    return {"index": index, "finish_reason": finish_reason, "message": {"role": "assistant", "content": "Hi", **said}}


def chunk(*choices, **members):
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": list(choices), **members}


def said(finish_reason=None, index=0, **delta):
    return {"index": index, "delta": delta, "finish_reason": finish_reason}


def keeps_json(family, value):
    return is_complete(family, "json", 200, JSON, json.dumps(value, ensure_ascii=False).encode())


def keeps_stream(family, body):
    return is_complete(family, "stream", 200, SSE, body)


# JSON.


@pytest.mark.parametrize(
    "value",
    [
        response(message()),
        response(),
        response(without(message(), "status")),
        response(message(status=None)),
        response(message(text_part("a"), text_part("b"))),
        response({"type": "reasoning", "id": "rs_1", "summary": []}, message()),
        response({"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text"}]}),
        response({"type": "function_call", "arguments": "{}", "status": "completed", "caller": {"type": "direct"}}),
        response({"type": "custom_tool_call", "input": "x"}),
        response({"type": "apply_patch_call", "status": "completed", "operation": {"type": "delete_file"}}),
        response({"type": "local_shell_call", "status": "completed", "action": {"type": "exec"}}),
        response({"type": "shell_call", "status": "completed", "environment": {"type": "local"}}),
        response({"type": "shell_call", "status": "completed", "environment": None}),
        response(message(), unheard_of={"of": [1, 2.5, "x"]}),
        without(without(response(message()), "error"), "incomplete_details"),
    ],
)
def test_a_completed_response_is_kept(value):
    assert keeps_json("responses", value)


@pytest.mark.parametrize(
    "value",
    [
        *(response(status=status) for status in ("failed", "incomplete", "in_progress", "queued", "cancelled", None)),
        without(response(), "status"),
        response(id=""),
        response(id=None),
        response(id=7),
        without(response(), "id"),
        response(error={"code": "server_error", "message": "x"}),
        response(error={}),
        response(incomplete_details={"reason": "max_output_tokens"}),
        response(output=None),
        response(output={}),
        without(response(), "output"),
        response("message"),
        response({"id": "msg_1"}),
        response(message({"type": "refusal", "refusal": "I can't."})),
        response(message(text_part(), {"type": "refusal", "refusal": ""})),
        response(message({"type": "output_hologram"})),
        response(message(status="incomplete")),
        response(message(status="in_progress")),
        response(message(), {"type": "function_call", "arguments": "{", "status": "incomplete"}),
        response({"type": "function_call", "caller": {"type": "program", "caller_id": "call_1"}}),
        response({"type": "shell_call", "environment": {"type": "container_reference", "container_id": "cntr_1"}}),
        [response()],
        "completed",
        None,
    ],
)
def test_a_response_that_failed_broke_off_or_refused_is_not(value):
    assert not keeps_json("responses", value)


@pytest.mark.parametrize(
    "kind",
    """web_search_call file_search_call code_interpreter_call computer_call mcp_call mcp_list_tools mcp_approval_request
    image_generation_call shell_call_output tool_search_call tool_search_output program program_output compaction
    function_call_output additional_tools of_tomorrow""".split(),
)
def test_items_of_hosted_tools_and_new_ones_are_not_kept(kind):
    assert not keeps_json("responses", response({"type": kind, "id": "x_1", "status": "completed"}, message()))
    items = [
        {"type": f"response.output_item.{step}", "item": {"type": kind, "id": "x_1"}} for step in ("added", "done")
    ]
    for item in items:
        assert not keeps_stream("responses", stream(CREATED, item, ITEM_DONE, COMPLETED))


@pytest.mark.parametrize(
    ("kept", "value"),
    [
        (True, completion(choice())),
        (True, completion(choice("tool_calls", content=None, tool_calls=[{"id": "call_1"}]))),
        (True, completion(choice("function_call"))),
        (True, completion(choice(refusal=None, audio=None, annotations=[]), error=None)),
        (True, completion(choice(), choice("tool_calls", 1))),
        (False, completion()),
        (False, completion(choices=None)),
        (False, {"id": "chatcmpl-1"}),
        (False, completion(choice("length"))),
        (False, completion(choice("content_filter"))),
        (False, completion(choice(None))),
        (False, completion(without(choice(), "finish_reason"))),
        (False, completion(without(choice(), "message"))),
        (False, completion(choice(), choice("length", 1))),
        (False, completion(choice(refusal="I can't."))),
        (False, completion(choice(audio={"id": "audio_1", "expires_at": 1}))),
        (False, completion(choice(annotations=[{"type": "url_citation"}]))),
        (False, completion(choice(), error={"message": "x"})),
        (False, {"error": {"message": "x"}}),
    ],
)
def test_chat_answers(kept, value):
    assert keeps_json("chat", value) is kept


@pytest.mark.parametrize(
    ("kept", "value"),
    [
        (True, {"object": "list", "data": [{"embedding": [0.1, -2e-3]}], "usage": {"prompt_tokens": 1}}),
        (True, {"data": [{"embedding": "AAAA"}], "error": None}),
        (False, {"data": []}),
        (False, {"data": {}}),
        (False, {"data": [{"embedding": [0.1]}], "error": {"message": "x"}}),
        (False, {}),
    ],
)
def test_embeddings(kept, value):
    assert keeps_json("embeddings", value) is kept


GOOD = json.dumps(response(message())).encode()


@pytest.mark.parametrize("status", [201, 202, 204, 206, 0, 100, 301, 400, 429, 500])
def test_only_200_is_kept(status):
    assert is_complete("responses", "json", 200, JSON, GOOD)
    assert not is_complete("responses", "json", status, JSON, GOOD)


@pytest.mark.parametrize(
    ("kept", "headers"),
    [
        (True, [(b"content-type", b"application/json; charset=utf-8")]),
        (True, [(b"x-request-id", b"req_1"), (b"CONTENT-TYPE", b" Application/JSON ")]),
        (True, [(b"content-type", b"application/vnd.server+json")]),
        (False, []),
        (False, [(b"content-type", b"")]),
        (False, [(b"content-type", b"text/html")]),
        (False, [(b"content-type", b"text/event-stream")]),
        (False, [(b"content-type", b"application/jsonl")]),
        (False, [*JSON, *JSON]),
    ],
)
def test_json_says_that_it_is(kept, headers):
    assert is_complete("responses", "json", 200, headers, GOOD) is kept


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        GOOD[:-1],
        GOOD + b"}",
        GOOD + GOOD,
        BOM + GOOD,
        GOOD.replace(b"Hello", b"\xff"),
        GOOD.replace(b"Hello", b"\xed\xa0\x80"),
        GOOD.replace(b"Hello", b"\\ud800"),
        GOOD.replace(b"null", b"NaN", 1),
        GOOD.replace(b"[]", b"[,]", 1),
        b'{"id":' * 100_000,
        b"\x1f\x8b\x08\x00",
        GOOD.decode().encode("utf-16"),
    ],
)
def test_what_is_not_json_is_not_kept(body):
    assert not is_complete("responses", "json", 200, JSON, body)


def test_json_is_no_stream_and_a_stream_no_json():
    body = stream(*TELLING)
    assert is_complete("responses", "stream.3f2a", 200, SSE, body)
    assert not is_complete("responses", "json", 200, SSE, body)
    assert not is_complete("responses", "json", 200, JSON, body)
    assert not is_complete("responses", "stream", 200, JSON, GOOD)
    assert not is_complete("responses", "stream", 200, SSE, GOOD + b"\n\n")
    assert not is_complete("responses", "stream", 200, JSON, body)
    assert not is_complete("responses", "", 200, SSE, body)
    for family in ("models", "", "chat", "embeddings"):
        assert not is_complete(family, "json", 200, JSON, GOOD)
        assert not is_complete(family, "stream", 200, SSE, body)
