"""What the rest of the gateway asks of Redis, however many servers that is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from app.store.redis.calls import Argument, OnAnswer, OnLost, Script

OnState = Callable[[bool, str], None]


class Redis(Protocol):
    """One server, a master that sentinels name, or a cluster."""

    @property
    def up(self) -> bool:
        """Whether every key can be reached now."""
        ...

    @property
    def posts_dropped(self) -> int:
        """Posts given up: too many, too old, refused by the server, or left over at the close."""
        ...

    def run_id_for(self, key: str) -> str | None:
        """Which run of which server has ``key``; None while there is no connection to it.

        In the same turn of the event loop ``call`` sends to that very run.
        """
        ...

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> asyncio.Future[Any]:
        """The script's answer. RedisUnavailable is raised here if there is no connection, else by the await.

        RedisReplyError is raised by the await; ValueError here, in a cluster, for keys that do not share
        one hash tag.
        """
        ...

    def call_packed(self, script: Script, key: str, packed: bytes) -> asyncio.Future[Any]:
        """The same for a command that runs ``script`` and is packed already; ``key`` is one of its keys."""
        ...

    def command(self, key: str, *words: Argument) -> asyncio.Future[Any]:
        """One ordinary command where ``key`` is, which ``words`` name too; fails as ``call`` does."""
        ...

    def post(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        on_answer: OnAnswer | None = None,
        on_lost: OnLost | None = None,
    ) -> None:
        """Run the script some time, in the order of calls and posts; nobody waits for the answer.

        It may be executed twice (after a lost connection) or never. Exactly one of the two is called in the
        end: ``on_answer(reply)``, or ``on_lost()`` where the post was given up, though it may have been
        executed; the latter perhaps before this returns, so that it must not post again itself. Both must be
        quick.
        """
        ...

    def post_packed(
        self,
        script: Script,
        key: str,
        packed: bytes,
        on_answer: OnAnswer | None = None,
        on_lost: OnLost | None = None,
    ) -> None:
        """The same for a command that is packed already."""
        ...

    async def start(self) -> None:
        """Begin to connect; returns after the first attempt, whatever came of it."""
        ...

    async def drain(self, timeout_s: float) -> bool:
        """Wait until every post has been answered; False if that took longer than ``timeout_s``."""
        ...

    async def close(self, drain_s: float = 1.0) -> None:
        """Drain for a while, then give up what is left."""
        ...
