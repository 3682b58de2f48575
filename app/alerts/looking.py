"""Asks the ledger for what rules of each kind need, once for all rules of a kind."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import cast

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from app.alerts.decisions import Reading
from app.alerts.kinds import (
    BudgetParameters,
    ExpiryParameters,
    UpstreamParameters,
    VelocityParameters,
    parameters_of,
)
from app.alerts.readings import (
    DAY_MS,
    EXPIRY_SLACK_MS,
    BudgetNow,
    budget_reading,
    expiry_reading,
    failing_reading,
    is_quiet,
    unpriced_readings,
    unreachable_reading,
    velocity_reading,
)
from app.core.calendar import CalendarWindow, window_of
from app.core.clock import quarter_of
from app.core.identity import LimitRule
from app.core.rules import is_plain, limit_name
from app.settings import LimitDefaults
from app.store.alert_figures import (
    MoneyLimit,
    Owner,
    RefusingBudget,
    Spender,
    busiest_quarter,
    failing_upstreams,
    failures_of,
    keys_ending,
    money_limits,
    owners_of,
    recent_spenders,
    refusals_of_budgets,
    spent_of,
    spent_of_each,
    spent_since,
    unpriced_since,
)
from app.store.alert_rules import AlertRule
from app.store.alert_states import Alert
from app.store.upstream_sights import find_sights

TEN_MINUTES_MS = 10 * 60 * 1000
ADMITTED_MS = 30 * 60 * 1000
"""A call may run for a while: what it costs is spent when it ends."""
WEEK_MS = 7 * DAY_MS
UNPRICED_MS = DAY_MS
REFUSED_MS = 15 * 60 * 1000
BUDGETS_AT_A_TIME = 200
"""Between so many, requests go on."""
SIGHT_MS = 60_000
"""So long what a process has seen of an upstream counts: it tells again every quarter of a minute."""
REQUESTS_MIN = 20
"""Of fewer requests in ten minutes nothing is concluded."""

Readings = dict[str, list[Reading]]
"""By rule id, of the rules that were looked at."""


async def look(
    connection: AsyncConnection,
    kinds: Collection[str],
    rules: Sequence[AlertRule],
    firing: Sequence[Alert],
    defaults: LimitDefaults,
    now_ms: int,
) -> Readings:
    """How everything is that ``rules`` of ``kinds`` are about. Raises DatabaseUnavailable."""
    readings: Readings = {}

    def of(kind: str) -> list[AlertRule]:
        return [rule for rule in rules if rule.kind == kind and rule.enabled and kind in kinds]

    if budgets := of("budget.threshold"):
        readings |= await _budgets(connection, budgets, firing, defaults, now_ms)
    if velocities := of("spend.velocity"):
        readings |= await _velocities(connection, velocities, firing, now_ms)
    if unpriced := of("model.unpriced"):
        sums = await unpriced_since(connection, quarter_of(now_ms - UNPRICED_MS))
        readings |= {rule.id: unpriced_readings(sums, rule.team_id) for rule in unpriced}
    if upstreams := of("upstream.down"):
        readings |= await _upstreams(connection, upstreams, now_ms)
    if expiries := of("key.expiring"):
        readings |= await _expiries(connection, expiries, now_ms)
    return readings


# -- budgets ----------------------------------------------------------------------------------


async def _budgets(
    connection: AsyncConnection,
    rules: Sequence[AlertRule],
    firing: Sequence[Alert],
    defaults: LimitDefaults,
    now_ms: int,
) -> Readings:
    found = [*await _own_budgets(connection, now_ms), *await _default_budgets(connection, defaults, now_ms)]
    spent = await spent_of(connection, [(each.budget_id, each.window[0]) for each in found])
    refused = await refusals_of_budgets(connection, now_ms - REFUSED_MS)
    budgets = [
        msgspec.structs.replace(
            each,
            spent_nanousd=spent.get((each.budget_id, each.window[0]), 0),
            refused=refused[_as_refused(each)] if each.window[0] <= now_ms - REFUSED_MS else 0,
        )
        for each in found
    ]
    earlier = {(alert.rule_id, alert.subject): alert for alert in firing}
    readings: Readings = {}
    for rule in rules:
        parameters = cast("BudgetParameters", parameters_of("budget.threshold", rule.parameters))
        found_here = readings[rule.id] = []
        for number, each in enumerate(budgets):
            if number % BUDGETS_AT_A_TIME == 0:
                await asyncio.sleep(0)
            if rule.team_id not in {None, each.owner.team_id}:
                continue
            alert = earlier.get((rule.id, each.subject))
            # Most are far from every threshold.
            if alert is None and is_quiet(parameters, each):
                continue
            reading = budget_reading(parameters, each, alert)
            if reading is not None:
                found_here.append(reading)
    return readings


async def _own_budgets(connection: AsyncConnection, now_ms: int) -> list[BudgetNow]:
    found: list[BudgetNow] = []
    for each in await money_limits(connection):
        window = _window(each.rule, now_ms)
        if window is None:
            continue
        budget = BudgetNow(
            rule=each.rule,
            owner=Owner(each.team_id, each.team_name, each.key_id, each.key_name),
            window=window,
            budget_id=each.rule.id,
            warn_percents=each.warn_percents,
        )
        if each.rule.tag_name is None or each.rule.tag_value is not None:
            found.append(budget)
            continue
        values = await spent_of_each(connection, each.rule.id, window[0])
        found += [
            msgspec.structs.replace(budget, budget_id=f"{each.rule.id}:{value}", tag_value=value) for value in values
        ]
    return found


async def _default_budgets(connection: AsyncConnection, defaults: LimitDefaults, now_ms: int) -> list[BudgetNow]:
    """Budgets from the configuration file, of those who have none of their own for that window."""
    asked = [("team", rule) for rule in defaults.team_rules if rule.kind == "money"]
    asked += [("key", rule) for rule in defaults.key_rules if rule.kind == "money"]
    if not asked:
        return []
    own = _with_own(await money_limits(connection))
    found = []
    for owner_kind, rule in asked:
        window = _window(rule, now_ms)
        if window is None:
            continue
        values = await spent_of_each(connection, rule.id, window[0])
        owners = await owners_of(connection, owner_kind, sorted(values))
        for owner_id, owner in sorted(owners.items()):
            if (owner_id, rule.window) not in own:
                budget_id = f"{rule.id}:{owner_id}"
                found.append(BudgetNow(rule=rule, owner=owner, window=window, budget_id=budget_id))
    return found


def _as_refused(budget: BudgetNow) -> RefusingBudget:
    """As refusals name it: that is what the data plane calls it (``app.limits.policy``)."""
    rule, owner = budget.rule, budget.owner
    scope, scope_id = ("team", owner.team_id) if owner.key_id is None else ("key", owner.key_id)
    if rule.tag_name is not None:
        scope, scope_id = "tag", f"{rule.tag_name}={rule.tag_value or budget.tag_value}"
    elif rule.model is not None:
        scope, scope_id = f"{scope}_model", f"{scope_id}/{rule.model}"
    return RefusingBudget(owner.team_id, scope, scope_id, limit_name(rule.kind, rule.window), rule.maximum)


def _with_own(limits: Iterable[MoneyLimit]) -> set[tuple[str, str]]:
    """Whose plain budgets take the place of the file's: (team or key id, window)."""
    return {(each.key_id or each.team_id, each.rule.window) for each in limits if is_plain(each.rule)}


