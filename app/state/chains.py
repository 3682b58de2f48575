"""Chains of kept turns under one configuration: what ``previous_response_id`` names, and how long it is kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar

from app.core.codec import JSONObject, parse_object
from app.core.errors import AmbiguousJSON, InvalidJSON, InvalidRequest, PreviousResponseNotFound
from app.core.exchange import Exchange
from app.core.ids import OBJECT_ID
from app.state.expansion import PREVIOUS, expanded
from app.state.items import has_some_for_maker, replay_of
from app.state.room import Room
from app.state.turn import TURNS_MAX, Turn
from app.state.turns import Stored, Turns

T = TypeVar("T")

DAY_MS = 86_400_000
TTL_DAYS_DEFAULT = 30
"""Of turns whose upstream is not configured any more."""
LATE_PAUSES_S = (0.1, 0.3, 0.6, 1.0)
"""Another process may write a turn a moment after the client has its id."""
LATE_MAX = 200
LATE_OF_TEAM_MAX = 20
"""Requests that wait for such a turn at a time; further ones get their answer at once, whoever's the turn is."""


def periods_ms(ttl_days: Mapping[str, int]) -> dict[str, int]:
    """How long turns are kept, by upstream."""
    return {name: days * DAY_MS for name, days in ttl_days.items()}


