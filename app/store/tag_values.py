"""Which tags have sums of their own: so many names a month (of UTC), so many values of each, as they come.

What comes after counts under ``_other`` of its name; a name that comes after has no sums, only its records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.store import statements
from app.store.steps import Ask, Steps

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES_MAX = 40
VALUES_MAX = 200
OTHER = "_other"
NAME_ROW = ""
"""The value that says of a name that it has sums; no tag has it."""


class Registry:
    """The names and values that have sums, by month."""

    __slots__ = ("_months",)

    def __init__(self, rows: Iterable[tuple[int, str, str]] = ()) -> None:
        self._months: dict[int, dict[str, set[str]]] = {}
        for month, name, value in rows:
            values = self._months.setdefault(month, {}).setdefault(name, set())
            if value != NAME_ROW:
                values.add(value)

    def __repr__(self) -> str:
        return f"Registry(months={len(self._months)})"

    def value_of(self, month: int, name: str, value: str) -> str | None:
        """The value under which it counts, None where its name has no sums."""
        values = self._months.get(month, {}).get(name)
        if values is None:
            return None
        return value if value in values else OTHER

    def may_hide(self, month: int, name: str, value: str | None = None) -> bool:
        """Whether requests of a month may have this name, or this value of it, without being found by it."""
        names = self._months.get(month, {})
        if name not in names:
            return len(names) >= NAMES_MAX
        values = names[name]
        return value is not None and value not in values and len(values) >= VALUES_MAX

    def take(self, month: int, name: str, value: str) -> list[tuple[int, str, str]]:
        """Makes room for a value where there is some; the rows that are new then."""
        names = self._months.setdefault(month, {})
        new: list[tuple[int, str, str]] = []
        if name not in names:
            if len(names) >= NAMES_MAX:
                return []
            names[name] = set()
            new.append((month, name, NAME_ROW))
        if value not in names[name] and len(names[name]) < VALUES_MAX:
            names[name].add(value)
            new.append((month, name, value))
        return new


def register(wanted: Iterable[tuple[int, str, str]]) -> Steps[Registry]:
    """The registry of the months of ``wanted`` (month, name, value), with what it had room for of these."""
    found = sorted(set(wanted))
    months = [(month,) for month in sorted({month for month, _, _ in found})]
    registry = Registry((yield Ask(statements.TAG_VALUES_OF, months)) if months else ())
    if not _new(registry, found):
        return registry
    # Only one at a time makes room, and reads after it may: what was once counted as another stays so.
    yield Ask(statements.TAG_VALUES_LOCKED, [()])
    registry = Registry((yield Ask(statements.TAG_VALUES_OF, months)))
    new = _new(registry, found)
    if new:
        yield Ask(statements.TAG_VALUES, sorted(new))
    return registry


def _new(registry: Registry, wanted: Iterable[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    return [row for month, name, value in wanted for row in registry.take(month, name, value)]
