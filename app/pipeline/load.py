"""What all requests together hold, under whichever configuration they began."""

from __future__ import annotations

from app.core.errors import Overloaded
from app.upstream.relay import Collection


class Load:
    """Handed on from one pipeline to the next."""

    __slots__ = ("collection", "in_flight", "tag_values")

    def __init__(self) -> None:
        self.in_flight = 0
        self.tag_values: dict[str, set[tuple[str, str]]] = {}
        self.collection = Collection()

    def __repr__(self) -> str:
        return f"Load(in_flight={self.in_flight})"

    def enter(self, in_flight_max: int) -> None:
        """One more request is served, until it leaves. Raises Overloaded."""
        if self.in_flight >= in_flight_max:
            raise Overloaded
        self.in_flight += 1

    def leave(self) -> None:
        self.in_flight -= 1
