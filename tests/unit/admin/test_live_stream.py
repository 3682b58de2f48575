"""The live feed on its way to a client: how it ends, whatever the client does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.admin import live_stream
from app.admin.live_stream import LiveStream, encoded
from app.core.errors import InvalidAdminToken, TooManyFailedKeys
from app.store.errors import DatabaseUnavailable
from app.telemetry.live import Scope
from tests.unit.telemetry.live.test_feed import Alone

SOON_S = 30.0


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Seconds as tenths."""
    monkeypatch.setattr(live_stream, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(live_stream, "CHECK_EVERY_S", 0.1)
    monkeypatch.setattr(live_stream, "UNCHECKED_S_MAX", 0.6)
    monkeypatch.setattr(live_stream, "END_S_MAX", 10)
    monkeypatch.setattr(live_stream, "SEND_S_MAX", 0.5)


class Client:
    """An ASGI server's side of one response."""

    def __init__(self, *, reads: bool = True) -> None:
        self.reads = reads
        self.gone = asyncio.Event()
        self.sent = b""
        self.messages: list[dict[str, Any]] = []
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True
        self.gone.set()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.messages.append(message)
        if message["type"] == "http.response.body":
            if not self.reads:
                await asyncio.Event().wait()
            self.sent += message["body"]

    async def get(self, stream: LiveStream) -> None:
        async with asyncio.timeout(SOON_S):
            await stream({"type": "http", "method": "GET", "headgate.connection": self}, self.receive, self.send)


class Door:
    """Lets in, or does not."""

    def __init__(self) -> None:
        self.answer: bool | Exception = True
        self.asked = 0

    async def __call__(self) -> bool:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_it_goes_on_while_it_may_and_gives_its_place_back_when_the_client_leaves():
    alone, client, door = Alone(), Client(), Door()
    getting = asyncio.create_task(client.get(LiveStream(alone.feed, Scope(), door)))
    await asyncio.sleep(0.5)
    request_id = alone.stage.begin()
    async with asyncio.timeout(SOON_S):
        while door.asked < 4 or request_id.encode() not in client.sent:
            await asyncio.sleep(0.02)
    assert alone.feed.viewers == 1
    client.gone.set()
    await getting
    assert alone.feed.viewers == 0
    assert request_id.encode() in client.sent
    events = [line.removeprefix(b"event: ").decode() for line in client.sent.split(b"\n") if line.startswith(b"event")]
    assert events[:2] == ["snapshot", "count"]
    headers = dict(client.messages[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"connection" not in headers
    await alone.feed.close()


@pytest.mark.parametrize("answer", [False, InvalidAdminToken()], ids=["another role", "revoked"])
async def test_it_ends_once_it_may_not_go_on(answer):
    alone, client, door = Alone(), Client(), Door()
    getting = asyncio.create_task(client.get(LiveStream(alone.feed, Scope(), door)))
    await asyncio.sleep(0.3)
    door.answer = answer
    await getting
    assert alone.feed.viewers == 0
    assert client.messages[-1]["more_body"] is False
    assert not client.aborted
    await alone.feed.close()


@pytest.mark.parametrize("answer", [DatabaseUnavailable("away"), TooManyFailedKeys()], ids=["ledger away", "guessers"])
async def test_where_nobody_can_say_it_goes_on_for_a_while(answer):
    alone, client, door = Alone(), Client(), Door()
    door.answer = answer
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await client.get(LiveStream(alone.feed, Scope(), door))
    assert 0.6 <= loop.time() - began_s < SOON_S
    assert door.asked > 2
    await alone.feed.close()


async def test_a_drain_ends_it():
    alone, client = Alone(), Client()
    getting = asyncio.create_task(client.get(LiveStream(alone.feed, Scope(), Door())))
    await asyncio.sleep(0.1)
    alone.draining = True
    await getting
    assert not client.aborted
    await alone.feed.close()


async def test_a_client_that_does_not_read_is_cut_off():
    alone, client = Alone(), Client(reads=False)
    await client.get(LiveStream(alone.feed, Scope(), Door()))
    assert client.aborted
    assert alone.feed.viewers == 0
    await alone.feed.close()


async def test_a_client_that_does_not_read_does_not_hold_a_drain_up(monkeypatch):
    monkeypatch.setattr(live_stream, "SEND_S_MAX", 60)
    monkeypatch.setattr(live_stream, "END_S_MAX", 0.1)
    alone, client = Alone(), Client(reads=False)
    getting = asyncio.create_task(client.get(LiveStream(alone.feed, Scope(), Door())))
    await asyncio.sleep(0.1)
    alone.draining = True
    await getting
    assert client.aborted
    await alone.feed.close()


def test_names_cannot_break_out_of_their_line():
    name = "x\n\ndata: {}\r\nevent: forged\u2028"
    sent = encoded([("started", {"name": name})])
    (first, second, *rest) = sent.split(b"\n")
    assert (first, rest) == (b"event: started", [b"", b""])
    assert b"\r" not in sent
    assert json.loads(second.removeprefix(b"data: "))["name"] == name
