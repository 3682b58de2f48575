"""When an upstream wants to be asked again: what its headers say, and what of that a client is told."""

from __future__ import annotations

import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

from app.core.errors import Headers

RETRY_AFTER_S_MAX = 120
"""Nobody is sent away, and nobody left alone, for longer than this."""
NUMBER = re.compile(rb"-?[0-9]{1,300}(?:\.[0-9]{1,300})?\Z")
UNITS_S = {b"retry-after-ms": 0.001, b"retry-after": 1.0}


def retry_after_s(headers: Headers, now_s: float | None = None) -> float | None:
    """What ``headers`` (names in lower case) ask for, between 0 and RETRY_AFTER_S_MAX; None where they ask for nothing
    that can be read. The finer of the two headers holds. ``now_s`` is since 1970.
    """
    told = {name: value for name, value in headers if name in UNITS_S}
    for name in UNITS_S:
        seconds = _seconds(name, told.get(name, b""), now_s)
        if seconds is not None:
            return min(max(seconds, 0.0), float(RETRY_AFTER_S_MAX))
    return None


def sensible(headers: Headers, now_s: float | None = None) -> Headers:
    """``headers`` as they are, but for times to wait that are absurd: those are brought into bounds."""
    return [(name, _bounded(name, value, now_s)) if name in UNITS_S else (name, value) for name, value in headers]


def _bounded(name: bytes, value: bytes, now_s: float | None) -> bytes:
    seconds = _seconds(name, value, now_s)
    if seconds is None or ((seconds >= 0 or NUMBER.match(value) is None) and seconds <= RETRY_AFTER_S_MAX):
        return value
    return b"0" if seconds < 0 else b"%d" % round(RETRY_AFTER_S_MAX / UNITS_S[name])


def _seconds(name: bytes, value: bytes, now_s: float | None) -> float | None:
    value = value.strip(b" \t")
    if NUMBER.match(value) is not None:
        return float(value) * UNITS_S[name]
    if name != b"retry-after" or not value:
        return None
    try:
        at = parsedate_to_datetime(value.decode("ascii"))
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return at.timestamp() - (time.time() if now_s is None else now_s)
    except (ValueError, OverflowError):
        return None
