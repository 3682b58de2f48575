"""Families of endpoints, as they are given to keys and teams."""

from __future__ import annotations

from collections.abc import Collection, Iterable

EVERYTHING = "*"
"""Given to a key or a team: every path, also those in no table, of which nobody knows whose objects they name."""

Families = tuple[str, ...]


def families_of(given: Iterable[str], known: Iterable[str]) -> Families:
    """What is given, each once; with everything among it nothing else counts. Raises ValueError."""
    names = tuple(dict.fromkeys(given))
    known = tuple(known)
    for name in names:
        if name != EVERYTHING and name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(known)}")
    return (EVERYTHING,) if EVERYTHING in names else names


def families_on(given: Families | None, known: Iterable[str], default: Collection[str]) -> Families:
    """What is on where this was given (None: nothing was), in the order of ``known``."""
    if given is None:
        return tuple(name for name in known if name in default)
    if EVERYTHING in given:
        return (*known, EVERYTHING)
    return tuple(name for name in known if name in given)
