"""Rules and budgets, as people make, change and read them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from msgspec import UNSET
from pydantic import ConfigDict, Field, model_validator

from app.admin.schemas.fields import Answer, Body, Pattern, Usd, Zone
from app.admin.schemas.limits import Limit
from app.admin.schemas.parameters import ID
from app.core.identity import WINDOWS_OF_KIND, BoundPolicy, LimitKind, LimitMode, LimitPolicy, LimitRule, LimitWindow
from app.core.rules import COUNT_MAX
from app.store.limits import WARN_PERCENTS, LimitChanges

Maximum = Annotated[int, Field(strict=True, ge=0, le=COUNT_MAX)]
Percent = Annotated[int, Field(strict=True, ge=1, le=100)]
Percents = Annotated[list[Percent], Field(max_length=8)]
TagName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
TagValueText = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/@ -]{1,128}$")]
RowId = Annotated[str, Field(pattern=ID)]
MoneyWindow = Literal["day", "week", "month", "total"]


class _RuleMade(Body):
    """What every rule says beside what it counts."""

    team_id: RowId
    key_id: RowId | None = Field(default=None, description="One key of the team; null: all of the team")
    model: Pattern | None = Field(default=None, description="Counts only what asks for such a model")
    tag_name: TagName | None = Field(default=None, description="Counts only what bears this tag")
    tag_value: TagValueText | None = Field(default=None, description="Null: each value of the tag counts on its own")
    policy: LimitPolicy = "strict"
    mode: LimitMode = "enforce"


class LimitMade(_RuleMade):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"team_id": "8Zk2m1qLp0xA", "kind": "tokens", "window": "minute", "maximum": 400000}
        },
    )

    kind: LimitKind
    window: LimitWindow = Field(
        default="", description="`minute`, `hour`, `day`; of money also `week`, `month`, `total`"
    )
    maximum: Maximum | None = Field(default=None, description="Of everything but money")
    maximum_usd: Usd | None = Field(default=None, description="Of money")
    time_zone: Zone = Field(default="UTC", description="Of money: when days, weeks and months begin")
    bound: BoundPolicy = Field(default="maximum", description="Of money: how much a request holds while it runs")
    warn_percents: Percents = Field(default=list(WARN_PERCENTS), description="Of money: where people are told")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.window not in WINDOWS_OF_KIND[self.kind]:
            windows = ", ".join(WINDOWS_OF_KIND[self.kind])
            raise ValueError(f"a limit on {self.kind} is per {windows}" if windows else f"{self.kind} has no window")
        if self.kind == "money" and (self.maximum_usd is None or self.maximum is not None):
            raise ValueError("a limit on money has maximum_usd, and no maximum")
        if self.kind != "money" and (self.maximum is None or self.maximum_usd is not None):
            raise ValueError(f"a limit on {self.kind} has maximum, and no maximum_usd")
        return self

    def rule(self) -> LimitRule:
        """As the ledger takes it; its id is given there."""
        return LimitRule(
            id="",
            kind=self.kind,
            maximum=(self.maximum_usd if self.kind == "money" else self.maximum) or 0,
            window=self.window,
            model=self.model,
            tag_name=self.tag_name,
            tag_value=self.tag_value,
            time_zone=self.time_zone,
            policy=self.policy,
            mode=self.mode,
            bound=self.bound,
        )


class BudgetMade(_RuleMade):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "team_id": "8Zk2m1qLp0xA",
                "window": "month",
                "maximum_usd": "2000",
                "time_zone": "Europe/Berlin",
                "warn_percents": [50, 80, 95],
            }
        },
    )

    window: MoneyWindow = "month"
    maximum_usd: Usd
    time_zone: Zone = Field(default="UTC", description="When its days, weeks and months begin")
    bound: BoundPolicy = Field(
        default="maximum", description="How much a request holds while it runs: the most it can cost, or an estimate"
    )
    warn_percents: Percents = Field(default=list(WARN_PERCENTS), description="At how much of it people are told")

    def rule(self) -> LimitRule:
        """As the ledger takes it; its id is given there."""
        return LimitRule(
            id="",
            kind="money",
            maximum=self.maximum_usd,
            window=self.window,
            model=self.model,
            tag_name=self.tag_name,
            tag_value=self.tag_value,
            time_zone=self.time_zone,
            policy=self.policy,
            mode=self.mode,
            bound=self.bound,
        )


class LimitChanged(Body):
    """What is left out stays as it is. What a rule counts cannot be changed: that is another rule."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"maximum_usd": "2500"}})

    maximum: Maximum | None = None
    maximum_usd: Usd | None = None
    policy: LimitPolicy | None = None
    mode: LimitMode | None = None
    bound: BoundPolicy | None = None
    warn_percents: Percents | None = None

    @model_validator(mode="after")
    def _nothing_is_null(self) -> Self:
        for name in self.model_fields_set:
            if getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        if {"maximum", "maximum_usd"} <= self.model_fields_set:
            raise ValueError("expected maximum or maximum_usd, not both")
        return self

    def changes(self) -> LimitChanges:
        """As the ledger takes them."""
        sent: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        maximum = sent.get("maximum_usd", sent.get("maximum", UNSET))
        percents = sent.get("warn_percents", UNSET)
        return LimitChanges(
            maximum=maximum,
            policy=sent.get("policy", UNSET),
            mode=sent.get("mode", UNSET),
            bound=sent.get("bound", UNSET),
            warn_percents=percents if percents is UNSET else tuple(percents),
        )


class Limits(Answer):
    """A team's own rules before those of its keys."""

    data: list[Limit]
    next: str | None


class BudgetDay(Answer):
    day: str
    spent_usd: str


class TagValue(Answer):
    tag_value: str
    spent_usd: str
    spent_percent: float


class Budget(Limit):
    """A rule of money and where it stands. A rule for each value of a tag tells of the value that has spent most."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "Qm3ZsA81kdPx",
                "team": {"id": "8Zk2m1qLp0xA", "name": "support"},
                "key": None,
                "kind": "money",
                "window": "month",
                "maximum": None,
                "maximum_usd": "2000",
                "model": None,
                "tag_name": None,
                "tag_value": None,
                "time_zone": "Europe/Berlin",
                "policy": "strict",
                "mode": "enforce",
                "bound": "maximum",
                "warn_percents": [50, 80, 95],
                "created_at": "2026-03-01T09:00:00.000Z",
                "window_from": "2026-10-31T23:00:00.000Z",
                "window_to": "2026-11-30T23:00:00.000Z",
                "spent_usd": "1841.37",
                "left_usd": "158.63",
                "spent_percent": 92.1,
                "forecast_usd": "2290.12",
                "exhausted_at": "2026-11-26T13:20:00.000Z",
                "state": "warned",
                "days": [{"day": "2026-11-01", "spent_usd": "41.20"}],
                "values": None,
            }
        }
    )

    window_from: str
    window_to: str | None = Field(description="Null: it never ends")
    spent_usd: str
    left_usd: str
    spent_percent: float
    forecast_usd: str | None = Field(description="At the window's end; null: too early to say, or it has no end")
    exhausted_at: str | None = Field(
        description="When it was, or at this pace will be, used up; null: it lasts, or it is too early to say"
    )
    state: Literal["ok", "warned", "exhausted"]
    days: list[BudgetDay] = Field(description="Of the window so far, in the budget's own zone; at most the last 92")
    values: list[TagValue] | None = Field(description="Of a rule that counts each value of a tag on its own")


class Budgets(Answer):
    """Those that are used up, then those that will be, soonest first, then the others."""

    data: list[Budget]
    next: str | None
