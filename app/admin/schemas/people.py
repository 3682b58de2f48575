"""Teams, keys and their secrets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from app.admin.schemas.fields import ID, Answer, Body, Moment, Name, Patterns, Tags
from app.admin.schemas.limits import Limit, PlainLimits

KeyState = Literal["active", "expired", "revoked"]
CacheModeName = Literal["off", "shadow", "deterministic", "all"]
OVERLAP_S_MAX = 90 * 24 * 60 * 60
EVERY_PATH = (
    "`*` is every path, also those that the gateway does not know: they are passed to the provider as they are, "
    "whatever they name, and leave no record, which gives up the isolation of teams. Beside it nothing else counts."
)
OF_TEAM = f"Families that its keys have, unless they have their own; null is those that are on by default. {EVERY_PATH}"
OF_KEY = f"Families that it may use; null is its team's. A lead gives what the team has, and never `*`. {EVERY_PATH}"

SECRET_EXAMPLE: JsonDict = {
    "id": "9t2xkdC6r8",
    "state": "active",
    "created_at": "2026-03-01T09:00:00.000Z",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": "2026-11-24T15:40:12.123Z",
}
KEY_EXAMPLE: JsonDict = {
    "id": "9t2xkdC6r8",
    "name": "support-bot",
    "team": {"id": "8Zk2m1qLp0xA", "name": "search", "color": 3},
    "state": "active",
    "owner": "jonas@acme.example",
    "tags": {"service": "chat-widget"},
    "models": ["gpt-5*"],
    "endpoints": None,
    "cache_mode": None,
    "limits": [],
    "expires_at": None,
    "revoked_at": None,
    "created_at": "2026-03-01T09:00:00.000Z",
    "last_used_at": "2026-11-24T15:40:12.123Z",
    "spent_month_usd": "118.2041",
    "requests_month": 20417,
    "secrets": [SECRET_EXAMPLE],
}


class TeamMade(PlainLimits):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "name": "search",
                "endpoints": ["responses", "models", "files", "vector_stores"],
                "budget_usd": "5000",
                "time_zone": "Europe/Berlin",
            }
        },
    )

    name: Name
    endpoints: list[str] | None = Field(default=None, description=OF_TEAM)


class TeamChanged(PlainLimits):
    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "search", "endpoints": None, "requests_per_minute": 600}}
    )

    name: Name | None = None
    endpoints: list[str] | None = Field(default=None, description=OF_TEAM)


class Team(Answer):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "8Zk2m1qLp0xA",
                "name": "search",
                "limits": [],
                "endpoints": ["responses", "models", "files", "vector_stores"],
                "keys_active": 4,
                "created_at": "2026-03-01T09:00:00.000Z",
                "color": 3,
            }
        }
    )

    id: str
    name: str
    limits: list[Limit]
    endpoints: list[str] | None = Field(description=OF_TEAM)
    keys_active: int
    created_at: str
    color: int = Field(description="1 to 8: its colour in every chart.")


class Teams(Answer):
    data: list[Team]
    next: str | None


class KeyChanged(PlainLimits):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"owner": "ann@acme.example", "models": None, "expires_at": "2027-01-31T00:00:00Z"}
        }
    )

    name: Name | None = None
    owner: Name | None = None
    tags: Tags | None = None
    models: Patterns | None = Field(default=None, description="Patterns of models that it may ask for; null is all.")
    endpoints: list[str] | None = Field(default=None, description=OF_KEY)
    cache_mode: CacheModeName | None = None
    expires_at: Moment | None = None


class KeyMade(KeyChanged):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "team_id": "8Zk2m1qLp0xA",
                "name": "support-bot",
                "owner": "jonas@acme.example",
                "models": ["gpt-5*"],
                "requests_per_minute": 60,
                "budget_usd": "200",
            }
        },
    )

    team_id: str = Field(max_length=64, pattern=ID)
    name: Name


class TeamColored(Answer):
    id: str
    name: str
    color: int


class Secret(Answer):
    """One of a key's secrets; `id` is the public id in its text."""

    id: str
    state: KeyState
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class Key(Answer):
    model_config = ConfigDict(json_schema_extra={"example": KEY_EXAMPLE})

    id: str
    name: str
    team: TeamColored
    state: KeyState
    owner: str | None
    tags: dict[str, str]
    models: list[str] | None
    endpoints: list[str] | None = Field(description=OF_KEY)
    cache_mode: CacheModeName | None
    limits: list[Limit]
    expires_at: str | None
    revoked_at: str | None
    created_at: str
    last_used_at: str | None
    spent_month_usd: str
    requests_month: int
    secrets: list[Secret]


class NewKey(Key):
    model_config = ConfigDict(
        json_schema_extra={"example": {**KEY_EXAMPLE, "key": "sk-hg-9t2xkdC6r8-…", "secret_id": "9t2xkdC6r8"}}
    )

    key: str = Field(description="The text for the SDK, shown this once.")
    secret_id: str = Field(description="The public id of the new secret.")


class Keys(Answer):
    data: list[Key]
    next: str | None


class KeyCounts(Answer):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "active": 41,
                "rotating": 1,
                "expiring": 2,
                "unused": 5,
                "revoked": 12,
                "expired": 3,
                "all": 56,
            }
        }
    )

    active: int
    rotating: int
    expiring: int
    unused: int
    revoked: int
    expired: int
    all: int


class Rotation(Body):
    model_config = ConfigDict(json_schema_extra={"example": {"overlap_s": 86400}})

    overlap_s: Annotated[int, Field(strict=True, ge=0, le=OVERLAP_S_MAX)] = 7 * 24 * 60 * 60


class Revocation(Body):
    model_config = ConfigDict(json_schema_extra={"example": {"name": "support-bot", "at_once": False}})

    name: str = Field(max_length=100, description="The key's name, typed by whoever revokes it.")
    at_once: bool = Field(default=False, strict=True, description="Cut off what is running, too.")


class SecretChanged(Body):
    model_config = ConfigDict(json_schema_extra={"example": {"expires_at": "2026-12-31T00:00:00Z"}})

    expires_at: Moment | None


class TagUse(Answer):
    name: str
    value: str
    last_used_at: str
    requests_last_hour: int


class SecretUse(Secret):
    requests_last_hour: int
    hours: list[int] = Field(description="Requests of the last 24 hours, oldest first.")
    tags: list[TagUse]


class SecretUses(Answer):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "data": [
                    {
                        **SECRET_EXAMPLE,
                        "requests_last_hour": 312,
                        "hours": [*([0] * 20), 41, 120, 298, 312],
                        "tags": [
                            {
                                "name": "service",
                                "value": "chat-widget",
                                "last_used_at": "2026-11-24T15:40:12.123Z",
                                "requests_last_hour": 312,
                            }
                        ],
                    }
                ],
                "hours_from": "2026-11-23T15:40:12.123Z",
            }
        }
    )

    data: list[SecretUse]
    hours_from: str
