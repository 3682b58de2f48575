"""Records: one row for each request that was admitted."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.core.records import CacheResult, Outcome

RECORD_EXAMPLE: JsonDict = {
    "request_id": "019ab3f2-7c11-7d3e-9b10-5f0c6a1e2d44",
    "started_at": "2026-11-24T15:40:12.123Z",
    "ended_at": "2026-11-24T15:40:20.063Z",
    "team": {"id": "Tk3VmLq09sXa", "name": "support"},
    "key": {"id": "9t2xkdQ4mZ", "name": "support-bot"},
    "secret_id": "9t2xkdQ4mZ",
    "endpoint": "responses",
    "stream": True,
    "model_requested": "gpt-4.1-mini",
    "model": "gpt-4.1-mini",
    "model_served": "gpt-4.1-mini-2025-04-14",
    "upstream": "openai",
    "status": 200,
    "outcome": "completed",
    "error_code": None,
    "cache": "miss",
    "attempts": 1,
    "input_tokens": 6100,
    "cached_tokens": 4096,
    "output_tokens": 1810,
    "reasoning_tokens": 0,
    "first_byte_ms": 412,
    "took_ms": 7940,
    "cost_usd": "0.0041072",
    "saved_usd": "0",
    "estimated": False,
    "unpriced": False,
    "tags": {"service": "chat-widget"},
    "end_user": None,
    "response_id": "resp_68f1c0",
}


ENTRY_EXAMPLE: JsonDict = {
    "attempt_id": "019ab3f2-7c11-7d3e-9b10-5f0c6a1e2d44.1",
    "kind": "charge",
    "reason": "",
    "number": 0,
    "upstream": "openai",
    "model": "gpt-4.1-mini",
    "written_at": "2026-11-24T15:40:20.063Z",
    "usage": {"input_tokens": 6100, "cached_tokens": 4096, "output_tokens": 1810},
    "cost_usd": "0.0041072",
    "cost_lower_usd": None,
    "cost_upper_usd": None,
    "price_source": "genai-prices",
    "price_version": "2026-11-20",
    "service_tier": "default",
}


class Named(BaseModel):
    id: str
    name: str = Field(description="As it is called now; its id where it is gone")


class RecordRow(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [RECORD_EXAMPLE]})

    request_id: str
    started_at: str
    ended_at: str
    team: Named
    key: Named
    secret_id: str = Field(description="Which of the key's secrets")
    endpoint: str
    stream: bool
    model_requested: str
    model: str
    model_served: str | None
    upstream: str
    status: int | None = Field(description="The status of the answer; null where none was given")
    outcome: Outcome
    error_code: str | None
    cache: CacheResult
    attempts: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    first_byte_ms: int | None
    took_ms: int
    cost_usd: str | None = Field(description="What sums and budgets have of it; null: it has no price")
    saved_usd: str
    estimated: bool = Field(description="Of some call of it nothing exact is known")
    unpriced: bool = Field(description="Some call of it has no price; `cost_usd` is what else is known of it")
    tags: dict[str, str]
    end_user: str | None
    response_id: str | None


class Records(BaseModel):
    """Newest first. A page can be short, or empty, and have a `next`: what was looked at was much, and little of it
    was asked for; go on from there.
    """

    data: list[RecordRow]
    next: str | None


class Entry(BaseModel):
    """One line of a request's bill, as it was written: what an attempt used and cost, or a correction of it."""

    model_config = ConfigDict(extra="allow")

    attempt_id: str
    kind: Literal["charge", "estimate", "void", "adjust"]
    reason: str
    number: int
    upstream: str
    model: str
    written_at: str
    usage: dict[str, int] = Field(description="Units, without those of which there are none")
    cost_usd: str | None
    cost_lower_usd: str | None
    cost_upper_usd: str | None
    price_source: str | None
    price_version: str | None
    service_tier: str | None


class Window(BaseModel):
    budget_id: str
    window_from: str | None


class RecordWhole(RecordRow):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **RECORD_EXAMPLE,
                    "first_byte_at": "2026-11-24T15:40:12.535Z",
                    "cache_write_tokens": 0,
                    "service_tier": "default",
                    "suspect": False,
                    "tool_usage": None,
                    "usage_raw": '{"input_tokens":6100,"output_tokens":1810}',
                    "cost_lower_usd": None,
                    "cost_upper_usd": None,
                    "price_source": "genai-prices",
                    "price_version": "2026-11-20",
                    "budgets": [{"budget_id": "Qm3ZsA81kdPx", "window_from": "2026-10-31T23:00:00.000Z"}],
                    "decision": {},
                    "entries": [ENTRY_EXAMPLE],
                }
            ]
        }
    )

    first_byte_at: str | None
    cache_write_tokens: int
    service_tier: str | None
    suspect: bool = Field(description="The usage that the upstream told cannot be true")
    tool_usage: str | None
    usage_raw: str | None = Field(description="The numbers as the upstream gave them, JSON")
    cost_lower_usd: str | None
    cost_upper_usd: str | None
    price_source: str | None
    price_version: str | None
    budgets: list[Window] = Field(description="In which windows of which budgets it counts")
    decision: dict[str, Any] = Field(description="What was checked and chosen")
    entries: list[Entry]


class Explanation(BaseModel):
    """All that the ledger knows of a request. `kind` is `record` for one that was admitted, `refusal` for one of the
    last day that was not; the rest is as `headgate explain --json` prints it.
    """

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "kind": "record",
                "request_id": "019ab3f2-7c11-7d3e-9b10-5f0c6a1e2d44",
                "team_id": "Tk3VmLq09sXa",
                "team": "support",
                "key_id": "9t2xkdQ4mZ",
                "key": "support-bot",
                "decision": {},
            }
        },
    )

    kind: Literal["record", "refusal"]
    request_id: str
    team_id: str
    team: str | None
    key_id: str
    key: str | None
    decision: dict[str, Any]
