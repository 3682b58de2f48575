"""What a request asks for, once its body was read."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from app.cache.inquiry import Inquiry
from app.cache.telling import bypass_headers, miss_headers
from app.catalog import Route
from app.core.errors import Headers
from app.core.peek import Peek
from app.core.splices import Splice
from app.state.turn import Keeping

Variant: TypeAlias = tuple[bytes, tuple[int, int]]


class Plan(msgspec.Struct):
    """What a request asks for, the routes that may serve it, and what the cache has to do with it. ``size_bytes``: how
    large the body is where it is measured in text. ``usage_splice`` has a chat stream tell its usage, for upstreams
    that are to be asked for it. ``keeping`` is what is to be kept of it, for upstreams that keep nothing.
    ``variants`` are the bodies, by upstream, of those that are not sent ``body``, with where the model stands in each.
    """

    ask: Peek
    body: bytes
    routes: tuple[Route, ...]
    inquiry: Inquiry
    size_bytes: int
    usage_splice: Splice | None = None
    is_form: bool = False
    keeping: Keeping | None = None
    variants: dict[str, Variant] = {}

    def take_body(self) -> bytes:
        """The body, kept here no longer: a stream must not hold it for as long as it runs."""
        body, self.body = self.body, b""
        self.variants = {}
        return body

    def take_variants(self) -> dict[str, Variant]:
        """Likewise, and before the body, with which they go."""
        variants, self.variants = self.variants, {}
        return variants

    def take_keeping(self) -> Keeping | None:
        """What is to be kept, likewise: it has a copy of the input."""
        keeping, self.keeping = self.keeping, None
        return keeping

    @property
    def cache_headers(self) -> Headers:
        """What a client is told of the cache where a call is made for it."""
        inquiry = self.inquiry
        if inquiry.address is None or inquiry.shadow:
            return bypass_headers(inquiry.reason)
        return miss_headers(inquiry.reason)
