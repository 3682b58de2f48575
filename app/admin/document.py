"""The OpenAPI document: what routes say of themselves, and what holds for all of them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from app.admin.access import COOKIE, CSRF_HEADER

DESCRIPTION = """
Teams, keys, budgets, what was spent, and why. Send an admin token as `Authorization: Bearer hg-admin-…`; a browser
that has signed in is known by its cookie, and sends `x-headgate-csrf` with every request but GET and HEAD.

Times are ISO 8601 in UTC. Money is a decimal string in dollars (`…_usd`); null is "unpriced", never zero. Lists are
`{"data": […], "next": cursor or null}`.
"""


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


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": ErrorAnswer,
        "description": "400 `invalid_request`, 401 `invalid_admin_token`, 403 `forbidden`, 404 `not_found`,"
        " 409 `already_exists`, 413 `body_too_large`, 429 `rate_limit_exceeded`.",
    },
    "5XX": {"model": ErrorAnswer, "description": "503 `ledger_unavailable`; 500 `internal_error` is a bug."},
}


def describe(app: FastAPI) -> None:
    """Adds to the document of ``app`` how a request says who asks."""
    plain = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = plain()
            made.setdefault("components", {})["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer", "description": "An admin token."},
                "key": {"type": "http", "scheme": "bearer", "description": "A gateway key, for what is under `/me`."},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": f"Of a browser that has signed in; changes also need `{CSRF_HEADER}`.",
                },
            }
            made["security"] = [{"token": []}, {"session": []}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's own way to extend the document
