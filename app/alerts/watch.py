"""Looks after alerts: every quarter of a minute, in one process of all that share a ledger.

Which one is said by a lease in SQL, that ends by the database's clock. What is written is written in a transaction
that holds the lease, so that a process that was stopped for a while and goes on writes nothing of what another has
told meanwhile. All state is in SQL: whoever is next goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from app.alerts.decisions import Reading, Verdict, decide
from app.alerts.events import deliveries_of, targets_of
from app.alerts.kinds import KINDS, UpstreamParameters, first_rules, parameters_of
from app.alerts.looking import SIGHT_MS, Readings, look
from app.alerts.probing import Connect, is_reached
from app.alerts.readings import iso_time
from app.alerts.words import reason_of
from app.core.clock import Clock
from app.settings import AlertSettings, LimitDefaults
from app.store.alert_deliveries import Delivery, forget_deliveries, queue_deliveries
from app.store.alert_figures import database_now
from app.store.alert_rules import AlertRule, list_alert_blocks, list_alert_rules, make_rules_once
from app.store.alert_states import (
    FIRING_OF_RULE_MAX,
    Alert,
    firing_alerts,
    forget_alerts,
    keep_alerts,
    new_alert_id,
)
from app.store.database import Database
from app.store.errors import StoreError
from app.store.leases import release_lease, take_lease
from app.store.upstream_sights import forget_sights, note_sights
from app.telemetry.logs import LogWriter

LEASE = "alerts"
LEASE_MS = 40_000
"""With ``INTERVAL_S`` less than a minute, until another takes over from one that is gone."""
INTERVAL_S = 15.0
LOOK_S_MAX = 30.0
SLOW_EVERY = 4
"""What changes slowly is looked at every fourth time."""
SLOW_KINDS = frozenset({"model.unpriced", "key.expiring"})
FIGURES_KEPT_MS = 60_000
"""Figures of what goes on firing are brought up to date once a minute."""
UPSTREAM_CLEAR_S_MAX = 60
KEPT_MS = 30 * 24 * 60 * 60 * 1000
FORGET_EVERY_S = 3600.0


class Surroundings(msgspec.Struct, frozen=True):
    """What of the configuration in force, and of this process, is looked at; asked each time anew.

    ``unreachable``: the upstreams to which the last try to connect failed, and how each is connected to.
    """

    alerts: Callable[[], AlertSettings]
    limits: Callable[[], LimitDefaults]
    unreachable: Callable[[], Mapping[str, Connect]]


class _Changes(msgspec.Struct):
    """What a look leads to."""

    new: list[Alert] = msgspec.field(default_factory=list)
    changed: list[Alert] = msgspec.field(default_factory=list)
    deliveries: list[Delivery] = msgspec.field(default_factory=list)
    left_out: int = 0

    @property
    def is_nothing(self) -> bool:
        return not (self.new or self.changed)


class AlertWatch:
    """A task beside the requests. ``is_on_duty`` says whether this process has the lease."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        log: LogWriter,
        process_id: str,
        surroundings: Surroundings,
        *,
        on_queued: Callable[[], None],
        interval_s: float = INTERVAL_S,
        lease_ms: int = LEASE_MS,
    ) -> None:
        """``on_queued`` is called when there are messages to send."""
        self._database = database
        self._clock = clock
        self._log = log
        self._process_id = process_id
        self._surroundings = surroundings
        self._on_queued = on_queued
        self._interval_s = interval_s
        self._lease_ms = lease_ms
        self._on_duty_until_s = 0.0
        self._looks = 0
        self._down: dict[str, int] = {}
        self._has_told_down = True
        self._forgot_s = float("-inf")
        self._failing = False
        self._left_out = False
        self._firing: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"AlertWatch(is_on_duty={self.is_on_duty()}, firing={sum(self._firing.values())})"

    def is_on_duty(self) -> bool:
        """A little before the lease ends it counts as over."""
        return time.monotonic() < self._on_duty_until_s

    @property
    def firing(self) -> list[tuple[str, float]]:
        """How many alerts of each kind fire, as far as it is this process's to say."""
        known = self._firing if self.is_on_duty() else {}
        return [(kind, float(known.get(kind, 0))) for kind in KINDS]

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="alert watch")

    async def close(self) -> None:
        """Lets the next process begin at once."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self.is_on_duty():
            self._on_duty_until_s = 0.0
            with contextlib.suppress(StoreError, TimeoutError):
                await self._database.within(LOOK_S_MAX, self._release())

    async def _run(self) -> None:
        while True:
            try:
                await self._database.within(LOOK_S_MAX, self.look())
            except (StoreError, TimeoutError):
                # The ledger writer tells that; what was told so far stands in SQL.
                pass
            except Exception as error:  # noqa: BLE001 - a figure that cannot be read must not end the looking
                if not self._failing:
                    self._log.error("alert_watch_failed", reason=type(error).__name__)
                self._failing = True
            else:
                self._failing = False
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Once: what fires, what is over, and what is to be told of it. Raises StoreError."""
        await self._tell_down()
        if not await self._take_duty():
            return
        kinds = [kind for kind in KINDS if kind not in SLOW_KINDS or self._looks % SLOW_EVERY == 0]
        self._looks += 1
        async with self._database.read() as connection:
            now_ms = await database_now(connection)
            rules = await list_alert_rules(connection)
            firing = await firing_alerts(connection)
            readings = await look(connection, kinds, rules, firing, self._surroundings.limits(), now_ms)
        if not self._changes(rules, firing, readings, {}, now_ms).is_nothing:
            firing = await self._write(rules, readings, now_ms)
        self._count(firing)
        await self._forget(now_ms)

    async def _write(self, rules: Sequence[AlertRule], readings: Readings, now_ms: int) -> list[Alert]:
        """Decides once more, of how everything is by now, where nobody else can; what fires then."""
        async with self._database.transaction() as connection:
            if not await take_lease(connection, LEASE, self._process_id, self._lease_ms):
                self._on_duty_until_s = 0.0
                return []
            # A rule that was changed meanwhile is looked at the next time.
            same = [rule for rule in await list_alert_rules(connection) if rule in rules]
            firing = await firing_alerts(connection)
            blocked = await _blocked(connection)
            changes = self._changes(same, firing, readings, blocked, now_ms)
            await keep_alerts(connection, changes.new, changes.changed)
            kept = await queue_deliveries(connection, changes.deliveries)
            firing = await firing_alerts(connection)
        self._tell(changes, kept)
        return firing

    def _changes(
        self,
        rules: Sequence[AlertRule],
        firing: Sequence[Alert],
        readings: Readings,
        blocked: Mapping[str, Sequence[str]],
        now_ms: int,
    ) -> _Changes:
        changes = _Changes()
        targets = [target.name for target in self._surroundings.alerts().targets]
        for rule in rules:
            if rule.id not in readings:
                continue
            earlier = {alert.subject: alert for alert in firing if alert.rule_id == rule.id}
            found = {reading.subject: reading for reading in readings[rule.id]}
            told = targets_of(rule, targets, blocked.get(rule.id, ()))
            room = FIRING_OF_RULE_MAX - len(earlier)
            for subject in sorted({*earlier, *found}):
                reading, alert = found.get(subject), earlier.get(subject)
                verdict = decide(reading, alert, now_ms, _clear_ms(rule))
                if verdict.action == "fire" and room <= 0:
                    changes.left_out += 1
                    continue
                room -= verdict.action == "fire"
                after = _after(rule, reading, alert, verdict, now_ms)
                if after is None:
                    continue
                (changes.new if alert is None else changes.changed).append(after)
                if verdict.is_told:
                    changes.deliveries += deliveries_of(after, rule, told, now_ms)
        return changes

    def _tell(self, changes: _Changes, kept: int) -> None:
        for alert in (*changes.new, *changes.changed):
            if alert.changed_at_ms in {alert.fired_at_ms, alert.resolved_at_ms}:
                self._log.info("alert", kind=alert.kind, state=alert.state, alert=alert.id, rule=alert.rule_id)
        if kept < len(changes.deliveries):
            self._log.error("alert_queue_full", messages_lost=len(changes.deliveries) - kept)
        if changes.left_out and not self._left_out:
            self._log.warning("alerts_left_out", subjects=changes.left_out, firing_max=FIRING_OF_RULE_MAX)
        self._left_out = changes.left_out > 0
        if kept:
            self._on_queued()

    async def _take_duty(self) -> bool:
        begun_s = time.monotonic()
        async with self._database.transaction() as connection:
            has_it = await take_lease(connection, LEASE, self._process_id, self._lease_ms)
            if has_it and not self.is_on_duty():
                await make_rules_once(connection, first_rules(self._clock.now_ms()))
        self._on_duty_until_s = begun_s + self._lease_ms / 1000 if has_it else 0.0
        return has_it

    async def _release(self) -> None:
        async with self._database.transaction() as connection:
            await release_lease(connection, LEASE, self._process_id)
            await note_sights(connection, self._process_id, {})

    async def _tell_down(self) -> None:
        """Tells what this process cannot connect to. Nothing is written while all is well."""
        now_ms = self._clock.now_ms()
        unreachable = self._surroundings.unreachable()
        reached = await asyncio.gather(*[is_reached(connect) for connect in unreachable.values()])
        down = [name for name, is_up in zip(unreachable, reached, strict=True) if not is_up]
        self._down = {name: self._down.get(name, now_ms) for name in down}
        if self._down or self._has_told_down:
            async with self._database.transaction() as connection:
                await note_sights(connection, self._process_id, self._down)
            self._has_told_down = bool(self._down)

    def _count(self, firing: Sequence[Alert]) -> None:
        self._firing = {}
        for alert in firing:
            self._firing[alert.kind] = self._firing.get(alert.kind, 0) + 1

    async def _forget(self, now_ms: int) -> None:
        if time.monotonic() - self._forgot_s < FORGET_EVERY_S:
            return
        self._forgot_s = time.monotonic()
        async with self._database.transaction() as connection:
            await forget_deliveries(connection, now_ms - KEPT_MS)
            await forget_alerts(connection, now_ms - KEPT_MS)
            await forget_sights(connection, SIGHT_MS)


