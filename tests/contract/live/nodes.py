"""Processes of one gateway, as far as the live feed knows them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from app.store.live import RedisSharing
from app.store.redis import connect
from app.telemetry.live import LiveBoard, LiveFeed, Scope, Viewer
from tests.unit.telemetry.live.stage import Process

SECRET = b"s" * 32


class Node:
    """One process: its board, its feed, and its own connections."""

    def __init__(self, url: str, name: str, secret: bytes = SECRET) -> None:
        self.stage = Process(name)
        self.client = connect(url)
        self.sharing = RedisSharing(self.client, url, secret, process=name)
        self.draining = False
        self.feed = LiveFeed(
            self.board, process=name, worker=f"host/{name}", is_over=lambda: self.draining, sharing=self.sharing
        )

    @property
    def board(self) -> LiveBoard:
        return self.stage.board

    async def start(self) -> None:
        await self.client.start()
        self.sharing.start(self.feed.wake)

    async def close(self) -> None:
        await self.feed.close()
        await self.sharing.close()
        await self.client.close()


class Watcher:
    """One who looks at a node, and what it knows."""

    def __init__(self, node: Node, scope: Scope | None = None) -> None:
        self.node = node
        self.viewer: Viewer = node.feed.open(scope or Scope())
        self.in_flight: dict[str, Any] = {}
        self.finished: list[str] = []
        self.dropped = 0
        self.count: dict[str, Any] = {}
        self._take(node.feed.first(self.viewer))
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            self._take(self.node.feed.next(self.viewer))

    def _take(self, events: list[Any]) -> None:
        for name, data in events:
            if name == "snapshot":
                self.in_flight = {row.request_id: row.worker for row in data["in_flight"]}
                self.finished = [row.request_id for row in data["finished"]]
            elif name == "started":
                self.in_flight[data.request_id] = data.worker
            elif name == "finished":
                self.in_flight.pop(data.request_id, None)
                self.finished.append(data.request_id)
            elif name == "ended":
                for request_id in data["request_ids"]:
                    self.in_flight.pop(request_id, None)
            elif name == "dropped":
                self.dropped += data["events"]
            elif name == "count":
                self.count = data

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))
        self.node.feed.close_viewer(self.viewer)


class Fleet:
    """Nodes and watchers that are closed in the end."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.watchers: list[Watcher] = []

    async def node(self, url: str, secret: bytes = SECRET) -> Node:
        node = Node(url, f"p{len(self.nodes)}", secret)
        self.nodes.append(node)
        await node.start()
        return node

    def watch(self, node: Node, scope: Scope | None = None) -> Watcher:
        watcher = Watcher(node, scope)
        self.watchers.append(watcher)
        return watcher

    async def close(self) -> None:
        for watcher in self.watchers:
            await watcher.close()
        for node in self.nodes:
            await node.close()


async def until(holds: Callable[[], Any], timeout_s: float = 30.0) -> float:
    """Waits until it is true; how long that took."""
    began_s = time.monotonic()
    while not holds():
        assert time.monotonic() - began_s < timeout_s, "it did not come true"
        await asyncio.sleep(0.01)
    return time.monotonic() - began_s
