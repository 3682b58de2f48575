"""What a supervisor and its children say to one another, and what either end makes of the other's."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from app.cli.channel import Begin, Channel, Failed, Ready, Reload, Reloaded, encoded, receive_blocking

TEXT = "models: []  # ä\n" * 10_000


@pytest.mark.parametrize(
    "message",
    [
        Begin(TEXT, "/p", "http://x", "/m", "/s"),
        Reload(TEXT),
        Ready(),
        Failed("why\nnot"),
        Reloaded(None),
        Reloaded("x"),
    ],
)
async def test_every_message_arrives_as_it_was_sent(message):
    ours, theirs = socket.socketpair()
    one, other = await Channel.open(ours), await Channel.open(theirs)
    one.send(message)
    one.send(Ready())
    async with asyncio.timeout(30):
        assert await other.receive() == message
        assert await other.receive() == Ready()
    one.close()
    async with asyncio.timeout(30):
        assert await other.receive() is None, "the end is told"
    other.send(Ready())
    other.close()
    await other.closed()


def test_the_first_message_is_read_without_a_loop():
    ours, theirs = socket.socketpair()
    begin = Begin(TEXT, "/p", "http://x", "/m", "/s")
    sending = threading.Thread(target=ours.sendall, args=(encoded(begin),))
    sending.start()
    assert receive_blocking(theirs) == begin
    sending.join()
    ours.close()
    assert receive_blocking(theirs) is None
    theirs.close()


async def test_half_a_message_of_one_that_died_is_none():
    ours, theirs = socket.socketpair()
    other = await Channel.open(theirs)
    ours.sendall(encoded(Reload(TEXT))[:-10])
    ours.close()
    async with asyncio.timeout(30):
        assert await other.receive() is None
    other.close()
