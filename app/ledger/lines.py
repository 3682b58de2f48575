"""The lines of the journal: eight hex digits of a CRC-32, a space, JSON, a newline."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from app.core.records import Attempt, Opening, OwnedObject, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

CRC_CHARS = 8


class OpenLine(msgspec.Struct, frozen=True, tag_field="line", tag="open"):
    """Written before anything is sent."""

    opening: Opening


class AttemptLine(msgspec.Struct, frozen=True, tag_field="line", tag="attempt", omit_defaults=True):
    """A further call upstream, after one that is known to be unbilled; ``error`` says what became of that."""

    request_id: str
    attempt: Attempt
    error: str | None = None


class SeenLine(msgspec.Struct, frozen=True, tag_field="line", tag="seen"):
    """An object that a request created upstream."""

    owned: OwnedObject


class CloseLine(msgspec.Struct, frozen=True, tag_field="line", tag="close"):
    """The end: all that the bill needs."""

    record: Record


Line: TypeAlias = OpenLine | AttemptLine | SeenLine | CloseLine

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


def encode_line(line: Line) -> bytes:
    """``line`` as it is written."""
    return framed(encode_payload(line))


def encode_payload(line: Line) -> bytes:
    """What stands in a line; also what is kept of it in the hot state."""
    try:
        return _encode(line)
    except UnicodeEncodeError:
        return _encode(mended(msgspec.to_builtins(line)))


def joined_lines(*payloads: bytes) -> bytes:
    """Several lines in one text, for the hot state; JSON has no raw line break in it."""
    return b"\n".join(payloads)


def decode_lines(payloads: bytes) -> list[Line]:
    """The other way of ``joined_lines``. ValueError where one is none."""
    return [decode_payload(payload) for payload in payloads.split(b"\n")]


def with_decision(opened: bytes, decision: dict[str, object]) -> bytes:
    """The payload of an OpenLine that had no decision yet, with one: it is the last member of an opening."""
    return b'%b,"decision":%b}}' % (opened[:-2], _encode(decision))


def framed(payload: bytes) -> bytes:
    """A line that holds ``payload``."""
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


def decode_payload(payload: bytes) -> Line:
    """The other way of ``encode_payload``. ValueError if it is none."""
    try:
        line: Line = _decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError("not a line of this journal") from error
    return line


def mended(value: Any) -> Any:
    """``value`` (of dicts, lists, texts) with halves of surrogate pairs replaced: JSON may hold one in an
    escape, UTF-8 cannot, and a bill is not lost for it.
    """
    if isinstance(value, str):
        return value.encode(errors="surrogatepass").decode(errors="replace")
    if isinstance(value, dict):
        return {mended(key): mended(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [mended(each) for each in value]
    return value


def decode_line(line: bytes) -> Line:
    """A line without its newline. ValueError if it is not what was written, or by a version unknown here."""
    payload = line[CRC_CHARS + 1 :]
    # int() alone would also take a sign, spaces and underscores.
    if line[:CRC_CHARS] != b"%08x" % zlib.crc32(payload) or line[CRC_CHARS : CRC_CHARS + 1] != b" ":
        raise ValueError("checksum")
    return decode_payload(payload)


class Torn(msgspec.Struct, frozen=True):
    """The end of a segment that was being written when its machine died."""

    offset: int


class Damaged(msgspec.Struct, frozen=True):
    """A line in the middle of a segment that cannot be read; those behind it can."""

    offset: int
    reason: str


def read_lines(data: bytes) -> Iterator[Line | Torn | Damaged]:
    """The lines of a segment. JSON has no raw newline in it, so a damaged line ends where it should."""
    offset = 0
    while offset < len(data):
        end = data.find(b"\n", offset)
        if end < 0:
            yield Torn(offset)
            return
        try:
            yield decode_line(data[offset:end])
        except (ValueError, RecursionError) as error:
            # Zeros and rubbish that reach to the end are what a lost power leaves.
            yield Damaged(offset, str(error)) if end + 1 < len(data) else Torn(offset)
        offset = end + 1
