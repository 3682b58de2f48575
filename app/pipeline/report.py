"""What metrics, log and the live feed are told of a request that has ended."""

from __future__ import annotations

from typing import Protocol

from app.core.identity import Principal
from app.core.money import usd_text
from app.core.records import Record
from app.pipeline.desk import Desk
from app.telemetry.metrics import ending_code


class Moments(Protocol):
    """When things happened, in seconds of the monotonic clock; None for what did not happen."""

    sent_s: float | None
    answered_s: float | None
    first_byte_s: float | None


def own_s_of(started_s: float, moments: Moments, *, stream: bool, first_byte_s: float) -> float | None:
    """What the gateway itself took for a request: until the call was made, and of a body also from its arrival to
    the first byte for the client. None where there was no answer.
    """
    if moments.sent_s is None or moments.answered_s is None:
        return None
    own_s = moments.sent_s - started_s
    return own_s if stream else own_s + first_byte_s - moments.answered_s


def report(desk: Desk, principal: Principal, record: Record, started_s: float, moments: Moments | None) -> None:
    """Tell them. ``moments``: those of the call; None where nothing was sent for the request."""
    desk.live.finish(principal, record)
    ended_s = desk.clock.monotonic_s()
    metrics = desk.metrics
    # Every attempt but the last is void, so the last one's figures are the sums.
    last = record.entries[-1]
    usage, cost = last.usage, last.cost_nanousd
    if record.status is not None and 200 <= record.status < 300:
        metrics.served(record.model)
    told = metrics.request(principal.team_name, record.model, record.upstream, record.endpoint, record.outcome)
    told.requests += 1
    answer = (record.status, ending_code(record.error_code))
    told.answers[answer] = told.answers.get(answer, 0) + 1
    if cost is None:
        told.unpriced += 1
    else:
        told.cost_nanousd += cost
    if last.kind == "estimate":
        told.estimated += 1
    told.saved_nanousd += record.saved_nanousd
    told.input_tokens += usage.input_tokens
    told.cached_tokens += usage.cached_tokens
    told.output_tokens += usage.output_tokens
    told.reasoning_tokens += usage.reasoning_tokens
    metrics.cache_results[record.cache] += 1
    if record.suspect:
        metrics.suspect.labels(record.upstream).inc()
    times = told.times
    times.duration.observe(ended_s - started_s)
    if moments is not None and moments.sent_s is not None:
        times.upstream.observe(ended_s - moments.sent_s)
        if moments.first_byte_s is not None:
            times.first_byte.observe(moments.first_byte_s - started_s)
            own_s = own_s_of(started_s, moments, stream=record.stream, first_byte_s=moments.first_byte_s)
            if own_s is not None:
                times.overhead.observe(own_s)
    desk.log.info(
        "request",
        request_id=record.request_id,
        team=principal.team_name,
        key_id=record.key_id,
        secret_id=record.secret_id,
        endpoint=record.endpoint,
        model=record.model,
        upstream=record.upstream,
        status=record.status,
        outcome=record.outcome,
        error_code=record.error_code,
        stream=record.stream,
        attempts=record.attempts,
        cache=record.cache,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_usd=None if cost is None else usd_text(cost),
        estimated=last.kind == "estimate",
        duration_ms=round((ended_s - started_s) * 1000, 1),
    )
