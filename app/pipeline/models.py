"""``GET /v1/models``: the names this configuration serves, with the upstreams' own where patterns lead to them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import unquote

import msgspec

from app.catalog import Catalog
from app.core.clock import Clock
from app.core.errors import ModelNotFound, UpstreamError, quoted
from app.core.identity import Principal
from app.core.patterns import matches_any
from app.pipeline.fine_tuned import FineTuned
from app.upstream.pool import UpstreamPool

KEPT_S = 300.0
FAILURE_KEPT_S = 10.0
FETCH_TIMEOUT_S = 10.0
LIST_BYTES_MAX = 4 * 1024 * 1024
NAMES_MAX = 5000


class _Model(msgspec.Struct):
    id: str
    created: int = 0
    owned_by: str = ""


class _List(msgspec.Struct):
    data: list[_Model]


class ModelList:
    """Knows every upstream's list for five minutes; one fetch at a time for each."""

    def __init__(
        self, catalog: Catalog, pools: Mapping[str, UpstreamPool], clock: Clock, fine_tuned: FineTuned
    ) -> None:
        self._fine_tuned = fine_tuned
        self._catalog = catalog
        self._pools = pools
        self._clock = clock
        self._lists: dict[str, tuple[float, list[_Model]]] = {}
        self._locks = {name: asyncio.Lock() for name in pools}

    def __repr__(self) -> str:
        return f"ModelList(known={sorted(self._lists)})"

    async def body_for(self, principal: Principal, asked: str | None = None) -> bytes:
        """The list as JSON, only with what the principal may use; or the model ``asked`` for. Raises ModelNotFound,
        LedgerUnavailable.
        """
        upstreams = self._catalog.listed_upstreams
        lists = await asyncio.gather(*(self._list(name) for name in upstreams))
        found: dict[str, _Model] = {}
        for name, upstream in self._catalog.names:
            found[name] = _Model(id=name, owned_by=upstream)
        for upstream, models in zip(upstreams, lists, strict=True):
            for model in models:
                if model.id not in found and self._serves(upstream, model.id):
                    found[model.id] = model
        visible = await self._fine_tuned.visible(principal, found)
        data = [
            {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owned_by}
            for model in found.values()
            if model.id in visible and (principal.models is None or matches_any(principal.models, model.id))
        ]
        if asked is None:
            return msgspec.json.encode({"object": "list", "data": data})
        wanted = unquote(asked)
        for row in data:
            if row["id"] == wanted:
                return msgspec.json.encode(row)
        raise ModelNotFound(f"The model {quoted(wanted)!r} does not exist.", param="model")

    def _serves(self, upstream: str, model: str) -> bool:
        try:
            return any(route.upstream == upstream for route in self._catalog.resolve(model))
        except ModelNotFound:
            return False

    async def _list(self, upstream: str) -> list[_Model]:
        async with self._locks[upstream]:
            now_s = self._clock.monotonic_s()
            known = self._lists.get(upstream)
            if known is not None and known[0] > now_s:
                return known[1]
            try:
                async with asyncio.timeout(FETCH_TIMEOUT_S):
                    models = await self._fetch(self._pools[upstream])
                kept_s = KEPT_S
            except (UpstreamError, TimeoutError, ValueError):
                # An older list is better than none, and the next request tries again soon.
                models, kept_s = (known[1] if known is not None else []), FAILURE_KEPT_S
            self._lists[upstream] = (now_s + kept_s, models)
            return models

    async def _fetch(self, pool: UpstreamPool) -> list[_Model]:
        status, body = await pool.fetch("/models", LIST_BYTES_MAX)
        if status != 200:
            raise ValueError("no list")
        return msgspec.json.decode(body, type=_List).data[:NAMES_MAX]
