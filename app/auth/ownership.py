"""Which team a stored response belongs to, and which upstream holds it.

All teams share the provider's account: an id that this gateway did not see being made for a team is
unknown to that team, whether it exists or not.
"""

from __future__ import annotations

import re
from collections import OrderedDict

from app.core.errors import LedgerUnavailable, PreviousResponseNotFound
from app.core.records import OwnedObject
from app.store.database import Database
from app.store.errors import StoreError
from app.store.objects import owner_of
from app.store.shared_owners import SharedOwners

RECENT_MAX = 100_000
LOOKUP_S_MAX = 0.7
"""What a request waits for, also where the ledger is mute."""
OBJECT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,255}\Z")


class Ownership:
    """Recent owners in memory and, where there is one, in the shared store; all of them in the ledger."""

    def __init__(self, database: Database, shared: SharedOwners | None = None) -> None:
        self._database = database
        self._shared = shared
        self._recent: OrderedDict[str, list[OwnedObject]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Ownership(recent={len(self._recent)}, shared={self._shared is not None})"

    def remember(self, owned: OwnedObject) -> None:
        """From now on ``owned`` is its team's; called before the client learns the id."""
        known = self._recent.setdefault(owned.object_id, [])
        if not any(one.upstream == owned.upstream for one in known):
            known.append(owned)
        self._recent.move_to_end(owned.object_id)
        if len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)
        if self._shared is not None:
            self._shared.put(owned)

    async def upstream_of(self, team_id: str, object_id: str) -> str:
        """The upstream that holds the team's object.

        Raises PreviousResponseNotFound, the same for unknown and foreign, and LedgerUnavailable where
        nobody can say.
        """
        if OBJECT_ID.match(object_id) is not None:
            for owned in await self._owners(team_id, object_id):
                if owned.team_id == team_id:
                    return owned.upstream
        raise PreviousResponseNotFound(
            f"Previous response with id {object_id[:64]!r} not found.", param="previous_response_id"
        )

    async def _owners(self, team_id: str, object_id: str) -> list[OwnedObject]:
        found = self._recent.get(object_id)
        if found:
            return found
        if self._shared is not None:
            upstream = await self._shared.upstream_of(team_id, object_id)
            if upstream is not None:
                return [OwnedObject(object_id, upstream, team_id, "response", "", 0)]
        try:
            return await self._database.within(LOOKUP_S_MAX, self._in_ledger(object_id))
        except (StoreError, TimeoutError) as error:
            raise LedgerUnavailable("The owner of the previous response cannot be looked up now.") from error

    async def _in_ledger(self, object_id: str) -> list[OwnedObject]:
        async with self._database.read() as connection:
            return await owner_of(connection, object_id)
