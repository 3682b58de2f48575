"""Kept turns of one process: those of a moment ago in memory, all of them in the database.

A turn can be named as soon as a client has its id, so it is found in memory until it is written, which is soon, by
one task, many at once. It is no bill: where the database is away for so long that the room for what waits is used up,
turns are lost, and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from app.core.errors import LedgerUnavailable, Overloaded
from app.core.ids import new_request_id
from app.state.draft import Draft
from app.state.sealing import Seal, SealBroken
from app.state.turn import Content, Keeping, Turn
from app.store.errors import StoreError
from app.store.turns import TurnFound, TurnRow, chain_to, empty_turn, keep_turns, last_of, newest_of, payloads_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.core.clock import Clock
    from app.store.database import Database

HELD_BYTES_MAX = 128 * 2**20
"""Of answers that are being watched, and of turns that wait to be written."""
HELD_OF_TEAM_BYTES_MAX = HELD_BYTES_MAX // 4
"""No team is to have others lose their turns."""
WAITING_TURNS_MAX = 10_000
WAITING_OF_TEAM_MAX = WAITING_TURNS_MAX // 4
BATCH_TURNS_MAX = 200
BATCH_BYTES_MAX = 16 * 2**20
GATHER_S = 0.05
WRITE_S_MAX = 20.0
RETRY_DELAY_MIN_S = 0.1
RETRY_DELAY_MAX_S = 5.0
TIMEOUTS_MAX = 3
"""Of one batch. Then half as many turns are tried, at last one alone, which is lost if the database takes others."""
DRAIN_S_MAX = 10.0
LOOKUP_S_MAX = 5.0
"""A chain may be many megabytes."""
FLUSHED_S_MAX = 5.0


class Stored:
    """Turns that are in the database, the newest first, and the end of their chain: (upstream, last added)."""

    __slots__ = ("contents", "found", "last")

    def __init__(self, found: Sequence[TurnFound], contents: dict[str, bytes], last: tuple[str, int] | None) -> None:
        self.found = found
        self.contents = contents
        self.last = last

    def __repr__(self) -> str:
        return f"Stored(turns={len(self.found)})"


class Turns:
    """``on_kept(result, turns)`` is told of what was ``kept`` and what was ``lost``."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        on_kept: Callable[[str, int], None] = lambda _result, _turns: None,
        gather_s: float = GATHER_S,
    ) -> None:
        self._database = database
        self._clock = clock
        self._on_kept = on_kept
        self._gather_s = gather_s
        self._seal: Seal | None = None
        self._newest: dict[tuple[str, str], Turn] = {}
        self._by_id: dict[str, Turn] = {}
        self._queue: deque[Turn] = deque()
        self._held_bytes = 0
        self._held_of_team: Counter[str] = Counter()
        self._waiting_of_team: Counter[str] = Counter()
        self._expanded_bytes = 0
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = asyncio.Event()
        self._written = asyncio.Event()
        """Of the batch that is written next."""
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Turns(waiting={self.waiting}, held_bytes={self._held_bytes})"

    @property
    def waiting(self) -> int:
        """Turns that are not in the database yet."""
        return len(self._by_id)

    @property
    def is_open(self) -> bool:
        return self._seal is not None

    @property
    def others_write(self) -> bool:
        """Whether another process may write turns that this one is asked for."""
        return self._database.dialect == "postgresql"

    def open(self, seal: Seal) -> None:
        """From now on turns can be kept."""
        self._seal = seal
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="turns")

    async def close(self) -> None:
        """Writes what waits, for as long as a shutdown may take."""
        if self._task is None:
            return
        self._closing.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S_MAX):
                await self._idle.wait()
        if self._by_id:
            self._on_kept("lost", len(self._by_id))
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None

    # -- what comes -----------------------------------------------------------------------------

    def begin(self, keeping: Keeping, upstream: Callable[[], str]) -> Draft:
        """Watch an answer that is to be kept."""
        return Draft(keeping, upstream, self._keep, partial(self._hold, keeping.team_id))

    def lost(self) -> None:
        """One could not be kept."""
        self._on_kept("lost", 1)

    def hold_expanded(self, size: int, size_max: int) -> None:
        """Room for so much more of what is read of turns, or less where it is negative. Raises Overloaded."""
        if size > 0 and self._expanded_bytes + size > size_max:
            raise Overloaded
        self._expanded_bytes += size

    def _hold(self, team_id: str, size: int) -> bool:
        of_team = self._held_of_team[team_id] + size
        if size > 0 and (self._held_bytes + size > HELD_BYTES_MAX or of_team > HELD_OF_TEAM_BYTES_MAX):
            return False
        self._held_bytes += size
        _set(self._held_of_team, team_id, of_team)
        return True

    def _keep(self, keeping: Keeping, upstream: str, response_id: str, response: bytes) -> bool:
        size = len(keeping.input) + len(response)
        waiting_of_team = self._waiting_of_team[keeping.team_id]
        if len(self._by_id) >= WAITING_TURNS_MAX or waiting_of_team >= WAITING_OF_TEAM_MAX:
            return False
        if not self._hold(keeping.team_id, size):
            return False
        _set(self._waiting_of_team, keeping.team_id, waiting_of_team + 1)
        now_ms = self._clock.now_ms()
        turn_id = new_request_id(now_ms)
        turn = Turn(
            turn_id=turn_id,
            team_id=keeping.team_id,
            response_id=response_id,
            upstream=upstream,
            previous_id=keeping.previous_id,
            chain_id=keeping.chain_id or turn_id,
            created_at_ms=now_ms,
            replay_bytes=size,
            content=Content(keeping.team_id, turn_id, keeping.input, response, keeping.pinned),
        )
        self._newest[turn.team_id, response_id] = turn
        self._by_id[turn_id] = turn
        self._queue.append(turn)
        self._idle.clear()
        self._some.set()
        return True

    # -- what is asked for ----------------------------------------------------------------------

    def in_memory(self, team_id: str, response_id: str) -> list[Turn]:
        """The turn of this id and those before it, the newest first, as far as they are not written yet."""
        found: list[Turn] = []
        turn = self._newest.get((team_id, response_id))
        while turn is not None:
            found.append(turn)
            turn = None if turn.previous_id is None else self._by_id.get(turn.previous_id)
        return found

    async def stored(
        self,
        team_id: str,
        *,
        response_id: str = "",
        turn_id: str = "",
        turns_max: int,
        bytes_max: int,
        hold: Callable[[int], None],
    ) -> Stored | None:
        """The turn of an id, and up to ``turns_max`` in all with those before it. Contents are there only where they
        are no more than ``bytes_max`` together, and none was deleted; ``hold`` is asked for room before they are read.
        Raises LedgerUnavailable, and what ``hold`` does.
        """
        try:
            return await self._database.within(
                LOOKUP_S_MAX, self._read(team_id, response_id, turn_id, turns_max, bytes_max, hold)
            )
        except (StoreError, TimeoutError) as error:
            raise LedgerUnavailable("What came before cannot be looked up now.") from error

    async def _read(
        self,
        team_id: str,
        response_id: str,
        turn_id: str,
        turns_max: int,
        bytes_max: int,
        hold: Callable[[int], None],
    ) -> Stored | None:
        async with self._database.read() as connection:
            if not turn_id:
                newest = await newest_of(connection, team_id, response_id)
                if newest is None:
                    return None
                turn_id = newest.turn_id
                if turns_max == 1:
                    return await self._one(connection, newest, hold)
            found = await chain_to(connection, team_id, turn_id, turns_max)
            if not found:
                return None
            contents: dict[str, bytes] = {}
            is_whole = len(found) <= turns_max and all(row.sealed_bytes is not None for row in found)
            size = sum(row.replay_bytes for row in found)
            if is_whole and size <= bytes_max:
                hold(size)
                contents = await payloads_of(connection, [row.turn_id for row in found])
            return Stored(found, contents, await last_of(connection, found[0].chain_id))

    async def _one(self, connection: AsyncConnection, row: TurnFound, hold: Callable[[int], None]) -> Stored:
        hold(row.replay_bytes)
        contents = await payloads_of(connection, [row.turn_id])
        return Stored([row], contents, await last_of(connection, row.chain_id))

    def opened(self, team_id: str, rows: Sequence[TurnFound], contents: dict[str, bytes]) -> list[Turn]:
        """Turns with what they hold; belongs in a thread. Raises LedgerUnavailable where the keys are others."""
        if self._seal is None:
            raise LedgerUnavailable("What came before cannot be read now.")
        try:
            return [
                Turn(
                    turn_id=row.turn_id,
                    team_id=team_id,
                    response_id=row.response_id,
                    upstream=row.upstream,
                    previous_id=row.previous_id,
                    chain_id=row.chain_id,
                    created_at_ms=row.created_at_ms,
                    replay_bytes=row.replay_bytes,
                    content=self._seal.open(contents.pop(row.turn_id), team_id, row.turn_id),
                )
                for row in rows
            ]
        except (SealBroken, KeyError) as error:
            raise LedgerUnavailable("What came before cannot be read now.") from error

    async def delete(self, team_id: str, turn_id: str) -> None:
        """Its content is gone once this returns. Raises LedgerUnavailable."""
        try:
            async with asyncio.timeout(FLUSHED_S_MAX):
                while turn_id in self._by_id:
                    await self._written.wait()
            await self._database.within(LOOKUP_S_MAX, self._empty(team_id, turn_id))
        except (StoreError, TimeoutError) as error:
            raise LedgerUnavailable("The response cannot be deleted now.") from error

    async def _empty(self, team_id: str, turn_id: str) -> None:
        async with self._database.transaction() as connection:
            await empty_turn(connection, team_id, turn_id)

    # -- the way into the database --------------------------------------------------------------

    async def _run(self) -> None:
        delay_s = RETRY_DELAY_MIN_S
        batch: list[Turn] = []
        turns_max, timeouts = BATCH_TURNS_MAX, 0
        while True:
            if not batch:
                batch = await self._gather(turns_max)
            try:
                await self._write(batch)
            except (StoreError, TimeoutError) as error:
                timeouts += isinstance(error, TimeoutError)
                if timeouts >= TIMEOUTS_MAX:
                    timeouts = 0
                    if len(batch) > 1:
                        turns_max = len(batch) // 2
                        self._queue.extendleft(reversed(batch[turns_max:]))
                        del batch[turns_max:]
                    elif await self._takes_writes():
                        # It is this turn that cannot be written: it must not stand before all that follow.
                        self._on_kept("lost", 1)
                        self._let_go(batch)
                        batch = []
                        continue
                # Its writer tells that the ledger does not answer.
                await asyncio.sleep(delay_s * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
                delay_s = min(delay_s * 2, RETRY_DELAY_MAX_S)
                continue
            except Exception:  # noqa: BLE001 - what the database refuses must not stand before all that follow
                if len(batch) > 1:
                    # One of them is at fault: the first is tried alone, and the others without it.
                    self._queue.extendleft(reversed(batch[1:]))
                    del batch[1:]
                    continue
                self._on_kept("lost", 1)
            else:
                self._on_kept("kept", len(batch))
                turns_max = min(2 * turns_max, BATCH_TURNS_MAX)
            delay_s, timeouts = RETRY_DELAY_MIN_S, 0
            self._let_go(batch)
            batch = []

    async def _takes_writes(self) -> bool:
        """Whether the database has time for a transaction that does next to nothing."""
        try:
            await self._database.within(LOOKUP_S_MAX, self._write_nothing())
        except (StoreError, TimeoutError):
            return False
        return True

    async def _write_nothing(self) -> None:
        async with self._database.transaction() as connection:
            await last_of(connection, "")

    async def _gather(self, turns_max: int) -> list[Turn]:
        if not self._queue:
            self._some.clear()
            await self._some.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._gather_s):
                await self._closing.wait()
        batch: list[Turn] = []
        size = 0
        while self._queue and len(batch) < turns_max and size < BATCH_BYTES_MAX:
            turn = self._queue.popleft()
            size += turn.replay_bytes
            batch.append(turn)
        return batch

    async def _write(self, batch: Sequence[Turn]) -> None:
        rows = await asyncio.to_thread(self._sealed, batch)
        await self._database.within(WRITE_S_MAX, self._insert(rows))

    def _sealed(self, batch: Sequence[Turn]) -> list[TurnRow]:
        if self._seal is None:
            raise SealBroken
        return [
            TurnRow(
                turn_id=turn.turn_id,
                team_id=turn.team_id,
                response_id=turn.response_id,
                upstream=turn.upstream,
                previous_id=turn.previous_id,
                chain_id=turn.chain_id,
                replay_bytes=turn.replay_bytes,
                payload=self._seal.close(turn.content),
                created_at_ms=turn.created_at_ms,
            )
            for turn in batch
        ]

    async def _insert(self, rows: Sequence[TurnRow]) -> None:
        async with self._database.transaction() as connection:
            await keep_turns(connection, rows)

    def _let_go(self, batch: Sequence[Turn]) -> None:
        for turn in batch:
            del self._by_id[turn.turn_id]
            if self._newest.get((turn.team_id, turn.response_id)) is turn:
                del self._newest[turn.team_id, turn.response_id]
            self._hold(turn.team_id, -turn.replay_bytes)
            _set(self._waiting_of_team, turn.team_id, self._waiting_of_team[turn.team_id] - 1)
        written, self._written = self._written, asyncio.Event()
        written.set()
        if not self._by_id:
            self._idle.set()


def _set(counts: Counter[str], team_id: str, count: int) -> None:
    """Only teams that have some are in it."""
    if count:
        counts[team_id] = count
    else:
        counts.pop(team_id, None)
