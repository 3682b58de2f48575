"""What the tests of the cache's stores share: a clock, entries, and one of the stores with what belongs to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from app.cache.entry import JSON_FORM, STREAM_FORM, Address, Entry
from app.cache.memory import MemoryStore
from app.cache.redis import RedisStore
from app.core.usage import Usage
from app.store.redis import RedisClient
from tests.fakes.valkey import ValkeyServer

START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
SECRET = bytes(range(32))
FORMS = (JSON_FORM, STREAM_FORM, f"{STREAM_FORM}.0f3a")


class TestClock:
    """A clock that stands still until it is moved."""

    __test__ = False

    def __init__(self, now_ms: int = START_MS) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._now_ms / 1000

    def advance(self, milliseconds: int) -> None:
        self._now_ms += milliseconds


class Driver:
    """One of the stores. ``server`` is where a Redis has it."""

    def __init__(self, store: MemoryStore | RedisStore, clock: TestClock, server: ValkeyServer | None = None) -> None:
        self.store = store
        self.clock = clock
        self.server = server

    def advance(self, milliseconds: int) -> None:
        """Time passes: by our clock, and for leases by the server's too. Values live on there, past their stamp."""
        self.clock.advance(milliseconds)
        if self.server is None:
            return
        for lease in self.server.execute("KEYS", "hg:cache:*:lease"):
            left_ms = self.server.execute("PTTL", lease) - milliseconds
            if left_ms > 0:
                self.server.execute("PEXPIRE", lease, left_ms)
            else:
                self.server.execute("DEL", lease)


async def connected(server: ValkeyServer, clock: TestClock, secret: bytes = SECRET) -> tuple[RedisStore, RedisClient]:
    """A store of its own, as another process has it."""
    client = RedisClient(server.url)
    await client.start()
    assert client.up
    return RedisStore(client, clock, secret), client


def address(number: int = 1, form: str = JSON_FORM) -> Address:
    return Address(number.to_bytes(32, "big"), form)


def key(where: Address) -> str:
    """Where Redis has it."""
    return f"hg:cache:{{{where.digest.hex()}}}:{where.form}"


def entry(body: bytes = b'{"object":"response"}', *, ttl_ms: int = HOUR_MS, **fields: Any) -> Entry:
    told: dict[str, Any] = {
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"x-request-id", b"req_1")],
        "made_at_ms": START_MS,
        "expires_at_ms": START_MS + ttl_ms,
        "change": 7,
        "team_id": "team_1",
        "model_requested": "gpt-4o",
        "upstream": "openai",
        "model": "gpt-4o",
        "model_served": "gpt-4o-2024-08-06",
        "service_tier": "default",
        "response_id": "resp_1",
        "usage": Usage(input_tokens=14, output_tokens=2),
        "usage_raw": '{"input_tokens":14}',
        "cost_nanousd": 123_456,
        "price_source": "genai-prices",
        "price_version": "0.2.3",
        "request_digest": b"\x00\xff" * 16,
    }
    return Entry(body=body, **(told | fields))


async def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Returns as soon as ``condition`` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.005)
