"""The door of the data plane to limits and budgets: one process alone, or one of many.

Both decide a claim, take its outcome without waiting, and are told what SQL has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from app.accounting.accountant import Accountant, Remake
from app.accounting.decisions import decision_of
from app.accounting.epochs import Epochs, OnState
from app.accounting.holdings import Holdings, Progress
from app.accounting.insql import what_is_in_sql
from app.accounting.local import LocalShare
from app.accounting.ports import REQUEST_LEDGER_S, HotState, Ports
from app.accounting.reaper import Reaper
from app.accounting.steps import Steps
from app.core.clock import Clock
from app.core.errors import LimitsUnavailable
from app.core.records import Record
from app.limits.hot import Counted, Peek, Reserve, Settle, StoreAway, Void
from app.limits.limiter import UPSTREAM_TAG, Claim, Grant, Limit, Outcome, Refusal
from app.store import processes
from app.store.database import Database
from app.store.errors import StoreError
from app.store.posting import Written

FOLLOW_EVERY_S = 0.4
BEAT_EVERY_S = 1.0
REAP_EVERY_S = 1.0
TIDY_EVERY_S = 0.5
OPENING_S_MAX = 5.0
CLOSE_S_MAX = 2.0
TAGS_OPENED_AT_ONCE = 50


class Accounts(Protocol):
    """``Shared`` over Redis, ``Alone`` in memory."""

    @property
    def process_id(self) -> str:
        """Who holds what is admitted here; empty where nobody else could ask."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def admit(self, claim: Claim, remake: Remake) -> Grant | Refusal:
        """Decide ``claim``; ``remake(at_ms)`` makes it for another moment. Raises LimitsUnavailable."""
        ...

    def watch(self, request_id: str, progress: Callable[[], Progress]) -> None:
        """Ask ``progress`` what has been seen of a call, for as long as it runs."""
        ...

    def go_on(self, claim: Claim, line: bytes) -> None:
        """A further attempt of an admitted call is about to be sent; ``line`` says so in the journal."""
        ...

    def settle(self, claim: Claim, outcome: Outcome) -> None:
        """An admitted call has ended, and its record is on its way; only the first outcome counts."""
        ...

    def void(self, claim: Claim) -> None:
        """An admitted call was never sent, and leaves no record."""
        ...

    async def peek(self, tag: str, limits: tuple[Limit, ...]) -> tuple[tuple[int, int], ...] | None:
        """What is counted of limits that are not of money, and for how many milliseconds more; None: not known now."""
        ...

    def before_write(self) -> object:
        """To be asked right before a transaction that writes records begins."""
        ...

    def after_write(self, records: Sequence[Record], written: Written, token: object) -> None:
        """These are committed; ``token`` is what ``before_write`` said."""
        ...


