"""Which team a stored object belongs to, and which upstream holds it.

All teams share the provider's account: an id that this gateway did not see being made for a team is
unknown to that team, whether it exists or not.

What a team's own call *made* is its own at once. What an answer merely *names* may have been another team's before, if
that team's word of it was kept by another process: it is the team's once the ledger has it so, where the first stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Mapping, Sequence

from app.auth.references import Reference
from app.core.errors import InvalidRequest, LedgerUnavailable, StoredObjectNotFound
from app.core.ids import OBJECT_ID
from app.core.records import OwnedObject
from app.store.database import Database
from app.store.errors import StoreError
from app.store.objects import forget, owned_by, page_of, upstreams_of
from app.store.shared_owners import SharedOwners

RECENT_MAX = 100_000
NAMED_MAX = 100_000
CLAIM_LOOKS_S = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.2)
"""When the ledger is asked whether it has what was named a moment ago: it is being written."""
CLAIM_S_MAX = 5.0
"""After that it is there, or has been and was deleted, or never will be."""
FRESH_MAX = 2000
"""What was made last, for lists: more than comes to be before the ledger has it."""
LOOKUP_S_MAX = 0.7
"""What a request waits for, also where the ledger is mute."""
SHARED_PAUSE_S = 0.005
SHARED_LOOKUPS_MAX = 64
"""Of one request; what more it names is looked up in the ledger alone."""


class Ownership:
    """Recent owners in memory and, where there is one, in the shared store; all of them in the ledger."""

    def __init__(self, database: Database, shared: SharedOwners | None = None) -> None:
        self._database = database
        self._shared = shared
        self._recent: OrderedDict[str, list[OwnedObject]] = OrderedDict()
        self._fresh: deque[OwnedObject] = deque(maxlen=FRESH_MAX)
        self._named: OrderedDict[tuple[str, str], dict[str, float]] = OrderedDict()
        """By team and id, the upstreams whose answers have named it of late, and when that was written down."""

    def __repr__(self) -> str:
        return f"Ownership(recent={len(self._recent)}, shared={self._shared is not None})"

    def remember(self, owned: Sequence[OwnedObject]) -> list[OwnedObject]:
        """From now on ``owned`` are their team's, which is one; called before the client learns the ids. Returns those
        of which that was not known; what another team has is not among them either: whoever was first keeps it.
        """
        new = [each for each in owned if self._is_new(each)]
        if new and self._shared is not None:
            self._shared.put(new)
        return new

    def _is_new(self, owned: OwnedObject) -> bool:
        known = self._recent.setdefault(owned.object_id, [])
        self._recent.move_to_end(owned.object_id)
        if any(one.upstream == owned.upstream for one in known):
            return False
        known.append(owned)
        self._fresh.append(owned)
        if len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)
        return True

    def claim(self, owned: OwnedObject) -> bool:
        """An answer to the team has named ``owned``; it is the team's if the ledger has it so. False where that was
        written down already.
        """
        if any(one.upstream == owned.upstream for one in self._recent.get(owned.object_id, ())):
            return False
        upstreams = self._named.setdefault((owned.team_id, owned.object_id), {})
        self._named.move_to_end((owned.team_id, owned.object_id))
        if owned.upstream in upstreams:
            return False
        upstreams[owned.upstream] = time.monotonic()
        if len(self._named) > NAMED_MAX:
            self._named.popitem(last=False)
        return True

    def known_at(self, team_id: str, object_id: str) -> str | None:
        """The upstream that holds the team's object, where memory knows it; nothing is looked up."""
        owned = self._in_memory(team_id, object_id)
        return None if owned is None else owned.upstream

    async def those_of(self, team_id: str, object_ids: Sequence[str]) -> frozenset[str]:
        """Which of ``object_ids`` are the team's. Raises LedgerUnavailable."""
        return frozenset(owned.object_id for owned in await self._find(team_id, object_ids))

    async def holder_of(
        self, team_id: str, references: Sequence[Reference], public: Mapping[str, str] | None = None
    ) -> str | None:
        """The upstream that holds all that is referred to; None where nothing is.

        ``public``: the upstream of each object that every team may use. Raises StoredObjectNotFound for the first
        that is not the team's, the same for unknown and foreign; InvalidRequest where no one upstream holds all;
        LedgerUnavailable where nobody can say.
        """
        if not references:
            return None
        found = dict(public or {})
        wanted = list(dict.fromkeys(each.object_id for each in references if each.object_id not in found))
        holders = await self._find(team_id, [each for each in wanted if OBJECT_ID.match(each) is not None])
        found.update((owned.object_id, owned.upstream) for owned in holders)
        upstreams: dict[str, str] = {}
        for reference in references:
            upstream = found.get(reference.object_id)
            if upstream is None:
                raise StoredObjectNotFound.of(reference.param, reference.object_id)
            upstreams.setdefault(upstream, reference.param)
        if len(upstreams) > 1:
            first, second, *_ = upstreams.items()
            raise InvalidRequest(
                f"What {first[1]} names is stored at the upstream {first[0]!r}, and what {second[1]} names at"
                f" {second[0]!r}: one request can use one of them.",
                param=second[1],
            )
        return next(iter(upstreams))

    async def own(self, team_id: str, reference: Reference) -> OwnedObject:
        """One object of the team's. Raises StoredObjectNotFound, LedgerUnavailable."""
        found = None
        if OBJECT_ID.match(reference.object_id) is not None:
            found = self._in_memory(team_id, reference.object_id)
            if found is None:
                rows = await self._look(self._claimed(team_id, [reference.object_id]))
                found = rows[0] if rows else None
        if found is None:
            raise StoredObjectNotFound.of(reference.param, reference.object_id)
        return found

    async def page(
        self, team_id: str, kind: str, *, after: OwnedObject | None, ascending: bool, limit: int
    ) -> list[OwnedObject]:
        """The team's objects of a kind, the newest first unless ``ascending``. Raises LedgerUnavailable."""
        rows = await self._look(self._page(team_id, kind, after, ascending=ascending, limit=limit))
        known = {owned.object_id for owned in rows}
        # What was made just now is still on its way to the ledger.
        fresh = [
            owned
            for owned in self._fresh
            if owned.team_id == team_id and owned.kind == kind and owned.object_id not in known
        ]
        if fresh:
            place = None if after is None else _place(after)
            behind = [o for o in fresh if place is None or (_place(o) > place if ascending else _place(o) < place)]
            rows = sorted([*rows, *behind], key=_place, reverse=not ascending)[:limit]
        return rows

    async def forget(self, team_id: str, object_ids: Sequence[str]) -> None:
        """The team has deleted them. Where the ledger does not answer they stay, and are found gone upstream."""
        for object_id in object_ids:
            kept = [one for one in self._recent.pop(object_id, ()) if one.team_id != team_id]
            if kept:
                self._recent[object_id] = kept
            self._named.pop((team_id, object_id), None)
        gone = frozenset(object_ids)
        self._fresh = deque((o for o in self._fresh if o.object_id not in gone), maxlen=FRESH_MAX)
        with contextlib.suppress(StoreError, TimeoutError):
            await self._database.within(LOOKUP_S_MAX, self._delete(team_id, object_ids))

    def _in_memory(self, team_id: str, object_id: str) -> OwnedObject | None:
        return next((one for one in self._recent.get(object_id, ()) if one.team_id == team_id), None)

    async def _find(self, team_id: str, object_ids: Sequence[str]) -> list[OwnedObject]:
        """Those of ``object_ids`` that are the team's. What it takes is the same for a foreign one as for one that
        does not exist.
        """
        found, left = [], []
        for object_id in object_ids:
            owned = self._in_memory(team_id, object_id)
            if owned is None:
                left.append(object_id)
            else:
                found.append(owned)
        if left:
            found += await self._in_shared(team_id, left)
        if left:
            found += await self._look(self._claimed(team_id, left))
        if left and self._shared is not None and len(found) < len(object_ids):
            # Another process's word of it may reach Redis after the client's next request has reached this one.
            known = {owned.object_id for owned in found}
            left = [object_id for object_id in left if object_id not in known]
            await asyncio.sleep(SHARED_PAUSE_S)
            found += await self._in_shared(team_id, left)
        return found

    async def _in_shared(self, team_id: str, left: list[str]) -> list[OwnedObject]:
        """What the shared store has as the team's; it is taken out of ``left``."""
        if self._shared is None:
            return []
        pairs = await self._shared.upstreams_of(team_id, left[:SHARED_LOOKUPS_MAX])
        for object_id, _ in pairs:
            left.remove(object_id)
        return [OwnedObject(object_id, upstream, team_id, "", "", 0) for object_id, upstream in pairs]

    async def _look(self, work: Awaitable[list[OwnedObject]]) -> list[OwnedObject]:
        try:
            return await self._database.within(LOOKUP_S_MAX, work)
        except (StoreError, TimeoutError) as error:
            raise LedgerUnavailable("Whose the named object is cannot be looked up now.") from error

    async def _claimed(self, team_id: str, object_ids: Sequence[str]) -> list[OwnedObject]:
        """What the ledger has as the team's. What was named to the team a moment ago may still be on its way there:
        until somebody has it, the ledger is asked again. Raises TimeoutError where it does not come.
        """
        found: list[OwnedObject] = []
        left = list(object_ids)
        for pause_s in CLAIM_LOOKS_S:
            await asyncio.sleep(pause_s)
            async with self._database.read() as connection:
                found += await owned_by(connection, team_id, left)
                known = {owned.object_id for owned in found}
                waited = {each: self._awaited(team_id, each) for each in left if each not in known}
                left = [each for each, upstreams in waited.items() if upstreams]
                if left:
                    taken = await upstreams_of(connection, left)
                    left = [each for each in left if not waited[each] <= taken[each]]
            if not left:
                return found
        raise TimeoutError

    def _awaited(self, team_id: str, object_id: str) -> set[str]:
        """The upstreams of which the ledger may get the object just now."""
        until_s = time.monotonic() - CLAIM_S_MAX
        named = self._named.get((team_id, object_id), {})
        return {upstream for upstream, at_s in named.items() if at_s > until_s}

    async def _page(
        self, team_id: str, kind: str, after: OwnedObject | None, *, ascending: bool, limit: int
    ) -> list[OwnedObject]:
        async with self._database.read() as connection:
            return await page_of(connection, team_id, kind, after=after, ascending=ascending, limit=limit)

    async def _delete(self, team_id: str, object_ids: Sequence[str]) -> None:
        async with self._database.transaction() as connection:
            await forget(connection, team_id, object_ids)


def _place(owned: OwnedObject) -> tuple[int, str]:
    """Where it stands in a list."""
    return owned.created_at_ms, owned.object_id
