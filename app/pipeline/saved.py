"""The account of a request that needed no call of its own: what it repeats, and what that saved."""

from __future__ import annotations

import msgspec

from app.cache.entry import Entry as Kept
from app.core.exchange import Exchange
from app.core.identity import Principal
from app.core.records import Entry, Opening, Outcome, Record, attempt_id_of
from app.core.usage import NOTHING_USED
from app.limits.limiter import Outcome as Settlement
from app.pipeline.admission import NO_ATTEMPT, Admitted
from app.pipeline.desk import Desk
from app.pipeline.report import report
from app.store.posting import RANK_EXACT
from app.telemetry.live import Sighting

CACHE_SOURCE = "cache"
SETTLED = ("completed", "incomplete")


class Ending(msgspec.Struct, frozen=True):
    """How such a request ended; ``repeated`` is the answer that it was given, None where it had none."""

    outcome: Outcome
    status: int | None
    error_code: str | None = None
    first_byte_at_ms: int | None = None
    repeated: Kept | None = None


class Replayed(msgspec.Struct, frozen=True):
    """A kept stream on its way to a client, for whoever watches."""

    principal: Principal
    opening: Opening
    upstream: str
    record: Record

    def sighting(self) -> Sighting:
        tokens = self.record.entries[-1].usage.output_tokens
        return Sighting(self.principal, self.opening, self.upstream, is_streaming=True, output_tokens=tokens)


def kept_of(record: Record, *, change: int, ttl_s: float, request_digest: bytes = b"") -> Kept:
    """What is kept of an answer, without the answer: what its record says of it."""
    last = record.entries[-1]
    return Kept(
        status=record.status or 0,
        headers=[],
        body=b"",
        made_at_ms=record.ended_at_ms,
        expires_at_ms=record.ended_at_ms + int(ttl_s * 1000),
        change=change,
        team_id=record.team_id,
        model_requested=record.model_requested,
        upstream=record.upstream,
        model=record.model,
        model_served=record.model_served,
        service_tier=record.service_tier,
        response_id=record.response_id,
        usage=last.usage,
        usage_raw=record.usage_raw,
        tool_usage=record.tool_usage,
        cost_nanousd=last.cost_nanousd,
        price_source=last.price_source,
        price_version=last.price_version,
        estimated=last.kind == "estimate",
        request_digest=request_digest,
    )


def as_hit(admitted: Admitted, reason: str) -> Admitted:
    """Of a request that waited for a call, and finds its answer kept."""
    opening = admitted.opening
    decision = {**opening.decision, "cache": reason}
    return msgspec.structs.replace(admitted, opening=msgspec.structs.replace(opening, cache="hit", decision=decision))


def close(desk: Desk, admitted: Admitted, ending: Ending) -> Record:
    """The record, in the journal; what was reserved is given back."""
    record = _record(admitted.opening, ending, desk.clock.now_ms())
    payload = desk.books.close(record)
    claim = admitted.grant.claim
    tokens = 0
    if claim.limits and any(limit.kind == "tokens" for limit in claim.limits):
        tokens = record.entries[0].usage.tokens
    desk.accounts.settle(claim, Settlement(RANK_EXACT, 0, tokens, record=payload))
    return record


def land(desk: Desk, exchange: Exchange, principal: Principal, record: Record) -> None:
    """Into the ledger, metrics and log."""
    desk.books.submit(record)
    report(desk, principal, record, exchange.started_s, None)


def _record(opening: Opening, ending: Ending, ended_at_ms: int) -> Record:
    kept = ending.repeated
    attempt = opening.attempt
    upstream, model = (attempt.upstream, attempt.model) if kept is None else (kept.upstream, kept.model)
    entry = Entry(
        attempt_id=attempt_id_of(opening.request_id, NO_ATTEMPT),
        kind="charge",
        upstream=upstream,
        model=model,
        usage=NOTHING_USED if kept is None else kept.usage,
        cost_nanousd=0,
        price_source=CACHE_SOURCE,
        service_tier=None if kept is None else kept.service_tier,
    )
    return Record(
        request_id=opening.request_id,
        admitted_at_ms=opening.admitted_at_ms,
        quarter_ms=opening.quarter_ms,
        ended_at_ms=ended_at_ms,
        team_id=opening.team_id,
        key_id=opening.key_id,
        secret_id=opening.secret_id,
        endpoint=opening.endpoint,
        stream=opening.stream,
        model_requested=opening.model_requested,
        upstream=upstream,
        model=model,
        outcome=ending.outcome,
        entries=(entry,),
        attempts=0,
        first_byte_at_ms=ending.first_byte_at_ms,
        response_id=None if kept is None else kept.response_id,
        end_user=opening.end_user,
        tags=opening.tags,
        model_served=None if kept is None else kept.model_served,
        service_tier=None if kept is None else kept.service_tier,
        status=ending.status,
        error_code=ending.error_code,
        cache=opening.cache,
        tool_usage=None if kept is None else kept.tool_usage,
        usage_raw=None if kept is None else kept.usage_raw,
        saved_nanousd=0 if kept is None else kept.cost_nanousd or 0,
        decision=opening.decision,
    )
