"""How amounts, times and texts are shown to a person."""

from __future__ import annotations

import pytest

from app.cli.explanation import aligned_money, because, duration, moment, money, printable
from app.store.refusals import RefusalRow
from tests.contract.store.samples import NOON_MS


@pytest.mark.parametrize(
    ("nanousd", "text"),
    [
        (0, "$0.00"),
        (5_000_000_000, "$5.00"),
        (1_798_400, "$0.0017984"),
        (-1, "-$0.000000001"),
        (-2_500_000_000, "-$2.50"),
        (1_234_567_000_000_000, "$1,234,567.00"),
    ],
)
def test_money_has_all_of_its_digits_and_no_more(nanousd, text):
    assert money(nanousd) == text


def test_amounts_of_a_column_have_as_many_digits():
    assert aligned_money([1_000_000_000, None, -1_500, 0]) == ["$1.0000000", "unpriced", "-$0.0000015", "$0.0000000"]
    assert aligned_money([]) == []


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0 ms"), (999, "999 ms"), (1500, "1.5 s"), (60_000, "1 min 0 s"), (12_000_000, "3 h 20 min")],
)
def test_durations_are_short(milliseconds, text):
    assert duration(milliseconds) == text


def test_times_are_utc():
    assert moment(NOON_MS + 7) == "2026-11-20 12:00:00.007 UTC"


def test_nothing_steers_the_terminal():
    assert printable("a\x1b[31mb\nc\u202e") == "a�[31mb�c�"
    assert printable("Grüße, 日本") == "Grüße, 日本"


def test_a_refusal_in_a_few_words():
    row = RefusalRow("r", "t", "k", 0, 429, "c", {"limit": "budget_held", "scope": "team", "scope_id": "t"})
    assert because(row) == "team budget_held"
    assert because(RefusalRow("r", "t", "k", 0, 402, "unpriced_model")) == ""
