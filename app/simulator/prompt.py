"""What an answer is generated from: the same for responses and chat completions."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from app.simulator.conversation import Conversation
from app.simulator.errors import RequestRefused, refuse_missing, refuse_type, refuse_value

REASONING_MODELS = ("o1", "o3", "o4", "gpt-5", "sim-reasoning")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
SUMMARIES = ("auto", "concise", "detailed")
SERVICE_TIERS = ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")


class FunctionTool(msgspec.Struct, frozen=True):
    """A function that the model may ask for."""

    name: str
    parameters: dict[str, Any]


class ToolPolicy(msgspec.Struct, frozen=True):
    """Which functions there are, and whether one must be called."""

    functions: tuple[FunctionTool, ...] = ()
    mode: Literal["none", "auto", "required"] = "auto"
    parallel: bool = True


NO_TOOLS = ToolPolicy()


class OutputFormat(msgspec.Struct, frozen=True):
    """Text, any JSON object, or JSON of a schema."""

    kind: Literal["text", "json_object", "json_schema"] = "text"
    schema: dict[str, Any] = {}


PLAIN_TEXT = OutputFormat()


class ReasoningPolicy(msgspec.Struct, frozen=True):
    """How much the model thinks, and in how many parts it tells what it thought."""

    effort: str = "medium"
    summary_parts: int = 1


class Prompt(msgspec.Struct, frozen=True):
    """One request to generate from.

    ``asked`` is its last user text, ``question`` the same without directives.
    """

    model: str
    conversation: Conversation
    asked: str
    question: str
    instructions: str = ""
    fixed_tokens: int = 0
    temperature: float = 1.0
    tokens_max: int | None = None
    tools: ToolPolicy = NO_TOOLS
    format: OutputFormat = PLAIN_TEXT
    reasoning: ReasoningPolicy | None = None
    stops: tuple[str, ...] = ()

    @property
    def input_tokens(self) -> int:
        """The whole chain, and the instructions, tools and schema of this request."""
        return self.conversation.tokens + self.fixed_tokens


def reasoning_policy(
    model: str, effort: str | None, summary: str | None, *, asked: bool, where: str
) -> ReasoningPolicy | None:
    """Whether and how this request reasons; ``where`` is the field that holds the effort."""
    if effort is not None and effort not in EFFORTS:
        refuse_value(where, f"Invalid value: '{effort}'. Supported values are: {_listed(EFFORTS)}.")
    if summary is not None and summary not in SUMMARIES:
        refuse_value("reasoning.summary", f"Invalid value: '{summary}'. Supported values are: {_listed(SUMMARIES)}.")
    if effort == "none" or not (asked or model.startswith(REASONING_MODELS)):
        return None
    return ReasoningPolicy(effort or "medium", 2 if summary == "detailed" else 1)


def check_service_tier(tier: str | None) -> None:
    """Raise for a tier that does not exist."""
    if tier is not None and tier not in SERVICE_TIERS:
        refuse_value("service_tier", f"Invalid value: '{tier}'. Supported values are: {_listed(SERVICE_TIERS)}.")


def served_tier(asked: str | None) -> str:
    """The tier that a request is served in."""
    return "default" if asked is None or asked == "auto" else asked


def function_of(spec: object, where: str) -> FunctionTool:
    """A function's name and parameters, from where either API puts them."""
    if not isinstance(spec, dict):
        refuse_type(where, "an object", spec)
    name = spec.get("name")
    if not isinstance(name, str) or not name:
        refuse_missing(f"{where}.name")
    parameters = spec.get("parameters") or {}
    if not isinstance(parameters, dict):
        refuse_type(f"{where}.parameters", "an object", parameters)
    return FunctionTool(name, parameters)


def tool_policy(functions: list[FunctionTool], choice: object, *, tools_given: bool, parallel: bool) -> ToolPolicy:
    """The functions that this request may or must call."""
    if choice is None or choice == "auto":
        return ToolPolicy(tuple(functions), "auto", parallel) if functions else NO_TOOLS
    if choice == "none":
        return ToolPolicy(tuple(functions), "none", parallel)
    if choice == "required":
        if not tools_given:
            refuse_value("tool_choice", "Tool choice 'required' must be specified with 'tools' parameter.")
        return ToolPolicy(tuple(functions), "required", parallel)
    if not isinstance(choice, dict):
        refuse_value("tool_choice", "Invalid value for 'tool_choice'.")
    return _named_policy(functions, choice, parallel=parallel)


def _named_policy(functions: list[FunctionTool], choice: dict[str, Any], *, parallel: bool) -> ToolPolicy:
    kind = choice.get("type")
    if kind == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        specs = allowed.get("tools") if isinstance(allowed, dict) else None
        if not isinstance(specs, list):
            refuse_missing("tool_choice.tools")
        names = {_chosen_name(spec) for spec in specs}
        mode: Literal["required", "auto"] = "required" if allowed.get("mode") == "required" else "auto"
        return ToolPolicy(tuple(tool for tool in functions if tool.name in names), mode, parallel)
    if kind != "function":
        # A hosted or custom tool: none of them is simulated, so the model just answers.
        return ToolPolicy(tuple(functions), "none", parallel)
    name = _chosen_name(choice)
    named = tuple(tool for tool in functions if tool.name == name)
    if not named:
        raise RequestRefused(
            400, f"Tool choice 'function' not found in 'tools' parameter: {name!r}.", param="tool_choice"
        )
    return ToolPolicy(named, "required", parallel=False)


def _chosen_name(spec: object) -> str | None:
    if not isinstance(spec, dict):
        return None
    inner = spec.get("function")
    name = inner.get("name") if isinstance(inner, dict) else spec.get("name")
    return name if isinstance(name, str) else None


def output_format(kind: object, schema: object, where: str) -> OutputFormat:
    """The format asked for; ``schema`` matters to json_schema only."""
    if kind is None or kind == "text":
        return PLAIN_TEXT
    if kind == "json_object":
        return OutputFormat("json_object")
    if kind != "json_schema":
        refuse_value(
            f"{where}.type", f"Invalid value: '{kind}'. Supported values are: 'text', 'json_object', 'json_schema'."
        )
    if not isinstance(schema, dict):
        refuse_missing(f"{where}.schema")
    return OutputFormat("json_schema", schema)


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(f"'{value}'" for value in values)
