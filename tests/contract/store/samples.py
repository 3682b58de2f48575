"""Records and their parts, as short as a test wants them."""

from __future__ import annotations

from typing import Any

from app.core.clock import quarter_of
from app.core.ids import new_request_id
from app.core.records import Attempt, Bound, Entry, Opening, OwnedObject, Record, attempt_id_of
from app.core.usage import Usage
from app.ledger.lines import OpenLine, encode_payload

NOON_MS = 1_795_176_000_000
"""2026-11-20T12:00:00Z."""


def entry_of(request_id: str, number: int = 1, **changes: Any) -> Entry:
    given: dict[str, Any] = {
        "attempt_id": attempt_id_of(request_id, number),
        "kind": "charge",
        "upstream": "openai",
        "model": "gpt-4.1-mini",
        "usage": Usage(input_tokens=100, cached_tokens=40, cache_write_tokens=5, output_tokens=20, reasoning_tokens=7),
        "cost_nanousd": 61_000,
        "price_source": "genai-prices",
        "price_version": "0.2.3",
    }
    return Entry(**{**given, **changes})


def record_of(request_id: str | None = None, *, at_ms: int = NOON_MS, **changes: Any) -> Record:
    request_id = request_id or new_request_id(at_ms)
    given: dict[str, Any] = {
        "request_id": request_id,
        "admitted_at_ms": at_ms,
        "quarter_ms": quarter_of(at_ms),
        "ended_at_ms": at_ms + 900,
        "team_id": "team000001",
        "key_id": "key0000001",
        "secret_id": "key0000001",
        "endpoint": "/v1/responses",
        "stream": True,
        "model_requested": "gpt-4.1-mini",
        "upstream": "openai",
        "model": "gpt-4.1-mini",
        "outcome": "completed",
        "entries": (entry_of(request_id),),
        "status": 200,
        "response_id": f"resp_{request_id}",
        "cache": "miss",
    }
    return Record(**{**given, **changes})


def opening_of(request_id: str | None = None, *, at_ms: int = NOON_MS, **changes: Any) -> Opening:
    given: dict[str, Any] = {
        "request_id": request_id or new_request_id(at_ms),
        "admitted_at_ms": at_ms,
        "quarter_ms": quarter_of(at_ms),
        "team_id": "team000001",
        "key_id": "key0000001",
        "secret_id": "key0000001",
        "endpoint": "/v1/responses",
        "stream": True,
        "model_requested": "gpt-4.1-mini",
        "attempt": attempt_of(1),
        "decision": {"limits": ["requests"]},
    }
    return Opening(**{**given, **changes})


def opened(opening: Opening) -> tuple[str, bytes]:
    """What the journal is given of ``opening``."""
    return opening.request_id, encode_payload(OpenLine(opening))


def attempt_of(number: int, **changes: Any) -> Attempt:
    bound = Bound(
        input_tokens_lower=50,
        input_tokens_upper=400,
        output_tokens_upper=1024,
        cost_lower_nanousd=20_000,
        cost_upper_nanousd=1_798_400,
        price_source="genai-prices",
        price_version="0.2.3",
    )
    given: dict[str, Any] = {"number": number, "upstream": "openai", "model": "gpt-4.1-mini", "bound": bound}
    return Attempt(**{**given, **changes})


def owned_of(request_id: str, object_id: str | None = None, **changes: Any) -> OwnedObject:
    given: dict[str, Any] = {
        "object_id": object_id or f"resp_{request_id}",
        "upstream": "openai",
        "team_id": "team000001",
        "kind": "response",
        "request_id": request_id,
        "created_at_ms": NOON_MS,
    }
    return OwnedObject(**{**given, **changes})
