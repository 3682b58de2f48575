"""Changes, as the audit log tells them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from app.admin.schemas.fields import Answer


class Actor(Answer):
    kind: Literal["token", "sso", "cli", "system"]
    id: str
    name: str


class Object(Answer):
    kind: str
    id: str
    name: str


class Change(Answer):
    """`before` is null of what was made, `after` of what was taken away; else both hold what differs."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "0193c0de-0000-7000-8000-000000000000",
                "at": "2026-11-24T15:40:12.123Z",
                "actor": {"kind": "token", "id": "4kq8wzB7x2", "name": "first-run"},
                "action": "key.update",
                "object": {"kind": "key", "id": "9t2xkdC6r8", "name": "support-bot"},
                "team_id": "8Zk2m1qLp0xA",
                "before": {"expires_at": None},
                "after": {"expires_at": "2027-01-31T00:00:00.000Z"},
                "peer": "10.0.0.7",
            }
        }
    )

    id: str
    at: str
    actor: Actor
    action: str
    object: Object
    team_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    peer: str


class Changes(Answer):
    data: list[Change]
    next: str | None
