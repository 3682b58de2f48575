"""Reads the body of ``POST /responses``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from app.simulator.conversation import Conversation, turns_of_input
from app.simulator.errors import RequestRefused, refuse_missing, refuse_type, refuse_value
from app.simulator.prompt import (
    NO_TOOLS,
    PLAIN_TEXT,
    FunctionTool,
    OutputFormat,
    Prompt,
    ReasoningPolicy,
    ToolPolicy,
    check_service_tier,
    function_of,
    output_format,
    reasoning_policy,
    tool_policy,
)
from app.simulator.steering import without_directives
from app.simulator.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

METADATA_MEMBERS_MAX = 16

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class ResponsesBody(msgspec.Struct, kw_only=True):
    """What is read of the body; members that are not named here are accepted and ignored."""

    model: str | None = None
    input: str | list[Any] | None = None
    instructions: str | list[Any] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    store: bool | None = None
    background: bool | None = None
    conversation: str | dict[str, Any] | None = None
    previous_response_id: str | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = None
    max_output_tokens: Positive | None = None
    max_tool_calls: Positive | None = None
    parallel_tool_calls: bool | None = None
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    truncation: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    @property
    def stored(self) -> bool:
        return self.store is not False

    @property
    def conversation_id(self) -> str | None:
        given = self.conversation
        return given.get("id") if isinstance(given, dict) else given


_DECODER = msgspec.json.Decoder(ResponsesBody)


def read_responses_body(data: bytes) -> ResponsesBody:
    """The decoded and checked body."""
    body = _DECODER.decode(data)
    check_responses_body(body)
    return body


def check_responses_body(body: ResponsesBody) -> None:
    """Raise for what can be said of a body without looking at the conversation."""
    if body.model is None or not body.model:
        refuse_missing("model")
    if body.input is None and body.previous_response_id is None and body.conversation is None:
        refuse_missing("input")
    if body.background and not body.stored:
        refuse_value("background", "Background mode requires 'store' to be true.", "unsupported_parameter")
    if body.conversation is not None:
        _check_conversation(body)
    if body.truncation not in (None, "auto", "disabled"):
        refuse_value("truncation", f"Invalid value: '{body.truncation}'. Supported values are: 'auto', 'disabled'.")
    if body.metadata is not None and len(body.metadata) > METADATA_MEMBERS_MAX:
        refuse_value("metadata", "Invalid 'metadata': at most 16 members.", "object_above_max_properties")
    check_service_tier(body.service_tier)


def read_counted_body(data: bytes) -> ResponsesBody:
    """The decoded body of a request that only counts: nothing has to be there."""
    body = _DECODER.decode(data)
    if body.conversation is not None:
        _check_conversation(body)
    return body


def _check_conversation(body: ResponsesBody) -> None:
    if not isinstance(body.conversation_id, str):
        refuse_type("conversation.id", "a string", body.conversation_id)
    if body.previous_response_id is not None:
        message = (
            "Mutually exclusive parameters: Ensure you are only providing one of: 'previous_response_id' or "
            "'conversation'."
        )
        refuse_value("previous_response_id", message, "mutually_exclusive_parameters")


def prompt_of(
    body: ResponsesBody, find: Callable[[str], Conversation | None], previous: Conversation | None = None
) -> Prompt:
    """The prompt of a checked body, that goes on from ``previous``.

    ``find`` knows the conversation of an earlier response.
    """
    model = body.model or ""
    if body.previous_response_id is not None:
        previous = find(body.previous_response_id)
        if previous is None:
            raise RequestRefused(
                400,
                f"Previous response with id '{body.previous_response_id}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
    conversation = Conversation(turns_of_input(body.input or []), previous)
    asked = conversation.last_of("user")
    instructions = _instructions_text(body.instructions)
    tools = _tools(body)
    format_ = _format(body.text)
    return Prompt(
        model=model,
        conversation=conversation,
        asked=asked,
        question=without_directives(asked),
        instructions=instructions,
        fixed_tokens=_fixed_tokens(body, instructions),
        temperature=1.0 if body.temperature is None else body.temperature,
        tokens_max=body.max_output_tokens,
        tools=tools,
        format=format_,
        reasoning=_reasoning(model, body.reasoning),
    )


def _instructions_text(instructions: str | list[Any] | None) -> str:
    if instructions is None or isinstance(instructions, str):
        return instructions or ""
    return "\n".join(turn.text for turn in turns_of_input(instructions))


def _fixed_tokens(body: ResponsesBody, instructions: str) -> int:
    tokens = count_tokens(instructions)
    if body.tools:
        tokens += count_tokens(msgspec.json.encode(body.tools).decode())
    if body.text and "format" in body.text:
        tokens += count_tokens(msgspec.json.encode(body.text["format"]).decode())
    return tokens


def _tools(body: ResponsesBody) -> ToolPolicy:
    if not body.tools and body.tool_choice is None:
        return NO_TOOLS
    functions: list[FunctionTool] = []
    for index, tool in enumerate(body.tools or []):
        kind = tool.get("type")
        if not isinstance(kind, str):
            refuse_missing(f"tools[{index}].type")
        if kind == "function":
            functions.append(function_of(tool, f"tools[{index}]"))
    return tool_policy(
        functions,
        body.tool_choice,
        tools_given=bool(body.tools),
        parallel=body.parallel_tool_calls is not False,
    )


def _format(text: dict[str, Any] | None) -> OutputFormat:
    spec = text.get("format") if text else None
    if spec is None:
        return PLAIN_TEXT
    if not isinstance(spec, dict):
        refuse_type("text.format", "an object", spec)
    if spec.get("type") == "json_schema" and not isinstance(spec.get("name"), str):
        refuse_missing("text.format.name")
    return output_format(spec.get("type"), spec.get("schema"), "text.format")


def _reasoning(model: str, spec: dict[str, Any] | None) -> ReasoningPolicy | None:
    effort, summary = (
        (spec.get("effort"), spec.get("summary") or spec.get("generate_summary")) if spec else (None, None)
    )
    for name, value in (("effort", effort), ("summary", summary)):
        if value is not None and not isinstance(value, str):
            refuse_type(f"reasoning.{name}", "a string", value)
    return reasoning_policy(model, effort, summary, asked=spec is not None, where="reasoning.effort")
