from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.simulator.app import Simulator
from app.simulator.channel import Channel, ClientGone


class Client:
    """An ASGI server's side, scripted: what it receives, and what was sent to it."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = list(messages)
        self.sent: list[dict[str, Any]] = []
        self.leaves = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


async def read(client: Client, bytes_max: int = 100) -> bytes | None:
    return await Channel({}, client.receive, client.send).read_body(bytes_max)


async def test_a_body_in_parts_is_put_together():
    assert await read(Client(body(b"a", more=True), body(b"b", more=True), body(b""))) == b"ab"
    assert await read(Client(body(b"whole"))) == b"whole"


async def test_a_body_beyond_the_limit_is_not_collected():
    assert await read(Client(body(b"x" * 101))) is None
    assert await read(Client(body(b"x" * 60, more=True), body(b"x" * 60, more=True), body(b"x"))) is None


@pytest.mark.parametrize("parts", [[], [body(b"a", more=True)]])
async def test_a_client_that_leaves_meanwhile_is_gone(parts):
    with pytest.raises(ClientGone):
        await read(Client(*parts, {"type": "http.disconnect"}))


async def test_a_pause_ends_when_the_client_leaves():
    client = Client()
    channel = Channel({}, client.receive, client.send)
    asyncio.get_running_loop().call_later(0.02, client.leaves.set)
    await asyncio.wait_for(channel.pause(60), 5)
    assert channel.gone
    await asyncio.wait_for(channel.pause(60), 5)
    channel.close()
    assert repr(channel) == "Channel(watched=False, gone=True)"


async def test_a_client_that_leaves_a_plain_stream_is_noticed_between_events():
    simulator = Simulator()
    request = {"model": "m", "input": "Write a long story", "stream": True}
    client = Client(body(json.dumps(request).encode()))
    client.leaves.set()
    await simulator(scope("/v1/responses"), client.receive, client.send)
    (served,) = simulator.log
    assert (served.outcome, served.billed) == ("disconnected", True)
    assert served.written_events == 31
    assert served.usage.output_tokens == 31 - 4
    assert len(simulator.store) == 0


async def test_without_a_transport_a_cut_is_an_exception():
    for stream in (False, True):
        request = {"model": "m", "input": "[[sim: cut_after=2]]", "stream": stream}
        client = Client(body(json.dumps(request).encode()))
        with pytest.raises(ConnectionAbortedError):
            await Simulator()(scope("/v1/responses"), client.receive, client.send)
        assert client.sent[-1]["more_body"] is True


async def test_the_lifespan_is_answered():
    client = Client({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    await Simulator()({"type": "lifespan"}, client.receive, client.send)
    assert [message["type"] for message in client.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_websocket_elsewhere_is_refused():
    client = Client({"type": "websocket.connect"})
    await Simulator()({"type": "websocket", "path": "/v1/files", "headers": []}, client.receive, client.send)
    assert [message["type"] for message in client.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert client.sent[0]["status"] == 404


async def test_a_cancelled_answer_is_logged_as_cut():
    simulator = Simulator()
    request = {"model": "m", "input": "[[sim: stall_after=6 tokens=20]]", "stream": True}
    client = Client(body(json.dumps(request).encode()))
    answering = asyncio.create_task(simulator(scope("/v1/responses"), client.receive, client.send))
    await asyncio.sleep(0.05)
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    (served,) = simulator.log
    assert (served.outcome, served.billed, served.usage.output_tokens) == ("cut", True, 2)


def scope(path: str) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}
