"""Usage out of answers: a JSON body, or the events of any stream.

Only what is needed is decoded, once, by a narrow struct; a whole answer of the upstream is never
rebuilt. Fields that an upstream got wrong never fail a request: they leave the usage missing, or
*suspect* where a number is absurd.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from app.core.usage import Usage

USAGE_RAW_BYTES_MAX = 4096
USAGE_DEPTH_MAX = 4
UNREADABLE = (ValueError, RecursionError)
"""What msgspec raises: its own errors, and UnicodeDecodeError, are ValueErrors."""
TOKENS_ABSURD = 20_000_000
"""Ten times the largest context window on offer: above it a count is a fault, not a bill."""

Terminal = Literal["completed", "failed", "incomplete", "cancelled"]
TERMINAL_EVENTS: dict[str, Terminal] = {
    "response.completed": "completed",
    "response.failed": "failed",
    "response.incomplete": "incomplete",
    "response.cancelled": "cancelled",
}
SEARCH_CALLS = (b'"web_search_call"', b'"file_search_call"')


class _Item(msgspec.Struct):
    type: Any = None


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


class _Event(msgspec.Struct):
    """The members of a stream event that are read: of Responses events and of chat chunks."""

    type: Any = None
    response: msgspec.Raw = msgspec.Raw(b"")
    delta: Any = None
    item: msgspec.Raw = msgspec.Raw(b"")
    choices: msgspec.Raw = msgspec.Raw(b"")
    id: Any = None
    model: Any = None
    service_tier: Any = None
    usage: Any = None
    error: Any = None
    code: Any = None


class _Delta(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    tool_calls: msgspec.Raw = msgspec.Raw(b"")


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: Any = None


_body_decoder = msgspec.json.Decoder(_Body)
_event_decoder = msgspec.json.Decoder(_Event)
_choices_decoder = msgspec.json.Decoder(list[_Choice])
_items_decoder = msgspec.json.Decoder(list[_Item])


class Reading:
    """What an answer has told so far. Written by one reader, read by the meter."""

    __slots__ = (
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
        "suspect",
        "terminal",
        "text_bytes",
        "tool_usage",
        "usage",
        "usage_raw",
    )

    def __init__(self, *, outputless: bool = False) -> None:
        """``outputless``: an answer whose usage has no output (embeddings)."""
        self.outputless = outputless
        self.response_id: str | None = None
        self.model: str | None = None
        self.service_tier: str | None = None
        self.usage: Usage | None = None
        self.usage_raw: str | None = None
        self.tool_usage: str | None = None
        self.error_code: str | None = None
        self.terminal: Terminal | None = None
        self.suspect = False
        self.finished = False
        self.done = False
        self.reasoning_seen = False
        self.output_bytes = 0
        """At least the bytes of text that the model produced: with the envelope, where that was not told apart."""
        self.text_bytes = 0
        """At most the bytes of text that the model produced."""
        self.events = 0

    def __repr__(self) -> str:
        return f"Reading(response_id={self.response_id!r}, terminal={self.terminal!r}, usage={self.usage!r})"

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
            elif kind == "response.output_item.added" and b'"reasoning"' in bytes(event.item):
                self.reasoning_seen = True
        elif event.choices or event.usage is not None:
            self._see_chunk(event)
        elif event.error is not None:
            self._see_error(event)

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
            self.suspect = self.suspect or _usage_of(found.usage, outputless=self.outputless)[0] != self.usage
            return
        self._take(found)
        self.terminal = terminal

    def _see_error(self, event: _Event) -> None:
        if self.terminal is not None:
            return
        self.terminal = "failed"
        code = event.error.get("code") if isinstance(event.error, dict) else event.code
        self.error_code = _short(code) or "upstream_error"

    def _see_chunk(self, event: _Event) -> None:
        """One chat chunk: text in ``choices``, usage in the last, if the client asked for it."""
        if self.response_id is None:
            self.response_id = _short(event.id)
            self.model = _short(event.model)
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
            self.finished = True
        delta = choice.delta
        if delta is None:
            return
        for text in (delta.content, delta.refusal, delta.reasoning_content):
            if type(text) is str:
                self._saw_text(text)
        self.output_bytes += len(delta.tool_calls)

    # -- shared -------------------------------------------------------------------------------

    def _take(self, found: _Body) -> None:
        self.response_id = _short(found.id) or self.response_id
        self.model = _short(found.model) or self.model
        self.service_tier = _short(found.service_tier) or self.service_tier
        if isinstance(found.error, dict):
            self.error_code = _short(found.error.get("code")) or "upstream_error"
        if found.usage is not None:
            self._take_usage(found.usage)
        if found.tool_usage is not None:
            self.tool_usage = _numbers_text(found.tool_usage)
        if self.usage is not None and found.output and any(call in bytes(found.output) for call in SEARCH_CALLS):
            self.usage = _with_searches(self.usage, found.output)

    def _take_usage(self, raw: Any) -> None:
        self.usage, self.suspect = _usage_of(raw, outputless=self.outputless)
        self.usage_raw = _numbers_text(raw)


def _usage_of(raw: Any, *, outputless: bool) -> tuple[Usage | None, bool]:
    """The usage in its buckets, and whether it is absurd. Missing and absurd give None."""
    if not isinstance(raw, dict):
        return None, raw is not None
    if "input_tokens" in raw or "output_tokens" in raw:
        names = ("input_tokens", "input_tokens_details", "output_tokens", "output_tokens_details")
        required: tuple[str, ...] = ("input_tokens", "output_tokens")
    else:
        names = ("prompt_tokens", "prompt_tokens_details", "completion_tokens", "completion_tokens_details")
        required = ("prompt_tokens",) if outputless else ("prompt_tokens", "completion_tokens")
    if any(raw.get(name) is None for name in required):
        # What is not there is missing, not zero.
        return None, False
    into, out = raw.get(names[1]), raw.get(names[3])
    details_in: dict[str, Any] = into if isinstance(into, dict) else {}
    details_out: dict[str, Any] = out if isinstance(out, dict) else {}
    counts = (
        raw[names[0]],
        details_in.get("cached_tokens") or 0,
        details_in.get("cache_write_tokens") or 0,
        details_in.get("audio_tokens") or 0,
        raw.get(names[2]) or 0,
        details_out.get("reasoning_tokens") or 0,
        details_out.get("audio_tokens") or 0,
    )
    if any(type(count) is not int or not 0 <= count <= TOKENS_ABSURD for count in counts):
        return None, True
    usage = Usage(*counts)
    if usage.cached_tokens + usage.cache_write_tokens > usage.input_tokens:
        return None, True
    if usage.reasoning_tokens > usage.output_tokens:
        return None, True
    return usage, False


def _with_searches(usage: Usage, output: msgspec.Raw) -> Usage:
    try:
        kinds = [item.type for item in _items_decoder.decode(output)]
    except UNREADABLE:
        return usage
    return msgspec.structs.replace(
        usage, web_searches=kinds.count("web_search_call"), file_searches=kinds.count("file_search_call")
    )


def _short(value: Any) -> str | None:
    """A name from the upstream, if it is one: printable text of at most 256 characters."""
    if type(value) is str and 0 < len(value) <= 256 and value.isprintable():
        return value
    return None


def _numbers_text(raw: Any) -> str | None:
    """The numbers of ``raw`` as JSON text, without any text values; None where it is too large."""
    try:
        text = msgspec.json.encode(raw)
    except RecursionError:
        return None
    if not isinstance(raw, dict) or b':"' in text or b"[" in text or len(text) > USAGE_RAW_BYTES_MAX:
        # Not the usual object of numbers (and objects of them).
        text = msgspec.json.encode(_numbers(raw, USAGE_DEPTH_MAX))
    return text.decode() if len(text) <= USAGE_RAW_BYTES_MAX else None


def _numbers(raw: Any, depth: int) -> Any:
    if isinstance(raw, dict):
        if not depth:
            return None
        return {str(name)[:64]: _numbers(value, depth - 1) for name, value in list(raw.items())[:64]}
    return raw if isinstance(raw, (int, float)) and not isinstance(raw, bool) else None
