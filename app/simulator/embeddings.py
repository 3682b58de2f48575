"""``POST /embeddings``: unit vectors that depend on model and text alone."""

from __future__ import annotations

import base64
import hashlib
import math
import sys
from array import array
from typing import Annotated, Any, Literal

import msgspec

from app.simulator.errors import error_body, refuse_missing, refuse_type, refuse_value
from app.simulator.log import BilledUsage
from app.simulator.routes import JSON
from app.simulator.steering import Steering
from app.simulator.tokens import count_tokens
from app.simulator.usage_report import embeddings_usage, report

INPUTS_MAX = 2048
DIMENSIONS_MAX = 4096
DIMENSIONS = {"text-embedding-3-large": 3072, "sim-embedding": 256}
DIMENSIONS_ELSE = 1536


class EmbeddingsBody(msgspec.Struct, kw_only=True):
    """What is read of the body."""

    model: str | None = None
    input: str | list[Any] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=DIMENSIONS_MAX)] | None = None


_DECODER = msgspec.json.Decoder(EmbeddingsBody)


def read_embeddings_body(data: bytes) -> EmbeddingsBody:
    """The decoded and checked body."""
    body = _DECODER.decode(data)
    if body.model is None or not body.model:
        refuse_missing("model")
    if body.input is None:
        refuse_missing("input")
    if not body.input:
        refuse_value("input", "Invalid 'input': it must not be empty.")
    return body


def texts_of(body: EmbeddingsBody) -> list[str | list[int]]:
    """The inputs: texts, or rows of token numbers."""
    given = body.input
    if isinstance(given, str) or given is None:
        return [given or ""]
    if all(_is_token(item) for item in given):
        return [given]
    if len(given) > INPUTS_MAX:
        refuse_value("input", f"Invalid 'input': at most {INPUTS_MAX} inputs.", "array_above_max_length")
    for index, item in enumerate(given):
        if isinstance(item, list):
            if not item or not all(_is_token(token) for token in item):
                refuse_type(f"input[{index}]", "an array of integers", item)
        elif not isinstance(item, str):
            refuse_type(f"input[{index}]", "a string or an array of integers", item)
        elif not item:
            refuse_value(f"input[{index}]", f"Invalid 'input[{index}]': it must not be empty.")
    return given


def steering_text(body: EmbeddingsBody) -> str:
    """The text in which directives are looked for: every input that is text."""
    if isinstance(body.input, str):
        return body.input
    return "\n".join(item for item in body.input or [] if isinstance(item, str))


class EmbeddingsAnswer:
    """The vectors of one request."""

    complete = True
    failed_status = 500
    content_type = JSON

    def __init__(self, body: EmbeddingsBody, used: BilledUsage, steering: Steering) -> None:
        self._body = body
        self._used = used
        self._steering = steering

    def body(self) -> bytes:
        model = self._body.model or ""
        dimensions = self._body.dimensions or DIMENSIONS.get(model.partition("@")[0], DIMENSIONS_ELSE)
        as_base64 = self._body.encoding_format == "base64"
        data = []
        for index, text in enumerate(texts_of(self._body)):
            vector = unit_vector(f"{model}\0{text}", dimensions)
            embedding = _base64_of(vector) if as_base64 else vector.tolist()
            data.append({"object": "embedding", "index": index, "embedding": embedding})
        answer: dict[str, Any] = {"object": "list", "data": data, "model": model, "usage": None}
        report(answer, embeddings_usage(self._used), self._steering.usage)
        return msgspec.json.encode(answer)

    def failed_body(self) -> bytes:
        return error_body("The simulator was steered into failing.", "server_error", None, "server_error")


def tokens_of_inputs(body: EmbeddingsBody) -> int:
    """What the inputs are billed at."""
    return sum(count_tokens(text) if isinstance(text, str) else len(text) for text in texts_of(body))


def unit_vector(text: str, dimensions: int) -> array[float]:
    """``dimensions`` 32-bit floats of length 1."""
    raw = array("h", hashlib.shake_256(text.encode()).digest(dimensions * 2))
    if sys.byteorder == "big":
        raw.byteswap()
    length = math.sqrt(sum(value * value for value in raw)) or 1.0
    return array("f", [value / length for value in raw])


def _base64_of(vector: array[float]) -> str:
    if sys.byteorder == "big":
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()


def _is_token(item: object) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)
