from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.simulator.app import Simulator

PATHS = ("/v1/responses", "/v1/chat/completions", "/v1/embeddings")


async def test_unknown_urls_are_refused_in_the_providers_shape(caller):
    for path, method in [
        ("/v1/unknown", "GET"),
        ("/v1/unknown", "POST"),
        ("/", "GET"),
        ("/v1/responses", "GET"),
        ("/v1/responses/x/input_items", "PUT"),
        ("/v1/responses/x", "PUT"),
        ("/v1/models", "POST"),
        ("/simulator/log", "PUT"),
        ("/healthz", "POST"),
    ]:
        reply = await caller.get(path, method)
        assert reply.status == 404, (method, path)
        assert reply.json() == {
            "error": {
                "message": f"Invalid URL ({method} {path})",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }
        }
        assert reply.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"not json", b"[]", b'"text"', b"null", b"\xff\xfe", b"[" * 100_000, b"{} {}"]
)
async def test_a_body_that_is_no_json_object_is_refused(caller, path, body):
    reply = await caller.post(path, body)
    assert reply.status == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    served = await caller.served()
    assert (served.outcome, served.billed, served.status) == ("refused", False, 400)


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": 5}, "model", "invalid_type"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": ["text"]}, "input[0]", "invalid_type"),
        ({"input": [{"content": "x"}]}, "input[0].role", "missing_required_parameter"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": [], "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input[0].content", "invalid_type"),
        ({"input": [{"role": "user", "content": [5]}]}, "input[0].content[0]", "invalid_type"),
        ({"input": [{"role": "user", "content": [{"type": []}]}]}, "input[0].content[0].type", "invalid_type"),
        ({"input": [{"type": {}}]}, "input[0].type", "invalid_type"),
        ({"input": [{"type": None}]}, "input[0].type", "invalid_type"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"top_p": -1}, "top_p", "invalid_value"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"max_output_tokens": 1.5}, "max_output_tokens", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"service_tier": "gold"}, "service_tier", "invalid_value"),
        ({"truncation": "some"}, "truncation", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata", "invalid_type"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata", "object_above_max_properties"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "invalid_value"),
        ({"reasoning": {"effort": 5}}, "reasoning.effort", "invalid_type"),
        ({"reasoning": {"summary": "long"}}, "reasoning.summary", "invalid_value"),
        ({"tools": [{}]}, "tools[0].type", "missing_required_parameter"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"type": "function", "name": "f", "parameters": 5}]}, "tools[0].parameters", "invalid_type"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice", None),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.tools", "missing_required_parameter"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "missing_required_parameter"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x"}}},
            "text.format.schema",
            "missing_required_parameter",
        ),
        ({"background": True, "store": False}, "background", "unsupported_parameter"),
        ({"input": "x [[sim: tokens=x]]"}, "x-sim", "invalid_directive"),
    ],
)
async def test_fields_that_make_no_sense_are_refused(caller, changes, param, code):
    reply = await caller.post("/v1/responses", {"model": "sim-mini", "input": "Hi"} | changes)
    assert reply.status == 400
    error = reply.json()["error"]
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": ""}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": 5}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [5]}]}, "messages[0].tool_calls"),
        ({"n": 0}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [5]}, "tools[0]"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
    ],
)
async def test_chat_fields_that_make_no_sense_are_refused(caller, changes, param):
    body = {"model": "sim-mini", "messages": [{"role": "user", "content": "Hi"}]} | changes
    reply = await caller.post("/v1/chat/completions", body)
    assert reply.status == 400
    assert reply.json()["error"]["param"] == param


async def test_an_unknown_conversation_is_not_found(caller):
    for conversation in ("conv_1", {"id": "conv_1"}):
        reply = await caller.respond(conversation=conversation)
        assert reply.status == 404
        assert "conv_1" in reply.json()["error"]["message"]


