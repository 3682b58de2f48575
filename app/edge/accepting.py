"""Several processes accept from one listening socket, each as many connections as the others.

All of them are woken by a connection; who has more of them than another leaves it to that one for a moment,
and takes one at a time, so that a burst spreads. A socket of each process's own (SO_REUSEPORT) would
spread by a hash instead: unevenly for the few connections that proxies keep for hours, with a queue behind
a process that is stuck or dead, and open to every other program of the same user.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import ssl
import struct
from collections.abc import Callable, Sized
from contextlib import suppress

PATIENCE_S = 0.002
"""How long a connection is left to those that have fewer. They may be busy: then anybody takes it."""
FULL_PAUSE_S = 0.5
"""After running out of descriptors or memory for one more connection."""
TLS_HANDSHAKE_TIMEOUT_S = 10.0

_CELL = struct.Struct("=i")
_CLOSED = 2**31 - 1


class Board:
    """How many connections each of several processes has, in memory that they share."""

    def __init__(self, descriptor: int, cells: int) -> None:
        self.descriptor = descriptor
        self._cells = cells
        self._memory = mmap.mmap(descriptor, cells * _CELL.size)

    def __repr__(self) -> str:
        return f"Board({[self.read(cell) for cell in range(self._cells)]})"

    @classmethod
    def create(cls, cells: int) -> Board:
        """A board on which nobody accepts yet. Its descriptor is for the others to inherit."""
        descriptor = os.memfd_create("headgate-board", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, cells * _CELL.size)
        board = cls(descriptor, cells)
        for cell in range(cells):
            board.close_cell(cell)
        return board

    def read(self, cell: int) -> int | None:
        """How many connections it has; None: it does not accept."""
        (count,) = _CELL.unpack_from(self._memory, cell * _CELL.size)
        return None if count == _CLOSED else int(count)

    def write(self, cell: int, connections: int) -> None:
        _CELL.pack_into(self._memory, cell * _CELL.size, connections)

    def close_cell(self, cell: int) -> None:
        """It has ended, or takes no more."""
        self.write(cell, _CLOSED)

    def fewest(self) -> int:
        """What those that accept have at least."""
        return min((count for cell in range(self._cells) if (count := self.read(cell)) is not None), default=0)

    def close(self) -> None:
        self._memory.close()
        os.close(self.descriptor)


class Adopter:
    """Makes connections of accepted sockets."""

    def __init__(self, make_protocol: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None) -> None:
        self._make_protocol = make_protocol
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Those that are not connections yet."""
        return len(self._tasks)

    def accept(self, listener: socket.socket) -> bool:
        """One connection; False: there is none, or another process was faster. OSError: there is no room."""
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._adopt(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def accept_rest(self, listener: socket.socket) -> None:
        """What has connected and would be cut when the listener closes."""
        with suppress(OSError):
            while self.accept(listener):
                pass

    async def wait(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _adopt(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make_protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S if self._tls is not None else None,
            )
        except (OSError, ssl.SSLError):
            # The client's hello was not TLS, or never came.
            connection.close()


class SharedListener:
    """One process's part of a listener that several have. uvicorn takes it for a server of asyncio's."""

    def __init__(
        self,
        listener: socket.socket,
        adopter: Adopter,
        *,
        board: Board,
        cell: int,
        connections: Sized,
    ) -> None:
        """``connections``: those that this process has, of which there is one more soon after each accept."""
        self._listener = listener
        self._adopter = adopter
        self._board = board
        self._cell = cell
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._open = False

    def __repr__(self) -> str:
        return f"SharedListener(cell={self._cell}, {self._board!r})"

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        return (self._listener,)

    def start(self) -> None:
        self._open = True
        self._tell()
        self._listen()

    def close(self) -> None:
        """Takes what has already connected, since nobody may come after, and no more."""
        if not self._open:
            return
        self._open = False
        self._board.close_cell(self._cell)
        self._loop.remove_reader(self._listener.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._adopter.accept_rest(self._listener)

    async def wait_closed(self) -> None:
        await self._adopter.wait()

    def _listen(self) -> None:
        if self._open:
            self._loop.add_reader(self._listener.fileno(), self._ready)

    def _tell(self) -> int:
        mine = len(self._connections) + len(self._adopter)
        self._board.write(self._cell, mine)
        return mine

    def _ready(self) -> None:
        if self._tell() > self._board.fewest():
            self._wait(PATIENCE_S, self._insist)
        else:
            self._accept()

    def _insist(self) -> None:
        """It was left to the others for long enough."""
        self._listen()
        self._accept()

    def _wait(self, pause_s: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(pause_s, then)

    def _accept(self) -> None:
        try:
            accepted = self._adopter.accept(self._listener)
        except OSError:
            self._wait(FULL_PAUSE_S, self._listen)
        else:
            if accepted:
                self._tell()
