"""The items of a conversation as they are remembered: complete, and with ids."""

from __future__ import annotations

from typing import Any

import msgspec

from app.simulator.identifiers import random_hex

INPUT_PLACE = 0x8000
"""Where the numbers of a response's input items begin; those of its output are below."""
STEM_CHARS = 46
_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "compaction": "cmp",
}
_WITH_STATUS = frozenset({"message", "function_call", "function_call_output"})


def stem_of_response(response_id: str) -> str:
    """What the ids of a response's items have in common."""
    return response_id.removeprefix("resp_")[:STEM_CHARS]


def stem_of_item(item_id: str) -> str:
    """The stem of the response to which an item belongs."""
    return item_id.partition("_")[2][:-4]


def input_items(given: str | list[Any], response_id: str) -> list[dict[str, Any]]:
    """The input of a response as items; their ids follow from the response's."""
    stem = stem_of_response(response_id)
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return [whole_item(item, f"{stem}{INPUT_PLACE + index:04x}") for index, item in enumerate(items)]


def new_items(given: list[Any]) -> list[dict[str, Any]]:
    """Items that come with no response."""
    return [whole_item(item, random_hex(50)) for item in given]


def whole_item(given: dict[str, Any], stem: str) -> dict[str, Any]:
    """``given`` with an id, a type and the members that the API adds."""
    kind = given.get("type") or "message"
    item = {**given, "id": given.get("id") or f"{_PREFIXES.get(kind, 'item')}_{stem}", "type": kind}
    if kind in _WITH_STATUS:
        item.setdefault("status", "completed")
    if kind == "message" and isinstance(item.get("content"), str):
        item["content"] = [_text_part(item)]
    return item


def _text_part(message: dict[str, Any]) -> dict[str, Any]:
    if message.get("role") == "assistant":
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": message["content"]}
    return {"type": "input_text", "text": message["content"]}


def output_items(response: bytes) -> list[dict[str, Any]]:
    """The output of a response that was sent."""
    items: list[dict[str, Any]] = msgspec.json.decode(response)["output"]
    return items


def encoded_input(given: str | list[Any]) -> str | bytes:
    """An input as it is kept: no tree of objects, which would cost several times its size."""
    return given if isinstance(given, str) else msgspec.json.encode(given)


def decoded_input(given: str | bytes) -> str | list[Any]:
    """An input that was kept."""
    return given if isinstance(given, str) else msgspec.json.decode(given, type=list[Any])
