"""One alert for each change of state, whatever its figures do in between."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.alerts.decisions import decide
from tests.unit.alerts.samples import MINUTE_MS, NOW_MS, alert_of, reading_of


@pytest.mark.parametrize(
    ("reading", "earlier", "action", "level"),
    [
        (None, None, "quiet", 0),
        (reading_of(0), None, "quiet", 0),
        # Between the thresholds nothing begins.
        (reading_of(0, 50), None, "quiet", 0),
        (reading_of(50), None, "fire", 50),
        (reading_of(50), 50, "hold", 50),
        (reading_of(80), 50, "escalate", 80),
        # And nothing ends.
        (reading_of(50, 80), 80, "hold", 80),
        (reading_of(0, 80), 80, "hold", 80),
        (reading_of(50, 50), 80, "lower", 50),
        (reading_of(0, 50), 80, "lower", 50),
        (reading_of(0, 0), 50, "resolve", 50),
        (None, 50, "resolve", 50),
    ],
)
def test_what_becomes_of_an_alert(reading, earlier, action, level):
    verdict = decide(reading, None if earlier is None else alert_of(earlier), NOW_MS, 0)
    assert (verdict.action, verdict.level) == (action, level)
    assert verdict.is_told == (action in {"fire", "escalate", "resolve"})


def test_what_comes_and_goes_is_over_only_when_it_has_stayed_away():
    earlier = alert_of(1)
    assert decide(reading_of(0), earlier, NOW_MS, MINUTE_MS).action == "clearing"
    clearing = msgspec.structs.replace(earlier, clear_since_ms=NOW_MS)
    assert decide(reading_of(0), clearing, NOW_MS + MINUTE_MS - 1, MINUTE_MS).action == "clearing"
    assert decide(reading_of(1), clearing, NOW_MS + MINUTE_MS - 1, MINUTE_MS).action == "hold"
    assert decide(reading_of(0), clearing, NOW_MS + MINUTE_MS, MINUTE_MS).action == "resolve"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_messages_of_one_subject_always_alternate(steps):
    """Firing (at rising levels), then over, then firing: never over twice, never firing twice at one level."""
    alert: Any = None
    told: list[tuple[str, int]] = []
    for level, slack in steps:
        reading = reading_of(level, level + slack)
        verdict = decide(reading, alert, NOW_MS, 0)
        if verdict.is_told:
            told.append((verdict.action, verdict.level))
        if verdict.action == "resolve":
            alert = None
        elif verdict.action in {"fire", "escalate", "lower"}:
            alert = alert_of(verdict.level)
        assert (alert is None) == (verdict.action in {"quiet", "resolve"})
        # Whatever is wrong now has been told.
        assert alert is None or alert.level >= level
    turns = [action for action, _ in told if action != "escalate"]
    assert turns == (["fire", "resolve"] * len(turns))[: len(turns)]
