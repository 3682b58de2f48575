"""Alerts: rules, what fires, who is told, what became of each message."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from app.admin.schemas.fields import Answer, Body, Name
from app.admin.schemas.limits import KeyNamed
from app.admin.schemas.session import TeamNamed
from app.settings.alerts import TARGETS_MAX

ID = r"^[\x21-\x7e]*$"
"""What ids and names of targets are made of."""

Kind = Literal["budget.threshold", "spend.velocity", "model.unpriced", "upstream.down", "key.expiring"]
TargetName = Annotated[str, StringConstraints(min_length=1, max_length=63)]
Targets = Annotated[list[TargetName], Field(max_length=TARGETS_MAX)]
Parameters = Annotated[dict[str, Any], Field(max_length=8)]
OF_TEAM = "Whose requests and keys; null: of all teams."
TO_WHOM = "Names of the configuration file's targets; null: all of them."


DELIVERY_EXAMPLE: JsonDict = {
    "id": "msg_2KWPBgLlAfxdpx2AI54pPJ8",
    "type": "upstream.down",
    "rule": {"id": "Qm3ZsA81kdPx", "name": "Upstreams that are down"},
    "alert_id": "7d0Ws1mQx8LkPq2a",
    "target": "ops",
    "state": "waiting",
    "created_at": "2026-11-24T15:40:12.123Z",
    "next_at": "2026-11-24T15:45:19.002Z",
    "attempts": [
        {
            "number": 1,
            "at": "2026-11-24T15:40:12.501Z",
            "status": 500,
            "took_ms": 41,
            "error": "HTTP 500: try again",
        }
    ],
}


class AlertRuleMade(Body):
    """Only `kind` is needed; `parameters` that are left out are as the kind has them."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "kind": "budget.threshold",
                "name": "Budgets",
                "targets": ["ops"],
                "parameters": {"percents": [80]},
            }
        }
    )

    kind: Kind
    name: Name | None = None
    team_id: str | None = Field(default=None, max_length=64, pattern=ID, description=OF_TEAM)
    targets: Targets | None = Field(default=None, description=TO_WHOM)
    enabled: bool = True
    parameters: Parameters = Field(default_factory=dict)


class AlertRuleChanged(Body):
    """What is left out stays; `parameters` replace all that there were."""

    model_config = ConfigDict(json_schema_extra={"example": {"enabled": True, "parameters": {"percents": [50, 80]}}})

    name: Name | None = None
    team_id: str | None = Field(default=None, max_length=64, pattern=ID, description=OF_TEAM)
    targets: Targets | None = Field(default=None, description=TO_WHOM)
    enabled: bool | None = None
    parameters: Parameters | None = None


class Blocked(Answer):
    """A target that answered 410: it is told nothing more of the rule until `targets` are set again."""

    target: str
    reason: str
    since: str


class AlertRule(Answer):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "Qm3ZsA81kdPx",
                "kind": "budget.threshold",
                "name": "Budgets",
                "team": None,
                "targets": None,
                "enabled": True,
                "parameters": {"percents": [80]},
                "state": "firing",
                "firing": 2,
                "last_fired_at": "2026-11-24T15:40:12.123Z",
                "blocked": [],
                "created_at": "2026-11-01T08:00:00.000Z",
            }
        }
    )

    id: str
    kind: Kind
    name: str
    team: TeamNamed | None
    targets: list[str] | None
    enabled: bool
    parameters: dict[str, Any]
    state: Literal["quiet", "firing"]
    firing: int
    last_fired_at: str | None
    blocked: list[Blocked]
    created_at: str


class AlertRules(Answer):
    data: list[AlertRule]
    next: str | None


class AlertRuleNamed(Answer):
    id: str
    kind: Kind
    name: str


class Alert(Answer):
    """What fires, or fired. `figures` are by kind; docs/alerts.md has them all."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "7d0Ws1mQx8LkPq2a",
                "rule": {"id": "Qm3ZsA81kdPx", "kind": "spend.velocity", "name": "Sudden spending"},
                "state": "firing",
                "level": 1,
                "severity": "warn",
                "title": "ci-agents spends far more than usual",
                "detail": "$18.40 in the last ten minutes; the busiest ten of the week before cost $2.10.",
                "team": {"id": "8Zk2m1qLp0xA", "name": "platform"},
                "key": {"id": "9t2xkdC6r8Ub", "name": "ci-agents"},
                "figures": {
                    "spent_10_minutes_usd": "18.4",
                    "busiest_10_minutes_usd": "2.1",
                    "times": 3.0,
                    "bar_usd": "6.3",
                },
                "fired_at": "2026-11-24T15:40:12.123Z",
                "changed_at": "2026-11-24T15:40:12.123Z",
                "resolved_at": None,
                "reason": None,
            }
        }
    )

    id: str
    rule: AlertRuleNamed
    state: Literal["firing", "resolved"]
    level: int
    severity: Literal["warn", "bad"]
    title: str
    detail: str
    team: TeamNamed | None
    key: KeyNamed | None
    figures: dict[str, Any]
    fired_at: str
    changed_at: str
    resolved_at: str | None
    reason: str | None


class Alerts(Answer):
    data: list[Alert]
    next: str | None


class AlertTarget(Answer):
    """Whom the configuration file names: of a webhook only the host is told, of e-mail how many addresses."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "ops",
                "kind": "webhook",
                "to": "hooks.example.com",
                "last_sent_at": "2026-11-24T15:40:13.020Z",
                "last_result": "delivered",
                "last_status": 204,
                "last_error": None,
                "waiting": 0,
            }
        }
    )

    name: str
    kind: Literal["webhook", "email"]
    to: str
    last_sent_at: str | None
    last_result: Literal["delivered", "failed", "gone"] | None
    last_status: int | None
    last_error: str | None
    waiting: int


class AlertTargets(Answer):
    data: list[AlertTarget]
    next: str | None


class Attempt(Answer):
    number: int
    at: str
    status: int | None
    took_ms: int
    error: str | None


class RuleNamed(Answer):
    id: str
    name: str | None


class Delivery(Answer):
    """One message to one target. `id` is its `webhook-id`, the same in every attempt."""

    model_config = ConfigDict(json_schema_extra={"example": DELIVERY_EXAMPLE})

    id: str
    type: Kind | Literal["alert.test"]
    rule: RuleNamed | None
    alert_id: str | None
    target: str
    state: Literal["waiting", "delivered", "failed", "gone"]
    created_at: str
    next_at: str | None
    attempts: list[Attempt]


class Deliveries(Answer):
    data: list[Delivery]
    next: str | None


class Tested(Answer):
    model_config = ConfigDict(json_schema_extra={"example": {"ok": False, "delivery": DELIVERY_EXAMPLE}})

    ok: bool
    delivery: Delivery
