"""Room that one request takes for what it is told of kept turns, until it lets go of its body."""

from __future__ import annotations

from collections.abc import Callable


class Room:
    """``hold`` is asked for so much more, or less where it is negative; it raises Overloaded where there is none."""

    __slots__ = ("_hold", "_size")

    def __init__(self, hold: Callable[[int], None]) -> None:
        self._hold = hold
        self._size = 0

    def __repr__(self) -> str:
        return f"Room(size={self._size})"

    def resize(self, size: int) -> None:
        """It is to be ``size`` bytes. Raises Overloaded; it is then what it was."""
        self._hold(size - self._size)
        self._size = size

    def give_back(self) -> None:
        """All of it."""
        self._hold(-self._size)
        self._size = 0
