from __future__ import annotations

import pytest

from app.admin.asking import Asked
from app.admin.focus import COLUMNS, focus_question, focus_row
from app.admin.usage_pages import question_asked
from app.core.errors import InvalidRequest

NOW_MS = 1_795_534_812_000
"""2026-11-24T15:40:12Z."""

MANDATORY = frozenset(
    "BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodEnd BillingPeriodStart ChargeCategory"
    " ChargeClass ChargeDescription ChargePeriodEnd ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName"
    " ListCost PricingQuantity PricingUnit ProviderName PublisherName ServiceCategory ServiceName".split()
)
MAY_BE_NULL = frozenset({"ChargeClass"})

ROW = {
    "team": "support",
    "team_id": "T1",
    "key": "bot",
    "key_id": "K1",
    "model": "gpt-5.6",
    "upstream": "openai",
    "day": "2026-11-20",
    "hour": "2026-10-25T02:00+01:00",
    "tag.project": "search",
    "requests": 12,
    "failed": 1,
    "input_tokens": 100,
    "cached_tokens": 40,
    "cache_write_tokens": 0,
    "output_tokens": 20,
    "reasoning_tokens": 7,
    "cost_usd": "1.25",
    "saved_usd": "0.5",
    "unpriced": 2,
    "estimated": 1,
    "estimated_usd": "0.25",
}


def question(**values):
    return question_asked(Asked(values.items()), NOW_MS)


def test_every_mandatory_column_is_there_and_ours_come_last():
    names = [column.name for column in COLUMNS]
    assert set(names) >= MANDATORY
    own = [name for name in names if name.startswith("x_")]
    assert names == sorted(name for name in names if name not in own) + own
    row = focus_row(ROW, focus_question(question(tz="Europe/Berlin")))
    assert list(row) == names
    assert {name for name in MANDATORY if row[name] is None} == MAY_BE_NULL


def test_a_charge():
    row = focus_row(ROW, focus_question(question(tz="Europe/Berlin", by="tag.project")))
    assert row["BilledCost"] == row["EffectiveCost"] == row["ListCost"] == row["ContractedCost"] == "1.25"
    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == ("2026-11-19T23:00:00Z", "2026-11-20T23:00:00Z")
    assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == ("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z")
    assert (row["ResourceId"], row["SubAccountId"], row["SkuId"]) == ("K1", "T1", "openai/gpt-5.6")
    assert (row["ConsumedQuantity"], row["ConsumedUnit"], row["Tags"]) == (120, "Tokens", {"project": "search"})
    assert (row["x_UnpricedRequests"], row["x_EstimatedCost"], row["x_SavedCost"]) == (2, "0.25", "0.5")


def test_an_hour_that_comes_twice():
    asked = focus_question(question(by="hour", **{"from": "2026-10-25", "to": "2026-10-25", "tz": "Europe/Berlin"}))
    row = focus_row(ROW, asked)
    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == ("2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z")


def test_a_day_that_the_range_cuts():
    asked = focus_question(question(**{"from": "2026-11-20T10:00:00Z", "to": "2026-11-20T12:00:00Z"}))
    row = focus_row(ROW, asked)
    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == ("2026-11-20T10:00:00Z", "2026-11-20T12:00:00Z")


def test_dimensions_are_all_four_whatever_is_asked():
    assert focus_question(question(by="team")).by == ("team", "key", "model", "upstream", "day")
    assert focus_question(question(by="hour,tag.a")).by == ("team", "key", "model", "upstream", "tag.a", "hour")


@pytest.mark.parametrize(
    ("values", "param"), [({"by": "week"}, "by"), ({"by": "month"}, "by"), ({"sort": "-cost"}, "sort")]
)
def test_what_focus_cannot_say(values, param):
    with pytest.raises(InvalidRequest) as raised:
        focus_question(question(**values))
    assert raised.value.param == param