def _window(rule: LimitRule, now_ms: int) -> tuple[int, int] | None:
    try:
        return window_of(cast("CalendarWindow", rule.window), rule.time_zone, now_ms)
    except ValueError:
        # A zone that this machine does not know.
        return None


# -- the others -------------------------------------------------------------------------------


async def _velocities(
    connection: AsyncConnection, rules: Sequence[AlertRule], firing: Sequence[Alert], now_ms: int
) -> Readings:
    said = {rule.id: cast("VelocityParameters", parameters_of("spend.velocity", rule.parameters)) for rule in rules}
    firing_of = {(alert.rule_id, alert.subject): alert for alert in firing if alert.rule_id in said}
    # Only whose last quarters are dear enough is looked at more closely.
    from_ms = quarter_of(now_ms - ADMITTED_MS)
    least = min(parameters.minimum_nanousd for parameters in said.values())
    watched = sorted({subject for _, subject in firing_of})
    found: list[tuple[Spender, int]] = []
    for spender in await recent_spenders(connection, from_ms, least, watched):
        spent = await spent_since(connection, spender.key_id, now_ms - TEN_MINUTES_MS, from_ms)
        busiest = await busiest_quarter(connection, spender.key_id, now_ms - WEEK_MS, from_ms)
        found.append((spender._replace(nanousd=spent), busiest))
    return {
        rule.id: [
            velocity_reading(said[rule.id], spender, busiest, firing_of.get((rule.id, spender.key_id)), now_ms)
            for spender, busiest in found
            if rule.team_id in {None, spender.team_id}
        ]
        for rule in rules
    }


async def _upstreams(connection: AsyncConnection, rules: Sequence[AlertRule], now_ms: int) -> Readings:
    sights = await find_sights(connection, SIGHT_MS)
    said = {rule.id: cast("UpstreamParameters", parameters_of("upstream.down", rule.parameters)) for rule in rules}
    least = min(max(1, parameters.failed_percent // 2) for parameters in said.values())
    sums = await failing_upstreams(connection, quarter_of(now_ms - TEN_MINUTES_MS), REQUESTS_MIN)
    # What failed by its own fault is in these sums as well; only where much failed is it told apart.
    failing = [
        await failures_of(connection, each.upstream, now_ms - TEN_MINUTES_MS)
        for each in sums
        if each.failed * 100 >= each.requests * least
    ]
    return {
        rule_id: _worst_of_each(
            [failing_reading(parameters, each, REQUESTS_MIN) for each in failing]
            + [unreachable_reading(parameters, sight, now_ms) for sight in sights]
        )
        for rule_id, parameters in said.items()
    }


def _worst_of_each(readings: Iterable[Reading]) -> list[Reading]:
    """One for each subject: the worst, and of equals the last."""
    worst: dict[str, Reading] = {}
    for reading in readings:
        known = worst.get(reading.subject)
        if known is None or (reading.level, reading.holds) >= (known.level, known.holds):
            worst[reading.subject] = reading
    return list(worst.values())


async def _expiries(connection: AsyncConnection, rules: Sequence[AlertRule], now_ms: int) -> Readings:
    said = {rule.id: cast("ExpiryParameters", parameters_of("key.expiring", rule.parameters)) for rule in rules}
    most = max(max(parameters.days) for parameters in said.values())
    ends = await keys_ending(connection, now_ms, now_ms + most * DAY_MS + EXPIRY_SLACK_MS)
    return {
        rule.id: _known(
            expiry_reading(said[rule.id], end, now_ms) for end in ends if rule.team_id in {None, end.team_id}
        )
        for rule in rules
    }


def _known(readings: Iterable[Reading | None]) -> list[Reading]:
    return [reading for reading in readings if reading is not None]
