"""Answers that are known whole before they are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from app.simulator.errors import error_body
from app.simulator.events import DELTA, TERMINAL, Event
from app.simulator.responses_answer import FAILURE_MESSAGE
from app.simulator.routes import JSON
from app.simulator.usage_report import report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.simulator.log import BilledUsage
    from app.simulator.steering import Steering

Members = dict[str, Any]


class WholeAnswer:
    """One body of any kind."""

    complete = True
    failed_status = 500

    def __init__(self, data: bytes, content_type: bytes = JSON) -> None:
        self._data = data
        self.content_type = content_type

    @classmethod
    def of_object(cls, value: Members, usage: Members | None, steering: Steering) -> WholeAnswer:
        """A JSON body that reports ``usage``, as steered."""
        if usage is not None:
            report(value, usage, steering.usage)
        return cls(msgspec.json.encode(value))

    def body(self) -> bytes:
        return self._data

    def failed_body(self) -> bytes:
        return error_body(FAILURE_MESSAGE, "server_error", None, "server_error")


class EventsAnswer(WholeAnswer):
    """A stream whose last event says what it has cost."""

    def __init__(self, events: list[Members], used: BilledUsage) -> None:
        super().__init__(b"")
        self._events = events
        self._used = used
        self._told = 0

    def events(self) -> Iterator[Event]:
        last = len(self._events) - 1
        for index, members in enumerate(self._events):
            self._told = self._used.output_tokens * (index + 1) // (last + 1)
            yield self._event(members, TERMINAL if index == last else DELTA)

    def failure(self) -> Event:
        error = {"message": FAILURE_MESSAGE, "type": "server_error", "param": None, "code": "server_error"}
        return self._event({"type": "error", "error": error}, DELTA)

    def error(self) -> Event:
        return self.failure()

    def unknown(self) -> Event:
        return self._event({"type": "simulator_note", "note": {"weight": None}}, DELTA)

    def terminal_again(self) -> Event:
        return self._event(self._events[-1], DELTA)

    def _event(self, members: Members, kind: int) -> Event:
        return Event(members["type"].encode(), msgspec.json.encode(members), self._told, 0, kind)
