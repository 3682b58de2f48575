"""Begins to look when somebody does, here or elsewhere, and ends with the last of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from app.core.errors import Draining, Overloaded
from app.telemetry.live.board import FINISHED_KEPT, FINISHED_KEPT_WATCHED, LiveBoard
from app.telemetry.live.deltas import Delta, Watch
from app.telemetry.live.scene import Scene
from app.telemetry.live.viewer import TICK_S, Event, Scope, Viewer

VIEWERS_MAX = 20
OF_KEYS_MAX = 10
OF_ONE_KEY_MAX = 3
"""Whoever has a key must not keep administrators out, nor other keys."""
RETRY_AFTER_MS = 5_000


class TooManyViewers(Overloaded):
    default_message = "As many watch the live feed of this process as may."


class Sharing(Protocol):
    """The way to and from the other processes of this gateway. None of its calls waits."""

    @property
    def is_watched(self) -> bool:
        """Whether somebody looks, in whichever process."""
        ...

    @property
    def is_degraded(self) -> bool:
        """Whether others may be there and cannot be heard."""
        ...

    def begin(self, on_delta: Callable[[Delta], bool]) -> None:
        """Somebody looks here: ``on_delta`` is given what others tell, and says whether it follows what was before."""

    def end(self) -> None:
        """Nobody looks here any more."""

    def tell(self, delta: Delta, whole: Callable[[Delta], Delta]) -> None:
        """Tell the others, where somebody looks: ``delta``, or ``whole`` of it where they have missed some."""


class LiveFeed:
    """The live feed of one process. ``process`` is unique; ``worker`` is its name for people."""

    def __init__(
        self, board: LiveBoard, *, process: str, worker: str, is_over: Callable[[], bool], sharing: Sharing | None
    ) -> None:
        """``is_over``: whether this process has begun to drain."""
        self.board = board
        self._process = process
        self._worker = worker
        self._is_over = is_over
        self._sharing = sharing
        self._viewers: set[Viewer] = set()
        self._watch: Watch | None = None
        self._scene: Scene | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"LiveFeed(viewers={len(self._viewers)}, watching={self._watch is not None})"

    @property
    def viewers(self) -> int:
        """How many look, in this process."""
        return len(self._viewers)

    @property
    def is_over(self) -> bool:
        """Whether everybody is to be sent away."""
        return self._is_over()

    @property
    def is_degraded(self) -> bool:
        """Whether other processes may be there and cannot be heard."""
        return self._sharing is not None and self._sharing.is_degraded

    def open(self, scope: Scope) -> Viewer:
        """One more who looks; every one is to be closed. Raises TooManyViewers, Draining."""
        if self.is_over:
            raise Draining
        if not self._has_room_for(scope):
            raise TooManyViewers(retry_after_ms=RETRY_AFTER_MS)
        if self._scene is None:
            self._scene = Scene()
            watch = self._watched()
            # What has changed is for those who look already; this one begins with all of it.
            delta = watch.look()
            self._tell_others(delta, watch)
            self._scene.take(watch.whole(delta), time.monotonic())
            if self._sharing is not None:
                self._sharing.begin(self._heard)
        viewer = Viewer(self._scene, scope)
        self._viewers.add(viewer)
        self.wake()
        return viewer

    def close_viewer(self, viewer: Viewer) -> None:
        self._viewers.discard(viewer)
        if not self._viewers and self._scene is not None:
            self._scene = None
            if self._sharing is not None:
                self._sharing.end()

    def first(self, viewer: Viewer) -> list[Event]:
        """What ``viewer`` is told first."""
        return viewer.snapshot(time.monotonic(), degraded=self.is_degraded)

    def next(self, viewer: Viewer) -> list[Event]:
        """What ``viewer`` is told now, ``TICK_S`` after what it was told before."""
        self.wake()
        return viewer.tick(time.monotonic(), degraded=self.is_degraded)

    def wake(self) -> None:
        """Somebody looks, here or elsewhere."""
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="live feed")

    async def close(self) -> None:
        """Nobody is told anything any more; the others are told that."""
        self._closed = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        if self._sharing is not None:
            over = Delta(self._process, 0, over=True)
            self._sharing.tell(over, lambda delta: delta)

    def _has_room_for(self, scope: Scope) -> bool:
        if scope.key_id is not None:
            of_keys = [viewer.scope.key_id for viewer in self._viewers if viewer.scope.key_id is not None]
            if len(of_keys) >= OF_KEYS_MAX or of_keys.count(scope.key_id) >= OF_ONE_KEY_MAX:
                return False
        return len(self._viewers) < VIEWERS_MAX

    def _watched(self) -> Watch:
        if self._watch is None:
            self.board.keep(FINISHED_KEPT_WATCHED)
            self._watch = Watch(self.board, self._process, self._worker)
        return self._watch

    async def _run(self) -> None:
        try:
            while self._viewers or (self._sharing is not None and self._sharing.is_watched):
                self._look()
                await asyncio.sleep(TICK_S)
        finally:
            # Also after a bug: whoever still looks wakes it again.
            self._watch = self._task = None
            self.board.keep(FINISHED_KEPT)

    def _look(self) -> None:
        is_new = self._watch is None
        watch = self._watched()
        delta = watch.look()
        self._tell_others(delta, watch)
        if self._scene is not None:
            now_s = time.monotonic()
            self._scene.take(watch.whole(delta) if is_new else delta, now_s)
            self._scene.expire(now_s)

    def _tell_others(self, delta: Delta, watch: Watch) -> None:
        if self._sharing is not None:
            self._sharing.tell(delta, watch.whole)

    def _heard(self, delta: Delta) -> bool:
        if self._scene is None or delta.process == self._process:
            return True
        return self._scene.take(delta, time.monotonic())
