"""Prices, and pricing again what had none."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from app.admin.schemas.fields import Answer, Body, Moment, Pattern
from app.settings import PriceOverride

PerMtok = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=9)]


class PriceMade(Body):
    """US dollars per million tokens; what is not named costs what its whole does."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "model": "qwen3-coder",
                "input_per_mtok_usd": "0.10",
                "output_per_mtok_usd": "0.30",
                "effective_from": "2026-11-01",
            }
        },
    )

    model: Pattern
    upstream: str | None = Field(default=None, max_length=64)
    tier: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")] | None = None
    effective_from: date = Field(default=date(1970, 1, 1), description="From its midnight in UTC on.")
    input_per_mtok_usd: PerMtok
    output_per_mtok_usd: PerMtok
    cached_input_per_mtok_usd: PerMtok | None = None
    cache_write_per_mtok_usd: PerMtok | None = None
    replace: bool = Field(default=False, strict=True, description="Take the place of another price of the same day.")

    @model_validator(mode="after")
    def _is_a_price(self) -> Self:
        self.override()
        return self

    def override(self) -> PriceOverride:
        """The same as an entry of the configuration file."""
        given = self.model_dump(exclude={"cached_input_per_mtok_usd", "replace"}, exclude_none=True)
        if self.cached_input_per_mtok_usd is not None:
            given["cached_per_mtok_usd"] = self.cached_input_per_mtok_usd
        return PriceOverride.model_validate(given)


class Price(Answer):
    """`id` is set where it can be removed; `source` says who set it. Rates are null where there are none."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "Qm3ZsA81kdPx",
                "model": "qwen3-coder",
                "upstream": None,
                "source": "override",
                "input_per_mtok_usd": "0.10",
                "cached_input_per_mtok_usd": None,
                "output_per_mtok_usd": "0.30",
                "effective_from": "2026-11-01",
                "version": None,
                "requests_30_days": None,
                "unpriced": 0,
            }
        }
    )

    id: str | None
    model: str
    upstream: str | None
    source: Literal["override", "file", "list", "unpriced"]
    input_per_mtok_usd: str | None
    cached_input_per_mtok_usd: str | None
    output_per_mtok_usd: str | None
    effective_from: str | None
    version: str | None
    requests_30_days: int | None
    unpriced: int = Field(description="Attempts of the last 30 days without a price.")


class Prices(Answer):
    data: list[Price]
    next: str | None = None


class Repricing(Body):
    model_config = ConfigDict(
        json_schema_extra={"example": {"from": "2026-11-01T00:00:00Z", "model": "qwen3-*", "dry_run": True}}
    )

    start: Moment = Field(alias="from")
    end: Moment | None = Field(default=None, alias="to")
    model: Pattern | None = None
    dry_run: bool = Field(default=True, strict=True, description="Tell what it would come to, and write nothing.")


class Repriced(Answer):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "attempts": 812,
                "cost_usd": "14.0221",
                "unpriced": 3,
                "unpriced_models": {"our-llm": 3},
                "dry_run": True,
            }
        }
    )

    attempts: int
    cost_usd: str
    unpriced: int
    unpriced_models: dict[str, int]
    dry_run: bool