async def test_more_than_the_context_window_is_refused(caller):
    reply = await caller.respond(text="a." * 1_000_001)
    assert reply.status == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"


async def answered(path: str, data: bytes, simulator: Simulator | None = None, **scope: Any) -> tuple[int, bytes]:
    """The answer of the bare application to one request."""
    sent: list[dict[str, Any]] = []
    first = [{"type": "http.request", "body": data, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if first:
            return first.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [], **scope}
    await (simulator or Simulator())(whole, receive, send)
    assert sent[-1]["more_body"] is False
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


async def test_a_key_is_asked_for_where_one_is_set(simulator):
    guarded = Simulator(api_key="sk-simulator")
    body = json.dumps({"model": "m", "input": "x"}).encode()
    right = [(b"authorization", b"Bearer sk-simulator")]
    assert (await answered("/v1/responses", body, guarded))[0] == 401
    assert (await answered("/v1/responses", body, guarded, headers=[(b"authorization", b"Bearer sk")]))[0] == 401
    assert (await answered("/v1/responses", body, guarded, headers=right))[0] == 200
    assert (await answered("/simulator/log", b"", guarded, method="GET"))[0] == 401
    assert (await answered("/simulator/log", b"", guarded, method="GET", headers=right))[0] == 200
    assert (await answered("/healthz", b"", guarded, method="GET"))[0] == 200
    assert [entry.outcome for entry in guarded.log] == ["refused", "refused", "completed"]


async def test_a_body_beyond_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr("app.simulator.app.BODY_BYTES_MAX", 100)
    status, body = await answered("/v1/responses", b"x" * 101)
    assert status == 413
    assert "100 bytes" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("depth", [50, 330, 700, 990])
@pytest.mark.parametrize("place", ["tools", "metadata", "text", "instructions", "input", "const"])
@pytest.mark.parametrize("stream", [False, True])
async def test_deep_bodies_are_answered_or_refused(depth, place, stream):
    deep: Any = "x"
    nested = b"[" * depth + b"1" + b"]" * depth
    body: dict[str, Any] = {"model": "m", "input": "x", "stream": stream}
    if place == "tools":
        body["tools"] = [{"type": "function", "name": "f", "parameters": {"deep": "DEEP"}}]
    elif place == "text":
        body["text"] = {"format": {"type": "json_schema", "name": "x", "schema": {"deep": "DEEP"}}}
    elif place == "const":
        body["text"] = {"format": {"type": "json_schema", "name": "x", "schema": {"const": "DEEP"}}}
    elif place == "input":
        body["input"] = [{"type": "something", "deep": "DEEP"}]
    elif place == "instructions":
        body["instructions"] = [{"type": "something", "deep": "DEEP"}]
    else:
        body["metadata"] = "DEEP"
    deep = json.dumps(body).encode().replace(b'"DEEP"', nested)
    status, _ = await answered("/v1/responses", deep)
    assert status in (200, 400)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["", "user", "assistant", "function", "auto", "required", "text", "json_schema", "input_text", "x"]
    ),
    st.text(max_size=8),
)
KEYS = st.sampled_from(
    "type role content text name parameters function format schema tools mode id effort summary enum anyOf $ref "
    "properties required items json_schema output".split()
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
MEMBERS = st.sampled_from(
    "input messages instructions tools tool_choice text reasoning response_format metadata stream_options n stop "
    "dimensions encoding_format previous_response_id include store max_output_tokens max_tokens temperature stream "
    "conversation service_tier top_logprobs".split()
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(PATHS), members=st.dictionaries(MEMBERS, VALUES, max_size=4), well=st.booleans())
def test_no_body_makes_it_fail(path, members, well):
    start = (
        {"model": "sim-mini", "input": "Hi", "messages": [{"role": "user", "content": "Hi"}]}
        if well
        else {"model": "m"}
    )
    status, body = asyncio.run(answered(path, json.dumps(start | members).encode()))
    assert status in (200, 400, 404)
    if status != 200:
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
