"""Signing in and out, and the tokens that one signs in with."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, SecretStr
from pydantic.config import JsonDict

from app.admin.schemas.fields import ID, Answer, Body, Moment, Name

TOKEN_EXAMPLE: JsonDict = {
    "id": "4kq8wzB7x2",
    "name": "search team",
    "role": "lead",
    "team": {"id": "8Zk2m1qLp0xA", "name": "search"},
    "created_at": "2026-11-01T08:00:00.000Z",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": "2026-11-24T15:40:12.123Z",
}


class SignIn(Body):
    """An admin token, or a gateway key, which reaches only what `/me` shows."""

    model_config = ConfigDict(json_schema_extra={"example": {"credential": "hg-admin-0000000000-…"}})

    credential: SecretStr = Field(max_length=512, examples=["hg-admin-0000000000-…"])


class TeamNamed(Answer):
    id: str
    name: str


class Session(Answer):
    """Who is signed in. `csrf` goes into the header `x-headgate-csrf` of every request but GET and HEAD."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "kind": "token",
                "role": "lead",
                "name": "search team",
                "team": {"id": "8Zk2m1qLp0xA", "name": "search"},
                "csrf": "…",
                "expires_at": "2026-12-06T10:00:00.000Z",
                "version": "0.1.0",
                "sso": False,
            }
        }
    )

    kind: Literal["token", "key", "sso"]
    role: Literal["admin", "viewer", "lead", "key"]
    name: str
    team: TeamNamed | None
    csrf: str | None
    expires_at: str | None
    version: str
    sso: bool


class Provider(Answer):
    model_config = ConfigDict(json_schema_extra={"example": {"enabled": True}})

    enabled: bool


class TokenMade(Body):
    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "search team", "role": "lead", "team_id": "8Zk2m1qLp0xA"}}
    )

    name: Name
    role: Literal["admin", "viewer", "lead"]
    team_id: str | None = Field(default=None, max_length=64, pattern=ID, description="The team of a lead.")
    expires_at: Moment | None = None


class Token(Answer):
    model_config = ConfigDict(json_schema_extra={"example": TOKEN_EXAMPLE})

    id: str
    name: str
    role: Literal["admin", "viewer", "lead"]
    team: TeamNamed | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class NewToken(Token):
    model_config = ConfigDict(json_schema_extra={"example": {**TOKEN_EXAMPLE, "token": "hg-admin-0000000000-…"}})

    token: str = Field(description="The token's text, shown this once.")


class Tokens(Answer):
    data: list[Token]
    next: str | None = None
