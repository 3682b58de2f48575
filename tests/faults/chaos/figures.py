"""What runs came to, in a line each and in one summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.faults.chaos.run import Verdict


def line_of(verdict: Verdict) -> str:
    refused = ", ".join(f"{code} {count}" for code, count in sorted(verdict.refused.items()))
    closed = f"closed {sum(verdict.closed_s):.1f} s in {len(verdict.closed_s)}" if verdict.closed_s else "never closed"
    if verdict.rebuilt_s:
        closed += f", rebuilt in {percentile(verdict.rebuilt_s, 0.5)} s (at most {max(verdict.rebuilt_s):.1f})"
    return (
        f"seed {verdict.seed}: {'BROKEN' if verdict.broken else 'ok'} in {verdict.took_s:.0f} s;"
        f" {verdict.admitted} admitted of {verdict.asked}, {verdict.billed} billed, {verdict.estimates} estimates,"
        f" {verdict.adjusts} adjusts, {verdict.unsent} never sent{f', {verdict.lost} lost' if verdict.lost else ''}; {len(verdict.faults)} faults,"
        f" {verdict.losses} losses, epoch {verdict.epochs}, {closed}, {'a day ended, ' if verdict.rolled else ''}at rest in {verdict.rest_s:.1f} s; {refused}"
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)


def summary_of(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Totals over all of them; spans in seconds."""
    rebuilt = [span for verdict in verdicts for span in verdict.rebuilt_s]
    closed = [span for verdict in verdicts for span in verdict.closed_s]
    refused: Counter[str] = Counter()
    oracles: Counter[str] = Counter()
    for verdict in verdicts:
        refused.update(verdict.refused)
        oracles.update({broken.partition(":")[0] for broken in verdict.broken})
    totals = {
        name: sum(getattr(verdict, name) for verdict in verdicts)
        for name in ("asked", "admitted", "billed", "estimates", "adjusts", "unsent", "lost", "losses", "rolled")
    }
    return {
        "seeds": len(verdicts),
        "broken": [verdict.seed for verdict in verdicts if verdict.broken],
        "oracles": dict(oracles),
        **totals,
        "faults": sum(len(verdict.faults) for verdict in verdicts),
        "refused": dict(refused),
        "closed_spans": len(closed),
        "closed_s": {"p50": percentile(closed, 0.5), "p99": percentile(closed, 0.99), "most": percentile(closed, 1)},
        "rebuilt": len(rebuilt),
        "rebuilt_s": {
            "p50": percentile(rebuilt, 0.5),
            "p99": percentile(rebuilt, 0.99),
            "most": percentile(rebuilt, 1),
        },
        "rest_s": {
            "p50": percentile([verdict.rest_s for verdict in verdicts], 0.5),
            "p99": percentile([verdict.rest_s for verdict in verdicts], 0.99),
        },
        "took_s": round(sum(verdict.took_s for verdict in verdicts)),
    }
