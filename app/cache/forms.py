"""What of an answer may be kept, and how a kept one is told: as JSON, or as a stream in pieces.

Pure functions of bytes, in linear time; none raises for what an upstream sent.

The JSON rules are types: what does not fit them is refused, so that whatever is new is refused too.

Measured (µs on one x86-64 core, Python 3.11) with a stream of 200 events of 220 bytes: ``is_complete`` 370,
``final_response`` 140, ``pieces`` 80; with CR LF 620, 190 and 120. ``is_complete`` of 2 KB of JSON 4, of 1 MB of
embeddings 1,100.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from app.cache.entry import JSON_FORM, STREAM_FORM
from app.core.errors import Headers
from app.core.sse import Event, EventReader

_T = TypeVar("_T")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_EMPTY_LINES = frozenset({b"\n", b"\r\n", b"\r"})
# A CR behind a LF is not among them: the stream has CR LF, and its last byte is missing.
_WHOLE_ENDS = (b"\n\n", b"\n\r\n", b"\r\r", b"\r\r\n")
_DONE = b"[DONE]"
_COMPLETED = "response.completed"
_ITEM_ADDED = "response.output_item.added"
_ITEM_DONE = "response.output_item.done"
_FAILURES = frozenset({"response.failed", "response.incomplete", "error"})
_UNREADABLE = (ValueError, RecursionError)
_ABSENT = msgspec.Raw(b"null")

ItemType = Literal[
    "message",
    "reasoning",
    "function_call",
    "custom_tool_call",
    "apply_patch_call",
    "local_shell_call",
    "shell_call",
]
"""What a model puts out by itself. Items of hosted tools tell of a world that changes, or of objects that expire."""

Name = Annotated[str, msgspec.Meta(min_length=1)]
NoneOrEmpty = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=0)] | None


class _Part(msgspec.Struct):
    """Of an item's content. A refusal is another type, as is whatever is new."""

    type: Literal["output_text", "reasoning_text"]


class _Environment(msgspec.Struct):
    """Where a shell's commands run; another one is a container of the provider's."""

    type: Literal["local"]


class _Caller(msgspec.Struct):
    """Who called a tool; the other one is a program that goes on running at the provider."""

    type: Literal["direct"]


class _Item(msgspec.Struct):
    type: ItemType
    status: Literal["completed"] | None = None
    content: list[_Part] | None = None
    environment: _Environment | None = None
    caller: _Caller | None = None


class _Response(msgspec.Struct):
    id: Name
    status: Literal["completed"]
    output: list[_Item]
    error: None = None
    incomplete_details: None = None


class _Said(msgspec.Struct):
    """What a chat answer says, as message or delta.

    Beside a refusal it has no sound, whose id expires, and no citations, which tell of a search.
    """

    refusal: None = None
    audio: None = None
    annotations: NoneOrEmpty = None


GoodEnd = Literal["stop", "tool_calls", "function_call"]


class _Choice(msgspec.Struct):
    finish_reason: GoodEnd
    message: _Said


class _Completion(msgspec.Struct):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    error: None = None


class _ChunkChoice(msgspec.Struct):
    index: int
    finish_reason: GoodEnd | None = None
    delta: _Said | None = None


class _Chunk(msgspec.Struct):
    choices: list[_ChunkChoice] | None = None
    error: None = None


class _Embeddings(msgspec.Struct):
    data: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]
    error: None = None


class _StreamEvent(msgspec.Struct):
    """An event of a Responses stream. The SDKs raise for one with an ``error``, whatever its type."""

    type: str
    response: msgspec.Raw = _ABSENT
    item: msgspec.Raw = _ABSENT
    error: None = None


class _Begun(msgspec.Struct):
    """An item that is there, as far as it has got."""

    type: ItemType


class _Named(msgspec.Struct):
    id: Name


class _Final(msgspec.Struct):
    type: str
    response: msgspec.Raw


_responses_decoder = msgspec.json.Decoder(_Response)
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    "responses": _responses_decoder,
    "chat": msgspec.json.Decoder(_Completion),
    "embeddings": msgspec.json.Decoder(_Embeddings),
}
_chunk_decoder = msgspec.json.Decoder(_Chunk)
_event_decoder = msgspec.json.Decoder(_StreamEvent)
_item_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    _ITEM_ADDED: msgspec.json.Decoder(_Begun),
    _ITEM_DONE: msgspec.json.Decoder(_Item),
}
_named_decoder = msgspec.json.Decoder(_Named)
_final_decoder = msgspec.json.Decoder(_Final)


