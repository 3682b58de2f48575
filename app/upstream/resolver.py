"""Where an upstream is: the addresses of its name, also while the name service is slow, wrong or away.

Each new connection asks; what the last good answer said is used again only where an answer fails or does
not come in time. A look-up runs on a thread and cannot be stopped, so those that hang are bounded.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

LOOKUP_S_MAX = 2.0
GOOD_FOR_S = 600.0
"""How long the last good addresses are used while nothing better is told."""
LOOKUPS_MAX = 2
"""How many look-ups may hang at the same time before nobody waits for another."""

Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]
"""As ``getaddrinfo`` tells it."""
Lookup = Callable[[str, int], Awaitable[Sequence[Address]]]


async def ask_system(host: str, port: int) -> Sequence[Address]:
    """The system's own resolver, on a thread. Raises OSError."""
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Resolver:
    """The addresses of one name. Those who ask while a look-up is under way share its answer."""

    def __init__(
        self, host: str, port: int, *, lookup: Lookup = ask_system, lookup_s_max: float = LOOKUP_S_MAX
    ) -> None:
        self.failures = 0
        """How often the name service failed, or was too slow."""
        self._host = host
        self._port = port
        self._lookup = lookup
        self._lookup_s_max = lookup_s_max
        self._good: Sequence[Address] = ()
        self._good_s = 0.0
        self._asking: set[asyncio.Task[Sequence[Address]]] = set()
        self._latest: asyncio.Task[Sequence[Address]] | None = None
        self._asked_s = 0.0
        self._fixed = _addresses_of_literal(host, port)

    def __repr__(self) -> str:
        return f"Resolver(good={len(self._good)}, asking={len(self._asking)}, failures={self.failures})"

    async def addresses(self) -> Sequence[Address]:
        """Where to connect to. Raises OSError where that is not known, TimeoutError among them."""
        if self._fixed:
            return self._fixed
        loop = asyncio.get_running_loop()
        latest = self._ask(loop)
        left_s = self._asked_s + self._lookup_s_max - loop.time()
        if left_s > 0:
            # Not cancelled with whoever waits: the next one may need its answer.
            await asyncio.wait({latest}, timeout=left_s)
        failure: BaseException = TimeoutError("The name service does not answer.")
        if latest.done() and not latest.cancelled():
            told = latest.exception()
            if told is None and latest.result():
                return latest.result()
            failure = told or OSError("The name has no address.")
        self.failures += 1
        if self._good and loop.time() - self._good_s <= GOOD_FOR_S:
            return self._good
        raise failure

    def close(self) -> None:
        """Nobody waits for an answer any more."""
        for asking in self._asking:
            asking.cancel()

    def _ask(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[Sequence[Address]]:
        """The look-up to wait for: the latest, or another where that is over or hangs."""
        latest = self._latest
        if latest is not None and not latest.done():
            hangs = loop.time() - self._asked_s >= self._lookup_s_max
            if not hangs or len(self._asking) >= LOOKUPS_MAX:
                return latest
        latest = self._latest = loop.create_task(self._look_up(), name="name-lookup")
        self._asked_s = loop.time()
        self._asking.add(latest)
        latest.add_done_callback(self._answered)
        return latest

    async def _look_up(self) -> Sequence[Address]:
        return await self._lookup(self._host, self._port)

    def _answered(self, asking: asyncio.Task[Sequence[Address]]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled() and asking.exception() is None and asking.result():
            self._good = asking.result()
            self._good_s = asking.get_loop().time()


def _addresses_of_literal(host: str, port: int) -> Sequence[Address]:
    """The address that ``host`` is itself, for which nobody need be asked; empty where it is a name."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return ()
