"""Answers of the control plane, and how its OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response

from app.admin.document import ErrorAnswer

Responses = dict[int | str, dict[str, Any]]


def _error(description: str) -> dict[str, Any]:
    return {"model": ErrorAnswer, "description": description}


ERRORS: Responses = {
    400: _error("A parameter or a member is not known, or its value means nothing: `param` names it."),
    401: _error("Nobody is known by the credential."),
    403: _error("The role may not."),
    429: _error("Too many wrong credentials from this address: `retry-after` says how long to wait."),
    503: _error("The ledger does not answer."),
}
ERRORS_OF_ONE: Responses = {**ERRORS, 404: _error("There is no such thing, or it belongs to others.")}
ERRORS_OF_CHANGE: Responses = {**ERRORS_OF_ONE, 409: _error("It is there already."), 413: _error("Too large a body.")}
FILES: Responses = {
    200: {
        "description": "The file, streamed. A cell that a spreadsheet would take for a formula begins with `'`.",
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/jsonl": {"schema": {"type": "string"}},
        },
    },
    **ERRORS,
}


def answered(data: object, status: int = 200) -> Response:
    """``data`` as JSON, made at once: models would copy thousands of rows to say what tests say."""
    return Response(msgspec.json.encode(data), status, media_type="application/json")
