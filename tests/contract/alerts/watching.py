"""Processes that look after alerts on one ledger, and the people in it."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import msgspec
from pydantic import SecretStr
from sqlalchemy import update

from app.alerts.courier import Courier
from app.alerts.kinds import first_rules
from app.alerts.probing import Connect
from app.alerts.sending import TargetSender
from app.alerts.watch import AlertWatch, Surroundings
from app.alerts.webhook import WebhookSender
from app.core.clock import SystemClock
from app.core.ids import random_base62
from app.settings import AlertSettings, AlertTarget, LimitDefaults, WebhookTarget
from app.store.alert_deliveries import Delivery, list_deliveries
from app.store.alert_rules import AlertRule, add_alert_rule, make_rules_once
from app.store.alert_states import Alert, firing_alerts, list_alerts
from app.store.database import Database
from app.store.keys import create_key
from app.store.tables import keys, leases
from app.store.teams import create_team
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics

SECRET = "whsec_" + b64encode(b"k" * 32).decode()
CLOCK = SystemClock()
DAY_MS = 24 * 60 * 60 * 1000


def webhook(name: str, port: int = 1) -> AlertTarget:
    hook = WebhookTarget(url=SecretStr(f"http://127.0.0.1:{port}/{name}"), secret=SecretStr(SECRET))
    return AlertTarget(name=name, webhook=hook)


class Process:
    """One gateway's part in alerts: it looks when it is told to, and sends by itself once it is started."""

    def __init__(self, database: Database, *targets: AlertTarget, timeout_s: float = 0.5, lease_ms: int = 40_000):
        self.database = database
        self.settings = AlertSettings(targets=targets)
        self.limits = LimitDefaults()
        self.unreachable: dict[str, Connect] = {}
        self.metrics = Metrics()
        self.log = LogWriter(descriptor=-1)
        self.queued = asyncio.Event()
        self.watch = AlertWatch(
            database,
            CLOCK,
            self.log,
            random_base62(16),
            Surroundings(lambda: self.settings, lambda: self.limits, lambda: self.unreachable),
            on_queued=self.queued.set,
            lease_ms=lease_ms,
        )
        self.sender = TargetSender(lambda: self.settings, WebhookSender(timeout_s=timeout_s))
        self.courier = Courier(
            database,
            CLOCK,
            self.sender,
            self.metrics,
            self.log,
            settings=lambda: self.settings,
            is_on_duty=self.watch.is_on_duty,
            queued=self.queued,
            look_every_s=0.05,
        )

    async def look(self, times: int = 1) -> None:
        """``SLOW_EVERY`` looks see everything."""
        for _ in range(times):
            await self.watch.look()

    async def close(self) -> None:
        await self.courier.close()
        await self.watch.close()
        await self.sender.close()


class Ledger:
    """What people would see and do."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def only(self, kind: str, **changes: Any) -> AlertRule:
        """The one rule of ``kind`` that there is then."""
        rule = next(rule for rule in first_rules(CLOCK.now_ms()) if rule.kind == kind)
        async with self.database.transaction() as connection:
            # As if somebody had removed those that a new ledger has.
            await make_rules_once(connection, [])
            return await add_alert_rule(connection, msgspec.structs.replace(rule, **changes))

    async def key(self, name: str = "k", *, days: float | None = None, team_id: str | None = None) -> Any:
        """A key that ends in so many days."""
        now_ms = CLOCK.now_ms()
        async with self.database.transaction() as connection:
            if team_id is None:
                team_id = (await create_team(connection, name=f"team of {name}", now_ms=now_ms)).id
            return await create_key(
                connection,
                team_id=team_id,
                name=name,
                secret_id=random_base62(10),
                digest=random_base62(32).encode(),
                now_ms=now_ms,
                expires_at_ms=None if days is None else now_ms + round(days * DAY_MS),
            )

    async def extend(self, key_id: str, days: float) -> None:
        async with self.database.transaction() as connection:
            later = CLOCK.now_ms() + round(days * DAY_MS)
            await connection.execute(update(keys).where(keys.c.id == key_id).values(expires_at_ms=later))

    async def end_lease(self) -> None:
        """As if its time were over."""
        async with self.database.transaction() as connection:
            await connection.execute(update(leases).values(until_ms=1))

    async def firing(self) -> list[Alert]:
        async with self.database.read() as connection:
            return await firing_alerts(connection)

    async def resolved(self) -> list[Alert]:
        async with self.database.read() as connection:
            return await list_alerts(connection, "resolved", limit=1000)

    async def deliveries(self) -> list[Delivery]:
        """The oldest first."""
        async with self.database.read() as connection:
            return list(reversed(await list_deliveries(connection, limit=5000)))

    async def told(self) -> list[tuple[str, int, str]]:
        """State, level and key or subject of each message, in their order."""
        told = []
        for delivery in await self.deliveries():
            data = msgspec.json.decode(delivery.body)["data"]
            told.append((data["state"], data["level"], (data["key"] or {}).get("name", "")))
        return told
