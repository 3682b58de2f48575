"""Which time zones reports ask for, so that sums by their days are kept: noted by the query, read by ``Folding``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

NOTED_MAX = 32
INFO = "headgate_zones"


class ZonesAsked:
    """What was asked since it was taken: the period and the zone of a fold each."""

    __slots__ = ("_noted",)

    def __init__(self) -> None:
        self._noted: set[tuple[str, str]] = set()

    def __repr__(self) -> str:
        return f"ZonesAsked({sorted(self._noted)})"

    def note(self, period: str, zone: str) -> None:
        if len(self._noted) < NOTED_MAX:
            self._noted.add((period, zone))

    def take(self) -> list[tuple[str, str]]:
        """What was noted, which is forgotten here."""
        noted, self._noted = self._noted, set()
        return sorted(noted)


def note_zone(connection: AsyncConnection, period: str, zone: str) -> None:
    """Tells the connection's database; one that is not of a ``Database`` is told nothing."""
    asked = connection.info.get(INFO)
    if isinstance(asked, ZonesAsked):
        asked.note(period, zone)
