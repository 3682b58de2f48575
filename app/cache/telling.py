"""What clients are told of the cache, and which headers of an answer may be told again.

``Cache-Status`` is RFC 9211; ``age`` RFC 9111.
"""

from __future__ import annotations

from app.core.errors import Headers

STATUS_PREFIX = b"headgate; "

# Of one request, or true only when they were sent.
_OF_ONE = frozenset((b"x-headgate-request-id", b"x-headgate-cost-usd", b"x-headgate-cache", b"age", b"date"))
_OF_ONE_PREFIXES = (b"x-ratelimit-", b"x-upstream-ratelimit-")


def common_headers(headers: Headers, request_id: str) -> Headers:
    """What all who get the same answer have alike of the ``headers`` that the request ``request_id`` got."""
    own_id = request_id.encode()
    return [
        (name, value)
        for name, value in headers
        if name not in _OF_ONE
        and not name.startswith(_OF_ONE_PREFIXES)
        and not (name == b"cache-status" and value.startswith(STATUS_PREFIX))
        and not (name == b"x-request-id" and value == own_id)
    ]


def own_headers(headers: Headers, request_id: str, limit_headers: Headers) -> Headers:
    """``headers`` that are common, with a request's own."""
    request = request_id.encode()
    told = [*headers, (b"x-headgate-request-id", request), *limit_headers]
    for name, _ in headers:
        if name == b"x-request-id":
            return told
    told.append((b"x-request-id", request))
    return told


def hit_headers(ttl_left_s: int, age_s: int, detail: str) -> Headers:
    status = b"headgate; hit; ttl=%d" % ttl_left_s
    if detail:
        status += b'; detail="%s"' % detail.encode()
    return [(b"x-headgate-cache", b"hit"), (b"cache-status", status), (b"age", b"%d" % age_s)]


def miss_headers(reason: str) -> Headers:
    """``reason``: why it was not even looked for, or empty."""
    forward = b"request" if reason == "refresh" else b"miss"
    return [(b"x-headgate-cache", b"miss"), (b"cache-status", b"headgate; fwd=%s" % forward)]


JOINED_HEADERS: Headers = [(b"x-headgate-cache", b"joined"), (b"cache-status", b"headgate; fwd=miss; collapsed")]


def bypass_headers(reason: str) -> Headers:
    return [
        (b"x-headgate-cache", b"bypass"),
        (b"cache-status", b'headgate; fwd=bypass; detail="%s"' % reason.encode()),
    ]
