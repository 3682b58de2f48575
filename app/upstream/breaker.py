"""Whether an upstream is worth a call: a circuit breaker, and the rest that an upstream asked for.

closed ──(``failures`` in a row, or ``failed_percent`` of ``calls_min`` in ``window_s``)──▶ open
open ──(after ``open_s``)──▶ half-open: ``probes`` calls at a time, real ones
half-open ──(a probe succeeds)──▶ closed; ──(a probe fails)──▶ open

Whoever makes a call says so with ``begin``, and what came of it with exactly one of ``succeeded``, ``failed`` and
``forget`` (nothing can be said: the client left, or our own bound of connections was met). No I/O and no timers: all
is decided when it is asked, which for a healthy upstream costs a microsecond.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from app.settings import BreakerSettings

REST_S_MAX = 120.0
"""An upstream is left in peace for no longer than this, whatever it asks for."""
RESTS_MAX = 256
"""Of so many models at a time: their names are clients' text."""
EVERY_MODEL = ""
SLOTS = 10
"""A window slides by its tenth."""

ORDINARY = 0
"""The ticket of a call that is no probe."""

State = Literal["closed", "half-open", "open"]
Unfit = Literal["paused", "resting", "circuit-open"]
"""Why an upstream is passed over: ``paused`` by an administrator. One that rests is still called where there is no
other.
"""


