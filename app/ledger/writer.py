"""The way of records from the journal into SQL: in batches, exactly once, whatever the database does.

What is submitted waits in memory, in order; beyond ``queue_items_max`` only its id waits, and it is read
back from the journal when its turn comes. A record leaves the journal when it is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from itertools import chain, islice
from typing import TYPE_CHECKING

from app.core.records import Record
from app.ledger.commit import Hooks, Item, commit
from app.ledger.journal import read_places
from app.store.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.core.clock import Clock
    from app.core.records import OwnedObject
    from app.ledger.commit import AfterWrite, BeforeWrite, OnPoison
    from app.ledger.journal import Journal, Place
    from app.store.database import Database

BATCH_ITEMS_MAX = 500
FLUSH_INTERVAL_S = 0.25
QUEUE_ITEMS_MAX = 20_000
RETRY_DELAY_MIN_S = 0.1
RETRY_DELAY_MAX_S = 5.0


class LedgerWriter:
    """``on_state(up, reason)`` is called once per change of state, ``on_written(records, new)`` after each
    batch, the others as ``Hooks`` says: a batch in which a row is refused is several transactions.
    """

    def __init__(
        self,
        database: Database,
        journal: Journal,
        clock: Clock,
        *,
        queue_items_max: int = QUEUE_ITEMS_MAX,
        batch_items_max: int = BATCH_ITEMS_MAX,
        flush_interval_s: float = FLUSH_INTERVAL_S,
        retry_delay_max_s: float = RETRY_DELAY_MAX_S,
        on_state: Callable[[bool, str], None] = lambda _up, _reason: None,
        on_written: Callable[[int, int], None] = lambda _records, _new: None,
        on_poison: OnPoison = lambda _request_id, _reason: None,
        before_write: BeforeWrite = lambda: None,
        after_write: AfterWrite = lambda _records, _written, _token: None,
    ) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._queue_items_max = queue_items_max
        self._batch_items_max = batch_items_max
        self._flush_interval_s = flush_interval_s
        self._retry_delay_max_s = retry_delay_max_s
        self._on_state = on_state
        self._on_written = on_written
        self._on_poison = on_poison
        self._hooks = Hooks(before_write, after_write, on_poison)
        self._queue: deque[Item] = deque()
        self._spilled: deque[str] = deque()
        self._in_hand: list[Item] = []
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._hurries = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._up = True
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "up" if self._up else "down"
        return f"LedgerWriter({state}, queued={self.queued}, spilled={len(self._spilled)})"

    @property
    def up(self) -> bool:
        """Whether the last batch could be written."""
        return self._up

    @property
    def queued(self) -> int:
        """Records and objects that are not in SQL yet."""
        return len(self._queue) + len(self._spilled) + len(self._in_hand)

    @property
    def lag_s(self) -> float:
        """How long ago the oldest record ended that is not in SQL yet; 0 where all are. RuntimeError where the
        queue changes under a thread that asks.
        """
        waiting = (item.ended_at_ms for item in chain(self._in_hand, self._queue) if isinstance(item, Record))
        ended_at_ms = next(waiting, None)
        return 0.0 if ended_at_ms is None else max(0.0, (self._clock.now_ms() - ended_at_ms) / 1000)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="ledger writer")

    def submit(self, record: Record) -> None:
        """After the journal's ``close``."""
        self._add(record)

    def remember(self, owned: OwnedObject) -> None:
        """After the journal's ``seen``, and before the record of the same request is submitted."""
        self._add(owned)

    def hurry(self) -> None:
        """What waits is written now, without waiting for more."""
        self._hurries = True
        self._full.set()

    def _add(self, item: Item) -> None:
        queue = self._queue
        # Once one waits on the disk all that follow do, so that no record overtakes its objects. What the
        # journal could not write stays in memory, beyond the bound: it is nowhere else.
        behind = self._spilled or len(queue) >= self._queue_items_max
        if behind and self._journal.holds(item.request_id):
            if not self._spilled or self._spilled[-1] != item.request_id:
                self._spilled.append(item.request_id)
            return
        queue.append(item)
        if len(queue) == 1:
            self._idle.clear()
            self._some.set()
        if len(queue) >= self._batch_items_max:
            self._full.set()

    async def drain(self, timeout_s: float) -> int:
        """Writes all that was submitted, for at most ``timeout_s``; returns what is left, which the journal
        keeps for the next start.
        """
        self._draining = True
        self._full.set()
        # A timeout is told by what is left.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        self._draining = False
        return self.queued

    async def stop(self) -> None:
        """Ends the task; call ``drain`` first."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        delay_s = RETRY_DELAY_MIN_S
        while True:
            if not self._in_hand:
                await self._wait_for_work()
            try:
                await self._flush()
            except DatabaseUnavailable as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 - a bug must not end the only way into the bill
                reason = f"{type(error).__name__} in the ledger writer"
            else:
                delay_s = RETRY_DELAY_MIN_S
                self._set_up(True, "")
                continue
            self._set_up(False, reason)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
            delay_s = min(delay_s * 2, self._retry_delay_max_s)

    async def _wait_for_work(self) -> None:
        """Waits for the first item and then, so that a commit is worth its sync, for more."""
        if not self._queue:
            self._some.clear()
            self._idle.set()
            await self._some.wait()
        if len(self._queue) < self._batch_items_max and not self._draining and not self._hurries:
            self._full.clear()
            # A timeout is the usual end of this.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._flush_interval_s):
                    await self._full.wait()

    async def _flush(self) -> None:
        """Writes one batch. Until it is committed its items stay in hand, and are tried again."""
        queue = self._queue
        self._hurries = False
        if not self._in_hand:
            self._in_hand = [queue.popleft() for _ in range(min(len(queue), self._batch_items_max))]
        new = await commit(self._database, self._in_hand, self._clock.now_ms(), self._hooks)
        written, self._in_hand = self._in_hand, []
        records = [item.request_id for item in written if isinstance(item, Record)]
        self._journal.settled(records)
        if len(records) < len(written):
            self._journal.remembered(item.request_id for item in written if not isinstance(item, Record))
        while self._spilled and len(queue) < self._batch_items_max:
            await self._take_back()
        self._on_written(len(records), new)

    async def _take_back(self) -> None:
        """Reads what waits on the disk, in its order, behind what waits in memory."""
        request_ids = list(islice(self._spilled, self._batch_items_max))
        places = [self._journal.places_of(request_id) for request_id in request_ids]
        try:
            found = await asyncio.to_thread(read_places, list(chain.from_iterable(places)))
        except (OSError, ValueError):
            found = await asyncio.to_thread(self._read_each, request_ids, places)
        for _ in request_ids:
            self._spilled.popleft()
        self._queue.extend(found)

    def _read_each(self, request_ids: Sequence[str], places: Sequence[Sequence[Place]]) -> list[Item]:
        """What can be read of a disk that has gone bad; the rest stays where it is, for the next start."""
        found: list[Item] = []
        for request_id, each in zip(request_ids, places, strict=True):
            try:
                found += read_places(each)
            except (OSError, ValueError) as error:
                self._on_poison(request_id, f"it cannot be read back from the journal: {error}")
        return found

    def _set_up(self, up: bool, reason: str) -> None:  # noqa: FBT001 - the shape of the callback
        if up != self._up:
            self._up = up
            self._on_state(up, reason)
