"""The first view."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from app.admin.schemas.fields import Answer
from app.admin.schemas.people import TeamColored
from app.admin.schemas.upstreams import Service


class Month(Answer):
    since: str = Field(alias="from")
    to: str
    spent_usd: str
    estimated_usd: str = Field(description="Of it, what is an estimate")
    unpriced: int = Field(description="Calls that have no price, and are not in it")
    budget_usd: str | None = Field(
        description="What the teams' monthly budgets add up to; null where a team that spends has none"
    )
    forecast_usd: str | None = Field(description="At the month's end; null: under seven days of data")
    change_percent: float | None = Field(description="Against as much of the month before: 8 is 8 % more")


class Today(Answer):
    spent_usd: str
    usual_percent: float | None = Field(
        description="How far above (negative: below) what this weekday had cost by this time, on the mean of four"
        " weeks: 6 is 6 % above"
    )


class RequestCounts(Answer):
    requests: int
    failed: int


class Saved(Answer):
    saved_usd: str


class Attention(Answer):
    level: Literal["bad", "warn", "unpriced"]
    title: str
    detail: str
    verb: str
    href: str


class OverviewDay(Answer):
    day: str
    cost_usd: str
    unpriced: int
    parts: dict[str, str] = Field(description="By the legend's ids; they add up to `cost_usd`")
    forecast_usd: str | None = Field(description="Of today and the days to come, each as a whole")


class LegendRow(Answer):
    id: str = Field(description="Of a team or key its id, else the name; of Other `_other`, or one of more underscores")
    name: str
    color: int = Field(description="1 to 8; 0 for Other and for what has no tag")
    is_other: bool = Field(description="All that are not named here")
    cost_usd: str
    share_percent: float | None
    change_percent: float | None


class TopKey(Answer):
    id: str
    name: str
    team: TeamColored
    requests: int
    tokens: int
    cost_usd: str
    unpriced: int


class TopModel(Answer):
    name: str
    color: int
    requests: int
    tokens: int
    cost_usd: str
    unpriced: int


class Overview(Answer):
    """The month, today, what needs a person, and how the service does; all of one moment."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "time_zone": "Europe/Berlin",
                "until": "2026-11-24T15:40:12.123Z",
                "month": {
                    "from": "2026-10-31T23:00:00.000Z",
                    "to": "2026-11-30T23:00:00.000Z",
                    "spent_usd": "11259.31",
                    "estimated_usd": "12.46",
                    "unpriced": 12,
                    "budget_usd": "15000",
                    "forecast_usd": "14299.02",
                    "change_percent": 8.1,
                },
                "today": {"spent_usd": "357.53", "usual_percent": 6.2},
                "requests": {"requests": 1894120, "failed": 7955},
                "saved": {"saved_usd": "573.48"},
                "attention": [
                    {
                        "level": "bad",
                        "title": "support is at 92% of its budget",
                        "detail": "$158.63 left, gone by Thu 26 Nov",
                        "verb": "Open budget",
                        "href": "/console/budgets?open=Qm3ZsA81kdPx",
                    }
                ],
                "days": [
                    {
                        "day": "2026-11-01",
                        "cost_usd": "150.02",
                        "unpriced": 0,
                        "parts": {"8Zk2m1qLp0xA": "150.02"},
                        "forecast_usd": None,
                    }
                ],
                "legend": [
                    {
                        "id": "8Zk2m1qLp0xA",
                        "name": "support",
                        "color": 3,
                        "cost_usd": "1841.37",
                        "share_percent": 16.4,
                        "change_percent": 31.0,
                        "is_other": False,
                    }
                ],
                "top_keys": [],
                "top_models": [],
                "service": {
                    "failed_percent": 0.51,
                    "first_byte_p95_ms": 1420.4,
                    "overhead_p95_ms": 2.1,
                    "series": [],
                    "upstreams": [],
                },
            }
        },
    )

    time_zone: str
    until: str
    month: Month
    today: Today
    requests: RequestCounts
    saved: Saved
    attention: list[Attention] = Field(max_length=3, description="Worst first")
    days: list[OverviewDay] = Field(description="Every day of the month")
    legend: list[LegendRow] = Field(description="By cost")
    top_keys: list[TopKey]
    top_models: list[TopModel]
    service: Service
