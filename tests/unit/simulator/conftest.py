"""One simulator for the whole folder, on a real socket in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
import uvloop

from app.simulator.app import Simulator
from app.simulator.log import Served
from app.simulator.server import Listening, running_simulator
from tests.unit.simulator.wire_client import Connection, Reply


@pytest.fixture(scope="session")
def simulator() -> Simulator:
    return Simulator()


@pytest.fixture(scope="session")
def listening(simulator: Simulator) -> Iterator[Listening]:
    """A thread, so that tests with event loops of their own share it."""
    started = threading.Event()
    found: list[Any] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with running_simulator(simulator, port=0) as address:
            found.extend((address, asyncio.get_running_loop(), stop))
            started.set()
            await stop.wait()

    def run() -> None:
        # The loop of production; the other one is tried in test_server.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    address, loop, stop = found
    yield address
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    assert not thread.is_alive()


class Caller:
    """Raw calls with an attempt id each, and what the log says of them."""

    def __init__(self, simulator: Simulator, listening: Listening) -> None:
        self.simulator = simulator
        self.address = (listening.host or "", listening.port or 0)
        self.base_url = listening.base_url
        self.attempt_id = ""

    async def open(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Connection:
        self.attempt_id = uuid.uuid4().hex
        connection = await Connection.open(self.address)
        await connection.send(path, body, headers={"x-client-request-id": self.attempt_id, **(headers or {})})
        return connection

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
        connection = await self.open(path, body, headers)
        try:
            return await connection.read()
        finally:
            await connection.close()

    async def respond(self, steering: str = "", *, text: str = "Tell me about the sea.", **members: Any) -> Reply:
        """A steered ``POST /v1/responses``."""
        prompt = f"{text} [[sim: {steering}]]" if steering else text
        return await self.post("/v1/responses", {"model": "sim-mini", "input": prompt, **members})

    async def get(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> Reply:
        connection = await Connection.open(self.address)
        try:
            await connection.send(path, method=method, headers=headers)
            return await connection.read()
        finally:
            await connection.close()

    def entries(self) -> list[Served]:
        return self.simulator.log.find(wanted_id=self.attempt_id)

    async def served(self) -> Served:
        """The log's entry of the last call, once it is closed."""
        for _ in range(500):
            entries = self.entries()
            if entries and entries[-1].ended_ms is not None:
                return entries[-1]
            await asyncio.sleep(0.005)
        raise AssertionError(f"not closed: {self.entries()}")


@pytest.fixture
def caller(simulator: Simulator, listening: Listening) -> Caller:
    return Caller(simulator, listening)


@pytest.fixture
async def client(listening: Listening) -> AsyncIterator[openai.AsyncOpenAI]:
    # Nothing is encrypted here, and reading the certificate authorities takes longer than a test.
    plain = openai.DefaultAsyncHttpxClient(verify=False)
    async with openai.AsyncOpenAI(
        base_url=f"{listening.base_url}/v1", api_key="none", max_retries=0, http_client=plain
    ) as client:
        yield client