class Chains:
    """``ttl_days``: the upstreams that keep nothing, and for how long the gateway does."""

    def __init__(self, turns: Turns, ttl_days: Mapping[str, int], *, body_bytes_max: int, held_bytes_max: int) -> None:
        """``body_bytes_max``: what a request may grow to, ``held_bytes_max`` what all of them may together."""
        self._turns = turns
        self._ttl_ms = periods_ms(ttl_days)
        self._body_bytes_max = body_bytes_max
        self._held_bytes_max = held_bytes_max
        self._late: Counter[str] = Counter()
        self.upstreams = frozenset(ttl_days)

    def __repr__(self) -> str:
        return f"Chains(upstreams={sorted(self.upstreams)})"

    def open_room(self, exchange: Exchange) -> Room:
        """Room for what a request is told of turns. It counts until ``forget_body`` is called."""
        room = Room(partial(self._turns.hold_expanded, size_max=self._held_bytes_max))
        before = exchange.forget_body

        def forget() -> None:
            room.give_back()
            before()

        exchange.forget_body = forget
        return room

    def is_in_memory(self, team_id: str, response_id: str) -> bool:
        """Whether the team's turn of this id waits here to be written."""
        return bool(self._turns.in_memory(team_id, response_id))

    async def find(self, team_id: str, response_id: str, now_ms: int, room: Room) -> list[Turn] | None:
        """The turn that the team has under this id, with all before it, the oldest first; None where there is none.
        ``room`` is taken before they are read.

        Raises PreviousResponseNotFound where one before it was deleted, InvalidRequest where they are too many,
        LedgerUnavailable, Overloaded.
        """
        if OBJECT_ID.match(response_id) is None:
            return None
        fresh = self._turns.in_memory(team_id, response_id)
        if fresh and fresh[-1].previous_id is None:
            return self._bounded(fresh)
        stored = await self._turns.stored(
            team_id,
            response_id=response_id,
            turn_id=(fresh[-1].previous_id or "") if fresh else "",
            turns_max=TURNS_MAX,
            bytes_max=self._body_bytes_max,
            hold=room.resize,
        )
        if stored is None or not (fresh or self._is_alive(stored, now_ms)):
            if fresh:
                raise PreviousResponseNotFound.of(PREVIOUS, response_id)
            return None
        if not fresh and stored.found[0].sealed_bytes is None:
            return None
        if len(stored.found) + len(fresh) > TURNS_MAX:
            raise InvalidRequest(f"The conversation has more than {TURNS_MAX} turns; begin a new one.", param=PREVIOUS)
        if stored.found[-1].previous_id is not None or any(row.sealed_bytes is None for row in stored.found):
            raise PreviousResponseNotFound.of(PREVIOUS, response_id)
        if not stored.contents:
            raise self._too_large()
        older = await asyncio.to_thread(self._turns.opened, team_id, stored.found, stored.contents)
        return self._bounded([*fresh, *older])

    async def wait_for(self, team_id: str, response_id: str, look: Callable[[], Awaitable[T | None]]) -> T | None:
        """What ``look`` finds of a turn that is not there yet: it may be on its way from another process."""
        if not self._turns.others_write or OBJECT_ID.match(response_id) is None:
            return None
        if self._late[team_id] >= LATE_OF_TEAM_MAX or self._late.total() >= LATE_MAX:
            return None
        self._late[team_id] += 1
        try:
            for pause_s in LATE_PAUSES_S:
                await asyncio.sleep(pause_s)
                found = await look()
                if found is not None:
                    return found
        finally:
            self._late[team_id] -= 1
            # Only those that wait are in it.
            self._late += Counter()
        return None

    async def one(self, team_id: str, response_id: str, now_ms: int, room: Room) -> Turn | None:
        """A turn alone; ``room`` is taken before it is read. Raises LedgerUnavailable, Overloaded."""
        if OBJECT_ID.match(response_id) is None:
            return None
        fresh = self._turns.in_memory(team_id, response_id)
        if fresh:
            return fresh[0]
        stored = await self._turns.stored(
            team_id, response_id=response_id, turns_max=1, bytes_max=self._body_bytes_max, hold=room.resize
        )
        if stored is None or not stored.contents or not self._is_alive(stored, now_ms):
            return None
        return (await asyncio.to_thread(self._turns.opened, team_id, stored.found, stored.contents))[0]

    async def delete(self, turn: Turn) -> None:
        """What it holds is gone. Raises LedgerUnavailable."""
        await self._turns.delete(turn.team_id, turn.turn_id)

    def _is_alive(self, stored: Stored, now_ms: int) -> bool:
        """Whether its time is not over: a turn is kept for as long as its chain, from the last that was added."""
        if stored.last is None:
            # The first turn of the chain is gone: the chain was being removed.
            return False
        upstream, last_at_ms = stored.last
        return now_ms < last_at_ms + self._ttl_ms.get(upstream, TTL_DAYS_DEFAULT * DAY_MS)

    def _bounded(self, newest_first: Sequence[Turn]) -> list[Turn]:
        if len(newest_first) > TURNS_MAX:
            raise InvalidRequest(f"The conversation has more than {TURNS_MAX} turns; begin a new one.", param=PREVIOUS)
        return list(reversed(newest_first))

    def _too_large(self) -> InvalidRequest:
        return InvalidRequest(
            f"With what came before, the request has more than {self._body_bytes_max} bytes; begin a new conversation.",
            param=PREVIOUS,
        )

    # -- the request that goes on -----------------------------------------------------------------

    async def expanded(
        self, room: Room, body: JSONObject, chain: Sequence[Turn], upstreams: Collection[str]
    ) -> tuple[JSONObject, dict[str, JSONObject]]:
        """The body with all that came before, for whichever of ``upstreams``, and by their names those for the ones
        that are sent their reasoning besides. Raises InvalidRequest, Overloaded.
        """
        size = len(body.body) + sum(turn.replay_bytes for turn in chain)
        room.resize(size)
        grown = await self._grown(body, chain, upstreams)
        own: dict[str, JSONObject] = {}
        for name in sorted(self.upstreams.intersection(upstreams)) if len(upstreams) > 1 else ():
            if any(turn.upstream == name and has_some_for_maker(turn) for turn in chain):
                room.resize(size * (len(own) + 2))
                own[name] = await self._grown(body, chain, {name})
        return grown, own

    async def _grown(self, body: JSONObject, chain: Sequence[Turn], upstreams: Collection[str]) -> JSONObject:
        grown = await asyncio.to_thread(_grown, body, chain, upstreams, self.upstreams)
        if len(grown.body) > self._body_bytes_max:
            raise self._too_large()
        return grown


def _grown(
    body: JSONObject, chain: Sequence[Turn], upstreams: Collection[str], stateless: Collection[str]
) -> JSONObject:
    parts = (replay_of(turn, upstreams, stateless) for turn in chain)
    grown = expanded(body, b",".join(part for part in parts if part))
    try:
        return parse_object(grown)
    except (AmbiguousJSON, InvalidJSON):
        # The body itself was proven before: it is what an upstream has answered.
        raise InvalidRequest(
            "What came before cannot be sent again: an answer in it has a member twice, or all of it is too deep or too"
            " many values; begin a new conversation.",
            param=PREVIOUS,
        ) from None
