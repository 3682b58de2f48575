"""The few fields of a request's body that the gateway needs, read once and checked.

Everything else passes as it came. A field that is read and has the wrong type is refused, so that the
gateway's idea of a request and the upstream's cannot differ.

What makes a request dearer than its bytes of text is looked for in the raw bytes, not decoded: of 1 KB of
messages that takes 1 µs, of 200 KB 70; of fourteen tools (15 KB) 9.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from app.core.codec import JSONObject
from app.core.errors import InvalidRequest
from app.core.exchange import Dialect
from app.core.form import Form

OUTPUT_TOKENS_FIELDS = {
    "responses": ("max_output_tokens",),
    "chat": ("max_completion_tokens", "max_tokens"),
    "embeddings": (),
}
OUTPUT_TOKENS_LARGEST = 10_000_000
OUTPUT_TOKENS_ASSUMED = 16_384
"""Of what has no text to measure: an image, a minute of speech."""
ANSWERS_MAX = 128
PROMPTS_MAX = 2048
MODELS_ASSUMED = {"images": "dall-e-2", "videos": "sora-2"}
"""What the API takes where a request names no model; other families are then called by their own name."""
END_USER_CHARS_MAX = 256
TOOL_CALLS_LARGEST = 100_000
TOOL_NAME_CHARS_MAX = 64
CLIENT_TOOLS = frozenset("function custom apply_patch local_shell computer computer_use_preview namespace".split())
"""Tools that the client runs: each call ends the response, so they cost no more than their tokens."""
OPEN_ENDED = ("prompt", "multi_agent")
"""Members of a Responses body that bring in what only the provider knows: tools, or further agents."""
DEAR_MEMBERS = {
    "responses": frozenset({"tools", "max_tool_calls", "conversation", "prompt_cache_options", *OPEN_ENDED}),
    "chat": frozenset("tools web_search_options audio modalities prediction prompt_cache_options".split()),
}
"""Without any of these, and with nothing in its input, a request is plain."""

# Input that its bytes do not measure, and items that bring tools. In the canonical form a text cannot contain these
# words with their quotation marks: there they stand behind backslashes.
_UNMEASURED = re.compile(
    rb'"(?:i(?:nput_(?:image|file|audio)|mage_url|tem_reference)|computer_screenshot|file'
    rb'|additional_tools|tool_search_output)"'
)
_IMAGES = {"responses": (b'"input_image"', b'"computer_screenshot"'), "chat": (b'"image_url"',)}
_UNSEEN = {"responses": (b'"input_file"', b'"item_reference"'), "chat": (b'"file"',)}
_AUDIO = b'"input_audio"'
_BRING_TOOLS = (b'"additional_tools"', b'"tool_search_output"')
_LIST = ord("[")


class _Tool(msgspec.Struct):
    type: Any = None
    environment: Any = None
    execution: Any = None


class Extent(msgspec.Struct, frozen=True):
    """What makes a request dearer than its bytes of text.

    ``unseen``: it has the model read what is not in the body, or not by its bytes (files, stored items).
    ``tools`` are the types of those that the provider runs, each once; ``max_tool_calls`` bounds their
    calls. ``prediction_bytes``: of a predicted output, which is billed where it is wrong. ``kept_12h``: what
    is written to the cache is to be kept for twelve hours. ``open_ended`` names a member that nothing bounds.
    """

    images: int = 0
    unseen: bool = False
    audio_input: bool = False
    audio_output: bool = False
    tools: tuple[str, ...] = ()
    max_tool_calls: int | None = None
    prediction_bytes: int = 0
    kept_12h: bool = False
    open_ended: str | None = None


PLAIN = Extent()
"""Text in, text out, and no tools but the client's own."""


class Peek(msgspec.Struct, frozen=True):
    """What a body asks for, as far as the gateway must know.

    ``stores``: what it makes is kept upstream, and can be named again. ``background``: it goes on after the answer.
    """

    model: str
    model_span: tuple[int, int]
    stream: bool
    output_tokens_max: int | None
    answers: int
    end_user: str | None
    service_tier: str | None
    previous_response_id: str | None
    stores: bool
    reasons: bool
    extent: Extent = PLAIN
    background: bool = False


