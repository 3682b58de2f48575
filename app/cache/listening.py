"""One client of a shared answer: what it was told, and how that ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from app.core.errors import GatewayError, Headers
from app.core.exchange import Connection

if TYPE_CHECKING:
    from app.cache.sharing import SharedAnswer


class Rider(Protocol):
    """Who listens: what is its own in an answer, and its account."""

    def headers_for(self, shared: Headers, *, stream: bool) -> Headers:
        """The head of its answer, of the headers that all have alike."""

    def settle(self) -> None:
        """What comes next is the last; its account is closed before that."""

    def left(self) -> None:
        """Its client has gone."""


class Listener:
    """One client of a shared answer. ``ended`` is a future of how it ended: ``whole``, ``cut``, ``left``,
    ``refused`` (``refusal`` says why) or ``abandoned``: nothing was sent, and it may ask again. Nothing is sent
    before ``begin``.
    """

    __slots__ = (
        "_answer",
        "_begun",
        "_connection",
        "_lagging",
        "_pump",
        "_rider",
        "_settled",
        "_started",
        "ended",
        "position",
        "refusal",
    )

    def __init__(self, answer: SharedAnswer, connection: Connection, rider: Rider) -> None:
        self.position = 0
        self.refusal: GatewayError | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self._connection = connection
        self._rider = rider
        self._begun = False
        self._started = False
        self._settled = False
        self._lagging = False
        self._pump: asyncio.Task[None] | None = None
        connection.on_disconnect(self._left)

    def __repr__(self) -> str:
        return f"Listener(position={self.position}, lagging={self._lagging}, ended={self.ended.done()})"

    @property
    def is_slow(self) -> bool:
        """Whether its client has not read what there is, or is told nothing yet."""
        return self._lagging or not self._begun

    def begin(self) -> None:
        """It is admitted: from now on it is told what comes, and what has come."""
        self._begun = True
        self.catch_up()
        self._answer.freed()

    def catch_up(self) -> None:
        """Give it what there is, as far as its client takes it now."""
        if self._begun and not self._lagging and not self.ended.done() and self._answer.response_started:
            self._advance()

    def settle(self) -> None:
        """What it is told next is the last. Nothing is settled for whom nothing was told: it may have to ask again."""
        if self._started and not self._settled and not self.ended.done():
            self._settled = True
            self._rider.settle()

    @property
    def has_started(self) -> bool:
        """Whether its client has been told anything."""
        return self._started

    def abandon(self) -> None:
        """The call that it waited for is not made."""
        self._end("abandoned")

    def drop(self, how: str) -> None:
        """It listens no longer; what its client is told is for others to say."""
        self._end(how)
        self._answer.forget(self)

    def revoke(self, ending: bytes | None) -> None:
        """Its key is revoked: it ends here as ``revoked``, with the event ``ending`` where there is one and its client
        has all that came before it. Who was told nothing yet is for the caller to answer.
        """
        if self.ended.done():
            return
        self.drop("revoked")
        if not self._started:
            return
        if ending is None or self._lagging:
            self._connection.abort()
        else:
            self._connection.finish(ending)

    def cut(self) -> None:
        """End it here, so that it does not look whole."""
        if self.ended.done():
            return
        if self._started:
            self._end("cut")
            self._connection.abort()
        else:
            self._end("abandoned")

    def _advance(self) -> None:
        """Write until all is written, or its client is slow."""
        answer, connection = self._answer, self._connection
        if not self._started:
            try:
                headers = self._rider.headers_for(answer.headers, stream=answer.is_stream)
            except GatewayError as error:
                self.refusal = error
                self.drop("refused")
                return
            self._started = True
            if answer.is_settled or not answer.is_stream:
                # What follows may be all that its client waits for.
                self.settle()
            if not answer.is_stream:
                self._end("whole")
                connection.respond(answer.status, headers, answer.parts[0])
                return
            connection.start(answer.status, headers)
        while self.position < answer.end:
            connection.write(answer.part(self.position))
            self.position += 1
            if connection.write_paused:
                self._lagging = True
                self._pump = asyncio.get_running_loop().create_task(self._wait(), name="slow client")
                return
        if answer.over == "whole":
            self.settle()
            self._end("whole")
            connection.finish()

    async def _wait(self) -> None:
        drained = await self._connection.drained(self._answer.slow_client_s)
        self._lagging = False
        if not drained and not self.ended.done():
            self._left()
            self._connection.abort()
        self.catch_up()
        self._answer.freed()

    def _left(self) -> None:
        if not self.ended.done():
            self._rider.left()
            self.ended.set_result("left")
            self._answer.forget(self)

    def _end(self, how: str) -> None:
        if not self.ended.done():
            self.ended.set_result(how)
            self._connection.on_disconnect(_nothing)


def _nothing() -> None:
    """For connections that nobody watches any more."""
