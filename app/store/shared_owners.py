"""Recent owners of stored objects in Redis: other replicas see them before the ledger has them."""

from __future__ import annotations

from pathlib import Path

from app.core.records import OwnedObject
from app.store.redis import Redis, RedisError, Script

KEPT_S = 24 * 60 * 60
"""Longer than the ledger may be away."""

_SCRIPTS = Path(__file__).with_name("scripts")
KEEP = Script("keep_owner", (_SCRIPTS / "keep_owner.lua").read_text(encoding="utf-8"))
FIND = Script("find_owner", (_SCRIPTS / "find_owner.lua").read_text(encoding="utf-8"))


class SharedOwners:
    """Which upstream holds a team's object. A Redis that does not answer knows nothing; the ledger does."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def __repr__(self) -> str:
        return f"SharedOwners({self._client!r})"

    def put(self, owned: OwnedObject) -> None:
        """Sent in the order of calls, before the client can have read the id."""
        self._client.post(KEEP, [_key(owned.team_id, owned.object_id)], [owned.upstream, KEPT_S])

    async def upstream_of(self, team_id: str, object_id: str) -> str | None:
        """The upstream's name, or None."""
        try:
            found = await self._client.call(FIND, [_key(team_id, object_id)], [])
        except RedisError:
            return None
        return found.decode() if isinstance(found, bytes) else None


def _key(team_id: str, object_id: str) -> str:
    return f"hg:{{{team_id}}}:own:{object_id}"
