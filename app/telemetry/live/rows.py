"""A request as the live feed shows it: ids, names and numbers, never what was said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import msgspec

from app.core.errors import quoted
from app.core.identity import Principal
from app.core.money import usd_text
from app.core.records import CacheResult, Outcome, Record
from app.telemetry.live.board import Sighting

State = Literal["waiting", "streaming"]


class Named(msgspec.Struct, frozen=True):
    """Something with an id and a name that people gave it."""

    id: str
    name: str


class FlightRow(msgspec.Struct):
    """A request in flight. ``model`` is what was asked for; ``worker`` the process that has it."""

    request_id: str
    started_at: str
    team: Named
    key: Named
    model: str
    upstream: str
    stream: bool
    state: State
    output_tokens: int
    worker: str | None


class RecordRow(msgspec.Struct, frozen=True):
    """A request that has ended, as its record in memory has it; corrections come later, and elsewhere."""

    request_id: str
    started_at: str
    ended_at: str
    team: Named
    key: Named
    secret_id: str
    endpoint: str
    stream: bool
    model_requested: str
    model: str
    model_served: str | None
    upstream: str
    status: int | None
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
    cost_usd: str | None
    saved_usd: str
    estimated: bool
    unpriced: bool
    tags: dict[str, str]
    end_user: str | None
    response_id: str | None


def flight_row(sighting: Sighting, worker: str) -> FlightRow:
    principal, opening = sighting.principal, sighting.opening
    return FlightRow(
        request_id=opening.request_id,
        started_at=time_text(opening.admitted_at_ms),
        team=Named(principal.team_id, principal.team_name),
        key=Named(principal.key_id, principal.key_name),
        model=quoted(opening.model_requested),
        upstream=sighting.upstream,
        stream=opening.stream,
        state=state_of(sighting),
        output_tokens=sighting.output_tokens,
        worker=worker,
    )


def state_of(sighting: Sighting) -> State:
    return "streaming" if sighting.is_streaming else "waiting"


def record_row(principal: Principal, record: Record) -> RecordRow:
    # Every attempt but the last is void, so the last one's figures are the sums.
    last = record.entries[-1]
    usage = last.usage
    began_ms, first_byte_at_ms = record.admitted_at_ms, record.first_byte_at_ms
    return RecordRow(
        request_id=record.request_id,
        started_at=time_text(began_ms),
        ended_at=time_text(record.ended_at_ms),
        team=Named(record.team_id, principal.team_name),
        key=Named(record.key_id, principal.key_name),
        secret_id=record.secret_id,
        endpoint=record.endpoint,
        stream=record.stream,
        model_requested=quoted(record.model_requested),
        model=quoted(record.model),
        model_served=_quoted(record.model_served),
        upstream=record.upstream,
        status=record.status,
        outcome=record.outcome,
        error_code=_quoted(record.error_code),
        cache=record.cache,
        attempts=record.attempts,
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        first_byte_ms=None if first_byte_at_ms is None else max(0, first_byte_at_ms - began_ms),
        took_ms=max(0, record.ended_at_ms - began_ms),
        cost_usd=None if last.cost_nanousd is None else usd_text(last.cost_nanousd),
        saved_usd=usd_text(record.saved_nanousd),
        estimated=last.kind == "estimate",
        unpriced=last.cost_nanousd is None,
        tags=record.tags,
        end_user=_quoted(record.end_user),
        response_id=_quoted(record.response_id),
    )


def time_text(at_ms: int) -> str:
    """Milliseconds since 1970 as ``2026-11-24T15:40:12.123Z``."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quoted(text: str | None) -> str | None:
    return None if text is None else quoted(text)
