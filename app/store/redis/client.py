"""A client for one server, or for the one that sentinels name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from app.store.redis.address import ClusterAddress, SentinelAddress, parse_url
from app.store.redis.calls import Argument, Call, OnAnswer, OnLost, OnRefused, Outcomes, Post, Script
from app.store.redis.link import FixedLocator, Link, drained
from app.store.redis.protocol import OnState
from app.store.redis.sentinel import SentinelLocator

TIMEOUT_S = 0.3


class RedisClient:
    """``Redis`` on one connection.

    ``on_state(up, reason)`` is called once for each change, and after the first attempt. It must not raise.
    ``on_refused(script_name, text)`` is called when the server begins to refuse a script's posts, not for each.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        on_state: OnState | None = None,
        on_refused: OnRefused | None = None,
    ) -> None:
        address = parse_url(url)
        if isinstance(address, ClusterAddress):
            raise ValueError("a cluster takes more than one connection: see connect")  # noqa: TRY004 - the URL's value
        self._locator = SentinelLocator(address) if isinstance(address, SentinelAddress) else FixedLocator(address)
        self._outcomes = Outcomes(on_refused)
        self._link = Link(self._locator, self._outcomes, timeout_s=timeout_s, on_state=on_state)
        self._loop: asyncio.AbstractEventLoop

    @property
    def up(self) -> bool:
        return self._link.up

    @property
    def posts_dropped(self) -> int:
        return self._outcomes.dropped

    def run_id_for(self, key: str) -> str | None:  # noqa: ARG002 - in a cluster it depends on the key
        return self._link.run_id

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> asyncio.Future[Any]:
        return self.call_packed(script, "", script.pack(keys, args))

    def call_packed(self, script: Script, key: str, packed: bytes) -> asyncio.Future[Any]:  # noqa: ARG002 - as above
        connection = self._link.connection()
        answer: asyncio.Future[Any] = self._loop.create_future()
        connection.send(Call(packed, answer, script))
        return answer

    def command(self, key: str, *words: Argument) -> asyncio.Future[Any]:  # noqa: ARG002 - as above
        return self._link.connection().command(*words)

    def post(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        on_answer: OnAnswer | None = None,
        on_lost: OnLost | None = None,
    ) -> None:
        self.post_packed(script, "", script.pack(keys, args), on_answer, on_lost)

    def post_packed(
        self,
        script: Script,
        key: str,  # noqa: ARG002 - as above
        packed: bytes,
        on_answer: OnAnswer | None = None,
        on_lost: OnLost | None = None,
    ) -> None:
        post = Post(packed, None, script)
        post.made_s = time.monotonic()
        post.on_answer = on_answer
        post.on_lost = on_lost
        self._link.send_post(post)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._link.begin()
        await self._link.tried()

    async def drain(self, timeout_s: float) -> bool:
        return await drained(lambda: self._link.has_posts, timeout_s)

    async def close(self, drain_s: float = 1.0) -> None:
        if self._link.begun:
            await self.drain(drain_s)
        for post in await self._link.end():
            self._outcomes.given_up(post)

    def __repr__(self) -> str:
        link = self._link
        state = "up" if link.up else f"down: {link.reason}"
        return (
            f"RedisClient({self._locator!r}, {state}, in flight {link.in_flight}, "
            f"posts kept {link.kept}, posts dropped {self.posts_dropped})"
        )