def is_complete(dialect: str, form: str, status: int, headers: Headers, body: bytes) -> bool:
    """Whether an answer may be kept: a successful one that has come to its end, and says nothing that passes.

    ``dialect`` is ``responses``, ``chat`` or ``embeddings``, ``form`` how the answer was told.
    """
    if status != 200 or not _is_utf8(body):
        return False
    media_type = _media_type(headers)
    if form == JSON_FORM:
        decoder = _decoders.get(dialect)
        is_json = media_type == b"application/json" or media_type.endswith(b"+json")
        return is_json and decoder is not None and _read(decoder, body) is not None
    if not form.startswith(STREAM_FORM) or media_type != b"text/event-stream" or not body.endswith(_WHOLE_ENDS):
        return False
    if dialect not in {"responses", "chat"}:
        return False
    events = _events(body)
    if any(event.event == b"error" for event in events):
        return False
    return _is_complete_response_stream(events) if dialect == "responses" else _is_complete_chat_stream(events)


def is_complete_response(body: bytes) -> bool:
    """Whether ``body`` is the JSON of a response that may be kept."""
    return _is_utf8(body) and _read(_responses_decoder, body) is not None


def final_response(stream_body: bytes) -> bytes | None:
    """The bytes of ``response`` in the one ``response.completed`` of a Responses stream; None where there is none.

    Nothing else of the stream is judged: ask ``is_complete`` before.
    """
    reader = EventReader(event_bytes_max=sys.maxsize)
    found: list[msgspec.Raw] = []
    for at, piece in enumerate(pieces(stream_body)):
        # The reader must see the first one, for a byte order mark. A text may say the word as well: the type decides.
        if at and b"response.completed" not in piece:
            continue
        finals = (_read(_final_decoder, event.data) for event in reader.feed(piece))
        found += [final.response for final in finals if final is not None and final.type == _COMPLETED]
    if len(found) != 1:
        return None
    response = bytes(found[0])
    return response if response.startswith(b"{") else None


def pieces(stream_body: bytes) -> list[bytes]:
    """A stream cut behind its events, to be sent piece by piece. Joined they are the stream again.

    Each ends on an event boundary; only the last may not, where the stream does not. 0.4 µs per event.
    """
    if b"\r" not in stream_body:
        cut = stream_body.split(b"\n\n")
        rest = cut.pop()
        whole = [piece + b"\n\n" for piece in cut]
    else:
        whole = []
        start = end = 0
        for line in stream_body.splitlines(keepends=True):
            end += len(line)
            if line in _EMPTY_LINES:
                whole.append(stream_body[start:end])
                start = end
        rest = stream_body[start:]
    if rest:
        whole.append(rest)
    return whole


def _is_complete_response_stream(events: list[Event]) -> bool:
    if events and events[-1].data == _DONE:
        events.pop()
    created: bytes | None = None
    final: bytes | None = None
    items = 0
    for event in events:
        said = _read(_event_decoder, event.data)
        # The terminal event is the last one.
        if said is None or final is not None or not _is_of_a_success(said):
            return False
        if created is None and bytes(said.response) != b"null":
            if said.type != "response.created":
                return False
            created = bytes(said.response)
        if said.type == _COMPLETED:
            final = bytes(said.response)
        elif said.type == _ITEM_DONE:
            items += 1
    if final is None or created is None:
        return False
    began = _read(_named_decoder, created)
    response = _read(_responses_decoder, final)
    # Some servers leave the items out of the response at the end: told as JSON it would be another answer.
    return began is not None and response is not None and began.id == response.id and items <= len(response.output)


def _is_of_a_success(said: _StreamEvent) -> bool:
    if said.type in _FAILURES or said.type.startswith("response.refusal."):
        return False
    decoder = _item_decoders.get(said.type)
    return decoder is None or _read(decoder, said.item) is not None


def _is_complete_chat_stream(events: list[Event]) -> bool:
    if not events or events.pop().data != _DONE:
        return False
    begun: set[int] = set()
    ended: set[int] = set()
    for event in events:
        chunk = _read(_chunk_decoder, event.data)
        if chunk is None:
            return False
        for choice in chunk.choices or ():
            begun.add(choice.index)
            if choice.finish_reason is not None:
                ended.add(choice.index)
    return bool(begun) and begun == ended


def _events(stream_body: bytes) -> list[Event]:
    # The body is in memory already: nothing is gained by skipping a large event of it.
    reader = EventReader(event_bytes_max=sys.maxsize)
    if not stream_body.startswith(_BYTE_ORDER_MARK):
        # With an empty line before it the reader takes the stream as whole events, not line by line.
        reader.feed(b"\n")
    return reader.feed(stream_body)


def _read(decoder: msgspec.json.Decoder[_T], data: bytes | msgspec.Raw) -> _T | None:
    try:
        return decoder.decode(data)
    except _UNREADABLE:
        return None


def _is_utf8(body: bytes) -> bool:
    """The decoders skip over what they need not read, and what is not UTF-8 there."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _media_type(headers: Headers) -> bytes:
    """The one media type; empty where there is none, or more than one."""
    found = [value for name, value in headers if name.lower() == b"content-type"]
    return found[0].partition(b";")[0].strip().lower() if len(found) == 1 else b""
