"""Usage out of answers: a JSON body, or the events of any stream.

Only what is needed is decoded, once, by a narrow struct; a whole answer of the upstream is never
rebuilt. Fields that an upstream got wrong never fail a request: they leave the usage missing, or
*suspect* where a number is absurd.
"""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import msgspec

from app.core.usage import NOTHING_USED, Usage
from app.metering.buckets import UNREADABLE, CallCount, calls_used, usage_of
from app.metering.usage_text import numbers_text

NOTHING_BYTES = len("null")
CITES_A_FILE = b'"container_file_citation"'

Terminal = Literal["completed", "failed", "incomplete", "cancelled"]
TERMINAL_EVENTS: dict[str, Terminal] = {
    "response.completed": "completed",
    "response.failed": "failed",
    "response.incomplete": "incomplete",
    "response.cancelled": "cancelled",
}
MEDIA_ENDS = ("image_generation.completed", "image_edit.completed", "transcript.text.done", "speech.audio.done")


class _Body(msgspec.Struct):
    """The members of an answer (or of a stream event's ``response``) that are read."""

    id: Any = None
    model: Any = None
    status: Any = None
    service_tier: Any = None
    usage: Any = None
    tool_usage: Any = None
    error: Any = None
    output: msgspec.Raw = msgspec.Raw(b"")
    tools: msgspec.Raw = msgspec.Raw(b"")
    choices: msgspec.Raw = msgspec.Raw(b"")
    thread_id: Any = None


class _Event(msgspec.Struct):
    """The members of a stream event that are read: of Responses events, of chat chunks and of runs of threads."""

    type: Any = None
    object: Any = None
    thread_id: Any = None
    response: msgspec.Raw = msgspec.Raw(b"")
    delta: Any = None
    item: msgspec.Raw = msgspec.Raw(b"")
    annotation: msgspec.Raw = msgspec.Raw(b"")
    choices: msgspec.Raw = msgspec.Raw(b"")
    id: Any = None
    model: Any = None
    service_tier: Any = None
    usage: Any = None
    status: Any = None
    error: Any = None
    code: Any = None


class _Item(msgspec.Struct):
    """What names an item of an output, or where it was made."""

    id: Any = None
    container_id: Any = None
    content: msgspec.Raw = msgspec.Raw(b"")


class _Annotation(msgspec.Struct):
    type: Any = None
    container_id: Any = None
    file_id: Any = None


class _Part(msgspec.Struct):
    """A part of a message, with what it cites."""

    annotations: list[_Annotation] | None = None


class _Audio(msgspec.Struct):
    id: Any = None


class _Message(msgspec.Struct):
    audio: _Audio | None = None


class _Answered(msgspec.Struct):
    """A choice of a whole chat answer."""

    message: _Message | None = None


