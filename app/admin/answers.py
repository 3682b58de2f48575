"""Answers of the control plane, and what routes say in its OpenAPI document of those that are theirs alone.

What many routes have in common is worked out of what they need (``app.admin.document``).
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response
from pydantic import BaseModel, ConfigDict

Responses = dict[int | str, dict[str, Any]]


class Fault(BaseModel):
    """What went wrong, and where."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """Every error; `code` is for programs, `message` for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "error": {
                    "message": "name: String should have at least 1 character.",
                    "type": "invalid_request_error",
                    "param": "name",
                    "code": "invalid_request",
                }
            }
        }
    )

    error: Fault


def _error(description: str) -> dict[str, Any]:
    return {"model": ErrorAnswer, "description": description}


BUG: Responses = {500: _error("`internal_error`: a bug.")}
OF_OTHERS: Responses = {404: _error("`not_found`: what is named is not there, or belongs to others.")}
TAKEN: Responses = {409: _error("`already_exists`: there is another one like it.")}
BUSY: Responses = {409: _error("`already_exists`: another one runs.")}
WRONG: Responses = {
    401: _error("`invalid_admin_token`: nobody is known by the credential."),
    403: _error("`forbidden`: a page of another origin sends this."),
    429: _error("`rate_limit_exceeded`: too many wrong credentials from this address; see `retry-after`."),
}
NO_PROVIDER: Responses = {
    404: _error("`not_found`: no provider is configured."),
    502: _error("`upstream_invalid_response`: the provider gave no answer that can be used."),
}
REFUSED: Responses = {403: _error("`forbidden`: the provider did not let this person in, or they have no role.")}
FILES: Responses = {
    200: {
        "description": "The file, streamed. A cell that a spreadsheet would take for a formula begins with `'`.",
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/jsonl": {"schema": {"type": "string"}},
        },
    },
}


def answered(data: object, status: int = 200) -> Response:
    """``data`` as JSON, made at once: models would copy thousands of rows to say what tests say."""
    return Response(msgspec.json.encode(data), status, media_type="application/json")
