"""Where a request names an object that the provider stores.

All teams share one account upstream, so a foreign id in a body would reach another team's data. Only
``previous_response_id`` is checked against its owner so far; any other reference is refused as not
found, wherever it stands.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.codec import JSONObject
from app.core.errors import InvalidJSON, NotFound
from app.core.exchange import Family

# Cheap to look for in the raw bytes: a body without any of them (and without escaped letters, which could
# spell them) names nothing. ``_id`` is in every name of ID_FIELDS.
HINTS = (b"_id", b'"id"', b"item_reference", b"\\u00")
TOOL_HINT = b'"container"'
ID_FIELDS = frozenset(
    (
        "file_id file_ids vector_store_id vector_store_ids container_id skill_id response_id batch_id "
        "approval_request_id"
    ).split()
)
# What an item has beside what it says. With an id and nothing more it stands for the stored one.
BARE_FIELDS = frozenset("id type status role".split())
# A client's own schemas, names and labels: the words in there are not the API's.
OPAQUE_FIELDS = frozenset("parameters schema input_schema metadata arguments json_schema headers".split())
DEPTH_MAX = 128


def refuse_stored_objects(family: Family, body: JSONObject) -> None:
    """Raise NotFound, with the field as ``param``, where ``body`` names a stored object."""
    if family == "responses":
        for field in ("conversation", "prompt"):
            if body.has(field):
                raise _unknown(field)
    source = body.body
    if not _may_name_something(source) and not (body.has("tools") and TOOL_HINT in source):
        return
    try:
        document = msgspec.json.decode(source)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidJSON from error
    if family == "responses":
        _check_items(document.get("input"))
        _check_tools(document.get("tools"))
    for name, value in document.items():
        if name not in OPAQUE_FIELDS:
            _walk(name, value, DEPTH_MAX)


def _may_name_something(source: bytes) -> bool:
    for hint in HINTS:  # noqa: SIM110 - a generator costs as much as the search
        if hint in source:
            return True
    return False


def _check_items(items: Any) -> None:
    if not isinstance(items, list):
        return
    for item in items:
        if not isinstance(item, dict):
            continue
        if item.get("type") == "item_reference":
            raise _unknown("input")
        if item.get("id") is None:
            continue
        says = {name for name, value in item.items() if value is not None} - BARE_FIELDS
        # The image itself is the result; everything else is a request for the stored one.
        if not says or (item.get("type") == "image_generation_call" and "result" not in says):
            raise _unknown("input")


def _check_tools(tools: Any) -> None:
    if not isinstance(tools, list):
        return
    for tool in tools:
        if isinstance(tool, dict) and isinstance(tool.get("container"), str):
            raise _unknown("tools")


def _walk(name: str, value: Any, depth: int) -> None:
    if not depth:
        raise InvalidJSON("The body is nested too deeply.")
    if isinstance(value, dict):
        if isinstance(value.get("audio"), dict) and value.get("role") == "assistant" and value["audio"].get("id"):
            raise _unknown("audio")
        for inner, member in value.items():
            if inner in ID_FIELDS and member not in (None, [], ""):
                raise _unknown(inner)
            if inner not in OPAQUE_FIELDS:
                _walk(inner, member, depth - 1)
    elif isinstance(value, list):
        for member in value:
            _walk(name, member, depth - 1)


def _unknown(field: str) -> NotFound:
    return NotFound(f"The object named in {field} was not found.", param=field)