def _after(
    rule: AlertRule, reading: Reading | None, earlier: Alert | None, verdict: Verdict, now_ms: int
) -> Alert | None:
    """The alert as it is from now on; None where nothing of it changes."""
    if earlier is None:
        return _new(rule, reading, verdict, now_ms) if verdict.action == "fire" and reading is not None else None
    if verdict.action == "resolve":
        # The figures stay those of what it was.
        ended = msgspec.structs.replace(earlier, state="resolved", resolved_at_ms=now_ms, changed_at_ms=now_ms)
        return msgspec.structs.replace(ended, clear_since_ms=None, reason=reason_of(earlier, iso_time(now_ms)))
    if verdict.action == "clearing":
        return None if earlier.clear_since_ms is not None else msgspec.structs.replace(earlier, clear_since_ms=now_ms)
    if reading is None:
        return None
    after = msgspec.structs.replace(earlier, level=verdict.level, clear_since_ms=None)
    is_stale = now_ms - earlier.changed_at_ms >= FIGURES_KEPT_MS and reading.figures != earlier.figures
    if verdict.action in {"escalate", "lower"} or is_stale:
        severity = earlier.severity if verdict.action == "hold" else reading.severity
        after = msgspec.structs.replace(after, figures=reading.figures, severity=severity, changed_at_ms=now_ms)
    return None if after == earlier else after


def _new(rule: AlertRule, reading: Reading, verdict: Verdict, now_ms: int) -> Alert:
    return Alert(
        id=new_alert_id(),
        rule_id=rule.id,
        kind=rule.kind,
        subject=reading.subject,
        team_id=reading.team_id,
        key_id=reading.key_id,
        level=verdict.level,
        severity=reading.severity,
        figures=reading.figures,
        fired_at_ms=now_ms,
        changed_at_ms=now_ms,
        rule_name=rule.name,
        team_name=reading.team_name,
        key_name=reading.key_name,
    )


def _clear_ms(rule: AlertRule) -> int:
    """An upstream that comes and goes is down until it has stayed; other figures do not swing."""
    if rule.kind != "upstream.down":
        return 0
    parameters = parameters_of("upstream.down", rule.parameters)
    after_s = parameters.after_s if isinstance(parameters, UpstreamParameters) else 0
    return min(after_s, UPSTREAM_CLEAR_S_MAX) * 1000


async def _blocked(connection: AsyncConnection) -> dict[str, list[str]]:
    blocked: dict[str, list[str]] = {}
    for block in await list_alert_blocks(connection):
        blocked.setdefault(block.rule_id, []).append(block.target)
    return blocked