def refuse_own_id(body: JSONObject) -> None:
    """Some servers let a client choose its answer's id: it could choose another team's. Raises InvalidRequest."""
    if body.has("request_id"):
        raise InvalidRequest("The id of an answer is the upstream's to give.", param="request_id")


def peek(dialect: Dialect, body: JSONObject) -> Peek:
    """Read ``body``. Raises InvalidRequest with the field's name as ``param``."""
    model = body.get_str("model")
    if model is None:
        raise InvalidRequest("The request names no model.", param="model")
    refuse_own_id(body)
    return Peek(
        model=model,
        model_span=body.span_of("model"),
        stream=dialect != "embeddings" and bool(body.get_bool("stream")),
        output_tokens_max=_output_tokens_max(dialect, body),
        answers=_answers(dialect, body),
        end_user=_end_user(body),
        service_tier=body.get_str("service_tier"),
        previous_response_id=body.get_str("previous_response_id") if dialect == "responses" else None,
        stores=body.get_bool("store") is not False if dialect == "responses" else body.value.get("store") is True,
        background=dialect == "responses" and bool(body.get_bool("background")),
        reasons=body.has("reasoning") or body.has("reasoning_effort"),
        extent=_responses_extent(body)
        if dialect == "responses"
        else _chat_extent(body)
        if dialect == "chat"
        else PLAIN,
    )


def peek_other(family: str, body: JSONObject | Form | None) -> Peek:
    """What a request of a family asks for whose cost its body does not bound. Raises InvalidRequest."""
    model, stream, end_user, answers = MODELS_ASSUMED.get(family, family), False, None, 1
    span = (0, 0)
    if isinstance(body, Form):
        field = body.find("model")
        if field is not None:
            model, span = body.text("model") or "", (field.start, field.end)
        stream = body.text("stream") in {"true", "1", "True"}
        end_user = body.text("user")
    elif body is not None:
        named = body.get_str("model")
        if named is not None:
            model, span = named, body.span_of("model")
        stream = bool(body.get_bool("stream")) or body.get_str("stream_format") == "sse"
        end_user = _end_user(body)
        answers = _count_of(body, "n")
    return Peek(
        model=model,
        model_span=span,
        stream=stream,
        output_tokens_max=OUTPUT_TOKENS_ASSUMED,
        answers=answers,
        end_user=None if not end_user else end_user[:END_USER_CHARS_MAX],
        service_tier=None,
        previous_response_id=None,
        stores=True,
        reasons=False,
        extent=Extent(open_ended=family),
    )


def _count_of(body: JSONObject, name: str) -> int:
    value = body.get_int(name)
    if value is not None and not 1 <= value <= ANSWERS_MAX:
        raise InvalidRequest(f"{name} must be between 1 and {ANSWERS_MAX}.", param=name)
    return value or 1


def _output_tokens_max(dialect: Dialect, body: JSONObject) -> int | None:
    if dialect == "embeddings":
        return 0
    limits = []
    for field in OUTPUT_TOKENS_FIELDS.get(dialect, ()):
        value = body.get_int(field)
        if value is None:
            continue
        if not 1 <= value <= OUTPUT_TOKENS_LARGEST:
            raise InvalidRequest(f"{field} must be between 1 and {OUTPUT_TOKENS_LARGEST}.", param=field)
        limits.append(value)
    return max(limits, default=None)


def _answers(dialect: Dialect, body: JSONObject) -> int:
    if dialect != "chat":
        return 1
    answers = _count_of(body, "n")
    if "prompt" not in body.members:
        return answers
    # The older completions: so many for each prompt, or more of which the best are told.
    prompts = body.value.get("prompt")
    many = len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1
    if many > PROMPTS_MAX:
        raise InvalidRequest(f"prompt may hold at most {PROMPTS_MAX} texts.", param="prompt")
    return max(answers, _count_of(body, "best_of")) * many


def _end_user(body: JSONObject) -> str | None:
    for field in ("safety_identifier", "user"):
        value = body.get_str(field)
        if value:
            return value[:END_USER_CHARS_MAX]
    return None


