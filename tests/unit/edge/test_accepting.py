"""A listener that several share: who has fewer connections takes the next one, and nobody is left waiting."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
import uvloop

from app.edge.accepting import Adopter, Board, SharedListener


@pytest.fixture
def board():
    board = Board.create(3)
    yield board
    board.close()


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        listener.setblocking(False)
        yield listener


class Greeting(asyncio.Protocol):
    """Says which process has it."""

    def __init__(self, name, connections):
        self.name, self.connections = name, connections

    def connection_made(self, transport):
        self.connections.add(self)
        self.transport = transport
        transport.write(self.name)

    def connection_lost(self, _error):
        self.connections.discard(self)


class Process:
    """One of those that share the listener."""

    def __init__(self, listener, board, cell):
        self.connections = set()
        # A descriptor of its own, as in a process of its own.
        self.listener = listener.dup()
        self.adopter = Adopter(lambda: Greeting(b"%d" % cell, self.connections), None)
        self.shared = SharedListener(self.listener, self.adopter, board=board, cell=cell, connections=self.connections)
        self.shared.start()

    async def close(self):
        self.shared.close()
        await self.shared.wait_closed()
        for one in list(self.connections):
            one.transport.abort()
        self.listener.close()


def test_a_board_is_shared_memory_and_tells_who_accepts(board):
    other = Board(os.dup(board.descriptor), 3)
    assert [board.read(cell) for cell in range(3)] == [None, None, None]
    assert board.fewest() == 0
    other.write(0, 7)
    other.write(2, 4)
    assert (board.read(0), board.read(1), board.fewest()) == (7, None, 4)
    board.close_cell(2)
    assert other.fewest() == 7
    assert "7" in repr(other)
    other.close()


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_burst_is_spread(board, listener, factory):
    async def burst(processes, clients):
        clients += [socket.create_connection(listener.getsockname()) for _ in range(90)]
        async with asyncio.timeout(30):
            while sum(len(one.connections) for one in processes) < 90:
                await asyncio.sleep(0.005)
        counts = [len(one.connections) for one in processes]
        assert max(counts) - min(counts) <= 2, counts
        # One has lost its clients: it is next, until it has as many as the others.
        for one in list(processes[0].connections):
            one.transport.abort()
        async with asyncio.timeout(30):
            while processes[0].connections:
                await asyncio.sleep(0.005)
        clients += [socket.create_connection(listener.getsockname()) for _ in range(20)]
        async with asyncio.timeout(30):
            while sum(len(one.connections) for one in processes) < 80:
                await asyncio.sleep(0.005)
        # Nearly all of them; a loop that is late lets the others help, and evenly it would be seven.
        assert len(processes[0].connections) >= 14

    async def scenario():
        processes = [Process(listener, board, cell) for cell in range(3)]
        clients = []
        try:
            await burst(processes, clients)
        finally:
            # Also where it fails: uvloop waits for ever for what still listens when its loop is closed.
            for one in processes:
                await one.close()
            for client in clients:
                client.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())


async def test_whoever_has_most_takes_it_where_the_others_do_not(board, listener):
    board.write(1, 0)
    process = Process(listener, board, 0)
    for _ in range(5):
        process.connections.add(object())
    with socket.create_connection(listener.getsockname()) as client:
        client.setblocking(False)
        async with asyncio.timeout(30):
            assert await asyncio.get_running_loop().sock_recv(client, 10) == b"0"
        process.connections = {one for one in process.connections if isinstance(one, Greeting)}
        await process.close()


async def test_who_closes_takes_what_has_connected_and_nothing_more(board, listener):
    process = Process(listener, board, 0)
    clients = [socket.create_connection(listener.getsockname()) for _ in range(20)]
    process.shared.close()
    process.shared.close()
    assert board.read(0) is None
    await process.shared.wait_closed()
    assert len(process.connections) == 20
    late = socket.create_connection(listener.getsockname())
    await asyncio.sleep(0.05)
    assert len(process.connections) == 20, "it waits for whoever else has the listener"
    await process.close()
    for client in (*clients, late):
        client.close()


async def test_without_descriptors_it_pauses_and_goes_on(board, listener, monkeypatch):
    monkeypatch.setattr("app.edge.accepting.FULL_PAUSE_S", 0.05)
    process = Process(listener, board, 0)
    refused = []

    class Full:
        """The listener of a process that has no descriptor left, twice."""

        def fileno(self):
            return process.listener.fileno()

        def accept(self):
            if len(refused) < 2:
                refused.append(1)
                raise OSError(24, "Too many open files")
            return listener.accept()

    process.shared._listener = Full()
    with socket.create_connection(listener.getsockname()) as client:
        client.setblocking(False)
        async with asyncio.timeout(30):
            assert await asyncio.get_running_loop().sock_recv(client, 10) == b"0"
    assert len(refused) == 2
    await process.close()