class _Delta(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: msgspec.Raw = msgspec.Raw(b"")
    function_call: msgspec.Raw = msgspec.Raw(b"")
    audio: msgspec.Raw = msgspec.Raw(b"")


class _Choice(msgspec.Struct):
    index: Any = 0
    delta: _Delta | None = None
    finish_reason: Any = None


_body_decoder = msgspec.json.Decoder(_Body)
_event_decoder = msgspec.json.Decoder(_Event)
_item_decoder = msgspec.json.Decoder(_Item)
_items_decoder = msgspec.json.Decoder(list[_Item])
_annotation_decoder = msgspec.json.Decoder(_Annotation)
_parts_decoder = msgspec.json.Decoder(list[_Part])
_choices_decoder = msgspec.json.Decoder(list[_Choice])
_answered_decoder = msgspec.json.Decoder(list[_Answered])
_audio_decoder = msgspec.json.Decoder(_Audio)


class Reading:
    """What an answer has told so far. Written by one reader, read by the meter."""

    __slots__ = (
        "_begun",
        "_counted",
        "_ended",
        "_objects",
        "_told",
        "answers",
        "calls",
        "done",
        "error_code",
        "events",
        "finished",
        "model",
        "output_bytes",
        "outputless",
        "reasoning_seen",
        "response_id",
        "service_tier",
        "stream_error",
        "suspect",
        "terminal",
        "text_bytes",
        "tool_usage",
        "usage",
        "usage_at_end",
        "usage_raw",
    )

    def __init__(self, *, outputless: bool = False, answers: int = 1) -> None:
        """``outputless``: an answer whose usage has no output (embeddings). ``answers``: how many choices a chat
        was asked for.
        """
        self.outputless = outputless
        self.answers = answers
        self.response_id: str | None = None
        self._objects: list[tuple[str, str]] = []
        self.model: str | None = None
        self.service_tier: str | None = None
        self.usage: Usage | None = None
        self.usage_at_end = False
        """Whether the usage stood in the last event of a response."""
        self.usage_raw: str | None = None
        self.tool_usage: str | None = None
        self.error_code: str | None = None
        self.terminal: Terminal | None = None
        self.stream_error = False
        """Whether an event said that something failed, and not of which response."""
        self.suspect = False
        self.finished = False
        """Whether every choice has come to its end."""
        self.done = False
        self._ended: set[int] = set()
        """The choices that have."""
        self.reasoning_seen = False
        self.output_bytes = 0
        """At least the bytes of text that the model produced: with the envelope, where that was not told apart."""
        self.text_bytes = 0
        """At most the bytes of text that the model produced."""
        self.events = 0
        self.calls: Usage = NOTHING_USED
        """Calls of tools that are billed apart, as far as they have come to their end."""
        self._told: Usage | None = None
        """The tokens of ``usage``, without the calls."""
        self._counted: CallCount | None = None
        self._begun: CallCount | None = None

    def __repr__(self) -> str:
        return f"Reading(response_id={self.response_id!r}, terminal={self.terminal!r}, usage={self.usage!r})"

    def take_objects(self) -> list[tuple[str, str]]:
        """What has been named since this was last asked: (kind, id), of the answer itself with the kind ""."""
        found = self._objects
        if found:
            self._objects = []
        return found

    def doubt_error(self) -> None:
        """The error that was seen is of the stream: how the response ends is to be told yet."""
        self.terminal = self.error_code = None

    # -- a whole JSON answer ------------------------------------------------------------------

    def see_json(self, body: bytes) -> bool:
        """Read a whole JSON answer; False where it is not a JSON object."""
        try:
            found = _body_decoder.decode(body)
        except UNREADABLE:
            return False
        self._take(found)
        if isinstance(found.status, str) and f"response.{found.status}" in TERMINAL_EVENTS:
            self.terminal = TERMINAL_EVENTS[f"response.{found.status}"]
        self.usage_at_end = found.usage is not None
        return True

    # -- a stream -----------------------------------------------------------------------------

    def see_event(self, data: bytes) -> None:
        """Read the ``data`` of one whole event. Text inside a delta can never be taken for an event."""
        self.events += 1
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = _event_decoder.decode(data)
        except UNREADABLE:
            return
        kind = event.type
        if type(kind) is str:
            if kind.endswith(".delta"):
                if type(event.delta) is str:
                    self._saw_text(event.delta)
                if kind.startswith("response.reasoning"):
                    self.reasoning_seen = True
            elif event.response:
                self._see_response(kind, event.response)
            elif kind == "error":
                self._see_error(event)
            else:
                self._see_part(kind, event)
        else:
            self._see_untyped(event)

    def _see_untyped(self, event: _Event) -> None:
        if event.choices or event.usage is not None:
            self._see_chunk(event)
            if event.object == "thread.run":
                self.terminal = TERMINAL_EVENTS.get(f"response.{event.status}")
                self.usage_at_end = self.terminal is not None
        elif event.error is not None:
            self._see_error(event)
        elif event.object == "thread":
            self._tell("thread", event.id)
        elif event.object == "thread.run" and self.response_id is None:
            # It may have been made with its thread.
            self._take(_Body(id=event.id, thread_id=event.thread_id))

    def _see_item(self, kind: str, item: msgspec.Raw) -> None:
        data = bytes(item)
        if kind == "response.output_item.added":
            self._name_item(item)
            if b'"reasoning"' in data:
                self.reasoning_seen = True
            elif b'_call"' in data:
                self._begun = self._begun or CallCount()
                self._begun.see_item(item)
        elif kind == "response.output_item.done" and CITES_A_FILE in data:
            self._name_item(item)
        elif kind == "response.output_item.done" and b'_call"' in data:
            self._counted = self._counted or CallCount()
            self._counted.see_item(item)
            self.calls = self._counted.usage()

    def _see_part(self, kind: str, event: _Event) -> None:
        if kind in MEDIA_ENDS:
            self.finished = True
            if event.usage is not None:
                self._take_usage(event.usage, self.usage)
        elif event.item:
            self._see_item(kind, event.item)
        elif event.annotation:
            with contextlib.suppress(*UNREADABLE):
                self._cite(_annotation_decoder.decode(event.annotation))

    def _name_item(self, item: msgspec.Raw) -> None:
        with contextlib.suppress(*UNREADABLE):
            self._name(_item_decoder.decode(item))

    def _name_items(self, output: msgspec.Raw) -> None:
        with contextlib.suppress(*UNREADABLE):
            for item in _items_decoder.decode(output):
                self._name(item)

    def _name(self, item: _Item) -> None:
        self._tell("item", item.id)
        self._tell("container", item.container_id)
        if CITES_A_FILE in bytes(item.content):
            with contextlib.suppress(*UNREADABLE):
                for part in _parts_decoder.decode(item.content):
                    for cited in part.annotations or ():
                        self._cite(cited)

    def _cite(self, cited: _Annotation) -> None:
        if cited.type == "container_file_citation":
            self._tell("container", cited.container_id)
            self._tell("container_file", cited.file_id)

    def _tell(self, kind: str, told: Any) -> None:
        object_id = _short(told)
        if object_id is not None:
            self._objects.append((kind, object_id))

    @property
    def has_ended_some(self) -> bool:
        """Whether a choice has come to its end."""
        return self.finished or bool(self._ended)

    @property
    def calls_begun(self) -> Usage:
        """Calls that have ended, and those that may have been billed though they have not."""
        return self.calls if self._begun is None else self.calls.at_least(self._begun.usage())

    def _saw_text(self, text: str) -> None:
        size = len(text.encode("utf-8", "replace"))
        self.output_bytes += size
        self.text_bytes += size

    def _see_response(self, kind: str, raw: msgspec.Raw) -> None:
        terminal = TERMINAL_EVENTS.get(kind)
        if terminal is None and self.response_id is not None:
            return
        try:
            found = _body_decoder.decode(raw)
        except UNREADABLE:
            return
        if terminal is not None and self.terminal is not None:
            # The first terminal event wins; a second with other numbers is a fault of the upstream.
            self.suspect = self.suspect or usage_of(found.usage, outputless=self.outputless)[0] != self._told
            return
        self._take(found)
        self.terminal = terminal
        self.stream_error = self.stream_error and terminal is None
        self.usage_at_end = terminal is not None and found.usage is not None

    def _see_error(self, event: _Event) -> None:
        if self.terminal is not None:
            return
        self.terminal = "failed"
        self.stream_error = True
        code = event.error.get("code") if isinstance(event.error, dict) else event.code
        self.error_code = _short(code) or "upstream_error"

    def _see_chunk(self, event: _Event) -> None:
        """One chat chunk: text in ``choices``, usage in the last, if the client asked for it."""
        if self.response_id is None:
            self.response_id = _short(event.id)
            self.model = _short(event.model)
            if self.response_id is not None:
                self._objects.append(("", self.response_id))
        if event.service_tier is not None:
            self.service_tier = _short(event.service_tier)
        if event.choices:
            try:
                choices = _choices_decoder.decode(event.choices)
            except UNREADABLE:
                choices = []
            for choice in choices:
                self._see_choice(choice)
        if event.usage is not None:
            self._take_usage(event.usage)

    def _see_choice(self, choice: _Choice) -> None:
        if choice.finish_reason is not None:
            self._ended.add(choice.index if type(choice.index) is int else 0)
            self.finished = len(self._ended) >= self.answers
        delta = choice.delta
        if delta is None:
            return
        for text in (delta.content, delta.refusal, delta.reasoning_content or delta.reasoning):
            if type(text) is str:
                self._saw_text(text)
        for part in (delta.tool_calls, delta.function_call, delta.audio):
            if len(part) > NOTHING_BYTES:
                self.output_bytes += len(part)
        if len(delta.audio) > NOTHING_BYTES:
            with contextlib.suppress(*UNREADABLE):
                self._tell("audio", _audio_decoder.decode(delta.audio).id)

    # -- shared -------------------------------------------------------------------------------

    def _take(self, found: _Body) -> None:
        told = _short(found.id)
        if told is not None and told != self.response_id:
            self.response_id = told
            self._objects.append(("", told))
        if found.output:
            self._name_items(found.output)
        if b'"audio"' in bytes(found.choices):
            with contextlib.suppress(*UNREADABLE):
                for choice in _answered_decoder.decode(found.choices):
                    if choice.message is not None and choice.message.audio is not None:
                        self._tell("audio", choice.message.audio.id)
        self._tell("thread", found.thread_id)
        self.model = _short(found.model) or self.model
        self.service_tier = _short(found.service_tier) or self.service_tier
        if isinstance(found.error, dict):
            self.error_code = _short(found.error.get("code")) or "upstream_error"
        if found.usage is not None:
            self._take_usage(found.usage)
        if found.tool_usage is not None:
            self.tool_usage = numbers_text(found.tool_usage)
        self._take_calls(found)

    def _take_calls(self, found: _Body) -> None:
        """Count the calls of a whole answer; where it repeats no items, those of its stream stand."""
        if found.output and b'_call"' in bytes(found.output):
            counted = CallCount()
            counted.see_items(found.output)
            self.calls = counted.usage()
        if self.calls is not NOTHING_USED or found.tool_usage is not None:
            self.calls = calls_used(self.calls, found.tool_usage, found.tools)
            if self._told is not None:
                self.usage = self._told.plus(self.calls)

    def _take_usage(self, raw: Any, before: Usage | None = None) -> None:
        """``before`` is what the other images of the stream have used."""
        self._told, suspect = usage_of(raw, outputless=self.outputless)
        self.suspect = suspect or (self.suspect and before is not None)
        if before is not None:
            self._told = before if self._told is None else before.plus(self._told)
        self.usage = self._told
        self.usage_raw = numbers_text(raw)


def _short(value: Any) -> str | None:
    """A name from the upstream, if it is one: printable text of at most 256 characters."""
    if type(value) is str and 0 < len(value) <= 256 and value.isprintable():
        return value
    return None
