"""What a plain key may see about itself."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from app.admin.schemas.fields import Answer
from app.core.identity import LimitKind, LimitMode, LimitPolicy, LimitWindow


class OwnKeyNamed(Answer):
    id: str
    name: str


class OwnTeam(Answer):
    name: str


class Me(Answer):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "key": {"id": "9t2xkdC6r8", "name": "support-bot"},
                "team": {"name": "support"},
                "models": ["gpt-5*", "gpt-4.1-mini"],
                "endpoints": ["responses", "embeddings"],
                "families": ["responses", "embeddings"],
                "expires_at": None,
                "state": "active",
                "base_url": "https://ai.acme.example/v1",
            }
        }
    )

    key: OwnKeyNamed
    team: OwnTeam
    models: list[str] | None = Field(description="Patterns of models that it may ask for; null is all")
    endpoints: list[str] | None = Field(
        description="Families that it, or else its team, was given; null is all that are on by default"
    )
    families: list[str] = Field(
        description="Families that are on for it: what it was given, else its team's, else the default ones; "
        "of `*` all there are, and `*`"
    )
    expires_at: str | None
    state: Literal["active"]
    base_url: str = Field(description="For the SDK, as this request came")


class OwnLimit(Answer):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "scope": "team",
                "kind": "money",
                "window": "month",
                "maximum": None,
                "maximum_usd": "2000",
                "model": None,
                "tag_name": None,
                "tag_value": None,
                "time_zone": "Europe/Berlin",
                "policy": "strict",
                "mode": "enforce",
                "is_default": False,
                "used": None,
                "used_usd": "1841.37",
                "left": None,
                "left_usd": "158.63",
                "used_percent": 92.1,
                "resets_at": "2026-11-30T23:00:00.000Z",
                "forecast_usd": "2290.12",
                "exhausted_at": "2026-11-26T13:20:00.000Z",
            }
        }
    )

    scope: Literal["key", "team"]
    kind: LimitKind
    window: LimitWindow
    maximum: int | None
    maximum_usd: str | None
    model: str | None
    tag_name: str | None
    tag_value: str | None
    time_zone: str
    policy: LimitPolicy
    mode: LimitMode
    is_default: bool = Field(description="Of the gateway's configuration, not set on the key or the team")
    used: int | None = Field(description="Null: of money, or not known at this moment")
    used_usd: str | None
    left: int | None
    left_usd: str | None
    used_percent: float | None
    resets_at: str | None = Field(
        description="When a budget's window ends; of requests and tokens, when nothing is counted any more"
    )
    forecast_usd: str | None
    exhausted_at: str | None = Field(description="When a budget was, or at this pace will be, used up")


class OwnLimits(Answer):
    """Tightest first; those of which nothing is known come last."""

    data: list[OwnLimit]
    next: str | None
