"""Teams, keys and their secrets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.admin.schemas.fields import ID, Answer, Body, Moment, Name, Patterns, Tags
from app.admin.schemas.limits import Limit, PlainLimits

KeyState = Literal["active", "expired", "revoked"]
CacheModeName = Literal["off", "shadow", "deterministic", "all"]
OVERLAP_S_MAX = 90 * 24 * 60 * 60


class TeamMade(PlainLimits):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"name": "search", "budget_usd": "5000", "time_zone": "Europe/Berlin"}},
    )

    name: Name


class TeamChanged(PlainLimits):
    name: Name | None = None


class Team(Answer):
    id: str
    name: str
    limits: list[Limit]
    keys_active: int
    created_at: str
    color: int = Field(description="1 to 8: its colour in every chart.")


class Teams(Answer):
    data: list[Team]
    next: str | None


class KeyChanged(PlainLimits):
    name: Name | None = None
    owner: Name | None = None
    tags: Tags | None = None
    models: Patterns | None = Field(default=None, description="Patterns of models that it may ask for; null is all.")
    endpoints: list[str] | None = Field(default=None, description="Families that it may use; null is all.")
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
    id: str
    name: str
    team: TeamColored
    state: KeyState
    owner: str | None
    tags: dict[str, str]
    models: list[str] | None
    endpoints: list[str] | None
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
    key: str = Field(description="The text for the SDK, shown this once.")
    secret_id: str = Field(description="The public id of the new secret.")


class Keys(Answer):
    data: list[Key]
    next: str | None


class KeyCounts(Answer):
    active: int
    rotating: int
    expiring: int
    unused: int
    revoked: int
    expired: int
    all: int


class Rotation(Body):
    overlap_s: Annotated[int, Field(strict=True, ge=0, le=OVERLAP_S_MAX)] = 7 * 24 * 60 * 60


class Revocation(Body):
    name: str = Field(max_length=100, description="The key's name, typed by whoever revokes it.")
    at_once: bool = Field(default=False, strict=True, description="Cut off what is running, too.")


class SecretChanged(Body):
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
    data: list[SecretUse]
    hours_from: str
