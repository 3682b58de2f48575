"""Alerts: who looks, and who carries the messages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

from app.alerts.courier import Courier
from app.alerts.probing import Connect
from app.alerts.sending import TargetSender
from app.alerts.watch import AlertWatch, Surroundings
from app.alerts.webhook import WebhookSender
from app.core.clock import SystemClock
from app.core.ids import random_base62
from app.main.switch import Switch
from app.store.database import Database
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics

PROCESS_ID_CHARS = 16


def open_alerts(stack: AsyncExitStack, database: Database, switch: Switch, metrics: Metrics, log: LogWriter) -> Courier:
    """Looks after alerts from now on, with the configuration that is in force each time."""

    def unreachable() -> Mapping[str, Connect]:
        return {
            name: pool.can_connect
            for name, pool in switch.pools.items()
            if not pool.reachable and pool.settings.kind != "simulator"
        }

    clock = SystemClock()
    sender = TargetSender(lambda: switch.configuration.alerts, WebhookSender())
    stack.push_async_callback(sender.close)
    queued = asyncio.Event()
    watch = AlertWatch(
        database,
        clock,
        log,
        random_base62(PROCESS_ID_CHARS),
        Surroundings(
            alerts=lambda: switch.configuration.alerts,
            limits=lambda: switch.configuration.limits,
            unreachable=unreachable,
        ),
        on_queued=queued.set,
    )
    courier = Courier(
        database,
        clock,
        sender,
        metrics,
        log,
        settings=lambda: switch.configuration.alerts,
        is_on_duty=watch.is_on_duty,
        queued=queued,
    )
    metrics.watch("headgate_alerts_firing", "Alerts that fire, by kind.", lambda: watch.firing, label="rule")
    # The courier is closed first: it sends only while the watch is on duty.
    stack.push_async_callback(watch.close)
    stack.push_async_callback(courier.close)
    watch.start()
    courier.start()
    return courier
