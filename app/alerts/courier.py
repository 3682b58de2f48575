"""Carries messages to their targets: at least once each, under the same id, until they are taken or given up.

A try is claimed in SQL before it is made, so that no two processes make the same one; what comes of it is written
down after it. Whoever dies in between leaves the message to be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial
from typing import Protocol

from app.alerts.events import trial_delivery
from app.alerts.webhook import Sent
from app.core.clock import Clock
from app.settings import AlertSettings, AlertTarget
from app.store.alert_deliveries import (
    Delivery,
    DeliveryState,
    Try,
    claim_delivery,
    due_deliveries,
    end_deliveries,
    keep_delivery,
    note_try,
)
from app.store.alert_rules import AlertBlock, block_alert_target
from app.store.database import Database
from app.store.errors import StoreError
from app.telemetry.logs import LogWriter
from app.telemetry.metrics import Metrics

RETRY_S = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600)
"""What standard webhooks suggest; seven tries in about eighteen hours."""
JITTER = 0.2
GIVE_UP_MS = 30 * 3600 * 1000
"""So old a message is not sent any more: that of a backup, or after a long outage, would only mislead."""
CLAIM_MS = 60_000
"""Longer than any try: so late it is taken for lost."""
LOOK_EVERY_S = 1.0
DUE_MAX = 100


class Sender(Protocol):
    """Whoever gets a message to a target."""

    async def send(self, target: AlertTarget, message_id: str, body: bytes, now_s: int) -> Sent:
        """Tries once, in a bounded time, and raises nothing."""
        ...


def retry_in_ms(tries: int, sent: Sent) -> int | None:
    """When to try again after ``tries`` tries, in milliseconds from now; None: never."""
    if tries > len(RETRY_S):
        return None
    wait_s = RETRY_S[tries - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311 - jitter, not a secret
    return round(max(wait_s, sent.retry_after_s) * 1000)


class Courier:
    """A task for each target that has something due, so that a slow one holds up nobody else's."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        sender: Sender,
        metrics: Metrics,
        log: LogWriter,
        *,
        settings: Callable[[], AlertSettings],
        is_on_duty: Callable[[], bool],
        queued: asyncio.Event,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """``is_on_duty``: whether this process is the one that looks after alerts now. ``queued`` is set when there
        is something new to send.
        """
        self._database = database
        self._clock = clock
        self._sender = sender
        self._metrics = metrics
        self._log = log
        self._settings = settings
        self._is_on_duty = is_on_duty
        self._look_every_s = look_every_s
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._wake = queued
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Courier(busy={sorted(self._busy)})"

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="alert courier")

    async def close(self) -> None:
        """A try that is under way is cut short, and made again by whoever is on duty next."""
        tasks = [*self._busy.values(), *([] if self._task is None else [self._task])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = None

    async def test(self, target: AlertTarget) -> Delivery:
        """Sends a message to ``target`` now, once, and writes down what came of it. Raises DatabaseUnavailable."""
        now_ms = self._clock.now_ms()
        delivery = trial_delivery(target.name, now_ms)
        sent = await self._sender.send(target, delivery.id, delivery.body.encode(), now_ms // 1000)
        state: DeliveryState = "delivered" if sent.is_taken else "gone" if sent.is_gone else "failed"
        made = _try_of(1, now_ms, sent)
        done = Delivery(
            id=delivery.id,
            type=delivery.type,
            rule_id=None,
            alert_id=None,
            target=target.name,
            body=delivery.body,
            created_at_ms=now_ms,
            next_at_ms=None,
            state=state,
            tries=1,
            attempts=(made,),
        )
        self._metrics.alert_deliveries.labels(target.name, state).inc()
        async with self._database.transaction() as connection:
            await keep_delivery(connection, done)
        return done

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_every_s):
                    await self._wake.wait()
            self._wake.clear()
            if not self._is_on_duty():
                continue
            try:
                await self._look()
            except StoreError:
                # The ledger writer tells that; the messages stay where they are.
                await asyncio.sleep(self._look_every_s)
            except Exception as error:  # noqa: BLE001 - one message that cannot be read must not end all others
                if not self._failing:
                    self._log.error("alert_courier_failed", reason=type(error).__name__)
                self._failing = True
                await asyncio.sleep(self._look_every_s)
            else:
                self._failing = False

    async def _look(self) -> None:
        async with self._database.read() as connection:
            due = await due_deliveries(connection, except_targets=tuple(self._busy), limit=DUE_MAX)
        of_targets: dict[str, list[Delivery]] = {}
        for delivery in due:
            of_targets.setdefault(delivery.target, []).append(delivery)
        for target, deliveries in of_targets.items():
            task = asyncio.create_task(self._serve(deliveries), name=f"alerts to {target}")
            self._busy[target] = task
            task.add_done_callback(partial(self._free, target))

    def _free(self, target: str, _done: asyncio.Task[None]) -> None:
        del self._busy[target]
        # There may be more of them than one look takes.
        self._wake.set()

    async def _serve(self, deliveries: list[Delivery]) -> None:
        """One after the other: a target that does not answer is not asked by all of them at once."""
        for delivery in deliveries:
            if not self._is_on_duty():
                return
            try:
                await self._try(delivery)
            except StoreError:
                return

    async def _try(self, delivery: Delivery) -> None:
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as connection:
            if not await claim_delivery(connection, delivery, CLAIM_MS):
                return
        target = self._settings().find(delivery.target)
        if target is None:
            sent = Sent(0, is_taken=False, error="the configuration has no such target any more")
        elif now_ms - delivery.created_at_ms > GIVE_UP_MS:
            sent = Sent(0, is_taken=False, error="too old to be sent")
        else:
            sent = await self._sender.send(target, delivery.id, delivery.body.encode(), now_ms // 1000)
            if not sent.is_taken and not sent.is_gone:
                wait_ms = retry_in_ms(delivery.tries + 1, sent)
                if wait_ms is not None:
                    await self._note(delivery, now_ms, sent, "waiting", wait_ms)
                    return
        state: DeliveryState = "delivered" if sent.is_taken else "gone" if sent.is_gone else "failed"
        await self._note(delivery, now_ms, sent, state, None)

    async def _note(
        self, delivery: Delivery, at_ms: int, sent: Sent, state: DeliveryState, wait_ms: int | None
    ) -> None:
        self._metrics.alert_deliveries.labels(delivery.target, "retried" if state == "waiting" else state).inc()
        made = _try_of(delivery.tries + 1, at_ms, sent)
        async with self._database.transaction() as connection:
            await note_try(connection, delivery, made, state, wait_ms)
            if state == "gone" and delivery.rule_id is not None:
                reason = sent.error or "410 Gone"
                block = AlertBlock(delivery.rule_id, delivery.target, reason, self._clock.now_ms())
                await block_alert_target(connection, block)
                await end_deliveries(connection, delivery.rule_id, delivery.target, "gone")
        if state in {"failed", "gone"}:
            # The receiver's own words stay in the delivery log.
            self._log.warning(
                "alert_not_delivered",
                target=delivery.target,
                delivery=delivery.id,
                status=sent.status,
                tries=made.number,
            )


def _try_of(number: int, at_ms: int, sent: Sent) -> Try:
    return Try(number=number, at_ms=at_ms, took_ms=sent.took_ms, status=sent.status, error=sent.error)
