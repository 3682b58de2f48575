"""Caches as several processes have them, requests to them, and an answer in its two forms."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from app.cache.cache import ResponseCache
from app.cache.entry import CacheStore
from app.cache.inquiry import Inquiry, inquire
from app.cache.memory import MemoryStore
from app.cache.sharing import SharedAnswer
from app.cache.synthesis import stream_of
from tests.unit.cache.asking import SECRET, TestClock, asked, entry, policy, whole

JSON = [(b"content-type", b"application/json"), (b"x-request-id", b"req_1")]
SSE = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-request-id", b"req_1")]


def response(*items: dict[str, Any], **members: Any) -> bytes:
    part = {"type": "output_text", "text": "hello", "annotations": []}
    message = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    told = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "gpt-4o",
        "output": list(items) or [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    return json.dumps(told | members, indent=2).encode()


ANSWER = response()
COMPACT = msgspec.json.format(ANSWER, indent=-1)
STREAM = stream_of(ANSWER) or b""
# Of a call of a custom tool it is not known how it is streamed.
UNTOLD = response({"id": "ctc_1", "type": "custom_tool_call", "call_id": "c", "name": "f", "input": "a"})


class Replica:
    """A cache whose process shares its store with others, or not."""

    def __init__(self, store: CacheStore | None = None, clock: TestClock | None = None, *, is_local: bool = True):
        self.clock = clock or TestClock()
        self.store = store or MemoryStore(self.clock, 2**20)
        self.cache = ResponseCache(self.store, SECRET, self.clock, is_local=is_local)

    def answer(self, bytes_max: int = 10_000) -> SharedAnswer:
        return self.cache.new_answer(bytes_max, 1, list)

    def keep(
        self, told: Inquiry, body: bytes, headers: Any = JSON, *, family: str = "responses", **fields: Any
    ) -> bool:
        """As a call that begins and ends now."""
        with self.cache.leading(told, self.answer()) as lead:
            made = {"made_at_ms": self.clock.ms, "expires_at_ms": self.clock.ms + 60_000, "change": lead.change}
            return self.cache.keep(lead, family, entry(body, headers=headers, **(made | fields)))

    async def found(self, told: Inquiry) -> tuple[bytes, Any] | None:
        kept = (await self.cache.look(told)).entry
        return None if kept is None else (kept.body, kept.headers)


def asks(family: str = "responses", *headers: tuple[bytes, bytes], ttl_s: float = 60, **members: Any) -> Inquiry:
    request = asked(whole(family, **members), family=family, headers=list(headers))
    return inquire(request, policy("all", ttl_s=ttl_s), SECRET, idempotency_ttl_s=ttl_s)


def once(key: bytes = b"k", **members: Any) -> Inquiry:
    return asks("responses", (b"idempotency-key", key), **members)
