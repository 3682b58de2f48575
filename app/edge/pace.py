"""Whether a client that uploads gets on: a body of any size may take its time, but must not stand still."""

from __future__ import annotations

UPLOAD_BYTES_PER_S_MIN = 1024
UPLOAD_WINDOW_S = 10.0
"""For so long an upload may be slower than that."""


class UploadPace:
    """What has come of an upload since the current window began. Times are of the event loop's clock."""

    __slots__ = ("_arrived", "_since_s")

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._arrived = 0

    def __repr__(self) -> str:
        return f"UploadPace(arrived={self._arrived}, since_s={self._since_s:.1f})"

    def arrived(self, size: int) -> None:
        self._arrived += size

    def is_too_slow(self, now_s: float, *, held_up: bool) -> bool:
        """``held_up``: it is not read at the moment, and so not to blame. To be asked more than once in a window."""
        if not held_up:
            if now_s - self._since_s < UPLOAD_WINDOW_S:
                return False
            if self._arrived < UPLOAD_BYTES_PER_S_MIN * UPLOAD_WINDOW_S:
                return True
        self._since_s = now_s
        self._arrived = 0
        return False


class ReadPace:
    """Of a client that has something to read without which nothing goes on."""

    __slots__ = ("_pending", "_progress_at_s")

    def __init__(self) -> None:
        self._pending = 0
        self._progress_at_s = 0.0

    def begin(self, now_s: float) -> None:
        """From now on it is to read."""
        self._pending = 0
        self._progress_at_s = now_s

    def is_too_slow(self, now_s: float, pending: int, slow_s: float) -> bool:
        """Whether it has read nothing for ``slow_s``; ``pending`` is what is written and not yet sent. That this grows
        is no progress of the client's.
        """
        before, self._pending = self._pending, pending
        if pending < before or not before:
            self._progress_at_s = now_s
        return now_s - self._progress_at_s >= slow_s
