"""A strict reading of a request's JSON body that never changes it.

Most parsers silently take the last of two members of one name, so the gateway and the upstream could
read two different requests in one body. Here a body is refused with two members of one name in any
object at any depth, also where one is written with escapes.

The cheap proof: msgspec decodes the body and encodes it again, and if that gives the same bytes, then
nothing occurs twice, for an encoder writes nothing twice. Bodies of the OpenAI SDKs are compact and pass.
The others (spaces, other escapes, other spellings of numbers) are read by ``json``, whose hook sees every
pair. msgspec's full decode is strict where it must be: UTF-8 without a byte order mark, no lone surrogates,
no NaN, nothing beyond a double's range.

Measured (µs on one x86-64 core, Python 3.11; text with quotes and accents): a chat or Responses body of
1 KB 4 to 6, 37 KB with 14 tools 117, 200 KB of messages 630; the slow way adds 5, 130 and 350 to that. A
check of the top level alone would be 2, 20 and 70, and would let a tool's schema say two things.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from app.core.errors import AmbiguousJSON, InvalidJSON, InvalidRequest, quoted

SLOW_IN_THREAD_BYTES = 256 * 1024
"""Above this size the slow way belongs in a thread; it lets other threads run while it works."""

DEPTH_MAX = 128
VALUES_MAX = 500_000
"""What a body may hold of values, as its commas and brackets bound them: decoded, each may take 200 bytes."""
_SMALL_BYTES = 1024 * 1024
"""A body of this size cannot take much memory whatever it holds."""

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()
_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])

_OPENING = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*")
_NAME = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"[ \t\r\n]*:[ \t\r\n]*')
_COMMA_OR_END = re.compile(rb"[ \t\r\n]*[,}][ \t\r\n]*")
_NULL = b"null"


class JSONObject:
    """A body that is one unambiguous object. A member that is null is as absent.

    ``canonical``: the body is what msgspec would write, so that no letter in it is spelled as an escape.
    ``value`` is all of it, decoded; of a number only a canonical body's is exactly the one that was written.
    """

    __slots__ = ("body", "canonical", "members", "value")

    def __init__(
        self,
        body: bytes,
        members: Mapping[str, msgspec.Raw],
        value: dict[str, Any] | None = None,
        *,
        canonical: bool = False,
    ) -> None:
        self.body = body
        self.members = members
        self.value: dict[str, Any] = _decoder.decode(body) if value is None else value
        self.canonical = canonical

    def __repr__(self) -> str:
        return f"JSONObject(bytes={len(self.body)}, members={len(self.members)})"

    def has(self, key: str) -> bool:
        """Whether the member is there and not null."""
        raw = self.members.get(key)
        return raw is not None and bytes(raw) != _NULL

    def raw(self, key: str) -> bytes:
        """The member's value as it stands in the body; empty where there is none."""
        raw = self.members.get(key)
        if raw is None:
            return b""
        value = bytes(raw)
        return b"" if value == _NULL else value

    def get_str(self, key: str) -> str | None:
        value = self._value(key)
        if value is None or type(value) is str:
            return value
        raise _wrong_type(key, "a string")

    def get_bool(self, key: str) -> bool | None:
        value = self._value(key)
        if value is None or type(value) is bool:
            return value
        raise _wrong_type(key, "true or false")

    def get_int(self, key: str) -> int | None:
        """An integer that is written as one: not ``1e3``, ``1.0``, ``true`` or ``"1"``."""
        value = self._value(key)
        if value is None or type(value) is int:
            return value
        raise _wrong_type(key, "an integer")

    def get_number(self, key: str) -> float | None:
        value = self._value(key)
        if value is None or type(value) is int or type(value) is float:
            return value
        raise _wrong_type(key, "a number")

    def span_of(self, key: str) -> tuple[int, int]:
        """Where the member's value stands in the body: ``body[start:end]``. KeyError where there is none."""
        at = _end(_OPENING, self.body, 0)
        for name, raw in self.members.items():
            start = _end(_NAME, self.body, at)
            end = start + len(raw)
            if name == key:
                return start, end
            at = _end(_COMMA_OR_END, self.body, end)
        raise KeyError(key)

    def cut_of(self, key: str) -> tuple[int, int]:
        """What has to go for the member to be gone, with one of the commas beside it. KeyError."""
        at = before = _end(_OPENING, self.body, 0)
        for index, (name, raw) in enumerate(self.members.items()):
            end = _end(_NAME, self.body, at) + len(raw)
            following = _end(_COMMA_OR_END, self.body, end)
            if name == key:
                if index:
                    return before, end
                return at, following if len(self.members) > 1 else end
            before, at = end, following
        raise KeyError(key)

    def _value(self, key: str) -> Any:
        raw = self.members.get(key)
        return None if raw is None else _decoder.decode(raw)


