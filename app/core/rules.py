"""Rules about limits: what a rule may say, what it is called, where it is counted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from app.core.calendar import zone_of
from app.core.errors import InvalidRequest
from app.core.identity import WINDOWS_OF_KIND, LimitKind, LimitRule, LimitWindow
from app.core.money import usd_text
from app.core.patterns import check_pattern
from app.core.tags import tags_of

COUNT_MAX = 10**15
BUDGET_NANOUSD_MAX = 9 * 10**15
"""Nine million dollars: sums up to it are exact in the doubles of Lua."""

_DEFAULT_BUDGET = re.compile(r"default\.(key|team)\.budget_usd_(?:per_)?(day|week|month|total)\.([^:]+):(.+)\Z")


def check_rule(rule: LimitRule) -> None:
    """Raises ValueError, with a sentence for whoever set it, where ``rule`` cannot be counted."""
    windows = WINDOWS_OF_KIND[rule.kind]
    if rule.window not in windows:
        told = "has no window" if windows == ("",) else f"is per {', '.join(windows)}"
        raise ValueError(f"a limit on {rule.kind} {told}")
    most = BUDGET_NANOUSD_MAX if rule.kind == "money" else COUNT_MAX
    if not 0 <= rule.maximum <= most:
        shown = f"${usd_text(most)}" if rule.kind == "money" else str(most)
        raise ValueError(f"a limit on {rule.kind} is between 0 and {shown}")
    if rule.model is not None:
        check_pattern(rule.model)
    if rule.tag_name is None and rule.tag_value is not None:
        raise ValueError("a tag's value needs its name")
    if rule.tag_name is not None and not _is_tag(rule.tag_name, "any" if rule.tag_value is None else rule.tag_value):
        raise ValueError("a tag is NAME or NAME=VALUE as in x-headgate-tags")
    zone_of(rule.time_zone)


def _is_tag(name: str, value: str) -> bool:
    try:
        return tags_of(f"{name}={value}".encode("latin-1")) == {name: value}
    except (InvalidRequest, UnicodeEncodeError):
        return False


def limit_name(kind: LimitKind, window: LimitWindow) -> str:
    """What a limit is called towards people and clients: ``tokens_per_hour``, ``budget_usd_per_month``."""
    what = "budget_usd" if kind == "money" else kind
    if not window:
        return what
    return f"{what}_{window}" if window == "total" else f"{what}_per_{window}"


def is_plain(rule: LimitRule) -> bool:
    """Whether ``rule`` counts every request of its owner. There is one of a kind and window at most."""
    return rule.model is None and rule.tag_name is None


def in_order(rules: Iterable[LimitRule]) -> tuple[LimitRule, ...]:
    """``rules`` as they are always listed: requests, tokens, concurrency, money; short windows first."""
    return tuple(sorted(rules, key=_place))


def _place(rule: LimitRule) -> tuple[int, int, str, str, str, str]:
    kinds = tuple(WINDOWS_OF_KIND)
    narrowed = (rule.model or "", rule.tag_name or "", rule.tag_value or "")
    return kinds.index(rule.kind), WINDOWS_OF_KIND[rule.kind].index(rule.window), *narrowed, rule.id


def default_id(owner: Literal["key", "team"], kind: LimitKind, window: LimitWindow, time_zone: str) -> str:
    """The id of a default from the configuration file. A budget's says all that makes its windows, since
    money that was counted under it is found by it later.
    """
    name = f"default.{owner}.{limit_name(kind, window)}"
    return f"{name}.{time_zone}" if kind == "money" else name


class DefaultBudget(msgspec.Struct, frozen=True):
    """What the id of a budget that comes from the configuration file says about itself."""

    owner: Literal["key", "team"]
    owner_id: str
    window: Literal["day", "week", "month", "total"]
    time_zone: str


def default_budget_of(budget_id: str) -> DefaultBudget | None:
    """The default in a budget id, ``default.key.budget_usd_per_month.UTC:KEY``; None for a rule in the ledger."""
    found = _DEFAULT_BUDGET.match(budget_id)
    if found is None:
        return None
    owner, window, time_zone, owner_id = found.groups()
    return msgspec.convert(
        {"owner": owner, "owner_id": owner_id, "window": window, "time_zone": time_zone}, DefaultBudget
    )
