"""Turns a key into a Principal, from a table in this process that follows the ledger's changes.

Each process reads the change counter every 0.4 s, so that a revoked key stops and a changed limit
holds within a second everywhere. A request makes no database access, but for a key that is well formed
and unknown: one look-up, so that a new key works at once, at most ``LOOKUPS_PER_S`` of them, and
misses are remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

from app.auth.keys import digest_of, parse
from app.auth.running import Running
from app.auth.throttle import FailureThrottle
from app.core.clock import Clock
from app.core.errors import InvalidAPIKey, TooManyFailedKeys
from app.core.identity import Principal
from app.store.cache import CacheClear
from app.store.changes import Changes, current_change, find_secret, rows_since
from app.store.database import Database
from app.store.errors import StoreError
from app.store.prices import SetPrice
from app.store.rows import KeyRow, SecretRow, TeamRow

POLL_INTERVAL_S = 0.4
LOOKUPS_PER_S = 20
LOOKUP_S_MAX = 0.7
"""What a request waits for, also where the ledger is mute."""
MISS_KEPT_S = 2.0
MISSES_MAX = 10_000
FAILURES_PER_MINUTE = 100
KEY_CHARS_MAX = 512

OnState = Callable[[bool, str], None]
OnCacheClears = Callable[[Sequence[CacheClear], int], None]
OnPrices = Callable[[Sequence[SetPrice]], None]
OnPauses = Callable[[frozenset[str]], None]


class Authenticator:
    """Knows every live secret. ``on_state`` is told when the ledger stops or starts answering; ``on_cache_clears``,
    at the start and with every change, what was cleared of the cache since, and the number of the change reached;
    ``on_prices`` all prices that are set, whenever one changes, ``on_pauses`` likewise all upstreams that are paused.

    A key that is revoked begins nothing more; a secret that is revoked also ends what is ``running`` with it.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        on_state: OnState,
        on_cache_clears: OnCacheClears = lambda _, __: None,
        on_prices: OnPrices = lambda _: None,
        on_pauses: OnPauses = lambda _: None,
        is_trusted_proxy: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.running = Running()
        self._database = database
        self._clock = clock
        self._on_state = on_state
        self._on_cache_clears = on_cache_clears
        self._on_prices = on_prices
        self._on_pauses = on_pauses
        self._throttle = FailureThrottle(clock, per_minute=FAILURES_PER_MINUTE, is_trusted_proxy=is_trusted_proxy)
        self._teams: dict[str, TeamRow] = {}
        self._keys: dict[str, KeyRow] = {}
        self._secrets: dict[str, SecretRow] = {}
        self._by_key: dict[str, set[str]] = {}
        self._by_team: dict[str, set[str]] = {}
        self._principals: dict[bytes, Principal] = {}
        self._change = -1
        self._following = asyncio.Lock()
        self._up = True
        self._misses: OrderedDict[bytes, float] = OrderedDict()
        self._lookups = (0, 0)
        self._looking: dict[str, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Authenticator(secrets={len(self._principals)}, change={self._change}, up={self._up})"

    async def start(self) -> None:
        """Read everybody once, then follow. Raises StoreError where the ledger cannot be read."""
        await self._follow()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="change-feed")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def team_ids(self) -> list[str]:
        """All teams, as of the last change that was read."""
        return list(self._teams)

    async def authenticate(self, credential: str | None, peer: str) -> Principal:
        """The principal of a key. Raises InvalidAPIKey (one answer for every reason) or TooManyFailedKeys."""
        if credential is not None and len(credential) <= KEY_CHARS_MAX:
            digest = digest_of(credential)
            found = self._live(digest)
            if found is None and (secret_id := parse(credential)) is not None:
                await self._look_up_once(secret_id, digest, peer)
                found = self._live(digest)
            if found is not None:
                return found
        if self._throttle.failed(peer):
            raise TooManyFailedKeys(retry_after_ms=self._throttle.over_in_ms)
        raise InvalidAPIKey

    def of_secret(self, secret_id: str) -> Principal | None:
        """The principal of a living secret; None where it is not, or not any more."""
        secret = self._secrets.get(secret_id)
        return None if secret is None else self._live(secret.digest)

    def _live(self, digest: bytes) -> Principal | None:
        found = self._principals.get(digest)
        if found is None or (found.expires_at_ms is not None and found.expires_at_ms <= self._clock.now_ms()):
            return None
        return found

    # -- wrong keys ---------------------------------------------------------------------------

    def _may_look_up(self, digest: bytes, peer: str) -> bool:
        if self._throttle.is_over(peer):
            return False
        now_s = self._clock.monotonic_s()
        missed_s = self._misses.get(digest)
        if missed_s is not None and now_s - missed_s < MISS_KEPT_S:
            return False
        second, count = self._lookups
        if second != int(now_s):
            second, count = int(now_s), 0
        if count >= LOOKUPS_PER_S:
            return False
        self._lookups = (second, count + 1)
        return True

    async def _look_up_once(self, secret_id: str, digest: bytes, peer: str) -> None:
        """One look-up for all who come with the same new key at once: the first thing that it does may be a burst."""
        looking = self._looking.get(secret_id)
        if looking is None:
            if not self._may_look_up(digest, peer):
                return
            looking = self._looking[secret_id] = asyncio.ensure_future(self._look_up(secret_id, digest))
            looking.add_done_callback(lambda _: self._looking.pop(secret_id, None))
        # One whose client leaves does not end it for the others.
        await asyncio.shield(looking)

    async def _look_up(self, secret_id: str, digest: bytes) -> None:
        if secret_id in self._secrets:
            return
        try:
            known = await self._database.within(LOOKUP_S_MAX, self._find(secret_id))
        except (StoreError, TimeoutError) as error:
            self._tell(up=False, reason=type(error).__name__)
            return
        if not known:
            self._misses[digest] = self._clock.monotonic_s()
            if len(self._misses) > MISSES_MAX:
                self._misses.popitem(last=False)

    async def _find(self, secret_id: str) -> bool:
        async with self._database.read() as connection:
            known = await find_secret(connection, secret_id) is not None
        if known:
            # Somebody has just been added: take in whatever changed, this secret among it.
            await self._follow()
        return known

    # -- the change feed ----------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                await self._follow()
            except Exception as error:  # noqa: BLE001 - without the feed a revoked key would work for ever
                # The keys that are known go on working; who is revoked meanwhile cannot be known.
                self._tell(up=False, reason=type(error).__name__)

    async def _follow(self) -> None:
        """Take in what has changed; an ordinary look costs one read of one row."""
        # One at a time: a reader that is late would bring back what a quicker one has seen revoked.
        async with self._following, self._database.read() as connection:
            if await current_change(connection) > self._change:
                changes = await rows_since(connection, self._change)
                self._apply(changes)
                self._on_cache_clears(changes.cache_clears, changes.change)
                if changes.prices is not None:
                    self._on_prices(changes.prices)
                if changes.paused is not None:
                    self._on_pauses(changes.paused)
                self._change = changes.change
        self._tell(up=True, reason="")

    def _apply(self, changes: Changes) -> None:
        touched: set[str] = set()
        for team in changes.teams:
            self._teams[team.id] = team
            touched |= self._by_team.get(team.id, set())
        for key in changes.keys:
            self._keys[key.id] = key
            self._by_team.setdefault(key.team_id, set()).add(key.id)
            touched.add(key.id)
        for secret in changes.secrets:
            self._secrets[secret.id] = secret
            self._by_key.setdefault(secret.key_id, set()).add(secret.id)
            touched.add(secret.key_id)
            if secret.revoked_at_ms is not None:
                self.running.revoke(secret.id)
        for key_id in touched:
            for secret_id in self._by_key.get(key_id, ()):
                self._rebuild(self._secrets[secret_id])

    def _rebuild(self, secret: SecretRow) -> None:
        key = self._keys.get(secret.key_id)
        team = self._teams.get(key.team_id) if key is not None else None
        if key is None or team is None or key.revoked_at_ms is not None or secret.revoked_at_ms is not None:
            self._principals.pop(secret.digest, None)
            return
        expiries = [at for at in (key.expires_at_ms, secret.expires_at_ms) if at is not None]
        self._misses.pop(secret.digest, None)
        self._principals[secret.digest] = Principal(
            team_id=team.id,
            team_name=team.name,
            key_id=key.id,
            key_name=key.name,
            secret_id=secret.id,
            key_limits=key.limits,
            team_limits=team.limits,
            models=key.models,
            endpoints=team.endpoints if key.endpoints is None else key.endpoints,
            expires_at_ms=min(expiries, default=None),
            cache=key.cache_mode,
            tags=key.tags,
        )

    def _tell(self, *, up: bool, reason: str) -> None:
        if up != self._up:
            self._up = up
            self._on_state(up, reason)
