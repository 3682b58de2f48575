"""What is sent: one JSON object, whose ``data`` is the alert as the admin API shows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from app.alerts.readings import iso_time
from app.alerts.words import detail_of, title_of
from app.store.alert_deliveries import Delivery, new_delivery_id
from app.store.alert_rules import AlertRule
from app.store.alert_states import Alert

TEST_TYPE = "alert.test"


def alert_object(alert: Alert) -> dict[str, Any]:
    """An alert for people and programs: ids, names, times, figures; never a secret."""
    team = None if alert.team_id is None else {"id": alert.team_id, "name": alert.team_name}
    key = None if alert.key_id is None else {"id": alert.key_id, "name": alert.key_name}
    return {
        "id": alert.id,
        "rule": {"id": alert.rule_id, "kind": alert.kind, "name": alert.rule_name},
        "state": alert.state,
        "level": alert.level,
        "severity": alert.severity,
        "title": title_of(alert),
        "detail": detail_of(alert),
        "team": team,
        "key": key,
        "figures": alert.figures,
        "fired_at": iso_time(alert.fired_at_ms),
        "changed_at": iso_time(alert.changed_at_ms),
        "resolved_at": None if alert.resolved_at_ms is None else iso_time(alert.resolved_at_ms),
        "reason": alert.reason,
    }


def alert_body(alert: Alert, now_ms: int) -> str:
    """The message about ``alert`` as it is now."""
    return _text({"type": alert.kind, "timestamp": iso_time(now_ms), "data": alert_object(alert)})


def deliveries_of(alert: Alert, rule: AlertRule, targets: Iterable[str], now_ms: int) -> list[Delivery]:
    """A message to each of ``targets``, to be sent now."""
    body = alert_body(alert, now_ms)
    return [
        Delivery(
            id=new_delivery_id(),
            type=alert.kind,
            rule_id=rule.id,
            alert_id=alert.id,
            target=target,
            body=body,
            created_at_ms=now_ms,
            next_at_ms=now_ms,
        )
        for target in targets
    ]


def targets_of(rule: AlertRule, known: Sequence[str], blocked: Iterable[str]) -> list[str]:
    """Those that ``rule`` tells: in the order of the configuration file, without any that it has not."""
    left = set(blocked)
    return [name for name in known if (rule.targets is None or name in rule.targets) and name not in left]


def trial_delivery(target: str, now_ms: int) -> Delivery:
    """The message that a person sends to try a target."""
    data = {
        "title": "A test from Headgate",
        "detail": f"Whoever reads this is told of alerts as the target {target}.",
        "target": target,
    }
    body = _text({"type": TEST_TYPE, "timestamp": iso_time(now_ms), "data": data})
    return Delivery(
        id=new_delivery_id(),
        type=TEST_TYPE,
        rule_id=None,
        alert_id=None,
        target=target,
        body=body,
        created_at_ms=now_ms,
        next_at_ms=None,
    )


def _text(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
