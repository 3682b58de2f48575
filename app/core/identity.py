"""Who is asking, as the data plane sees it."""

from __future__ import annotations

from typing import Literal

import msgspec

LimitKind = Literal["requests", "tokens", "concurrency", "money"]
LimitWindow = Literal["", "minute", "hour", "day", "week", "month", "total"]
LimitPolicy = Literal["strict", "protective"]
LimitMode = Literal["enforce", "observe"]
BoundPolicy = Literal["maximum", "estimate"]
CacheScope = Literal["team", "key", "global"]
CacheMode = Literal["off", "shadow", "deterministic", "all"]

WINDOWS_OF_KIND: dict[LimitKind, tuple[LimitWindow, ...]] = {
    "requests": ("minute", "hour", "day"),
    "tokens": ("minute", "hour", "day"),
    "concurrency": ("",),
    "money": ("day", "week", "month", "total"),
}
"""Requests and tokens have sliding windows; money has windows of the calendar, or none that ends."""


class LimitRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """One limit that was set on a team or a key: at most ``maximum`` (nano-dollars for money) per window.

    ``model`` (a pattern of what is asked for) and ``tag`` (name and value) narrow what it counts; a tag
    without a value counts each value on its own. ``time_zone`` says when days, weeks (from Monday) and
    months of money begin. ``strict``: where the store of limits is away requests are refused;
    ``protective``: they go on under a local share. ``observe`` counts and refuses nothing. ``bound``: how
    much of a budget a request holds while it runs, the most that it can cost or what is likely.
    """

    id: str
    kind: LimitKind
    maximum: int
    window: LimitWindow = ""
    model: str | None = None
    tag_name: str | None = None
    tag_value: str | None = None
    time_zone: str = "UTC"
    policy: LimitPolicy = "strict"
    mode: LimitMode = "enforce"
    bound: BoundPolicy = "maximum"


class Principal(msgspec.Struct, frozen=True, eq=False):
    """One secret of a live key, with all that its requests need. Compared by identity.

    ``models`` are None where everything is allowed, ``endpoints`` where neither the key nor its team was given any, so
    that it has those that are on by default, ``cache`` where nothing is set on the key. ``tags`` are the key's own:
    every request of it has them.
    """

    team_id: str
    team_name: str
    key_id: str
    key_name: str
    secret_id: str
    key_limits: tuple[LimitRule, ...]
    team_limits: tuple[LimitRule, ...]
    models: tuple[str, ...] | None = None
    endpoints: tuple[str, ...] | None = None
    expires_at_ms: int | None = None
    cache: CacheMode | None = None
    tags: dict[str, str] = {}
