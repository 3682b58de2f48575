"""Which headers pass, in both directions."""

from __future__ import annotations

import hashlib
import re

from app.core.errors import Headers

# design: everything that is not on these lists stays here; a client's own credentials never leave.
FORWARDED = frozenset(
    name.encode()
    for name in (
        "accept",
        "content-type",
        "user-agent",
        "openai-beta",
        "idempotency-key",
        "traceparent",
        "tracestate",
    )
)
FORWARDED_PREFIX = b"x-stainless-"

HOP_BY_HOP = frozenset(
    name.encode()
    for name in (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
# What a browser would keep for the whole origin, which is the gateway's and its console's.
OF_THE_ORIGIN = frozenset(
    name.encode()
    for name in (
        "alt-svc",
        "clear-site-data",
        "nel",
        "report-to",
        "reporting-endpoints",
        "set-cookie",
        "strict-transport-security",
    )
)
# Never shown to a client: that, the provider's account, and what is the gateway's own to say.
WITHHELD = (
    HOP_BY_HOP
    | OF_THE_ORIGIN
    | frozenset(name.encode() for name in ("openai-organization", "openai-project", "content-length", "date"))
)
USUAL_CONNECTIONS = (b"keep-alive", b"close")
OURS_PREFIX = b"x-headgate-"
RATE_LIMIT_PREFIX = b"x-ratelimit-"
KEY_PREFIX = "openai-insecure-api-key."
SUBPROTOCOL = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def toward_upstream(headers: Headers, also: frozenset[bytes], team_id: str) -> Headers:
    """The client's headers that the upstream may see; ``also`` names the configured ones.

    An Idempotency-Key stands for one call of one team's: the upstream, to which all teams are one customer, would
    answer a second team's call with what the first one got.
    """
    passed = [
        header
        for header in headers
        if header[0] in FORWARDED or header[0].startswith(FORWARDED_PREFIX) or header[0] in also
    ]
    for place, (name, value) in enumerate(passed):
        if name == b"idempotency-key":
            own = hashlib.sha256(team_id.encode() + b"\0" + value).hexdigest()
            passed[place] = (name, own.encode())
    return passed


def toward_client(headers: Headers, *, rename_limits: bool) -> Headers:
    """The upstream's headers (names in lower case) that the client may see.

    ``rename_limits``: the key has limits of its own, so the upstream's go under ``x-upstream-``.
    Values with control characters are dropped, and so is what ``connection`` names (RFC 9110, 7.6.1).
    """
    passed: Headers = []
    # One look at all of them: hardly ever is there anything to drop.
    suspicious = CONTROL.search(b"".join([value for _, value in headers])) is not None
    for name, value in headers:
        if name in WITHHELD or name.startswith(OURS_PREFIX):
            if name == b"connection" and value.lower() not in USUAL_CONNECTIONS:
                return toward_client(_without_one_hop(headers), rename_limits=rename_limits)
            continue
        if suspicious and CONTROL.search(value) is not None:
            continue
        if rename_limits and name.startswith(RATE_LIMIT_PREFIX):
            passed.append((b"x-upstream-" + name.removeprefix(b"x-"), value))
        else:
            passed.append((name, value))
    return passed


def _without_one_hop(headers: Headers) -> Headers:
    told = b",".join([value for name, value in headers if name == b"connection"])
    named = {b"connection", *(token.strip().lower() for token in told.split(b","))}
    return [header for header in headers if header[0] not in named]


def find(headers: Headers, name: bytes) -> bytes | None:
    """The first value of ``name`` (lower case), or None."""
    for candidate, value in headers:
        if candidate == name:
            return value
    return None


def subprotocols_of(headers: Headers) -> list[str]:
    """What a WebSocket's client offers to speak, without keys: some clients can send one in no other place."""
    offered = b",".join(value for name, value in headers if name == b"sec-websocket-protocol").decode("latin-1")
    names = [part.strip() for part in offered.split(",")]
    return [name for name in names if SUBPROTOCOL.match(name) and not name.startswith(KEY_PREFIX)]


def key_of_subprotocols(headers: Headers) -> str | None:
    """The key among the subprotocols that are offered; None where there is none."""
    offered = b",".join(value for name, value in headers if name == b"sec-websocket-protocol").decode("latin-1")
    names = [part.strip() for part in offered.split(",")]
    return next((name.removeprefix(KEY_PREFIX) for name in names if name.startswith(KEY_PREFIX)), None)
