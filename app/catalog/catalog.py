"""Models to targets: compiled once from the configuration, then only looked up."""

from __future__ import annotations

import random
import re

import msgspec

from app.core.errors import ModelNotFound, quoted
from app.core.patterns import compile_pattern, is_literal
from app.settings import Configuration, ModelCache, ModelRule

MODEL_CHARS_MAX = 256
RESOLVED_MAX = 4096


class Route(msgspec.Struct, frozen=True):
    """One place that serves a model: the upstream's name, and the model's name there."""

    upstream: str
    model: str
    weight: int = 1
    priority: int = 0


class Catalog:
    """Resolves a model's name to its routes. Frozen: a changed configuration makes a new one."""

    def __init__(self, configuration: Configuration, *, off: frozenset[str] = frozenset()) -> None:
        """``off`` names the upstreams that are configured but cannot be used (they have no key)."""
        self._rules = configuration.models
        self._patterns: list[tuple[re.Pattern[str], ModelRule]] = [
            (
                compile_pattern(rule.match) if rule.match is not None else re.compile(re.escape(rule.name or "")),
                rule,
            )
            for rule in configuration.models
        ]
        self._off = off
        self._resolved: dict[str, tuple[Route, ...]] = {}

    def __repr__(self) -> str:
        return f"Catalog(rules={len(self._rules)}, off={sorted(self._off)})"

    def resolve(self, model: str) -> tuple[Route, ...]:
        """The routes of ``model``: by priority, the heaviest first. Raises ModelNotFound."""
        found = self._resolved.get(model)
        if found is not None:
            return found
        routes = self._find(model)
        if len(self._resolved) >= RESOLVED_MAX:
            # Names are clients' text: start afresh rather than grow.
            self._resolved.clear()
        self._resolved[model] = routes
        return routes

    def _find(self, model: str) -> tuple[Route, ...]:
        if not model or len(model) > MODEL_CHARS_MAX or not model.isprintable():
            raise ModelNotFound(f"The model {quoted(model)!r} does not exist.", param="model")
        for pattern, rule in self._patterns:
            if pattern.fullmatch(model) is None:
                continue
            targets = [target for target in rule.all_targets if target.upstream not in self._off]
            if not targets:
                name = rule.all_targets[0].upstream
                raise ModelNotFound(
                    f"The model {quoted(model)!r} belongs to the upstream {name!r}, which has no key here.",
                    param="model",
                )
            return tuple(
                Route(target.upstream, target.model or model, target.weight, target.priority)
                for target in sorted(targets, key=lambda target: (target.priority, -target.weight))
            )
        raise ModelNotFound(f"The model {quoted(model)!r} does not exist.", param="model")

    def names_with(self, model: str, prefix: str) -> bool:
        """Whether the rule that serves ``model`` names it: as it is, or by a pattern that begins with ``prefix``."""
        for pattern, rule in self._patterns:
            if pattern.fullmatch(model) is not None:
                return rule.name is not None or (rule.match or "").startswith(prefix)
        return False

    def cache_of(self, model: str) -> ModelCache | None:
        """What the configuration says of the cache for ``model``; None where it says nothing of its own."""
        for pattern, rule in self._patterns:
            if pattern.fullmatch(model) is not None:
                return rule.cache
        return None

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The literal names that the configuration gives, each with its first usable upstream."""
        named = []
        for rule in self._rules:
            text = rule.name if rule.name is not None else rule.match or ""
            usable = [target.upstream for target in rule.all_targets if target.upstream not in self._off]
            if usable and (rule.name is not None or is_literal(text)):
                named.append((text, usable[0]))
        return tuple(named)

    @property
    def listed_upstreams(self) -> tuple[str, ...]:
        """The upstreams that patterns lead to: their own lists say which names those are."""
        names: dict[str, None] = {}
        for rule in self._rules:
            if rule.match is not None and not is_literal(rule.match):
                names.update((target.upstream, None) for target in rule.all_targets if target.upstream not in self._off)
        return tuple(names)


def choose(routes: tuple[Route, ...], *, besides: Route | None = None) -> Route | None:
    """One of ``routes`` by weight among those of the lowest priority; not ``besides``, where there is another."""
    candidates = [route for route in routes if route is not besides] or list(routes)
    if not candidates:
        return None
    if len(candidates) > 1:
        first = min(route.priority for route in candidates)
        candidates = [route for route in candidates if route.priority == first]
    if len(candidates) == 1:
        return candidates[0]
    return random.choices(candidates, weights=[route.weight for route in candidates])[0]  # noqa: S311 - balancing
