"""Plans of requests that may be answered from the cache, by the bytes that asked: who asks the same again sends the
same bytes. To read, prove and digest a body of 1 KB takes 20 µs, to find it here 1.

A plan depends on nothing but the configuration (whose this is), the principal (one that changed is another one) and
what stands in the key.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

from app.core.exchange import Exchange
from app.core.identity import Principal
from app.pipeline.plan import Plan

BODY_BYTES_MAX = 64 * 1024
BODIES_BYTES_MAX = 16 * 1024 * 1024
OVERHEAD_BYTES = 2048
"""What a plan takes beside the body, at most, with query and headers."""

_READ = frozenset((b"x-headgate-cache", b"cache-control", b"idempotency-key", b"openai-beta"))

REST_BYTES_MAX = 512
"""Of query and headers that are read; counted in the overhead."""

Key: TypeAlias = tuple[Principal, str, bytes, bytes, tuple[tuple[bytes, bytes], ...]]


class Recall:
    """The plans of one configuration; those that were asked for longest ago go first. ``forwarded``: the headers
    that any upstream is sent beside the usual ones.
    """

    def __init__(self, forwarded: frozenset[bytes]) -> None:
        self._read = _READ | forwarded
        self._plans: OrderedDict[Key, Plan] = OrderedDict()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"Recall(plans={len(self._plans)}, bytes={self._bytes})"

    def find(self, exchange: Exchange, principal: Principal, body: bytes) -> tuple[Key | None, Plan | None]:
        """The key of a request (None: it is too large to be kept), and its plan where it is known."""
        if len(body) > BODY_BYTES_MAX:
            return None, None
        read = self._read
        headers = tuple([header for header in exchange.headers if header[0] in read])
        if len(exchange.query) + sum([len(value) for _, value in headers]) > REST_BYTES_MAX:
            return None, None
        key = (principal, exchange.endpoint.path, exchange.query, body, headers)
        found = self._plans.get(key)
        if found is None:
            return key, None
        self._plans.move_to_end(key)
        return key, Plan(found.ask, body, found.routes, found.inquiry, len(body), found.usage_splice)

    def keep(self, key: Key | None, plan: Plan) -> None:
        """Only what the cache can answer is worth it, and only what no request is alone with."""
        body = plan.body
        if key is None or plan.inquiry.address is None or plan.inquiry.request_digest or plan.keeping is not None:
            return
        if key not in self._plans:
            self._bytes += len(body) + OVERHEAD_BYTES
        self._plans[key] = Plan(plan.ask, body, plan.routes, plan.inquiry, len(body), plan.usage_splice)
        while self._bytes > BODIES_BYTES_MAX:
            (*_, gone, _), _ = self._plans.popitem(last=False)
            self._bytes -= len(gone) + OVERHEAD_BYTES
