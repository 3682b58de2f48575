"""Changes to a body's bytes at known places: everything else stays as it came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from app.core.codec import JSONObject

STREAM_OPTIONS = "stream_options"
INCLUDE_USAGE = "include_usage"
ASKED = b'{"include_usage":true}'
NOT_ASKED = (b"false", b"null")

_options_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Splice(NamedTuple):
    """``body[start:end]`` becomes ``text``."""

    start: int
    end: int
    text: bytes


def spliced(body: bytes, splices: Sequence[Splice]) -> bytes:
    """``body`` with all of ``splices``, which do not overlap."""
    parts: list[bytes] = []
    at = 0
    for start, end, text in sorted(splices):
        parts += (body[at:start], text)
        at = end
    parts.append(body[at:])
    return b"".join(parts)


def usage_splice(body: JSONObject) -> Splice | None:
    """What makes a chat stream end with its usage; None where it is asked to already, or the upstream is to say what
    is wrong with its options.
    """
    if STREAM_OPTIONS not in body.members:
        end = body.body.rindex(b"}")
        return Splice(end, end, b',"stream_options":' + ASKED)
    start, end = body.span_of(STREAM_OPTIONS)
    if not body.has(STREAM_OPTIONS):
        return Splice(start, end, ASKED)
    options = body.body[start:end]
    try:
        members = _options_decoder.decode(options)
    except ValueError:
        return None
    said = members.get(INCLUDE_USAGE)
    if said is None:
        text = b'"include_usage":true' + (b"," if members else b"")
        return Splice(start + 1, start + 1, text)
    if bytes(said) not in NOT_ASKED:
        return None
    first, last = JSONObject(options, members, {}).span_of(INCLUDE_USAGE)
    return Splice(start + first, start + last, b"true")
