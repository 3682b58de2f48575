"""One socket to one server. What is sent in one turn of the event loop leaves in one write."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from app.store.redis.address import Address
from app.store.redis.calls import (
    Argument,
    Call,
    Outcomes,
    Post,
    RedisReplyError,
    RedisUnavailable,
    Script,
    pack,
)

Redirect = Callable[[Call, str], None]

LOOP_LATE_S = 0.05

# Answers that condemn the connection: the server behind it cannot serve until something changes there.
_UNFIT = ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH")
_ELSEWHERE = ("MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN")
NOTHING = object()


class Connection(asyncio.Protocol):
    """Answers go to the waiting calls in the order in which those were sent.

    ``redirect`` takes over the calls and posts that a cluster's node will not execute.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout_s: float,
        outcomes: Outcomes | None = None,
        redirect: Redirect | None = None,
    ) -> None:
        self._loop = loop
        self._time = loop.time
        self._timeout_s = timeout_s
        self._outcomes = outcomes or Outcomes()
        self._redirect = redirect
        self._reader = hiredis.Reader(notEnoughData=NOTHING)
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loads: dict[str, asyncio.Future[Any]] = {}
        self.waiting: deque[Call] = deque()
        self.lost: asyncio.Future[str] = loop.create_future()
        self.run_id: str | None = None
        """Which run of which server this is, once it was asked."""

    def __repr__(self) -> str:
        state = f"lost: {self.lost.result()}" if self.lost.done() else "open"
        return f"Connection({state}, run {self.run_id}, waiting {len(self.waiting)})"

    async def open(self, address: Address, tls: ssl.SSLContext | None, timeout_s: float) -> None:
        """Connect and authenticate; OSError, ValueError (a name that is no host's) or RedisError."""
        try:
            async with asyncio.timeout(timeout_s):
                if address.path is not None:
                    await self._loop.create_unix_connection(lambda: self, address.path)
                else:
                    await self._loop.create_connection(lambda: self, address.host, address.port, ssl=tls)
            if address.password is not None:
                user = () if address.username is None else (address.username,)
                await self.command("AUTH", *user, address.password)
        except BaseException as error:
            self.close(str(error))
            raise

    def send(self, call: Call) -> None:
        script = call.script
        if script is not None and script.sha not in self._loads:
            self._load(script)
        call.timeout_at_s = self._time() + self._timeout_s
        self.waiting.append(call)
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(call.packed)
        if self._timer is None:
            self._timer = self._loop.call_at(call.timeout_at_s, self._check_oldest, call.timeout_at_s)
        if script is not None and script.at_once:
            self._flush()

    def send_asking(self, call: Call) -> None:
        """Send ``call`` to a node that a slot is being moved to. ASKING holds for the very next command."""
        script = call.script
        if script is not None and script.sha not in self._loads:
            self._load(script)
        self.command("ASKING").add_done_callback(_seen)
        self.send(call)

    def command(self, *words: Argument) -> asyncio.Future[Any]:
        """One command that is not a script."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.lost.done():
            answer.set_exception(RedisUnavailable(self.lost.result(), sent=False))
        else:
            self.send(Call(pack(*words), answer, None))
        return answer

    def close(self, reason: str) -> None:
        """Give the connection up and tell every caller; posts stay in ``waiting`` for another one."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        for call in self.waiting:
            if call.answer is not None and not call.answer.done():
                call.answer.set_exception(RedisUnavailable(reason, sent=True))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.lost.done():  # given up while it was being made
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while not self.lost.done() and (reply := self._reader.gets()) is not NOTHING:
                if not self.waiting:
                    self.close("the server sent an answer that nobody asked for")
                elif isinstance(reply, hiredis.ReplyError):
                    self._answer_error(self.waiting.popleft(), str(reply))
                else:
                    call = self.waiting.popleft()
                    answer = call.answer
                    if answer is not None:
                        if not answer.done():
                            answer.set_result(reply)
                    elif type(call) is Post:
                        self._outcomes.answered(call, reply)
        except hiredis.ProtocolError:
            self.close("the server does not speak the Redis protocol")

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(f"connection lost: {exc}" if exc else "the server closed the connection")

    def _load(self, script: Script) -> None:
        # Before its first call, not after a NOSCRIPT: what is sent meanwhile would overtake the call.
        self._loads[script.sha] = load = self.command("SCRIPT", "LOAD", script.source)
        load.add_done_callback(_seen)  # the calls behind it get an error of their own

    def _flush(self) -> None:
        # What the transport has to hold is bounded by the calls in flight and their timeout.
        if self._unsent and self._transport is not None and not self.lost.done():
            self._transport.write(b"".join(self._unsent))
        self._unsent = []

    def _answer_error(self, call: Call, text: str) -> None:
        if text.startswith("NOSCRIPT") and call.script is not None and not call.resent:
            if self._loads[call.script.sha].done():  # else it is on its way, after this call
                del self._loads[call.script.sha]
            call.resent = True
            self.send(call)
            return
        if self._redirect is not None and text.startswith(_ELSEWHERE):
            self._redirect(call, text)
            return
        unfit = text.startswith(_UNFIT)
        if isinstance(call, Post):
            if unfit:  # nothing was executed: it is for the next server
                self.waiting.appendleft(call)
            else:
                self._outcomes.refused(call, text)
        elif call.answer is not None and not call.answer.done():
            call.answer.set_exception(RedisReplyError(text))
        if unfit:
            self.close(text)

    def _check_oldest(self, due_s: float) -> None:
        """One timer serves all calls: their timeouts are alike, so the oldest is due first."""
        self._timer = None
        if not self.waiting:
            return
        now_s = self._time()
        next_s = self.waiting[0].timeout_at_s
        if now_s >= next_s:
            if now_s - due_s < LOOP_LATE_S:
                self.close(f"no answer within {self._timeout_s * 1000:.0f} ms")
                return
            # It was this loop that stood still: the answers may lie unread in the socket.
            next_s = now_s + LOOP_LATE_S
        self._timer = self._loop.call_at(next_s, self._check_oldest, next_s)


def _seen(answer: asyncio.Future[Any]) -> None:
    """Nobody awaits this one: its error is looked at here, so that it is not reported as forgotten."""
    answer.exception()
