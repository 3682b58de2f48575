"""The live feed's way from process to process: a channel of Redis, used only while somebody looks.

Whoever looks says so by a key that expires, and asks for all that there is by another, which counts. Every process
looks at both once a second. What is published is signed with a secret of this ledger: of who may write to Redis, not
everybody is to put requests before an administrator's eyes.

A Redis that is slow or away costs the feed the other processes, and nobody else anything: at most one message is on
its way, and nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from app.store.redis import Redis, RedisError
from app.store.redis.subscription import Subscription
from app.telemetry.live.deltas import Delta

POLL_S = 1.0
ASK_EVERY_S = 1.0
WATCHED_MS = 5_000
ASKED_MS = 3_600_000
ALIVE_S = 2.0
"""A process says at least so often that it is there."""
CONNECTING_S = 1.5
"""So long after somebody has begun to look, that nothing is heard yet says nothing."""
MESSAGE_BYTES_MAX = 512 * 1024
SIGNATURE_BYTES = 16

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Delta)


class Names:
    """Of one deployment, by the secret of its ledger: deployments may share a server."""

    def __init__(self, secret: bytes) -> None:
        tag = hashlib.sha256(b"live feed\0" + secret).hexdigest()[:16]
        self.channel = f"hg:live:{{{tag}}}"
        self.watched = f"{self.channel}:watched"
        self.asked = f"{self.channel}:asked"

    def __repr__(self) -> str:
        return f"Names({self.channel})"


class RedisSharing:
    """``app.telemetry.live.Sharing`` over Redis. The client is its owner's to start and to close."""

    def __init__(self, client: Redis, url: str, secret: bytes, *, process: str) -> None:
        """Raises ValueError, without the URL, if that is none."""
        self._client = client
        self._secret = secret
        self._process = process
        self._names = Names(secret)
        self._subscription = Subscription(url, self._names.channel, on_message=self._heard, on_up=self._ask)
        self._on_delta: Callable[[Delta], bool] | None = None
        self._on_watched: Callable[[], None] = _nothing
        self._is_watched = False
        self._asked: bytes | None = None
        self._number = 0
        self._owes_whole = True
        self._sent_s = 0.0
        self._began_s = 0.0
        self._asked_at_s = -ASK_EVERY_S
        self._sending: asyncio.Future[Any] | None = None
        self._unanswered: set[asyncio.Future[Any]] = set()
        self._poller: asyncio.Task[None] | None = None
        self.refused = 0
        """Messages that were not ours, or not whole."""

    def __repr__(self) -> str:
        return f"RedisSharing({self._subscription!r}, is_watched={self._is_watched}, refused={self.refused})"

    @property
    def is_watched(self) -> bool:
        return self._is_watched

    @property
    def is_degraded(self) -> bool:
        if self._on_delta is None or (self._subscription.up and self._client.up):
            return False
        return asyncio.get_running_loop().time() - self._began_s > CONNECTING_S

    def start(self, on_watched: Callable[[], None]) -> None:
        """``on_watched`` is called when somebody looks."""
        self._on_watched = on_watched
        self._poller = asyncio.get_running_loop().create_task(self._poll(), name="live feed's watchers")

    async def close(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait((self._poller,))
            self._poller = None
        await self._subscription.close()
        if self._unanswered:
            await asyncio.wait(list(self._unanswered), timeout=POLL_S)

    def begin(self, on_delta: Callable[[Delta], bool]) -> None:
        self._on_delta = on_delta
        self._began_s = asyncio.get_running_loop().time()
        self._subscription.start()

    def end(self) -> None:
        self._on_delta = None
        self._subscription.stop()

    def tell(self, delta: Delta, whole: Callable[[Delta], Delta]) -> None:
        if not self._is_watched:
            self._owes_whole = True
            return
        now_s = asyncio.get_running_loop().time()
        if self._sending is not None and not self._sending.done():
            # It is slow: what it misses is made good by all of it.
            self._owes_whole = self._owes_whole or not delta.is_empty
            return
        if self._owes_whole and not delta.over:
            delta = whole(delta)
        elif delta.is_empty and not delta.over and now_s - self._sent_s < ALIVE_S:
            return
        self._number += 1
        message = self._signed(msgspec.structs.replace(delta, number=self._number))
        self._sent_s = now_s
        self._sending = self._send("PUBLISH", self._names.channel, message)
        self._owes_whole = self._sending is None

    def _signed(self, delta: Delta) -> bytes:
        packed = _encoder.encode(delta)
        if len(packed) > MESSAGE_BYTES_MAX:
            # Tags are long at times. What has ended is then only counted.
            delta = msgspec.structs.replace(delta, finished=[], recent=[])
            packed = _encoder.encode(delta)
        return self._signature(packed) + packed

    def _signature(self, packed: bytes) -> bytes:
        return hmac.digest(self._secret, packed, "sha256")[:SIGNATURE_BYTES]

    def _heard(self, message: bytes) -> None:
        on_delta = self._on_delta
        if on_delta is None:
            return
        signature, packed = message[:SIGNATURE_BYTES], message[SIGNATURE_BYTES:]
        if len(packed) > MESSAGE_BYTES_MAX or not hmac.compare_digest(signature, self._signature(packed)):
            self.refused += 1
            return
        try:
            delta = _decoder.decode(packed)
        except msgspec.MsgspecError:  # of another version
            self.refused += 1
            return
        if delta.process != self._process and not on_delta(delta):
            self._ask_again()

    def _ask_again(self) -> None:
        if asyncio.get_running_loop().time() - self._asked_at_s >= ASK_EVERY_S:
            self._ask()

    def _ask(self) -> None:
        """Say that somebody looks here, and knows nothing yet."""
        self._asked_at_s = asyncio.get_running_loop().time()
        self._send("SET", self._names.watched, 1, "PX", WATCHED_MS)
        self._send("INCR", self._names.asked)
        self._send("PEXPIRE", self._names.asked, ASKED_MS)

    def _send(self, *words: str | bytes | int) -> asyncio.Future[Any] | None:
        try:
            answer = self._client.command(self._names.channel, *words)
        except RedisError:
            return None
        self._unanswered.add(answer)
        answer.add_done_callback(self._answered)
        return answer

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        self._unanswered.discard(answer)
        if answer.cancelled() or answer.exception() is not None:
            self._owes_whole = True

    async def _poll(self) -> None:
        known_s = asyncio.get_running_loop().time()
        while True:
            now_s = asyncio.get_running_loop().time()
            with suppress(RedisError):
                if self._on_delta is not None and self._subscription.up:
                    self._send("SET", self._names.watched, 1, "PX", WATCHED_MS)
                self._is_watched = await self._look()
                known_s = now_s
            if now_s - known_s > WATCHED_MS / 1000:
                # For as long as the key lasts, a server that stammers changes nothing.
                self._is_watched = False
            if self._is_watched:
                self._on_watched()
            await asyncio.sleep(POLL_S)

    async def _look(self) -> bool:
        names = self._names
        answer = await self._client.command(names.channel, "MGET", names.watched, names.asked)
        watched, asked = answer if isinstance(answer, list) and len(answer) == 2 else (None, None)
        if asked != self._asked:
            self._asked = asked
            self._owes_whole = True
        return watched is not None


def _nothing() -> None:
    """Nobody is to be told yet."""
