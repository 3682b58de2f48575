"""Connections whose protocol was switched, as their client counts them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from app.upstream.client import Client, ConnectionBroken, TooManyConnections


async def test_a_tunnel_is_counted_from_its_connection_to_its_end(tmp_path):
    """Also where the upstream has gone before anybody has spoken."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        await reader.read()
        writer.close()

    for play, counted in ((hang_up, 0), (switch, 1)):
        path = str(tmp_path / play.__name__)
        async with await asyncio.start_unix_server(play, path):
            client = Client(
                host="h",
                port=80,
                tls=None,
                uds=path,
                base_path="",
                connect_timeout_s=1,
                keepalive_timeout_s=1,
                connections_max=1,
            )
            with contextlib.suppress(ConnectionBroken):
                await client.switch(b"/responses", [])
            await asyncio.sleep(0.05)
            assert client.in_use == counted
            if counted:
                with pytest.raises(TooManyConnections):
                    await client.switch(b"/responses", [])
            await client.close()
            await asyncio.sleep(0.05)
            assert client.in_use == 0
