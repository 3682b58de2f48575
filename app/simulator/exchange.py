"""One attempt while it is answered: what it was asked for, and what is billed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.simulator.log import BilledUsage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.core.clock import Clock
    from app.simulator.channel import Channel
    from app.simulator.log import Served, ServedLog, ServedOutcome
    from app.simulator.steering import Steering

    Endpoint = Callable[["Exchange", bytes, bytes | None], Awaitable[None]]


class Exchange:
    """A channel, its entry in the log, and its directives. ``used`` is what the whole answer uses.

    Where it ``runs_on``, somebody else will end it.
    """

    __slots__ = ("_log", "channel", "clock", "content_type", "request_id", "runs_on", "served", "steering", "used")

    def __init__(
        self,
        channel: Channel,
        served: Served,
        steering: Steering,
        used: BilledUsage,
        clock: Clock,
        request_id: bytes,
        log: ServedLog,
    ) -> None:
        self._log = log
        self.channel = channel
        self.served = served
        self.steering = steering
        self.used = used
        self.clock = clock
        self.request_id = request_id
        self.content_type = b""
        self.runs_on = False

    def bill_input(self) -> None:
        """The model has begun to read: from here on the attempt costs money."""
        usage = self.served.usage
        usage.input_tokens = self.used.input_tokens
        usage.cached_tokens = self.used.cached_tokens
        usage.seconds = self.used.seconds
        self.served.billed = self.steering.billed is not False
        self._log.note(self.served)

    def bill_output(self, output_tokens: int, reasoning_tokens: int) -> None:
        """Generated so far."""
        usage = self.served.usage
        usage.output_tokens = output_tokens
        usage.reasoning_tokens = reasoning_tokens
        self._log.note(self.served)

    def bill_all(self) -> None:
        """The whole answer has been generated."""
        self.bill_input()
        self.bill_output(self.used.output_tokens, self.used.reasoning_tokens)

    def bill_nothing(self) -> None:
        """Refused before any work, unless steered to be billed all the same."""
        if self.steering.billed:
            self.bill_all()

    def end(self, outcome: ServedOutcome) -> None:
        """Close the entry; nothing is billed after this."""
        served = self.served
        if not served.billed:
            served.usage = BilledUsage()
        served.close(outcome, self.clock.now_ms())
        self._log.note(served)
