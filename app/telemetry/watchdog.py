"""Watches the event loop: how late it is, and where it stands when it does not move at all.

From inside nobody can say "not ready" while the loop stands still, since it is the loop that answers: a
probe that gets no answer in time says it. What is told here is why.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import FrameType

from app.telemetry.logs import LogWriter

BEAT_S = 0.25
BLOCKED_S = 5.0
LAG_WINDOW_S = 30.0
STACK_FRAMES_MAX = 30


class Watchdog:
    """Beats in the loop that starts it, and looks at the beats from a thread."""

    def __init__(self, log: LogWriter, *, beat_s: float = BEAT_S, blocked_s: float = BLOCKED_S) -> None:
        self._log = log
        self._beat_s = beat_s
        self._blocked_s = blocked_s
        self._beat_at_s = time.monotonic()
        self._lags: deque[tuple[float, float]] = deque(maxlen=round(LAG_WINDOW_S / beat_s))
        self._timer: asyncio.TimerHandle | None = None
        self._loop_thread = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __repr__(self) -> str:
        return f"Watchdog(lag={self.lag_s:.3f} s)"

    @property
    def lag_s(self) -> float:
        """The longest that the loop was late in the last half minute, now included."""
        now_s = time.monotonic()
        late_s = [late_s for at_s, late_s in tuple(self._lags) if now_s - at_s <= LAG_WINDOW_S]
        return max(0.0, now_s - self._beat_at_s - self._beat_s, *late_s)

    def start(self) -> None:
        """In the thread of the loop that is to be watched."""
        self._loop_thread = threading.get_ident()
        self._beat_at_s = time.monotonic()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._beat_s, self._beat, loop)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.join()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = time.monotonic()
        self._lags.append((now_s, now_s - self._beat_at_s - self._beat_s))
        self._beat_at_s = now_s
        self._timer = loop.call_later(self._beat_s, self._beat, loop)

    def _watch(self) -> None:
        blocked_at_s: float | None = None
        while not self._stop.wait(self._blocked_s / 10):
            beat_at_s = self._beat_at_s
            if blocked_at_s is not None and beat_at_s != blocked_at_s:
                self._log.warning("event_loop_resumed", blocked_s=round(beat_at_s - blocked_at_s, 1))
                blocked_at_s = None
            elif blocked_at_s is None and time.monotonic() - beat_at_s > self._blocked_s:
                blocked_at_s = beat_at_s
                frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - the one way to see another thread
                self._log.error("event_loop_blocked", stack=_places(frame))


def _places(frame: FrameType | None) -> list[str]:
    """Files, lines and names, the innermost first: never a value."""
    places: list[str] = []
    while frame is not None and len(places) < STACK_FRAMES_MAX:
        code = frame.f_code
        places.append(f"{Path(code.co_filename).name}:{frame.f_lineno}:{code.co_name}")
        frame = frame.f_back
    return places
