"""Limits and budgets."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET
from pydantic import ConfigDict, Field

from app.admin.schemas.fields import Answer, Body, Count, Usd, Zone
from app.admin.schemas.session import TeamNamed
from app.core.errors import InvalidRequest
from app.core.money import usd_text
from app.store.explanations import iso_time
from app.store.limits import PlainLimit
from app.store.rows import LimitRow

BudgetWindowName = Literal["day", "week", "month", "total"]


class KeyNamed(Answer):
    id: str
    name: str


class Limit(Answer):
    """One rule. `maximum_usd` is set for money, `maximum` for everything else."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "Qm3ZsA81kdPx",
                "team": {"id": "8Zk2m1qLp0xA", "name": "search"},
                "key": None,
                "kind": "money",
                "window": "month",
                "maximum": None,
                "maximum_usd": "5000",
                "model": None,
                "tag_name": None,
                "tag_value": None,
                "time_zone": "Europe/Berlin",
                "policy": "strict",
                "mode": "enforce",
                "bound": "maximum",
                "warn_percents": [80, 95],
                "created_at": "2026-03-01T09:00:00.000Z",
            }
        }
    )

    id: str
    team: TeamNamed
    key: KeyNamed | None
    kind: Literal["requests", "tokens", "concurrency", "money"]
    window: Literal["", "minute", "hour", "day", "week", "month", "total"]
    maximum: int | None
    maximum_usd: str | None
    model: str | None
    tag_name: str | None
    tag_value: str | None
    time_zone: str
    policy: Literal["strict", "protective"]
    mode: Literal["enforce", "observe"]
    bound: Literal["maximum", "estimate"]
    warn_percents: list[int]
    created_at: str


class PlainLimits(Body):
    """The limits that count every request of a team or a key; null takes one away, what is left out stays."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrency: Count | None = None
    budget_usd: Usd | None = None
    budget_window: BudgetWindowName = Field(default="month", description="Of `budget_usd`.")
    time_zone: Zone | None = Field(default=None, description="Of `budget_usd`: when its days and months begin.")

    def plain_limits(self) -> tuple[PlainLimit, ...]:
        """What was sent, as the ledger takes it. Raises InvalidRequest where what is of a budget comes without it."""
        sent = self.model_fields_set
        for name in ("budget_window", "time_zone"):
            if name in sent and "budget_usd" not in sent:
                raise InvalidRequest(f"{name} is of budget_usd, which is missing: send both.", param=name)
        limits = []
        if "requests_per_minute" in sent:
            limits.append(PlainLimit("requests", "minute", self.requests_per_minute))
        if "tokens_per_minute" in sent:
            limits.append(PlainLimit("tokens", "minute", self.tokens_per_minute))
        if "concurrency" in sent:
            limits.append(PlainLimit("concurrency", "", self.concurrency))
        if "budget_usd" in sent:
            limits.append(PlainLimit("money", self.budget_window, self.budget_usd, self.time_zone))
        return tuple(limits)

    def sent(self, name: str) -> Any:
        """The member ``name``, or UNSET where it was left out."""
        return getattr(self, name) if name in self.model_fields_set else UNSET


def limit_of(row: LimitRow, teams: dict[str, str], keys: dict[str, str]) -> dict[str, Any]:
    """A rule as JSON tells it; ``teams`` and ``keys`` are names by id."""
    rule = row.rule
    is_money = rule.kind == "money"
    return {
        "id": rule.id,
        "team": {"id": row.team_id, "name": teams.get(row.team_id, row.team_id)},
        "key": None if row.key_id is None else {"id": row.key_id, "name": keys.get(row.key_id, row.key_id)},
        "kind": rule.kind,
        "window": rule.window,
        "maximum": None if is_money else rule.maximum,
        "maximum_usd": usd_text(rule.maximum) if is_money else None,
        "model": rule.model,
        "tag_name": rule.tag_name,
        "tag_value": rule.tag_value,
        "time_zone": rule.time_zone,
        "policy": rule.policy,
        "mode": rule.mode,
        "bound": rule.bound,
        "warn_percents": list(row.warn_percents),
        "created_at": iso_time(row.created_at_ms),
    }
