"""The ``response`` object and the items in it, member by member as OpenAI sends them."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from app.simulator.generation import Call, Message, Reasoning

if TYPE_CHECKING:
    from app.simulator.generation import Part
    from app.simulator.responses_request import ResponsesBody

ENCRYPTED_REASONING = "reasoning.encrypted_content"


def item_id_of(part: Part, response_id: str, index: int) -> str:
    """The id of an output item: the response's own, under the item's prefix."""
    prefix = "msg" if isinstance(part, Message) else "rs" if isinstance(part, Reasoning) else "fc"
    stem = response_id.removeprefix("resp_")
    return f"{prefix}_{stem[:46]}{index:04x}"


def call_id_of(item_id: str) -> str:
    """The id under which a tool's answer comes back."""
    return f"call_{item_id[-24:]}"


def message_item(item_id: str, message: Message) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "message",
        "status": "completed" if message.complete else "incomplete",
        "content": [content_part(message.text, refusal=message.refusal)],
        "role": "assistant",
    }


def content_part(text: str, *, refusal: bool) -> dict[str, Any]:
    if refusal:
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def call_item(item_id: str, call: Call) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "function_call",
        "status": "completed" if call.complete else "incomplete",
        "arguments": call.arguments,
        "call_id": call_id_of(item_id),
        "name": call.name,
    }


def reasoning_item(item_id: str, texts: list[str], *, encrypted: bool) -> dict[str, Any]:
    item: dict[str, Any] = {"id": item_id, "type": "reasoning"}
    if encrypted:
        digest = hashlib.shake_256(item_id.encode()).digest(120)
        item["encrypted_content"] = f"gAAAAA{base64.urlsafe_b64encode(digest).decode()}"
    item["summary"] = [{"type": "summary_text", "text": text} for text in texts]
    return item


def item_of(part: Part, item_id: str, *, encrypted: bool) -> dict[str, Any]:
    """The finished output item of ``part``."""
    if isinstance(part, Message):
        return message_item(item_id, part)
    if isinstance(part, Call):
        return call_item(item_id, part)
    return reasoning_item(item_id, ["".join(pieces) for pieces in part.summaries], encrypted=encrypted)


def response_object(body: ResponsesBody, response_id: str, created_s: int, *, reasons: bool) -> dict[str, Any]:
    """A response that has begun; what ends it changes members in place and keeps their order."""
    response: dict[str, Any] = {
        "id": response_id,
        "object": "response",
        "created_at": created_s,
        "status": "queued" if body.background else "in_progress",
        "background": body.background is True,
        "completed_at": None,
        "error": None,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "model": body.model,
        "moderation": None,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "presence_penalty": body.presence_penalty or 0.0,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "prompt_cache_retention": body.prompt_cache_retention,
        "reasoning": _reasoning_echo(body, reasons=reasons),
        "safety_identifier": body.safety_identifier,
        "service_tier": body.service_tier or "auto",
        "store": body.stored,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": _PLAIN_TEXT if body.text is None else _text_echo(body.text),
        "tool_choice": "auto" if body.tool_choice is None else body.tool_choice,
        "tools": [_tool_echo(tool) for tool in body.tools] if body.tools else [],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": body.truncation or "disabled",
        "usage": None,
        "user": body.user,
        "metadata": body.metadata or {},
    }
    if body.conversation is not None:
        # There only where the request named one.
        response["conversation"] = {"id": body.conversation_id}
    return response


_PLAIN_TEXT: dict[str, Any] = {"format": {"type": "text"}, "verbosity": "medium"}
_NO_REASONING: dict[str, Any] = {"effort": None, "summary": None}


def _reasoning_echo(body: ResponsesBody, *, reasons: bool) -> dict[str, Any]:
    if body.reasoning is None:
        return {"effort": "medium", "summary": None} if reasons else _NO_REASONING
    effort = body.reasoning.get("effort") or ("medium" if reasons else None)
    return {"effort": effort, "summary": body.reasoning.get("summary")}


def _text_echo(text: dict[str, Any]) -> dict[str, Any]:
    spec = text.get("format") or {"type": "text"}
    if spec.get("type") == "json_schema":
        spec = {
            "type": "json_schema",
            "description": spec.get("description"),
            "name": spec["name"],
            "schema": spec["schema"],
            "strict": spec.get("strict") is True,
        }
    return {"format": spec, "verbosity": text.get("verbosity") or "medium"}


def _tool_echo(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        return tool
    return {
        "type": "function",
        "description": tool.get("description"),
        "name": tool["name"],
        "parameters": tool.get("parameters"),
        "strict": tool.get("strict") is not False,
    }
