"""Recent owners of stored objects in Redis: other replicas see them before the ledger has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.core.records import OwnedObject
from app.store.redis import Redis, RedisError, Script

KEPT_S = 24 * 60 * 60
"""Longer than the ledger may be away."""

_SCRIPTS = Path(__file__).with_name("scripts")
KEEP = Script("keep_owner", (_SCRIPTS / "keep_owner.lua").read_text(encoding="utf-8"), at_once=True)
FIND = Script("find_owners", (_SCRIPTS / "find_owners.lua").read_text(encoding="utf-8"))


class SharedOwners:
    """Which upstream holds a team's object. A Redis that does not answer knows nothing; the ledger does."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def __repr__(self) -> str:
        return f"SharedOwners({self._client!r})"

    def put(self, owned: Sequence[OwnedObject]) -> None:
        """Objects of one team at one upstream. Sent in the order of calls, and at once: before the client has been
        sent an id.
        """
        keys = [_key(each.team_id, each.object_id) for each in owned]
        self._client.post(KEEP, keys, [owned[0].upstream, KEPT_S])

    async def upstreams_of(self, team_id: str, object_ids: Sequence[str]) -> list[tuple[str, str]]:
        """Those of ``object_ids`` that are known to be the team's, each with the upstream that holds it."""
        try:
            found = await self._client.call(FIND, [_key(team_id, object_id) for object_id in object_ids], [])
        except RedisError:
            return []
        if not isinstance(found, list):
            return []
        pairs = zip(object_ids, found, strict=False)
        return [(object_id, upstream.decode()) for object_id, upstream in pairs if isinstance(upstream, bytes)]


def _key(team_id: str, object_id: str) -> str:
    return f"hg:{{{team_id}}}:own:{object_id}"