class Shared:
    """One process of many: the accounting core, driven by asyncio."""

    def __init__(
        self,
        process_id: str,
        store: HotState,
        database: Database,
        clock: Clock,
        *,
        node: str,
        slot: int,
        on_state: OnState,
        on_unreadable: Callable[[str], None] = lambda _request_id: None,
    ) -> None:
        self._process_id = process_id
        self._store = store
        self._database = database
        self._clock = clock
        self._node = node
        self._slot = slot
        self._local = LocalShare(clock)
        self._on_state = on_state
        self._ports = Ports(store, database)
        self._ports.register = self._register
        self._epochs = Epochs(process_id, Holdings(), self._tell)
        self._accountant = Accountant(process_id, self._epochs, self._local)
        self._reaper = Reaper(self._epochs, clock.now_ms, on_unreadable=on_unreadable)
        self.has_opened = False
        """Whether strict limits could be decided since the start."""
        self._teams: Callable[[], Iterable[str]] = tuple
        self._dead: dict[str, Callable[[], None]] = {}
        self._light: dict[str, Claim] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._failing: set[str] = set()
        self._confirming: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Shared({self._accountant!r}, {self._reaper!r})"

    @property
    def process_id(self) -> str:
        return self._process_id

    @property
    def is_open(self) -> bool:
        """Whether strict limits are decided."""
        return self._epochs.is_open

    @property
    def held(self) -> int:
        """Calls that run, and those that SQL does not have or the hot state does not know of."""
        return len(self._accountant.holdings)

    def deliver_to(self, submit: Callable[[Record], None]) -> None:
        """Where records go that a reaper has made: the ledger's writer."""
        self._ports.submit = submit

    def know_teams(self, teams: Callable[[], Iterable[str]]) -> None:
        """Whose tags are opened before anybody asks: a team's first request must not wait for SQL."""
        self._teams = teams

    async def start(self) -> None:
        """Register, and wait a little for the epoch to be open: without the hot state it is not."""
        try:
            async with self._database.transaction() as connection:
                await self._register(connection)
        except StoreError:
            # Nobody can begin an epoch without SQL either; it registers when it is back.
            pass
        loops: list[tuple[str, float, Callable[[], Steps[None]]]] = [
            ("follow", FOLLOW_EVERY_S, self._epochs.follow),
            ("beat", BEAT_EVERY_S, self._accountant.beat),
            ("reap", REAP_EVERY_S, self._reaper.reap),
            ("tidy", TIDY_EVERY_S, self._tidy),
        ]
        for name, period_s, steps in loops:
            self._tasks.append(asyncio.create_task(self._repeat(name, period_s, steps), name=f"accounts {name}"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPENING_S_MAX):
                while not self._epochs.is_open:  # noqa: ASYNC110 - asked at start only
                    await asyncio.sleep(0.02)
        if not self._epochs.is_open:
            self._on_state(False, "the hot state or the ledger does not answer, or an epoch is being opened")

    async def _register(self, connection: AsyncConnection) -> None:
        self._accountant.forget_marks()
        await processes.register_process(connection, self._process_id, self._node, self._slot, self._clock.now_ms())

    async def close(self) -> None:
        """End; what could not be confirmed is brought to its end by others."""
        if self._confirming:
            await asyncio.wait(self._confirming, timeout=CLOSE_S_MAX)
        for task in [*self._tasks, *self._confirming]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._confirming, return_exceptions=True)
        self._tasks.clear()
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                if not len(self._accountant.holdings):
                    async with self._database.transaction() as connection:
                        await processes.close_process(connection, self._process_id)

    def retire(self, process_id: str, then: Callable[[], None]) -> None:
        """A dead process' journal has been replayed: end what is held for it, and ``then`` forget it."""
        if process_id != self._process_id:
            self._dead[process_id] = then

    # -- requests -------------------------------------------------------------------------------

    async def admit(self, claim: Claim, remake: Remake) -> Grant | Refusal:
        if claim.tag.startswith(UPSTREAM_TAG):
            return await self._admit_upstream(claim)
        asked = self._owned(claim)

        def remake_owned(at_ms: int) -> Claim:
            nonlocal asked
            asked = self._owned(remake(at_ms))
            return asked

        try:
            return await self._ports.run(self._accountant.admit(asked, remake_owned), REQUEST_LEDGER_S)
        except asyncio.CancelledError:
            # In the windows in which it was asked for last: those of the first claim may be over.
            self._store.post(self._accountant.abandon(asked))
            raise

    def _owned(self, claim: Claim) -> Claim:
        """A reaper asks whose a reservation is before it charges it."""
        if claim.owner == self._process_id:
            return claim
        return msgspec.structs.replace(claim, owner=self._process_id)

    async def _admit_upstream(self, claim: Claim) -> Grant | Refusal:
        """Limits that protect an upstream count nothing that anybody would miss: no epoch, no journal."""
        try:
            answer = await self._store.do(Reserve(claim, ""))
        except asyncio.CancelledError:
            self._store.post(Void(claim))
            raise
        except StoreAway as away:
            if away.sent:
                self._store.post(Void(claim))
            return self._local.admit(claim)
        decided = decision_of(claim, answer)
        if decided is None:
            raise LimitsUnavailable
        if isinstance(decided, Grant):
            self._light[claim.request_id] = claim
        return decided

    def watch(self, request_id: str, progress: Callable[[], Progress]) -> None:
        holding = self._accountant.holdings.get(request_id)
        if holding is not None:
            holding.progress = progress

    def go_on(self, claim: Claim, line: bytes) -> None:
        command = self._accountant.go_on(claim.request_id, line)
        if command is not None:
            self._store.post(command)

    def settle(self, claim: Claim, outcome: Outcome) -> None:
        request_id = claim.request_id
        if claim.tag.startswith(UPSTREAM_TAG):
            if self._light.pop(request_id, None) is not None:
                self._store.post(Settle(claim, "", outcome))
            else:
                self._local.settle(claim, outcome)
            return
        command = self._accountant.settle(request_id, outcome)
        if command is not None:
            self._store.post(command, lambda answer: self._accountant.settled(request_id, answer))

    def void(self, claim: Claim) -> None:
        self._local.void(claim)
        if claim.tag.startswith(UPSTREAM_TAG):
            # Of the same request there may be a claim of its team, which goes on.
            self._light.pop(claim.request_id, None)
            self._store.post(Void(claim))
        else:
            self._store.post(self._accountant.abandon(claim))

    async def peek(self, tag: str, limits: tuple[Limit, ...]) -> tuple[tuple[int, int], ...] | None:
        if not limits:
            return ()
        try:
            answer = await self._store.do(Peek(tag, limits))
        except StoreAway:
            return None
        return answer.counts if isinstance(answer, Counted) else None

    # -- what SQL knows -------------------------------------------------------------------------

    def before_write(self) -> int:
        return self._epochs.number if self._epochs.is_open else 0

    def after_write(self, records: Sequence[Record], written: Written, token: object) -> None:
        number = token if isinstance(token, int) else 0
        steps = self._accountant.committed(*what_is_in_sql(records, written), number)
        task = asyncio.get_running_loop().create_task(self._ports.run(steps), name="confirm")
        self._confirming.add(task)
        task.add_done_callback(self._confirmed)

    def _confirmed(self, task: asyncio.Task[None]) -> None:
        self._confirming.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_state(False, f"{type(error).__name__} while confirming")

    # -- loops ----------------------------------------------------------------------------------

    def _tidy(self) -> Steps[None]:
        self._local.processes = self._ports.processes
        yield from self._accountant.confirm_again()
        for process_id in list(self._dead):
            retired = yield from self._accountant.retire(process_id)
            if retired:
                self._dead.pop(process_id)()
        yield from self._epochs.open_tags(self._teams(), TAGS_OPENED_AT_ONCE)
        yield from self._accountant.beat_light(self._light)

    async def _repeat(self, name: str, period_s: float, steps: Callable[[], Steps[None]]) -> None:
        while True:
            try:
                await self._ports.run(steps())
            except Exception as error:  # noqa: BLE001 - without heartbeats all that runs would be charged at its bound
                if name not in self._failing:
                    self._failing.add(name)
                    self._on_state(False, f"{type(error).__name__}, {name}")
            else:
                if name in self._failing:
                    self._failing.discard(name)
                    self._on_state(self.is_open and not self._failing, "a loop had failed")
            await asyncio.sleep(period_s)

    def _tell(self, is_open: bool, reason: str) -> None:  # noqa: FBT001 - the callback's shape
        if is_open:
            self.has_opened = True
            self._local.forget()
        self._on_state(is_open, reason)
