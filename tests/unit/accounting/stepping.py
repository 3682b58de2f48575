"""Drives the accounting core by hand: each command that it asks for is compared, and answered by the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from app.accounting.steps import Command, LedgerAway, Steps
from app.limits.hot import StoreAway

T = TypeVar("T")

NOT_SENT = StoreAway(sent=False)
SENT = StoreAway(sent=True)
NO_SQL = LedgerAway()


class Meanwhile:
    """An answer before which something else happens in the same process."""

    def __init__(self, happens: Callable[[], object], answer: Any = None) -> None:
        self.happens = happens
        self.answer = answer


class Walk:
    """Steps that are taken one at a time; ``command`` is what they wait for, None once they are over."""

    def __init__(self, steps: Steps[Any]) -> None:
        self._steps = steps
        self.command: Command | None = None
        self.result: Any = None
        self._advance(lambda: next(steps))

    def answer(self, answer: Any = None) -> Command | None:
        """What is asked for next."""
        if isinstance(answer, Meanwhile):
            answer.happens()
            return self.answer(answer.answer)
        if isinstance(answer, Exception):
            return self._advance(lambda: self._steps.throw(answer))
        return self._advance(lambda: self._steps.send(answer))

    def expect(self, command: Command, answer: Any = None) -> Command | None:
        assert self.command == command
        return self.answer(answer)

    def give_up(self) -> None:
        """Nobody waits for them any more."""
        self._steps.close()

    def _advance(self, advance: Callable[[], Command]) -> Command | None:
        try:
            self.command = advance()
        except StopIteration as end:
            self.command, self.result = None, end.value
        return self.command


def play(steps: Steps[T], *script: tuple[Command, Any]) -> T:
    """Take ``steps`` to their end: they ask for the commands of ``script``, each of which is answered with what
    stands beside it, and for nothing else. Returns, or raises, what they do.
    """
    walk = Walk(steps)
    for command, answer in script:
        walk.expect(command, answer)
    assert walk.command is None, f"not over: {walk.command!r}"
    result: T = walk.result
    return result
