"""What one configuration says of the cache for each request."""

from __future__ import annotations

from collections.abc import Mapping

from app.cache.inquiry import Asked, Inquiry, inquire
from app.cache.wishes import Policy, wish_of
from app.catalog import Catalog, Route
from app.core.codec import JSONObject
from app.core.exchange import Exchange
from app.core.identity import Principal
from app.core.peek import Peek
from app.settings import CacheSettings
from app.upstream.pool import UpstreamPool

POLICIES_MAX = 4096


class Inquirer:
    """Policy of key, model and file, and the places that an answer may come from."""

    def __init__(
        self, secret: bytes, settings: CacheSettings, catalog: Catalog, pools: Mapping[str, UpstreamPool]
    ) -> None:
        """``secret``: digests are keyed with it."""
        self._secret = secret
        self._settings = settings
        self._catalog = catalog
        self._pools = pools
        self._policies: dict[str, Policy] = {}

    def __repr__(self) -> str:
        return f"Inquirer(mode={self._settings.mode!r}, policies={len(self._policies)})"

    def inquire(
        self, exchange: Exchange, principal: Principal, ask: Peek, body: JSONObject, routes: tuple[Route, ...]
    ) -> Inquiry:
        """What may be done for the request. Raises InvalidRequest."""
        if not exchange.endpoint.cacheable and not wish_of(exchange.headers).idempotency_key:
            return self.passed_by(exchange)
        asked = Asked(
            endpoint=exchange.endpoint,
            query=exchange.query,
            headers=exchange.headers,
            principal=principal,
            ask=ask,
            body=body,
            sources=lambda: self._sources(routes),
        )
        return inquire(
            asked, self._policy_of(ask.model), self._secret, idempotency_ttl_s=self._settings.idempotency_ttl_s
        )

    def passed_by(self, exchange: Exchange) -> Inquiry:
        """The cache has nothing to do with this endpoint. Raises InvalidRequest for wishes that make no sense."""
        return Inquiry("endpoint", only_if_cached=wish_of(exchange.headers).only_if_cached)

    def _policy_of(self, model: str) -> Policy:
        policy = self._policies.get(model)
        if policy is None:
            if len(self._policies) >= POLICIES_MAX:
                # Names are clients' text: start afresh rather than grow.
                self._policies.clear()
            own = self._catalog.cache_of(model)
            policy = self._policies[model] = Policy(
                mode=None if own is None else own.mode,
                default=self._settings.mode,
                scope=(own and own.scope) or self._settings.scope,
                ttl_s=(own and own.ttl_s) or self._settings.ttl_s,
            )
        return policy

    def _sources(self, routes: tuple[Route, ...]) -> tuple[list[tuple[str, str, str]], frozenset[bytes]]:
        pools = [self._pools[route.upstream] for route in routes]
        places = [(route.upstream, _account_of(pool), route.model) for route, pool in zip(routes, pools, strict=True)]
        return places, frozenset().union(*(pool.forwarded for pool in pools))


def _account_of(pool: UpstreamPool) -> str:
    """Where an upstream is, and as whose customer it is called."""
    settings = pool.settings
    return " ".join((pool.base_url, settings.organization or "", settings.project or ""))
