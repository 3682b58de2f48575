"""Usage in the columns of FOCUS 1.2, the FinOps Open Cost and Usage Specification, for the tools that read it.

A row is what one key spent in a day (or an hour) on one model through one upstream. The upstream is the provider
that bills, the team a sub account, the key a resource, the model a SKU. No discounts are known, so that all four
costs are one. What has no price is not in a cost: ``x_UnpricedRequests`` says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import msgspec

from app.admin.asking import start_of
from app.admin.exports import Column
from app.admin.usage_reading import Question
from app.core.calendar import window_of
from app.core.errors import InvalidRequest
from app.store.explanations import iso_time

DIMENSIONS = ("team", "key", "model", "upstream")
HOUR_MS = 3_600_000

COLUMNS = (
    Column("BilledCost", is_number=True),
    Column("BillingAccountId"),
    Column("BillingAccountName"),
    Column("BillingCurrency"),
    Column("BillingPeriodEnd"),
    Column("BillingPeriodStart"),
    Column("ChargeCategory"),
    Column("ChargeClass"),
    Column("ChargeDescription"),
    Column("ChargeFrequency"),
    Column("ChargePeriodEnd"),
    Column("ChargePeriodStart"),
    Column("ConsumedQuantity", is_number=True),
    Column("ConsumedUnit"),
    Column("ContractedCost", is_number=True),
    Column("EffectiveCost", is_number=True),
    Column("InvoiceIssuerName"),
    Column("ListCost", is_number=True),
    Column("PricingCategory"),
    Column("PricingQuantity", is_number=True),
    Column("PricingUnit"),
    Column("ProviderName"),
    Column("PublisherName"),
    Column("ResourceId"),
    Column("ResourceName"),
    Column("ResourceType"),
    Column("ServiceCategory"),
    Column("ServiceName"),
    Column("ServiceSubcategory"),
    Column("SkuId"),
    Column("SkuPriceId"),
    Column("SubAccountId"),
    Column("SubAccountName"),
    Column("Tags"),
    Column("x_CachedTokens", is_number=True),
    Column("x_EstimatedCost", is_number=True),
    Column("x_FailedRequests", is_number=True),
    Column("x_InputTokens", is_number=True),
    Column("x_OutputTokens", is_number=True),
    Column("x_ReasoningTokens", is_number=True),
    Column("x_Requests", is_number=True),
    Column("x_SavedCost", is_number=True),
    Column("x_UnpricedRequests", is_number=True),
)
"""The specification's own first, in the order of their letters, then ours."""


def focus_question(question: Question) -> Question:
    """The question that FOCUS asks: all four dimensions by the day, or the hour where ``by`` names it, and the tag of
    ``by``, if any. Raises InvalidRequest where it asks for more.
    """
    tags = [name for name in question.by if name.startswith("tag.")]
    others = [name for name in question.by if name not in {*DIMENSIONS, *tags, "day", "hour"}]
    if others:
        raise InvalidRequest("format=focus is by day or hour; a tag may be added.", param="by")
    if question.order is not None:
        raise InvalidRequest("format=focus comes by time.", param="sort")
    period = "hour" if "hour" in question.by else "day"
    return msgspec.structs.replace(question, by=(*DIMENSIONS, *tags, period))


async def focus_parts(
    parts: AsyncIterator[list[dict[str, Any]]], question: Question
) -> AsyncIterator[list[dict[str, Any]]]:
    """Rows of usage, as they come, as rows of FOCUS."""
    async for rows in parts:
        yield [focus_row(row, question) for row in rows]


def focus_row(row: Mapping[str, Any], question: Question) -> dict[str, Any]:
    """One charge."""
    time_zone = question.span.time_zone
    start_ms, end_ms = _period(row, question)
    month_start_ms, month_end_ms = window_of("month", time_zone, start_ms)
    tokens = row["input_tokens"] + row["output_tokens"]
    cost, upstream, model = row["cost_usd"], row["upstream"], row["model"]
    tags = {name.removeprefix("tag."): row[name] for name in question.by if name.startswith("tag.") and row[name]}
    sku = f"{upstream}/{model}"
    return {
        "BilledCost": cost,
        "BillingAccountId": upstream,
        "BillingAccountName": upstream,
        "BillingCurrency": "USD",
        "BillingPeriodEnd": _seconds(month_end_ms),
        "BillingPeriodStart": _seconds(month_start_ms),
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": f"{row['requests']} requests for {model} through {upstream}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _seconds(end_ms),
        "ChargePeriodStart": _seconds(start_ms),
        "ConsumedQuantity": tokens,
        "ConsumedUnit": "Tokens",
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": upstream,
        "ListCost": cost,
        "PricingCategory": "Standard",
        "PricingQuantity": tokens,
        "PricingUnit": "Tokens",
        "ProviderName": upstream,
        "PublisherName": upstream,
        "ResourceId": row["key_id"],
        "ResourceName": row["key"],
        "ResourceType": "API key",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Model inference",
        "ServiceSubcategory": "Generative AI",
        "SkuId": sku,
        "SkuPriceId": sku,
        "SubAccountId": row["team_id"],
        "SubAccountName": row["team"],
        "Tags": tags,
        "x_CachedTokens": row["cached_tokens"],
        "x_EstimatedCost": row["estimated_usd"],
        "x_FailedRequests": row["failed"],
        "x_InputTokens": row["input_tokens"],
        "x_OutputTokens": row["output_tokens"],
        "x_ReasoningTokens": row["reasoning_tokens"],
        "x_Requests": row["requests"],
        "x_SavedCost": row["saved_usd"],
        "x_UnpricedRequests": row["unpriced"],
    }


def _period(row: Mapping[str, Any], question: Question) -> tuple[int, int]:
    """The charge's first moment and the one after its last: of a day that is cut by the range, what is in it."""
    if "hour" in question.by:
        start_ms = round(datetime.fromisoformat(row["hour"]).timestamp() * 1000)
        end_ms = start_ms + HOUR_MS
    else:
        day = date.fromisoformat(row["day"])
        zone = question.span.zone
        start_ms, end_ms = start_of(day, zone), start_of(day + timedelta(days=1), zone)
    return max(start_ms, question.span.start_ms), min(end_ms, question.span.end_ms)


def _seconds(at_ms: int) -> str:
    return (iso_time(at_ms) or "").replace(".000Z", "Z")
