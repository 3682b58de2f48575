"""Fine-tuned models: each was made by a team's job, from a team's files, and all lie in one account upstream.

One is the team's that made it, and of those to whom the administrator gave it: by a rule of the configuration that
names it (an alias, or a pattern that begins with ``ft:``), by such a pattern among a key's models, or by
``shared_objects``. A pattern for any model gives none away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from app.auth.ownership import Ownership
from app.auth.references import Reference
from app.catalog import Catalog
from app.core.identity import Principal
from app.core.patterns import matches_any

PREFIX = "ft:"


class FineTuned:
    """Tells whose such models are, for one configuration."""

    def __init__(self, catalog: Catalog, ownership: Ownership, shared: Collection[str]) -> None:
        """``shared``: the objects that every team may name."""
        self._catalog = catalog
        self._ownership = ownership
        self._shared = shared

    def __repr__(self) -> str:
        return f"FineTuned(shared={len(self._shared)})"

    def references(self, principal: Principal, model: str) -> list[Reference]:
        """What has to be the team's, where ``model`` is asked for."""
        return [] if self._is_given(principal, model) else [Reference(model, "model")]

    async def visible(self, principal: Principal, models: Iterable[str]) -> frozenset[str]:
        """Those of ``models`` that the team may know of. Raises LedgerUnavailable."""
        given = {model: self._is_given(principal, model) or model in self._shared for model in models}
        others = [model for model, is_given in given.items() if not is_given]
        own = await self._ownership.those_of(principal.team_id, others) if others else frozenset()
        return frozenset(model for model, is_given in given.items() if is_given) | own

    def _is_given(self, principal: Principal, model: str) -> bool:
        if not model.startswith(PREFIX) or self._catalog.names_with(model, PREFIX):
            return True
        named = [pattern for pattern in principal.models or () if pattern.startswith(PREFIX)]
        return bool(named) and matches_any(named, model)
