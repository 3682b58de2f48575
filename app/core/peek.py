"""The few fields of a request's body that the gateway needs, read once and checked.

Everything else passes as it came. A field that is read and has the wrong type is refused, so that the
gateway's idea of a request and the upstream's cannot differ.
"""

from __future__ import annotations

import msgspec

from app.core.codec import JSONObject
from app.core.errors import InvalidRequest
from app.core.exchange import Family

OUTPUT_TOKENS_FIELDS = {
    "responses": ("max_output_tokens",),
    "chat": ("max_completion_tokens", "max_tokens"),
    "embeddings": (),
    "models": (),
}
OUTPUT_TOKENS_LARGEST = 10_000_000
ANSWERS_MAX = 128
END_USER_CHARS_MAX = 256


class Peek(msgspec.Struct, frozen=True):
    """What a body asks for, as far as the gateway must know."""

    model: str
    model_span: tuple[int, int]
    stream: bool
    output_tokens_max: int | None
    answers: int
    end_user: str | None
    service_tier: str | None
    previous_response_id: str | None
    stores: bool
    reasons: bool


def peek(family: Family, body: JSONObject) -> Peek:
    """Read ``body``. Raises InvalidRequest with the field's name as ``param``."""
    model = body.get_str("model")
    if model is None:
        raise InvalidRequest("The request names no model.", param="model")
    if family == "responses" and body.get_bool("background"):
        raise InvalidRequest("Background responses are not supported by this gateway yet.", param="background")
    return Peek(
        model=model,
        model_span=body.span_of("model"),
        stream=family != "embeddings" and bool(body.get_bool("stream")),
        output_tokens_max=_output_tokens_max(family, body),
        answers=_answers(family, body),
        end_user=_end_user(body),
        service_tier=body.get_str("service_tier"),
        previous_response_id=body.get_str("previous_response_id") if family == "responses" else None,
        stores=family == "responses" and body.get_bool("store") is not False,
        reasons=body.has("reasoning") or body.has("reasoning_effort"),
    )


def _output_tokens_max(family: Family, body: JSONObject) -> int | None:
    if family == "embeddings":
        return 0
    limits = []
    for field in OUTPUT_TOKENS_FIELDS[family]:
        value = body.get_int(field)
        if value is None:
            continue
        if not 1 <= value <= OUTPUT_TOKENS_LARGEST:
            raise InvalidRequest(f"{field} must be between 1 and {OUTPUT_TOKENS_LARGEST}.", param=field)
        limits.append(value)
    return max(limits, default=None)


def _answers(family: Family, body: JSONObject) -> int:
    if family != "chat":
        return 1
    value = body.get_int("n")
    if value is None:
        return 1
    if not 1 <= value <= ANSWERS_MAX:
        raise InvalidRequest(f"n must be between 1 and {ANSWERS_MAX}.", param="n")
    return value


def _end_user(body: JSONObject) -> str | None:
    for field in ("safety_identifier", "user"):
        value = body.get_str(field)
        if value:
            return value[:END_USER_CHARS_MAX]
    return None
