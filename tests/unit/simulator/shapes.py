"""The official SDK's models as the measure of every shape."""

from __future__ import annotations

import json
import typing
from typing import Any

from openai.types.responses import Response, ResponseStreamEvent


def _classes() -> dict[str, Any]:
    union = typing.get_args(ResponseStreamEvent)[0]
    return {typing.get_args(member.model_fields["type"].annotation)[0]: member for member in typing.get_args(union)}


EVENT_CLASSES = _classes()

RESPONSE_MEMBERS = {
    "id", "object", "created_at", "status", "background", "completed_at", "error", "frequency_penalty",
    "incomplete_details", "instructions", "max_output_tokens", "max_tool_calls", "model", "moderation", "output",
    "parallel_tool_calls", "presence_penalty", "previous_response_id", "prompt_cache_key", "prompt_cache_retention",
    "reasoning", "safety_identifier", "service_tier", "store", "temperature", "text", "tool_choice", "tools",
    "top_logprobs", "top_p", "truncation", "usage", "user", "metadata",
}  # fmt: skip
"""Of the newest recorded stream, less ``conversation``, which is there only where there is one."""


def check_response(response: dict[str, Any]) -> Response:
    """Every member is there, and the SDK's model takes it without any conversion."""
    assert set(response) == RESPONSE_MEMBERS
    return Response.model_validate_json(_json(response), strict=True)


def check_events(events: list[dict[str, Any]]) -> None:
    """Every event is of its SDK type, numbered from 0 without gaps, from one response."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENT_CLASSES[event["type"]].model_validate_json(_json(event), strict=True)
        if "response" in event:
            check_response(event["response"])
    assert len({event["response"]["id"] for event in events if "response" in event}) == 1


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """The types in order, runs of one type given once."""
    found: list[str] = []
    for event in events:
        if not found or found[-1] != event["type"]:
            found.append(event["type"])
    return found


def _json(value: Any) -> str:
    return json.dumps(value)
