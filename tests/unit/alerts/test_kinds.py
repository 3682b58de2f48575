"""What rules can say, and what is refused with its reason."""

from __future__ import annotations

import pytest

from app.alerts.kinds import KINDS, PARAMETERS, as_written, first_rules, kind_of, parameters_of
from app.core.errors import InvalidRequest


def test_a_new_ledger_has_a_rule_of_every_kind_told_to_all():
    rules = first_rules(5)
    assert [rule.kind for rule in rules] == list(KINDS) == list(PARAMETERS)
    for rule in rules:
        assert rule.enabled
        assert (rule.team_id, rule.targets) == (None, None)
        assert as_written(parameters_of(kind_of(rule.kind), rule.parameters)) == rule.parameters


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("budget.threshold", {"percents": [0]}),
        ("budget.threshold", {"percents": [1001]}),
        ("budget.threshold", {"percents": list(range(1, 12))}),
        ("budget.threshold", {"percents": "80"}),
        ("budget.threshold", {"percent": [80]}),
        ("spend.velocity", {"times": 0.5}),
        ("spend.velocity", {"times": float("nan")}),
        ("spend.velocity", {"times": "3"}),
        ("spend.velocity", {"minimum_usd": "0"}),
        ("spend.velocity", {"minimum_usd": "-1"}),
        ("spend.velocity", {"minimum_usd": "1e300"}),
        ("spend.velocity", {"minimum_usd": "lots"}),
        ("spend.velocity", {"minimum_usd": "NaN"}),
        ("spend.velocity", {"minimum_usd": "0.0000000001"}),
        ("spend.velocity", {"minimum_usd": 5}),
        ("model.unpriced", {"hours": 1}),
        ("upstream.down", {"after_s": 14}),
        ("upstream.down", {"after_s": 86_401}),
        ("upstream.down", {"failed_percent": 0}),
        ("upstream.down", {"failed_percent": 101}),
        ("upstream.down", {"after_s": True}),
        ("key.expiring", {"days": []}),
        ("key.expiring", {"days": [0]}),
        ("key.expiring", {"days": [366]}),
        ("key.expiring", {"days": [1.5]}),
    ],
)
def test_what_makes_no_sense_is_refused(kind, given):
    with pytest.raises(InvalidRequest) as refused:
        parameters_of(kind, given)
    assert refused.value.param == "parameters"
    assert kind in refused.value.message


def test_there_are_no_other_kinds():
    with pytest.raises(InvalidRequest):
        kind_of("key.expired")
