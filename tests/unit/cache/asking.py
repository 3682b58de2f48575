"""Who asks, what they ask, and what is kept for them: what the tests of the cache share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from app.cache.entry import Entry
from app.cache.inquiry import Asked
from app.cache.wishes import Policy
from app.core.codec import parse_object
from app.core.errors import Headers
from app.core.exchange import Endpoint
from app.core.identity import Principal
from app.core.peek import peek

START_MS = 1_800_000_000_000
SECRET = bytes(range(32))
ENDPOINTS = {
    "responses": Endpoint("responses", "POST", "/responses", metered=True, dialect="responses", cacheable=True),
    "chat": Endpoint("chat", "POST", "/chat/completions", metered=True, dialect="chat", cacheable=True),
    "embeddings": Endpoint("embeddings", "POST", "/embeddings", metered=True, dialect="embeddings", cacheable=True),
}
ROUTES = [("openai", "https://api.openai.com/v1", "gpt-4o")]


class TestClock:
    """A clock that stands still until it is moved."""

    __test__ = False

    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


def whole(family: str, **members: Any) -> dict[str, Any]:
    """A body whose answer is the same each time, but for what ``members`` change."""
    told = {
        "responses": {"model": "gpt-4o", "input": "hello", "temperature": 0, "store": False},
        "chat": {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], "temperature": 0},
        "embeddings": {"model": "text-embedding-3-small", "input": "hello"},
    }[family]
    return told | members


def principal(key: str = "key_1", team: str = "team_1", **fields: Any) -> Principal:
    return Principal(
        team_id=team,
        team_name=team,
        key_id=key,
        key_name=key,
        secret_id=f"{key}s",
        key_limits=(),
        team_limits=(),
        **fields,
    )


def asked(
    body: dict[str, Any] | bytes,
    *,
    family: str = "responses",
    headers: Headers | None = None,
    who: Principal | None = None,
    query: bytes = b"",
    sources: Callable[[], Any] = lambda: (ROUTES, frozenset()),
) -> Asked:
    document = parse_object(body if isinstance(body, bytes) else msgspec.json.encode(body))
    return Asked(
        endpoint=ENDPOINTS[family],
        query=query,
        headers=headers or [],
        principal=who or principal(),
        ask=peek(family, document),
        body=document,
        sources=sources,
    )


def policy(mode: Any = "deterministic", scope: Any = "team", *, model: Any = None, ttl_s: float = 60) -> Policy:
    return Policy(mode=model, default=mode, scope=scope, ttl_s=ttl_s)


def entry(body: bytes = b"{}", **fields: Any) -> Entry:
    told: dict[str, Any] = {
        "status": 200,
        "headers": [(b"content-type", b"application/json")],
        "made_at_ms": START_MS,
        "expires_at_ms": START_MS + 60_000,
        "change": 7,
        "team_id": "team_1",
        "model_requested": "gpt-4o",
        "upstream": "openai",
        "model": "gpt-4o",
    }
    return Entry(body=body, **(told | fields))
