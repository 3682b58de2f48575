"""A request that goes on from kept turns, as one that brings them along."""

from __future__ import annotations

from app.core.codec import JSONObject
from app.core.splices import Splice, spliced
from app.state.items import own_items

PREVIOUS = "previous_response_id"


def expanded(body: JSONObject, earlier: bytes) -> bytes:
    """The body without ``previous_response_id``, and with ``earlier`` before its own input; every other byte stays.
    Raises InvalidRequest.
    """
    own = own_items(body)
    comma = b"," if earlier and own else b""
    if "input" not in body.members:
        # It takes the place of what named the turns.
        start, end = body.span_of(PREVIOUS)
        name = body.body.rindex(b'"', 0, body.body.rindex(b":", 0, start))
        first = body.body.rindex(b'"', 0, name)
        return spliced(body.body, [Splice(first, end, b'"input":[' + earlier + b"]")])
    start, end = body.span_of("input")
    if body.raw("input")[:1] == b"[":
        put = Splice(start + 1, start + 1, earlier + comma)
    else:
        put = Splice(start, end, b"[" + earlier + comma + own + b"]")
    return spliced(body.body, [put, Splice(*body.cut_of(PREVIOUS), b"")])
