"""Upstreams, and how the service does."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from app.admin.schemas.fields import Answer

UpstreamState = Literal["healthy", "degraded", "down", "paused", "off"]
Circuit = Literal["closed", "half-open", "open"]


class Hour(Answer):
    requests: int
    failed: int


class Paused(Answer):
    since: str
    by: str = Field(description="The administrator's name")


class Upstream(Answer):
    """`in_flight`, `circuit`, `resting` and whether it can be reached are what the process that answers has seen."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "openai",
                "kind": "openai",
                "host": "api.openai.com",
                "state": "degraded",
                "since": "2026-11-24T15:15:00.000Z",
                "paused": None,
                "circuit": "closed",
                "resting": False,
                "in_flight": 11,
                "failed_percent": 0.31,
                "recent_failed_percent": 3.8,
                "first_byte_p95_ms": 1180.2,
                "hours": [{"requests": 4100, "failed": 12}],
                "models": ["fast", "*"],
            }
        }
    )

    name: str
    kind: Literal["openai", "azure", "simulator"]
    host: str
    state: UpstreamState = Field(
        description="`paused`: by an administrator. `down`: the last try to connect failed. `degraded`: 3 % of at least"
        " 20 requests failed of late. `off`: it has no key."
    )
    since: str | None = Field(description="When it ceased to be well, or was paused")
    paused: Paused | None = Field(description="Nothing new is sent there until it is resumed")
    circuit: Circuit = Field(description="`open`: it fails and is left alone; `half-open`: single calls try it again")
    resting: bool = Field(description="It asked to be called later, be it with one model")
    in_flight: int
    failed_percent: float | None = Field(description="Of the last 24 hours")
    recent_failed_percent: float | None = Field(description="Of the last quarter of an hour")
    first_byte_p95_ms: float | None
    hours: list[Hour] = Field(description="24 whole hours of UTC, oldest first; the last one runs")
    models: list[str] = Field(description="Names and patterns of the configuration that lead there")


class Upstreams(Answer):
    data: list[Upstream]
    next: str | None


class PauseSet(Answer):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"name": "openai", "paused": {"since": "2026-11-24T15:15:00.000Z", "by": "ada@example.com"}}
        }
    )

    name: str
    paused: Paused | None


class Probe(Answer):
    model_config = ConfigDict(json_schema_extra={"example": {"ok": True, "status": 200, "took_ms": 212, "error": None}})

    ok: bool
    status: int | None
    took_ms: int
    error: str | None


class ServiceHour(Answer):
    at: str
    requests: int
    failed_percent: float | None
    first_byte_p95_ms: float | None
    overhead_p95_ms: float | None


class ServiceUpstream(Answer):
    name: str
    state: UpstreamState
    since: str | None
    failed_percent: float | None
    first_byte_p95_ms: float | None
    series: list[ServiceHour]


class Service(Answer):
    """Percentiles are told within 5 %; null where nothing was measured."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "failed_percent": 0.51,
                "first_byte_p95_ms": 1420.4,
                "overhead_p95_ms": 2.1,
                "series": [
                    {
                        "at": "2026-11-24T15:00:00.000Z",
                        "requests": 4100,
                        "failed_percent": 0.29,
                        "first_byte_p95_ms": 1180.2,
                        "overhead_p95_ms": 2.0,
                    }
                ],
                "upstreams": [
                    {
                        "name": "openai",
                        "state": "healthy",
                        "since": None,
                        "failed_percent": 0.31,
                        "first_byte_p95_ms": 1180.2,
                        "series": [],
                    }
                ],
            }
        }
    )

    failed_percent: float | None
    first_byte_p95_ms: float | None
    overhead_p95_ms: float | None = Field(description="Of that, the time that was the gateway's own")
    series: list[ServiceHour] = Field(description="Whole hours of UTC, oldest first; the last one runs")
    upstreams: list[ServiceUpstream]
