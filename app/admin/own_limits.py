"""What a key has left before calls are refused: its own limits and those of its team."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import msgspec

from app.admin.standings import BudgetStands, percent_of, stand_budgets
from app.admin.wire import Tools
from app.core.identity import LimitRule, Principal
from app.core.money import usd_text
from app.limits.limiter import Limit
from app.limits.policy import defaults_left, limit_for
from app.settings import Configuration
from app.store.explanations import iso_time
from app.store.rows import LimitRow
from app.store.spending import counts_each_value

OwnScope: TypeAlias = Literal["key", "team"]


class OwnRule(msgspec.Struct, frozen=True):
    """A rule that binds a key, and under which name it is counted."""

    scope: OwnScope
    rule: LimitRule
    counter: str

    @property
    def is_hidden(self) -> bool:
        """Which values of a tag a team's other keys use is not for this key to see."""
        return counts_each_value(self.rule) and (self.scope == "team" or self.rule.kind != "money")


class OwnStanding(msgspec.Struct, frozen=True):
    """``used`` is None where it is not known; money in nano-dollars."""

    own: OwnRule
    used: int | None
    resets_at_ms: int | None
    stands: BudgetStands | None = None

    @property
    def used_percent(self) -> float:
        return -1.0 if self.used is None else percent_of(self.used, self.own.rule.maximum)


def rules_of(principal: Principal, configuration: Configuration) -> list[OwnRule]:
    """Those of the key, then those of the team, with the configuration's where there is none of their own."""
    return [
        *_rules_of("key", principal.key_id, principal.key_limits, configuration.limits.key_rules),
        *_rules_of("team", principal.team_id, principal.team_limits, configuration.limits.team_rules),
    ]


def _rules_of(
    scope: OwnScope, owner_id: str, own: tuple[LimitRule, ...], defaults: tuple[LimitRule, ...]
) -> Iterator[OwnRule]:
    for rule in own:
        yield OwnRule(scope, rule, rule.id)
    for rule in defaults_left(own, defaults):
        yield OwnRule(scope, rule, f"{rule.id}:{owner_id}")


async def own_limits(tools: Tools, principal: Principal) -> list[dict[str, Any]]:
    """As JSON tells them, tightest first. Raises StoreError."""
    now_ms = tools.clock.now_ms()
    rules = rules_of(principal, tools.in_force().configuration)
    standings = [
        *await _counted(tools, principal, [own for own in rules if own.rule.kind != "money"], now_ms),
        *await _spent(tools, principal, [own for own in rules if own.rule.kind == "money"], now_ms),
    ]
    return [_data(each) for each in sorted(standings, key=lambda each: -each.used_percent)]


async def _counted(tools: Tools, principal: Principal, rules: list[OwnRule], now_ms: int) -> list[OwnStanding]:
    """Requests, tokens and calls at once, as the limiter counts them at this moment; asking takes nothing."""
    known = [own for own in rules if not own.is_hidden]
    asked = tuple(_limit_of(own, principal) for own in known)
    counts = await tools.peek(principal.team_id, asked) if asked else ()
    found = [OwnStanding(own, None, None) for own in rules if own.is_hidden]
    if counts is None:
        return [*found, *(OwnStanding(own, None, None) for own in known)]
    for own, (held, reset_ms) in zip(known, counts, strict=True):
        # When running calls end nobody knows. Windows end with a second, and the limiter looked a moment later.
        is_sliding = own.rule.kind != "concurrency"
        resets_at_ms = -(-(now_ms + reset_ms) // 1000) * 1000
        found.append(OwnStanding(own, max(held, 0), resets_at_ms if is_sliding and reset_ms else None))
    return found


def _limit_of(own: OwnRule, principal: Principal) -> Limit:
    owner_id = principal.key_id if own.scope == "key" else principal.team_id
    return limit_for(own.rule, own.scope, owner_id, own.counter)


async def _spent(tools: Tools, principal: Principal, rules: list[OwnRule], now_ms: int) -> list[OwnStanding]:
    """Money, as the ledger has it: what is settled, without what running calls hold."""
    known = [own for own in rules if not own.is_hidden]
    rows = [
        LimitRow(
            msgspec.structs.replace(own.rule, id=own.counter),
            principal.team_id,
            principal.key_id if own.scope == "key" else None,
            # When the rule was made is not known here: what it does not count yet, the bill tells.
            created_at_ms=now_ms,
        )
        for own in known
    ]
    async with tools.database.read() as connection:
        stands = await stand_budgets(connection, rows, now_ms)
    return [
        *(OwnStanding(own, None, None) for own in rules if own.is_hidden),
        *(OwnStanding(own, each.spent_nanousd, each.end_ms, each) for own, each in zip(known, stands, strict=True)),
    ]


def _data(standing: OwnStanding) -> dict[str, Any]:
    own, rule, stands = standing.own, standing.own.rule, standing.stands
    is_money = rule.kind == "money"
    used = standing.used
    left = None if used is None else max(0, rule.maximum - used)
    forecast = None if stands is None else stands.forecast_nanousd
    return {
        "scope": own.scope,
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
        "is_default": own.counter != rule.id,
        "used": None if is_money else used,
        "used_usd": usd_text(used) if is_money and used is not None else None,
        "left": None if is_money else left,
        "left_usd": usd_text(left) if is_money and left is not None else None,
        "used_percent": None if used is None else standing.used_percent,
        "resets_at": iso_time(standing.resets_at_ms),
        "forecast_usd": None if forecast is None else usd_text(forecast),
        "exhausted_at": None if stands is None else iso_time(stands.exhausted_at_ms),
    }
