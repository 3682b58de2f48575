"""The numbers of a usage as text, for the record: whatever an upstream counts, and none of its words."""

from __future__ import annotations

from typing import Any

import msgspec

USAGE_RAW_BYTES_MAX = 4096
USAGE_DEPTH_MAX = 4


def numbers_text(raw: Any) -> str | None:
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
