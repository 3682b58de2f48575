"""What corrects an estimate, and when an attempt has a price."""

from __future__ import annotations

import random

import pytest

from app.core.usage import Usage
from app.store.flatten import entry_row, rollup_rows
from app.store.posting import exact_adjust, is_unpriced
from app.store.tables import ROLLUP_KEY, entries, rollups
from tests.contract.store.samples import entry_of, record_of

COLUMNS = [column.name for column in entries.columns]


def row_of(record, entry):
    return dict(zip(COLUMNS, entry_row(record, entry), strict=True))


def random_usage(chance):
    return Usage(*[chance.randrange(1000) for _ in Usage.__struct_fields__])


@pytest.mark.parametrize("seed", range(20))
def test_with_the_correction_the_sum_is_what_is_known_exactly(seed):
    """Whatever the attempt had before: bounds or none, a price or none, earlier corrections."""
    chance = random.Random(seed)

    def amount():
        return chance.choice([None, chance.randrange(10**12)])

    estimate = entry_of(
        "r1",
        kind="estimate",
        usage=random_usage(chance),
        cost_nanousd=amount(),
        cost_lower_nanousd=amount(),
        cost_upper_nanousd=amount(),
    )
    record = record_of("r1", entries=(estimate,))
    rows = [row_of(record, estimate)]
    for number in range(chance.randrange(3)):
        correction = entry_of("r1", kind="adjust", reason="reprice", number=number, cost_nanousd=amount())
        rows.append(row_of(record, correction))
    exact = entry_of("r1", usage=random_usage(chance), cost_nanousd=chance.randrange(10**12), model="served")
    adjust = exact_adjust(rows, record_of("r1", team_id="other", entries=(exact,)), exact)
    after = [*rows, row_of(adjust, adjust.entry)]
    for name in Usage.__struct_fields__:
        assert sum(row[name] for row in after) == getattr(exact.usage, name)
    assert sum(row["cost_nanousd"] or 0 for row in after) == exact.cost_nanousd
    for bound in ("cost_lower_nanousd", "cost_upper_nanousd"):
        each = [(row["cost_nanousd"] or 0) if row[bound] is None else row[bound] for row in after]
        assert sum(each) == exact.cost_nanousd
    assert adjust.unpriced == is_unpriced(after) - is_unpriced(rows)
    assert not is_unpriced(after)
    # It counts where the estimate does.
    (before_key,) = [row[: len(ROLLUP_KEY)] for row in rollup_rows((), [(record, estimate)])]
    (after,) = rollup_rows((), (), [adjust])
    assert after[: len(ROLLUP_KEY)] == before_key
    assert after[-3:] == (adjust.unpriced, -1, adjust.estimated_nanousd)
    assert adjust.estimated_nanousd == -sum(row["cost_nanousd"] or 0 for row in rows)


def test_what_a_correction_adds_takes_the_estimate_out_of_the_rollup():
    record = record_of("r1", entries=(entry_of("r1", kind="estimate", cost_nanousd=None),))
    adjust = exact_adjust([row_of(record, record.entries[0])], record, entry_of("r1", cost_nanousd=5))
    (row,) = rollup_rows([record], [(record, record.entries[0])], [adjust])
    sums = dict(zip([column.name for column in rollups.columns], row, strict=True))
    assert (sums["requests"], sums["cost_nanousd"], sums["unpriced"], sums["estimated"]) == (1, 5, 0, 0)
    assert sums["estimated_nanousd"] == 0


def line(kind, cost, reason=""):
    return {"kind": kind, "cost_nanousd": cost, "reason": reason}


@pytest.mark.parametrize(
    ("rows", "unpriced"),
    [
        ([line("charge", 5)], False),
        ([line("charge", None)], True),
        ([line("charge", None), line("adjust", 5, "reprice")], False),
        ([line("estimate", None), line("adjust", 5, "exact")], False),
        ([line("estimate", None), line("adjust", None, "exact")], True),
        ([line("estimate", 9), line("adjust", None, "exact")], True),
        ([line("estimate", 9), line("adjust", None, "exact"), line("adjust", -3, "reprice")], False),
        ([line("adjust", -3, "reprice"), line("adjust", None, "exact"), line("estimate", 9)], False),
        ([line("estimate", None), line("adjust", 5, "reprice"), line("adjust", None, "exact")], False),
        ([line("void", 0)], False),
    ],
)
def test_an_attempt_has_no_price_while_its_newest_knowledge_has_none(rows, unpriced):
    assert is_unpriced(rows) is unpriced
