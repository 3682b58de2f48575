"""Items of a turn: as they are kept, as they are sent again, and as they are listed. Their bytes stay as they came."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from app.core.codec import JSONObject
from app.core.errors import InvalidRequest
from app.core.splices import Splice, spliced
from app.state.turn import Turn

_STRING, _LIST = ord('"'), ord("[")
_MESSAGE = b'{"type":"message","role":"user","content":'
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


class _Response(msgspec.Struct):
    output: msgspec.Raw = msgspec.Raw(b"")


class _Answered(msgspec.Struct):
    model: Any = None


class _Item(msgspec.Struct):
    type: Any = None
    encrypted_content: Any = None
    content: Any = None


_response_decoder = msgspec.json.Decoder(_Response)
_model_decoder = msgspec.json.Decoder(_Answered)
_array_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_item_decoder = msgspec.json.Decoder(_Item)
_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def own_items(body: JSONObject) -> bytes:
    """The items of a request's own input, a text as the message that it stands for. Raises InvalidRequest."""
    raw = body.raw("input")
    if not raw:
        return b""
    if raw[0] == _STRING:
        return _MESSAGE + raw + b"}"
    if raw[0] == _LIST:
        return raw[1:-1].strip()
    raise InvalidRequest("input must be a string or an array.", param="input")


def replay_of(turn: Turn, upstreams: Collection[str], stateless: Collection[str]) -> bytes:
    """What of a turn is sent again, to ``upstreams``: its input, and the response's output. ``stateless`` are those
    that keep nothing.

    Reasoning goes to no other upstream than the one that made it or was told it, and only where it can be read there:
    encrypted, or in full. What an upstream knows by its id alone it would not find, and a summary is for people. One
    that keeps its own could find by its id what is another team's: nobody has looked for it when it was told. A
    compaction is its maker's likewise; what it stands for is sent anyway.
    """
    to_maker = turn.upstream in stateless and set(upstreams) <= {turn.upstream}
    content = turn.content
    own = content.input if to_maker else _without_reasoning(content.input)
    parts = [own] if own else []
    for item in output_of(content.response):
        data = bytes(item)
        if _is_of_maker(data) and not _is_replayed(item, to_maker=to_maker):
            continue
        parts.append(data)
    return b",".join(parts)


def has_some_for_maker(turn: Turn) -> bool:
    """Whether there may be something in a turn that only its upstream is sent again."""
    content = turn.content
    return _is_of_maker(content.response) or _may_reason(content.input)


def _is_of_maker(answered: bytes) -> bool:
    return b"reasoning" in answered or b"compaction" in answered


def _may_reason(items: bytes) -> bool:
    # An escaped letter may spell any word in what a client has written.
    return b"reasoning" in items or b"\\u00" in items


def _without_reasoning(items: bytes) -> bytes:
    """The items of an input, lists of them within it included."""
    if not _may_reason(items):
        return items
    kept: list[bytes] = []
    for item in _array_decoder.decode(b"[" + items + b"]"):
        data = bytes(item)
        if data[0] == _LIST:
            kept.append(b"[" + _without_reasoning(data[1:-1]) + b"]")
        elif _read(item).type != "reasoning":
            kept.append(data)
    return b",".join(kept)


def _is_replayed(item: msgspec.Raw, *, to_maker: bool) -> bool:
    found = _read(item)
    if found.type == "reasoning":
        return bool(to_maker and (found.encrypted_content or found.content))
    return to_maker or found.type != "compaction"


def _read(item: msgspec.Raw) -> _Item:
    """Without a type where it is no object."""
    try:
        return _item_decoder.decode(item)
    except msgspec.DecodeError:
        return _Item()


def output_of(response: bytes) -> list[msgspec.Raw]:
    """The items of a response; none where it has no such list."""
    try:
        found = _response_decoder.decode(response).output
        return _array_decoder.decode(found) if found else []
    except (msgspec.DecodeError, RecursionError):
        return []


def model_of(response: bytes) -> str | None:
    """The model that has answered, as its upstream calls it."""
    try:
        found = _model_decoder.decode(response).model
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, str) and found else None


def with_output(response: bytes, items: list[bytes]) -> bytes:
    """A response whose stream told its items, but its end did not: with them in their place."""
    body = JSONObject(response, _members_decoder.decode(response), {})
    text = b"[" + b",".join(items) + b"]"
    if "output" in body.members:
        return spliced(response, [Splice(*body.span_of("output"), text)])
    end = response.rindex(b"}")
    comma = b"," if body.members else b""
    return spliced(response, [Splice(end, end, comma + b'"output":' + text)])


def listed(turn: Turn) -> list[tuple[str, bytes]]:
    """The turn's own input as the API lists it: (id, JSON). Items without an id get one that stays the same."""
    stem = turn.turn_id.replace("-", "")
    items = _array_decoder.decode(b"[" + turn.content.input + b"]")
    return [_listed(bytes(item), f"{stem}{index:04x}") for index, item in enumerate(items)]


def _listed(item: bytes, stem: str) -> tuple[str, bytes]:
    try:
        members: dict[str, Any] = dict(_members_decoder.decode(item))
    except msgspec.DecodeError:
        # No item at all, and the upstream took it.
        return f"item_{stem}", item
    kind = msgspec.json.decode(members["type"]) if "type" in members else "message"
    members.setdefault("type", kind)
    own_id = msgspec.json.decode(members["id"]) if "id" in members else None
    if not isinstance(own_id, str) or not own_id:
        prefix = _PREFIXES.get(kind, "item") if isinstance(kind, str) else "item"
        own_id = members["id"] = f"{prefix}_{stem}"
    content = bytes(members.get("content", b""))
    if kind == "message" and content[:1] == b'"':
        role = members.get("role", msgspec.Raw(b""))
        part = "output_text" if bytes(role) == b'"assistant"' else "input_text"
        members["content"] = [{"type": part, "text": msgspec.Raw(content)}]
    return own_id, msgspec.json.encode(members)
