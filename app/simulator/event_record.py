"""The events of an answer that runs on by itself, and those who follow them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.simulator.events import OUTSIDE
from app.simulator.stream import EVENTS_PER_TURN
from app.simulator.wire import frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.simulator.channel import Channel
    from app.simulator.events import Event

FOLLOW_S_MAX = 3600.0
"""How long a follower waits for an event."""


class EventRecord:
    """Events so far. A follower is woken by each."""

    def __init__(self, events: Sequence[Event] = (), *, ended: bool = False) -> None:
        self.events: list[Event] = list(events)
        self.ended = ended
        self._followers: set[Channel] = set()

    def append(self, event: Event) -> None:
        self.events.append(event)
        self._wake()

    def end(self) -> None:
        """Nothing comes after this."""
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        for channel in self._followers:
            channel.wake()

    async def follow(self, channel: Channel, first: int, *, events_max: int | None = None) -> bool:
        """Write the events from number ``first`` on as they come; whether the last of them was written.

        A follower that leaves changes nothing for the answer.
        """
        channel.watch()
        self._followers.add(channel)
        place, written = 0, 0
        try:
            while not channel.gone:
                if place == len(self.events):
                    if self.ended:
                        return True
                    await channel.pause(FOLLOW_S_MAX)
                    if place == len(self.events) and not self.ended:
                        return False
                    continue
                event = self.events[place]
                place += 1
                if place <= first:
                    continue
                if written == events_max:
                    return False
                if place % EVENTS_PER_TURN == 0:
                    # The other connections get their turn, and a leaving client is noticed.
                    await asyncio.sleep(0)
                await channel.write(frame(event))
                written += event.kind != OUTSIDE
            return False
        finally:
            self._followers.discard(channel)

    def __repr__(self) -> str:
        return f"EventRecord(events={len(self.events)}, ended={self.ended}, followers={len(self._followers)})"
