"""Which limits bind a request: those of its key and its team, those for its model and its tags, and those
that protect its upstream.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal

import msgspec

from app.core.identity import LimitKind, LimitRule, LimitWindow, Principal
from app.core.patterns import compile_pattern
from app.core.rules import is_plain, limit_name
from app.limits.limiter import MAXIMUM_MAX, Limit, Scope
from app.settings import UpstreamLimits

PRINCIPALS_MAX = 8192
TAG_VALUES_PER_TEAM_MAX = 1000
OTHER_VALUES = "_other"
"""A client may write what it likes into a tag: the values beyond those of a team share one counter."""

WINDOWS_MS: dict[LimitWindow, int] = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}

Owner = Literal["key", "team"]


class Narrow(msgspec.Struct, frozen=True):
    """A limit that counts some requests of its owner only. ``each_value``: of its tag, each on its own."""

    limit: Limit
    model: re.Pattern[str] | None
    tag_name: str | None
    tag_value: str | None
    each_value: bool
    team_id: str

    def counts(self, model: str, tags: Mapping[str, str]) -> bool:
        if self.model is not None and self.model.fullmatch(model) is None:
            return False
        if self.tag_name is None:
            return True
        value = tags.get(self.tag_name)
        return value is not None and (self.each_value or value == self.tag_value)


class Bound(msgspec.Struct, frozen=True):
    """All limits that may bind requests of a principal; ``plain`` bind every one."""

    plain: tuple[Limit, ...]
    narrow: tuple[Narrow, ...]


class Policy:
    """The limits of one configuration. A rule set on a key or a team goes before the default of its kind and
    window; rules for a model or a tag come on top of those that count everything.
    """

    def __init__(
        self,
        key_defaults: tuple[LimitRule, ...] = (),
        team_defaults: tuple[LimitRule, ...] = (),
        known_values: dict[str, set[tuple[str, str]]] | None = None,
    ) -> None:
        """``known_values``: the tags that have been counted so far by team, which the policy goes on to fill."""
        self._defaults: dict[Owner, tuple[LimitRule, ...]] = {"key": key_defaults, "team": team_defaults}
        # Kept per principal: one is compared by identity, and a changed key or team makes a new one.
        self._bound_of = lru_cache(maxsize=PRINCIPALS_MAX)(self._bound)
        self._of_value = lru_cache(maxsize=PRINCIPALS_MAX)(_of_value)
        self._values = {} if known_values is None else known_values

    def __repr__(self) -> str:
        return f"Policy(defaults={sum(map(len, self._defaults.values()))}, teams_with_tags={len(self._values)})"

    def bind(self, principal: Principal, model: str, tags: Mapping[str, str]) -> tuple[Limit, ...]:
        """The limits on a request for ``model``: those of the key, then those of the team, then narrower ones."""
        bound = self._bound_of(principal)
        if not bound.narrow:
            return bound.plain
        return (*bound.plain, *(self._limit_of(rule, tags) for rule in bound.narrow if rule.counts(model, tags)))

    def _limit_of(self, rule: Narrow, tags: Mapping[str, str]) -> Limit:
        if not rule.each_value or rule.tag_name is None:
            return rule.limit
        return self._of_value(rule.limit, self._known_value(rule.team_id, rule.tag_name, tags[rule.tag_name]))

    def _known_value(self, team_id: str, name: str, value: str) -> str:
        known = self._values.setdefault(team_id, set())
        if (name, value) not in known:
            if len(known) >= TAG_VALUES_PER_TEAM_MAX:
                return OTHER_VALUES
            known.add((name, value))
        return value

    def _bound(self, principal: Principal) -> Bound:
        owners: tuple[tuple[Owner, str, tuple[LimitRule, ...]], ...] = (
            ("key", principal.key_id, principal.key_limits),
            ("team", principal.team_id, principal.team_limits),
        )
        plain: list[Limit] = []
        narrow: list[Narrow] = []
        for owner, owner_id, own in owners:
            plain += [limit_for(rule, owner, owner_id, rule.id) for rule in own if is_plain(rule)]
            plain += [
                limit_for(rule, owner, owner_id, f"{rule.id}:{owner_id}")
                for rule in defaults_left(own, self._defaults[owner])
            ]
            narrow += [_narrow(rule, owner, owner_id, principal.team_id) for rule in own if not is_plain(rule)]
        return Bound(tuple(plain), tuple(narrow))


def defaults_left(own: Iterable[LimitRule], defaults: Iterable[LimitRule]) -> list[LimitRule]:
    """Those of ``defaults`` before which no rule of ``own`` goes."""
    set_here = {(rule.kind, rule.window) for rule in own if is_plain(rule)}
    return [rule for rule in defaults if (rule.kind, rule.window) not in set_here]


def upstream_limits(name: str, settings: UpstreamLimits) -> tuple[Limit, ...]:
    """What protects the upstream ``name``, whoever asks."""
    maxima: tuple[tuple[LimitKind, LimitWindow, int | None], ...] = (
        ("requests", "minute", settings.requests_per_minute),
        ("tokens", "minute", settings.tokens_per_minute),
        ("concurrency", "", settings.concurrency),
    )
    rules = [
        LimitRule(limit_name(kind, window), kind, maximum, window, policy=settings.policy, mode=settings.mode)
        for kind, window, maximum in maxima
        if maximum is not None
    ]
    return tuple(limit_for(rule, "upstream", name, rule.id) for rule in rules)


def _narrow(rule: LimitRule, owner: Owner, owner_id: str, team_id: str) -> Narrow:
    scope: Scope = "key_model" if owner == "key" else "team_model"
    scope_id = f"{owner_id}/{rule.model}"
    if rule.tag_name is not None:
        scope = "tag"
        scope_id = rule.tag_name if rule.tag_value is None else f"{rule.tag_name}={rule.tag_value}"
    return Narrow(
        limit=limit_for(rule, scope, scope_id, rule.id),
        model=None if rule.model is None else compile_pattern(rule.model),
        tag_name=rule.tag_name,
        tag_value=rule.tag_value,
        each_value=rule.tag_name is not None and rule.tag_value is None,
        team_id=team_id,
    )


def _of_value(limit: Limit, value: str) -> Limit:
    return msgspec.structs.replace(limit, scope_id=f"{limit.scope_id}={value}", counter=f"{limit.counter}:{value}")


def limit_for(rule: LimitRule, scope: Scope, scope_id: str, counter: str) -> Limit:
    """``rule`` as it is counted, at ``counter``."""
    return Limit(
        scope=scope,
        scope_id=scope_id,
        name=limit_name(rule.kind, rule.window),
        kind=rule.kind,
        maximum=min(rule.maximum, MAXIMUM_MAX),
        counter=counter,
        window_ms=0 if rule.kind == "money" else WINDOWS_MS.get(rule.window, 0),
        window=rule.window,
        time_zone=rule.time_zone,
        policy=rule.policy,
        mode=rule.mode,
        bound=rule.bound,
    )
