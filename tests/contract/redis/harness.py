"""What the tests of the Redis client share: scripts, logs of what callbacks were told, waiting."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hiredis
import pytest

from app.store.redis import Redis, RedisError, Script
from tests.fakes.valkey import DEBIAN_REDIS_SERVER, ValkeyServer

ECHO = Script("echo", "return ARGV[1]")
APPEND = Script("append", "redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('LLEN', KEYS[1])")
FAIL = Script("fail", "return redis.call('INCR', KEYS[1])")
TWO_KEYS = Script("two_keys", "redis.call('SET', KEYS[1], ARGV[1]) redis.call('SET', KEYS[2], ARGV[1]) return ARGV[1]")


class States:
    """What ``on_state`` was told."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, str]] = []

    def __call__(self, up: bool, reason: str) -> None:
        self.seen.append((up, reason))

    @property
    def ups(self) -> list[bool]:
        return [up for up, _ in self.seen]


class Posts:
    """Posts by name, and what became of each."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self.made: list[str] = []
        self.answers: dict[str, Any] = {}
        self.lost: list[str] = []

    def append(self, key: str, name: str, script: Script = APPEND) -> None:
        def answered(reply: Any) -> None:
            assert name not in self.answers
            self.answers[name] = reply

        self.made.append(name)
        self._client.post(script, [key], [name], answered, lambda: self.lost.append(name))

    @property
    def all_told(self) -> bool:
        """Exactly one of the two for each."""
        return sorted([*self.answers, *self.lost]) == sorted(self.made)


class PlayedServer:
    """Answers as ``answer(words)`` says: a number, text, a list of such, or an error for an exception."""

    def __init__(self, answer: Callable[[list[str]], Any]) -> None:
        self.answer = answer
        self.connections = 0
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        commands = hiredis.Reader(notEnoughData=None)
        while data := await reader.read(65536):
            commands.feed(data)
            while (words := commands.gets()) is not None:
                writer.write(_packed(self.answer([word.decode() for word in words])))
        writer.close()


def _packed(value: Any) -> bytes:
    match value:
        case list():
            return b"*%d\r\n" % len(value) + b"".join(_packed(one) for one in value)
        case int():
            return b":%d\r\n" % value
        case Exception():
            return f"-{value}\r\n".encode()
        case _:
            return b"$%d\r\n%s\r\n" % (len(value), value.encode())


async def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Returns as soon as ``condition`` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.005)


async def outcome(client: Redis, key: str, word: str = "x") -> bytes | RedisError:
    """What a call comes to, and it does so within the timeout, and what a busy machine adds to it."""
    began = time.monotonic()
    try:
        answer: bytes = await client.call(ECHO, [key], [word])
    except RedisError as error:
        assert time.monotonic() - began < 5
        return error
    return answer


def needs_tls() -> None:
    if shutil.which("openssl") is None or not Path(DEBIAN_REDIS_SERVER).exists():
        pytest.skip("needs openssl and a server that was built with TLS")


def certificate(directory: Path) -> tuple[str, str]:
    """Paths of a key and of its certificate, for this machine under both of its names."""
    key, chain = str(directory / "key.pem"), str(directory / "certificate.pem")
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*request, *names, "-keyout", key, "-out", chain], check=True, capture_output=True)
    return key, chain


def run_id(server: ValkeyServer) -> str:
    """As the server itself tells it."""
    lines = server.execute("INFO", "server").decode().splitlines()
    return str(next(line.removeprefix("run_id:") for line in lines if line.startswith("run_id:")))
