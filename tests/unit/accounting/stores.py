"""What ``Shared`` stands on, where a test wants it to fail: a hot state in memory, and a ledger that is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from app.limits.hot import Answer, Command, StoreAway
from app.limits.memory import MemoryHot
from app.store.database import Database
from app.store.errors import DatabaseUnavailable


class HotInMemory:
    """One hot state for any number of processes. While it is ``away`` it carries nothing out; ``answers`` are
    given instead of its own, one for each command of their type; ``held`` has it wait before it answers.
    """

    def __init__(self, clock) -> None:
        self.memory = MemoryHot(clock)
        self.away: StoreAway | None = None
        self.held: asyncio.Event | None = None
        self.run_id = "run"
        self.done: list[Command] = []
        self.posted: list[Command] = []
        self._kept: list[tuple[Command, Callable[[Answer], None] | None]] = []

    async def do(self, command: Command) -> Answer:
        if self.away is not None:
            await asyncio.sleep(0)
            raise self.away
        self.done.append(command)
        # Commands are carried out in the order in which they are given, those that are posted too.
        answer = self._apply(command)
        await asyncio.sleep(0)
        if self.held is not None:
            await self.held.wait()
        return answer

    def post(
        self,
        command: Command,
        on_answer: Callable[[Answer], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self.posted.append(command)
        if self.away is not None:
            # As the client does: it is sent when there is a connection again.
            self._kept.append((command, on_answer))
            return
        answer = self._apply(command)
        if on_answer is not None:
            on_answer(answer)

    def come_back(self) -> None:
        self.away = None
        kept, self._kept = self._kept, []
        for command, on_answer in kept:
            answer = self._apply(command)
            if on_answer is not None:
                on_answer(answer)

    def _apply(self, command: Command) -> Answer:
        token = getattr(command, "token", "")
        if token:
            command = msgspec.structs.replace(command, token=f"{token}:{self.run_id}")
        return self.memory.apply(command)


class LedgerOnCall:
    """A ledger that is there; while it has an ``error``, that is all it says."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.error: Exception | None = None

    def go(self, error: Exception | None = None) -> None:
        self.error = error or DatabaseUnavailable("away")

    @asynccontextmanager
    async def transaction(self):
        if self.error is not None:
            raise self.error
        async with self.database.transaction() as connection:
            yield connection

    @asynccontextmanager
    async def read(self):
        if self.error is not None:
            raise self.error
        async with self.database.read() as connection:
            yield connection

    async def within(self, seconds: float, work: Any) -> Any:
        return await self.database.within(seconds, work)
