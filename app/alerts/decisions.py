"""What becomes of an alert: a plain function of how things are and how they were.

Things are told as a *level*: 0 where nothing is wrong, higher where it is worse (a budget's percent, a doubling of
what is spent). A second number says which level still *holds* if it had been reached before, which is the same or
higher: between the two nothing changes, so that a figure that swings about a threshold is told once.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from app.store.alert_states import Alert, AlertSeverity

Action = Literal["quiet", "fire", "escalate", "hold", "lower", "clearing", "resolve"]


class Reading(msgspec.Struct, frozen=True):
    """How one subject of a rule is now. ``figures`` are JSON values, for people."""

    subject: str
    level: int
    holds: int
    severity: AlertSeverity
    figures: dict[str, Any]
    team_id: str | None = None
    team_name: str | None = None
    key_id: str | None = None
    key_name: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """``level`` is the alert's from now on."""

    action: Action
    level: int

    @property
    def is_told(self) -> bool:
        return self.action in {"fire", "escalate", "resolve"}


def decide(reading: Reading | None, earlier: Alert | None, now_ms: int, clear_ms: int) -> Verdict:
    """``reading`` is None where there is no such subject any more, ``earlier`` where it does not fire.

    What was wrong has to be right for ``clear_ms`` before that is told.
    """
    level = 0 if reading is None else reading.level
    holds = 0 if reading is None else max(reading.holds, level)
    if earlier is None:
        return Verdict("fire", level) if level else Verdict("quiet", 0)
    if level > earlier.level:
        return Verdict("escalate", level)
    if holds >= earlier.level:
        return Verdict("hold", earlier.level)
    if holds:
        return Verdict("lower", holds)
    since_ms = now_ms if earlier.clear_since_ms is None else earlier.clear_since_ms
    if now_ms - since_ms >= clear_ms:
        return Verdict("resolve", earlier.level)
    return Verdict("clearing", earlier.level)
