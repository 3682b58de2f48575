"""Sums by group, as rows of several pieces are added up. Tens of thousands of rows are nothing unusual here."""

from __future__ import annotations

from heapq import nlargest, nsmallest
from operator import add as plus
from operator import sub as minus
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Key: TypeAlias = tuple[str, ...]
Groups: TypeAlias = "dict[Key, Sequence[int]]"
"""The period as people read it if there is one, then what it is grouped by, and the sums of each."""


def take_in(groups: Groups, rows: Iterable[tuple[Any, ...]], width: int, text: Callable[[int], str] | None) -> None:
    """Adds rows of ``width`` columns that they are grouped by, the first of them the number of a period where there
    is a ``text`` for it, and sums.
    """
    texts: dict[int, tuple[str]] = {}
    for row in rows:
        if text is None:
            key = row[:width]
        else:
            number = row[0]
            told = texts.get(number)
            if told is None:
                told = texts[number] = (text(number),)
            key = told + row[1:width]
        if key in groups:
            groups[key] = tuple(map(plus, groups[key], row[width:]))
        else:
            groups[key] = row[width:]


def add(groups: Groups, key: Key, sums: Sequence[int]) -> None:
    """Adds sums to a group."""
    groups[key] = tuple(map(plus, groups[key], sums)) if key in groups else sums


def take_away(groups: Groups, key: Key, sums: Sequence[int]) -> None:
    """Takes sums away from a group."""
    groups[key] = tuple(map(minus, groups[key], sums)) if key in groups else tuple(-value for value in sums)


def without_nothing(groups: Groups) -> Groups:
    """The groups in which there is something."""
    return {key: sums for key, sums in groups.items() if any(sums)}


def with_most(groups: Groups, place: int, count: int, *, is_falling: bool) -> Groups:
    """The ``count`` groups with the most (or least) of the sum at ``place``, and those that are level with the last."""
    if len(groups) <= count:
        return groups
    values = (sums[place] for sums in groups.values())
    if is_falling:
        least = nlargest(count, values)[-1]
        return {key: sums for key, sums in groups.items() if sums[place] >= least}
    most = nsmallest(count, values)[-1]
    return {key: sums for key, sums in groups.items() if sums[place] <= most}
