"""Alerts and their parts, as short as a test wants them."""

from __future__ import annotations

from typing import Any

from app.alerts.decisions import Reading
from app.store.alert_states import Alert

NOW_MS = 1_795_176_000_000
"""2026-11-20T12:00:00Z."""
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


def reading_of(level: int, holds: int | None = None, **changes: Any) -> Reading:
    given: dict[str, Any] = {
        "subject": "s",
        "level": level,
        "holds": level if holds is None else holds,
        "severity": "warn",
        "figures": {"level": level},
    }
    return Reading(**{**given, **changes})


def alert_of(level: int = 1, **changes: Any) -> Alert:
    given: dict[str, Any] = {
        "id": "a1",
        "rule_id": "r1",
        "kind": "spend.velocity",
        "subject": "s",
        "team_id": None,
        "key_id": None,
        "level": level,
        "severity": "warn",
        "figures": {},
        "fired_at_ms": NOW_MS,
        "changed_at_ms": NOW_MS,
    }
    return Alert(**{**given, **changes})
