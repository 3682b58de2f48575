"""The primaries of a cluster: a link to each, and which of them has which slots."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from app.store.redis.address import ClusterAddress, Host, printed, tls_context
from app.store.redis.calls import Call, Outcomes, Post, RedisError, RedisUnavailable
from app.store.redis.connection import Connection
from app.store.redis.link import CONNECT_TIMEOUT_S, FixedLocator, Link
from app.store.redis.slots import NODES_MAX, SLOTS, SlotRange, parse_slots

MAP_GAP_S = 0.2
"""The map is not asked for more often than this."""
MAP_EVERY_S = 10.0
MAP_SEED_TIMEOUT_S = 0.5
ASKED_MAX = 8
"""So many nodes are asked for the map before it is tried again later."""
GUEST_S = 30.0
"""A node without slots of its own, to which a redirection led, is kept for so long."""


class View(NamedTuple):
    """What one node says of the cluster. ``ok``: it takes the cluster for able to serve."""

    ok: bool
    ranges: list[SlotRange]


class Nodes:
    """Links to the nodes, made and ended as the map of slots changes.

    ``redirect(host, call, text)`` gets what a node would not execute; ``reroute`` the posts of a node that
    has no slots any more; ``on_change`` is called after each look at the map and each change of a link.
    """

    def __init__(
        self,
        address: ClusterAddress,
        outcomes: Outcomes,
        *,
        timeout_s: float,
        redirect: Callable[[Host, Call, str], None],
        reroute: Callable[[Iterable[Post]], None],
        on_change: Callable[[], None],
    ) -> None:
        self._address = address
        self._outcomes = outcomes
        self._timeout_s = timeout_s
        self._redirect = redirect
        self._reroute = reroute
        self._on_change = on_change
        self._tls = tls_context(tls=address.tls, ca_file=address.tls_ca_file)
        self._links: dict[Host, Link] = {}
        self._guests: dict[Host, float] = {}
        self._primaries: dict[Host, Link] = {}
        self._owners: list[Link | None] = [None] * SLOTS
        self._doubt: str | None = "not started"
        self._told_by: Host | None = None
        self._wanted = asyncio.Event()
        self._looked = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        links = ", ".join(f"{printed(host)} {'up' if link.up else 'down'}" for host, link in self._links.items())
        return f"Nodes({links or 'none'})"

    def __len__(self) -> int:
        return len(self._primaries)

    @property
    def links(self) -> Iterable[Link]:
        return self._links.values()

    @property
    def begun(self) -> bool:
        return self._keeper is not None

    @property
    def trusted(self) -> bool:
        """Whether the cluster took itself for able to serve when it was last asked."""
        return self._doubt is None

    @property
    def up(self) -> bool:
        return self._doubt is None and all(link.up for link in self._primaries.values())

    @property
    def reason(self) -> str:
        """Why not every slot is served, or that each is."""
        if self._doubt is not None:
            return self._doubt
        for host, link in self._primaries.items():
            if not link.up:
                return f"{printed(host)}: {link.reason}"
        return f"connected to {len(self._primaries)} nodes of {self._address!r}"

    def owner(self, slot: int) -> Link | None:
        return self._owners[slot]

    def at(self, host: Host) -> Link:
        """The link to a node, perhaps one that is only being made."""
        link = self._links.get(host)
        if link is None or link.closed:
            link = self._links[host] = Link(
                FixedLocator(self._address.node_at(host), self._tls),
                self._outcomes,
                timeout_s=self._timeout_s,
                on_state=partial(self._link_changed, host),
                redirect=partial(self._redirect, host),
            )
            link.begin()
        return link

    def guest(self, host: Host) -> Link:
        """As ``at``, and the link is kept for a while whatever the map says; RedisUnavailable if there are too many."""
        if host not in self._links and len(self._links) >= 2 * NODES_MAX:
            raise RedisUnavailable(f"more than {2 * NODES_MAX} nodes were named", sent=False)
        self._guests[host] = asyncio.get_running_loop().time()
        return self.at(host)

    def moved(self, slot: int, host: Host, told_by: Host) -> Link:
        """Note that ``slot`` is at ``host`` now; ``told_by`` knows more of it than others do."""
        link = self._owners[slot] = self.guest(host)
        self._told_by = told_by
        self.want_map()
        return link

    def doubt(self, reason: str) -> None:
        """A node says that the cluster cannot serve: ask again."""
        self._doubt = reason
        self.want_map()
        self._on_change()

    def want_map(self) -> None:
        self._wanted.set()

    async def begin(self) -> None:
        """Returns when the map was asked for and each node was tried, whatever came of it."""
        self._keeper = asyncio.create_task(self._keep_map(), name="redis cluster map")
        await self._looked.wait()

    async def end(self) -> list[Post]:
        """Close every link; the posts that were not answered."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait((keeper,))
        links = list(self._links.values())
        self._links = {}
        self._primaries = {}
        self._owners = [None] * SLOTS
        self._doubt = "closed"
        ended = await asyncio.gather(*(link.end() for link in links))
        return [post for posts in ended for post in posts]

    async def _keep_map(self) -> None:
        while True:
            self._wanted.clear()
            await self._look()
            if not self._looked.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
                        await asyncio.gather(*(link.tried() for link in self._primaries.values()))
                self._looked.set()
            self._on_change()
            await asyncio.sleep(MAP_GAP_S)
            with suppress(TimeoutError):
                pause_s = MAP_EVERY_S * random.uniform(0.8, 1.2) if self.up else MAP_GAP_S  # noqa: S311 - jitter
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()

    async def _look(self) -> None:
        """Ask for the map, and follow it. Without any answer the old one stays: its nodes may come back."""
        view, reasons = await self._ask_connected()
        if view is None:
            view, more = await self._ask_anybody()
            reasons += more
        if view is None:
            self._doubt = f"no node tells the map of slots ({'; '.join(reasons)})"
            return
        self._follow(view)
        await self._end_strangers()

    async def _ask_connected(self) -> tuple[View | None, list[str]]:
        """The first view in which the cluster can serve, else the first."""
        connected = [host for host, link in self._links.items() if link.up]
        random.shuffle(connected)
        connected.sort(key=lambda host: host != self._told_by)
        first: View | None = None
        reasons: list[str] = []
        for host in connected[:ASKED_MAX]:
            try:
                view = await _view(self._links[host].connection(), host)
            except (KeyError, ValueError, RedisError) as error:  # KeyError: the link was ended meanwhile
                reasons.append(f"{printed(host)}: {error}")
                continue
            if view.ok:
                return view, reasons
            first = first or view
        return first, reasons

    async def _ask_anybody(self) -> tuple[View | None, list[str]]:
        """Over connections of their own, since links are being made to primaries only."""
        hosts = list(dict.fromkeys([*self._address.seeds, *self._links]))
        reasons: list[str] = []
        for host in random.sample(hosts, min(len(hosts), ASKED_MAX)):
            connection = Connection(asyncio.get_running_loop(), self._timeout_s)
            try:
                await connection.open(self._address.node_at(host), self._tls, MAP_SEED_TIMEOUT_S)
                return await _view(connection, host), reasons
            except (OSError, ValueError, RedisError) as error:
                reasons.append(f"{printed(host)}: {str(error) or type(error).__name__}")
            finally:
                connection.close("asked")
                await asyncio.sleep(0)  # lets the transport close its socket
        return None, reasons

    def _follow(self, view: View) -> None:
        owners: list[Link | None] = [None] * SLOTS
        primaries: dict[Host, Link] = {}
        for first, last, host in view.ranges:
            link = primaries[host] = self.at(host)
            owners[first : last + 1] = [link] * (last + 1 - first)
        self._owners = owners
        self._primaries = primaries
        if not view.ok:
            self._doubt = "the cluster says that it cannot serve (cluster_state)"
        else:
            self._doubt = "some slots are served by no node" if None in owners else None

    async def _end_strangers(self) -> None:
        """Nodes without slots give their posts to those that have them, and are left once nothing is in flight."""
        spared_s = asyncio.get_running_loop().time() - GUEST_S
        for host, link in list(self._links.items()):
            if host in self._primaries:
                continue
            self._reroute(link.take_posts())
            if link.in_flight == 0 and self._guests.get(host, 0.0) < spared_s:
                posts = await link.end()
                if self._links.get(host) is link:  # else it was needed again meanwhile
                    del self._links[host]
                    self._guests.pop(host, None)
                self._reroute(posts)

    def _link_changed(self, host: Host, up: bool, _reason: str) -> None:  # noqa: FBT001 - as on_state is called
        if host in self._primaries:
            if not up:
                self.want_map()
            if self._looked.is_set():
                self._on_change()


async def _view(connection: Connection, host: Host) -> View:
    info, slots = await asyncio.gather(connection.command("CLUSTER", "INFO"), connection.command("CLUSTER", "SLOTS"))
    return View(isinstance(info, bytes) and b"cluster_state:ok" in info, parse_slots(slots, host[0]))
