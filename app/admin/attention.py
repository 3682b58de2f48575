"""What needs a person: at most three things, worst first, each with one verb and where it leads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias
from urllib.parse import quote
from zoneinfo import ZoneInfo

import msgspec

from app.core.money import NANO_PER_USD

ITEMS_MAX = 3
NEAR_PERCENT = 90.0

Level: TypeAlias = Literal["bad", "warn", "unpriced"]
Reader: TypeAlias = Literal["admin", "viewer", "lead"]


class Item(msgspec.Struct, frozen=True):
    """``href`` leads into the console."""

    level: Level
    title: str
    detail: str
    verb: str
    href: str


class BudgetNear(msgspec.Struct, frozen=True):
    """A budget that is spent, or nearly. ``name`` is whose it is."""

    id: str
    name: str
    spent_percent: float
    left_nanousd: int
    is_exhausted: bool
    gone_at_ms: int | None
    window_to_ms: int | None


class UpstreamUnwell(msgspec.Struct, frozen=True):
    """``paused_by`` is the name of who has paused it."""

    name: str
    state: Literal["down", "degraded", "paused"]
    since_ms: int | None
    failed_percent: float | None = None
    paused_by: str = ""


class KeyExpiring(msgspec.Struct, frozen=True):
    id: str
    name: str
    team: str
    expires_at_ms: int


class Unpriced(msgspec.Struct, frozen=True):
    """Requests without a price, and the models that they asked for, those of the most first."""

    requests: int
    models: tuple[str, ...]


def attention(
    budgets: Sequence[BudgetNear],
    upstreams: Sequence[UpstreamUnwell],
    unpriced: Unpriced,
    keys: Sequence[KeyExpiring],
    *,
    reader: Reader,
    zone: ZoneInfo,
    now_ms: int,
) -> list[Item]:
    """Of one kind there is one item: the worst by its name, the others by their number."""
    spent = [each for each in budgets if each.is_exhausted]
    near = sorted(
        (each for each in budgets if not each.is_exhausted and each.spent_percent >= NEAR_PERCENT),
        key=lambda each: -each.spent_percent,
    )
    in_state = {state: [each for each in upstreams if each.state == state] for state in ("down", "degraded", "paused")}
    items = [
        _spent(spent, zone),
        _down(in_state["down"], zone, now_ms),
        _near(near, zone),
        _degraded(in_state["degraded"], now_ms),
        _paused(in_state["paused"], zone, now_ms),
        _unpriced(unpriced, reader),
        _expiring(sorted(keys, key=lambda key: key.expires_at_ms), zone),
    ]
    return [item for item in items if item is not None][:ITEMS_MAX]


def _spent(budgets: Sequence[BudgetNear], zone: ZoneInfo) -> Item | None:
    if not budgets:
        return None
    first = budgets[0]
    until = "" if first.window_to_ms is None else f" until {day_text(first.window_to_ms, zone)}"
    return Item(
        "bad",
        f"{first.name}{_and_more(budgets)} {_has(budgets)} spent {_its(budgets)}",
        f"Calls are refused{until}",
        *_to_budgets(budgets),
    )


def _near(budgets: Sequence[BudgetNear], zone: ZoneInfo) -> Item | None:
    if not budgets:
        return None
    first = budgets[0]
    gone = "" if first.gone_at_ms is None else f", gone by {day_text(first.gone_at_ms, zone)}"
    title = f"{first.name} is at {first.spent_percent:.0f}% of its budget"
    if len(budgets) > 1:
        title = f"{first.name}{_and_more(budgets)} are at more than {NEAR_PERCENT:.0f}% of their budgets"
    return Item("bad", title, f"{dollars(first.left_nanousd)} left{gone}", *_to_budgets(budgets))


def _down(upstreams: Sequence[UpstreamUnwell], zone: ZoneInfo, now_ms: int) -> Item | None:
    if not upstreams:
        return None
    return Item(
        "bad",
        f"{upstreams[0].name}{_and_more(upstreams)} {_is(upstreams)} down",
        f"Cannot be connected to{_since(upstreams[0], zone, now_ms)}",
        *_to_upstreams(upstreams),
    )


def _degraded(upstreams: Sequence[UpstreamUnwell], now_ms: int) -> Item | None:
    if not upstreams:
        return None
    first = upstreams[0]
    minutes = 0 if first.since_ms is None else (now_ms - first.since_ms) // 60_000
    for_time = f" for {minutes} min" if minutes else ""
    failed = "" if first.failed_percent is None else f"{first.failed_percent:.1f}% failed{for_time}"
    return Item(
        "warn", f"{first.name}{_and_more(upstreams)} {_is(upstreams)} degraded", failed, *_to_upstreams(upstreams)
    )


def _paused(upstreams: Sequence[UpstreamUnwell], zone: ZoneInfo, now_ms: int) -> Item | None:
    if not upstreams:
        return None
    first = upstreams[0]
    return Item(
        "warn",
        f"{first.name}{_and_more(upstreams)} {_is(upstreams)} paused",
        f"Nothing new is sent there{_since(first, zone, now_ms)}, by {first.paused_by}",
        *_to_upstreams(upstreams),
    )


def _unpriced(unpriced: Unpriced, reader: Reader) -> Item | None:
    if unpriced.requests <= 0:
        return None
    verb, href = {
        "admin": ("Set a price", "/console/prices"),
        "viewer": ("Open prices", "/console/prices"),
        "lead": ("Open models", "/console/explore?by=model"),
    }[reader]
    have = "1 request has" if unpriced.requests == 1 else f"{unpriced.requests:,} requests have"
    named = ", ".join(unpriced.models[:2])
    more = f" and {len(unpriced.models) - 2} more" if len(unpriced.models) > 2 else ""
    return Item("unpriced", f"{have} no price", f"{named}{more}, not in any total here", verb, href)


def _expiring(keys: Sequence[KeyExpiring], zone: ZoneInfo) -> Item | None:
    if not keys:
        return None
    first = keys[0]
    detail = f"Of team {first.team}, on {day_text(first.expires_at_ms, zone)}"
    if len(keys) > 1:
        return Item(
            "warn", f"{first.name}{_and_more(keys)} expire soon", detail, "Open keys", "/console/keys?state=expiring"
        )
    return Item(
        "warn", f"{first.name} expires soon", detail, "Open key", f"/console/keys?open={quote(first.id, safe='')}"
    )


def _since(upstream: UpstreamUnwell, zone: ZoneInfo, now_ms: int) -> str:
    return "" if upstream.since_ms is None else f" since {time_text(upstream.since_ms, zone, now_ms)}"


def _to_budgets(budgets: Sequence[BudgetNear]) -> tuple[str, str]:
    if len(budgets) > 1:
        return "Open budgets", "/console/budgets"
    return "Open budget", f"/console/budgets?open={quote(budgets[0].id, safe='')}"


def _to_upstreams(upstreams: Sequence[UpstreamUnwell]) -> tuple[str, str]:
    if len(upstreams) > 1:
        return "Open upstreams", "/console/upstreams"
    return "Open upstream", f"/console/upstreams?open={quote(upstreams[0].name, safe='')}"


def _and_more(things: Sequence[object]) -> str:
    return f" and {len(things) - 1} more" if len(things) > 1 else ""


def _is(things: Sequence[object]) -> str:
    return "are" if len(things) > 1 else "is"


def _has(things: Sequence[object]) -> str:
    return "have" if len(things) > 1 else "has"


def _its(things: Sequence[object]) -> str:
    return "their budgets" if len(things) > 1 else "its budget"


# -- texts ------------------------------------------------------------------------------------


def dollars(nanousd: int) -> str:
    """``$1,841.37``; what is less than a cent and more than nothing is "under $0.01"."""
    if 0 < nanousd < NANO_PER_USD // 100:
        return "under $0.01"
    cents = nanousd * 100 // NANO_PER_USD
    return f"${cents // 100:,}.{cents % 100:02d}"


def day_text(at_ms: int, zone: ZoneInfo) -> str:
    """``Thu 26 Nov``."""
    at = datetime.fromtimestamp(at_ms / 1000, zone)
    return f"{at:%a} {at.day} {at:%b}"


def time_text(at_ms: int, zone: ZoneInfo, now_ms: int) -> str:
    """``16:18``, with its day where that is another."""
    at, now = datetime.fromtimestamp(at_ms / 1000, zone), datetime.fromtimestamp(now_ms / 1000, zone)
    return f"{at:%H:%M}" if at.date() == now.date() else f"{day_text(at_ms, zone)}, {at:%H:%M}"
