"""Directives by which a test or a demonstration steers one answer; docs/simulator.md lists them.

They come in the ``x-sim`` header, after ``@`` in the model's name, or as ``[[sim: key=value ...]]`` in
the last user input, since a gateway does not forward arbitrary headers. The header wins over the
prompt, the prompt over the model.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from app.simulator.errors import RequestRefused

DELAY_MS_MAX = 3_600_000
TOKENS_MAX = 1_000_000
BLOCK_BYTES_MAX = 64 * 1024 * 1024
DIRECTIVES_REMEMBERED_MAX = 10_000
DIRECTIVE_CHARS_MAX = 2000

PROMPT_MARK = "[[sim:"
TOOL_MARK = "[[tool]]"
_IN_PROMPT = re.compile(r"\[\[sim:([^\[\]]{0,2000})\]\]")
_PAIR = re.compile(r'([A-Za-z_][\w-]*)=("[^"]*"|[^\s,;]*)')
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
# What frames the message belongs to the server: it would refuse a second one with a 500.
_FORBIDDEN_HEADERS = frozenset({"content-length", "transfer-encoding", "connection"})

Delay = Annotated[int, msgspec.Meta(ge=0, le=DELAY_MS_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]
Framing = Literal["lf", "crlf", "cr", "line", "split", "one"]
# No ``None`` for the truth: msgspec takes the text "null" for it.
ReportedUsage = Literal["truth", "missing", "null", "negative", "float", "string", "huge", "zero", "cached_above_input"]


class Steering(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One answer's directives; the defaults are an ordinary answer."""

    # What is generated
    tokens: Count | None = None
    reasoning: Count | None = None
    cached: Count | None = None
    refuse: bool = False
    event_bytes: Annotated[int, msgspec.Meta(ge=0, le=BLOCK_BYTES_MAX)] = 0
    repeat_id: str | None = None
    usage: ReportedUsage = "truth"
    billed: bool | None = None
    # When it comes
    first_ms: Delay = 0
    head_ms: Delay = 0
    pace_ms: Delay = 0
    queue_ms: Delay = 0
    stall_after: Count | None = None
    stall_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 600.0
    # How the bytes are cut
    framing: Framing = "lf"
    chunk: Annotated[int, msgspec.Meta(ge=0)] = 0
    chunk_ms: Delay = 1
    bom: bool = False
    no_event_lines: bool = False
    content_encoding: str | None = None
    # What goes wrong before the first byte
    error: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    error_code: str | None = None
    retry_after: str | None = None
    cut: Literal["head"] | None = None
    redirect: str | None = None
    html: bool = False
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    # What goes wrong after it
    fail_after: Count | None = None
    fail_usage: bool = True
    error_event_after: Count | None = None
    cut_after: Count | None = None
    cut_how: Literal["close", "reset"] = "close"
    mid: bool = False
    unknown_events: bool = False
    badjson: bool = False
    two_terminals: bool = False
    done: bool | None = None
    # For whom
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    tag: str | None = None
    headers: dict[str, str] = {}

    @property
    def cuts_bytes(self) -> bool:
        """Whether the stream's bytes are anything but one plain write per event."""
        return (
            self.chunk > 0
            or self.framing != "lf"
            or self.bom
            or self.no_event_lines
            or self.content_encoding is not None
        )

    @property
    def changes_events(self) -> bool:
        """Whether the stream's events are anything but the answer's own."""
        return (
            self.fail_after is not None
            or self.error_event_after is not None
            or self.unknown_events
            or self.badjson
            or self.two_terminals
        )


UNSTEERED = Steering()


def parse_directive(text: str) -> dict[str, str]:
    """The pairs of ``key=value key="value with spaces"``; commas and semicolons separate as spaces do."""
    rest = _PAIR.sub("", text).strip(" \t\r\n,;")
    if rest:
        raise _refusal(f"not key=value: {rest[:80]!r}")
    return {key: value.strip('"') for key, value in _PAIR.findall(text)}


def without_directives(text: str) -> str:
    """``text`` as a reader should see it."""
    if "[[" not in text:
        return text
    return _IN_PROMPT.sub("", text).replace(TOOL_MARK, "").strip()


class Steerer:
    """Reads directives, and remembers how often one with ``times=`` has been used."""

    def __init__(self) -> None:
        self._uses: OrderedDict[str, int] = OrderedDict()

    def steer(self, *, header: bytes | None, model: str, prompt: str) -> Steering:
        """The directives that bind this request."""
        if header is None and "@" not in model and PROMPT_MARK not in prompt:
            return UNSTEERED
        texts = [model.partition("@")[2]] if "=" in model.partition("@")[2] else []
        texts.extend(_IN_PROMPT.findall(prompt))
        if header is not None:
            texts.append(header.decode("latin-1"))
        if not texts:
            return UNSTEERED
        directive = "\0".join(texts)
        steering = steering_of(directive)
        if steering.times is not None and self._use(directive) > steering.times:
            return UNSTEERED
        return steering

    def _use(self, directive: str) -> int:
        uses = self._uses.pop(directive, 0) + 1
        self._uses[directive] = uses
        if len(self._uses) > DIRECTIVES_REMEMBERED_MAX:
            self._uses.popitem(last=False)
        return uses

    def __repr__(self) -> str:
        return f"Steerer(remembered={len(self._uses)})"


def steering_of(directive: str) -> Steering:
    """What a directive says; several are separated by a NUL."""
    if len(directive) > DIRECTIVE_CHARS_MAX:
        # Parsed directives are remembered, so they must be small.
        raise _refusal(f"longer than {DIRECTIVE_CHARS_MAX} characters")
    return _steering_of(directive)


@lru_cache(maxsize=4096)
def _steering_of(texts: str) -> Steering:
    pairs: dict[str, object] = {}
    headers: dict[str, str] = {}
    for text in texts.split("\0"):
        for key, value in parse_directive(text).items():
            if key.startswith("header_"):
                headers[_header_name(key)] = _header_value(key, value)
            else:
                pairs[key] = value
    if "headers" in pairs:
        raise _refusal("unknown key 'headers'; use header_NAME=value")
    pairs["headers"] = headers
    try:
        steering = msgspec.convert(pairs, Steering, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from error
    for name in ("redirect", "retry_after", "content_encoding"):
        _header_value(name, getattr(steering, name) or "")
    return steering


def _header_name(key: str) -> str:
    name = key.removeprefix("header_").replace("_", "-").lower()
    if not _HEADER_NAME.fullmatch(name) or name in _FORBIDDEN_HEADERS:
        raise _refusal(f"not a header that can be set: {key!r}")
    return name


def _header_value(key: str, value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise _refusal(f"not a header value: {key!r}")
    return value


def _refusal(message: str) -> RequestRefused:
    return RequestRefused(400, f"Simulator directive: {message}", param="x-sim", code="invalid_directive")
