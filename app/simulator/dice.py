"""Choices that a seed decides."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

Item = TypeVar("Item")


class Dice:
    """An endless row of bytes from a seed. Much cheaper to set up than random.Random."""

    __slots__ = ("_bytes", "_place")

    def __init__(self, seed: bytes) -> None:
        self._bytes = seed
        self._place = 0

    def below(self, limit: int) -> int:
        """A number from 0 to ``limit`` - 1; ``limit`` is at most 65,536."""
        if self._place + 2 > len(self._bytes):
            self._bytes = hashlib.sha256(self._bytes).digest()
            self._place = 0
        place = self._place
        self._place = place + 2
        return (self._bytes[place] << 8 | self._bytes[place + 1]) % limit

    def choose(self, items: Sequence[Item]) -> Item:
        """One of ``items``."""
        return items[self.below(len(items))]

    def __repr__(self) -> str:
        return f"Dice(place={self._place})"