def parse_object_fast(body: bytes) -> JSONObject | None:
    """The object that ``body`` is; None where only ``parse_object_slow`` can tell. Raises InvalidRequest."""
    value = _decode(body)
    if _encoder.encode(value) != body:
        return None
    return JSONObject(body, _members_decoder.decode(body), value, canonical=True)


def parse_object_slow(body: bytes) -> JSONObject:
    """The object that ``body`` is. Raises InvalidRequest."""
    value = _decode(body)
    try:
        _pairs_decoder.decode(body.decode())
    except (ValueError, RecursionError):
        # Unreachable as far as is known: msgspec is no more lenient than json.
        raise InvalidJSON from None
    return JSONObject(body, _members_decoder.decode(body), value)


def parse_object(body: bytes) -> JSONObject:
    """The object that ``body`` is, the fast way where that is proof enough. Raises InvalidRequest."""
    return parse_object_fast(body) or parse_object_slow(body)


def _decode(body: bytes) -> dict[str, Any]:
    if len(body) > _SMALL_BYTES and (
        body.count(b",") > VALUES_MAX or body.count(b",") + body.count(b"{") + body.count(b"[") > VALUES_MAX
    ):
        raise InvalidJSON("The body has too many values.")
    try:
        value = _decoder.decode(body)
    except RecursionError:
        raise InvalidJSON("The body is nested too deeply.") from None
    except ValueError:
        # Of msgspec's own, and UnicodeDecodeError. Their texts may quote the body.
        raise InvalidJSON from None
    if type(value) is not dict:
        raise InvalidRequest("The body must be a JSON object.")
    if _is_too_deep(value):
        raise InvalidJSON("The body is nested too deeply.")
    return value


def _is_too_deep(value: dict[str, Any]) -> bool:
    """Whether containers stand in one another more than DEPTH_MAX deep; an innermost dict is not counted.

    The collector tracks every list, and every dict that holds a container, so it can walk them in C: four
    times as fast as a loop over the values.
    """
    level: list[Any] = [value]
    for _ in range(DEPTH_MAX):
        level = list(filter(gc.is_tracked, gc.get_referents(*level)))
        if not level:
            return False
    return True


def _see_pairs(pairs: list[tuple[str, Any]]) -> None:
    """Keeps nothing: whether a name occurs twice is all that is asked."""
    if len(dict(pairs)) == len(pairs):
        return
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise AmbiguousJSON(f"The body has the member {quoted(name)!r} twice.", param=quoted(name))
        seen.add(name)


def _refuse_constant(name: str) -> None:
    raise InvalidJSON(f"{name} is not JSON.")


_pairs_decoder = json.JSONDecoder(object_pairs_hook=_see_pairs, parse_constant=_refuse_constant)


def _end(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    match = pattern.match(body, at)
    if match is None:
        raise InvalidJSON
    return match.end()


def _wrong_type(key: str, wanted: str) -> InvalidRequest:
    return InvalidRequest(f"{key} must be {wanted}.", param=key)