class Breaker:
    """Of one upstream. ``settings`` None: it never opens, but a rest is kept all the same."""

    __slots__ = (
        "_calls",
        "_clock",
        "_failed",
        "_generation",
        "_in_a_row",
        "_open_until_s",
        "_opened",
        "_probes",
        "_probes_again_s",
        "_rests",
        "_settings",
        "_slot",
        "_slot_s",
        "is_paused",
    )

    def __init__(self, settings: BreakerSettings | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_paused = False
        """Whether an administrator wants nothing new to go there."""
        self._settings = settings
        self._clock = clock
        self._slot_s = settings.window_s / SLOTS if settings is not None else 1.0
        self._slot = 0
        self._calls = [0] * SLOTS
        self._failed = [0] * SLOTS
        self._in_a_row = 0
        self._opened = False
        self._open_until_s = 0.0
        self._rests: dict[str, float] = {}
        # Probes of one half-open time have its number, so that one of an earlier time changes nothing.
        self._generation = ORDINARY
        self._probes = 0
        self._probes_again_s = 0.0

    def __repr__(self) -> str:
        rests = "resting, " if self.rests else ""
        return f"Breaker({self.state}, {rests}failures_in_a_row={self._in_a_row}, probes={self._probes})"

    @property
    def state(self) -> State:
        if not self._opened:
            return "closed"
        return "open" if self._clock() < self._open_until_s else "half-open"

    @property
    def rests(self) -> bool:
        """Whether the upstream wants to be left in peace, be it with one model."""
        now_s = self._clock()
        return any(until_s > now_s for until_s in tuple(self._rests.values()))

    @property
    def opens_again_s(self) -> float:
        """In how long a call has a chance again; 0 where it has one now."""
        if not self._opened or self.unfit() != "circuit-open":
            return 0.0
        now_s = self._clock()
        return max(self._open_until_s - now_s, self._probes_again_s - now_s, 0.0)

    def unfit(self, model: str = EVERY_MODEL) -> Unfit | None:
        """Why not to call for ``model`` now; None where nothing speaks against it."""
        if self.is_paused:
            return "paused"
        if not self._opened and not self._rests:
            return None
        now_s = self._clock()
        if self._opened and not self._may_probe(now_s):
            return "circuit-open"
        return "resting" if self._rests and self._wants_rest(model, now_s) else None

    def begin(self) -> int:
        """A call is made: its ticket, to be handed back with its outcome."""
        if not self._opened:
            return ORDINARY
        now_s = self._clock()
        if now_s < self._open_until_s or self._settings is None:
            return ORDINARY
        self._probes += 1
        # One that hangs must not keep the upstream away for longer than a failed one would.
        self._probes_again_s = now_s + self._settings.open_s
        return self._generation

    def succeeded(self, ticket: int = ORDINARY) -> None:
        """An answer has begun that is not the upstream's own failure."""
        if self._settings is None:
            return
        if self._opened:
            if ticket == self._generation:
                self._close()
            return
        self._in_a_row = 0
        self._calls[self._now()] += 1

    def failed(self, ticket: int = ORDINARY) -> None:
        """Not reached, no answer in time or none at all, or one that says that the upstream has failed."""
        settings = self._settings
        if settings is None:
            return
        if self._opened:
            if ticket == self._generation:
                self._open(settings)
            return
        self._calls[self._now()] += 1
        self._count_failure(settings)

    def broke_off(self) -> None:
        """A call that had ``succeeded`` was not answered to its end after all."""
        if self._settings is not None and not self._opened:
            self._now()
            self._count_failure(self._settings)

    def forget(self, ticket: int = ORDINARY) -> None:
        """Nothing is known of a call's outcome."""
        if self._opened and ticket == self._generation and self._probes:
            self._probes -= 1

    def rest(self, seconds: float, model: str = EVERY_MODEL) -> None:
        """The upstream asked to be left in peace, with one model or at all. What is absurd becomes what is not."""
        now_s = self._clock()
        until_s = now_s + min(max(seconds, 0.0), REST_S_MAX)
        if len(self._rests) >= RESTS_MAX:
            self._rests = {name: end_s for name, end_s in self._rests.items() if end_s > now_s}
        if until_s > self._rests.get(model, now_s) and (model in self._rests or len(self._rests) < RESTS_MAX):
            self._rests[model] = until_s

    def _wants_rest(self, model: str, now_s: float) -> bool:
        rests = self._rests
        if max(rests.values()) <= now_s:
            # As fast again as if there had never been any.
            rests.clear()
            return False
        return now_s < rests.get(EVERY_MODEL, now_s) or now_s < rests.get(model, now_s)

    def _may_probe(self, now_s: float) -> bool:
        if self._settings is None:
            return True
        return now_s >= self._open_until_s and (self._probes < self._settings.probes or now_s >= self._probes_again_s)

    def _count_failure(self, settings: BreakerSettings) -> None:
        self._failed[self._slot % SLOTS] += 1
        self._in_a_row += 1
        calls, failed = sum(self._calls), sum(self._failed)
        if self._in_a_row >= settings.failures or (
            calls >= settings.calls_min and 100 * failed >= settings.failed_percent * calls
        ):
            self._open(settings)

    def _open(self, settings: BreakerSettings) -> None:
        self._opened = True
        self._generation += 1
        self._probes = 0
        self._probes_again_s = 0.0
        self._open_until_s = self._clock() + settings.open_s

    def _close(self) -> None:
        self._opened = False
        self._in_a_row = self._probes = 0
        self._calls = [0] * SLOTS
        self._failed = [0] * SLOTS

    def _now(self) -> int:
        """The window's slot for this moment; those that have passed out of it are empty again."""
        slot = int(self._clock() / self._slot_s)
        passed = slot - self._slot
        if passed > 0:
            for each in range(slot - min(passed, SLOTS) + 1, slot + 1):
                self._calls[each % SLOTS] = self._failed[each % SLOTS] = 0
            self._slot = slot
        return self._slot % SLOTS


class Call:
    """A call, of whose outcome the breaker is told once, and once more where it breaks off after it had begun."""

    __slots__ = ("_answered", "_breaker", "_over", "_ticket")

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._ticket = breaker.begin()
        self._answered = self._over = False

    def __repr__(self) -> str:
        return f"Call(answered={self._answered}, over={self._over})"

    def answered(self) -> None:
        """The upstream has said something that is not its own failure."""
        if not (self._answered or self._over):
            self._answered = True
            self._breaker.succeeded(self._ticket)

    def failed(self) -> None:
        """It was not reached, has failed, or is heard of no more."""
        if not self._over:
            self._over = True
            if self._answered:
                self._breaker.broke_off()
            else:
                self._breaker.failed(self._ticket)

    def rest(self, seconds: float, model: str) -> None:
        """The upstream wants to be left in peace with a model."""
        self._breaker.rest(seconds, model)

    def forget(self) -> None:
        """Nothing more is known; a call that was told of before has been."""
        if not (self._answered or self._over):
            self._breaker.forget(self._ticket)
        self._over = True
