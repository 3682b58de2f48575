"""The usage that an answer reports: the truth, unless the request steers it into a lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.simulator.log import BilledUsage
    from app.simulator.steering import ReportedUsage

HUGE_TOKENS = 10**12
NEGATIVE_TOKENS = -7


def responses_usage(used: BilledUsage) -> dict[str, Any]:
    """``usage`` of a response."""
    return {
        "input_tokens": used.input_tokens,
        "input_tokens_details": {"cached_tokens": used.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": used.output_tokens,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
        "total_tokens": used.input_tokens + used.output_tokens,
    }


def chat_usage(used: BilledUsage) -> dict[str, Any]:
    """``usage`` of a chat completion."""
    return {
        "prompt_tokens": used.input_tokens,
        "completion_tokens": used.output_tokens,
        "total_tokens": used.input_tokens + used.output_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": used.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def embeddings_usage(used: BilledUsage) -> dict[str, Any]:
    """``usage`` of embeddings."""
    return {"prompt_tokens": used.input_tokens, "total_tokens": used.input_tokens}


def report(body: dict[str, Any], usage: dict[str, Any], lie: ReportedUsage) -> None:
    """Put ``usage`` into ``body``, as steered."""
    if lie == "missing":
        body.pop("usage", None)
    elif lie == "null":
        body["usage"] = None
    elif lie == "cached_above_input":
        body["usage"] = _cached_above_input(usage)
    else:
        body["usage"] = usage if lie == "truth" else _each(usage, lie)


def _each(usage: dict[str, Any], lie: ReportedUsage) -> dict[str, Any]:
    return {name: _each(value, lie) if isinstance(value, dict) else _told(value, lie) for name, value in usage.items()}


def _told(tokens: int, lie: ReportedUsage) -> int | float | str:
    if lie == "negative":
        return NEGATIVE_TOKENS
    if lie == "float":
        return tokens + 0.5
    if lie == "string":
        return str(tokens)
    return HUGE_TOKENS if lie == "huge" else 0


def _cached_above_input(usage: dict[str, Any]) -> dict[str, Any]:
    for total, details in (("input_tokens", "input_tokens_details"), ("prompt_tokens", "prompt_tokens_details")):
        if total in usage:
            inner = usage.get(details, {})
            usage[details] = {**inner, "cached_tokens": usage[total] + 100}
    return usage
