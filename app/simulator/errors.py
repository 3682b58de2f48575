"""What the simulator refuses, in OpenAI's shape."""

from __future__ import annotations

from typing import NoReturn

import msgspec


class RequestRefused(Exception):
    """An answer with an error body instead of a generation. Never billed unless steered so."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        super().__init__(message)

    def body(self) -> bytes:
        return error_body(self.message, self.kind, self.param, self.code)


def error_body(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """``{"error": {...}}`` as bytes."""
    return msgspec.json.encode({"error": error_members(message, kind, param, code)})


def error_members(message: str, kind: str, param: str | None, code: str | None) -> dict[str, str | None]:
    """What is inside ``error``."""
    return {"message": message, "type": kind, "param": param, "code": code}


def refuse_value(param: str, message: str, code: str = "invalid_value") -> NoReturn:
    """Raise the 400 for a field whose value is not acceptable."""
    raise RequestRefused(400, message, param=param, code=code)


def refuse_type(param: str, expected: str, got: object) -> NoReturn:
    """Raise the 400 for a field of the wrong JSON type."""
    message = f"Invalid type for '{param}': expected {expected}, but got {json_type(got)} instead."
    raise RequestRefused(400, message, param=param, code="invalid_type")


def refuse_missing(param: str) -> NoReturn:
    """Raise the 400 for a field that must be there."""
    message = f"Missing required parameter: '{param}'."
    raise RequestRefused(400, message, param=param, code="missing_required_parameter")


def json_type(value: object) -> str:
    """The name that OpenAI's messages give to a JSON value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int):
        return "an integer"
    if isinstance(value, float):
        return "a decimal"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list):
        return "an array"
    return "an object"


REFUSED = (RequestRefused, msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a request may raise; everything but the first comes from its bytes."""


def refusal_of(error: Exception) -> RequestRefused:
    """The refusal that one of ``REFUSED`` stands for."""
    if isinstance(error, RequestRefused):
        return error
    return refusal_of_invalid(error) if isinstance(error, msgspec.ValidationError) else refusal_of_unparsable(error)


def refusal_of_invalid(error: msgspec.ValidationError) -> RequestRefused:
    """The 400 for a body that is JSON, but not of the endpoint's shape.

    msgspec says ``Expected `str`, got `int` - at `$.model```; the path becomes ``param``.
    """
    text, _, path = str(error).partition(" - at `$")
    param = path.rstrip("`").removeprefix(".").removesuffix("[...]") or None
    if param is None:
        return RequestRefused(400, f"Invalid request body: {text}.", code="invalid_type")
    code = "invalid_type" if ", got `" in text else "invalid_value"
    return RequestRefused(400, f"Invalid '{param}': {text}.", param=param, code=code)


def refusal_of_unparsable(error: Exception) -> RequestRefused:
    """The 400 for a body that is not JSON."""
    message = f"We could not parse the JSON body of your request. ({error})"
    return RequestRefused(400, message)
