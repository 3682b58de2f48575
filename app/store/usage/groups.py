"""Sums by group, as rows of several pieces are added up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Key: TypeAlias = tuple[str, ...]
Groups: TypeAlias = dict[Key, list[int]]
"""The period as people read it if there is one, then what it is grouped by, and the sums of each."""


def take_in(groups: Groups, rows: Iterable[Sequence[Any]], width: int, text: Callable[[int], str] | None) -> None:
    """Adds rows of ``width`` columns that they are grouped by, the first of them the number of a period where there
    is a ``text`` for it, and sums.
    """
    texts: dict[int, str] = {}
    for row in rows:
        key = row[:width]
        if text is not None:
            number = key[0]
            told = texts.get(number)
            if told is None:
                told = texts[number] = text(number)
            key = (told, *key[1:])
        add(groups, tuple(key), row[width:])


def add(groups: Groups, key: Key, sums: Sequence[int], sign: int = 1) -> None:
    """Adds sums to a group, or takes them away from it."""
    kept = groups.get(key)
    if kept is None:
        groups[key] = [sign * value for value in sums] if sign < 0 else list(sums)
        return
    for position, value in enumerate(sums):
        kept[position] += sign * value


def without_nothing(groups: Groups) -> Groups:
    """The groups in which there is something."""
    return {key: sums for key, sums in groups.items() if any(sums)}