def _responses_extent(body: JSONObject) -> Extent:
    found = _unmeasured(body, "input")
    if not found and DEAR_MEMBERS["responses"].isdisjoint(body.members):
        return PLAIN
    calls_max = body.get_int("max_tool_calls")
    if calls_max is not None and not 0 <= calls_max <= TOOL_CALLS_LARGEST:
        raise InvalidRequest(f"max_tool_calls must be between 0 and {TOOL_CALLS_LARGEST}.", param="max_tool_calls")
    open_ended = next((name for name in OPEN_ENDED if body.has(name)), None)
    return Extent(
        images=_count(found, _IMAGES["responses"]),
        unseen=body.has("conversation") or open_ended is not None or _count(found, _UNSEEN["responses"]) > 0,
        audio_input=_AUDIO in found,
        tools=_hosted_tools(body, also_in="input" if _count(found, _BRING_TOOLS) else ""),
        max_tool_calls=calls_max,
        kept_12h=_is_kept_12h(body),
        open_ended=open_ended,
    )


def _chat_extent(body: JSONObject) -> Extent:
    found = _unmeasured(body, "messages")
    if not found and DEAR_MEMBERS["chat"].isdisjoint(body.members):
        return PLAIN
    searches = ("web_search",) if body.has("web_search_options") else ()
    return Extent(
        # Each image has the word twice: as its type, and as the name of what holds its address.
        images=-(-_count(found, _IMAGES["chat"]) // 2),
        unseen=_count(found, _UNSEEN["chat"]) > 0,
        audio_input=_AUDIO in found,
        audio_output=body.has("audio") or _names_audio(body),
        tools=(*_hosted_tools(body), *searches),
        prediction_bytes=len(body.raw("prediction")),
        kept_12h=_is_kept_12h(body),
    )


EXTENTS: dict[Dialect, Callable[[JSONObject], Extent]] = {"responses": _responses_extent, "chat": _chat_extent}


def _unmeasured(body: JSONObject, name: str) -> list[bytes]:
    """The words in the member ``name`` that stand for input which its bytes do not measure."""
    raw = body.members.get(name)
    if raw is None:
        return []
    view = memoryview(raw)
    if view[0] != _LIST:
        return []
    if not body.canonical and b"\\u" in bytes(view):
        # Letters may be spelled as escapes, and the words with them.
        view = memoryview(msgspec.json.encode(msgspec.json.decode(raw)))
    return _UNMEASURED.findall(view)


def _count(found: list[bytes], words: tuple[bytes, ...]) -> int:
    return sum(found.count(word) for word in words) if found else 0


def _hosted_tools(body: JSONObject, also_in: str = "") -> tuple[str, ...]:
    """The types of the tools that the provider runs; one that is not known is taken for such. ``also_in``: a member
    whose items bring some too.
    """
    if not also_in and not body.has("tools"):
        return ()
    brought = body.value.get(also_in)
    lists = [body.value.get("tools"), *(item.get("tools") for item in brought or () if isinstance(item, dict))]
    try:
        tools = [tool for each in lists if each is not None for tool in msgspec.convert(each, list[_Tool])]
    except ValueError:
        raise InvalidRequest("tools must be an array of objects.", param="tools") from None
    hosted = {_name(tool) for tool in tools if not _runs_at_client(tool)}
    return tuple(sorted(hosted)) if hosted else ()


def _name(tool: _Tool) -> str:
    return tool.type[:TOOL_NAME_CHARS_MAX] if isinstance(tool.type, str) else "?"


def _runs_at_client(tool: _Tool) -> bool:
    kind = tool.type
    if kind == "shell":
        return isinstance(tool.environment, dict) and tool.environment.get("type") == "local"
    if kind == "tool_search":
        return bool(tool.execution == "client")
    return isinstance(kind, str) and kind in CLIENT_TOOLS


def _is_kept_12h(body: JSONObject) -> bool:
    options = _decoded(body, "prompt_cache_options")
    return isinstance(options, dict) and options.get("ttl") == "12h"


def _names_audio(body: JSONObject) -> bool:
    modalities = _decoded(body, "modalities")
    return isinstance(modalities, list) and "audio" in modalities


def _decoded(body: JSONObject, name: str) -> Any:
    raw = body.members.get(name)
    return None if raw is None else msgspec.json.decode(raw)
