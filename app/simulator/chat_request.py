"""Reads the body of ``POST /chat/completions``."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from app.simulator.conversation import Conversation, turns_of_messages
from app.simulator.errors import refuse_missing, refuse_type, refuse_value
from app.simulator.prompt import (
    NO_TOOLS,
    PLAIN_TEXT,
    OutputFormat,
    Prompt,
    ToolPolicy,
    check_service_tier,
    function_of,
    output_format,
    reasoning_policy,
    tool_policy,
)
from app.simulator.responses_request import Positive, Probability, Temperature
from app.simulator.steering import without_directives
from app.simulator.tokens import count_tokens

STOPS_MAX = 4
CHOICES_MAX = 128


class ChatBody(msgspec.Struct, kw_only=True):
    """What is read of the body; members that are not named here are accepted and ignored."""

    model: str | None = None
    messages: list[Any] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=CHOICES_MAX)] | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.get("include_usage") is True


_DECODER = msgspec.json.Decoder(ChatBody)


def read_chat_body(data: bytes) -> ChatBody:
    """The decoded body, with its simple members checked."""
    body = _DECODER.decode(data)
    if body.model is None or not body.model:
        refuse_missing("model")
    if body.messages is None:
        refuse_missing("messages")
    if not body.messages:
        refuse_value("messages", "Invalid 'messages': empty array. Expected at least one message.", "empty_array")
    if isinstance(body.stop, list) and len(body.stop) > STOPS_MAX:
        refuse_value("stop", f"Invalid 'stop': at most {STOPS_MAX} sequences.", "array_above_max_length")
    check_service_tier(body.service_tier)
    return body


def prompt_of_chat(body: ChatBody) -> Prompt:
    """The prompt of a checked body."""
    model = body.model or ""
    conversation = Conversation(turns_of_messages(body.messages or []))
    asked = conversation.last_of("user")
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Prompt(
        model=model,
        conversation=conversation,
        asked=asked,
        question=without_directives(asked),
        fixed_tokens=_fixed_tokens(body),
        temperature=1.0 if body.temperature is None else body.temperature,
        tokens_max=body.max_completion_tokens or body.max_tokens,
        tools=_tools(body),
        format=_format(body.response_format),
        reasoning=reasoning_policy(
            model, body.reasoning_effort, None, asked=body.reasoning_effort is not None, where="reasoning_effort"
        ),
        stops=stops,
    )


def _fixed_tokens(body: ChatBody) -> int:
    tokens = 0
    if body.tools:
        tokens += count_tokens(msgspec.json.encode(body.tools).decode())
    if body.response_format:
        tokens += count_tokens(msgspec.json.encode(body.response_format).decode())
    return tokens


def _tools(body: ChatBody) -> ToolPolicy:
    if not body.tools and body.tool_choice is None:
        return NO_TOOLS
    functions = [
        function_of(tool.get("function"), f"tools[{index}].function")
        for index, tool in enumerate(body.tools or [])
        if tool.get("type", "function") == "function"
    ]
    return tool_policy(
        functions,
        body.tool_choice,
        tools_given=bool(body.tools),
        parallel=body.parallel_tool_calls is not False,
    )


def _format(spec: dict[str, Any] | None) -> OutputFormat:
    if spec is None:
        return PLAIN_TEXT
    inner = spec.get("json_schema")
    if spec.get("type") == "json_schema":
        if not isinstance(inner, dict):
            refuse_type("response_format.json_schema", "an object", inner)
        return output_format("json_schema", inner.get("schema", {}), "response_format.json_schema")
    return output_format(spec.get("type"), None, "response_format")
