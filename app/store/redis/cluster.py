"""A client for a cluster: each call goes to the node that has its slot, and after it where that has moved."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from app.store.redis.address import ClusterAddress, Host
from app.store.redis.calls import (
    Argument,
    Call,
    OnAnswer,
    OnLost,
    OnRefused,
    Outcomes,
    Post,
    RedisReplyError,
    RedisUnavailable,
    RoutedCall,
    Script,
    pack,
)
from app.store.redis.client import TIMEOUT_S
from app.store.redis.link import POST_AGE_S_MAX, POSTS_MAX, Link, drained, fail
from app.store.redis.nodes import Nodes
from app.store.redis.protocol import OnState
from app.store.redis.slots import parse_redirection, slot_of, slot_of_all

REDIRECTIONS_MAX = 3
RETRY_S = 0.02


class ClusterClient:
    """``Redis`` on one connection for each primary.

    Up is when every slot is served by a connected node. Calls and posts of a slot keep their order while it
    stays where it is; when it moves, some may be overtaken. Callbacks are as for ``RedisClient``.
    """

    def __init__(
        self,
        address: ClusterAddress,
        *,
        timeout_s: float = TIMEOUT_S,
        on_state: OnState | None = None,
        on_refused: OnRefused | None = None,
    ) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._on_state = on_state
        self._outcomes = Outcomes(on_refused)
        self._nodes = Nodes(
            address,
            self._outcomes,
            timeout_s=timeout_s,
            redirect=self._redirected,
            reroute=self._reroute,
            on_change=self._changed,
        )
        self._homeless: deque[Post] = deque()
        self._loop: asyncio.AbstractEventLoop
        self._closed = False
        self._reported: bool | None = None

    @property
    def up(self) -> bool:
        return self._nodes.up

    @property
    def posts_dropped(self) -> int:
        return self._outcomes.dropped

    def run_id_for(self, key: str) -> str | None:
        link = self._nodes.owner(slot_of(key))
        return None if link is None else link.run_id

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> asyncio.Future[Any]:
        return self._send(script.pack(keys, args), script, slot_of_all(keys))

    def call_packed(self, script: Script, key: str, packed: bytes) -> asyncio.Future[Any]:
        return self._send(packed, script, slot_of(key))

    def command(self, key: str, *words: Argument) -> asyncio.Future[Any]:
        return self._send(pack(*words), None, slot_of(key))

    def post(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        on_answer: OnAnswer | None = None,
        on_lost: OnLost | None = None,
    ) -> None:
        self._post(Post(script.pack(keys, args), None, script, slot=slot_of_all(keys)), on_answer, on_lost)

    def post_packed(
        self,
        script: Script,
        key: str,
        packed: bytes,
        on_answer: OnAnswer | None = None,
        on_lost: OnLost | None = None,
    ) -> None:
        self._post(Post(packed, None, script, slot=slot_of(key)), on_answer, on_lost)

    def _post(self, post: Post, on_answer: OnAnswer | None, on_lost: OnLost | None) -> None:
        post.made_s = time.monotonic()
        post.on_answer = on_answer
        post.on_lost = on_lost
        self._route(post)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._nodes.begin()

    async def drain(self, timeout_s: float) -> bool:
        return await drained(self._has_posts, timeout_s)

    async def close(self, drain_s: float = 1.0) -> None:
        if self._nodes.begun:
            await self.drain(drain_s)
        self._closed = True
        for post in [*await self._nodes.end(), *self._homeless]:
            self._outcomes.given_up(post)
        self._homeless.clear()

    def __repr__(self) -> str:
        state = "up" if self.up else f"down: {self._nodes.reason}"
        links = list(self._nodes.links)
        return (
            f"ClusterClient({self._address!r}, {state}, nodes {len(self._nodes)}, "
            f"in flight {sum(link.in_flight for link in links)}, "
            f"posts kept {len(self._homeless) + sum(link.kept for link in links)}, posts dropped {self.posts_dropped})"
        )

    def _send(self, packed: bytes, script: Script | None, slot: int) -> asyncio.Future[Any]:
        link = self._nodes.owner(slot)
        if link is None:
            raise RedisUnavailable(self._nodes.reason, sent=False)
        connection = link.connection()
        answer: asyncio.Future[Any] = self._loop.create_future()
        connection.send(RoutedCall(packed, answer, script, slot=slot))
        return answer

    def _route(self, post: Post) -> None:
        if self._closed:
            self._outcomes.given_up(post)
        elif (link := self._nodes.owner(post.slot)) is not None:
            link.send_post(post)
        else:
            self._shelter(post)

    def _reroute(self, posts: Iterable[Post]) -> None:
        oldest_s = time.monotonic() - POST_AGE_S_MAX
        for post in posts:
            if post.made_s < oldest_s:
                self._outcomes.given_up(post)
            else:
                post.redirections = 0
                post.resent = False
                self._route(post)

    def _shelter(self, post: Post) -> None:
        """Keep a post that no node takes at the moment; it goes on after the next look at the map."""
        self._homeless.append(post)
        if len(self._homeless) > POSTS_MAX:
            self._outcomes.given_up(self._homeless.popleft())
        self._nodes.want_map()

    def _has_posts(self) -> bool:
        return bool(self._homeless) or any(link.has_posts for link in self._nodes.links)

    def _changed(self) -> None:
        """The map was looked at, or a link was lost or made."""
        if self._homeless:
            posts = list(self._homeless)
            self._homeless.clear()
            if self._nodes.trusted:
                self._reroute(posts)
            else:
                oldest_s = time.monotonic() - POST_AGE_S_MAX
                for post in posts:
                    if post.made_s < oldest_s:
                        self._outcomes.given_up(post)
                    else:
                        self._shelter(post)
        up = self._nodes.up
        if up is not self._reported and not self._closed:
            self._reported = up
            if self._on_state is not None:
                self._on_state(up, self._nodes.reason)

    def _redirected(self, host: Host, call: Call, text: str) -> None:
        """``host`` did not execute ``call``, for a reason that lies in the cluster."""
        call.resent = False
        if text.startswith("CLUSTERDOWN"):
            self._nodes.doubt(text)
        if isinstance(call, RoutedCall):
            self._redirect_call(host, call, text)
        elif isinstance(call, Post):
            try:
                self._follow(host, call, text)
            except RedisUnavailable:
                self._shelter(call)
        else:
            fail(call, RedisReplyError(text))

    def _redirect_call(self, host: Host, call: RoutedCall, text: str) -> None:
        if call.answer is None or call.answer.done():
            return
        if not call.deadline_s:
            call.deadline_s = call.timeout_at_s
            late = RedisUnavailable(f"no answer within {self._timeout_s * 1000:.0f} ms, redirected", sent=True)
            self._loop.call_at(call.deadline_s, fail, call, late)
        try:
            self._follow(host, call, text)
        except RedisUnavailable as error:
            fail(call, error)

    def _follow(self, host: Host, call: RoutedCall | Post, text: str) -> None:
        """Send the call where it belongs; RedisUnavailable, not sent, if that leads nowhere."""
        if text.startswith("CLUSTERDOWN"):
            raise RedisUnavailable(text, sent=False)
        if text.startswith("TRYAGAIN"):
            self._try_again_later(call)
            return
        try:
            slot, where = parse_redirection(text, host[0])
        except ValueError:
            raise RedisUnavailable(text, sent=False) from None
        call.redirections += 1
        if call.redirections > REDIRECTIONS_MAX:
            raise RedisUnavailable(f"redirected more than {REDIRECTIONS_MAX} times", sent=False)
        has_moved = text.startswith("MOVED")
        link = self._nodes.moved(slot, where, host) if has_moved else self._nodes.guest(where)
        if not link.up:
            self._try_again_later(call)
        elif has_moved:
            link.connection().send(call)
        else:
            link.connection().send_asking(call)

    def _try_again_later(self, call: RoutedCall | Post) -> None:
        if isinstance(call, Post):
            self._shelter(call)
        else:
            self._loop.call_later(RETRY_S, self._try_again, call)

    def _try_again(self, call: RoutedCall) -> None:
        """The deadline of a call that was redirected ends this."""
        link: Link | None = self._nodes.owner(call.slot)
        if call.answer is None or call.answer.done():
            return
        if self._closed:
            fail(call, RedisUnavailable("closed", sent=False))
        elif link is None or not link.up:
            self._try_again_later(call)
        else:
            try:
                link.connection().send(call)
            except RedisUnavailable as error:
                fail(call, error)
